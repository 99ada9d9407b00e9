// The exec command end to end: results as JSON with the fields that docs/exec.md has, exit codes, and errors of bad input.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { decodeProfile } from "../../traces/profile-file.ts"
import { describeNative } from "../native/addon.ts"
import { exec, execEach, root, sim } from "./launch.ts"

const page = readFileSync(path.join(root, "docs/exec.md"), "utf8")
const folder = mkdtempSync(path.join(tmpdir(), "exec-cli-"))

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

const scenario = "scenarios/agree/data-parallel.yaml"

/** Fields of the table under a command's heading. */
const documented = (command: string): ReadonlySet<string> => {
  const begin = page.indexOf(`## \`exec ${command}`)
  expect(begin, command).toBeGreaterThan(0)
  const end = page.indexOf("\n## ", begin)
  const section = page.slice(begin, end < 0 ? undefined : end)
  return new Set(
    section
      .split("\n")
      .filter((line) => line.startsWith("| `"))
      .flatMap((line) => [...line.split("|")[1]!.matchAll(/`(\w+)/gu)].map((match) => match[1]!))
  )
}
/** What a command that ended well told as JSON: no field that its page lacks. */
const told = (
  command: string,
  { status, stdout, stderr }: ReturnType<typeof exec>
): Record<string, unknown> => {
  expect(status, stderr).toBe(0)
  const result = JSON.parse(stdout) as Record<string, unknown>
  // What a measurement cannot mean depends on what else the cores do; of all else there is nothing to warn of.
  const measures = command === "bench" || command === "profile"
  const { warnings = [] } = (measures ? result : {}) as { readonly warnings?: ReadonlyArray<string> }
  expect(stderr).toBe(warnings.map((warning) => `exec: warning: ${warning}\n`).join(""))
  const fields = documented(command)
  expect(Object.keys(result).filter((field) => !fields.has(field))).toEqual([])
  return result
}
const json = (command: string, ...args: ReadonlyArray<string>): Record<string, unknown> =>
  told(command, exec(command, ...args, "--json"))

describe("exec", () => {
  it("has every command on its page", () => {
    const { status, stdout } = exec("--help")
    expect(status).toBe(0)
    const commands = [...stdout.matchAll(/^ {2}(\w+) (?:\[options\] )?(?:<| {2})/gmu)].map(
      (match) => match[1]!
    )
    expect(commands).toEqual(expect.arrayContaining(["info", "train", "profile", "bench", "agree"]))
    for (const command of commands) expect(page).toContain(`## \`exec ${command}`)
  })

  const refusals = [
    [["train", "nowhere.yaml"], /^exec: nowhere\.yaml: /u],
    [["train", scenario, "--steps", "0"], /^exec: .*--steps.*at least 1/u],
    [["train", scenario, "--steps", "99999999999999999999"], /^exec: .*--steps.*from 1 to 10000000/u],
    [["bench", "--ranks", "1000001"], /^exec: .*--ranks.*from 2 to 1000000/u],
    [["train", scenario, "--set", "batch=x"], /^exec: --set batch=x: model\.gpt2\.batch: /u],
    [["train", scenario, "--text", "nowhere.txt"], /training\.text: nowhere\.txt|training\.text/u],
    [["train", "scenarios/geo-gpt2.yaml"], /model: .*expected an architecture, whose kernels can be run/u],
    [["train", scenario, "--set", "vocabulary=40"], /63 different characters.*vocabulary of 40/u],
    [["train", scenario, "--set", "heads=3"], /width 16 is not a multiple of heads 3/u],
    [["agree", scenario, "--what"], /^exec: unknown option/u],
    [["fly"], /^exec: unknown command/u]
  ] as const
  it("refuses what it cannot do, with exit code 2 and one message", () => {
    const ended = execEach(refusals.map(([args]) => args))
    expect(ended).toHaveLength(refusals.length)
    for (const [at, [args, message]] of refusals.entries()) {
      const { status, stdout, stderr } = ended[at]!
      expect(stderr).toMatch(message)
      expect(stderr).not.toMatch(/\n {4}at /u)
      expect({ status, stdout }, args.join(" ")).toEqual({ status: 2, stdout: "" })
    }
    // As a process of its own does, too.
    expect(exec("fly").status).toBe(2)
  })
})

describeNative("exec on this machine", () => {
  it("tells what there is", () => {
    const { status, stdout } = exec("info", "--json")
    expect(status).toBe(0)
    const { host, native } = JSON.parse(stdout) as Record<string, Record<string, unknown>>
    expect(host!["cores"]).toBeGreaterThan(0)
    expect(native!["built"]).toBe(true)
    expect(exec("info").stdout).toContain("kernels")
  })

  it("tells of a backend that is none what may be asked for, and of none that is for tests", () => {
    const { status, stderr } = exec("train", scenario, "--backend", "gpu")
    expect(status).toBe(2)
    expect(stderr).toMatch(
      /^exec: --backend: gpu is not accepted; expected auto, cpu, cuda(?: \(not here; exec info says why\))?\n$/u
    )
  })

  it("trains, and its loss falls", () => {
    writeFileSync(path.join(folder, "ab.txt"), "abcabcabd".repeat(200))
    const result = json(
      "train",
      scenario,
      "--set",
      "optimizer={name: adamw, learningRate: 0.01}",
      "--set",
      "algorithm=ddp",
      "--steps",
      "60",
      "--evaluate-every",
      "30",
      "--text",
      path.join(folder, "ab.txt")
    )
    const losses = result["losses"] as ReadonlyArray<{ step: number; loss: number }>
    expect(losses.map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
    expect(losses[0]!.loss).toBeCloseTo(Math.log(64), 0)
    expect(losses.at(-1)!.loss).toBeLessThan(1.5)
    const heldOut = result["heldOutLosses"] as typeof losses
    expect(heldOut.map(({ step }) => step)).toEqual([30, 60])
    expect(heldOut[1]!.loss).toBeLessThan(heldOut[0]!.loss)
    expect(result["tokens"]).toBe(60 * 2 * 2 * 16)
  })

  it("agrees with the simulator, and writes both timelines", () => {
    const timeline = path.join(folder, "both.json")
    const { status, stdout, stderr } = exec("agree", scenario, "--json", "--timeline", timeline)
    expect(status, stdout).toBe(0)
    expect(stderr).toContain(`wrote ${timeline}`)
    const result = JSON.parse(stdout) as Record<string, unknown>
    expect(result).toMatchObject({ decisions: true, values: true, order: true, firstDisagreement: null })
    expect(result["timeError"]).toBeTypeOf("number")
    const trace = JSON.parse(readFileSync(timeline, "utf8")) as {
      traceEvents: ReadonlyArray<{ name: string; args?: { name?: string } }>
    }
    const processes = trace.traceEvents
      .filter(({ name }) => name === "process_name")
      .map(({ args }) => args?.name)
    expect(processes).toEqual(["simulated rank 0", "simulated rank 1", "executed rank 0", "executed rank 1"])
    expect(stdout).toContain('"elements": 0')
    const [streaming, narrow, plain] = execEach([
      ["agree", "scenarios/agree/streaming-diloco.yaml"],
      ["agree", scenario, "--set", "algorithm=s-sgd", "--set", "algorithm.wire=int8"],
      ["agree", scenario, "--json"]
    ])
    expect(streaming!.stdout).toMatch(/decisions {2}agree/u)
    // A few of 64,000 are rounded to another side here than there.
    const turned = /values {5}agree .*\n {11}\d{1,2} of \d{5} elements that came over narrow wires/u
    expect(narrow!.stdout).toMatch(turned)
    expect(told("agree", plain!)["horizon"]).toBeNull()
  })

  it("holds two machines to each other however long they train, though updates turn", () => {
    const long = [
      "--set",
      "steps=24",
      "--set",
      "algorithm=ddp",
      "--set",
      "training.optimizer={name: adamw, learningRate: 3e-2}"
    ]
    const result = json("agree", scenario, ...long)
    expect(result).toMatchObject({ decisions: true, values: true, order: true, firstDisagreement: null })
    expect(result["horizon"]).toBeNull()
    expect(result["comparedTensors"]).toBeGreaterThan(100)
    const updates = result["updates"] as { elements: number; turned: number }
    // Of a key's bias all may, of all others few.
    expect(updates.elements).toBeGreaterThan(100_000)
    expect(updates.turned).toBeLessThan(updates.elements / 100)
  })

  it("generates with few experts on the device what it does with all, and serves with a compressed cache", () => {
    const offload = "scenarios/agree/expert-offload.yaml"
    const result = json("generate", offload, "--verify", "--set", "slotsPerLayer=1", "--set", "algorithm=lru")
    expect(result["identical"]).toBe(true)
    expect(result["missing"]).toBeGreaterThan(10)
    const peak = (field: string) => (result[field] as { device: number }).device
    expect(peak("peakBytes")).toBeLessThan(peak("uncappedPeakBytes"))
    const served = json("generate", "scenarios/agree/kv-serving.yaml")
    const requests = served["requests"] as ReadonlyArray<{
      promptTokens: number
      keptRows: ReadonlyArray<number>
    }>
    expect(requests).toHaveLength(5)
    for (const { promptTokens, keptRows } of requests)
      for (const rows of keptRows) expect(rows).toBeLessThan(promptTokens)
    expect(exec("generate", scenario).stderr).toMatch(/a task that generates: expert-offload or kv-serving/u)
  })

  it("agrees on every family, and on models in parts and with activations computed again", () => {
    const tasks = ["expert-offload", "kv-serving", "moe-training", "sharded", "recompute"]
    const all = execEach(tasks.map((task) => ["agree", `scenarios/agree/${task}.yaml`]))
    expect(all).toHaveLength(tasks.length)
    for (const [at, { status, stdout }] of all.entries()) {
      expect(stdout, tasks[at]).toMatch(/decisions {2}agree\nvalues {5}agree .*\norder {6}legal/u)
      expect(status, tasks[at]).toBe(0)
    }
  })

  it("runs out of memory with a sentence and exit code 1", () => {
    const { status, stderr } = exec("train", scenario, "--set", "memory={device: 100kB}")
    expect(status).toBe(1)
    expect(stderr).toMatch(/^exec: rank \d: tensor ".*" needs \d+ B of device memory/u)
  })

  it("tells what it found out where its file cannot be written, and then that", () => {
    const told = {
      bench: ["bench", "--out"],
      agree: ["agree", scenario, "--timeline"],
      train: ["train", scenario, "--steps", "1", "--out"]
    }
    const fields = { bench: "kernels", agree: "decisions", train: "losses" } as const
    for (const [command, args] of Object.entries(told)) {
      const { status, stdout, stderr } = exec(...args, "/dev/full", "--json")
      expect(status, command).toBe(2)
      expect(stderr, command).toMatch(/^exec: \/dev\/full: .*ENOSPC/mu)
      expect(JSON.parse(stdout), command).toHaveProperty(fields[command as keyof typeof fields])
    }
  })

  it("profiles what the simulator then reads and plans with", () => {
    const profile = path.join(folder, "tiny.arrow")
    const result = json("profile", scenario, "-o", profile, "--steps", "3", "--set", "jitter=0.1")
    const [ignored, ...notes] = result["warnings"] as ReadonlyArray<string>
    expect(ignored).toMatch(/^jitter has no effect/u)
    // What the measurement cannot mean is in the file too, for whoever has that alone.
    const { notes: kept = [] } = decodeProfile(profile, readFileSync(profile))
    expect(kept).toEqual(notes)
    expect(result["layers"]).toBeGreaterThan(5)
    expect(result["stepSeconds"]).toBeGreaterThan(0)
    const { status, stdout, stderr } = sim(
      "run",
      scenario,
      "--set",
      `model={profile: ${profile}}`,
      "--set",
      `collectives.measured=${profile}`,
      "--json"
    )
    expect(status, stderr).toBe(0)
    const simulated = JSON.parse(stdout) as { computeSeconds: number; warnings: ReadonlyArray<string> }
    expect(simulated.warnings).toEqual(expect.arrayContaining(notes.map((note) => `${profile}: ${note}`)))
    expect(simulated.computeSeconds / (result["stepSeconds"] as number)).toBeCloseTo(1, 6)
    const [planned, ...others] = execEach([
      ["train", scenario, "--plan-from", profile, "--steps", "2"],
      ["train", scenario, "--set", "layers=2", "--plan-from", profile],
      ["train", scenario, "--set", "vocabulary=65", "--plan-from", profile]
    ])
    expect(planned!.status).toBe(0)
    for (const { stderr } of others)
      expect(stderr).toMatch(
        /expected a profile of the scenario's gpt2 with its \d+ layers and their parameters/u
      )
  })
})

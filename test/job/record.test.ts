// exec agree through the command line: over processes, kept in a folder, and compared from there; and folders that will not do.
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, expect, it } from "vitest"
import { readRecord } from "../../exec/record-folder.ts"
import { readProfile } from "../../traces/profile-file.ts"
import { exec as warmExec, execEach, root } from "../cli/launch.ts"
import { describeNative } from "../native/addon.ts"

const folder = mkdtempSync(path.join(tmpdir(), "exec-record-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const execIn = (
  env: NodeJS.ProcessEnv,
  command: string,
  scenario: string,
  ...args: ReadonlyArray<string>
) => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(root, "bin/exec.js"), command, `scenarios/agree/${scenario}.yaml`, ...args],
    { cwd: root, encoding: "utf8", env }
  )
  return { status, stdout, stderr }
}
const exec = (command: string, scenario: string, ...args: ReadonlyArray<string>) =>
  warmExec(command, `scenarios/agree/${scenario}.yaml`, ...args)
const agree = (scenario: string, ...args: ReadonlyArray<string>) => exec("agree", scenario, ...args)
/** The same with each of several options, in one process. */
const agreeEach = (scenario: string, options: ReadonlyArray<ReadonlyArray<string>>) =>
  execEach(options.map((one) => ["agree", `scenarios/agree/${scenario}.yaml`, ...one]))

describeNative("exec agree", () => {
  it("runs each rank in a process, keeps the run, and compares it from its folder", async () => {
    const kept = path.join(folder, "kept")
    const first = agree("moe-training", "--processes", "4", "--set", "steps=1", "--record", kept, "--json")
    expect(first.status, first.stderr).toBe(0)
    expect(first.stderr).toContain("a job of 4 processes")
    const result = JSON.parse(first.stdout) as Record<string, unknown>
    expect(result).toMatchObject({
      ranks: 4,
      decisions: true,
      values: true,
      order: true,
      firstDisagreement: null,
      warnings: [expect.stringMatching(/^links have no effect between processes/u)]
    })
    const about = JSON.parse(readFileSync(path.join(kept, "run.json"), "utf8")) as Record<string, unknown>
    const sumsIn = async (where: string) =>
      (await Effect.runPromise(readRecord(where, about as unknown as Parameters<typeof readRecord>[1]))).sums
    expect(await sumsIn(kept)).toBe("once")
    // One that does not say, as of versions before.
    const silent = path.join(folder, "silent")
    cpSync(kept, silent, { recursive: true })
    const { sums: _, sha256: __, ...rest } = about
    writeFileSync(path.join(silent, "run.json"), JSON.stringify(rest))
    expect(await sumsIn(silent)).toBe("each")
    const damaged = path.join(folder, "damaged")
    cpSync(kept, damaged, { recursive: true })
    writeFileSync(path.join(damaged, "journal.arrow"), "ARROW1")
    // Comparing runs nothing: once, and where nothing could be run.
    const without = ["--set", "steps=1", "--from", kept, "--json"]
    const [again, other, onto, broken, apart] = agreeEach("moe-training", [
      without,
      ["--set", "steps=2", "--from", kept],
      ["--set", "steps=1", "--from", kept, "--timeline", path.join(kept, "run.json")],
      ["--set", "steps=1", "--from", damaged],
      ["--processes", "4", ...without]
    ])
    expect(again!.status, again!.stderr).toBe(0)
    // What warned of the run warns of no comparison.
    const compared = { ...result, warnings: [] }
    expect(JSON.parse(again!.stdout)).toEqual(compared)
    expect(other!.status).toBe(2)
    expect(other!.stderr).toMatch(
      /run\.json: scenarioDigest: .*expected a run of "agree-moe-training" with the same/u
    )
    expect(onto!.stderr).toMatch(/--timeline: .* expected a file of its own; it would replace what is read/u)
    expect(onto!.status).toBe(2)
    expect(broken!).toMatchObject({ status: 2 })
    expect(apart!).toMatchObject({ status: 2, stdout: "" })
    expect(apart!.stderr.match(/--from without --processes: nothing is run/gu)).toHaveLength(1)

    const elsewhere = execIn(
      { ...process.env, NODE_OPTIONS: "--no-addons" },
      "agree",
      "moe-training",
      ...without
    )
    expect(elsewhere.stderr).not.toContain("a job of")
    expect(JSON.parse(elsewhere.stdout)).toEqual(compared)
    const running = execIn({ ...process.env, NODE_OPTIONS: "--no-addons" }, "agree", "moe-training")
    expect(running).toMatchObject({ status: 2, stdout: "" })
    expect(running.stderr).toContain("the native addon does not load")
  })

  it("refuses a folder without a run, and to run what was run", () => {
    const noFile = path.join(folder, "no file")
    mkdirSync(path.join(noFile, "run.json"), { recursive: true })
    const [nothing, unread, twice, both] = agreeEach("data-parallel", [
      ["--from", folder],
      ["--from", noFile],
      ["--timeline", path.join(folder, "run.json"), "--record", folder],
      ["--from", folder, "--record", folder]
    ])
    const vain = ["--transport tcp", "--rendezvous-timeout 3", "--backend cpu", "--emulate-device"]
    const alone = agreeEach(
      "data-parallel",
      vain.map((option) => ["--from", folder, ...option.split(" ")])
    )
    for (const [at, option] of vain.entries()) {
      expect(alone[at]!.status).toBe(2)
      expect(alone[at]!.stderr).toContain(`--from without ${option.split(" ")[0]!}: nothing is run`)
    }
    expect(nothing!.status).toBe(2)
    expect(nothing!.stderr).toMatch(/run\.json: expected a folder that exec agree --record wrote to its end/u)
    expect(unread!.stderr).toMatch(/run\.json: a folder is not accepted; expected a file that can be read/u)
    expect(unread!.status).toBe(2)
    expect(twice!.stderr).toMatch(/--record: .*it would replace that of --timeline/u)
    expect(both!.stderr).toContain("--from without --record")
    expect(both!.status).toBe(2)
  })
})

it("refuses a record that says wrongly of what it is, by the field", async () => {
  const where = path.join(folder, "said")
  mkdirSync(where)
  const file = path.join(where, "run.json")
  const of = { scenario: "s", scenarioDigest: "d", ranks: 2 }
  const bytes = { device: 1, host: 0 }
  const good = {
    format: "tandem-run",
    version: 1,
    ...of,
    makespanSeconds: 1,
    clockErrorSeconds: 0,
    realLinks: true,
    peakBytes: [0, 1].map((rank) => ({ rank, bytes })),
    capacityBytes: { device: null, host: 5 }
  }
  const refusal = async (text: string) => {
    writeFileSync(file, text)
    return String(await Effect.runPromise(Effect.flip(readRecord(where, of))))
  }
  const changed = (change: object) => refusal(JSON.stringify({ ...good, ...change }))
  expect(await changed({})).toContain("journal.arrow")
  expect(await changed({ sums: "twice" })).toContain(
    `${file}: sums: "twice" is not accepted; expected once or each`
  )
  expect(await changed({ makespanSeconds: -1 })).toContain(
    `${file}: makespanSeconds: -1 is not accepted; expected a number, at least 0`
  )
  expect(await changed({ capacityBytes: { device: null } })).toContain("capacityBytes.host: expected")
  expect(await changed({ ranks: 3 })).toContain("ranks: 3 is not accepted; expected the 2 of the scenario")
  for (const ranks of [[0], [0, 0], [0, 2]])
    expect(await changed({ peakBytes: ranks.map((rank) => ({ rank, bytes })) })).toContain(
      `peakBytes: of ranks ${ranks.join(", ")} is not accepted; expected of each of the 2 ranks, once`
    )
  expect(await refusal("{,}")).toMatch(/run\.json: Expected property name .*; expected JSON, as/u)
})

describeNative("a job of processes", () => {
  it("generates what threads generate", () => {
    const tokens = (...args: ReadonlyArray<string>) => {
      const { status, stdout, stderr } = exec("generate", "kv-serving", "--json", ...args)
      expect(status, stderr).toBe(0)
      const { requests } = JSON.parse(stdout) as { readonly requests: ReadonlyArray<Record<string, unknown>> }
      return requests.map(({ tokens }) => tokens)
    }
    const apart = tokens("--processes", "2")
    expect(apart).toHaveLength(5)
    expect(apart).toEqual(tokens())
  })

  it("is profiled, with its collectives, on an emulated device", async () => {
    const out = path.join(folder, "profile.arrow")
    const more = ["--processes", "2", "--emulate-device", "--set", "device.flops=0.1GFLOP/s", "--steps", "2"]
    const { status, stdout, stderr } = exec("profile", "data-parallel", "-o", out, "--json", ...more)
    expect(status, stderr).toBe(0)
    const told = JSON.parse(stdout) as { readonly stepSeconds: number; readonly layers: number }
    const profile = await Effect.runPromise(readProfile(out))
    expect(profile.source).toMatch(/2 processes computing at the same time .*; --emulate-device on /u)
    expect(profile.device).toBe("processor core")
    expect(profile.layers).toHaveLength(told.layers)
    expect(profile.collectives.map(({ ranks }) => ranks)).toContain(2)
    // What a device of 0.1 GFLOP/s takes for a step of this model, at least: 6 FLOPs for each of 32 tokens and some 4,000 weights.
    expect(told.stepSeconds).toBeGreaterThan((6 * 32 * 4000) / 1e8)
    expect(profile.ops?.some(({ op }) => op === "h2d")).toBe(false)
  })
})

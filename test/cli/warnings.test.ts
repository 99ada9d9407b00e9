// No knob is turned in vain without a word: what exec, explain and schedule say of fields that have no effect.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { decodeProfile, encodeProfile } from "../../traces/profile-file.ts"
import { describeNative } from "../native/addon.ts"
import { execEach, root, sim } from "./launch.ts"

const exec = (environment: Readonly<Record<string, string>>, ...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, ["bin/exec.js", ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, ...environment }
  })

/** Each field that a real run does not go by, what sets it, and whether the simulator beside it does. */
const vain: ReadonlyArray<readonly [task: string, field: string, set: string, evenWhenSimulated: boolean]> = [
  ["data-parallel", "faults", "faults=[{straggler: 0, speed: 0.5}]", true],
  ["data-parallel", "jitter", "jitter=0.1", true],
  ["data-parallel", "network", "network=alpha-beta", false],
  ["data-parallel", "collectives.measured", "collectives.measured=x.arrow", true],
  ["data-parallel", "collectives.inside", "collectives.inside=x.arrow", true],
  ["data-parallel", "collectives.slowdownInside", "collectives.slowdownInside=1.2", true],
  [
    "data-parallel",
    "shard.parameterDtype",
    "shard={within: world, parameterDtype: bfloat16};training.precision=float32",
    false
  ],
  ["data-parallel", "training.lossScale", "training.lossScale={initial: 1024}", true],
  [
    "data-parallel",
    "training.synchronize",
    "training={accumulate: 2, synchronize: each};algorithm=local-sgd",
    true
  ],
  ["data-parallel", "host", "host={mode: eager}", true],
  ["data-parallel", "costs", "costs=x.arrow", true],
  ["data-parallel", "precision", "precision=float16", true],
  ["moe-training", "faults", "faults=[{outage: 0, from: 1s, for: 1s}]", true],
  ["moe-training", "jitter", "jitter=0.1", true],
  ["moe-training", "network", "network=alpha-beta", false],
  ["moe-training", "routing", "routing={skew: 1}", true],
  ["data-parallel", "activations.by", "activations={by: fused}", false],
  ["data-parallel", "activations.by", "activations={by: eager, recompute: block}", false],
  ["data-parallel", "activations.output", "activations={by: eager, output: dropped}", false],
  ["expert-offload", "jitter", "jitter=0.1", true],
  ["expert-offload", "routing", "routing={trace: x.arrow}", true],
  ["expert-offload", "workload.tokenScheduler", "workload.tokenScheduler=true", true],
  ["expert-offload", "device", "algorithm=lru;device=NVIDIA A100", true],
  ["kv-serving", "faults", "faults=[{straggler: 0, speed: 0.5}]", true],
  ["kv-serving", "jitter", "jitter=0.1", true],
  ["kv-serving", "network", "network=alpha-beta", false],
  ["kv-serving", "objective", "objective.ttft=1s", true],
  ["kv-serving", "host", "host={mode: eager}", true],
  ["kv-serving", "costs", "costs={step: 1ms, token: 1us, prefill: 1TFLOP/s}", true],
  ["kv-serving", "device", "device=NVIDIA A100", true]
]

describe("a warning of exec", () => {
  it("is told in one place, which has it for the result as well", () => {
    const sources = readdirSync(path.join(root, "exec"), { recursive: true, encoding: "utf8" })
    const telling = sources.filter(
      (name) =>
        name.endsWith(".ts") &&
        /["'`](?:exec: )?warning: /u.test(readFileSync(path.join(root, "exec", name), "utf8"))
    )
    expect(telling).toEqual(["cli/command.ts"])
  })
})

describe("a real run", () => {
  it.each(vain)("of %s says that %s has no effect", (task, field, set, evenWhenSimulated) => {
    const warnings = (alsoSimulated: boolean, ...sets: ReadonlyArray<string>): ReadonlyArray<string> => {
      const scenario = Effect.runSync(loadScenario(`${root}/scenarios/agree/${task}.yaml`, sets))
      return familyOf(scenario).ignoredByExec(scenario, alsoSimulated)
    }
    const of = (told: ReadonlyArray<string>) => told.filter((warning) => warning.startsWith(`${field} `))
    expect(of(warnings(false))).toEqual([])
    expect(of(warnings(false, ...set.split(";")))).toHaveLength(1)
    expect(of(warnings(true, ...set.split(";")))).toHaveLength(evenWhenSimulated ? 1 : 0)
  })
})

describeNative("exec", () => {
  const set = ["--set", "jitter=0.1", "--set", "faults=[{straggler: 0, speed: 0.5}]"]

  /** What standard error warns of, if it says nothing else. */
  const warned = (stderr: string): ReadonlyArray<string> =>
    stderr
      .split("\n")
      .slice(0, -1)
      .map((line) => /^exec: warning: (.*)$/u.exec(line)?.[1] ?? `no warning: ${line}`)

  it("warns of the same on standard error and in the result, whatever the command", () => {
    const transport = ["--transport", "tcp", "--json"]
    const profile = path.join(mkdtempSync(path.join(tmpdir(), "warned-")), "profile.arrow")
    const lines = [
      ["agree", "scenarios/agree/data-parallel.yaml", ...set, ...transport],
      ["generate", "scenarios/agree/expert-offload.yaml", "--set", "jitter=0.1", ...transport],
      ["profile", "scenarios/agree/data-parallel.yaml", "-o", profile, "--steps", "1", ...set, ...transport]
    ]
    for (const [i, { status, stdout, stderr }] of execEach(lines).entries()) {
      expect(status, stderr).toBe(0)
      const { warnings } = JSON.parse(stdout) as { readonly warnings: ReadonlyArray<string> }
      expect(warnings, lines[i]![0]).toEqual(warned(stderr))
      expect(warnings).toContain("--transport has no effect: all ranks are in this process")
      expect(warnings.some((warning) => warning.startsWith("jitter has no effect"))).toBe(true)
    }
    rmSync(path.dirname(profile), { recursive: true })
  })

  it("warns at the start, and in its result", () => {
    const { stdout, stderr, status } = exec(
      {},
      "agree",
      "scenarios/agree/data-parallel.yaml",
      "--json",
      ...set
    )
    expect(status, stderr).toBe(0)
    expect(stderr).toMatch(
      /^exec: warning: faults have no effect: .*\nexec: warning: jitter has no effect: /u
    )
    expect((JSON.parse(stdout) as { warnings: ReadonlyArray<string> }).warnings).toHaveLength(2)
  })

  it("says of variables and options that they have no effect, and refuses words that mean nothing", () => {
    const train = ["train", "scenarios/agree/data-parallel.yaml", "--steps", "1"]
    const vain = [...train, "--transport", "tcp", "--rendezvous-timeout", "5"]
    const { status, stdout, stderr } = exec(
      { TANDEM_TRANSPRT: "tcp", SLURM_JOB_ID: "1", SLURM_NTASKS: "2" },
      ...vain,
      "--json"
    )
    expect(status, stderr).toBe(0)
    expect(warned(stderr)).toEqual([
      'environment: nothing reads TANDEM_TRANSPRT; did you mean "TANDEM_TRANSPORT"?',
      "--transport has no effect: all ranks are in this process",
      "--rendezvous-timeout has no effect: all ranks are in this process",
      expect.stringContaining("this Slurm job has 2 tasks, but srun has not started this")
    ])
    expect(JSON.parse(stdout)).toMatchObject({ warnings: warned(stderr) })
    const refused = exec({ TANDEM_TRANSPORT: "udp" }, ...train)
    expect(refused.status).toBe(2)
    expect(refused.stderr).toBe(
      'exec: environment: TANDEM_TRANSPORT: "udp" is not accepted; expected auto, tcp, ucx\n'
    )
  })

  it("evaluates on nothing for nobody who asks for it", () => {
    const { status, stderr } = exec(
      {},
      "train",
      "scenarios/agree/data-parallel.yaml",
      "--evaluate-every",
      "2",
      "--set",
      "training.heldOut=0"
    )
    expect(stderr).toBe(
      "exec: --evaluate-every: 2 is not accepted; expected text to evaluate on: none is held out (training.heldOut is 0)\n"
    )
    expect(status).toBe(2)
  })

  it("times nothing in each of several processes at once", () => {
    const job = { RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "127.0.0.1", MASTER_PORT: "29400" }
    const { status, stderr } = exec(job, "bench")
    expect(stderr).toBe(
      "exec: environment: 2 processes that torchrun has started is not accepted; expected one: exec bench times what one process has; exec profile times a job\n"
    )
    expect(status).toBe(2)
  })

  it("refuses a matrix library that cannot be loaded, rather than take another", () => {
    const environment = { TANDEM_BLAS: "/nowhere/libblas.so" }
    const { stderr, status } = exec(environment, "train", "scenarios/agree/data-parallel.yaml")
    expect(stderr).toMatch(
      /^exec: TANDEM_BLAS: .*\/nowhere\/libblas\.so.* is not accepted; expected own, openblas/u
    )
    expect(status).toBe(2)
  })
})

describe("sim", () => {
  it("says what a profile that a scenario names says against itself, and of what file", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "notes-"))
    try {
      const shipped = path.join(root, "traces/profiles/gpt2-h200.arrow")
      const noted = path.join(folder, "noted.arrow")
      const notes = ["a step took 1 ms to 9 ms", "ranks shared cores"]
      writeFileSync(noted, encodeProfile(noted, { ...decodeProfile(shipped, readFileSync(shipped)), notes }))
      const told = (...args: ReadonlyArray<string>): ReadonlyArray<string> =>
        (JSON.parse(sim(...args, "--json").stdout) as { warnings: ReadonlyArray<string> }).warnings
      const warnings = notes.map((note) => `${noted}: ${note}`)
      const run = ["run", "scenarios/geo-gpt2.yaml", "--set"]
      expect(told(...run, `model.profile=${noted}`)).toEqual(expect.arrayContaining(warnings))
      expect(told(...run, `model.profile=${shipped}`)).not.toContain(warnings[0])
      expect(told("doctor", noted)).toEqual(notes)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  const set = ["--set", "seed=3", "--set", "algorithm=ddp"]

  it.each(["explain", "schedule"])("%s warns too", (command) => {
    const warning = "seed has no effect: nothing is random while jitter is 0"
    const file = "scenarios/agree/data-parallel.yaml"
    expect(sim(command, file, ...set).stdout).toContain(`warnings\n  `)
    const { warnings } = JSON.parse(sim(command, file, "--json", ...set).stdout) as {
      readonly warnings: ReadonlyArray<string>
    }
    expect(warnings).toContain(warning)
  })

  it("explain says what was not measured, as run does", () => {
    const estimates = (command: string) => {
      const { stdout } = sim(command, "scenarios/geo-gpt2.yaml", "--json")
      return (JSON.parse(stdout) as { readonly estimates: ReadonlyArray<unknown> }).estimates
    }
    expect(estimates("explain")).toEqual(estimates("run"))
    expect(estimates("explain")).not.toEqual([])
    expect(sim("explain", "scenarios/geo-gpt2.yaml").stdout).toMatch(/^not measured\n {2}host: free \(/mu)
  })

  it("schedule says what of its plan was not measured, which is of what run says", () => {
    for (const line of [
      ["scenarios/gpt2-described.yaml", "--set", "algorithm=ddp", "--set", "model.gpt2.layers=2"],
      ["scenarios/agree/moe-training.yaml"]
    ]) {
      const estimates = (command: string) => {
        const { stdout } = sim(command, ...line, "--json")
        return (JSON.parse(stdout) as { readonly estimates: ReadonlyArray<{ readonly kernel: string }> })
          .estimates
      }
      const planned = estimates("schedule")
      expect(planned, line[0]).not.toEqual([])
      const known = new Set(estimates("run").map(({ kernel }) => kernel))
      for (const { kernel } of planned) expect(known, line[0]).toContain(kernel)
      expect(sim("schedule", ...line).stdout).toMatch(
        /^not measured\n(?: {2}.*\n)* {2}\S.*: (?:roofline|extrapolated) \(/mu
      )
    }
    const { stdout } = sim("schedule", "scenarios/geo-gpt2.yaml", "--json")
    expect(JSON.parse(stdout)).toMatchObject({ estimates: [] })
  })

  it("compare says once what was not measured of any, and otherwise of which", () => {
    const { stdout } = sim(
      "compare",
      "scenarios/geo-gpt2.yaml",
      "--set",
      "algorithm={name: diloco, period: 2}"
    )
    const told = /^not measured\n(?: {2}.*\n)+/mu.exec(stdout)?.[0] ?? ""
    expect(told.match(/^ {2}host: free \(/gmu)).toHaveLength(1)
    expect(told).toMatch(
      /^ {2}algorithm=\{name: diloco, period: 2\}: (?:.*, )?subtract(?:,.*| and .*)?: scaled \(/mu
    )
  })

  it("schedule warns of settings of MoE training with which the plan is the same", () => {
    const { stdout } = sim(
      "schedule",
      "scenarios/agree/moe-training.yaml",
      "--set",
      "algorithm.planner=lanes",
      "--json"
    )
    const { warnings } = JSON.parse(stdout) as { readonly warnings: ReadonlyArray<string> }
    expect(warnings).toContain("algorithm.planner has no effect: the plan is as with cases, here")
  })
})

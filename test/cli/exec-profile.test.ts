// A profile that exec makes drives every family in sim, end to end through both commands: what was timed here is what the
// simulation says an op takes.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, expect, it } from "vitest"
import { readProfile } from "../../traces/profile-file.ts"
import { describeNative } from "../native/addon.ts"
import { exec, execEach, sim, simEach } from "./launch.ts"

const folder = mkdtempSync(path.join(tmpdir(), "exec-profile-"))
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

interface Run {
  readonly estimates: ReadonlyArray<{
    readonly kernel: string
    readonly source: string
    readonly detail: string
  }>
  readonly makespanSeconds: number
}

type Line = ReadonlyArray<string>
/** What each of several command lines tells; a single one goes through the launcher. */
const told = (command: "exec" | "sim", lines: ReadonlyArray<Line>): ReadonlyArray<Run> => {
  const [one, each] = command === "exec" ? [exec, execEach] : [sim, simEach]
  const asked = lines.map((line) => [...line, "--json"])
  const ended = asked.length === 1 ? [one(...asked[0]!)] : each(asked)
  expect(ended).toHaveLength(lines.length)
  return ended.map(({ status, stdout, stderr }, at) => {
    expect(status, `${command} ${lines[at]!.join(" ")}: ${stderr}`).toBe(0)
    return JSON.parse(stdout) as Run
  })
}

/** Each family's scenario, and the setting that names its table of timed ops. */
const families = {
  "scenarios/agree/data-parallel.yaml": ["costs"],
  "scenarios/agree/kv-serving.yaml": ["costs.ops"],
  "scenarios/agree/expert-offload.yaml": ["costs"],
  "scenarios/agree/moe-training.yaml": ["costs.products.profile"]
} as const

const simulated = (file: keyof typeof families, profile: string): Line => {
  const [field, ...more] = families[file]
  const sets = [`${field}=${profile}`, ...more].flatMap((set) => ["--set", set])
  return ["run", file, ...sets]
}

const ofProducts = ({ estimates }: Run): ReadonlyArray<string> =>
  estimates
    .filter(({ kernel }) => /^(?:linear|attention|kv\.attention|expert_ffn|h2d)/u.test(kernel))
    .map(({ source }) => source)

describeNative("a profile that exec made", () => {
  it("of a bench drives every family: nothing is free, and no peak rates are needed", () => {
    const bench = path.join(folder, "bench.arrow")
    told("exec", [["bench", "-o", bench]])
    const files = Object.keys(families) as ReadonlyArray<keyof typeof families>
    const runs = told(
      "sim",
      files.map((file) => simulated(file, bench))
    )
    for (const [at, run] of runs.entries()) {
      const file = files[at]
      expect(run.makespanSeconds, file).toBeGreaterThan(0)
      const sources = new Set(run.estimates.map(({ source }) => source))
      expect(sources.has("free"), file).toBe(false)
      expect(sources.has("roofline"), file).toBe(false)
      for (const { detail } of run.estimates) expect(detail, file).not.toMatch(/lower bound/u)
    }
  })

  it("of a run has the very ops that its simulation asks for", () => {
    const files = [
      "scenarios/agree/kv-serving.yaml",
      "scenarios/agree/expert-offload.yaml",
      "scenarios/agree/moe-training.yaml"
    ] as const
    const profileOf = (file: string): string => path.join(folder, `${path.basename(file, ".yaml")}.arrow`)
    const made = told(
      "exec",
      files.map((file) => ["profile", file, "-o", profileOf(file)])
    ) as ReadonlyArray<unknown> as ReadonlyArray<{ readonly ops: number }>
    const runs = told(
      "sim",
      files.map((file) => simulated(file, profileOf(file)))
    )
    for (const [at, file] of files.entries()) {
      expect(made[at]!.ops).toBeGreaterThan(10)
      const run = runs[at]!
      expect(run.makespanSeconds).toBeGreaterThan(0)
      // Routing and arrivals differ from those of the real run, so some sizes do; nothing is unknown.
      expect(new Set(ofProducts(run)).has("roofline"), file).toBe(false)
      expect(new Set(ofProducts(run)).has("free"), file).toBe(false)
      const exact = run.estimates.every(({ kernel }) => kernel !== "rms_norm.forward")
      if (file.includes("moe-training")) expect(exact, file).toBe(true)
    }
  })

  it("of a divided model has what its units' messages take beside its layers", async () => {
    const profile = path.join(folder, "sharded.arrow")
    const file = "scenarios/agree/sharded.yaml"
    const apart = ["--set", "world={ranks: 2}", "--set", "shard={within: world}"]
    const [together, between] = told("exec", [
      ["profile", file, "--steps", "2", "-o", profile],
      ["profile", file, ...apart, "--steps", "2", "-o", path.join(folder, "apart.arrow")]
    ])
    // Those who hold the model are of one node, or of two.
    expect(together).toHaveProperty("collectiveSlowdownInside")
    expect(together).toHaveProperty("collectiveSlowdown")
    expect(between).toHaveProperty("collectiveSlowdown")
    expect(between).not.toHaveProperty("collectiveSlowdownInside")
    const { collectives } = await Effect.runPromise(readProfile(profile))
    const beside = collectives.filter(({ besideSeconds }) => besideSeconds !== undefined)
    // Two ranks hold the model, and two have the same part of it.
    expect(new Set(beside.map(({ op, ranks }) => `${op} ${ranks}`))).toEqual(
      new Set(["all_reduce 2", "all_gather 2", "reduce_scatter 2"])
    )
    // Of float32, in halves: the padded matrices and vectors of a block (width 16, one of two heads' keys and values, feed-forward 32).
    const part = (16 * 16 * 3 + 3 * 16 * 32 + 2 * 128) * 2
    for (const op of ["all_gather", "reduce_scatter"])
      expect(beside.filter((row) => row.op === op).map(({ sizeBytes }) => sizeBytes)).toEqual([part])
    const stated = [
      `collectives.inside=${profile}`,
      `collectives.measured=${profile}`,
      `model={profile: ${profile}}`
    ]
    const [run] = told("sim", [["run", file, ...stated.flatMap((one) => ["--set", one])]])
    expect(run!.makespanSeconds).toBeGreaterThan(0)
  })

  it("of MoE training has what a step takes at every degree that its algorithm may choose, messages of one size too", async () => {
    const file = "scenarios/agree/moe-training.yaml"
    const profile = path.join(folder, "degrees.arrow")
    const fixed = ["--set", "model.capacityFactor=1"]
    told("exec", [["profile", file, ...fixed, "--steps", "1", "-o", profile]])
    // Messages beside products, of every size that they come in.
    const { collectives } = await Effect.runPromise(readProfile(profile))
    for (const op of ["all_to_all", "all_gather", "reduce_scatter"]) {
      const own = collectives.filter((row) => row.op === op)
      const beside = own.filter(({ besideSeconds }) => besideSeconds !== undefined)
      expect(own.length, op).toBeGreaterThan(0)
      expect(beside.length, op).toBe(own.length)
    }
    const all = ["products", "between", "inside"].map((tier) => `--set=costs.${tier}.profile=${profile}`)
    const chosen = ["forwardDegree: 1, backwardDegree: 1", "forwardDegree: 8, backwardDegree: 2"]
    const runs = told(
      "sim",
      chosen.map((degrees) => ["run", file, ...fixed, ...all, `--set=algorithm={name: fsmoe, ${degrees}}`])
    )
    for (const [at, { estimates }] of runs.entries()) {
      const degrees = chosen[at]
      // A plan cuts gradients into pieces of any size.
      const cut = ["host", "repack", "moe_rechunk", "all_reduce"]
      const others = estimates.filter(({ kernel }) => !cut.includes(kernel))
      expect(others, degrees).toEqual([])
    }
    const line = ["--set", `costs.between={profile: ${profile}, method: line}`]
    const refused = sim("run", file, ...fixed, ...line)
    expect(refused.status).toBe(2)
    expect(refused.stderr).toContain("costs.between.method: line")
  })
})

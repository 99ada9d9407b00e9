// A study of what to divide, compute again and take at once: compared by tokens, not by steps of unlike batches; the fastest that
// fits; and, of what does not fit, how much it would hold.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, describe, expect, it } from "vitest"
import { stringify } from "yaml"
import { formatBytes } from "../../core/units.ts"
import { simEach } from "../cli/launch.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { printStudy } from "../../sim/cli/print-study.ts"
import { renderReport } from "../../sim/report/page.ts"
import { runScenario } from "../../sim/run.ts"
import { fastestThatFit } from "../../sim/study/compared.ts"
import { loadStudy } from "../../sim/study/definition.ts"
import { reportOf } from "../../sim/study/report-of.ts"
import { headerOf, inOrder, type StudyResult, type StudyRow } from "../../sim/study/result.ts"
import { runPoints } from "../../sim/study/run-study.ts"
import { studyCsv } from "../../sim/study/study-file.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "fits-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const scenario = {
  name: "fits",
  model: {
    llama: { layers: 4, width: 1024, heads: 8, ffnWidth: 2816, vocabulary: 1000, context: 256, batch: 1 }
  },
  device: "NVIDIA H100",
  kernels: "eager",
  world: { ranks: 4, ranksPerNode: 4, links: { intra: { bandwidth: "100GB/s" } } },
  shard: { within: "node" },
  activations: { by: "eager" },
  algorithm: "ddp",
  steps: 1
}
const axes = {
  "activations.recompute": ["none", "block"],
  "shard.parameters": [true, false],
  "model.llama.batch": [1, 2, 4, 8]
}

let files = 0
const write = (more: Readonly<Record<string, unknown>>): string => {
  const file = path.join(folder, `${++files}.yaml`)
  fs.writeFileSync(file, stringify({ ...scenario, ...more }))
  return file
}

const compute = async (file: string): Promise<StudyResult> => {
  const definition = Effect.runSync(loadStudy(file))
  const finished = new Map<number, ReadonlyArray<StudyRow>>()
  await Effect.runPromise(runPoints(definition, finished, { jobs: 1 }))
  return { header: headerOf(definition), rows: inOrder(finished) }
}

const run = (file: string, sets: ReadonlyArray<string>) =>
  Effect.flatMap(loadScenario(file, sets), (one) => runScenario(one, file, { loader: new Loader() }))

const setsOf = ({ axes: at }: StudyRow): ReadonlyArray<string> =>
  Object.entries(at).map(([name, value]) => `${name}=${String(value)}`)

describe("a study with memory that is scarce", () => {
  it("finds the fastest that fits, as trying each point by itself does", async () => {
    const file = write({ memory: { device: "500MB" }, study: { axes } })
    const study = await compute(file)
    // Each point by itself without a limit: what it holds, and how many tokens a second.
    const unlimited = write({})
    const tried: Array<{ row: StudyRow; held: number; rate: number }> = []
    for (const row of study.rows) {
      const { result } = await Effect.runPromise(run(unlimited, setsOf(row)))
      const tokens = 256 * Number(row.axes["model.llama.batch"])
      const stepSeconds = Number(Reflect.get(result, "stepSeconds"))
      tried.push({ row, held: result.peakBytes.device, rate: tokens / stepSeconds })
    }
    const [fastest] = fastestThatFit(study.header, study.rows)
    const fit = tried.filter(({ held }) => held <= 500e6)
    expect(fit.length).toBeGreaterThan(2)
    expect(fit.length).toBeLessThan(tried.length - 2)
    expect([fastest!.fit, fastest!.points]).toEqual([fit.length, tried.length])
    const best = Math.max(...fit.map(({ rate }) => rate))
    const alike = fit.filter(({ rate }) => rate >= best / 1.001).toSorted((a, b) => a.held - b.held)
    expect(fastest!.row!.point).toBe(alike[0]!.row.point)
    expect(fastest!.heldBytes).toBe(alike[0]!.held)
    // It would be another by the time of a step, which a larger batch makes longer.
    const shortest = fit.toSorted((a, b) => stepOf(a.row) - stepOf(b.row))[0]!
    expect(shortest.row.axes["model.llama.batch"]).toBe(1)
    expect(fastest!.row!.axes["model.llama.batch"]).not.toBe(1)
    const text = printStudy(study)
    expect(text).toContain("tokens/s of a rank by")
    expect(text).toMatch(
      /fastest that fits, by tokens\/s of a rank\n {2}recompute \w+, parameters \w+, batch \d: /u
    )
    // Of each that does not fit: how much it holds.
    for (const { row, held } of tried) {
      if (held > 500e6) {
        expect(row.failure!.kind).toBe("OutOfMemory")
        expect(row.failure!.reason).toContain(`holds up to ${formatBytes(held)}: does not fit 500 MB`)
      } else expect(row.failure).toBeUndefined()
    }
    const head = studyCsv(study).split("\r\n")[0]!.split(",")
    expect(head).toContain("tokensPerSecond")
    const html = renderReport(reportOf(study, { command: "", version: "", timelines: [] }))
    expect(html).toContain("tokens/s of a rank")
  })

  it("says so under each condition, and where nothing fits", async () => {
    const study = await compute(
      write({
        memory: { device: "500MB" },
        study: {
          axes: { "world.links.intra.bandwidth": ["1GB/s", "100GB/s"], "model.llama.batch": [1, 2, 64] }
        }
      })
    )
    const both = fastestThatFit(study.header, study.rows)
    expect(both.map(({ conditions }) => conditions)).toEqual([
      { "world.links.intra.bandwidth": "1GB/s" },
      { "world.links.intra.bandwidth": "100GB/s" }
    ])
    for (const { points, fit } of both) expect([points, fit]).toEqual([3, 2])
    const none = await compute(
      write({ memory: { device: "2MB" }, study: { axes: { "model.llama.batch": [1, 2] } } })
    )
    expect(printStudy(none)).toContain("none (0 of 2 points fit)")
  })

  it("is compared by steps as ever where steps do the same work", async () => {
    const study = await compute(write({ study: { axes: { "activations.recompute": ["none", "block"] } } }))
    const text = printStudy(study)
    expect(text).not.toContain("tokens/s")
    expect(text).not.toContain("fastest that fits")
  })
})

const stepOf = (row: StudyRow): number => Number(Reflect.get(row, "stepSeconds"))

describe("a run whose memory does not suffice", () => {
  it("tells what it would hold, of every algorithm", async () => {
    const file = write({})
    for (const algorithm of ["ddp", "diloco", "dreamddp"]) {
      const one = [`algorithm=${algorithm}`]
      const { result } = await Effect.runPromise(run(file, one))
      const held = result.peakBytes.device
      const error = await Effect.runPromise(Effect.flip(run(file, [...one, "memory.device=1MB"])))
      expect(error).toMatchObject({ _tag: "OutOfMemory", heldBytes: held })
      // To the byte: with that much it runs, with one less it does not.
      await Effect.runPromise(run(file, [...one, `memory.device=${held}B`]))
      const less = await Effect.runPromise(Effect.flip(run(file, [...one, `memory.device=${held - 1}B`])))
      expect(less).toMatchObject({ _tag: "OutOfMemory", heldBytes: held })
    }
  })
})

describe("sim run --json", () => {
  it("answers whether it fits, with how much it holds either way", () => {
    const file = write({})
    const ask = ["run", file, "--json", "--set", "activations.recompute=none"]
    const [small, large] = simEach([
      [...ask, "--set", "memory.device=1MB"],
      [...ask, "--set", "memory.device=1GB"]
    ])
    const no = JSON.parse(small!.stdout) as { details: unknown; failure: unknown }
    const yes = JSON.parse(large!.stdout) as { details: { memory: { heldBytes: number } } }
    const { heldBytes } = yes.details.memory
    expect([small!.status, large!.status]).toEqual([1, 0])
    expect(no).toMatchObject({
      failure: { kind: "OutOfMemory" },
      details: { memory: { heldBytes, capacityBytes: 1e6, fits: false } }
    })
    expect(yes).toMatchObject({ details: { memory: { capacityBytes: 1e9, fits: true } } })
    expect(small!.stderr).toMatch(/^sim: rank 0: tensor ".*" needs/u)
  })
})

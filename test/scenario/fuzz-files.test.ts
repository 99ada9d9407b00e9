// Files that a scenario names, damaged or with any value in them: a profile, a table of collectives, links between sites, a
// study to merge. What can be read runs or is refused by an error that names the file; nothing else may happen.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { InputError } from "../../core/input-error.ts"
import type { Profile } from "../../core/profile.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf, type RunResult } from "../../scenarios/result.ts"
import { runScenario } from "../../sim/run.ts"
import { decodeScenario, originOf, type RawScenario } from "../../scenarios/scenario-file.ts"
import { InputErrors } from "../../scenarios/file/input-errors.ts"
import { setField } from "../../scenarios/file/override.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { mergeShards } from "../../sim/study/merge.ts"
import { digestOfRows } from "../../sim/study/result.ts"
import { whyNotHeader, whyNotRow } from "../../sim/study/saved.ts"
import { readStudyArrow, studyCsv, writeStudyArrow } from "../../sim/study/study-file.ts"
import { checkKey } from "../../traces/file-check.ts"
import { decodeProfile, encodeProfile, TraceError } from "../../traces/index.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-fuzz-"))
afterAll(() => fs.rmSync(folder, { recursive: true }))
const inFolder = (name: string, content: Uint8Array | string): string => {
  const file = path.join(folder, name)
  fs.writeFileSync(file, content)
  return file
}

const scenarioFile = path.join(folder, "s.yaml")

/** How a run of a scenario beside these files ends; anything but a result or a refusal is thrown. */
const outcomeOf = (raw: RawScenario): Promise<"ran" | "refused"> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const source = { file: scenarioFile, value: raw, where: () => scenarioFile }
      const scenario = yield* decodeScenario(raw, originOf(source, []))
      const { result } = yield* runScenario(scenario, scenarioFile, { loader: new Loader() })
      return result
    }).pipe(Effect.exit)
  ).then((exit) => judged(exit))

const judged = (exit: Exit.Exit<RunResult, unknown>): "ran" | "refused" => {
  if (Exit.isSuccess(exit)) {
    for (const name of ["stepSeconds", "computeSeconds", "computeUtilisation", "makespanSeconds"])
      expect(metricOf(exit.value, name), name).toSatisfy((x: number) => Number.isFinite(x) && x >= 0)
    return "ran"
  }
  const error = Cause.squash(exit.cause)
  if (error instanceof InputError || error instanceof InputErrors) {
    expect(error.message).toMatch(/expected/u)
    return "refused"
  }
  if (error instanceof Error && ["Deadlock", "OutOfMemory"].includes(error.name)) return "refused"
  throw error
}

const algorithms = fc.constantFrom<unknown>(
  { name: "ddp" },
  { name: "dreamddp", period: 2 },
  { name: "streaming-diloco", period: 2, layersPerFragment: 2, delaySteps: 0 }
)

const scenarioOf = (model: unknown, algorithm: unknown, more: RawScenario = {}): RawScenario => ({
  name: "files",
  model,
  world: { ranks: 4, links: { inter: { bandwidth: "1Gbit/s", latency: "1ms" } } },
  algorithm,
  steps: 2,
  ...more
})

const phase = (busySeconds: number, spanSeconds: number) => ({ busySeconds, spanSeconds })

const sample: Profile = {
  name: "sample",
  device: "NVIDIA H200",
  source: "made up",
  steps: 3,
  stepSeconds: 0.021,
  unprofiledStepSeconds: 0.02,
  deviceBusySeconds: 0.015,
  unattributedShare: 0,
  layers: ["a", "b", "c", "d"].map((name) => ({
    name,
    forward: phase(0.001, 0.0015),
    backward: phase(0.002, 0.0025),
    optimizer: phase(0.0005, 0.001)
  })),
  parameters: [3, 2, 2, 0].map((layer) => ({ layer, shape: [100, 10], dtype: "float32" })),
  ops: [{ op: "gemm", attributes: { m: 8, k: 8, n: 8 }, medianSeconds: 1e-5 }],
  collectives: [1000, 100_000].flatMap((sizeBytes) =>
    [2, 4].map((ranks) => ({
      op: "all_reduce" as const,
      ranks,
      sizeBytes,
      medianSeconds: 1e-5 + sizeBytes * 1e-9,
      link: "unshaped"
    }))
  )
}

/** Paths of all values that are no containers. */
const leaves = (
  value: unknown,
  at: ReadonlyArray<string | number> = []
): Array<ReadonlyArray<string | number>> =>
  Array.isArray(value)
    ? value.flatMap((each: unknown, i) => leaves(each, [...at, i]))
    : isRecord(value)
      ? Object.entries(value).flatMap(([key, each]) => leaves(each, [...at, key]))
      : [at]

const numbers = fc.oneof(
  fc.constantFrom(
    0,
    -0,
    1,
    -1,
    2,
    1e-9,
    1e9,
    1e30,
    5e-324,
    1e308,
    Number.NaN,
    Infinity,
    0.5,
    3,
    2 ** 31,
    2 ** 53
  ),
  fc.double({ min: 0, max: 1, noNaN: true })
)

describe("a profile with any value in it", () => {
  it("runs or is refused", async () => {
    const seen = { ran: 0, refused: 0, unwritten: 0 }
    const property = fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...leaves(sample)), numbers), { minLength: 1, maxLength: 2 }),
      algorithms,
      fc.constantFrom<unknown>(
        {},
        { hostTime: "busy" },
        { stepSeconds: "30ms" },
        { stepSeconds: { 2: "30ms", 8: "40ms" } }
      ),
      fc.boolean(),
      async (changes, algorithm, model, measured) => {
        const changed = changes.reduce<unknown>((now, [at, value]) => setField(now, at, value), sample)
        let bytes: Uint8Array
        try {
          bytes = encodeProfile("p", changed as Profile)
        } catch (cause) {
          // What can never have been written is of no interest; but neither is it a crash.
          if (!(cause instanceof TraceError)) throw cause
          seen.unwritten++
          return
        }
        inFolder("p.arrow", bytes)
        const named = { profile: "p.arrow", ...(model as RawScenario) }
        const table = measured ? { collectives: { measured: "p.arrow" } } : {}
        seen[await outcomeOf(scenarioOf(named, algorithm, table))]++
      }
    )
    await fc.assert(property, { numRuns: 300 })
    expect(seen.ran).toBeGreaterThan(50)
    expect(seen.refused + seen.unwritten).toBeGreaterThan(20)
  })

  it("or with bytes changed, too", async () => {
    // As of another program: what changed is held to no digest.
    const bytes = Buffer.from(encodeProfile("p", sample))
    bytes.write("another.name", bytes.lastIndexOf(checkKey), "latin1")
    const seen = { ran: 0, refused: 0 }
    const place = fc.nat().map((n) => ((n * 2_654_435_761) % 2 ** 32) / 2 ** 32)
    const property = fc.asyncProperty(
      fc.array(fc.tuple(place, fc.nat({ max: 255 })), { minLength: 1, maxLength: 3 }),
      algorithms,
      async (flips, algorithm) => {
        const damaged = new Uint8Array(bytes)
        for (const [at, value] of flips) damaged[Math.floor(at * damaged.length)] = value
        inFolder("p.arrow", damaged)
        let small = true
        try {
          // A shape of 10^9 layers is no error, and no test.
          small = decodeProfile("p", damaged).layers.length < 100
        } catch {
          small = true
        }
        if (!small) return
        const scenario = scenarioOf({ profile: "p.arrow" }, algorithm, {
          collectives: { measured: "p.arrow" }
        })
        seen[await outcomeOf(scenario)]++
      }
    )
    await fc.assert(property, { numRuns: 300 })
    expect(seen.ran).toBeGreaterThan(20)
    expect(seen.refused).toBeGreaterThan(20)
  })
})

describe("links between sites with any value in them", () => {
  it("run or are refused", async () => {
    const good = { pairs: { "a-b": [10, 1], "b-c": [20, 2], "c-a": [30, 0.5] } }
    const any = fc.oneof(
      numbers,
      fc.constantFrom<unknown>(null, "x", "", [], {}, [1], [1, 2, 3], true, [[1, 2]], ["1", "2"])
    )
    const names = fc.constantFrom("a-b", "b-a", "a", "a-b-c", "-", "a-a", "x-y", "__proto__")
    const seen = { ran: 0, refused: 0 }
    const property = fc.asyncProperty(
      fc.array(
        fc.oneof(
          fc.tuple(fc.constantFrom(...leaves(good)), any),
          fc.tuple(
            names.map((name) => ["pairs", name]),
            fc.oneof(any, fc.tuple(numbers, numbers))
          ),
          fc.tuple(fc.constantFrom<ReadonlyArray<string>>([], ["pairs"]), any)
        ),
        { maxLength: 2 }
      ),
      algorithms,
      async (changes, algorithm) => {
        const changed = changes.reduce<unknown>((now, [at, value]) => setField(now, at, value), good)
        inFolder("pairs.json", JSON.stringify(changed))
        const sites = ["a", "b", "c"].map((name) => ({ name, ranks: 1 }))
        const world = { sites, links: { wan: { pairs: "pairs.json" } } }
        const model = { layers: 4, parameters: 4000, stepSeconds: "10ms" }
        seen[await outcomeOf(scenarioOf(model, algorithm, { world }))]++
      }
    )
    await fc.assert(property, { numRuns: 200 })
    expect(seen.ran).toBeGreaterThan(20)
    expect(seen.refused).toBeGreaterThan(20)
  })
})

const row = (point: number) => ({
  point,
  axes: { algorithm: "ddp" },
  values: { algorithm: "ddp" },
  digest: "0123456789abcdef",
  scenario: "s",
  task: "data-parallel" as const,
  algorithm: "ddp",
  ranks: 2,
  stepSeconds: 1,
  computeUtilisation: 0.5,
  computeSeconds: 0.5,
  exposedCommunicationSeconds: 0.5,
  makespanSeconds: 1,
  peakBytes: { device: 1, host: 0 },
  ops: 1,
  links: [{ name: "inter out", tier: "inter" as const, count: 2, bytes: 8, busySeconds: 0.1 }],
  estimates: [{ kernel: "k", source: "free" as const, detail: "d" }],
  warnings: ["w"]
})
const header = {
  name: "s",
  identity: "i",
  points: 2,
  axes: [{ path: "algorithm", values: ["ddp"] }],
  search: null,
  scenario: {}
}

describe("a damaged study", () => {
  it("is merged or refused", async () => {
    const file = path.join(folder, "study.arrow")
    await Effect.runPromise(writeStudyArrow(file, { header, rows: [row(0), row(1)] }))
    const bytes = fs.readFileSync(file)
    const seen = { merged: 0, refused: 0 }
    const place = fc.nat().map((n) => ((n * 2_654_435_761) % 2 ** 32) / 2 ** 32)
    const property = fc.asyncProperty(
      fc.array(fc.tuple(place, fc.nat({ max: 255 })), { maxLength: 2 }),
      fc.option(place, { freq: 1 }),
      async (flips, cut) => {
        let damaged = new Uint8Array(bytes)
        for (const [at, value] of flips) damaged[Math.floor(at * damaged.length)] = value
        if (cut !== null) damaged = damaged.slice(0, Math.floor(cut * damaged.length))
        inFolder("damaged.arrow", damaged)
        const named = path.join(folder, "damaged.arrow")
        const exit = await Effect.runPromiseExit(
          Effect.flatMap(readStudyArrow(named), (study) => mergeShards([{ file: named, study }]))
        )
        if (Exit.isSuccess(exit)) {
          expect(digestOfRows(exit.value.rows)).toMatch(/^[0-9a-f]{16}$/u)
          seen.merged++
          return
        }
        const error = Cause.squash(exit.cause)
        if (!(error instanceof InputError || error instanceof TraceError)) throw error
        expect(error.message).toContain("damaged.arrow")
        seen.refused++
      }
    )
    await fc.assert(property, { numRuns: 300 })
    expect(seen.merged).toBeGreaterThan(20)
    expect(seen.refused).toBeGreaterThan(50)
  })

  it("or one with any value in its rows is read as a table or refused, by the place", () => {
    const good = { header, rows: [row(0), row(1)] }
    const any = fc.oneof(
      numbers,
      fc.constantFrom<unknown>(null, undefined, "x", "", [], {}, [null], [{}], true, { a: 1 })
    )
    const places = leaves(good).flatMap((at) => at.map((_, depth) => at.slice(0, depth + 1)))
    const seen = { read: 0, refused: 0 }
    const property = fc.property(
      fc.array(fc.tuple(fc.constantFrom(...places), any), { minLength: 1, maxLength: 2 }),
      (changes) => {
        const changed = changes.reduce<unknown>((now, [at, value]) => setField(now, at, value), good)
        const { header: of, rows } = JSON.parse(JSON.stringify(changed)) as typeof good
        const wrong = whyNotHeader(of)
        const problems =
          wrong.length > 0 || !Array.isArray(rows) ? wrong : rows.flatMap((one) => whyNotRow(one, of))
        for (const { accepted } of problems) expect(accepted).not.toBe("")
        if (problems.length > 0) return void seen.refused++
        if (!Array.isArray(rows)) return
        seen.read++
        expect(studyCsv({ header: of, rows })).not.toContain("undefined")
        expect(digestOfRows(rows)).toMatch(/^[0-9a-f]{16}$/u)
      }
    )
    fc.assert(property, { numRuns: 400 })
    expect(seen.read).toBeGreaterThan(20)
    expect(seen.refused).toBeGreaterThan(50)
  })

  it("says which row and which field", async () => {
    const file = path.join(folder, "wrong.arrow")
    const said = async (changed: object): Promise<unknown> => {
      await Effect.runPromise(writeStudyArrow(file, { header, rows: [row(0), { ...row(1), ...changed }] }))
      return Effect.runPromise(Effect.flip(readStudyArrow(file)))
    }
    expect(await said({ ops: -1 })).toMatchObject({
      message: `${file}: column row, row 1.ops: -1 is not accepted; expected a number, at least 0`
    })
    expect(await said({ point: 2 })).toMatchObject({ field: "column row, row 1.point", value: "2" })
    await Effect.runPromise(writeStudyArrow(file, { header: { ...header, points: 1e15 }, rows: [row(0)] }))
    expect(await Effect.runPromise(Effect.flip(readStudyArrow(file)))).toMatchObject({
      field: "metadata tandem.study.points"
    })
  })
})

// `sim validate`: that its claims hold, that it says what it found, and that a claim can fail.
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { InputError } from "../../core/input-error.ts"
import { Loader } from "../../scenarios/load.ts"
import { bandwidthTable, finiteRun, steadyState, type Cell } from "../../sim/validate/bandwidth-table.ts"
import { scalingLawsOptions } from "../../sim/validate/published-bandwidth.ts"
import type { Section } from "../../sim/validate/section.ts"
import { sections, validate } from "../../sim/validate/validate.ts"

const read = (path: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"))

const cellsOf = async (section: Section): Promise<ReadonlyArray<Cell>> => {
  const { values } = await Effect.runPromise(
    Effect.flatMap(section.open, (table) => table.check(new Loader(), () => undefined))
  )
  return values as ReadonlyArray<Readonly<Record<string, unknown>> & Cell>
}

const exact = (cells: ReadonlyArray<Cell>): number => cells.filter((cell) => cell.cells === 0).length

let progress: ReadonlyArray<readonly [number, number]> = []
const began = process.cpuUsage()
const all = Effect.runPromise(
  validate([], { onProgress: (done, total) => (progress = [...progress, [done, total]]) })
).then((result) => ({ ...result, seconds: process.cpuUsage(began).user / 1e6 }))

describe("all sections", () => {
  it("every claim holds", async () => {
    const { ok, json, text } = await all
    for (const section of json.sections) {
      expect(section.claims.length).toBeGreaterThan(0)
      for (const claim of section.claims) expect(claim).toMatchObject({ holds: true })
    }
    expect(ok).toBe(true)
    const quick = sections.filter(({ slow, missed }) => slow === undefined && missed === undefined)
    expect(json.sections.map(({ name }) => name)).toEqual(quick.map(({ name }) => name))
    expect(json.notChecked).toEqual([
      "sharded-h100",
      "sharded-h200x2",
      "sharded-h200x2-cubic",
      "sharded-h200x2-turns",
      "sharded-h200x2-untraced",
      "fsdp-published",
      "fsmoe-grid"
    ])
    expect(text).toMatch(/\d+ claims: all hold\n$/u)
  })

  it("takes well under a minute", async () => {
    expect((await all).seconds).toBeLessThan(45)
  })

  it("says how far it is, up to the end", async () => {
    await all
    const total = progress[0]![1]
    expect(progress.map(([done]) => done)).toEqual(Array.from({ length: total + 1 }, (_, i) => i))
  })

  // arXiv:2501.18512 Table 4 has two models here, five methods, five targets; the recurrence that its description gives
  // (test/validate/utilisation-model.ts) has 41 of the 50 cells equal and 9 one cell low.
  it("Streaming DiLoCo: what it prints is what the table says", async () => {
    const { json, text } = await all
    const cells = json.sections[0]!.values as ReadonlyArray<Readonly<Record<string, unknown>> & Cell>
    expect(cells).toHaveLength(50)
    expect(exact(cells)).toBe(41)
    expect(cells.filter((cell) => cell.cells === -1)).toHaveLength(9)
    const row = cells.filter((cell) => cell.model === "1B" && cell.row === "Data-Parallel")
    expect(row.map(({ publishedGbits }) => publishedGbits)).toEqual([86.8, 152.6, 184.2, 222.3, 569])
    // logspace(-1, 3, 50), entries 36, 39, 40, 41 and 46.
    const grid = [36, 39, 40, 41, 46].map((i) => 10 ** (-1 + (4 * i) / 49))
    row.forEach(({ simulatedGbits }, i) => expect(simulatedGbits).toBeCloseTo(grid[i]!, 8))
    expect(text).toMatch(/DiLoCo +1\.4 +1\.4 {2}= +6\.2 +5\.2 -1/u)
  })
})

it("scaling laws: with steps of 0.88 s and 26.5 s, 43 of 50 cells are equal and none is more than one off", async () => {
  const cells = await cellsOf(
    bandwidthTable({
      ...scalingLawsOptions,
      readings: [finiteRun(1000, { withinCells: 1 })],
      set: { "10B": ["stepSeconds=0.88"], "405B": ["stepSeconds=26.5"] }
    })
  )
  expect(exact(cells)).toBe(43)
  expect(Math.max(...cells.map((cell) => Math.abs(cell.cells)))).toBe(1)
})

const streaming = {
  name: "streaming",
  title: "",
  table: "streaming-diloco.published.json",
  readings: [steadyState({ withinCells: 1 })],
  notes: []
}

it("Streaming DiLoCo: waiting at the end of a step makes 44 cells equal", async () => {
  const late = ["algorithm.deadline=end-of-backward"]
  const asStated = (await all).json.sections[0]!.values as ReadonlyArray<Cell & Record<string, unknown>>
  const waiting = await cellsOf(bandwidthTable({ ...streaming, set: { "1B": late, "10B": late } }))
  const overlapped = (cell: Cell): boolean => cell.row.includes("overlapped")
  const mixed = [...asStated.filter((cell) => !overlapped(cell)), ...waiting.filter(overlapped)]
  expect(mixed).toHaveLength(50)
  expect(exact(mixed)).toBe(44)
})

it("a claim that does not hold says so", async () => {
  const section = bandwidthTable({
    ...streaming,
    readings: [steadyState({ withinCells: 0, exactShare: 0.9 })]
  })
  const { claims } = await Effect.runPromise(
    Effect.flatMap(section.open, (table) => table.check(new Loader(), () => undefined))
  )
  expect(claims.map(({ holds }) => holds)).toEqual([false, false])
  expect(claims[0]!.found).toBe("41 of 50")
})

it("checks one section by name, and refuses an unknown one with the names there are", async () => {
  const { json } = await Effect.runPromise(validate(["dreamddp-resnet18"]))
  expect(json.sections.map(({ name }) => name)).toEqual(["dreamddp-resnet18"])
  const error = await Effect.runPromise(Effect.flip(validate(["streaming"])))
  expect(error).toBeInstanceOf(InputError)
  expect(error.message).toBe(
    `sim validate: name: streaming is not accepted; expected one of ${sections.map(({ name }) => name).join(", ")}`
  )
})

it("the measured steps that ship are the means of the recorded repetitions", () => {
  interface Recorded {
    readonly runs: ReadonlyArray<{
      readonly ranks: number
      readonly link_rate: string
      readonly ddp_step_seconds: ReadonlyArray<number>
    }>
  }
  const table = read("scenarios/validate/ddp-gpt2-h200.measured.json") as {
    readonly series: ReadonlyArray<string>
    readonly steps: ReadonlyArray<Readonly<Record<string, number | string>>>
  }
  const recorded = table.series.flatMap((file, series) =>
    (read(file) as Recorded).runs.map(({ ranks, link_rate, ddp_step_seconds: steps }) => {
      const mean = steps.reduce((sum, seconds) => sum + seconds, 0) / steps.length
      return {
        ranks,
        linkRate: link_rate,
        stepSeconds: Number(mean.toFixed(6)),
        leastSeconds: Number(Math.min(...steps).toFixed(6)),
        mostSeconds: Number(Math.max(...steps).toFixed(6)),
        series
      }
    })
  )
  const order = (steps: ReadonlyArray<Readonly<Record<string, number | string>>>) =>
    steps.map((step) => JSON.stringify(Object.entries(step).toSorted())).toSorted()
  expect(order(table.steps)).toEqual(order(recorded))
})

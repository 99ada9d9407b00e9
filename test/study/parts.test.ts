// However a study is computed - whole, in shards, interrupted and resumed, on threads - its rows are the same, to the last bit.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { stringify } from "yaml"
import { loadStudy, type StudyDefinition } from "../../sim/study/definition.ts"
import { readJournal, withJournal, type Finished } from "../../sim/study/journal.ts"
import { mergeShards } from "../../sim/study/merge.ts"
import { digestOfRows, headerOf, inOrder, type StudyResult } from "../../sim/study/result.ts"
import { pointsOfShard, runPoints, type Shard } from "../../sim/study/run-study.ts"
import { readStudyArrow, writeStudyArrow } from "../../sim/study/study-file.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-parts-"))
afterAll(() => fs.rmSync(folder, { recursive: true }))
let names = 0
const fresh = (ending: string): string => path.join(folder, `${names++}${ending}`)

const subset = <A>(...values: ReadonlyArray<A>): fc.Arbitrary<Array<A>> =>
  fc.shuffledSubarray([...values], { minLength: 1 })

/** Study files: one to three axes of any kind of value, with and without chance, with and without a search. */
const studies = fc
  .record({
    algorithms: subset<unknown>(
      "ddp",
      "s-sgd",
      { name: "local-sgd", period: 2 },
      { name: "dreamddp", period: 2 },
      { name: "streaming-diloco", period: 4, layersPerFragment: 2, delaySteps: 0 }
    ),
    bandwidths: fc.option(subset("100Mbit/s", "1Gbit/s", "10Gbit/s", "unlimited")),
    ranks: fc.option(subset(2, 4, 6)),
    jitter: fc.constantFrom({}, { jitter: 0.1, seed: 7 }),
    find: fc.option(
      fc.record({
        vary: fc.constant("world.links.inter.bandwidth"),
        over: fc.constant({ from: "10Mbit/s", to: "10Gbit/s", points: 6 }),
        metric: fc.constant("computeUtilisation"),
        targets: subset(0.2, 0.5, 0.9)
      }),
      { freq: 3 }
    )
  })
  .map(({ algorithms, bandwidths, ranks, jitter, find }) =>
    stringify({
      name: "parts",
      model: { layers: 4, parameters: 40_000, stepSeconds: "10ms" },
      world: { ranks: 2, sites: 2, links: { inter: { latency: "100us" }, wan: { latency: "1ms" } } },
      ...jitter,
      steps: 2,
      study: {
        axes: {
          algorithm: algorithms,
          ...(bandwidths === null ? {} : { "world.links.wan.bandwidth": bandwidths }),
          ...(ranks === null ? {} : { "world.ranks": ranks })
        },
        ...(find === null ? {} : { find })
      }
    })
  )

const load = (text: string): StudyDefinition => {
  const file = fresh(".yaml")
  fs.writeFileSync(file, text)
  return Effect.runSync(loadStudy(file))
}

const compute = async (
  definition: StudyDefinition,
  options: { readonly jobs?: number; readonly shard?: Shard } = {}
): Promise<StudyResult> => {
  const finished: Finished = new Map()
  await Effect.runPromise(runPoints(definition, finished, { jobs: 1, ...options }))
  return { header: headerOf(definition), rows: inOrder(finished) }
}

const sameStudy = (one: StudyResult, other: StudyResult): void => {
  expect(one.header).toEqual(other.header)
  expect(one.rows.map((row) => JSON.stringify(row))).toEqual(other.rows.map((row) => JSON.stringify(row)))
  expect(digestOfRows(one.rows)).toBe(digestOfRows(other.rows))
}

describe("a study in shards", () => {
  it("comes out as a whole one, in any order of any number of them, through their files", async () => {
    const seen = { empty: 0, several: 0, searched: 0 }
    const property = fc.asyncProperty(
      studies,
      fc.integer({ min: 1, max: 7 }),
      fc.infiniteStream(fc.nat()),
      async (text, count, order) => {
        const definition = load(text)
        const whole = await compute(definition)
        const shards: Array<{ readonly file: string; readonly at: number }> = []
        for (let index = 1; index <= count; index++) {
          const part = await compute(definition, { shard: { index, count } })
          expect(part.rows.map(({ point }) => point % count)).toEqual(part.rows.map(() => index % count))
          if (part.rows.length === 0) seen.empty++
          const file = fresh(".arrow")
          await Effect.runPromise(writeStudyArrow(file, part))
          shards.push({ file, at: order.next().value! })
        }
        const parts = await Effect.runPromise(
          Effect.forEach(
            shards.toSorted((a, b) => a.at - b.at),
            ({ file }) => Effect.map(readStudyArrow(file), (study) => ({ file, study }))
          )
        )
        sameStudy(Effect.runSync(mergeShards(parts)), whole)
        // A missing shard is missed, unless it had nothing in it.
        const [first, ...rest] = parts
        const merged = Effect.runSyncExit(mergeShards(rest))
        expect(Exit.isSuccess(merged)).toBe(rest.length > 0 && first!.study.rows.length === 0)
        if (count > 1 && definition.points.length > 1) seen.several++
        if (definition.search !== undefined) seen.searched++
      }
    )
    await fc.assert(property, { numRuns: 15 })
    for (const [kind, times] of Object.entries(seen)) expect(times, kind).toBeGreaterThanOrEqual(2)
  })

  it("refuses shards of other studies, and results that contradict each other", async () => {
    const definition = load(fc.sample(studies, { numRuns: 1, seed: 3 })[0]!)
    const whole = { file: "a", study: await compute(definition) }
    const { header, rows } = whole.study
    const other = { file: "b", study: { header: { ...header, identity: "0" }, rows } }
    expect(String(Effect.runSync(Effect.flip(mergeShards([whole, other]))))).toContain(
      "a shard of another study"
    )
    const changed = rows.map((row, i) => (i === 0 ? { ...row, ops: row.ops + 1 } : row))
    const contradicting = { file: "b", study: { header, rows: changed } }
    expect(String(Effect.runSync(Effect.flip(mergeShards([whole, contradicting]))))).toContain(
      "b: point 0: another result is not accepted; expected the one in a"
    )
  })
})

/** Runs with a journal until so many points are done, then is interrupted as by Ctrl-C. */
const runUntil = async (
  definition: StudyDefinition,
  finished: Finished,
  journalFile: string,
  points: number
): Promise<number> => {
  let begunWith = -1
  const fiber = Effect.runFork(
    withJournal(journalFile, headerOf(definition), finished, (journal) =>
      runPoints(definition, finished, {
        jobs: 1,
        journal,
        onProgress: (done) => {
          if (begunWith < 0) begunWith = done
          else if (done >= points) Effect.runFork(Fiber.interrupt(fiber))
        }
      })
    )
  )
  await Effect.runPromise(Fiber.await(fiber))
  return begunWith
}

describe("a study that is interrupted", () => {
  it("again and again, with its journal cut or damaged in between, comes out as if it had not been", async () => {
    const seen = { interrupted: 0, torn: 0, damaged: 0, resumedFromSome: 0 }
    const stop = fc.record({
      after: fc.nat({ max: 6 }),
      // A machine that loses power loses the end of a file; a bad disk, a byte.
      cutBytes: fc.option(fc.nat({ max: 900 })),
      flipAt: fc.option(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }))
    })
    const property = fc.asyncProperty(
      studies,
      fc.array(stop, { minLength: 1, maxLength: 3 }),
      async (text, stops) => {
        const definition = load(text)
        const whole = await compute(definition)
        const header = headerOf(definition)
        const journalFile = fresh(".jsonl")
        for (const { after, cutBytes, flipAt } of stops) {
          const finished = await Effect.runPromise(readJournal(journalFile, header))
          const before = finished.size
          expect(await runUntil(definition, finished, journalFile, before + after + 1)).toBe(before)
          if (before > 0) seen.resumedFromSome++
          if (finished.size < definition.points.length) seen.interrupted++
          if (!fs.existsSync(journalFile)) continue
          const bytes = fs.readFileSync(journalFile)
          const kept = bytes.indexOf(10) + 1
          const end = Math.max(kept, bytes.length - (cutBytes ?? 0))
          if (end < bytes.length) seen.torn++
          if (flipAt !== null && end > kept) {
            bytes[kept + Math.floor(flipAt * (end - kept))]! ^= 1
            seen.damaged++
          }
          fs.writeFileSync(journalFile, bytes.subarray(0, end))
        }
        const finished = await Effect.runPromise(readJournal(journalFile, header))
        await runUntil(definition, finished, journalFile, Number.POSITIVE_INFINITY)
        sameStudy({ header, rows: inOrder(finished) }, whole)
        // And what is on disk is all of it.
        const kept = await Effect.runPromise(readJournal(journalFile, header))
        sameStudy({ header, rows: inOrder(kept) }, whole)
      }
    )
    await fc.assert(property, { numRuns: 20 })
    for (const [kind, times] of Object.entries(seen)) expect(times, kind).toBeGreaterThanOrEqual(4)
  })

  it("is not resumed as another study", async () => {
    const [one, another] = fc.sample(studies, { numRuns: 2, seed: 1 }).map(load)
    const journalFile = fresh(".jsonl")
    await runUntil(one!, new Map(), journalFile, Number.POSITIVE_INFINITY)
    const error = Effect.runSync(Effect.flip(readJournal(journalFile, headerOf(another!))))
    expect(error.message).toContain("the journal of another study is not accepted")
  })
})

describe("a study on threads", () => {
  it("comes out as on one, whole and in shards", async () => {
    for (const text of fc.sample(studies, { numRuns: 2, seed: 5 })) {
      const definition = load(text)
      const whole = await compute(definition)
      for (const jobs of [2, 4]) sameStudy(await compute(definition, { jobs }), whole)
      const shard = { index: 1, count: 2 }
      const mine = pointsOfShard(definition.points, shard).map(({ index }) => index)
      const part = await compute(definition, { jobs: 2, shard })
      sameStudy(part, { ...whole, rows: whole.rows.filter(({ point }) => mine.includes(point)) })
    }
  })
})

// What company costs: how many times as long kernels take while a collective of their rank is under way, and collectives while kernels
// run, from a real run that has both alone and beside each other. Knows not what program that was.
import { rowsByRank } from "../core/laws/execution.ts"
import {
  forBenchmark,
  forSimulation,
  opKey,
  recordedCollectives,
  recordedSeconds,
  without
} from "./recorded.ts"
import type { RecordedRun } from "./recorded.ts"
import type { CollectiveCost, ProfiledStep } from "../core/profile.ts"

interface Company {
  /** As `slowdown` of simulated collectives counts it; at least 1. Undefined where too little ran beside to tell. */
  readonly kernels: number | undefined
  /**
   * The same of up to five shares of the steps that have company, every fifth step of them in one, ascending: as measured so many times. Infinite
   * where kernels lost more time than collectives were beside them.
   */
  readonly kernelsOfShares: ReadonlyArray<number>
  /** Collectives of the same kind and size, beginning beside kernels over alone. Undefined where none began so. */
  readonly collectives: number | undefined
  /** How much longer each of them takes that begins beside kernels, seconds; sizes as profiles count them. */
  readonly waits: ReadonlyArray<
    Pick<CollectiveCost, "op" | "ranks" | "sizeBytes"> & {
      readonly seconds: number
      readonly aloneSeconds: number
    }
  >
}

/** Of kernels, which are compared in sums. */
const run = { of: forBenchmark.of, statistic: forSimulation.statistic }
const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** Without the collectives that did not begin while their rank's kernels of those steps went on: before the first, or after the last. */
const amongKernels = (record: RecordedRun): RecordedRun => {
  const { timeline } = record
  const rows = rowsByRank(timeline)
  const startSeconds = timeline.startSeconds.slice()
  for (const { rank, entries } of record.journals) {
    const own = rows.get(rank) ?? []
    let [from, to] = [Infinity, -Infinity]
    const collectives: Array<number> = []
    for (const entry of entries) {
      const row = entry.kind === "op" ? (own[entry.id] ?? -1) : -1
      if (entry.kind !== "op" || row < 0 || Number.isNaN(startSeconds[row]!)) continue
      if (entry.op.group !== undefined) collectives.push(row)
      else {
        from = Math.min(from, startSeconds[row]!)
        to = Math.max(to, timeline.endSeconds[row]!)
      }
    }
    for (const row of collectives)
      if (!(startSeconds[row]! >= from && startSeconds[row]! < to)) startSeconds[row] = NaN
  }
  return { ...record, timeline: { ...timeline, startSeconds } }
}

/** What kernels took longer than alone, and how long collectives were beside them; seconds. */
interface Beside {
  extra: number
  overlap: number
}

const sumOf = (all: ReadonlyArray<Beside>): Beside => ({
  extra: sum(all.map(({ extra }) => extra)),
  overlap: sum(all.map(({ overlap }) => overlap))
})

/** Of steps that may be of several kinds, in turn: so that each share has some of every kind. */
const sharesOf = (steps: ReadonlyArray<Beside>): ReadonlyArray<Beside> => {
  const shares = Math.min(5, steps.length)
  return Array.from({ length: shares }, (_, share) =>
    sumOf(steps.filter((_, index) => index % shares === share))
  )
}

/** How many times as long kernels take; NaN where nothing was beside them. */
const slowdownOf = ({ extra, overlap }: Beside): number => {
  const lost = extra / overlap
  return lost >= 1 ? Infinity : Math.max(1, 1 / (1 - lost))
}

/**
 * Undefined where no collective ran beside, or none of it alone.
 *
 * @param kernelsGoOn the program keeps kernels under way until its messages have ended; otherwise messages that began before the first of
 * them, or after the last, had no company
 */
export const costOfCompany = (
  record: RecordedRun,
  kindOf: (step: number) => ProfiledStep,
  kernelsGoOn = false
): Company | undefined => {
  const alone = without(record, (step) => kindOf(step) !== "alone")
  const beside = without(record, (step) => kindOf(step) !== "beside")
  const usual = recordedSeconds(alone, run)
  const { startSeconds, endSeconds } = record.timeline
  const rows = rowsByRank(record.timeline)
  const steps = new Map<number, Beside>()
  for (const { rank, entries } of record.journals) {
    const own = rows.get(rank) ?? []
    const ops = entries.flatMap((entry) => {
      const row = entry.kind === "op" ? (own[entry.id] ?? -1) : -1
      return entry.kind === "op" && row >= 0 ? [{ op: entry.op, step: entry.step, row }] : []
    })
    const messages = ops.filter(({ op, step }) => op.group !== undefined && kindOf(step) !== "alone")
    for (const { op, step, row } of ops) {
      const seconds = op.group === undefined && kindOf(step) === "beside" ? usual.get(opKey(op)) : undefined
      if (seconds === undefined) continue
      const [from, to] = [startSeconds[row]!, endSeconds[row]!]
      // Collectives of one lane follow each other.
      const common = messages.map((one) =>
        Math.max(0, Math.min(to, endSeconds[one.row]!) - Math.max(from, startSeconds[one.row]!))
      )
      const ofStep = steps.get(step) ?? { extra: 0, overlap: 0 }
      ofStep.extra += to - from - seconds
      ofStep.overlap += Math.min(to - from, sum(common))
      steps.set(step, ofStep)
    }
  }
  // A message that is held up by something else entirely (a connection that is made, another process's turn on the device) is none of the
  // company's cost: medians.
  const before = recordedCollectives(alone, forBenchmark)
  const alikeIn = (some: RecordedRun) =>
    recordedCollectives(some, forBenchmark).flatMap(({ op, ranks, sizeBytes, medianSeconds }) => {
      const one = before.find(
        (other) => other.op === op && other.ranks === ranks && other.sizeBytes === sizeBytes
      )
      return one === undefined
        ? []
        : [{ op, ranks, sizeBytes, aloneSeconds: one.medianSeconds, medianSeconds }]
    })
  const all = [...steps].toSorted(([a], [b]) => a - b).map(([, beside]) => beside)
  const kernels = slowdownOf(sumOf(all))
  if (alikeIn(beside).length === 0) return undefined
  const alike = alikeIn(kernelsGoOn ? beside : amongKernels(beside))
  return {
    kernels: kernels < Infinity ? kernels : undefined,
    kernelsOfShares: sharesOf(all)
      .filter(({ overlap }) => overlap > 0)
      .map(slowdownOf)
      .toSorted((a, b) => a - b),
    collectives:
      alike.length === 0
        ? undefined
        : sum(alike.map(({ aloneSeconds, medianSeconds }) => medianSeconds / aloneSeconds)) / alike.length,
    waits: alike.map(({ op, ranks, sizeBytes, aloneSeconds, medianSeconds }) => ({
      op,
      ranks,
      sizeBytes,
      aloneSeconds,
      seconds: medianSeconds - aloneSeconds
    }))
  }
}

/** Rows of a profile, with what company costs those of which it is known, and behind them those that were timed for that alone. */
export const withWaits = (
  rows: ReadonlyArray<CollectiveCost>,
  { waits }: Pick<Company, "waits"> = { waits: [] }
): ReadonlyArray<CollectiveCost> => {
  type Kind = Pick<CollectiveCost, "op" | "ranks" | "sizeBytes">
  const alike = (one: Kind, other: Kind): boolean =>
    one.op === other.op && one.ranks === other.ranks && one.sizeBytes === other.sizeBytes
  const beside = (row: CollectiveCost, wait: Company["waits"][number] | undefined): CollectiveCost =>
    wait === undefined ? row : { ...row, besideSeconds: Math.max(0, row.medianSeconds + wait.seconds) }
  return [
    ...rows.map((row) =>
      beside(
        row,
        waits.find((wait) => alike(wait, row))
      )
    ),
    ...waits
      .filter((wait) => !rows.some((row) => alike(wait, row)))
      .map((wait) => {
        const { op, ranks, sizeBytes, aloneSeconds: medianSeconds } = wait
        return beside({ op, ranks, sizeBytes, medianSeconds, link: "unshaped" }, wait)
      })
  ]
}

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
  /** Collectives of the same kind and size, beside kernels over alone. */
  readonly collectives: number
  /** How much longer each of them takes beside kernels, seconds; sizes as profiles count them. */
  readonly waits: ReadonlyArray<
    Pick<CollectiveCost, "op" | "ranks" | "sizeBytes"> & { readonly seconds: number }
  >
}

const run = { of: forBenchmark.of, statistic: forSimulation.statistic }
const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** Undefined where no collective ran beside, or none of it alone. */
export const costOfCompany = (
  record: RecordedRun,
  kindOf: (step: number) => ProfiledStep
): Company | undefined => {
  const alone = without(record, (step) => kindOf(step) !== "alone")
  const beside = without(record, (step) => kindOf(step) !== "beside")
  const usual = recordedSeconds(alone, run)
  const { startSeconds, endSeconds } = record.timeline
  const rows = rowsByRank(record.timeline)
  let [extra, overlap] = [0, 0]
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
      extra += to - from - seconds
      overlap += Math.min(to - from, sum(common))
    }
  }
  const before = recordedCollectives(alone, run)
  const alike = recordedCollectives(beside, run).flatMap(({ op, ranks, sizeBytes, medianSeconds }) => {
    const one = before.find(
      (other) => other.op === op && other.ranks === ranks && other.sizeBytes === sizeBytes
    )
    return one === undefined ? [] : [{ op, ranks, sizeBytes, aloneSeconds: one.medianSeconds, medianSeconds }]
  })
  const lost = extra / overlap
  if (alike.length === 0) return undefined
  return {
    kernels: lost < 1 ? Math.max(1, 1 / (1 - lost)) : undefined,
    collectives:
      sum(alike.map(({ aloneSeconds, medianSeconds }) => medianSeconds / aloneSeconds)) / alike.length,
    waits: alike.map(({ op, ranks, sizeBytes, aloneSeconds, medianSeconds }) => ({
      op,
      ranks,
      sizeBytes,
      seconds: medianSeconds - aloneSeconds
    }))
  }
}

/** Rows of a profile, with what company costs those of which it is known. */
export const withWaits = (
  rows: ReadonlyArray<CollectiveCost>,
  { waits }: Pick<Company, "waits"> = { waits: [] }
): ReadonlyArray<CollectiveCost> =>
  rows.map((row) => {
    const wait = waits.find(
      ({ op, ranks, sizeBytes }) => op === row.op && ranks === row.ranks && sizeBytes === row.sizeBytes
    )
    return wait === undefined ? row : { ...row, besideSeconds: Math.max(0, row.medianSeconds + wait.seconds) }
  })

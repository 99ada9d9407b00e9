// What a real run's ops took, from its timeline: as costs for a simulation of the same run, or as figures of a benchmark.
import type { Journal } from "../core/laws/journal.ts"
import { collectivesOf, rowsByRank } from "../core/laws/execution.ts"
import { laneCount } from "../core/machine/lane.ts"
import { arithmeticDtype } from "../core/cost/cost-model.ts"
import { launchedWith, type Op } from "../core/machine/op.ts"
import type { OpLog, Timeline } from "../core/machine/timeline.ts"
import type { CollectiveCost, OpCost } from "../core/profile.ts"
import { median } from "../core/median.ts"

/** What a recorded run left. */
export interface RecordedRun {
  readonly timeline: Timeline
  readonly opLogs: ReadonlyArray<OpLog>
  readonly journals: ReadonlyArray<Journal>
}

/** What tells ops apart, whichever rank and step runs them. Attributes do not: some only number the step. */
export const opKey = ({ label, kernel, reads, writes }: Op): string =>
  `${kernel.name} ${label} ${[...reads, ...writes].map(({ shape }) => shape.join("x")).join(" ")}`

/** Which stretch of time is an op's own, and what stands for many of them. */
export interface Reckoning {
  /** `span`: from the end of the last op it waits for; `run`: from its own start. Both to its end. */
  readonly of: "span" | "run"
  readonly statistic: (values: ReadonlyArray<number>) => number
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * For simulations: a host that submits late and a thread that wakes up late are part of the op, since a simulation has
 * neither; and means, for what ops take together is what a makespan is made of.
 */
export const forSimulation: Reckoning = { of: "span", statistic: mean }

/** For benchmarks: an op alone, undisturbed. */
export const forBenchmark: Reckoning = { of: "run", statistic: median }

/** The least of what a benchmark's medians are of. */
export const undisturbed: Reckoning = {
  of: "run",
  statistic: (values) => values.reduce((one, other) => Math.min(one, other), Infinity)
}

/** The same run as if the ops of those steps had no times. */
export const without = <R extends RecordedRun>(run: R, isOut: (step: number) => boolean): R => {
  const { step, startSeconds, endSeconds } = run.timeline
  const kept = (seconds: Float64Array): Float64Array =>
    seconds.map((at, row) => (isOut(step[row]!) ? NaN : at))
  return {
    ...run,
    timeline: { ...run.timeline, startSeconds: kept(startSeconds), endSeconds: kept(endSeconds) }
  }
}

/** When each op's time begins, by row of the timeline: its start, or when its predecessors, by lane and edges, had ended. */
const beginSeconds = ({ timeline, opLogs }: RecordedRun, of: Reckoning["of"]): Float64Array => {
  if (of === "run") return timeline.startSeconds
  const begin = new Float64Array(timeline.op.length)
  const rows = rowsByRank(timeline)
  for (const { rank, entries } of opLogs) {
    const own = rows.get(rank) ?? []
    const tails = new Float64Array(laneCount)
    for (const { op, lane, after } of entries) {
      const row = own[op] ?? -1
      if (row < 0) continue
      let seconds = tails[lane]!
      for (const predecessor of after) {
        const before = own[predecessor] ?? -1
        if (before >= 0) seconds = Math.max(seconds, timeline.endSeconds[before]!)
      }
      begin[row] = seconds
      tails[lane] = timeline.endSeconds[row]!
    }
  }
  return begin
}

/** Seconds of each row of the timeline; NaN where it has none. */
export const rowSeconds = (run: RecordedRun, of: Reckoning["of"]): Float64Array =>
  beginSeconds(run, of).map((begin, row) => tookSeconds(begin, run.timeline.endSeconds[row]!) ?? NaN)

/** Seconds of every op that is no collective, by `opKey`. */
export const recordedSeconds = (
  run: RecordedRun,
  { of, statistic }: Reckoning
): ReadonlyMap<string, number> => {
  const { timeline, journals } = run
  const begin = beginSeconds(run, of)
  const rows = rowsByRank(timeline)
  const times = new Map<string, Array<number>>()
  for (const { rank, entries } of journals) {
    const own = rows.get(rank) ?? []
    for (const entry of entries) {
      if (entry.kind !== "op" || entry.op.group !== undefined) continue
      const row = own[entry.id] ?? -1
      if (row < 0) continue
      const key = opKey(entry.op)
      const list = times.get(key)
      const seconds = tookSeconds(begin[row]!, timeline.endSeconds[row]!)
      if (seconds === undefined) continue
      if (list === undefined) times.set(key, [seconds])
      else list.push(seconds)
    }
  }
  return new Map([...times].map(([key, list]) => [key, statistic(list)]))
}

/** Of every op that is no collective: the median of its times, and the least, seconds. */
export const mediansAndLeast = (
  run: RecordedRun
): ReadonlyArray<readonly [median: number, least: number]> => {
  const least = recordedSeconds(run, undisturbed)
  return [...recordedSeconds(run, forBenchmark)].map(([op, seconds]) => [seconds, least.get(op)!])
}

/** Of sizes that numbers of a launch decide, as of a cache that grows by a row a step: those that differ by no more are as good as equal. */
const alikeShare = 1 / 40

/** Whether the same kernel takes as long for both: no size differs by more. */
const areAlike = (one: OpCost["attributes"], other: OpCost["attributes"]): boolean =>
  Object.entries(one).every(
    ([name, size]) => Math.abs(size - (other[name] ?? NaN)) <= alikeShare * Math.min(size, other[name]!)
  )

/**
 * Seconds of every kind of launch that is no collective, as rows of a profile: by kernel, the sizes that it declares, and dtype.
 * A size that comes in one step alone shows what the device was like just then (slower for a while after long products, say), so where
 * numbers of a launch decide sizes, `statistic` is of all that are as good as equal. `takes`: what an op of so many seconds is to count as.
 */
export const recordedOps = (
  run: RecordedRun,
  { of, statistic }: Reckoning,
  takes: (op: Op, seconds: number) => number = (_, seconds) => seconds
): ReadonlyArray<OpCost> => {
  const { timeline, journals } = run
  const begin = beginSeconds(run, of)
  const rows = rowsByRank(timeline)
  const known = new Map<
    string,
    {
      readonly row: Omit<OpCost, "medianSeconds">
      readonly times: Array<number>
      readonly follows: boolean
    }
  >()
  for (const { rank, entries } of journals) {
    const own = rows.get(rank) ?? []
    for (const entry of entries) {
      if (entry.kind !== "op" || entry.op.group !== undefined || entry.op.kernel.name === "barrier") continue
      const row = own[entry.id] ?? -1
      const seconds = row < 0 ? undefined : tookSeconds(begin[row]!, timeline.endSeconds[row]!)
      if (seconds === undefined || seconds === 0) continue
      const { kernel, reads, writes, attributes } = launchedWith(entry.op, entry.scalars)
      const sizes = kernel.sizes(reads, writes, attributes)
      if (Object.values(sizes).some((size) => !(size > 0))) continue
      const dtype = arithmeticDtype([...reads, ...writes])
      const key = `${kernel.name} ${dtype} ${Object.values(sizes).join(" ")}`
      const alike = known.get(key)
      if (alike === undefined)
        known.set(key, {
          row: { op: kernel.name, attributes: sizes, dtype },
          times: [takes(entry.op, seconds)],
          follows: kernel.costFollowsScalars
        })
      else alike.times.push(takes(entry.op, seconds))
    }
  }
  const all = [...known.values()]
  const following = Map.groupBy(
    all.filter(({ follows }) => follows),
    ({ row }) => `${row.op} ${row.dtype}`
  )
  return all.map(({ row, times, follows }) => {
    const alike = follows
      ? following
          .get(`${row.op} ${row.dtype}`)!
          .filter((other) => areAlike(row.attributes, other.row.attributes))
          .flatMap((other) => other.times)
      : times
    return { ...row, medianSeconds: statistic(alike) }
  })
}

/**
 * A broken machine may have ended an op before what it waits for, or not at all: that is for the laws to judge, and gives no
 * time here.
 */
const tookSeconds = (begin: number, end: number): number | undefined =>
  Number.isNaN(end - begin) ? undefined : Math.max(0, end - begin)

interface Meeting {
  readonly op: string
  /** Of the member that puts in most. */
  sizeBytes: number
  readonly begins: Array<number>
  readonly ends: Array<number>
  /** Some member's times are not there, so that nobody knows when all had come. */
  partly: boolean
}

/** Seconds of each collective of one kind, ranks and size; sizes as profiles count them. */
export interface CollectiveSamples extends Pick<CollectiveCost, "op" | "ranks" | "sizeBytes"> {
  readonly seconds: ReadonlyArray<number>
}

/** Collectives in which a member only sends, and may have ended before another has begun. */
const oneSided: ReadonlySet<string> = new Set(["broadcast", "send_recv"])

/**
 * Seconds of the collectives by kind, ranks and size, each counted from when the last of its members began to its members'
 * mean end, of a broadcast or a message to the last end: what it takes once everybody is there.
 */
export const collectiveSamples = (
  run: RecordedRun,
  of: Reckoning["of"]
): ReadonlyArray<CollectiveSamples> => {
  const { timeline, opLogs } = run
  const begin = beginSeconds(run, of)
  const rows = rowsByRank(timeline)
  const meetings = new Map<string, Meeting>()
  for (const log of opLogs) {
    const own = rows.get(log.rank) ?? []
    for (const [group, entries] of collectivesOf(log)) {
      for (const [position, { op, kernel, sizeBytes }] of entries.entries()) {
        const row = own[op] ?? -1
        if (row < 0) continue
        const key = `${position} ${group}`
        let meeting = meetings.get(key)
        if (meeting === undefined)
          meetings.set(key, (meeting = { op: kernel, sizeBytes, begins: [], ends: [], partly: false }))
        if (tookSeconds(begin[row]!, timeline.endSeconds[row]!) === undefined) {
          meeting.partly = true
          continue
        }
        meeting.sizeBytes = Math.max(meeting.sizeBytes, sizeBytes)
        meeting.begins.push(begin[row]!)
        meeting.ends.push(timeline.endSeconds[row]!)
      }
    }
  }
  const alike = Map.groupBy(
    [...meetings.values()].filter(({ partly }) => !partly),
    ({ op, ends, sizeBytes }) => `${op} ${ends.length} ${sizeBytes}`
  )
  return [...alike.values()].map((list) => {
    const [{ op, ends, sizeBytes }] = list as [Meeting, ...Array<Meeting>]
    return {
      op: op as CollectiveCost["op"],
      ranks: ends.length,
      // Profiles count what a rank gets of a reduce-scatter.
      sizeBytes: op === "reduce_scatter" ? sizeBytes / ends.length : sizeBytes,
      seconds: list.map(({ begins, ends }) =>
        Math.max(0, (oneSided.has(op) ? Math.max(...ends) : mean(ends)) - Math.max(...begins))
      )
    }
  })
}

/** Of those of one kind and size, what stands for all of them: rows of a profile. */
export const recordedCollectives = (
  run: RecordedRun,
  { of, statistic }: Reckoning
): ReadonlyArray<CollectiveCost> =>
  collectiveSamples(run, of).map(({ seconds, ...kind }) => ({
    ...kind,
    medianSeconds: statistic(seconds),
    link: "unshaped"
  }))

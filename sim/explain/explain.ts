// Why a step takes as long as it does: its critical path, and for each collective when it could start, when it did, and
// who waited for it. Pure: from a recorded timeline to plain data. print.ts makes text of it.
import { Lane, type LaneName, laneNames } from "../../core/machine/lane.ts"
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"
import { kernelNamed } from "../../core/kernels/catalogue.ts"
import { CriticalPath, kindOf, pathKinds } from "./critical-path.ts"
import type { PathKind, PathSegment, WireLatency } from "./critical-path.ts"

/** Whole steps of one rank: from the end of the step before to the end of the last, on its compute lane. */
interface StepWindow {
  readonly rank: number
  readonly firstStep: number
  readonly lastStep: number
  readonly fromSeconds: number
  readonly toSeconds: number
}

interface ExplainOptions {
  /** With them, it is known when a queued collective's data were ready. */
  readonly opLogs?: ReadonlyArray<OpLog>
  /** Latency inside a collective's time; without it that time counts as communication. */
  readonly wireLatencySeconds?: WireLatency
}

export interface Explanation {
  readonly window: StepWindow
  readonly seconds: number
  /** Time the rank's compute lane was busy in the window. */
  readonly computeSeconds: number
  /**
   * Where the rest went, by what the compute lane waited for. The eight add up to `seconds - computeSeconds`, but for
   * rounding.
   */
  readonly exposed: {
    readonly communicationSeconds: number
    readonly copySeconds: number
    /** Kernels of other ranks, which came late to a collective. */
    readonly otherRanksSeconds: number
    readonly latencySeconds: number
    /** The host, which had still to launch what was ready. */
    readonly hostSeconds: number
    /** The program, which slept until some moment. */
    readonly asleepSeconds: number
    /** Collectives whose kernels waited for multiprocessors that a kernel held. */
    readonly placementSeconds: number
    readonly idleSeconds: number
  }
  /** Time at least one collective of the rank was under way in the window. */
  readonly communicationBusySeconds: number
  readonly criticalPath: {
    readonly segments: ReadonlyArray<PathSegment>
    readonly byKind: Readonly<Record<PathKind, number>>
    /** Largest first. */
    readonly byLabel: ReadonlyArray<LabelShare>
  }
  /** Collectives under way in the window, in the order they started. */
  readonly collectives: ReadonlyArray<CollectiveExplanation>
}

interface LabelShare {
  readonly label: string
  readonly kind: PathKind
  readonly seconds: number
}

export interface CollectiveExplanation {
  readonly row: number
  readonly rank: number
  readonly label: string
  readonly kernel: string
  readonly step: number
  readonly lane: LaneName
  readonly sizeBytes: number
  /** When the rank's own data were ready; undefined where neither the timeline nor an op log says. */
  readonly releasedSeconds: number | undefined
  readonly startedSeconds: number
  readonly endedSeconds: number
  readonly delay: Delay
  /** Time under way in the window while the rank computed. */
  readonly hiddenSeconds: number
  /** Time under way in the window during which the compute lane stood still because of it. */
  readonly exposedSeconds: number
  /** The ops of the compute lane that waited, for how long each. They add up to `exposedSeconds`. */
  readonly waiters: ReadonlyArray<{ readonly row: number; readonly label: string; readonly seconds: number }>
}

/** Why a collective started later than its data were ready. */
type Delay =
  | { readonly kind: "none" }
  /** The host launched it so long after everything else had let it start. */
  | { readonly kind: "host"; readonly seconds: number }
  /** Its kernels waited so long for multiprocessors that a kernel of the rank held. */
  | { readonly kind: "placement"; readonly seconds: number }
  /** Earlier collectives of its lane were still under way, in the order they ran. */
  | {
      readonly kind: "queued"
      readonly behind: ReadonlyArray<number>
      readonly labels: ReadonlyArray<string>
    }
  /** Another rank joined late. */
  | { readonly kind: "other-rank"; readonly rank: number; readonly row: number; readonly label: string }

/** Steps the timeline holds for a rank, ascending. */
export const stepsOf = (timeline: Timeline, rank: number): ReadonlyArray<number> => {
  const steps = new Set<number>()
  for (let row = 0; row < timeline.rank.length; row++) {
    if (timeline.rank[row] === rank && timeline.lane[row] === Lane.compute) steps.add(timeline.step[row]!)
  }
  return [...steps].toSorted((a, b) => a - b)
}

/** The window of steps `firstStep` to `lastStep` of a rank; undefined when its compute lane has no op of them. */
export const stepWindow = (
  timeline: Timeline,
  rank: number,
  firstStep: number,
  lastStep = firstStep
): StepWindow | undefined => {
  let from = 0
  let to = -Infinity
  for (let row = 0; row < timeline.rank.length; row++) {
    if (timeline.rank[row] !== rank || timeline.lane[row] !== Lane.compute) continue
    const step = timeline.step[row]!
    const end = timeline.endSeconds[row]!
    if (step < firstStep) from = Math.max(from, end)
    else if (step <= lastStep) to = Math.max(to, end)
  }
  return to === -Infinity ? undefined : { rank, firstStep, lastStep, fromSeconds: from, toSeconds: to }
}

/** Explains a window of a recorded run, as the rank it belongs to sees it. */
export const explain = (
  timeline: Timeline,
  window: StepWindow,
  options: ExplainOptions = {}
): Explanation => {
  const { fromSeconds, toSeconds } = window
  const path = new CriticalPath(timeline, options.wireLatencySeconds)
  const lanes = lanesOf(timeline, window.rank)
  const compute = lanes[Lane.compute]!
  const { gaps, busy } = gapsOf(timeline, compute, fromSeconds, toSeconds)

  let computeSeconds = 0
  for (const [from, to] of busy) computeSeconds += to - from

  const exposed: Record<PathKind, number> = noSeconds()
  const waits = new Map<number, Array<{ row: number; label: string; seconds: number }>>()
  for (const gap of gaps) {
    const segments: ReadonlyArray<PathSegment> =
      gap.waiter < 0
        ? [{ kind: "idle", row: -1, fromSeconds: gap.fromSeconds, toSeconds: gap.toSeconds }]
        : path.startOf(gap.waiter, gap.fromSeconds, gap.toSeconds)
    for (const segment of segments) {
      const seconds = segment.toSeconds - segment.fromSeconds
      // A collective's own latency delays whoever waits as its bytes do, but other means help against it.
      const inCollective =
        segment.row >= 0 &&
        kindOf(timeline, segment.row) === "communication" &&
        segment.fromSeconds >= timeline.startSeconds[segment.row]!
      if (!inCollective) {
        exposed[segment.kind] += seconds
        continue
      }
      exposed[segment.kind === "latency" ? "latency" : "communication"] += seconds
      const waiters = waits.get(segment.row)
      const known = waiters?.find(({ row }) => row === gap.waiter)
      if (known !== undefined) known.seconds += seconds
      else {
        const waiter = { row: gap.waiter, label: labelOf(timeline, gap.waiter), seconds }
        if (waiters === undefined) waits.set(segment.row, [waiter])
        else waiters.push(waiter)
      }
    }
  }

  const own = [...lanes[Lane.inter]!, ...lanes[Lane.intra]!]
  const under = own.filter(
    (row) =>
      moves(timeline, row) &&
      ((timeline.endSeconds[row]! > fromSeconds && timeline.startSeconds[row]! < toSeconds) || waits.has(row))
  )
  const rows = [...new Set([...under, ...waits.keys()])].toSorted(
    (a, b) => timeline.startSeconds[a]! - timeline.startSeconds[b]! || a - b
  )
  const released = releases(timeline, options.opLogs)
  const placeOf = new Map<number, number>()
  for (const lane of [lanes[Lane.inter]!, lanes[Lane.intra]!])
    lane.forEach((row, index) => placeOf.set(row, index))
  const collectives = rows
    .filter((row) => moves(timeline, row))
    .map((row): CollectiveExplanation => {
      const waiters = waits.get(row) ?? []
      const from = Math.max(fromSeconds, timeline.startSeconds[row]!)
      const to = Math.min(toSeconds, timeline.endSeconds[row]!)
      const releasedSeconds = released(row)
      return {
        row,
        rank: timeline.rank[row]!,
        label: labelOf(timeline, row),
        kernel: timeline.kernels[timeline.kernel[row]!]!,
        step: timeline.step[row]!,
        lane: laneNames[timeline.lane[row]!]!,
        sizeBytes: timeline.sizeBytes[row]!,
        releasedSeconds,
        startedSeconds: timeline.startSeconds[row]!,
        endedSeconds: timeline.endSeconds[row]!,
        delay: delayOf(timeline, row, releasedSeconds, lanes, placeOf),
        hiddenSeconds: overlap(busy, from, to),
        exposedSeconds: waiters.reduce((sum, { seconds }) => sum + seconds, 0),
        waiters
      }
    })

  const last = compute.findLast(
    (row) => timeline.endSeconds[row]! <= toSeconds && timeline.endSeconds[row]! > fromSeconds
  )
  // Without an op in it the window has no length.
  const segments = last === undefined ? [] : path.endingWith(last, fromSeconds, toSeconds)
  return {
    window,
    seconds: toSeconds - fromSeconds,
    computeSeconds,
    exposed: {
      communicationSeconds: exposed.communication,
      copySeconds: exposed.copy,
      otherRanksSeconds: exposed.compute,
      latencySeconds: exposed.latency,
      hostSeconds: exposed.host,
      asleepSeconds: exposed.asleep,
      placementSeconds: exposed.placement,
      idleSeconds: exposed.idle
    },
    communicationBusySeconds: unionSeconds(timeline, under, fromSeconds, toSeconds),
    criticalPath: { segments, ...shares(timeline, segments) },
    collectives
  }
}

/** Barriers carry nothing, and what places a cache at its destination is a kernel: neither is a collective. */
const moves = (timeline: Timeline, row: number): boolean => {
  const kernel = kernelNamed(timeline.kernels[timeline.kernel[row]!]!)
  return kernel === undefined || kernel.kind === "collective"
}

const labelOf = (timeline: Timeline, row: number): string =>
  row < 0 ? "" : timeline.labels[timeline.label[row]!]!

/** Rows of a rank by lane, in program order, which is the order a lane runs them in. Rows that did not end are left out. */
const lanesOf = (timeline: Timeline, rank: number): ReadonlyArray<ReadonlyArray<number>> => {
  const lanes: Array<Array<number>> = laneNames.map(() => [])
  for (let row = 0; row < timeline.rank.length; row++) {
    if (timeline.rank[row] === rank && !Number.isNaN(timeline.endSeconds[row]!))
      lanes[timeline.lane[row]!]!.push(row)
  }
  for (const lane of lanes) lane.sort((a, b) => timeline.op[a]! - timeline.op[b]!)
  return lanes
}

type Interval = readonly [fromSeconds: number, toSeconds: number]

/** When a FIFO lane was busy inside a window, and the gaps between; a gap's waiter is the row that ended it. */
const gapsOf = (
  timeline: Timeline,
  lane: ReadonlyArray<number>,
  fromSeconds: number,
  toSeconds: number
): {
  readonly busy: ReadonlyArray<Interval>
  readonly gaps: ReadonlyArray<{ fromSeconds: number; toSeconds: number; waiter: number }>
} => {
  const busy: Array<Interval> = []
  const gaps: Array<{ fromSeconds: number; toSeconds: number; waiter: number }> = []
  let time = fromSeconds
  for (const row of lane) {
    const start = timeline.startSeconds[row]!
    const end = timeline.endSeconds[row]!
    if (end < fromSeconds) continue
    if (start > toSeconds) break
    if (start > time) gaps.push({ fromSeconds: time, toSeconds: start, waiter: row })
    const from = Math.max(time, start)
    const to = Math.min(end, toSeconds)
    if (to > from) busy.push([from, to])
    time = Math.max(time, from, to)
  }
  if (time < toSeconds) gaps.push({ fromSeconds: time, toSeconds, waiter: -1 })
  return { busy, gaps }
}

/** Seconds of [from, to] covered by intervals, which ascend and do not overlap. */
const overlap = (intervals: ReadonlyArray<Interval>, from: number, to: number): number => {
  let seconds = 0
  for (let i = firstAfter(intervals, from); i < intervals.length; i++) {
    const [start, end] = intervals[i]!
    if (start >= to) break
    seconds += Math.min(end, to) - Math.max(start, from)
  }
  return seconds
}

/** The first that ends after then. Looked up by halves: a run has very many, and each of its collectives asks. */
const firstAfter = (intervals: ReadonlyArray<Interval>, seconds: number): number => {
  let low = 0
  let high = intervals.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (intervals[middle]![1] > seconds) high = middle
    else low = middle + 1
  }
  return low
}

const unionSeconds = (
  timeline: Timeline,
  rows: ReadonlyArray<number>,
  fromSeconds: number,
  toSeconds: number
): number => {
  const byStart = rows.toSorted((a, b) => timeline.startSeconds[a]! - timeline.startSeconds[b]!)
  let seconds = 0
  let time = fromSeconds
  for (const row of byStart) {
    const from = Math.max(time, timeline.startSeconds[row]!)
    const to = Math.min(toSeconds, timeline.endSeconds[row]!)
    if (to > from) {
      seconds += to - from
      time = to
    }
  }
  return seconds
}

/**
 * When each row's own data were ready. An op log names, for each op, the ops of other lanes it waits for beside those its
 * lane already waited for: with none named, it was ready no later than the op before it on its lane.
 */
const releases = (
  timeline: Timeline,
  opLogs: ReadonlyArray<OpLog> | undefined
): ((row: number) => number | undefined) => {
  if (opLogs === undefined) {
    return (row) => {
      const cause = timeline.cause[row]!
      const tells =
        cause >= 0 &&
        timeline.rank[cause] === timeline.rank[row] &&
        timeline.lane[cause] !== timeline.lane[row]
      return tells ? Math.min(timeline.endSeconds[cause]!, timeline.startSeconds[row]!) : undefined
    }
  }
  const rowOf = new Map<number, Map<number, number>>()
  for (let row = 0; row < timeline.rank.length; row++) {
    const rank = timeline.rank[row]!
    let rows = rowOf.get(rank)
    if (rows === undefined) rowOf.set(rank, (rows = new Map()))
    rows.set(timeline.op[row]!, row)
  }
  const released = new Map<number, number>()
  for (const { rank, entries } of opLogs) {
    const rows = rowOf.get(rank)
    if (rows === undefined) continue
    const laneReleased = laneNames.map(() => 0)
    for (const { op, lane, after } of entries) {
      for (const predecessor of after) {
        const row = rows.get(predecessor)
        if (row !== undefined) laneReleased[lane] = Math.max(laneReleased[lane]!, timeline.endSeconds[row]!)
      }
      const row = rows.get(op)
      if (row !== undefined) released.set(row, Math.min(laneReleased[lane]!, timeline.startSeconds[row]!))
    }
  }
  return (row) => released.get(row)
}

const delayOf = (
  timeline: Timeline,
  row: number,
  releasedSeconds: number | undefined,
  lanes: ReadonlyArray<ReadonlyArray<number>>,
  placeOf: ReadonlyMap<number, number>
): Delay => {
  const { cause, lane, rank, startSeconds, endSeconds } = timeline
  const start = startSeconds[row]!
  if (releasedSeconds !== undefined && releasedSeconds >= start) return { kind: "none" }
  const placement = timeline.held?.placementSeconds[row] ?? 0
  if (placement > 0) return { kind: "placement", seconds: placement }
  const host = timeline.held?.hostSeconds[row] ?? 0
  if (host > 0) return { kind: "host", seconds: Math.min(host, start - (releasedSeconds ?? 0)) }
  const reason = cause[row]!
  if (reason < 0) return { kind: "none" }
  // A meeting that moves nothing has ended when the last rank came to it: what is waited for is that rank.
  if (
    rank[reason] !== rank[row] &&
    !(kindOf(timeline, reason) === "communication" && moves(timeline, reason))
  ) {
    return { kind: "other-rank", rank: rank[reason]!, row: reason, label: labelOf(timeline, reason) }
  }
  if (lane[reason] !== lane[row]) return { kind: "none" }
  const behind: Array<number> = []
  if (releasedSeconds !== undefined) {
    const queue = lanes[lane[row]!]!
    for (let i = (placeOf.get(row) ?? 0) - 1; i >= 0 && endSeconds[queue[i]!]! > releasedSeconds; i--) {
      behind.push(queue[i]!)
    }
  }
  const rows = behind.length === 0 ? [reason] : behind.toReversed()
  return { kind: "queued", behind: rows, labels: rows.map((other) => labelOf(timeline, other)) }
}

const noSeconds = (): Record<PathKind, number> => ({
  compute: 0,
  communication: 0,
  copy: 0,
  latency: 0,
  host: 0,
  asleep: 0,
  placement: 0,
  idle: 0
})

const shares = (timeline: Timeline, segments: ReadonlyArray<PathSegment>) => {
  const byKind = noSeconds()
  const byLabel = new Map<string, { label: string; kind: PathKind; seconds: number }>()
  for (const { kind, row, fromSeconds, toSeconds } of segments) {
    const seconds = toSeconds - fromSeconds
    byKind[kind] += seconds
    const label = kind === "idle" || kind === "host" || kind === "asleep" ? kind : labelOf(timeline, row)
    const key = `${kind} ${label}`
    const known = byLabel.get(key)
    if (known === undefined) byLabel.set(key, { label, kind, seconds })
    else known.seconds += seconds
  }
  return {
    byKind,
    byLabel: [...byLabel.values()].toSorted(
      (a, b) =>
        b.seconds - a.seconds ||
        pathKinds.indexOf(a.kind) - pathKinds.indexOf(b.kind) ||
        (a.label < b.label ? -1 : 1)
    )
  }
}

// Laws of how long things take at least, and of steps: what no schedule can beat.
import { Lane, laneCount, laneNames } from "../machine/lane.ts"
import {
  collectivesOf,
  describeRow,
  makespanOf,
  rowsByRank,
  type Execution,
  type Violation
} from "./execution.ts"

/** Differences and sums of times carry rounding of this relative size. */
const rounding = 1e-9

/** The makespan is at least the time that any one lane is busy. */
export const makespanCoversLanes = (execution: Execution): Violation | undefined => {
  const { timeline, toleranceSeconds = 0 } = execution
  const makespan = makespanOf(execution)
  for (const [rank, rows] of rowsByRank(timeline)) {
    const busy = new Float64Array(laneCount)
    for (const row of rows) {
      if (row < 0) continue
      const end = timeline.endSeconds[row]!
      if (end > makespan * (1 + rounding) + toleranceSeconds) {
        return {
          law: "makespanCoversLanes",
          rank,
          ops: [timeline.op[row]!],
          message: `rank ${rank}: ${describeRow(timeline, row)} ends after the makespan of ${makespan} s`
        }
      }
      busy[timeline.lane[row]!]! += end - timeline.startSeconds[row]!
    }
    const lane = busy.findIndex((seconds) => seconds > makespan * (1 + rounding) + toleranceSeconds)
    if (lane >= 0) {
      return {
        law: "makespanCoversLanes",
        rank,
        message: `rank ${rank}: the ${laneNames[lane]} lane is busy for ${busy[lane]} s of a makespan of ${makespan} s`
      }
    }
  }
  return undefined
}

/**
 * Seconds of the longest chain of ops, each waiting for the one before by an edge, by lane order or by meeting in a
 * collective; undefined if they wait for each other in a circle.
 */
export const criticalPathSeconds = ({
  timeline,
  opLogs,
  leaveApart = false
}: Execution): number | undefined => {
  const ranks = rowsByRank(timeline)
  // A node is an op, or a collective with all its members' rows.
  const nodeOf = new Int32Array(timeline.op.length).fill(-1)
  const starts: Array<number> = []
  const ends: Array<number> = []
  const meetings = new Map<string, number>()
  for (const log of opLogs) {
    const rows = ranks.get(log.rank) ?? []
    const add = (key: string | undefined, row: number): void => {
      let node = key === undefined ? undefined : meetings.get(key)
      if (node === undefined) {
        node = starts.push(-Infinity) - 1
        ends.push(leaveApart ? Infinity : -Infinity)
        if (key !== undefined) meetings.set(key, node)
      }
      starts[node] = Math.max(starts[node]!, timeline.startSeconds[row]!)
      // Who leaves first may go on while others are still leaving: only up to there is everybody bound.
      const end = timeline.endSeconds[row]!
      ends[node] = leaveApart ? Math.min(ends[node]!, end) : Math.max(ends[node]!, end)
      nodeOf[row] = node
    }
    for (const [group, entries] of collectivesOf(log))
      entries.forEach(({ op }, k) => {
        if ((rows[op] ?? -1) >= 0) add(`${k} ${group}`, rows[op]!)
      })
    for (const { op, group } of log.entries)
      if (group === undefined && (rows[op] ?? -1) >= 0) add(undefined, rows[op]!)
  }
  const successors: Array<Array<number>> = starts.map(() => [])
  const waits = new Int32Array(starts.length)
  for (const { rank, entries } of opLogs) {
    const rows = ranks.get(rank) ?? []
    const tails = new Int32Array(laneCount).fill(-1)
    for (const { op, lane, after } of entries) {
      const node = nodeOf[rows[op] ?? -1] ?? -1
      if (node < 0) continue
      const before = after.map((predecessor) => nodeOf[rows[predecessor] ?? -1] ?? -1)
      for (const predecessor of [...before, tails[lane]!]) {
        if (predecessor < 0) continue
        successors[predecessor]!.push(node)
        waits[node]!++
      }
      tails[lane] = node
    }
  }
  const pathBefore = new Float64Array(starts.length)
  const ready = [...starts.keys()].filter((node) => waits[node] === 0)
  let longest = 0
  for (let i = 0; i < ready.length; i++) {
    const node = ready[i]!
    const path = pathBefore[node]! + Math.max(0, ends[node]! - starts[node]!)
    longest = Math.max(longest, path)
    for (const next of successors[node]!) {
      pathBefore[next] = Math.max(pathBefore[next]!, path)
      if (--waits[next]! === 0) ready.push(next)
    }
  }
  return ready.length === starts.length ? longest : undefined
}

/** The makespan is at least the longest chain of ops that wait for each other. */
export const makespanCoversCriticalPath = (execution: Execution): Violation | undefined => {
  const law = "makespanCoversCriticalPath"
  const path = criticalPathSeconds(execution)
  if (path === undefined) return { law, message: "ops wait for each other in a circle" }
  const makespan = makespanOf(execution)
  if (path <= makespan * (1 + rounding) + (execution.toleranceSeconds ?? 0)) return undefined
  return { law, message: `the critical path of ${path} s is longer than the makespan of ${makespan} s` }
}

/** When the last compute op of each step ended, as the timeline has it; of steps without one, that of the step before. */
const computeEnds = (execution: Execution, rows: ReadonlyArray<number>): ReadonlyArray<number> => {
  const { timeline } = execution
  const ends: Array<number> = []
  let last = 0
  for (const row of rows) {
    if (row < 0) continue
    const step = timeline.step[row]!
    while (ends.length < step) ends.push(last)
    if (timeline.lane[row] === Lane.compute) last = Math.max(last, timeline.endSeconds[row]!)
    ends[step] = last
  }
  return ends
}

/**
 * Steps follow each other in program order, and a step's reported end is that of its last compute op. (Later, if the
 * program waited for a `read` before it ended the step; without a journal nobody knows whether it did.)
 */
export const stepsNested = (execution: Execution): Violation | undefined => {
  const law = "stepsNested"
  const { timeline, stepEnds = [], journals = [], toleranceSeconds = 0 } = execution
  for (const [rank, rows] of rowsByRank(timeline)) {
    const journal = journals.find((one) => one.rank === rank)
    const mayWait = journal?.entries.some(({ kind }) => kind === "read") ?? true
    let step = 0
    for (const row of rows) {
      if (row < 0) continue
      if (timeline.step[row]! < step) {
        return {
          law,
          rank,
          ops: [timeline.op[row]!],
          message: `rank ${rank}: ${describeRow(timeline, row)} belongs to step ${timeline.step[row]}, after ops of step ${step}`
        }
      }
      step = timeline.step[row]!
    }
    const reported = stepEnds.find((one) => one.rank === rank)?.seconds ?? []
    const ends = computeEnds(execution, rows)
    for (const [index, seconds] of reported.entries()) {
      const expected = ends[index] ?? ends.at(-1) ?? 0
      if (seconds < (reported[index - 1] ?? 0))
        return {
          law,
          rank,
          message: `rank ${rank}: step ${index} ends at ${seconds} s, before step ${index - 1}`
        }
      if (seconds < expected - toleranceSeconds || (!mayWait && seconds > expected + toleranceSeconds)) {
        return {
          law,
          rank,
          message: `rank ${rank}: step ${index} is said to end at ${seconds} s; its last compute op ends at ${expected} s`
        }
      }
    }
  }
  return undefined
}

/** A program is at most its machine's look-ahead of steps ahead of the compute lane. */
export const lookAheadBounded = (execution: Execution): Violation | undefined => {
  const { timeline, lookAheadSteps, toleranceSeconds = 0 } = execution
  if (lookAheadSteps === undefined) return undefined
  for (const [rank, rows] of rowsByRank(timeline)) {
    const ends = computeEnds(execution, rows)
    for (const row of rows) {
      if (row < 0) continue
      // Ops of step s are submitted when `endStep` of step s-1 has returned.
      const awaited = timeline.step[row]! - 1 - lookAheadSteps
      const knownSeconds = awaited < 0 ? 0 : (ends[awaited] ?? 0)
      if (timeline.startSeconds[row]! >= knownSeconds - toleranceSeconds) continue
      return {
        law: "lookAheadBounded",
        rank,
        ops: [timeline.op[row]!],
        message: `rank ${rank}: ${describeRow(timeline, row)} of step ${timeline.step[row]} starts before step ${awaited} ended at ${knownSeconds} s; the look-ahead is ${lookAheadSteps} steps`
      }
    }
  }
  return undefined
}

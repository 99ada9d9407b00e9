// What is known of an execution that is to be judged: the timeline and the op logs that every machine makes, and whatever
// else was kept. Knows nothing of how it came about: simulated and measured executions look alike.
import type { Place } from "../machine/tensor.ts"
import type { OpLog, OpLogEntry, Timeline } from "../machine/timeline.ts"
import type { Journal } from "./journal.ts"

/** An execution to be judged; laws that need what it lacks say nothing of it. */
export interface Execution {
  readonly timeline: Timeline
  /** One for each rank that the timeline has rows of. */
  readonly opLogs: ReadonlyArray<OpLog>
  /** What each rank's program asked of its machine; see `journaled`. */
  readonly journals?: ReadonlyArray<Journal> | undefined
  /** When everything had ended, seconds. Default: the last end on the timeline. */
  readonly makespanSeconds?: number | undefined
  /** When each rank's compute lane finished each step, seconds. */
  readonly stepEnds?: ReadonlyArray<StepEnds> | undefined
  /** Steps that a program may be ahead of its compute lane. */
  readonly lookAheadSteps?: number | undefined
  /** Size of every rank's memories, bytes; Infinity where unbounded. */
  readonly capacityBytes?: Partial<Readonly<Record<Place, number>>> | undefined
  /** Most bytes each rank held at a time, as the machine counted them. */
  readonly peakBytes?: ReadonlyArray<RankBytes> | undefined
  /** Bytes that crossed each link, and which bytes a collective puts on which links. Both or neither. */
  readonly traffic?: Traffic | undefined
  /** By how much clocks of different lanes and ranks may disagree, seconds. 0 for a simulation, which is exact. */
  readonly toleranceSeconds?: number | undefined
  /** Members of a collective may leave it one after the other, once the last has come: true of real machines. */
  readonly leaveApart?: boolean | undefined
}

/** When the steps of a rank ended, seconds from the start of the run. */
export interface StepEnds {
  readonly rank: number
  readonly seconds: ReadonlyArray<number>
}

/** Bytes in each memory of a rank. */
export interface RankBytes {
  readonly rank: number
  readonly bytes: Readonly<Record<Place, number>>
}

/** What links are said to have carried, and what each collective should have put on them. */
export interface Traffic {
  /** Names are the caller's: single links, classes of links or whole tiers. */
  readonly links: ReadonlyArray<{ readonly name: string; readonly bytes: number }>
  /** Bytes that one collective puts on links, by those names. `group` is the group's name; `op` one member's, of `rank`. */
  readonly carried: (collective: {
    readonly kernel: string
    readonly group: string
    readonly sizeBytes: number
    readonly rank: number
    readonly op: number
  }) => Iterable<readonly [name: string, bytes: number]>
}

/** A law that does not hold, and where. */
export interface Violation {
  /** Name of the law. */
  readonly law: string
  /** What is wrong, in a sentence with the labels and times that a person needs. */
  readonly message: string
  readonly rank?: number
  /** The ops concerned, positions in that rank's program order. */
  readonly ops?: ReadonlyArray<number>
}

/** Rows of each rank in program order, `-1` where the timeline has none for an op. */
export const rowsByRank = (timeline: Timeline): ReadonlyMap<number, ReadonlyArray<number>> => {
  const ranks = new Map<number, Array<number>>()
  for (let row = 0; row < timeline.op.length; row++) {
    const rank = timeline.rank[row]!
    let rows = ranks.get(rank)
    if (rows === undefined) ranks.set(rank, (rows = []))
    const op = timeline.op[row]!
    while (rows.length <= op) rows.push(-1)
    rows[op] = row
  }
  return ranks
}

/** "op 3 "forward h.0" (1 s to 2 s)", as violations name an op. */
export const describeRow = (timeline: Timeline, row: number): string => {
  const label = timeline.labels[timeline.label[row]!] ?? ""
  return `op ${timeline.op[row]} "${label}" (${timeline.startSeconds[row]} s to ${timeline.endSeconds[row]} s)`
}

export const makespanOf = ({ makespanSeconds, timeline }: Execution): number => {
  if (makespanSeconds !== undefined) return makespanSeconds
  let last = 0
  for (const end of timeline.endSeconds) if (end > last) last = end
  return last
}

/** A rank's collectives by group, in the order it submitted them. */
export const collectivesOf = (log: OpLog): ReadonlyMap<string, ReadonlyArray<OpLogEntry>> => {
  const groups = new Map<string, Array<OpLogEntry>>()
  for (const entry of log.entries) {
    if (entry.group === undefined) continue
    const list = groups.get(entry.group)
    if (list === undefined) groups.set(entry.group, [entry])
    else list.push(entry)
  }
  return groups
}

/** Of every group, the ranks that ought to take part and have an op log. */
export const membersByGroup = (execution: Execution): ReadonlyMap<string, ReadonlySet<number>> => {
  const logged = new Set(execution.opLogs.map(({ rank }) => rank))
  const members = new Map<string, Set<number>>()
  const add = (group: string, rank: number): void => {
    if (!logged.has(rank)) return
    const known = members.get(group)
    if (known === undefined) members.set(group, new Set([rank]))
    else known.add(rank)
  }
  for (const log of execution.opLogs) for (const group of collectivesOf(log).keys()) add(group, log.rank)
  for (const { entries } of execution.journals ?? []) {
    for (const entry of entries) {
      if (entry.kind !== "op" || entry.op.group === undefined) continue
      for (const rank of entry.op.group.ranks) add(entry.op.group.name, rank)
    }
  }
  return members
}

// Finds out whether anything can still happen: which ops can end follows from what each waits for, and a program whose every wait
// is for an op that cannot submits nothing more. Exact; no time-out.
import type { Lane } from "../../core/machine/lane.ts"
import type { OpId } from "../../core/machine/op.ts"
import type { PendingOp } from "../../core/machine/pending.ts"

/** An op that has not ended; members of one collective name the same meeting. */
interface WaitingOp extends Pick<PendingOp, "op" | "lane" | "edges"> {
  /** `missing`: members that have not submitted it. */
  readonly meeting: { readonly missing: number } | undefined
}

export interface WaitingRank {
  readonly rank: number
  readonly pending: Iterable<WaitingOp>
  /** Each wait of the program, for ops that must all end; none when it runs, sleeps or has ended. */
  readonly waits: ReadonlyArray<ReadonlyArray<OpId>>
  /** Its program has ended: it submits nothing more. */
  readonly finished: boolean
}

/** An op with what holds it: what stands before it in its lane, and its edges. */
interface Held {
  readonly one: WaitingOp
  /** How much of that has not ended. */
  open: number
  /** What this op holds; most hold nothing but the next in their lane. */
  next: Held | undefined
  others: Array<Held> | undefined
  ended: boolean
}

/**
 * Ops that can never end; undefined while some program may yet submit more, or nothing is stuck. An op can start when what stands
 * before it in its lane and its edges can end; a collective can end when no member is missing and each can start its part. What
 * does not follow from that never ends. Takes as long as there are ops and edges: each becomes ready once.
 */
export const stuckForGood = (
  ranks: ReadonlyArray<WaitingRank>
): ReadonlyMap<number, ReadonlySet<OpId>> | undefined => {
  if (ranks.some(canSubmit)) return undefined
  /** Members of each collective that cannot start their part, as far as is known, and those whose ops are here. */
  const meetings = new Map<object, { count: number; readonly members: Array<Held> }>()
  const ready: Array<Held> = []
  const open = ranks.map(({ rank, waits, finished, pending }) => {
    const ops = new Map<OpId, Held>()
    const lanes = new Map<Lane, Held>()
    for (const one of pending) {
      const held: Held = { one, open: 0, next: undefined, others: undefined, ended: false }
      ops.set(one.op, held)
      // Its lane is free once the op before it has ended, which ends after all that stand before that.
      const before = lanes.get(one.lane)
      if (before !== undefined) {
        before.next = held
        held.open++
      }
      lanes.set(one.lane, held)
      if (one.meeting === undefined) continue
      const meeting = meetings.get(one.meeting)
      if (meeting === undefined)
        meetings.set(one.meeting, { count: one.meeting.missing + 1, members: [held] })
      else {
        meeting.count++
        meeting.members.push(held)
      }
    }
    for (const held of ops.values()) {
      for (const edge of held.one.edges) {
        const before = ops.get(edge)
        if (before === undefined) continue
        if (before.others === undefined) before.others = [held]
        else before.others.push(held)
        held.open++
      }
      if (held.open === 0) ready.push(held)
    }
    return { rank, waits, finished, ops }
  })
  const release = (held: Held): void => {
    if (--held.open === 0) ready.push(held)
  }
  const end = (held: Held): void => {
    held.ended = true
    if (held.next !== undefined) release(held.next)
    held.others?.forEach(release)
  }
  for (let held = ready.pop(); held !== undefined; held = ready.pop()) {
    const meeting = held.one.meeting && meetings.get(held.one.meeting)!
    if (meeting === undefined) end(held)
    else if (--meeting.count === 0) meeting.members.forEach(end)
  }
  const goesOn = open.some(
    ({ waits, finished, ops }) =>
      !finished && waits.some((wait) => !wait.some((op) => ops.get(op)?.ended === false))
  )
  if (goesOn) return undefined
  const stuck = new Map(
    open.map(({ rank, ops }) => [
      rank,
      new Set([...ops.values()].filter(({ ended }) => !ended).map(({ one }) => one.op))
    ])
  )
  return [...stuck.values()].every((ops) => ops.size === 0) ? undefined : stuck
}

/** A program that runs, or sleeps, may yet submit more. */
export const canSubmit = ({ finished, waits }: WaitingRank): boolean => !finished && waits.length === 0

/** Collectives among what is stuck: some miss members; where all have come, they stand behind each other. */
export const stuckMeetings = <M extends NonNullable<WaitingOp["meeting"]>>(
  ranks: ReadonlyArray<{
    readonly rank: number
    readonly pending: ReadonlyArray<{ readonly op: OpId; readonly meeting: M | undefined }>
  }>,
  stuck: ReadonlyMap<number, ReadonlySet<OpId>>
): ReadonlyArray<M> => [
  ...new Set(
    ranks.flatMap(({ rank, pending }) =>
      pending.flatMap(({ op, meeting }) =>
        meeting !== undefined && stuck.get(rank)!.has(op) ? [meeting] : []
      )
    )
  )
]

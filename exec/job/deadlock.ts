// Finds out whether anything can still happen: which ops can end follows from what each waits for, and a program whose every wait
// is for an op that cannot submits nothing more. Exact; no time-out.
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

/**
 * Ops that can never end; undefined while some program may yet submit more, or nothing is stuck. An op can start when what stands
 * before it in its lane and its edges can end; a collective can end when no member is missing and each can start its part. What
 * does not follow from that, however often it is gone through, never ends.
 */
export const stuckForGood = (
  ranks: ReadonlyArray<WaitingRank>
): ReadonlyMap<number, ReadonlySet<OpId>> | undefined => {
  if (ranks.some(({ finished, waits }) => !finished && waits.length === 0)) return undefined
  const stuck = new Map<number, Set<OpId>>()
  const open = ranks.map(({ rank, pending }) => ({ rank, ops: [...pending] }))
  /** Members of each collective that cannot start their part, as far as is known. */
  const held = new Map<object, number>()
  for (const { rank, ops } of open) {
    stuck.set(rank, new Set(ops.map(({ op }) => op)))
    for (const { meeting } of ops)
      if (meeting !== undefined) held.set(meeting, (held.get(meeting) ?? meeting.missing) + 1)
  }
  const canStart = new Set<WaitingOp>()
  for (let changed = true; changed;) {
    changed = false
    for (const { rank, ops } of open) {
      const own = stuck.get(rank)!
      const lanes = new Set<number>()
      for (const one of ops) {
        const { op, lane, edges, meeting } = one
        if (own.has(op) && !lanes.has(lane) && !edges.some((edge) => own.has(edge))) {
          if (meeting !== undefined && !canStart.has(one)) {
            canStart.add(one)
            held.set(meeting, held.get(meeting)! - 1)
            changed = true
          }
          if (meeting === undefined || held.get(meeting) === 0) {
            own.delete(op)
            changed = true
          }
        }
        if (own.has(op)) lanes.add(lane)
      }
    }
  }
  const goesOn = ranks.some(
    ({ rank, finished, waits }) =>
      !finished && waits.some((ops) => !ops.some((op) => stuck.get(rank)!.has(op)))
  )
  return goesOn || [...stuck.values()].every((ops) => ops.size === 0) ? undefined : stuck
}

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

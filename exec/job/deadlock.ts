// Finds out whether anything can still happen: an op is stuck when it waits for a collective whose missing members cannot
// come, and a program whose every wait is for a stuck op submits nothing more. Exact, from what each op waits for; no time-out.
import type { Meeting } from "../../core/machine/collective-order.ts"
import type { OpId } from "../../core/machine/op.ts"
import type { PendingOp } from "../../core/machine/pending.ts"

export interface WaitingRank {
  readonly rank: number
  readonly pending: Iterable<PendingOp>
  /** Each wait of the program, for ops that must all end; none when it runs, sleeps or has ended. */
  readonly waits: ReadonlyArray<ReadonlyArray<OpId>>
  /** Its program has ended: it submits nothing more. */
  readonly finished: boolean
}

/**
 * Ops that can never start, given collectives that still miss members; undefined while some program may yet submit more.
 * Works backwards from the collectives: what stands behind a stuck op in its lane, has an edge from one, or meets one in a
 * collective is stuck too, until nothing is added.
 */
export const stuckForGood = (
  ranks: ReadonlyArray<WaitingRank>,
  unmet: ReadonlyArray<Meeting>
): ReadonlyMap<number, ReadonlySet<OpId>> | undefined => {
  if (unmet.length === 0) return undefined
  if (ranks.some(({ finished, waits }) => !finished && waits.length === 0)) return undefined
  const stuck = new Map<number, Set<OpId>>(ranks.map(({ rank }) => [rank, new Set()]))
  const open = ranks.map(({ rank, pending }) => ({ rank, ops: [...pending] }))
  const stuckMeetings = new Set(unmet)
  for (let added = true; added;) {
    added = false
    for (const { rank, ops } of open) {
      const own = stuck.get(rank)!
      const lanes = new Set<number>()
      for (const { op, lane, edges, meeting } of ops) {
        if (
          !own.has(op) &&
          (lanes.has(lane) ||
            edges.some((edge) => own.has(edge)) ||
            (meeting !== undefined && stuckMeetings.has(meeting)))
        ) {
          own.add(op)
          added = true
          if (meeting !== undefined) stuckMeetings.add(meeting)
        }
        if (own.has(op)) lanes.add(lane)
      }
    }
  }
  const goesOn = ranks.some(
    ({ rank, finished, waits }) =>
      !finished && waits.some((ops) => !ops.some((op) => stuck.get(rank)!.has(op)))
  )
  return goesOn ? undefined : stuck
}

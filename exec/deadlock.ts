// Finds out whether anything can still happen: an op is stuck when it waits for a collective whose missing members cannot
// come, and a program that waits for a stuck op submits nothing more. Exact, from what each op waits for; no time-out.
import type { OpId } from "../core/machine/op.ts"
import type { PendingOp } from "./pending.ts"

export interface WaitingRank {
  readonly rank: number
  readonly pending: Iterable<PendingOp>
  /** Ops that the program waits for, all of them; undefined when it runs, sleeps or has nothing to wait for. */
  readonly waitsFor: ReadonlyArray<OpId> | undefined
  /** Its program has ended: it submits nothing more. */
  readonly finished: boolean
}

/** Collective `position` of `group`, as a key. */
export const meetingKey = (group: string, position: number): string => `${position} ${group}`

/**
 * Ops that can never start, given collectives that still miss members; undefined while some program may yet submit more.
 * Works backwards from the collectives: what stands behind a stuck op in its lane, has an edge from one, or meets one in a
 * collective is stuck too, until nothing is added.
 */
export const stuckForGood = (
  ranks: ReadonlyArray<WaitingRank>,
  unmet: ReadonlySet<string>
): ReadonlyMap<number, ReadonlySet<OpId>> | undefined => {
  if (unmet.size === 0) return undefined
  if (ranks.some(({ finished, waitsFor }) => !finished && waitsFor === undefined)) return undefined
  const stuck = new Map<number, Set<OpId>>(ranks.map(({ rank }) => [rank, new Set()]))
  const open = ranks.map(({ rank, pending }) => ({ rank, ops: [...pending] }))
  const stuckMeetings = new Set(unmet)
  for (let added = true; added;) {
    added = false
    for (const { rank, ops } of open) {
      const own = stuck.get(rank)!
      const lanes = new Set<number>()
      for (const { op, lane, edges, group, position } of ops) {
        const key = group === undefined ? undefined : meetingKey(group, position)
        if (
          !own.has(op) &&
          (lanes.has(lane) ||
            edges.some((edge) => own.has(edge)) ||
            (key !== undefined && stuckMeetings.has(key)))
        ) {
          own.add(op)
          added = true
          if (key !== undefined) stuckMeetings.add(key)
        }
        if (own.has(op)) lanes.add(lane)
      }
    }
  }
  const goesOn = ranks.some(
    ({ rank, finished, waitsFor }) => !finished && !(waitsFor ?? []).some((op) => stuck.get(rank)!.has(op))
  )
  return goesOn ? undefined : stuck
}

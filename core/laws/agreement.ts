// Laws between ranks: collectives of a group come in one order, meet in time, and put on the links what they must.
import type { OpLogEntry } from "../machine/timeline.ts"
import {
  collectivesOf,
  describeRow,
  membersByGroup,
  rowsByRank,
  type Execution,
  type Violation
} from "./execution.ts"

const describe = ({ kernel, label, sizeBytes }: OpLogEntry): string =>
  `${kernel} "${label}" of ${sizeBytes} B`

/** All members of a group submit the same collectives in the same order. */
export const collectiveOrder = (execution: Execution): Violation | undefined => {
  const byRank = new Map(execution.opLogs.map((log) => [log.rank, collectivesOf(log)]))
  for (const [group, members] of membersByGroup(execution)) {
    const [first, ...others] = members
    const expected = byRank.get(first!)?.get(group) ?? []
    for (const rank of others) {
      const submitted = byRank.get(rank)?.get(group) ?? []
      for (let k = 0; k < Math.max(expected.length, submitted.length); k++) {
        const [one, other] = [expected[k], submitted[k]]
        // Where members put in different amounts, they agree on how much each does.
        const same = one?.rows === undefined ? one?.sizeBytes === other?.sizeBytes : one.rows === other?.rows
        if (one?.kernel === other?.kernel && same) continue
        return {
          law: "collectiveOrder",
          rank,
          ...(other === undefined ? {} : { ops: [other.op] }),
          message: `group "${group}", collective ${k}: rank ${rank} submitted ${other === undefined ? "none" : describe(other)}, rank ${first} ${one === undefined ? "none" : describe(one)}`
        }
      }
    }
  }
  return undefined
}

/** No member leaves a collective before the last has come, and they leave together (unless they may `leaveApart`). */
export const collectivesMeet = (execution: Execution): Violation | undefined => {
  const { timeline, opLogs, toleranceSeconds = 0, leaveApart = false } = execution
  const ranks = rowsByRank(timeline)
  const meetings = new Map<string, Array<number>>()
  for (const log of opLogs) {
    for (const [group, entries] of collectivesOf(log)) {
      entries.forEach(({ op }, k) => {
        const row = ranks.get(log.rank)?.[op] ?? -1
        if (row < 0) return
        const key = `group "${group}", collective ${k}`
        const rows = meetings.get(key)
        if (rows === undefined) meetings.set(key, [row])
        else rows.push(row)
      })
    }
  }
  const { startSeconds, endSeconds, rank } = timeline
  for (const [meeting, rows] of meetings) {
    const latest = (times: Float64Array): number =>
      rows.reduce((most, row) => (times[row]! > times[most]! ? row : most), rows[0]!)
    const lastStart = latest(startSeconds)
    const lastEnd = latest(endSeconds)
    for (const row of rows) {
      const early =
        endSeconds[row]! < startSeconds[lastStart]! - toleranceSeconds
          ? ([lastStart, "starts"] as const)
          : !leaveApart && endSeconds[row]! < endSeconds[lastEnd]! - toleranceSeconds
            ? ([lastEnd, "ends"] as const)
            : undefined
      if (early === undefined) continue
      const [other, what] = early
      return {
        law: "collectivesMeet",
        rank: rank[row]!,
        ops: [timeline.op[row]!],
        message: `${meeting}: on rank ${rank[row]} ${describeRow(timeline, row)} ends before it ${what} on rank ${rank[other]}, ${describeRow(timeline, other)}`
      }
    }
  }
  return undefined
}

/** Sums of the same products in another order differ in their last digits. */
const rounding = 1e-12

/** Every link carried exactly the bytes of the collectives that cross it, and no others. */
export const linkBytesConserved = (execution: Execution): Violation | undefined => {
  const { traffic } = execution
  if (traffic === undefined) return undefined
  const law = "linkBytesConserved"
  const expected = new Map<string, number>()
  const counted = new Set<string>()
  for (const log of execution.opLogs) {
    for (const [group, entries] of collectivesOf(log)) {
      // The members' collectives are one and the same: any member's will do.
      if (counted.has(group)) continue
      counted.add(group)
      for (const { op, kernel, sizeBytes } of entries) {
        for (const [name, bytes] of traffic.carried({ kernel, group, sizeBytes, rank: log.rank, op }))
          expected.set(name, (expected.get(name) ?? 0) + bytes)
      }
    }
  }
  for (const { name, bytes } of traffic.links) {
    const sum = expected.get(name) ?? 0
    expected.delete(name)
    if (Math.abs(bytes - sum) > rounding * Math.max(bytes, sum))
      return { law, message: `link ${name} carried ${bytes} B; its collectives come to ${sum} B` }
  }
  for (const [name, sum] of expected) {
    if (sum > 0)
      return { law, message: `link ${name}, of which nothing is known, should have carried ${sum} B` }
  }
  return undefined
}

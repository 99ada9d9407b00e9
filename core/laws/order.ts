// Laws of order on one rank: lanes are FIFO, edges are obeyed, and edges order everything that must be ordered.
import { laneCount, laneNames } from "../machine/lane.ts"
import type { OpId } from "../machine/op.ts"
import type { OpLogEntry } from "../machine/timeline.ts"
import { Accesses, type Access } from "./accesses.ts"
import { describeRow, rowsByRank, type Execution, type Violation } from "./execution.ts"

/** Every op of every log ran: one row, finite times, and no end before its start. */
export const everyOpRan = ({ timeline, opLogs }: Execution): Violation | undefined => {
  const law = "everyOpRan"
  const ranks = rowsByRank(timeline)
  let rows = 0
  for (const { rank, entries } of opLogs) {
    const ofRank = ranks.get(rank) ?? []
    rows += entries.length
    for (const { op, label, lane } of entries) {
      const row = ofRank[op] ?? -1
      const violation = (what: string): Violation => ({
        law,
        rank,
        ops: [op],
        message: `rank ${rank}: op ${op} "${label}" ${what}`
      })
      if (row < 0) return violation("was submitted but has no time")
      const start = timeline.startSeconds[row]!
      const end = timeline.endSeconds[row]!
      if (!(start >= 0 && end < Infinity)) return violation(`ran from ${start} s to ${end} s`)
      if (end < start) return violation(`ended at ${end} s, before its start at ${start} s`)
      if (timeline.lane[row] !== lane)
        return violation(`ran on another lane than the ${laneNames[lane]} lane`)
    }
  }
  if (rows === timeline.op.length) return undefined
  return { law, message: `the timeline has ${timeline.op.length} rows for ${rows} ops submitted` }
}

/** A lane runs one op at a time, in program order. */
export const laneFifo = (execution: Execution): Violation | undefined => {
  const { timeline, toleranceSeconds = 0 } = execution
  for (const [rank, rows] of rowsByRank(timeline)) {
    const before = new Int32Array(laneCount).fill(-1)
    for (const row of rows) {
      if (row < 0) continue
      const lane = timeline.lane[row]!
      const previous = before[lane]!
      before[lane] = row
      if (previous < 0 || timeline.startSeconds[row]! >= timeline.endSeconds[previous]! - toleranceSeconds)
        continue
      return {
        law: "laneFifo",
        rank,
        ops: [timeline.op[previous]!, timeline.op[row]!],
        message: `rank ${rank}, ${laneNames[lane]} lane: ${describeRow(timeline, row)} starts before ${describeRow(timeline, previous)} ends`
      }
    }
  }
  return undefined
}

/** An op starts when every op it has an edge from has ended. */
export const edgesObeyed = (execution: Execution): Violation | undefined => {
  const { timeline, opLogs, toleranceSeconds = 0 } = execution
  const ranks = rowsByRank(timeline)
  for (const { rank, entries } of opLogs) {
    const rows = ranks.get(rank) ?? []
    for (const { op, after } of entries) {
      for (const predecessor of after) {
        const [row, before] = [rows[op] ?? -1, rows[predecessor] ?? -1]
        if (row < 0 || before < 0) continue
        if (timeline.startSeconds[row]! >= timeline.endSeconds[before]! - toleranceSeconds) continue
        return {
          law: "edgesObeyed",
          rank,
          ops: [predecessor, op],
          message: `rank ${rank}: ${describeRow(timeline, row)} starts before ${describeRow(timeline, before)}, which it depends on, ends`
        }
      }
    }
  }
  return undefined
}

/**
 * For each op and lane, the latest op of that lane that has ended before the op can start, by edges and lane order alone.
 * A lane is FIFO, so that settles all earlier ones: p is before o exactly when known[o * laneCount + lane of p] >= p.
 */
export const endedBefore = (entries: ReadonlyArray<OpLogEntry>): Int32Array => {
  const known = new Int32Array(entries.length * laneCount).fill(-1)
  const tails = new Int32Array(laneCount).fill(-1)
  entries.forEach(({ lane, after }, op) => {
    const wait = (predecessor: OpId): void => {
      for (let other = 0; other < laneCount; other++) {
        const inherited = known[predecessor * laneCount + other]!
        if (inherited > known[op * laneCount + other]!) known[op * laneCount + other] = inherited
      }
      const own = op * laneCount + entries[predecessor]!.lane
      if (predecessor > known[own]!) known[own] = predecessor
    }
    if (tails[lane]! >= 0) wait(tails[lane]!)
    for (const predecessor of after) wait(predecessor)
    tails[lane] = op
  })
  return known
}

/**
 * Whatever reads or writes bytes is ordered, by edges and lane order, after the last write of them and the reads it replaces; of
 * tensors in one arena, those of others that lie in the same place.
 */
export const hazardsOrdered = ({ journals = [], opLogs }: Execution): Violation | undefined => {
  for (const { rank, entries } of journals) {
    const log = opLogs.find((one) => one.rank === rank)
    if (log === undefined) continue
    const known = endedBefore(log.entries)
    const laneOf = (op: OpId): number => log.entries[op]!.lane
    const accesses = new Accesses()
    for (const entry of entries) {
      if (entry.kind !== "op") continue
      const { id, op } = entry
      const unordered = (earlier: OpId): boolean => known[id * laneCount + laneOf(earlier)]! < earlier
      const violation = (
        { op: earlier, tensor: theirs }: Access,
        does: "reads" | "writes",
        own: string,
        name: string
      ): Violation => ({
        law: "hazardsOrdered",
        rank,
        ops: [earlier, id],
        message: `rank ${rank}: nothing orders op ${id} "${op.label}" after op ${earlier} "${log.entries[earlier]!.label}", which ${does} ${theirs.name === name ? `the "${name}" that it ${own}` : `"${theirs.name}", in the place of the "${name}" that it ${own}`}`
      })
      for (const tensor of op.reads) {
        const writer = accesses.touching(tensor, "writes").find((one) => unordered(one.op))
        if (writer !== undefined) return violation(writer, "writes", "reads", tensor.name)
      }
      for (const tensor of op.writes) {
        const writer = accesses.touching(tensor, "writes").find((one) => unordered(one.op))
        if (writer !== undefined) return violation(writer, "writes", "overwrites", tensor.name)
        const reader = accesses.touching(tensor, "reads").find((one) => one.op !== id && unordered(one.op))
        if (reader !== undefined) return violation(reader, "reads", "overwrites", tensor.name)
      }
      for (const tensor of op.reads) accesses.read(id, tensor)
      for (const tensor of op.writes) accesses.written(id, tensor)
    }
  }
  return undefined
}

/** The op log says what the program submitted: same ops, same order, same lanes. */
export const logsComplete = ({ journals = [], opLogs }: Execution): Violation | undefined => {
  const law = "logsComplete"
  for (const { rank, entries } of journals) {
    const log = opLogs.find((one) => one.rank === rank)
    if (log === undefined) return { law, rank, message: `rank ${rank} ran a program but has no op log` }
    let position = 0
    for (const entry of entries) {
      if (entry.kind !== "op") continue
      const { id, op } = entry
      const logged = log.entries[position]
      if (
        logged === undefined ||
        id !== position ||
        logged.op !== id ||
        logged.label !== op.label ||
        logged.lane !== op.lane ||
        logged.group !== op.group?.name ||
        logged.sizeBytes !== op.sizeBytes
      ) {
        const found = logged === undefined ? "nothing" : `"${logged.label}"`
        return {
          law,
          rank,
          ops: [id],
          message: `rank ${rank}: the program submitted "${op.label}" as op ${position}; the op log has ${found} there`
        }
      }
      position++
    }
    if (position !== log.entries.length) {
      const message = `rank ${rank}: ${log.entries.length} ops in the log, ${position} submitted`
      return { law, rank, message }
    }
  }
  return undefined
}

/** No op that was submitted after a `read` returned starts before the values that were read existed. */
export const nothingBeforeItsRead = (execution: Execution): Violation | undefined => {
  const { timeline, journals = [], toleranceSeconds = 0 } = execution
  const ranks = rowsByRank(timeline)
  for (const { rank, entries } of journals) {
    const rows = ranks.get(rank) ?? []
    let knownSeconds = 0
    let what = ""
    for (const entry of entries) {
      if (entry.kind === "read" && entry.writer >= 0) {
        const row = rows[entry.writer] ?? -1
        if (row < 0 || timeline.endSeconds[row]! <= knownSeconds) continue
        knownSeconds = timeline.endSeconds[row]!
        what = `"${entry.tensor.name}" was read, which ${describeRow(timeline, row)} writes`
      }
      if (entry.kind !== "op") continue
      const row = rows[entry.id] ?? -1
      if (row < 0 || timeline.startSeconds[row]! >= knownSeconds - toleranceSeconds) continue
      return {
        law: "nothingBeforeItsRead",
        rank,
        ops: [entry.id],
        message: `rank ${rank}: ${describeRow(timeline, row)} starts before the program could know to submit it: ${what}`
      }
    }
  }
  return undefined
}

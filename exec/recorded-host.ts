// What the host spent between a read and the ops that follow it, from a real run's timeline: as a simulation's host has it.
import { rowsByRank } from "../core/laws/execution.ts"
import { laneCount } from "../core/machine/lane.ts"
import { median } from "../core/median.ts"
import type { RecordedRun } from "./recorded.ts"

/** Seconds; as `MeasuredHost` of core/cost/host.ts has them. */
interface RecordedHost {
  /** From one op's launch to the next, where the device waits for them; undefined where it never did twice after a read. */
  readonly launchSeconds?: number
  /** From the end of what is read to the first launch after it, that launch left out. */
  readonly readSeconds?: number
}

/** A device that waits less than this has not waited: what lies between two kernels of a stream anyhow. */
const leastWaitSeconds = 2e-6

/** An op after a read: its position after it, and how long after the read's end it began. */
interface Late {
  readonly position: number
  readonly seconds: number
}

/** What lies between two reads. */
interface Stretch {
  /** Ops that the device was idle before. */
  readonly late: ReadonlyArray<Late>
  /** The last op of all. */
  readonly last: Late
}

/**
 * The host's costs by the reads of a run. After a read the device waits for what the host launches next, until it falls behind: op
 * number p after the read begins at read + (p + 1) * launch after what was read had ended, or was asked for if that was later. The first
 * launches of many, which alone the device waits for where it has much to do, may be slower than the rest: but all had been launched
 * when the last one began. Medians over all reads. Without a read that has something behind it there is nothing to tell.
 */
export const recordedHost = ({ timeline, opLogs, journals }: RecordedRun): RecordedHost => {
  const rows = rowsByRank(timeline)
  const stretches: Array<Stretch> = []
  for (const { rank, entries } of journals) {
    const own = rows.get(rank) ?? []
    const log = opLogs.find((one) => one.rank === rank)?.entries ?? []
    const after = new Map(log.map(({ op, after: predecessors }) => [op, predecessors]))
    const tails = new Float64Array(laneCount)
    let readEnd: number | undefined
    /** When the host had certainly got as far: an op that the device waited for began. */
    let launched = 0
    let position = 0
    let late: Array<Late> = []
    let last: Late = { position: 0, seconds: 0 }
    const close = (): void => {
      if (late.length > 0) stretches.push({ late, last })
      late = []
      position = 0
    }
    for (const entry of entries) {
      if (entry.kind === "read") {
        close()
        const row = own[entry.writer] ?? -1
        readEnd = row < 0 ? undefined : Math.max(timeline.endSeconds[row]!, launched)
      } else if (entry.kind === "op") {
        const row = own[entry.id] ?? -1
        if (row < 0) continue
        const lane = timeline.lane[row]!
        const begin = timeline.startSeconds[row]!
        let free = tails[lane]!
        for (const predecessor of after.get(entry.id) ?? []) {
          const before = own[predecessor] ?? -1
          if (before >= 0) free = Math.max(free, timeline.endSeconds[before]!)
        }
        tails[lane] = timeline.endSeconds[row]!
        const waited = begin - free > leastWaitSeconds
        if (waited) launched = Math.max(launched, begin)
        if (readEnd !== undefined) {
          last = { position, seconds: begin - readEnd }
          if (waited && last.seconds > leastWaitSeconds) late.push(last)
        }
        position++
      }
    }
    close()
  }
  const slopes = stretches.flatMap(({ late, last: end }) => {
    const [first, last] = [late[0]!, late.at(-1)!]
    const slope = (to: Late): number => (to.seconds - first.seconds) / (to.position - first.position)
    return last.position === first.position ? [] : [Math.min(slope(last), slope(end))]
  })
  const launchSeconds = slopes.length === 0 ? undefined : Math.max(0, median(slopes))
  const firsts = stretches.map(({ late }) => {
    const { position, seconds } = late[0]!
    return Math.max(0, seconds - (position + 1) * (launchSeconds ?? 0))
  })
  return {
    ...(launchSeconds === undefined ? {} : { launchSeconds }),
    ...(firsts.length === 0 ? {} : { readSeconds: median(firsts) })
  }
}

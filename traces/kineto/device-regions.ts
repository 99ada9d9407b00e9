// Divides a device's time among its kernels without gap or overlap: each moment belongs to the kernel that was running
// (the first to start, where several run at once) or, when none was, to the one before. Knows only intervals.
import type { CommunicationTimes } from "../import-report.ts"
import type { DeviceWork } from "./device-work.ts"
import { coverage, union, type Interval } from "./intervals.ts"
import type { KinetoTrace } from "./trace.ts"

export interface Region {
  /** Position in the list of kernels given. */
  readonly index: number
  /** When it was running and no earlier kernel was. */
  readonly start: number
  readonly end: number
  /** Microseconds it was running and no earlier kernel was. */
  readonly busy: number
  /** `busy` and the idle time that follows, without what collectives ran in it. */
  readonly span: number
}

/** What the host did for FSDP, where the run was sharded. */
export interface HostOfShards {
  /** When the host launched a kernel (position in `kernels`), microseconds; undefined where that is not known. */
  readonly launchedAt: (index: number) => number | undefined
  /** FSDP's own host code: disjoint, ascending. */
  readonly own: ReadonlyArray<Interval>
}

/**
 * Regions of `compute` (positions in `kernels`, by start), up to `end` or the end of the last kernel, whichever is
 * later. Their spans add up to that time less `exposedCollective`: what `other` kernels (collectives, FSDP's copies) ran while
 * none of `compute` did. Of a sharded run an idle device waits for the host until its next kernel is launched, for what travels
 * from then on; and `ownHost`, what FSDP's own code took of the former, is in no span either.
 */
export const deviceRegions = (
  trace: KinetoTrace,
  kernels: Int32Array,
  compute: ReadonlyArray<number>,
  other: ReadonlyArray<number>,
  end: number,
  shards?: HostOfShards
): {
  readonly regions: ReadonlyArray<Region>
  readonly exposedCollective: number
  readonly ownHost: number
} => {
  const interval = (index: number): Interval => ({
    start: trace.device.start.values[kernels[index]!]!,
    end: trace.device.end.values[kernels[index]!]!
  })
  let exposedCollective = 0
  let ownHost = 0
  // Gaps come in ascending order, and so do the questions.
  const othersIn = coverage(union(other.map(interval)))
  const shardsIn = coverage(shards?.own ?? [])
  /** What of a gap before a kernel is no wait for the model's own host work. */
  const notHost = (from: number, to: number, next: number | undefined): number => {
    const launched = shards === undefined || next === undefined ? undefined : shards.launchedAt(next)
    const waits = launched === undefined ? from : Math.min(to, Math.max(from, launched))
    const exposed = othersIn(waits, to)
    const own = launched === undefined ? 0 : shardsIn(from, waits)
    exposedCollective += exposed
    ownHost += own
    return exposed + own
  }
  const regions: Array<Region> = []
  let current: { index: number; start: number; end: number } | undefined
  const close = (at: number, next?: number): void => {
    if (current === undefined) return
    const { index, start, end: ended } = current
    const busy = ended - start
    regions.push({ index, start, end: ended, busy, span: busy + (at - ended) - notHost(ended, at, next) })
  }
  for (const index of compute) {
    const kernel = interval(index)
    if (current !== undefined && kernel.end <= current.end) continue
    const start: number = current === undefined ? kernel.start : Math.max(kernel.start, current.end)
    close(start, index)
    current = { index, start, end: kernel.end }
  }
  if (current !== undefined) close(Math.max(current.end, Number.isFinite(end) ? end : current.end))
  return { regions, exposedCollective, ownHost }
}

/** Communication per step: the union of its kernels, and how much of that ran beside the union of compute kernels. */
export const communicationTimes = (
  trace: KinetoTrace,
  { kernels, pure, collective, steps }: DeviceWork
): CommunicationTimes => {
  const intervals = (indexes: ReadonlyArray<number>): ReadonlyArray<Interval> =>
    union(
      indexes.map((index) => ({
        start: trace.device.start.values[kernels[index]!]!,
        end: trace.device.end.values[kernels[index]!]!
      }))
    )
  const communicating = intervals(collective)
  const computing = intervals(pure)
  let all = 0
  let beside = 0
  let at = 0
  for (const { start, end } of communicating) {
    all += end - start
    while (at < computing.length && computing[at]!.end <= start) at++
    for (let i = at; i < computing.length && computing[i]!.start < end; i++) {
      beside += Math.min(end, computing[i]!.end) - Math.max(start, computing[i]!.start)
    }
  }
  const perStep = 1e-6 / steps.length
  return {
    kernels: collective.length / steps.length,
    computeSeconds: computing.reduce((sum, { start, end }) => sum + end - start, 0) * perStep,
    unionSeconds: all * perStep,
    overlappedSeconds: beside * perStep,
    exposedSeconds: (all - beside) * perStep
  }
}

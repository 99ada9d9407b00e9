// Divides a device's time among its kernels without gap or overlap: each moment belongs to the kernel that was running
// (the first to start, where several run at once) or, when none was, to the one before. Knows only intervals.
import type { CommunicationTimes } from "../import-report.ts"
import type { DeviceWork } from "./device-work.ts"
import { coverage, totalOf, union, unionInOrder, type Interval, type Stretches } from "./intervals.ts"
import { betweenSteps, type Step } from "./steps.ts"
import type { KinetoTrace } from "./trace.ts"

/** One region for each entry of the columns, in the order in which the device ran them. */
export interface Regions {
  readonly length: number
  /** Position in the list of kernels given. */
  readonly index: Int32Array
  /** When it was running and no earlier kernel was: microseconds. */
  readonly start: Float64Array
  readonly end: Float64Array
  /** From `start` to `end` and the idle time that follows, without what collectives ran in it. */
  readonly span: Float64Array
}

/** What the host did for FSDP, where the run was sharded. */
export interface HostOfShards {
  /** When the host launched a kernel (position in `kernels`), microseconds; undefined where that is not known. */
  readonly launchedAt: (index: number) => number | undefined
  /** FSDP's own host code. */
  readonly own: Stretches
}

/**
 * Regions of `compute` (positions in `kernels`, by start), up to the end of `steps` or of the last kernel, whichever is
 * later. Their spans add up to that time less what the device idled between steps that do not follow each other, and less
 * `exposedCollective`: what `other` kernels (collectives, FSDP's copies) ran while none of `compute` did. Of a sharded run an idle
 * device waits for the host until its next kernel is launched, for what travels from then on; and `ownHost`, what FSDP's own code
 * took of the former, is in no span either.
 */
export const deviceRegions = (
  trace: KinetoTrace,
  kernels: Int32Array,
  compute: ReadonlyArray<number>,
  other: ReadonlyArray<number>,
  steps: ReadonlyArray<Step>,
  shards?: HostOfShards
): {
  readonly regions: Regions
  readonly exposedCollective: number
  readonly ownHost: number
} => {
  const starts = trace.device.start.values
  const ends = trace.device.end.values
  const interval = (index: number): Interval => ({
    start: starts[kernels[index]!]!,
    end: ends[kernels[index]!]!
  })
  let exposedCollective = 0
  let ownHost = 0
  // Gaps come in ascending order, and so do the questions.
  const othersIn = coverage(union(other.map(interval)))
  const shardsIn = coverage(shards?.own ?? union([]))
  const betweenIn = coverage(union(betweenSteps(steps)))
  /** What of a gap before a kernel is no wait for the model's own host work. */
  const notHost = (from: number, to: number, next: number | undefined): number => {
    const launched = shards === undefined || next === undefined ? undefined : shards.launchedAt(next)
    const waits = launched === undefined ? from : Math.min(to, Math.max(from, launched))
    const exposed = othersIn(waits, to)
    const own = launched === undefined ? 0 : shardsIn(from, waits)
    exposedCollective += exposed
    ownHost += own
    return exposed + own + betweenIn(from, to)
  }
  const index = new Int32Array(compute.length)
  const start = new Float64Array(compute.length)
  const until = new Float64Array(compute.length)
  const span = new Float64Array(compute.length)
  let length = 0
  const close = (at: number, next?: number): void => {
    const last = length - 1
    const ended = until[last]!
    span[last] = ended - start[last]! + (at - ended) - notHost(ended, at, next)
  }
  for (const next of compute) {
    const kernelEnd = ends[kernels[next]!]!
    let begins = starts[kernels[next]!]!
    if (length > 0) {
      if (kernelEnd <= until[length - 1]!) continue
      begins = Math.max(begins, until[length - 1]!)
      close(begins, next)
    }
    index[length] = next
    start[length] = begins
    until[length++] = kernelEnd
  }
  const { end } = steps.at(-1)!
  if (length > 0) close(Math.max(until[length - 1]!, Number.isFinite(end) ? end : until[length - 1]!))
  return { regions: { length, index, start, end: until, span }, exposedCollective, ownHost }
}

/** Communication per step: the union of its kernels, and how much of that ran beside the union of compute kernels. */
export const communicationTimes = (
  trace: KinetoTrace,
  { kernels, pure, collective, steps }: DeviceWork
): CommunicationTimes => {
  const ran = (indexes: ReadonlyArray<number>): Stretches =>
    unionInOrder(
      indexes.length,
      (i) => trace.device.start.values[kernels[indexes[i]!]!]!,
      (i) => trace.device.end.values[kernels[indexes[i]!]!]!
    )
  const communicating = ran(collective)
  const computing = ran(pure)
  const computedIn = coverage(computing)
  const all = totalOf(communicating)
  let beside = 0
  for (let each = 0; each < communicating.length; each++)
    beside += computedIn(communicating.starts[each]!, communicating.ends[each]!)
  const perStep = 1e-6 / steps.length
  return {
    kernels: collective.length / steps.length,
    computeSeconds: totalOf(computing) * perStep,
    unionSeconds: all * perStep,
    overlappedSeconds: beside * perStep,
    exposedSeconds: (all - beside) * perStep
  }
}

/**
 * What the first kernel or collective of each step but the first waited for the host after the step's mark, microseconds: 0 where
 * the device was busy until then.
 */
export const waitsAtBeginnings = (
  trace: KinetoTrace,
  { kernels, origins, compute, collective, steps }: DeviceWork
): ReadonlyArray<number> => {
  const first = steps.map(() => Infinity)
  const last = steps.map(() => -Infinity)
  for (const part of [compute, collective])
    for (const index of part) {
      const step = origins.at(index)?.step ?? -1
      if (step < 0) continue
      first[step] = Math.min(first[step]!, trace.device.start.values[kernels[index]!]!)
      last[step] = Math.max(last[step]!, trace.device.end.values[kernels[index]!]!)
    }
  let worked = last[0] ?? -Infinity
  return steps.slice(1).map(({ start }, i) => {
    const waited = first[i + 1]! - Math.max(start, worked)
    worked = Math.max(worked, last[i + 1]!)
    return Number.isFinite(waited) ? Math.max(0, waited) : 0
  })
}

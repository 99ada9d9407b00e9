// Divides a device's time among its kernels without gap or overlap: each moment belongs to the kernel that was running
// (the first to start, where several run at once) or, when none was, to the one before. Knows only intervals.
import type { CommunicationTimes } from "../import-report.ts"
import type { DeviceWork } from "./device-work.ts"
import type { KinetoTrace } from "./trace.ts"

export interface Region {
  /** Position in the list of kernels given. */
  readonly index: number
  /** Microseconds it was running and no earlier kernel was. */
  readonly busy: number
  /** `busy` and the idle time that follows, without what collectives ran in it. */
  readonly span: number
}

interface Interval {
  readonly start: number
  readonly end: number
}

const union = (intervals: ReadonlyArray<Interval>): ReadonlyArray<Interval> => {
  const merged: Array<{ start: number; end: number }> = []
  for (const { start, end } of intervals.toSorted((a, b) => a.start - b.start)) {
    const last = merged.at(-1)
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end)
    else merged.push({ start, end })
  }
  return merged
}

/**
 * Regions of `compute` (positions in `kernels`, by start), up to `end` or the end of the last kernel, whichever is
 * later. Their spans add up to that time less `exposedCollective`: what collectives ran while no kernel did.
 */
export const deviceRegions = (
  trace: KinetoTrace,
  kernels: Int32Array,
  compute: ReadonlyArray<number>,
  collective: ReadonlyArray<number>,
  end: number
): { readonly regions: ReadonlyArray<Region>; readonly exposedCollective: number } => {
  const interval = (index: number): Interval => ({
    start: trace.device.start.values[kernels[index]!]!,
    end: trace.device.end.values[kernels[index]!]!
  })
  const collectives = union(collective.map(interval))
  let passed = 0
  let exposedCollective = 0
  /** Collective time inside a gap; gaps come in ascending order. */
  const collectivesIn = (from: number, to: number): number => {
    while (passed < collectives.length && collectives[passed]!.end <= from) passed++
    let covered = 0
    for (let i = passed; i < collectives.length && collectives[i]!.start < to; i++) {
      covered += Math.max(0, Math.min(to, collectives[i]!.end) - Math.max(from, collectives[i]!.start))
    }
    exposedCollective += covered
    return covered
  }
  const regions: Array<Region> = []
  let current: { index: number; start: number; end: number } | undefined
  const close = (next: number): void => {
    if (current === undefined) return
    const busy = current.end - current.start
    const gap = next - current.end
    regions.push({ index: current.index, busy, span: busy + gap - collectivesIn(current.end, next) })
  }
  for (const index of compute) {
    const kernel = interval(index)
    if (current !== undefined && kernel.end <= current.end) continue
    const start: number = current === undefined ? kernel.start : Math.max(kernel.start, current.end)
    close(start)
    current = { index, start, end: kernel.end }
  }
  if (current !== undefined) close(Math.max(current.end, Number.isFinite(end) ? end : current.end))
  return { regions, exposedCollective }
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

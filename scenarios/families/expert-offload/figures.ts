// What a run of generation with offloaded experts comes to: how experts were found, how long kernels waited for copies, and
// what was copied. Every definition stands beside its metric in metrics.ts.
import type { OffloadLog } from "../../../core/algorithms/expert-offload/program.ts"
import { Lane } from "../../../core/machine/lane.ts"
import type { Timeline } from "../../../core/machine/timeline.ts"

export interface Figures {
  readonly decodeStepSeconds: number
  readonly tokensPerSecond: number
  readonly prefillSeconds: number
  readonly stallSeconds: number
  readonly readyShare: number
  readonly lateShare: number
  readonly missShare: number
  readonly needsPerStep: number
  readonly loadsPerStep: number
  readonly loadedBytesPerStep: number
  readonly hostLinkUtilisation: number
  readonly loads: number
  readonly prefetches: number
  readonly uselessPrefetches: number
}

/** Measured decoding steps, one after the other: all but where a trace has prefills between them. */
export interface Stretch {
  /** The first, and the one after the last. */
  readonly fromStep: number
  readonly toStep: number
  readonly fromSeconds: number
  readonly toSeconds: number
}

export const figuresOf = (
  log: OffloadLog,
  timeline: Timeline,
  stretches: ReadonlyArray<Stretch>,
  facts: {
    readonly batch: number
    readonly expertBytes: number
    /** From the end of the step before to that of the prefill's last kernel, in the mean; 0 without prefill. */
    readonly prefillSeconds: number
  }
): Figures => {
  const over = (of: (stretch: Stretch) => number) => total(stretches.map(of))
  const steps = over(({ fromStep, toStep }) => toStep - fromStep)
  const seconds = over(({ fromSeconds, toSeconds }) => toSeconds - fromSeconds)
  const stalls = stallsOf(log, timeline)
  const measured = new Uint8Array(log.loads.length)
  for (const { fromStep, toStep } of stretches) measured.fill(1, fromStep, toStep)
  let [stallSeconds, ready, late, missing] = [0, 0, 0, 0]
  log.needs.forEach(({ step, found }, index) => {
    if (measured[step] === 0) return
    stallSeconds += stalls[index]!
    if (found === "ready") ready++
    else if (found === "late") late++
    else missing++
  })
  const needs = ready + late + missing
  const loads = over(({ fromStep, toStep }) => total(log.loads.slice(fromStep, toStep)))
  const decodeStepSeconds = seconds / steps
  return {
    decodeStepSeconds,
    tokensPerSecond: facts.batch / decodeStepSeconds,
    prefillSeconds: facts.prefillSeconds,
    stallSeconds: stallSeconds / steps,
    readyShare: ready / needs,
    lateShare: late / needs,
    missShare: missing / needs,
    needsPerStep: needs / steps,
    loadsPerStep: loads / steps,
    loadedBytesPerStep: (loads * facts.expertBytes) / steps,
    hostLinkUtilisation: over((stretch) => busySeconds(timeline, Lane.h2d, stretch)) / seconds,
    loads: total(log.loads),
    prefetches: total(log.prefetches),
    uselessPrefetches: log.uselessPrefetches
  }
}

const total = (numbers: ReadonlyArray<number>): number => numbers.reduce((sum, number) => sum + number, 0)

/**
 * How long each need's kernel waited for its expert: from when it could have run otherwise (the layer's choices known, the
 * compute lane free) until its copy had ended.
 */
const stallsOf = ({ needs }: OffloadLog, timeline: Timeline): Float64Array => {
  const rowOf = new Int32Array(timeline.op.length)
  for (let row = 0; row < timeline.op.length; row++) rowOf[timeline.op[row]!] = row
  // When the compute lane was last busy before each of its ops.
  const freeSeconds = new Float64Array(timeline.op.length)
  let lastEnd = 0
  for (let op = 0; op < rowOf.length; op++) {
    const row = rowOf[op]!
    if (timeline.lane[row] !== Lane.compute) continue
    freeSeconds[op] = lastEnd
    lastEnd = timeline.endSeconds[row]!
  }
  return Float64Array.from(needs, ({ use, load, choice }) => {
    const end = (op: number) => timeline.endSeconds[rowOf[op]!]!
    return Math.max(0, end(load) - Math.max(freeSeconds[use]!, end(choice)))
  })
}

const busySeconds = (timeline: Timeline, lane: Lane, { fromSeconds, toSeconds }: Stretch): number => {
  let seconds = 0
  for (let row = 0; row < timeline.op.length; row++) {
    if (timeline.lane[row] !== lane) continue
    const start = Math.max(fromSeconds, timeline.startSeconds[row]!)
    seconds += Math.max(0, Math.min(toSeconds, timeline.endSeconds[row]!) - start)
  }
  return seconds
}

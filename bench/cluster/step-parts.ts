// What a step is made of, from a timeline, predicted or measured alike: how long lanes are busy, and how much of the communication has
// computing beside it. Knows nothing of how the run came about.
import { Lane } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { executedSteps } from "./measured-steps.ts"

/** A communication lane; means per step and rank. */
interface LaneParts {
  /** From each op's start to its end: waits for other ranks are in it. */
  readonly busySeconds: number
  /** Of it, that the rank's compute lane is busy too. */
  readonly hiddenSeconds: number
}

export interface StepParts {
  /** Mean time of a measured step: that of the rank that finishes last. */
  readonly stepSeconds: number
  readonly computeSeconds: number
  readonly inter: LaneParts
  readonly intra: LaneParts
  /** That both communication lanes of a rank are busy. */
  readonly bothSeconds: number
  /** By kernel, and lane where it is a collective's. */
  readonly kernelSeconds: Readonly<Record<string, number>>
}

type Span = readonly [from: number, to: number]

/** Time that two lists have in common; each is in order and does not overlap itself, as a lane's ops do not. */
const commonSeconds = (a: ReadonlyArray<Span>, b: ReadonlyArray<Span>): number => {
  let seconds = 0
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    const [one, other] = [a[i]!, b[j]!]
    seconds += Math.max(0, Math.min(one[1], other[1]) - Math.max(one[0], other[0]))
    if (one[1] < other[1]) i++
    else j++
  }
  return seconds
}

const total = (spans: ReadonlyArray<Span>): number => spans.reduce((sum, [from, to]) => sum + to - from, 0)

/** Of the `steps` steps after `warmupSteps`, at least one. */
export const stepParts = (timeline: Timeline, warmupSteps: number, steps: number): StepParts => {
  const { rank, lane, step, endSeconds, kernel, kernels, held } = timeline
  // On a device an op has begun when it waits for multiprocessors.
  const startSeconds = timeline.startSeconds.map((at, row) => at - (held?.placementSeconds[row] ?? 0))
  const rows = Array.from(rank, (_, row) => row)
    .filter((row) => step[row]! >= warmupSteps && step[row]! < warmupSteps + steps)
    .toSorted((a, b) => startSeconds[a]! - startSeconds[b]!)
  const byRank = [...Map.groupBy(rows, (row) => rank[row]!).values()]
  const each = 1 / (steps * new Set(rank).size)
  const kernelSeconds: Record<string, number> = {}
  const sums = { inter: 0, interHidden: 0, intra: 0, intraHidden: 0, both: 0 }
  for (const own of byRank) {
    const spansOn = (which: Lane): ReadonlyArray<Span> =>
      own.flatMap((row) => (lane[row] === which ? [[startSeconds[row]!, endSeconds[row]!] as const] : []))
    const [compute, inter, intra] = [spansOn(Lane.compute), spansOn(Lane.inter), spansOn(Lane.intra)]
    sums.inter += total(inter)
    sums.interHidden += commonSeconds(inter, compute)
    sums.intra += total(intra)
    sums.intraHidden += commonSeconds(intra, compute)
    sums.both += commonSeconds(inter, intra)
    for (const row of own) {
      const where = lane[row] === Lane.inter ? " inter" : lane[row] === Lane.intra ? " intra" : ""
      const name = `${kernels[kernel[row]!]!}${where}`
      kernelSeconds[name] = (kernelSeconds[name] ?? 0) + each * (endSeconds[row]! - startSeconds[row]!)
    }
  }
  const { stepSeconds, computeSeconds } = executedSteps(timeline, warmupSteps, steps)
  return {
    stepSeconds,
    computeSeconds,
    inter: { busySeconds: each * sums.inter, hiddenSeconds: each * sums.interHidden },
    intra: { busySeconds: each * sums.intra, hiddenSeconds: each * sums.intraHidden },
    bothSeconds: each * sums.both,
    kernelSeconds
  }
}

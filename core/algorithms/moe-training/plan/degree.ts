// Chooses the pipeline degree: every allowed degree is tried, for there are few of them and the model is a formula. FSMoE
// itself solves a relaxed problem numerically and rounds; trying all is exact. Pure.
import { laneSeconds, modelSeconds, type ChunkCosts, type LaneUse } from "./pipeline.ts"

/** Degrees that FSMoE's code rounds to. */
export const usualDegrees: ReadonlyArray<number> = [1, 2, 4, 8]

/** Seconds of the pipelined part at a degree, with a gradient all-reduce of so many seconds in it. */
export type PipelineSeconds = (degree: number, gradientSeconds: number) => number

/**
 * `model`: the four cases. `lanes`: the lanes run through chunk by chunk, exact for any times. A function is an oracle of
 * the caller's own: a whole simulation, say.
 */
export type DegreeModel = "model" | "lanes" | PipelineSeconds

export interface DegreeProblem {
  readonly costs: ChunkCosts
  readonly lanes: LaneUse
  readonly degrees: ReadonlyArray<number>
  readonly by: DegreeModel
}

export interface DegreeChoice {
  readonly degree: number
  readonly seconds: number
}

/** The pipelined part's time as a function of degree and gradient time, by the problem's model. */
export const pipelineSeconds = ({ costs, lanes, by }: DegreeProblem): PipelineSeconds => {
  if (typeof by === "function") return by
  if (by === "model" && lanes === "three") {
    return (degree, gradient) => modelSeconds(costs(degree), degree, gradient)
  }
  // The cases describe three lanes only.
  return (degree, gradient) => laneSeconds(costs(degree), degree, gradient, lanes)
}

/** The degree with the shortest time, the smaller of equals. */
export const chooseDegree = (problem: DegreeProblem, gradientSeconds = 0): DegreeChoice => {
  const secondsAt = pipelineSeconds(problem)
  let best: DegreeChoice | undefined
  for (const degree of problem.degrees.toSorted((a, b) => a - b)) {
    const seconds = secondsAt(degree, gradientSeconds)
    if (best === undefined || seconds < best.seconds) best = { degree, seconds }
  }
  if (best === undefined) throw new RangeError("no pipeline degree to choose from")
  return best
}

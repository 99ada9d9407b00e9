// How long the pipelined part of an MoE layer takes: FSMoE's four cases (arXiv:2501.10714, section 4.2), the maximum they
// amount to, and the three FIFO lanes themselves. Pure; times are of one chunk at the degree in question.

/** Seconds of each stage for one chunk. */
export interface ChunkTimes {
  readonly allToAll: number
  readonly allGather: number
  readonly reduceScatter: number
  readonly expert: number
}

/** Chunk times by pipeline degree. */
export type ChunkCosts = (degree: number) => ChunkTimes

/**
 * What communication may overlap. `three`: inter-node and intra-node collectives have a lane each, and overlap each other
 * and the experts. `two`: one lane for all communication, beside the experts'. Without chunks nothing overlaps on either.
 */
export const laneCounts = ["two", "three"] as const
export type LaneUse = (typeof laneCounts)[number]

/** Which resource a pipelined MoE layer is bound by. */
type PipelineCase = "inter-node" | "expert" | "all-to-all" | "intra-node"

/** Names by the paper's numbers: case 1 is `pipelineCases[0]`. */
export const pipelineCases: ReadonlyArray<PipelineCase> = ["inter-node", "expert", "all-to-all", "intra-node"]

/**
 * Case 1 to 4 by the paper's conditions Q1 to Q7; `gradient` is the time of the gradient all-reduce that runs between the
 * last dispatch and the first combine.
 */
export const caseOf = (times: ChunkTimes, degree: number, gradient: number): 1 | 2 | 3 | 4 => {
  const { allToAll: a, allGather: ag, reduceScatter: rs, expert: e } = times
  const r = degree
  const q1 = a > ag
  const q2 = r * e > 2 * (r - 1) * a
  const q3 = r * e > (r - 1) * (ag + rs)
  const q4 = gradient > ag + rs
  const q5 = gradient > r * e - 2 * (r - 1) * a + ag + rs
  const q6 = gradient > r * ag + r * rs - 2 * (r - 1) * a
  const q7 = gradient > ag + rs + r * e - 2 * (r - 1) * a
  if (q1) {
    if (q2) return q5 ? 1 : 2
    return q4 ? 1 : 3
  }
  if (q3) return q7 ? 1 : 2
  return q6 ? 1 : 4
}

/** The paper's formula of each case. */
export const caseSeconds = (
  which: 1 | 2 | 3 | 4,
  times: ChunkTimes,
  degree: number,
  gradient: number
): number => {
  const { allToAll: a, allGather: ag, reduceScatter: rs, expert: e } = times
  switch (which) {
    case 1:
      return 2 * degree * a + gradient
    case 2:
      return 2 * a + ag + rs + degree * e
    case 3:
      return 2 * degree * a + ag + rs
    case 4:
      return 2 * a + degree * (ag + rs)
  }
}

/** The four-case model: exact on three lanes when gathering takes as long as scattering. */
export const modelSeconds = (times: ChunkTimes, degree: number, gradient = 0): number =>
  caseSeconds(caseOf(times, degree, gradient), times, degree, gradient)

/**
 * The lanes as they run, chunk by chunk. Three lanes: dispatches, gradient, combines on inter; gathers then scatters on
 * intra; experts on compute. Two: the same order of chunks with gathers behind their dispatches and combines behind their
 * scatters, all on one lane. Ops start when their lane and their own chunk's previous stage are done.
 */
export const laneSeconds = (times: ChunkTimes, degree: number, gradient: number, lanes: LaneUse): number => {
  const { allToAll: a, allGather: ag, reduceScatter: rs, expert: e } = times
  let inter = 0
  let intra = 0
  let compute = 0
  // Gathers end one after the other, before any scatter begins: an expert's start needs only its own gather's end.
  const gathered = new Float64Array(degree)
  for (let i = 0; i < degree; i++) {
    inter += a
    if (lanes === "two") {
      inter += ag
      gathered[i] = inter
    } else {
      intra = Math.max(intra, inter) + ag
      gathered[i] = intra
    }
  }
  inter += gradient
  for (let i = 0; i < degree; i++) {
    compute = Math.max(compute, gathered[i]!) + e
    if (lanes === "two") inter = Math.max(inter, compute) + rs + a
    else {
      intra = Math.max(intra, compute) + rs
      gathered[i] = intra
    }
  }
  if (lanes === "three") for (let i = 0; i < degree; i++) inter = Math.max(inter, gathered[i]!) + a
  return inter
}

/**
 * How long a gradient all-reduce may take in the layer before the layer takes longer (section 5, t_olp,moe): the time that
 * case 2, 3 or 4 leaves the inter-node lane idle between the last dispatch and the first combine.
 */
export const slackSeconds = (times: ChunkTimes, degree: number): number =>
  Math.max(0, modelSeconds(times, degree) - 2 * degree * times.allToAll)

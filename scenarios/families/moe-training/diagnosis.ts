// Why the communication of an MoE layer is, or is not, hidden: which resource each pass is bound by at its degree, what stands
// against what, and what would change it. From the plan alone; the timeline's side of the story is sim/explain's.
import type { PlannedMoe } from "../../../core/algorithms/moe-training/planning.ts"
import {
  caseOf,
  laneSeconds,
  pipelineCases,
  type ChunkTimes
} from "../../../core/algorithms/moe-training/plan/pipeline.ts"
import { formatSeconds } from "../../../core/units.ts"

interface PassDiagnosis {
  readonly pass: "forward" | "backward"
  /** Layers of this degree and gradient, in forward order. */
  readonly layers: ReadonlyArray<number>
  readonly degree: number
  /** Of one chunk. */
  readonly chunkSeconds: ChunkTimes
  /** Gradient all-reduce inside the pipelined part. */
  readonly gradientSeconds: number
  /** FSMoE's case, 1 to 4, and its name; undefined where communication has one lane. */
  readonly case: number | undefined
  readonly boundBy: string
  readonly pipelinedSeconds: number
  /** Experts alone: what the pipelined part would take if all communication were hidden. */
  readonly expertSeconds: number
  readonly exposedSeconds: number
  readonly reasons: ReadonlyArray<string>
}

/** One entry for each pass and kind of layer. */
export const diagnose = (planned: PlannedMoe): ReadonlyArray<PassDiagnosis> => {
  const { plan, costs } = planned
  const count = plan.forwardDegrees.length
  const all = (["forward", "backward"] as const).flatMap((pass) =>
    Array.from({ length: count }, (_, layer) => {
      const degree = (pass === "forward" ? plan.forwardDegrees : plan.backwardDegrees)[layer]!
      const sent = pass === "forward" ? 0 : plan.gradients.moe[count - 1 - layer]!
      const other = (pass === "forward" ? plan.backwardDegrees : plan.forwardDegrees)[layer]!
      return { pass, layer, degree, other, gradientSeconds: costs.allReduceSeconds(sent) }
    })
  )
  const kinds = Map.groupBy(
    all,
    // Those whose rows are padded alike, too.
    ({ pass, degree, other, gradientSeconds }) => `${pass} ${degree} ${other} ${gradientSeconds}`
  )
  return [...kinds.values()].map((alike) => {
    const { pass, degree, other, gradientSeconds } = alike[0]!
    const times = costs[pass](degree, other)
    const pipelinedSeconds = laneSeconds(times, degree, gradientSeconds, plan.lanes)
    const expertSeconds = degree * times.expert
    const which = plan.lanes === "three" ? caseOf(times, degree, gradientSeconds) : undefined
    return {
      pass,
      layers: alike.map(({ layer }) => layer),
      degree,
      chunkSeconds: times,
      gradientSeconds,
      case: which,
      boundBy: which === undefined ? twoLaneBound(times, degree) : pipelineCases[which - 1]!,
      pipelinedSeconds,
      expertSeconds,
      exposedSeconds: Math.max(0, pipelinedSeconds - expertSeconds),
      reasons: [
        ...reasonsOf(planned, times, degree, gradientSeconds),
        // Layer 0's backward pass is the last: what is left then is told of it.
        ...(pass === "backward" && alike.some(({ layer }) => layer === 0) ? leftOf(planned) : [])
      ]
    }
  })
}

const communicationOf = ({ allToAll, allGather, reduceScatter }: ChunkTimes): number =>
  2 * allToAll + allGather + reduceScatter

const twoLaneBound = (times: ChunkTimes, degree: number): string =>
  // One chunk waits for all of its communication.
  (degree === 1 ? communicationOf(times) : (degree - 1) * communicationOf(times)) > degree * times.expert
    ? "communication"
    : "expert"

const reasonsOf = (
  { plan, settings }: PlannedMoe,
  times: ChunkTimes,
  degree: number,
  gradientSeconds: number
): ReadonlyArray<string> => {
  const s = formatSeconds
  const { allToAll: a, allGather: ag, reduceScatter: rs, expert: e } = times
  const r = degree
  const reasons: Array<string> = []
  if (r === 1) {
    reasons.push(
      !("degrees" in settings)
        ? "one chunk: nothing can overlap; this algorithm does not pipeline"
        : "one chunk: nothing can overlap; more chunks would pay more in fixed costs than they hide"
    )
    return reasons
  }
  if (plan.lanes === "two") {
    const communication = communicationOf(times)
    reasons.push(
      `all communication shares one lane, in the order dispatch 1, gather 1, ..., dispatch ${r}, gather ${r}, then scatter and combine of each: gathers and scatters delay the all-to-alls behind them`
    )
    reasons.push(
      r * e > (r - 1) * communication
        ? `experts hide it: ${r} x ${s(e)} of experts against ${r - 1} x ${s(communication)} of communication`
        : `experts are too short to hide it: ${r} x ${s(e)} of experts against ${r - 1} x ${s(communication)} of communication`
    )
  } else {
    reasons.push(
      `experts r e = ${s(r * e)} ${r * e > 2 * (r - 1) * a ? ">" : "<="} ${s(2 * (r - 1) * a)} = 2 (r - 1) a of all-to-alls: the inter-node lane ${r * e > 2 * (r - 1) * a ? "waits for experts" : "is never idle long enough to wait"}`
    )
    reasons.push(
      `experts r e = ${s(r * e)} ${r * e > (r - 1) * (ag + rs) ? ">" : "<="} ${s((r - 1) * (ag + rs))} = (r - 1)(ag + rs) inside the node`
    )
    reasons.push(
      a > ag
        ? `an all-to-all of a chunk (${s(a)}) takes longer than its gather (${s(ag)}): gathers wait for dispatches`
        : `a gather of a chunk (${s(ag)}) takes longer than its all-to-all (${s(a)}): gathers queue behind each other`
    )
    if (gradientSeconds > 0) {
      const slack = laneSeconds(times, r, 0, "three") - 2 * r * a
      reasons.push(
        gradientSeconds > slack
          ? `${s(gradientSeconds)} of gradients between dispatches and combines against ${s(Math.max(0, slack))} that the lane is idle there: the rest delays the combines`
          : `${s(gradientSeconds)} of gradients fit into the ${s(slack)} that the lane is idle between dispatches and combines`
      )
    }
  }
  return reasons
}

const leftOf = ({ plan, costs }: PlannedMoe): ReadonlyArray<string> => {
  const rest = costs.allReduceSeconds(plan.gradients.rest)
  return rest > 0
    ? [`${formatSeconds(rest)} of gradients are left for after the backward pass, where nothing hides them`]
    : []
}

const layersText = (layers: ReadonlyArray<number>): string =>
  layers.length === 1 ? `layer ${layers[0]}` : `layers ${layers[0]} to ${layers.at(-1)}`

export const diagnosisLines = (passes: ReadonlyArray<PassDiagnosis>): ReadonlyArray<string> =>
  passes.flatMap(
    ({
      pass,
      layers,
      degree,
      case: which,
      boundBy,
      chunkSeconds,
      pipelinedSeconds,
      exposedSeconds,
      reasons
    }) => [
      `${pass}, ${layersText(layers)}: degree ${degree}, bound by ${boundBy}${which === undefined ? "" : ` (case ${which})`}; ${formatSeconds(pipelinedSeconds)}, of which ${formatSeconds(exposedSeconds)} not behind experts`,
      `  a chunk: all-to-all ${formatSeconds(chunkSeconds.allToAll)}, gather ${formatSeconds(chunkSeconds.allGather)}, expert ${formatSeconds(chunkSeconds.expert)}, scatter ${formatSeconds(chunkSeconds.reduceScatter)}`,
      ...reasons.map((reason) => `  ${reason}`)
    ]
  )

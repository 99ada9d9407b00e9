// MoE training as a family: its metrics and words.
import * as Effect from "effect/Effect"
import { titlesOf } from "../../../core/algorithms/algorithm.ts"
import { moeAlgorithmNamed, moeAlgorithms } from "../../../core/algorithms/moe-training/algorithms.ts"
import { MoeTrainingScenario, shippedBetween, hostNever } from "./scenario.ts"
import { formatSeconds, formatShare, counted } from "../../../core/units.ts"
import type { Family, Told } from "../../family.ts"
import { metricOf, type RunResult } from "../../result.ts"
import {
  efficiencyWarnings,
  faultWarnings,
  hostMemoryWarnings,
  hostWarnings,
  realWarnings,
  seedWarnings,
  worldWarnings
} from "../../ignored.ts"
import { alignColumns } from "../../table.ts"
import { nodesOf } from "../../world.ts"
import { diagnose, diagnosisLines } from "./diagnosis.ts"
import { kernels, trainable } from "./kernels.ts"
import { planScenario } from "./prepare.ts"
import { prepare, type PreparedMoe } from "./simulated.ts"

const costWarnings = (
  { between, inside, portShare, slowdown, wait }: MoeTrainingScenario["costs"],
  nodes: number,
  perNode: number,
  algorithm: MoeTrainingScenario["algorithm"]["name"]
): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  if (portShare !== undefined) {
    if (perNode === 1)
      warnings.push(
        "costs.portShare has no effect: there is one rank on each node, so no collective inside it"
      )
    else if (moeAlgorithmNamed(algorithm).lanes === "two")
      warnings.push(`costs.portShare has no effect: with ${algorithm} collectives take turns`)
    else if (portShare <= 0.5)
      warnings.push("costs.portShare has no effect: two collectives at once need no more than the port has")
  }
  if (slowdown !== undefined && nodes * perNode === 1)
    warnings.push("costs.slowdown has no effect: there is one rank")
  if (wait !== undefined && nodes * perNode === 1)
    warnings.push("costs.wait has no effect: there is one rank")
  const usual = "profile" in between ? between.profile === shippedBetween : Object.keys(between).length === 0
  if (nodes === 1 && !usual) warnings.push("costs.between has no effect: there is one node")
  if (perNode === 1 && Object.keys(inside).length > 0)
    warnings.push("costs.inside has no effect: there is one rank on each node")
  else if (nodes > 1 && "all_reduce" in inside)
    warnings.push("costs.inside.all_reduce has no effect: gradients are summed between nodes")
  for (const [tier, settings] of Object.entries({ between, inside })) {
    if ("profile" in settings) continue
    for (const [op, line] of Object.entries(settings))
      if (line.unit === "bytes" && line.dtype !== "float32")
        warnings.push(`costs.${tier}.${op}.dtype has no effect: bytes are bytes in any`)
  }
  return warnings
}

const ignored: Family<MoeTrainingScenario>["ignored"] = (scenario, facts) => {
  const { model, routing, seed, jitter, world } = scenario
  const dropless = model.capacityFactor === "dropless"
  const drawn = dropless && routing !== undefined && "skew" in routing && routing.skew > 0
  const warnings: Array<string> = [
    ...worldWarnings(world, { algorithm: "ring" }),
    ...faultWarnings(scenario.faults, world, facts)
  ]
  if (routing !== undefined && !dropless) {
    warnings.push(
      "routing has no effect: every expert has a capacity, and rows are padded to it (model.capacityFactor)"
    )
  }
  if (model.gate !== "x-moe" && model.gateWidth !== 16) {
    warnings.push(`model.gateWidth has no effect: the gate is ${model.gate}`)
  }
  const { costs, algorithm, learningRate } = scenario
  const nodes = nodesOf(world).flat()
  // Those of unlike numbers of ranks are refused.
  warnings.push(...costWarnings(costs, nodes.length, nodes[0]!, algorithm.name))
  if (
    "degrees" in algorithm &&
    algorithm.forwardDegree !== undefined &&
    algorithm.backwardDegree !== undefined
  ) {
    if (algorithm.degrees.join() !== "1,2,4,8")
      warnings.push("algorithm.degrees has no effect: both degrees are given")
    if (algorithm.planner !== "cases")
      warnings.push("algorithm.planner has no effect: both degrees are given")
  }
  if (learningRate !== undefined)
    warnings.push(
      "learningRate changes what is learnt, not how long it takes: with any, a step has an update"
    )
  warnings.push(
    ...hostMemoryWarnings(scenario.memory),
    ...hostWarnings(scenario.host, hostNever(scenario)),
    ...efficiencyWarnings(scenario.device, facts)
  )
  warnings.push(
    ...seedWarnings(seed, drawn || jitter > 0, "nothing is random while jitter is 0 and no routing is drawn")
  )
  return warnings
}

const print = (result: RunResult): ReadonlyArray<string> => {
  const stepSeconds = metricOf(result, "stepSeconds")
  const line = (title: string, metric: string, note: string): ReadonlyArray<string> => {
    const seconds = metricOf(result, metric)
    return [title, formatSeconds(seconds), formatShare(stepSeconds > 0 ? seconds / stepSeconds : 0), note]
  }
  const imbalance = metricOf(result, "expertImbalance")
  const details = result.details as
    | { readonly forwardDegrees: ReadonlyArray<number>; readonly backwardDegrees: ReadonlyArray<number> }
    | undefined
  const degrees = (all: ReadonlyArray<number> | undefined): string => [...new Set(all)].join(", ")
  return [
    ...alignColumns(
      [
        [
          "step",
          formatSeconds(stepSeconds),
          "",
          `mean of ${result.steps ?? 0} after ${result.warmupSteps ?? 0} of warm-up`
        ],
        line("  compute", "computeSeconds", "mean of the ranks"),
        line("  waiting", "exposedCommunicationSeconds", "for communication, busier ranks, the host"),
        [
          "planned",
          formatSeconds(metricOf(result, "predictedSeconds")),
          "",
          "what the planner reckoned: no host, no optimizer, experts chosen equally often"
        ]
      ],
      (column) => column === 1 || column === 2
    ),
    `${Math.round(metricOf(result, "tokensPerSecond")).toLocaleString("en")} tokens/s; pipeline degree ${degrees(details?.forwardDegrees)} forward, ${degrees(details?.backwardDegrees)} backward`,
    ...(imbalance > 1 ? [`the busiest expert has ${imbalance.toFixed(2)} times the mean of all`] : [])
  ]
}

const schedule: Family<MoeTrainingScenario>["schedule"] = (scenario, file, host) =>
  Effect.map(planScenario(scenario, file, host), ({ planned, fits, world }): Told => {
    const { plan, predicted, gradients, costs } = planned
    const passes = diagnose(planned)
    const degrees = [plan.forwardDegrees[0]!, plan.backwardDegrees[0]!] as const
    const json = {
      algorithm: scenario.algorithm.name,
      lanes: plan.lanes,
      forwardDegrees: plan.forwardDegrees,
      backwardDegrees: plan.backwardDegrees,
      /** Elements of dense gradient sent at each place, layers in the order of the backward pass. */
      gradients: { moe: gradients.moe, dense: gradients.dense, rest: gradients.rest },
      predicted,
      denseForwardSeconds: costs.denseForwardSeconds(...degrees),
      denseBackwardSeconds: costs.denseBackwardSeconds(...degrees),
      passes,
      fits
    }
    const total = costs.gradientElements * plan.forwardDegrees.length
    const share = (elements: ReadonlyArray<number>): string =>
      formatShare(total === 0 ? 0 : elements.reduce((sum, one) => sum + one, 0) / total)
    return {
      json,
      lines: [
        `${scenario.name}: ${scenario.algorithm.name} on ${counted(world.size, "rank")}, ${counted(plan.forwardDegrees.length, "layer")}`,
        "",
        `planned: forward ${formatSeconds(predicted.forwardSeconds)}, backward ${formatSeconds(predicted.backwardSeconds)} (no plan under ${formatSeconds(predicted.backwardBoundSeconds)}), gradients of norms and gates after it ${formatSeconds(predicted.alikeSeconds)}`,
        `dense gradients: ${share(gradients.moe)} inside MoE layers, ${share(gradients.dense)} beside dense ops, ${share([gradients.rest])} after the backward pass`,
        "",
        ...diagnosisLines(passes),
        ...(fits.length === 0
          ? []
          : ["", "cost lines fitted to measurements (tables are used as they are where they are asked for)"]),
        ...fits.map(
          ({ op, unit, dtype, scope, fixedSeconds, secondsPerUnit, meanError, maxError, points }) =>
            `  ${op}: ${formatSeconds(fixedSeconds)} + ${secondsPerUnit.toPrecision(4)} s per ${unit.replace(/s$/u, "")} (${dtype}, ${scope})${points === 0 ? "" : `; off by ${formatShare(meanError)} on the mean of ${points}, at most ${formatShare(maxError)}`}`
        )
      ]
    }
  })

export const moeTrainingFamily: Family<MoeTrainingScenario, PreparedMoe> & {
  readonly schema: typeof MoeTrainingScenario
} = {
  task: "moe-training",
  schema: MoeTrainingScenario,
  metrics: [
    {
      name: "stepSeconds",
      label: "step time",
      unit: "seconds",
      better: "lower",
      description:
        "mean time of a measured step, forward and backward through all layers: that of the rank that finishes last"
    },
    {
      name: "tokensPerSecond",
      label: "throughput",
      unit: "perSecond",
      better: "higher",
      description: "tokens of all ranks in a step over stepSeconds",
      chart: true
    },
    {
      name: "computeUtilisation",
      label: "compute utilisation",
      unit: "share",
      better: "higher",
      description: "share of a step that the compute lane is busy, mean over ranks",
      chart: true
    },
    {
      name: "computeSeconds",
      label: "computing",
      unit: "seconds",
      better: "lower",
      description: "compute time of a step, mean over ranks"
    },
    {
      name: "exposedCommunicationSeconds",
      label: "waiting",
      unit: "seconds",
      better: "lower",
      description:
        "step minus computing: exposed communication, waits for ranks with more to do and for the host"
    },
    {
      name: "predictedSeconds",
      label: "planned",
      unit: "seconds",
      better: "lower",
      description:
        "what the planner reckoned a step takes: without the host and the optimizer, with experts chosen equally often and no contention"
    },
    {
      name: "expertImbalance",
      label: "imbalance",
      unit: "number",
      better: "lower",
      description:
        "tokens of a layer's busiest expert over the mean of its experts, averaged over layers and steps; 1 where rows are padded to a capacity"
    }
  ],
  fileFields: [
    ["costs", "products", "profile"],
    ["costs", "between", "profile"],
    ["costs", "inside", "profile"],
    ["host", "measured"],
    ["routing", "trace"],
    ["world", "links", "wan", "pairs"]
  ],
  displayNames: titlesOf(moeAlgorithms),
  baselines: ["tutel", "deepspeed-moe"],
  verb: "trains",
  caveat: "Time of the MoE layers alone: embedding, loss and optimizer are left out.",
  prepare,
  kernels,
  train: trainable,
  ignored,
  ignoredByExec: (scenario, alsoSimulated) => [
    ...realWarnings(scenario, alsoSimulated),
    ...(scenario.routing === undefined ? [] : ["routing has no effect: in a real run the gates choose"])
  ],
  print,
  schedule
}

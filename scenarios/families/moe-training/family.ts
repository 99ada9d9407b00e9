// MoE training as a family: its metrics and words.
import * as Effect from "effect/Effect"
import { titlesOf } from "../../../core/algorithms/algorithm.ts"
import { moeAlgorithms } from "../../../core/algorithms/moe-training/algorithms.ts"
import { MoeTrainingScenario } from "./scenario.ts"
import { formatSeconds, formatShare, counted } from "../../../core/units.ts"
import type { Family, Told } from "../../family.ts"
import { metricOf, type RunResult } from "../../result.ts"
import { realWarnings } from "../../ignored.ts"
import { alignColumns } from "../../table.ts"
import { diagnose, diagnosisLines } from "./diagnosis.ts"
import { ignored } from "./ignored.ts"
import { kernels, trainable } from "./kernels.ts"
import { planScenario } from "./prepare.ts"
import { prepare, type PreparedMoe } from "./simulated.ts"

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
  Effect.map(planScenario(scenario, file, host), ({ planned, fits, world, costs: used, warnings }): Told => {
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
      estimates: used.estimates,
      warnings,
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

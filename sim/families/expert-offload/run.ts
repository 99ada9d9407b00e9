// One scenario of generation with offloaded experts, from its settings to its result.
import * as Effect from "effect/Effect"
import { expertBytes } from "../../../core/algorithms/expert-offload/model.ts"
import { fewestLoads } from "../../../core/algorithms/expert-offload/optimum.ts"
import {
  choicesName,
  expertOffload,
  type OffloadLog
} from "../../../core/algorithms/expert-offload/program.ts"
import type { RoutedSteps } from "../../../core/algorithms/expert-offload/routing.ts"
import type { ExpertOffloadScenario } from "../../../scenarios/families/expert-offload/scenario.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { MachineError } from "../../../core/machine/machine.ts"
import type { Tensor, TensorData } from "../../../core/machine/tensor.ts"
import { makeWorld } from "../../../core/world.ts"
import type { FamilyRun, RunOptions } from "../../run.ts"
import type { RunResult } from "../../../scenarios/result.ts"
import { simulate } from "../../simulate.ts"
import { offloadCosts } from "../../../scenarios/families/expert-offload/costs.ts"
import { figuresOf, type Figures } from "../../../scenarios/families/expert-offload/figures.ts"
import { prepare } from "../../../scenarios/families/expert-offload/prepare.ts"

/** `sim run --json` of generation with offloaded experts. */
export interface ExpertOffloadResult extends RunResult, Figures {
  readonly steps: number
  readonly warmupSteps: number
  readonly fewestLoads: number
  readonly fewestForcedLoads: number
}

export interface ExpertOffloadRun extends FamilyRun {
  readonly result: ExpertOffloadResult
}

const unlimited = { bytesPerSecond: Infinity, latencySeconds: 0 }

/** Simulates a scenario. `file` is the scenario's path: files it names are relative to its folder. */
export const runExpertOffload = (
  scenario: ExpertOffloadScenario,
  file: string,
  options: RunOptions
): Effect.Effect<ExpertOffloadRun, InputError | MachineError> =>
  Effect.gen(function* () {
    const prepared = yield* prepare(scenario, file, options.loader)
    const { model, workload, routing, demand, slots, scope } = prepared
    const world = makeWorld([{ name: "site", nodes: [1] }], {
      intra: unlimited,
      inter: unlimited,
      wan: undefined
    })
    const simulated = yield* simulate({
      world,
      program: expertOffload({
        model,
        workload,
        strategy: prepared.strategy,
        writeBack: scenario.cache.writeBack,
        seed: scenario.seed
      }),
      costs: offloadCosts(prepared.costs),
      network: "fluid",
      collectives: { algorithm: "ring" },
      jitter: scenario.jitter,
      seed: scenario.seed,
      capacityBytes: scenario.memory ?? {},
      source: sourceOf(routing),
      record: true
    })
    const rank = simulated.ranks[0]!
    const timeline = simulated.timeline!
    const log: OffloadLog = rank.value
    const prefillSteps = workload.prefill ? 1 : 0
    const { warmupSteps } = scenario.workload
    const fromStep = prefillSteps + warmupSteps
    const toStep = prefillSteps + workload.decodeTokens
    const fromSeconds = fromStep === 0 ? 0 : rank.stepEndSeconds[fromStep - 1]!
    const toSeconds = rank.stepEndSeconds[toStep - 1]!
    const figures = figuresOf(
      log,
      timeline,
      { fromStep, toStep, fromSeconds, toSeconds },
      {
        batch: workload.batch,
        expertBytes: expertBytes(model),
        prefillSeconds: workload.prefill ? rank.stepEndSeconds[0]! : 0
      }
    )
    const slotsOfAll = scope === "shared" ? slots : slots * model.layers
    return {
      result: {
        digest: simulated.digest,
        scenario: scenario.name,
        task: scenario.task,
        algorithm: scenario.algorithm.name,
        ranks: 1,
        steps: toStep - fromStep,
        warmupSteps,
        ...figures,
        fewestLoads: fewestLoads(demand, slots, scope, "bypass"),
        fewestForcedLoads: fewestLoads(demand, slots, scope, "forced"),
        makespanSeconds: simulated.makespanSeconds,
        peakBytes: rank.peakBytes,
        ops: rank.ops,
        links: [],
        estimates: simulated.estimates,
        warnings: [],
        details: {
          expertBytes: expertBytes(model),
          slots: slotsOfAll,
          scope,
          slotsPerLayer: slotsOfAll / model.layers,
          experts: model.experts,
          layers: model.layers
        }
      },
      timeline: options.record === true ? timeline : undefined,
      fromSeconds,
      toSeconds,
      simulated
    }
  })

/** What the routers would have chosen, by the name of the tensor that asks. */
const sourceOf = ({ choices }: RoutedSteps): ((rank: number, tensor: Tensor) => TensorData | undefined) => {
  const byName = new Map(
    choices.flatMap((layers, step) =>
      layers.map((chosen, layer) => [choicesName(step, layer), chosen] as const)
    )
  )
  return (_, tensor) => byName.get(tensor.name)
}

// A scenario of generation with offloaded experts ready for the simulator, and what a run comes to.
import * as Effect from "effect/Effect"
import { expertBytes } from "../../../core/algorithms/expert-offload/model.ts"
import { fewestLoads } from "../../../core/algorithms/expert-offload/optimum.ts"
import { choicesName } from "../../../core/algorithms/expert-offload/decoder.ts"
import { expertOffload, type OffloadLog } from "../../../core/algorithms/expert-offload/program.ts"
import type { Workload } from "../../../core/algorithms/expert-offload/workload.ts"
import type { RoutedSteps } from "../../../core/algorithms/expert-offload/routing.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { ReadSource } from "../../../core/machine/machine.ts"
import { oneRank } from "../../../core/world.ts"
import type { Host, Prepared } from "../../family.ts"
import { offloadCosts } from "./costs.ts"
import { figuresOf, type Figures } from "./figures.ts"
import { planScenario, type PlannedScenario } from "./prepare.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"

/** `sim run --json` of generation with offloaded experts. */
export interface OffloadFigures extends Figures {
  readonly fewestLoads: number
  readonly fewestForcedLoads: number
}

export interface PreparedOffload extends Prepared<OffloadLog, OffloadFigures> {
  readonly planned: PlannedScenario
}

export const prepare = (
  scenario: ExpertOffloadScenario,
  file: string,
  { loader }: Host
): Effect.Effect<PreparedOffload, InputError> =>
  Effect.map(planScenario(scenario, file, loader), (planned) => {
    const { model, workload, routing, demand, slots, scope } = planned
    return {
      planned,
      simulable: {
        world: oneRank,
        program: expertOffload({
          model,
          workload,
          strategy: planned.strategy,
          writeBack: scenario.cache.writeBack,
          seed: scenario.seed
        }),
        costs: offloadCosts(planned.costs),
        network: "fluid",
        collectives: { algorithm: "ring" },
        jitter: scenario.jitter,
        seed: scenario.seed,
        capacityBytes: scenario.memory,
        source: sourceOf(routing, workload),
        // The figures are of the timeline.
        record: true
      },
      summarise: ({ ranks, timeline }) => {
        const rank = ranks[0]!
        const prefillSteps = workload.prefill ? 1 : 0
        const { warmupSteps } = scenario.workload
        const fromStep = prefillSteps + warmupSteps
        const toStep = prefillSteps + workload.decodeTokens
        const fromSeconds = fromStep === 0 ? 0 : rank.stepEndSeconds[fromStep - 1]!
        const toSeconds = rank.stepEndSeconds[toStep - 1]!
        const figures = figuresOf(
          rank.value,
          timeline!,
          { fromStep, toStep, fromSeconds, toSeconds },
          {
            batch: workload.batch,
            expertBytes: expertBytes(model),
            prefillSeconds: workload.prefill ? rank.stepEndSeconds[0]! : 0
          }
        )
        const slotsOfAll = scope === "shared" ? slots : slots * model.layers
        return Effect.succeed({
          figures: {
            ...figures,
            fewestLoads: fewestLoads(demand, slots, scope, "bypass"),
            fewestForcedLoads: fewestLoads(demand, slots, scope, "forced")
          },
          fromSeconds,
          toSeconds,
          steps: toStep - fromStep,
          warmupSteps,
          warnings: [],
          details: {
            expertBytes: expertBytes(model),
            slots: slotsOfAll,
            scope,
            slotsPerLayer: slotsOfAll / model.layers,
            experts: model.experts,
            layers: model.layers
          }
        })
      }
    }
  })

/** What the routers would have chosen: each layer's choices are read once a step. */
const sourceOf = ({ choices }: RoutedSteps, { prefill }: Workload): ReadSource => {
  const names = choices[0]?.map((_, layer) => layer) ?? []
  const prefilled = new Map(names.map((layer) => [choicesName("prefill", layer), layer]))
  const decoded = new Map(names.map((layer) => [choicesName("decode", layer), layer]))
  return (_, { name }, read) => {
    const layer = decoded.get(name)
    if (layer !== undefined) return choices[prefill ? read + 1 : read]?.[layer]
    return prefilled.has(name) ? choices[0]?.[prefilled.get(name)!] : undefined
  }
}

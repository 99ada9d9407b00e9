// A scenario of generation with offloaded experts ready for the simulator, and what a run comes to.
import * as Effect from "effect/Effect"
import { expertBytes, type MoeModel } from "../../../core/algorithms/expert-offload/model.ts"
import { fewestLoads, type SlotScope } from "../../../core/algorithms/expert-offload/optimum.ts"
import type { ChoicesRole } from "../../../core/algorithms/expert-offload/decoder.ts"
import { expertOffload, type OffloadLog } from "../../../core/algorithms/expert-offload/program.ts"
import { stepsOf, type Workload } from "../../../core/algorithms/expert-offload/workload.ts"
import type { RoutedSteps } from "../../../core/algorithms/expert-offload/routing.ts"
import type { InputError } from "../../../core/input-error.ts"
import type { ReadSource } from "../../../core/machine/machine.ts"
import { formatBytes } from "../../../core/units.ts"
import { oneRank } from "../../../core/world.ts"
import type { Host, Prepared } from "../../family.ts"
import { modeWarnings } from "../../host.ts"
import { mostStreamed, requireHeld } from "../../sizes.ts"
import { asServedWarnings } from "./as-served.ts"
import { offloadCosts } from "./costs.ts"
import { figuresOf, type Figures, type Stretch } from "./figures.ts"
import { ignored } from "./ignored.ts"
import { planScenario, type PlannedScenario } from "./prepare.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"

/** `sim run --json` of generation with offloaded experts. */
export interface OffloadFigures extends Figures {
  readonly fewestLoads: number
  readonly fewestForcedLoads: number
}

/** What is not a single number. */
export interface OffloadDetails {
  readonly expertBytes: number
  readonly slots: number
  readonly scope: SlotScope
  readonly slotsPerLayer: number
  readonly experts: number
  readonly layers: number
  /** Steps that are prefills: in all, before the measured ones, and between these. */
  readonly prefills: { readonly all: number; readonly before: number; readonly between: number }
}

export interface PreparedOffload extends Prepared<OffloadLog, OffloadFigures> {
  readonly planned: PlannedScenario
}

export const prepare = (
  scenario: ExpertOffloadScenario,
  file: string,
  { loader }: Host
): Effect.Effect<PreparedOffload, InputError> =>
  Effect.gen(function* () {
    const planned = yield* planScenario(scenario, file, loader)
    const { model, workload, routing, demand, slots, scope } = planned
    if (scenario.algorithm.name === "layer-ring")
      yield* requireHeld(
        { file, field: "model.experts", value: model.experts },
        model.layers * stepsOf(workload).length,
        mostStreamed,
        "loads of each in a ring, one in each layer and step"
      )
    const costs = offloadCosts(planned.costs)
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
        costs,
        network: "fluid",
        collectives: { algorithm: "ring" },
        jitter: scenario.jitter,
        seed: scenario.seed,
        capacityBytes: scenario.memory,
        source: sourceOf(routing, workload),
        steps: stepsOf(workload).length,
        // The figures are of the timeline.
        record: true
      },
      summarise: ({ ranks, timeline }) => {
        const rank = ranks[0]!
        const { warmupSteps } = scenario.workload
        const endOf = (step: number): number => (step < 0 ? 0 : rank.stepEndSeconds[step]!)
        const stretches = measuredOf(workload, warmupSteps, endOf)
        const [{ fromStep, fromSeconds }, { toStep, toSeconds }] = [stretches[0]!, stretches.at(-1)!]
        const prefills = stepsOf(workload).filter(({ phase }) => phase === "prefill")
        const before = prefills.filter(({ step }) => step < fromStep).length
        const between = prefills.filter(({ step }) => step >= fromStep && step < toStep).length
        const prefillSeconds = prefills.reduce((sum, { step }) => sum + endOf(step) - endOf(step - 1), 0)
        const figures = figuresOf(rank.value, timeline!, stretches, {
          batch: workload.batch,
          expertBytes: expertBytes(model),
          prefillSeconds: prefillSeconds / Math.max(1, prefills.length)
        })
        const slotsOfAll = scope === "shared" ? slots : slots * model.layers
        const details: OffloadDetails = {
          expertBytes: expertBytes(model),
          slots: slotsOfAll,
          scope,
          slotsPerLayer: slotsOfAll / model.layers,
          experts: model.experts,
          layers: model.layers,
          prefills: { all: prefills.length, before, between }
        }
        return Effect.succeed({
          figures: {
            ...figures,
            fewestLoads: fewestLoads(demand, slots, scope, "bypass"),
            fewestForcedLoads: fewestLoads(demand, slots, scope, "forced")
          },
          fromSeconds,
          toSeconds,
          steps: toStep - fromStep,
          warmupSteps: fromStep,
          warnings: [
            ...remainderWarnings(scenario, model, slotsOfAll),
            ...modeWarnings(scenario.host, costs),
            ...asServedWarnings(scenario, planned, ignored(scenario))
          ],
          details: { ...details }
        })
      }
    }
  })

/** Bytes that hold no expert, where more room would have held one. */
const remainderWarnings = (
  { cache }: ExpertOffloadScenario,
  model: MoeModel,
  slots: number
): ReadonlyArray<string> => {
  const unused = (cache.bytes ?? 0) - slots * expertBytes(model)
  return unused <= 0 || slots >= model.layers * model.experts
    ? []
    : [
        `cache.bytes: ${formatBytes(unused)} of ${formatBytes(cache.bytes!)} hold no expert: ${slots} of ${formatBytes(expertBytes(model))} fit${slots % model.layers === 0 ? `, ${slots / model.layers} of each of ${model.layers} layers` : ""}`
      ]
}

/** The decoding steps after so many of warm-up, as far as no prefill lies between them. */
const measuredOf = (
  workload: Workload,
  warmupSteps: number,
  endOf: (step: number) => number
): ReadonlyArray<Stretch> => {
  const stretches: Array<Stretch> = []
  const decoding = stepsOf(workload).filter(({ phase }) => phase === "decode")
  for (const { step } of decoding.slice(warmupSteps)) {
    const last = stretches.at(-1)
    const here = { toStep: step + 1, toSeconds: endOf(step) }
    if (last?.toStep === step) stretches[stretches.length - 1] = { ...last, ...here }
    else stretches.push({ fromStep: step, fromSeconds: endOf(step - 1), ...here })
  }
  return stretches
}

const keyOf = ({ phase, prompts, layer }: ChoicesRole): string => `${phase} ${prompts} ${layer}`

/** What the routers would have chosen: each layer's choices are read once a step. */
const sourceOf = ({ choices }: RoutedSteps, workload: Workload): ReadSource => {
  const read = new Map<string, Array<Int32Array>>()
  for (const { step, phase, prompts } of stepsOf(workload)) {
    for (const [layer, chosen] of choices[step]!.entries()) {
      const key = keyOf({ kind: "choices", phase, prompts, layer })
      const known = read.get(key)
      if (known === undefined) read.set(key, [chosen])
      else known.push(chosen)
    }
  }
  return (_, { role }, before) =>
    role?.kind === "choices" ? read.get(keyOf(role as ChoicesRole))?.[before] : undefined
}

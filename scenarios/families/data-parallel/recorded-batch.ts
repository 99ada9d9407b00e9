// A profile of one batch for a run of another: passes scaled by what the architecture's kernels are estimated to take on either.
// Knows nothing of how they are estimated.
import * as Effect from "effect/Effect"
import { blocksOf } from "../../../core/algorithms/data-parallel/blocks.ts"
import { makeCostModel } from "../../../core/cost/cost-model.ts"
import type { Device } from "../../../core/cost/devices.ts"
import type { OpTable } from "../../../core/cost/op-table.ts"
import type { Estimate } from "../../../core/cost/provenance.ts"
import { InputError } from "../../../core/input-error.ts"
import type { LayerCost, PhaseCost, Profile } from "../../../core/profile.ts"
import { estimateProfile } from "../../estimated-profile.ts"
import { modelGraph } from "../../model-graph.ts"
import type { ArchitectureSettings } from "../../sections.ts"
import { keptBy } from "./activation-settings.ts"
import type { DataParallelScenario } from "./scenario.ts"
import { sizesOf } from "./tokens.ts"

type Architecture = typeof ArchitectureSettings.Type

interface OnBatch {
  readonly profile: Profile
  readonly estimates: ReadonlyArray<Estimate>
}

interface Known {
  readonly device: Device | undefined
  readonly ops: OpTable | undefined
}

/** How many times as long one part of a model's passes takes. */
interface Factors {
  readonly forward: number
  readonly backward: number
}

/** The profile as the scenario's batch and context have it, where `model.recorded` says that it is of others. */
export const onBatch = (
  scenario: DataParallelScenario,
  profile: Profile,
  { device, ops }: Known,
  file: string
): Effect.Effect<OnBatch, InputError> =>
  Effect.gen(function* () {
    const { model, activations, precision } = scenario
    const asRecorded: OnBatch = { profile, estimates: [] }
    if (!("profile" in model) || model.recorded === undefined) return asRecorded
    const refuse = (field: string, value: string, accepted: string) =>
      new InputError({ file, field, value, accepted })
    const said = JSON.stringify(model.recorded)
    const of = activations?.of
    if (of === undefined)
      return yield* refuse(
        "model.recorded",
        said,
        "no such field without activations.of, the architecture with the batch and context to run"
      )
    const { batch, context } = sizesOf(of)
    const recorded = { batch: model.recorded.batch ?? batch, context: model.recorded.context ?? context }
    if (recorded.batch === batch && recorded.context === context) return asRecorded
    const by = keptBy(scenario)
    // `keptBytes` refuses it of a profile.
    if (by === "fused") return asRecorded
    if ("mixtral" in of || precision === "float32" || (device === undefined && ops === undefined))
      return yield* refuse(
        "model.recorded",
        said,
        "the batch and context of activations.of, for another is estimated of a gpt2 or llama, in 16 bits, on a device that is known"
      )
    const costs = makeCostModel({ sources: ops === undefined ? [] : [ops], device, computeDtype: precision })
    const estimated = (one: Architecture) => {
      const graph = modelGraph(one, precision, "float32")
      const { layers } = estimateProfile(graph, graph, costs, by, "")
      return graph.layers.map(({ name, block }, index) => ({
        inBlock: block !== undefined && block !== name,
        layer: layers[index]!
      }))
    }
    const then = estimated(withSizes(of, recorded))
    const now = estimated(of)
    const factors = (wanted: (inBlock: boolean) => boolean): Factors => {
      const sum = (of_: typeof then, name: "forward" | "backward") =>
        of_.reduce(
          (seconds, { inBlock, layer }) => seconds + (wanted(inBlock) ? layer[name].busySeconds : 0),
          0
        )
      return {
        forward: sum(now, "forward") / sum(then, "forward"),
        backward: sum(now, "backward") / sum(then, "backward")
      }
    }
    const blocks = blocksOf(profile.layers.map(({ name }) => name))
    const known = blocks.some((block) => block !== undefined)
    const inBlocks = factors((inBlock) => inBlock || !known)
    const outside = known ? factors((inBlock) => !inBlock) : inBlocks
    const layers = profile.layers.map((layer, index): LayerCost => {
      const { forward, backward } = blocks[index] === undefined ? outside : inBlocks
      return {
        ...layer,
        forward: timesAsLong(layer.forward, forward),
        backward: timesAsLong(layer.backward, backward)
      }
    })
    const told = ({ forward, backward }: Factors) =>
      `${forward.toPrecision(3)} times forward and ${backward.toPrecision(3)} backward`
    const parts = known ? `blocks ${told(inBlocks)}, the rest ${told(outside)}` : told(inBlocks)
    const change = (name: "busySeconds" | "spanSeconds") =>
      layers.reduce((sum, layer, index) => {
        const before = profile.layers[index]!
        return sum + layer.forward[name] - before.forward[name] + layer.backward[name] - before.backward[name]
      }, 0)
    return {
      profile: {
        ...profile,
        layers,
        stepSeconds: profile.stepSeconds + change("spanSeconds"),
        deviceBusySeconds: profile.deviceBusySeconds + change("busySeconds")
      },
      estimates: [
        {
          kernel: "every layer's passes",
          source: "scaled",
          detail: `from the ${recorded.batch} x ${recorded.context} tokens of the profile to ${batch} x ${context}, by what eager PyTorch's kernels are estimated to take: ${parts}`
        }
      ]
    }
  })

/**
 * A pass whose device works so many times as long: the host's gaps shrink by what the device is busy for longer, as the host launches
 * no more than before; they stay where it is busy for less.
 */
const timesAsLong = ({ busySeconds, spanSeconds, ...rest }: PhaseCost, factor: number): PhaseCost => {
  const busy = busySeconds * factor
  const gap = spanSeconds - busySeconds
  return {
    ...rest,
    busySeconds: busy,
    spanSeconds: busy + Math.max(0, Math.min(gap, gap - (busy - busySeconds)))
  }
}

const withSizes = (
  of: Architecture,
  own: { readonly batch: number; readonly context: number }
): Architecture => {
  if ("gpt2" in of) return { gpt2: { ...of.gpt2, ...own } }
  if ("llama" in of) return { llama: { ...of.llama, ...own } }
  return { mixtral: { ...of.mixtral, ...own } }
}

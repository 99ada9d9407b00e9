// How a model is divided among ranks (ZeRO's stages, FSDP), planned: its units, which of its tensors are in parts, and the model
// as algorithms across divisions then see it: a layer for each stretch of a unit, whose parameters are one rank's part.
import type { Dtype } from "../../../machine/tensor.ts"
import type { PhaseCost, Profile } from "../../../profile.ts"
import type { Division } from "./groups.ts"
import { layOut } from "./layout.ts"
import { runsOf, unitsOf, type Run, type Unit, type UnitChoice } from "./units.ts"

export interface ShardChoices {
  readonly units: UnitChoice
  /** Divided: parameters (ZeRO-3) only with gradients (ZeRO-2), these only with the optimizer's state (ZeRO-1), which always is. */
  readonly parameters: boolean
  readonly gradients: boolean
  /** Give a block's parameters back after its forward pass, and gather them again for its backward pass. */
  readonly reshardAfterForward: boolean
  /** How many units are gathered ahead of the one that computes. */
  readonly prefetch: number
  /** Dtype in which parameters are gathered; their own where absent. */
  readonly parameterDtype?: Dtype | undefined
  /** Dtype in which gradients are summed. */
  readonly reduceDtype: Dtype
  /**
   * Of divided parameters: a gather's result is copied to where layers read it, and gradients to where they are summed, by the device
   * between layers, as FSDP2 does; else they lie as they travel.
   */
  readonly copies: boolean
}

export interface ShardPlan extends ShardChoices, Pick<Division, "placeOf"> {
  /** Parts of a model. */
  readonly ranks: number
  readonly division: ReadonlyArray<Unit>
  readonly runs: ReadonlyArray<Run>
}

/** The plan for a model of layers with these module paths, of which some may share a weight (`sharingLayers`). */
export const planShards = (
  names: ReadonlyArray<string>,
  { ranks, placeOf }: Division,
  choices: ShardChoices,
  sharing: ReadonlyArray<ReadonlyArray<number>> = []
): ShardPlan => {
  const division = unitsOf(names, choices.units, sharing)
  return { ...choices, ranks, placeOf, division, runs: runsOf(division) }
}

/**
 * The profile as algorithms across divisions see it: stretches of units as layers, times summed, and for parameters one rank's
 * parts, all in the unit's first stretch.
 */
export const dividedProfile = (profile: Profile, { division, runs, ranks }: ShardPlan): Profile => {
  const sum = (costs: ReadonlyArray<PhaseCost>): PhaseCost => ({
    busySeconds: costs.reduce((seconds, cost) => seconds + cost.busySeconds, 0),
    spanSeconds: costs.reduce((seconds, cost) => seconds + cost.spanSeconds, 0)
  })
  const layers = runs.map(({ unit, layers, first }) => {
    const own = layers.map((layer) => profile.layers[layer]!)
    const updated = first ? division[unit]!.layers.map((layer) => profile.layers[layer]!) : []
    return {
      name: division[unit]!.name + (first ? "" : `, ${own[0]!.name}`),
      forward: sum(own.map(({ forward }) => forward)),
      backward: sum(own.map(({ backward }) => backward)),
      optimizer: sum(
        updated.map(({ optimizer: { busySeconds, spanSeconds } }) => ({
          busySeconds: busySeconds / ranks,
          spanSeconds: spanSeconds - busySeconds + busySeconds / ranks
        }))
      )
    }
  })
  const parameters = [...runs.keys()].toReversed().flatMap((layer) => {
    const { unit, first } = runs[layer]!
    if (!first) return []
    const own = new Set(division[unit]!.layers)
    const shapes = profile.parameters.filter((parameter) => own.has(parameter.layer))
    return layOut(
      shapes.map(({ shape }) => ({ shape, dtype: "float32" as const })),
      ranks
    ).map(({ partShape }) => ({ layer, shape: partShape, dtype: "float32" }))
  })
  return { ...profile, layers, parameters }
}

/** The block of each of `dividedProfile`'s layers, of a model whose layers are in these; the root is in none. */
export const blocksOfRuns = (
  { division, runs }: ShardPlan,
  blocks: ReadonlyArray<string | undefined>
): ReadonlyArray<string | undefined> =>
  runs.map(({ unit, layers }) => (division[unit]!.root ? undefined : blocks[layers[0]!]))

// Where parameters of a model in parts are: each in what its unit learns, and no other unit's layers may use it. Knows no machine.
import type { Op } from "../../../machine/op.ts"
import type { Tensor } from "../../../machine/tensor.ts"
import type { LayerOps, LayerSpec, ParameterPlace, ParameterSpec, WholeTensors } from "../storage.ts"
import { layOut } from "./layout.ts"
import type { ShardPlan } from "./plan.ts"

/** Every parameter, in the model's order. */
export const placesIn = (
  specs: ReadonlyArray<LayerSpec>,
  { runs, division, ranks }: ShardPlan
): ReadonlyArray<ParameterPlace> => {
  const placed = new Map<ParameterSpec, ParameterPlace>()
  runs.forEach(({ unit, first }, layer) => {
    if (!first) return
    const parameters = division[unit]!.layers.flatMap((own) => specs[own]!.parameters)
    layOut(parameters, ranks).forEach(({ members }, learnt) => {
      for (const { parameter, offset } of members) {
        const { name, shape } = parameters[parameter]!
        placed.set(parameters[parameter]!, { name, shape, layer, learnt, offset })
      }
    })
  })
  return specs.flatMap(({ parameters }) => parameters.map((parameter) => placed.get(parameter)!))
}

/**
 * Throws RangeError where a layer's op uses another unit's parameter or gradient that need not be there when it runs: its memory may
 * be a third unit's by then. The root's are there; and what a unit gathered, until the forward pass gathers the next.
 */
export const requireOwn = (
  { runs, division, parameters, reshardAfterForward }: ShardPlan,
  whole: ReadonlyArray<WholeTensors>,
  ops: ReadonlyArray<LayerOps>
): void => {
  const owned = (of: (tensors: WholeTensors) => ReadonlyArray<Tensor>) =>
    new Map(
      division.flatMap(({ layers, root }, unit) =>
        root ? [] : layers.flatMap((layer) => of(whole[layer]!).map((tensor) => [tensor, unit] as const))
      )
    )
  const parameterOf =
    parameters && reshardAfterForward ? owned((tensors) => tensors.parameters) : new Map<Tensor, number>()
  const gradientOf = owned((tensors) => tensors.gradients)
  let gathered = -1
  for (const { unit, layers } of runs) {
    const require = (some: ReadonlyArray<Op>, there: number): void => {
      for (const { label, reads, writes } of some)
        for (const tensor of [...reads, ...writes]) {
          const owner = parameterOf.get(tensor) ?? gradientOf.get(tensor) ?? unit
          if (owner !== unit && owner !== there)
            throw new RangeError(
              `${label} uses ${tensor.name} of another unit, ${division[owner]!.name}: layers that share a weight belong in one`
            )
        }
    }
    if (division[unit]!.layers.some((layer) => whole[layer]!.parameters.length > 0)) gathered = unit
    for (const layer of layers) {
      require(ops[layer]!.forward, gathered)
      require(ops[layer]!.backward, unit)
    }
  }
}

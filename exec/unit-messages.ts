// What ranks that hold a model together send each other of one of its units: the company that a step of theirs has. Knows no machine.
import { layOut, type Flat } from "../core/algorithms/data-parallel/shard/layout.ts"
import type { ShardPlan } from "../core/algorithms/data-parallel/shard/plan.ts"
import { castToSum, wireFor } from "../core/algorithms/data-parallel/shard/travel.ts"
import { elementsOf, sizeBytesOf } from "../core/machine/tensor.ts"
import type { LayerGraph } from "../core/models/layer-graph.ts"
import type { CompanyMessage } from "./training-in-company.ts"

const bytesOf = (flats: ReadonlyArray<Flat>): number =>
  flats.reduce((sum, { shape, dtype }) => sum + sizeBytesOf(elementsOf(shape), dtype), 0)

/**
 * The gather of a unit's parameters, and what its gradients are summed by: of the unit in whose size or a larger one half of all bytes travel,
 * as the plan has their dtypes. Of its tensors those of one dtype, which all are but of unusual models.
 */
export const unitMessages = (plan: ShardPlan, { layers }: LayerGraph): ReadonlyArray<CompanyMessage> => {
  const units = plan.division
    .map((unit) =>
      layOut(
        unit.layers.flatMap((layer) => layers[layer]!.parameters),
        plan.ranks
      )
    )
    .filter((flats) => flats.length > 0)
    .toSorted((a, b) => bytesOf(b) - bytesOf(a))
  const half = units.reduce((sum, flats) => sum + bytesOf(flats), 0) / 2
  let behind = 0
  const typical = units.find((flats) => (behind += bytesOf(flats)) >= half)
  if (typical === undefined) return []
  const { dtype } = typical[0]!
  const elements = typical.filter((flat) => flat.dtype === dtype).map(({ shape }) => elementsOf(shape))
  const summed = castToSum(dtype, plan.reduceDtype) ? plan.reduceDtype : dtype
  return [
    {
      kernel: "all_gather",
      elements,
      dtype,
      ...(plan.parameterDtype === undefined ? {} : wireFor(plan.parameterDtype, dtype))
    },
    {
      kernel: plan.gradients ? "reduce_scatter" : "all_reduce",
      elements,
      dtype: summed,
      ...wireFor(plan.reduceDtype, summed)
    }
  ]
}

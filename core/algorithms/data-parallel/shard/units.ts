// What is gathered and given back together: PyTorch FSDP's units, a block each, and the root for all that is in no block.
// Knows layers as module paths; nothing of tensors, ranks or time.
import { blocksOf } from "../blocks.ts"

/** `block`: each repeated module with its layers, the rest is the root; `layer`: each layer by itself; `model`: all is the root. */
export type UnitChoice = "block" | "layer" | "model"

export interface Unit {
  readonly name: string
  /** Indices in forward order, ascending. */
  readonly layers: ReadonlyArray<number>
  /** Gathered when a step begins, and kept to its end. */
  readonly root: boolean
}

/**
 * Every layer is in one unit; units in the order in which the forward pass first needs them. Layers that share a weight are in one,
 * the root where they would be in several: its parameters stay, and its gradients are whole until the first layer is done.
 */
export const unitsOf = (
  names: ReadonlyArray<string>,
  choice: UnitChoice,
  sharing: ReadonlyArray<ReadonlyArray<number>> = []
): ReadonlyArray<Unit> => {
  const blocks = choice === "model" ? names.map(() => undefined) : blocksOf(names)
  // A model without blocks has layers alone to be divided by.
  const byLayer = choice === "layer" || (choice === "block" && blocks.every((block) => block === undefined))
  const unitOf: Array<string | number | undefined> = byLayer ? [...names.keys()] : [...blocks]
  for (const layers of sharing)
    if (new Set(layers.map((layer) => unitOf[layer])).size > 1)
      for (const layer of layers) unitOf[layer] = undefined
  return [...Map.groupBy(names.keys(), (index) => unitOf[index])].map(([unit, layers]) => ({
    name: (typeof unit === "number" ? names[unit] : unit) ?? "root",
    layers,
    root: unit === undefined
  }))
}

/** A stretch of consecutive layers of one unit. */
export interface Run {
  /** Index into the units. */
  readonly unit: number
  readonly layers: ReadonlyArray<number>
  /** The unit's first stretch: its backward pass completes the unit's gradients. */
  readonly first: boolean
}

/** The stretches that the forward pass goes through. */
export const runsOf = (units: ReadonlyArray<Unit>): ReadonlyArray<Run> => {
  const unitOf: Array<number> = []
  units.forEach(({ layers }, unit) => layers.forEach((layer) => (unitOf[layer] = unit)))
  const runs: Array<{ unit: number; layers: Array<number>; first: boolean }> = []
  const seen = new Set<number>()
  unitOf.forEach((unit, layer) => {
    const last = runs.at(-1)
    if (last?.unit === unit) last.layers.push(layer)
    else {
      runs.push({ unit, layers: [layer], first: !seen.has(unit) })
      seen.add(unit)
    }
  })
  return runs
}

// Where the values of a training step lie: every value of a layer graph gets an offset in one arena, by its lifetime, so that
// memory is used again as soon as what lay there is read for the last time. The same on every machine. Knows the order in
// which calls run, shapes and dtypes; nothing of machines.
import { kernels } from "../kernels/catalogue.ts"
import type { Kernel } from "../kernels/kernel.ts"
import { viewAlignment } from "../machine/tensor.ts"
import { gradientName, stepCalls, type LayerGraph, type Value } from "./layer-graph.ts"

export interface Placement {
  /** Of the arena. */
  readonly sizeBytes: number
  /** In the order the values are first written. */
  readonly places: ReadonlyArray<Place>
  /** The most bytes that are alive at once, each value rounded up to `viewAlignment`: no placement needs less. */
  readonly leastBytes: number
}

interface Place {
  readonly value: Value
  readonly offsetBytes: number
  /** Alive from the call that writes it to the last that reads it, both included: places among the calls of a step. */
  readonly from: number
  readonly to: number
  /** The value whose memory this one takes over, in the call that reads the one and writes the other. */
  readonly inPlaceOf: string | undefined
}

const aligned = (sizeBytes: number): number => Math.ceil(sizeBytes / viewAlignment) * viewAlignment

interface Lifetime {
  readonly value: Value
  readonly from: number
  to: number
}

/** Values that come and go within a step, with their lifetimes; parameters, their gradients, batches and the loss stay. */
const lifetimes = (graph: LayerGraph): ReadonlyMap<string, Lifetime> => {
  const parameters = graph.layers.flatMap((layer) => layer.parameters)
  const staying = new Set([
    ...parameters.map(({ name }) => name),
    ...parameters.map(gradientName),
    ...graph.inputs.map(({ name }) => name),
    graph.loss.name
  ])
  const alive = new Map<string, Lifetime>()
  stepCalls(graph).forEach(({ inputs, outputs }, order) => {
    for (const { name } of inputs) {
      const lifetime = alive.get(name)
      if (lifetime !== undefined) lifetime.to = order
    }
    for (const value of outputs)
      if (!staying.has(value.name)) alive.set(value.name, { value, from: order, to: order })
  })
  return alive
}

/** Values that share one stretch of memory because each takes over the one before it: [first, ..., last]. */
const chains = (
  graph: LayerGraph,
  alive: ReadonlyMap<string, Lifetime>
): ReadonlyArray<ReadonlyArray<Lifetime>> => {
  const successor = new Map<string, Lifetime>()
  const takesOver = new Set<string>()
  stepCalls(graph).forEach(({ kernel, inputs, outputs }, order) => {
    const { inPlace = [] }: Kernel = kernels[kernel]
    const taken = new Set<string>()
    for (const [input, output] of inPlace) {
      const before = alive.get(inputs[input]?.name ?? "")
      const after = alive.get(outputs[output]?.name ?? "")
      if (before === undefined || after === undefined || before.to !== order) continue
      if (taken.has(after.value.name) || takesOver.has(after.value.name) || successor.has(before.value.name))
        continue
      // Read twice by this call, it may be needed after it is overwritten.
      if (inputs.filter(({ name }) => name === before.value.name).length > 1) continue
      if (before.value.dtype !== after.value.dtype || before.value.elements !== after.value.elements) continue
      taken.add(after.value.name)
      takesOver.add(after.value.name)
      successor.set(before.value.name, after)
    }
  })
  return [...alive.values()]
    .filter(({ value }) => !takesOver.has(value.name))
    .map((first) => {
      const chain = [first]
      for (
        let next = successor.get(first.value.name);
        next !== undefined;
        next = successor.get(next.value.name)
      )
        chain.push(next)
      return chain
    })
}

interface Stretch {
  readonly chain: ReadonlyArray<Lifetime>
  readonly sizeBytes: number
  readonly from: number
  readonly to: number
  offset: number
}

/** The lowest offset at which a stretch of that size is free, among stretches sorted by offset. */
const lowestFree = (sizeBytes: number, around: ReadonlyArray<Stretch>): number => {
  let offset = 0
  for (const other of around) {
    if (other.offset - offset >= sizeBytes) return offset
    offset = Math.max(offset, other.offset + other.sizeBytes)
  }
  return offset
}

/** The most bytes alive at once. */
const leastBytes = (stretches: ReadonlyArray<Stretch>): number => {
  const changes = new Map<number, number>()
  const change = (at: number, bytes: number) => changes.set(at, (changes.get(at) ?? 0) + bytes)
  for (const { from, to, sizeBytes } of stretches) {
    change(from, sizeBytes)
    change(to + 1, -sizeBytes)
  }
  let [now, most] = [0, 0]
  for (const [, bytes] of [...changes].toSorted(([a], [b]) => a - b)) {
    now += bytes
    most = Math.max(most, now)
  }
  return most
}

/**
 * Places for all values of a step that runs its calls in order (`stepCalls`). Values that are alive at once do not overlap,
 * but for those that a kernel may overwrite in place. Largest first, each as low as it fits; among equals the one that is
 * written first. How much more than `leastBytes` that takes is the caller's to look at: nothing promises that it is none.
 */
export const placement = (graph: LayerGraph): Placement => {
  const stretches = chains(graph, lifetimes(graph)).map((chain): Stretch => ({
    chain,
    sizeBytes: aligned(chain[0]!.value.sizeBytes),
    from: chain[0]!.from,
    to: chain.at(-1)!.to,
    offset: 0
  }))
  const placed: Array<Stretch> = []
  let sizeBytes = 0
  for (const stretch of stretches.toSorted((a, b) => b.sizeBytes - a.sizeBytes || a.from - b.from)) {
    const around = placed.filter((other) => other.from <= stretch.to && other.to >= stretch.from)
    stretch.offset = lowestFree(stretch.sizeBytes, around)
    sizeBytes = Math.max(sizeBytes, stretch.offset + stretch.sizeBytes)
    const at = placed.findIndex((other) => other.offset > stretch.offset)
    placed.splice(at < 0 ? placed.length : at, 0, stretch)
  }
  const places = stretches
    .flatMap(({ chain, offset }) =>
      chain.map(({ value, from, to }, index): Place => ({
        value,
        offsetBytes: offset,
        from,
        to,
        inPlaceOf: chain[index - 1]?.value.name
      }))
    )
    .toSorted((a, b) => a.from - b.from)
  return { sizeBytes, places, leastBytes: leastBytes(stretches) }
}

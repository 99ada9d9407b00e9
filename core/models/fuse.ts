// Fusing: a pure rewrite of a layer graph, before any machine sees it. Where calls are the parts of a composite kernel, one
// call of the composite takes their place, and the values that only passed between them are gone. Knows shapes and names of
// values; nothing of times, machines or which backend has which kernel.
import type { KernelName } from "../kernels/catalogue.ts"
import type { Composite, Part } from "../kernels/composite.ts"
import * as fused from "../kernels/fused.ts"
import type { Attributes, AttributeValue } from "../kernels/kernel.ts"
import type { GraphPhase, KernelCall, Layer, LayerGraph, Value } from "./layer-graph.ts"

export interface FuseRule {
  readonly composite: Composite<KernelName>
  /**
   * Where the composite's call stands: in place of its last part (default), or of its first, which what the others read must
   * then be there for.
   */
  readonly at?: "first" | "last"
}

/** What training needs, larger composites before those they contain. */
export const trainingRules: ReadonlyArray<FuseRule> = [
  { composite: fused.softmaxCrossEntropyFused, at: "first" },
  { composite: fused.residualLayerNormForward },
  { composite: fused.residualRmsNormForward },
  { composite: fused.residualLayerNormBackward },
  { composite: fused.residualRmsNormBackward },
  { composite: fused.layerNormBackward },
  { composite: fused.rmsNormBackward },
  { composite: fused.linearGeluForward },
  // With the product: it reads the weight of that layer, which others may average as soon as its backward pass has ended.
  { composite: fused.geluLinearBackwardInput, at: "first" }
]

/** A call and where it stands; `order` is its place among all calls of a step. */
interface Placed {
  readonly layer: number
  readonly phase: GraphPhase
  readonly call: KernelCall
  readonly order: number
}

/** All calls of a step in the order they run. */
const inOrder = ({ layers }: LayerGraph): Array<Placed> => {
  const calls: Array<Placed> = []
  const take = (layer: number, phase: GraphPhase) => {
    for (const call of layers[layer]![phase]) calls.push({ layer, phase, call, order: calls.length })
  }
  for (let layer = 0; layer < layers.length; layer++) take(layer, "forward")
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    take(layer, "backwardInput")
    take(layer, "backwardWeight")
  }
  return calls
}

/** Values by the names that a composite's declaration gives them. */
type Binding = ReadonlyMap<string, Value>

/** `binding` with the part's operands bound to the call's; undefined where they do not fit together. */
const bindPart = (part: Part, call: KernelCall, binding: Binding): Binding | undefined => {
  if (call.kernel !== part.kernel.name) return undefined
  for (const [name, value] of Object.entries(part.fixed ?? {}))
    if ((call.attributes[name] ?? part.kernel.attributes[name]?.fallback) !== value) return undefined
  if (call.outputs.length !== part.outputs.length || call.inputs.length > part.inputs.length) return undefined
  const bound = new Map(binding)
  const bind = (name: string, value: Value): boolean => {
    const before = bound.get(name)
    bound.set(name, value)
    return before === undefined || before.name === value.name
  }
  for (const [index, value] of call.inputs.entries()) if (!bind(part.inputs[index]!, value)) return undefined
  for (const [index, value] of call.outputs.entries())
    if (!bind(part.outputs[index]!, value)) return undefined
  return bound
}

/** Attributes of the parts' calls together, without those that are fixed; undefined where parts that share one differ. */
const mergeAttributes = (
  parts: ReadonlyArray<Part>,
  calls: ReadonlyArray<KernelCall>
): Attributes | undefined => {
  const merged: Record<string, AttributeValue> = {}
  for (const [index, { attributes }] of calls.entries()) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name in (parts[index]!.fixed ?? {})) continue
      if (name in merged && merged[name] !== value) return undefined
      merged[name] = value
    }
  }
  return merged
}

class Rewrite {
  readonly #graph: LayerGraph
  #calls: ReadonlyArray<Placed>
  #readers: ReadonlyMap<string, ReadonlyArray<Placed>>
  #writers: ReadonlyMap<string, Placed>

  constructor(graph: LayerGraph) {
    this.#graph = graph
    this.#calls = inOrder(graph)
    this.#readers = readersOf(this.#calls)
    this.#writers = writersOf(this.#calls)
  }

  apply(rule: FuseRule): void {
    const first = rule.composite.declaration.parts[0]!
    const taken = new Set<Placed>()
    const made = new Map<Placed, KernelCall>()
    for (const start of this.#calls) {
      if (start.call.kernel !== first.kernel.name || taken.has(start)) continue
      const match = this.#match(rule, start, taken)
      if (match === undefined) continue
      for (const part of match.parts) taken.add(part)
      made.set(match.place, match.call)
    }
    if (made.size === 0) return
    this.#calls = this.#calls
      .filter((placed) => !taken.has(placed) || made.has(placed))
      .map((placed, order) => ({ ...placed, call: made.get(placed) ?? placed.call, order }))
    this.#readers = readersOf(this.#calls)
    this.#writers = writersOf(this.#calls)
  }

  get graph(): LayerGraph {
    const layers = this.#graph.layers.map((layer, index): Layer => {
      const calls = (wanted: GraphPhase) =>
        this.#calls.filter(({ layer: at, phase }) => at === index && phase === wanted).map(({ call }) => call)
      return {
        ...layer,
        forward: calls("forward"),
        backwardInput: calls("backwardInput"),
        backwardWeight: calls("backwardWeight")
      }
    })
    return { ...this.#graph, layers }
  }

  #match({ composite, at = "last" }: FuseRule, start: Placed, taken: ReadonlySet<Placed>) {
    const { parts: declared, inputs, outputs } = composite.declaration
    let binding = bindPart(declared[0]!, start.call, new Map())
    const parts = [start]
    for (const part of declared.slice(1)) {
      if (binding === undefined) return undefined
      const known: Binding = binding
      binding = undefined
      for (const candidate of this.#candidates(part, known)) {
        if (taken.has(candidate) || parts.includes(candidate)) continue
        binding = bindPart(part, candidate.call, known)
        if (binding === undefined) continue
        parts.push(candidate)
        break
      }
    }
    if (binding === undefined) return undefined
    const bound: Binding = binding
    const attributes = mergeAttributes(
      declared,
      parts.map(({ call }) => call)
    )
    if (attributes === undefined) return undefined
    const place = parts.reduce((one, other) =>
      (at === "first" ? other.order < one.order : other.order > one.order) ? other : one
    )
    const named = (name: string): ReadonlyArray<Value> => {
      const value = bound.get(name.endsWith("?") ? name.slice(0, -1) : name)
      return value === undefined ? [] : [value]
    }
    const call: KernelCall = {
      kernel: composite.name,
      attributes,
      inputs: inputs.flatMap(named),
      outputs: outputs.flatMap(named)
    }
    const outer = new Set([...call.inputs, ...call.outputs].map(({ name }) => name))
    const inner = [...bound.values()].filter(({ name }) => !outer.has(name))
    return this.#isLegal(call, inner, parts, place) ? { parts, place, call } : undefined
  }

  /** Calls that read something the part reads as well. */
  #candidates(part: Part, binding: Binding): ReadonlyArray<Placed> {
    const known = part.inputs.find((name) => binding.has(name))
    return known === undefined ? [] : (this.#readers.get(binding.get(known)!.name) ?? [])
  }

  /**
   * Nobody else reads what is gone; everything that the composite reads is there where it stands; and nobody reads what it
   * writes before that.
   */
  #isLegal(
    { inputs, outputs }: KernelCall,
    inner: ReadonlyArray<Value>,
    parts: ReadonlyArray<Placed>,
    place: Placed
  ): boolean {
    const readers = (name: string) => this.#readers.get(name) ?? []
    const lost = (name: string) =>
      name === this.#graph.loss.name || readers(name).some((reader) => !parts.includes(reader))
    if (inner.some(({ name }) => lost(name))) return false
    const late = ({ name }: Value) => (this.#writers.get(name)?.order ?? -1) > place.order
    if (inputs.some(late)) return false
    const early = ({ name }: Value) =>
      readers(name).some((reader) => reader.order < place.order && !parts.includes(reader))
    return !outputs.some(early)
  }
}

const readersOf = (calls: ReadonlyArray<Placed>): ReadonlyMap<string, ReadonlyArray<Placed>> => {
  const readers = new Map<string, Array<Placed>>()
  for (const placed of calls) {
    for (const name of new Set(placed.call.inputs.map((value) => value.name))) {
      const own = readers.get(name)
      if (own === undefined) readers.set(name, [placed])
      else own.push(placed)
    }
  }
  return readers
}

/** The last call that writes each value; only tied gradients have more than one. */
const writersOf = (calls: ReadonlyArray<Placed>): ReadonlyMap<string, Placed> =>
  new Map(calls.flatMap((placed) => placed.call.outputs.map(({ name }) => [name, placed] as const)))

/**
 * The graph with its calls fused by `rules`, in that order: the same inputs, parameters, gradients and loss, from fewer calls.
 * A composite stands in the layer of its last part (or first, where the rule says so), so a layer may be left without calls
 * while its parameters are read by the layer behind it.
 */
export const fuse = (graph: LayerGraph, rules: ReadonlyArray<FuseRule> = trainingRules): LayerGraph => {
  const rewrite = new Rewrite(graph)
  for (const rule of rules) rewrite.apply(rule)
  return rewrite.graph
}

// A model as an ordered list of layers, each with its parameters and the kernel calls of its forward and backward pass, on
// named values. Knows shapes and costs; knows nothing of machines, ranks, lanes or time.
import { kernels, type KernelName } from "../kernels/catalogue.ts"
import type { Attributes, Operand, Work } from "../kernels/kernel.ts"

/** A tensor by name. Within a graph a name is written once, except by calls that accumulate into a tied gradient. */
export interface Value extends Operand {
  readonly name: string
  /** Of a padded table: rows in use. Those behind are zeros, and stay so. */
  readonly usedRows?: number
}

/** One call of a kernel of the catalogue on values of the graph. */
export interface KernelCall {
  readonly kernel: KernelName
  readonly attributes: Attributes
  readonly inputs: ReadonlyArray<Value>
  readonly outputs: ReadonlyArray<Value>
}

/** One leaf module: its parameters, and the calls of its passes. */
export interface Layer {
  /** The module's path as Hugging Face has it: "transformer.h.3.mlp.c_fc". */
  readonly name: string
  /** What it is part of: "transformer.h.3", or its own name outside of blocks. */
  readonly block: string
  /** A tied weight belongs to the layer whose backward pass completes its gradient: the embedding. */
  readonly parameters: ReadonlyArray<Value>
  readonly forward: ReadonlyArray<KernelCall>
  /** Gradients of activations: what earlier layers wait for. */
  readonly backwardInput: ReadonlyArray<KernelCall>
  /** Gradients of parameters, each named `gradientName(parameter)`. Needs this layer's `backwardInput`; nothing but the optimizer (and a tied layer) waits for it. */
  readonly backwardWeight: ReadonlyArray<KernelCall>
}

/** A model's training step as calls of kernels on named values, without a machine. */
export interface LayerGraph {
  readonly name: string
  /** In forward order. The backward pass runs them in reverse, `backwardInput` before `backwardWeight`. */
  readonly layers: ReadonlyArray<Layer>
  /** What a batch supplies: token ids and target ids, int32. */
  readonly inputs: ReadonlyArray<Value>
  /** Mean cross-entropy, a scalar. */
  readonly loss: Value
}

export const phases = ["forward", "backwardInput", "backwardWeight"] as const
export type GraphPhase = (typeof phases)[number]

/** Name of a parameter's gradient. */
export const gradientName = (parameter: { readonly name: string }): string => `${parameter.name}.grad`

/** Numbers of all parameters, tied weights once. */
export const parameterCount = (graph: LayerGraph): number => {
  let count = 0
  for (const layer of graph.layers) for (const { elements } of layer.parameters) count += elements
  return count
}

/** Of these, what is learnt: rows that pad a table are not. */
export const learntCount = (graph: LayerGraph): number => {
  let padding = 0
  for (const layer of graph.layers)
    for (const { elements, shape, usedRows } of layer.parameters)
      if (usedRows !== undefined) padding += (elements / shape[0]!) * (shape[0]! - usedRows)
  return parameterCount(graph) - padding
}

/** Of each weight that several layers use, these layers, ascending. */
export const sharingLayers = ({ layers }: LayerGraph): ReadonlyArray<ReadonlyArray<number>> => {
  const users = new Map<string, Set<number>>()
  for (const [index, { parameters }] of layers.entries())
    for (const { name } of parameters) users.set(name, new Set([index]))
  for (const [index, layer] of layers.entries())
    for (const phase of phases)
      for (const { inputs } of layer[phase]) for (const { name } of inputs) users.get(name)?.add(index)
  return [...users.values()].filter(({ size }) => size > 1).map((own) => [...own].toSorted((a, b) => a - b))
}

/** Work of several calls together. */
export const workOf = (calls: ReadonlyArray<KernelCall>): Work => {
  let [flops, readBytes, writtenBytes] = [0, 0, 0]
  for (const { kernel, inputs, outputs, attributes } of calls) {
    const work = kernels[kernel].work(inputs, outputs, attributes)
    flops += work.flops
    readBytes += work.readBytes
    writtenBytes += work.writtenBytes
  }
  return { flops, readBytes, writtenBytes }
}

/** All calls of a phase in the order they run. */
export const callsOf = (graph: LayerGraph, phase: GraphPhase): ReadonlyArray<KernelCall> => {
  const layers = phase === "forward" ? graph.layers : graph.layers.toReversed()
  return layers.flatMap((layer) => layer[phase])
}

/** All calls of a training step in the order they run: forward, then layer by layer from the last both halves of the backward pass. */
export const stepCalls = ({ layers }: LayerGraph): ReadonlyArray<KernelCall> => [
  ...layers.flatMap(({ forward }) => forward),
  ...layers.toReversed().flatMap(({ backwardInput, backwardWeight }) => [...backwardInput, ...backwardWeight])
]

/** The same model with one layer per block (a whole transformer block), for schedules that do not cut finer. */
export const byBlock = (graph: LayerGraph): LayerGraph => {
  const groups = new Map<string, Array<Layer>>()
  for (const layer of graph.layers) {
    const group = groups.get(layer.block)
    if (group === undefined) groups.set(layer.block, [layer])
    else group.push(layer)
  }
  const layers = [...groups].map(([block, members]): Layer => ({
    name: block,
    block,
    parameters: members.flatMap(({ parameters }) => parameters),
    forward: members.flatMap(({ forward }) => forward),
    backwardInput: members.toReversed().flatMap(({ backwardInput }) => backwardInput),
    backwardWeight: members.toReversed().flatMap(({ backwardWeight }) => backwardWeight)
  }))
  return { ...graph, layers }
}

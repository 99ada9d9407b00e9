// A decoder's layers as ops on a rank's tensors, for generation: activations of one layer, which every layer uses again, and the
// ops of a layer cut where a program has something of its own to do. Knows no caches, requests or experts.
import * as Effect from "effect/Effect"
import { kernels, type KernelName } from "../kernels/catalogue.ts"
import type { Attributes } from "../kernels/kernel.ts"
import { Lane } from "../machine/lane.ts"
import type { Machine, OutOfMemory } from "../machine/machine.ts"
import { launch, type Op } from "../machine/op.ts"
import type { Dtype, Tensor, TensorSpec } from "../machine/tensor.ts"
import {
  decoderLayer,
  kvWidthOf,
  llamaLayer,
  normEpsilon,
  queryWidthOf,
  type DecoderSizes,
  type NormName,
  type ProjectionName
} from "./decoder-layer.ts"

/** A kernel on the compute lane. */
export const compute = (
  label: string,
  kernel: KernelName,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  attributes?: Attributes
): Op => launch(label, kernels[kernel], Lane.compute, reads, writes, attributes)

/** Makes every tensor of a record of specs. */
export const allocAll = <Name extends string>(
  machine: Machine["Service"],
  specs: Readonly<Record<Name, TensorSpec>>
): Effect.Effect<Readonly<Record<Name, Tensor>>, OutOfMemory> =>
  Effect.map(
    Effect.forEach(Object.entries<TensorSpec>(specs), ([name, spec]) =>
      Effect.map(machine.alloc(spec), (tensor) => [name, tensor] as const)
    ),
    (tensors) => Object.fromEntries(tensors) as Record<Name, Tensor>
  )

/** Makes specs of activations: `tokens` are the extents before the width, [batch], or [batch, time] of prompts. */
export const activationSpec =
  (name: string, tokens: ReadonlyArray<number>, dtype: Dtype) =>
  (part: string, own: ReadonlyArray<number>, of: Dtype = dtype): TensorSpec => ({
    name: `${name} ${part}`,
    shape: [...tokens, ...own],
    dtype: of
  })

/** Activations of a layer but for its feed-forward part. */
export const attentionSpecs = (spec: ReturnType<typeof activationSpec>, sizes: DecoderSizes) => {
  const { width } = sizes
  const [query, kv] = [queryWidthOf(sizes), kvWidthOf(sizes)]
  return {
    x: spec("x", [width]),
    normed: spec("normed", [width]),
    rstd: spec("rstd", [], "float32"),
    q: spec("q", [query]),
    k: spec("k", [kv]),
    v: spec("v", [kv]),
    mixed: spec("mixed", [query]),
    projected: spec("projected", [width])
  }
}

type AttentionSpace = Readonly<Record<keyof ReturnType<typeof attentionSpecs>, Tensor>>

interface LayerOpsOptions {
  /** The layer's, in labels: "layer 3". */
  readonly at: string
  readonly space: AttentionSpace
  readonly weight: (name: NormName | ProjectionName) => Tensor
  /**
   * The feed-forward part of `normed`: emits ops, and returns what holds its output. `project` writes into `to`.
   */
  readonly feedForward: (emit: Emit, normed: Tensor) => Tensor
}

interface Emit {
  /** An op of this layer. */
  op(
    what: string,
    kernel: KernelName,
    reads: ReadonlyArray<Tensor>,
    writes: ReadonlyArray<Tensor>,
    attributes?: Attributes
  ): void
  /** A linear map with that weight. */
  project(x: Tensor, name: ProjectionName, to: Tensor): Tensor
  /** What follows stands in a list of its own: the program does something in between. */
  cut(): void
}

const projectionLabels: Readonly<Record<ProjectionName, string>> = {
  "self_attn.q_proj": "q",
  "self_attn.k_proj": "k",
  "self_attn.v_proj": "v",
  "self_attn.o_proj": "o",
  "mlp.gate_proj": "gate",
  "mlp.up_proj": "up",
  "mlp.down_proj": "down"
}

/**
 * The ops of a layer: up to queries, keys and values, not yet turned to their positions; then, attention having left its result in
 * `mixed`, up to the next layer's input, which takes the place of this layer's. The feed-forward part may cut further.
 */
export const layerOps = ({
  at,
  space,
  weight,
  feedForward
}: LayerOpsOptions): ReadonlyArray<ReadonlyArray<Op>> => {
  const { x, normed, rstd, q, k, v, mixed, projected } = space
  const lists: Array<Array<Op>> = [[]]
  const emit: Emit = {
    op: (what, kernel, reads, writes, attributes) => {
      lists.at(-1)!.push(compute(`${at} ${what}`, kernel, reads, writes, attributes))
    },
    project: (input, name, to) => {
      emit.op(projectionLabels[name], "linear.forward", [input, weight(name)], [to])
      return to
    },
    cut: () => lists.push([])
  }
  const results: Partial<Readonly<Record<ProjectionName, Tensor>>> = {
    "self_attn.q_proj": q,
    "self_attn.k_proj": k,
    "self_attn.v_proj": v,
    "self_attn.o_proj": projected
  }
  decoderLayer<Tensor, typeof llamaLayer>(
    llamaLayer,
    {
      norm: (input, name) => {
        emit.op("norm", "rms_norm.forward", [input, weight(name)], [normed, rstd], { epsilon: normEpsilon })
        return normed
      },
      project: (input, name) => emit.project(input, name, results[name]!),
      attention: () => {
        emit.cut()
        return mixed
      },
      residual: (input, change) => {
        emit.op("residual", "residual.forward", [input, change], [x])
        return x
      },
      feedForward: (input) => feedForward(emit, input)
    },
    x
  )
  return lists
}

/** Where the next tokens are worked out: one row for each sequence. */
export const headSpecs = (
  name: string,
  {
    width,
    vocabulary,
    dtype
  }: { readonly width: number; readonly vocabulary: number; readonly dtype: Dtype },
  batch: number
) =>
  ({
    last: { name: `${name} last`, shape: [batch, width], dtype },
    normed: { name: `${name} last normed`, shape: [batch, width], dtype },
    rstd: { name: `${name} last rstd`, shape: [batch], dtype: "float32" },
    logits: { name: `${name} logits`, shape: [batch, vocabulary], dtype },
    next: { name: `${name} next`, shape: [batch], dtype: "int32" }
  }) as const satisfies Readonly<Record<string, TensorSpec>>

export type Head = Readonly<Record<keyof ReturnType<typeof headSpecs>, Tensor>>

/** Greedy choice of the next token from `last`, the last layer's output. */
export const chooseNext = (
  { norm, output }: { readonly norm: Tensor; readonly output: Tensor },
  { last, normed, rstd, logits, next }: Head
): ReadonlyArray<Op> => [
  compute("norm", "rms_norm.forward", [last, norm], [normed, rstd], { epsilon: normEpsilon }),
  compute("lm_head", "linear.forward", [normed, output], [logits]),
  compute("argmax", "argmax", [logits], [next])
]

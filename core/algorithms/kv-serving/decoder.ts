// A decoder on one rank: its weights in device memory, and the ops of a layer that prefill and decoding share.
// Knows nothing of requests, caches or what is kept of them.
import * as Effect from "effect/Effect"
import { kernels, type KernelName } from "../../kernels/catalogue.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Dtype, Tensor, TensorSpec } from "../../machine/tensor.ts"
import { kvWidthOf, weightSpecs, type DecoderModel, type LayerWeight } from "./model.ts"

export interface Decoder {
  readonly machine: Machine["Service"]
  readonly model: DecoderModel
  readonly embedding: Tensor
  readonly norm: Tensor
  readonly output: Tensor
  layerWeight(layer: number, name: LayerWeight): Tensor
}

/** Puts the weights into device memory. */
export const loadDecoder = (model: DecoderModel): Effect.Effect<Decoder, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const weights = new Map<string, Tensor>()
    for (const spec of weightSpecs(model)) weights.set(spec.name, yield* machine.alloc(spec))
    const weight = (name: string): Tensor => weights.get(`${name}.weight`)!
    const embedding = weight("model.embed_tokens")
    return {
      machine,
      model,
      embedding,
      norm: weight("model.norm"),
      output: model.tied ? embedding : weight("lm_head"),
      layerWeight: (layer, name) => weight(`model.layers.${layer}.${name}`)
    }
  })

/** A kernel on the compute lane. */
export const compute = (
  label: string,
  kernel: KernelName,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  attributes?: Attributes
): Op => launch(label, kernels[kernel], Lane.compute, reads, writes, attributes)

const spaceNames = [
  "x",
  "normed",
  "rstd",
  "q",
  "k",
  "v",
  "mixed",
  "projected",
  "gate",
  "up",
  "active"
] as const

/** Activations of one layer for some tokens; every layer uses the same. */
export type Space = Readonly<Record<(typeof spaceNames)[number], Tensor>>

/** Tensors of a `Space`; `tokens` are the extents before the width: [batch], or [1, time] of a prompt. */
export const spaceSpecs = (
  name: string,
  model: DecoderModel,
  tokens: ReadonlyArray<number>
): Readonly<Record<(typeof spaceNames)[number], TensorSpec>> => {
  const { width, ffnWidth, dtype } = model
  const kv = kvWidthOf(model)
  const spec = (part: string, own: ReadonlyArray<number>, of: Dtype = dtype): TensorSpec => ({
    name: `${name} ${part}`,
    shape: [...tokens, ...own],
    dtype: of
  })
  return {
    x: spec("x", [width]),
    normed: spec("normed", [width]),
    rstd: spec("rstd", [], "float32"),
    q: spec("q", [width]),
    k: spec("k", [kv]),
    v: spec("v", [kv]),
    mixed: spec("mixed", [width]),
    projected: spec("projected", [width]),
    gate: spec("gate", [ffnWidth]),
    up: spec("up", [ffnWidth]),
    active: spec("active", [ffnWidth])
  }
}

export const allocSpace = (
  machine: Machine["Service"],
  specs: ReturnType<typeof spaceSpecs>
): Effect.Effect<Space, OutOfMemory> =>
  Effect.gen(function* () {
    const tensors: Partial<Record<keyof Space, Tensor>> = {}
    for (const name of spaceNames) tensors[name] = yield* machine.alloc(specs[name])
    return tensors as Space
  })

const epsilon = 1e-5

/** Up to queries, keys and values, not yet turned to their positions. */
export const beforeAttention = (decoder: Decoder, layer: number, space: Space): ReadonlyArray<Op> => {
  const { x, normed, rstd, q, k, v } = space
  const weight = (name: LayerWeight): Tensor => decoder.layerWeight(layer, name)
  const at = `layer ${layer}`
  return [
    compute(`${at} norm`, "rms_norm.forward", [x, weight("input_layernorm")], [normed, rstd], { epsilon }),
    compute(`${at} q`, "linear.forward", [normed, weight("self_attn.q_proj")], [q]),
    compute(`${at} k`, "linear.forward", [normed, weight("self_attn.k_proj")], [k]),
    compute(`${at} v`, "linear.forward", [normed, weight("self_attn.v_proj")], [v])
  ]
}

/** From the mixed values to the next layer's input, which takes the place of this layer's. */
export const afterAttention = (decoder: Decoder, layer: number, space: Space): ReadonlyArray<Op> => {
  const { x, normed, rstd, mixed, projected, gate, up, active } = space
  const weight = (name: LayerWeight): Tensor => decoder.layerWeight(layer, name)
  const at = `layer ${layer}`
  const norm = weight("post_attention_layernorm")
  return [
    compute(`${at} o`, "linear.forward", [mixed, weight("self_attn.o_proj")], [projected]),
    compute(`${at} residual`, "residual.forward", [x, projected], [x]),
    compute(`${at} norm`, "rms_norm.forward", [x, norm], [normed, rstd], { epsilon }),
    compute(`${at} gate`, "linear.forward", [normed, weight("mlp.gate_proj")], [gate]),
    compute(`${at} up`, "linear.forward", [normed, weight("mlp.up_proj")], [up]),
    compute(`${at} swiglu`, "swiglu.forward", [gate, up], [active]),
    compute(`${at} down`, "linear.forward", [active, weight("mlp.down_proj")], [projected]),
    compute(`${at} residual`, "residual.forward", [x, projected], [x])
  ]
}

/** Where the next tokens are worked out: one row for each sequence. */
export interface Head {
  readonly last: Tensor
  readonly normed: Tensor
  readonly rstd: Tensor
  readonly logits: Tensor
  readonly next: Tensor
}

export const headSpecs = (name: string, { width, vocabulary, dtype }: DecoderModel, batch: number) =>
  ({
    last: { name: `${name} last`, shape: [batch, width], dtype },
    normed: { name: `${name} last normed`, shape: [batch, width], dtype },
    rstd: { name: `${name} last rstd`, shape: [batch], dtype: "float32" },
    logits: { name: `${name} logits`, shape: [batch, vocabulary], dtype },
    next: { name: `${name} next`, shape: [batch], dtype: "int32" }
  }) as const satisfies Readonly<Record<keyof Head, TensorSpec>>

export const allocHead = (
  machine: Machine["Service"],
  specs: ReturnType<typeof headSpecs>
): Effect.Effect<Head, OutOfMemory> =>
  Effect.gen(function* () {
    return {
      last: yield* machine.alloc(specs.last),
      normed: yield* machine.alloc(specs.normed),
      rstd: yield* machine.alloc(specs.rstd),
      logits: yield* machine.alloc(specs.logits),
      next: yield* machine.alloc(specs.next)
    }
  })

/** Greedy choice of the next token from `last`, the last layer's output. */
export const chooseNext = (
  decoder: Decoder,
  { last, normed, rstd, logits, next }: Head
): ReadonlyArray<Op> => [
  compute("norm", "rms_norm.forward", [last, decoder.norm], [normed, rstd], { epsilon }),
  compute("lm_head", "linear.forward", [normed, decoder.output], [logits]),
  compute("argmax", "argmax", [logits], [next])
]

export const submitAll = (machine: Machine["Service"], ops: ReadonlyArray<Op>): void => {
  for (const op of ops) machine.submit(op)
}

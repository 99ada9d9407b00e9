// A decoder on one rank: its weights in device memory, and the ops of a layer that prefill and decoding share.
// Knows nothing of requests, caches or what is kept of them.
import * as Effect from "effect/Effect"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { denseFeedForward, type ProjectionName } from "../../models/decoder-layer.ts"
import { activationSpec, allocAll, attentionSpecs, layerOps } from "../../models/decoder-ops.ts"
import { decoderWeights, type DecoderModel, type DecoderWeights } from "./model.ts"

export interface Decoder extends DecoderWeights<Tensor> {
  readonly machine: Machine["Service"]
  readonly model: DecoderModel
  readonly output: Tensor
}

/** Puts the weights into device memory. */
export const loadDecoder = (model: DecoderModel): Effect.Effect<Decoder, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const specs = decoderWeights(model)
    const embedding = yield* machine.alloc(specs.embedding)
    const layers = yield* Effect.forEach(specs.layers, (layer) => allocAll(machine, layer))
    const norm = yield* machine.alloc(specs.norm)
    const output = specs.output === undefined ? embedding : yield* machine.alloc(specs.output)
    return { machine, model, embedding, layers, norm, output }
  })

/** Tensors of a layer's activations; `tokens` are the extents before the width: [batch], or [1, time] of a prompt. */
export const spaceSpecs = (name: string, model: DecoderModel, tokens: ReadonlyArray<number>) => {
  const spec = activationSpec(name, tokens, model.dtype)
  const { ffnWidth } = model
  return {
    ...attentionSpecs(spec, model),
    gate: spec("gate", [ffnWidth]),
    up: spec("up", [ffnWidth]),
    active: spec("active", [ffnWidth])
  }
}

/** Activations of one layer for some tokens; every layer uses the same. */
export type Space = Readonly<Record<keyof ReturnType<typeof spaceSpecs>, Tensor>>

/** The ops of a layer before and after attention. */
export const aroundAttention = (
  decoder: Decoder,
  layer: number,
  space: Space
): { readonly before: ReadonlyArray<Op>; readonly after: ReadonlyArray<Op> } => {
  const [before, after] = layerOps({
    at: `layer ${layer}`,
    space,
    weight: (name) => decoder.layers[layer]![name],
    feedForward: (emit, normed) => {
      const results: Partial<Readonly<Record<ProjectionName, Tensor>>> = {
        "mlp.gate_proj": space.gate,
        "mlp.up_proj": space.up,
        "mlp.down_proj": space.projected
      }
      return denseFeedForward<Tensor>(
        (x, name) => emit.project(x, name, results[name]!),
        (gate, up) => {
          emit.op("swiglu", "swiglu.forward", [gate, up], [space.active])
          return space.active
        },
        normed
      )
    }
  })
  return { before: before!, after: after! }
}

export const submitAll = (machine: Machine["Service"], ops: ReadonlyArray<Op>): void => {
  for (const op of ops) machine.submit(op)
}

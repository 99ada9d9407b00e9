// The ops of a mixture-of-experts decoder around its experts: attention with its cache, the router, and the way of the
// tokens to the experts' rows and back. Built once for each number of tokens. Knows nothing of loads, slots or strategies.
import * as Effect from "effect/Effect"
import { kernels, type KernelName } from "../../kernels/catalogue.ts"
import { printIntegers } from "../../kernels/integer-list.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import type { Machine, OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Dtype, Tensor, TensorSpec } from "../../machine/tensor.ts"
import {
  headWidthOf,
  initialWeight,
  kvWidthOf,
  layerWeightSpecs,
  outerWeightSpecs,
  type MoeModel
} from "./model.ts"
import type { Workload } from "./workload.ts"

type MachineService = Machine["Service"]

/** Makes every tensor of a record of specs. */
const allocAll = <Name extends string>(
  machine: MachineService,
  specs: Readonly<Record<Name, TensorSpec>>
): Effect.Effect<Readonly<Record<Name, Tensor>>, OutOfMemory> =>
  Effect.map(
    Effect.forEach(Object.entries<TensorSpec>(specs), ([name, spec]) =>
      Effect.map(machine.alloc(spec), (tensor) => [name, tensor] as const)
    ),
    (tensors) => Object.fromEntries(tensors) as Record<Name, Tensor>
  )

/** A machine that notes which tensors it made. */
const noting = (machine: MachineService, made: Array<Tensor>): MachineService => ({
  ...machine,
  alloc: (spec) => Effect.tap(machine.alloc(spec), (tensor) => Effect.sync(() => made.push(tensor)))
})

const compute = (
  label: string,
  kernel: KernelName,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  attributes?: Attributes
): Op => launch(label, kernels[kernel], Lane.compute, reads, writes, attributes)

type LayerWeights = Readonly<Record<keyof ReturnType<typeof layerWeightSpecs>, Tensor>>

export interface Decoder {
  readonly machine: MachineService
  readonly model: MoeModel
  readonly workload: Workload
  readonly outer: Readonly<Record<keyof ReturnType<typeof outerWeightSpecs>, Tensor>>
  readonly layers: ReadonlyArray<LayerWeights>
  /** caches[layer][sequence] */
  readonly caches: ReadonlyArray<ReadonlyArray<Tensor>>
  /** The newest token of each sequence. */
  readonly token: Tensor
}

/** Puts everything but experts into device memory. */
export const allocDecoder = (
  machine: MachineService,
  model: MoeModel,
  workload: Workload,
  seed: number
): Effect.Effect<Decoder, OutOfMemory> =>
  Effect.gen(function* () {
    const withValues = <Name extends string>(specs: Readonly<Record<Name, TensorSpec>>) =>
      Object.fromEntries(
        Object.entries<TensorSpec>(specs).map(([name, spec]) => [
          name,
          { ...spec, initial: () => initialWeight(spec, seed) }
        ])
      ) as Record<Name, TensorSpec>
    const outer = yield* allocAll(machine, withValues(outerWeightSpecs(model)))
    const layers: Array<LayerWeights> = []
    const caches: Array<ReadonlyArray<Tensor>> = []
    const { batch, promptTokens, decodeTokens } = workload
    for (let layer = 0; layer < model.layers; layer++) {
      layers.push(yield* allocAll(machine, withValues(layerWeightSpecs(model, layer))))
      const own: Array<Tensor> = []
      for (let sequence = 0; sequence < batch; sequence++) {
        own.push(
          yield* machine.alloc({
            name: `layers.${layer}.cache ${sequence}`,
            shape: [2, promptTokens + decodeTokens, kvWidthOf(model)],
            dtype: model.dtype
          })
        )
      }
      caches.push(own)
    }
    const token = yield* machine.alloc({ name: "token", shape: [batch], dtype: "int32" })
    return { machine, model, workload, outer, layers, caches, token }
  })

const spaceSpecs = (name: string, model: MoeModel, tokens: ReadonlyArray<number>, count: number) => {
  const { width, ffnWidth, experts, topK, gated, dtype } = model
  const kv = kvWidthOf(model)
  const spec = (part: string, own: ReadonlyArray<number>, of: Dtype = dtype): TensorSpec => ({
    name: `${name} ${part}`,
    shape: [...tokens, ...own],
    dtype: of
  })
  const flat = (part: string, shape: ReadonlyArray<number>, of: Dtype = dtype): TensorSpec => ({
    name: `${name} ${part}`,
    shape,
    dtype: of
  })
  const rows = topK * count
  return {
    x: spec("x", [width]),
    normed: spec("normed", [width]),
    rstd: spec("rstd", [], "float32"),
    q: spec("q", [width]),
    k: spec("k", [kv]),
    v: spec("v", [kv]),
    mixed: spec("mixed", [width]),
    projected: spec("projected", [width]),
    logits: spec("router logits", [experts]),
    weights: spec("weights", [topK], "float32"),
    chosen: spec("chosen", [topK], "int32"),
    probabilities: spec("probabilities", [experts], "float32"),
    places: spec("places", [topK], "int32"),
    counts: flat("counts", [experts], "int32"),
    rows: flat("rows", [rows, width]),
    hidden: flat("hidden", [rows, gated ? 2 * ffnWidth : ffnWidth]),
    outputs: flat("outputs", [rows, width])
  }
}

/** Activations of one layer for the tokens of a step; every layer uses the same. */
export type Space = Readonly<Record<keyof ReturnType<typeof spaceSpecs>, Tensor>>

/** The ops of a step that do not depend on what the router chooses. */
export interface StepOps {
  readonly space: Space
  /** From the tokens to the first layer. */
  readonly embed: ReadonlyArray<Op>
  /** Of one layer, up to the router's choices. */
  readonly route: (layer: number, position: number) => ReadonlyArray<Op>
  /** Of one layer, from the choices to the experts' rows. */
  readonly dispatch: (layer: number) => ReadonlyArray<Op>
  /** Of one layer, from the experts' outputs to the next layer. */
  readonly after: (layer: number) => ReadonlyArray<Op>
  /** From the last layer to the next token of each sequence. */
  readonly finish: ReadonlyArray<Op>
  /** Gives the activations back. */
  readonly free: () => void
}

const epsilon = 1e-5
const ropeBase = 1_000_000

/** Ops of the prefill of all prompts (`phase`: "prefill") or of a decoding step. */
export const makeStepOps = (
  decoder: Decoder,
  phase: "prefill" | "decode"
): Effect.Effect<StepOps, OutOfMemory> =>
  Effect.gen(function* () {
    const { model, workload, outer, layers, caches, token } = decoder
    const made: Array<Tensor> = []
    const machine = noting(decoder.machine, made)
    const { batch, promptTokens } = workload
    const { heads, kvHeads, topK, experts, normalize } = model
    const prefill = phase === "prefill"
    const tokens = prefill ? [batch, promptTokens] : [batch]
    const count = prefill ? batch * promptTokens : batch
    const space = yield* allocAll(machine, spaceSpecs(phase, model, tokens, count))
    const headAttributes = { heads, kvHeads, headWidth: headWidthOf(model) }
    const rope = { headWidth: headWidthOf(model), base: ropeBase }
    const attention = prefill
      ? yield* prefillAttention({ ...decoder, machine }, space)
      : (layer: number, position: number): ReadonlyArray<Op> => {
          const { q, k, v, mixed } = space
          const own = caches[layer]!
          const positions = printIntegers(own.map(() => position))
          const lengths = printIntegers(own.map(() => position + 1))
          const at = `layer ${layer}`
          return [
            compute(`${at} turn q`, "rope.rows", [q], [q], { ...rope, positions }),
            compute(`${at} turn k`, "rope.rows", [k], [k], { ...rope, positions }),
            compute(`${at} append`, "kv.append", [k, v, ...own], own, { positions }),
            compute(`${at} attention`, "kv.attention", [q, ...own], [mixed], { ...headAttributes, lengths })
          ]
        }
    const { x, normed, rstd, q, k, v, mixed, projected } = space
    const { logits, weights, chosen, probabilities, places, counts, rows, outputs } = space
    const project = layers.map((own, layer) => [
      compute(`layer ${layer} norm`, "rms_norm.forward", [x, own.attentionNorm], [normed, rstd], { epsilon }),
      compute(`layer ${layer} q`, "linear.forward", [normed, own.q], [q]),
      compute(`layer ${layer} k`, "linear.forward", [normed, own.k], [k]),
      compute(`layer ${layer} v`, "linear.forward", [normed, own.v], [v])
    ])
    const route = layers.map((own, layer) => [
      compute(`layer ${layer} o`, "linear.forward", [mixed, own.o], [projected]),
      compute(`layer ${layer} residual`, "residual.forward", [x, projected], [x]),
      compute(`layer ${layer} norm`, "rms_norm.forward", [x, own.moeNorm], [normed, rstd], { epsilon }),
      compute(`layer ${layer} router`, "linear.forward", [normed, own.router], [logits]),
      compute(`layer ${layer} gate`, "topk_gate.forward", [logits], [weights, chosen, probabilities], {
        topK,
        normalize
      })
    ])
    const dispatch = layers.map((_, layer) => [
      compute(`layer ${layer} permute`, "moe_permutation", [chosen], [places, counts], { experts }),
      compute(`layer ${layer} dispatch`, "moe_dispatch.forward", [normed, places], [rows], { topK })
    ])
    const after = layers.map((_, layer) => [
      compute(`layer ${layer} combine`, "moe_combine.forward", [outputs, weights, places], [projected], {
        topK
      }),
      compute(`layer ${layer} residual`, "residual.forward", [x, projected], [x])
    ])
    const input = prefill ? yield* machine.alloc(promptSpec(decoder)) : token
    const last = prefill
      ? yield* machine.alloc({ name: "last", shape: [batch, model.width], dtype: model.dtype })
      : x
    const head = yield* allocAll(machine, {
      normed: { name: `${phase} last normed`, shape: [batch, model.width], dtype: model.dtype },
      rstd: { name: `${phase} last rstd`, shape: [batch], dtype: "float32" },
      logits: { name: `${phase} logits`, shape: [batch, model.vocabulary], dtype: model.dtype }
    })
    return {
      space,
      embed: [compute("embed", "embedding.forward", [input, outer.embedding], [x])],
      route: (layer, position) => [...project[layer]!, ...attention(layer, position), ...route[layer]!],
      dispatch: (layer) => dispatch[layer]!,
      after: (layer) => after[layer]!,
      finish: [
        ...(prefill ? [compute("last token", "last_token", [x], [last])] : []),
        compute("norm", "rms_norm.forward", [last, outer.norm], [head.normed, head.rstd], { epsilon }),
        compute("lm_head", "linear.forward", [head.normed, outer.output], [head.logits]),
        compute("argmax", "argmax", [head.logits], [token])
      ],
      free: () => made.forEach((tensor) => decoder.machine.free(tensor))
    }
  })

const promptSpec = ({ model, workload }: Decoder): TensorSpec => {
  const { batch, promptTokens } = workload
  return {
    name: "prompt",
    shape: [batch, promptTokens],
    dtype: "int32",
    // Some tokens of the vocabulary, spread by a multiplicative hash; what they say does not matter.
    initial: () =>
      Int32Array.from(
        { length: batch * promptTokens },
        (_, i) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) % model.vocabulary
      )
  }
}

/** Attention of whole prompts, and each sequence's keys and values into its cache. */
const prefillAttention = ({ machine, model, workload, caches }: Decoder, space: Space) =>
  Effect.gen(function* () {
    const { batch, promptTokens } = workload
    const { heads, kvHeads, dtype } = model
    const lse = yield* machine.alloc({ name: "lse", shape: [batch, heads, promptTokens], dtype: "float32" })
    const parts: Array<readonly [k: Tensor, v: Tensor]> = []
    for (let sequence = 0; sequence < batch; sequence++) {
      const shape = [1, promptTokens, kvWidthOf(model)]
      parts.push([
        yield* machine.alloc({ name: `prefill k ${sequence}`, shape, dtype }),
        yield* machine.alloc({ name: `prefill v ${sequence}`, shape, dtype })
      ])
    }
    const counts = printIntegers(parts.map(() => 1))
    const rope = { headWidth: headWidthOf(model), base: ropeBase }
    const attributes = { heads, kvHeads, headWidth: headWidthOf(model) }
    const capacity = promptTokens + workload.decodeTokens
    const { q, k, v, mixed } = space
    return (layer: number): ReadonlyArray<Op> => {
      const at = `layer ${layer}`
      const [ks, vs] = [parts.map(([one]) => one), parts.map(([, one]) => one)]
      return [
        compute(`${at} turn q`, "rope.forward", [q], [q], rope),
        compute(`${at} turn k`, "rope.forward", [k], [k], rope),
        compute(`${at} attention`, "attention.forward", [q, k, v], [mixed, lse], attributes),
        compute(`${at} split k`, "split_rows", [k], ks, { counts }),
        compute(`${at} split v`, "split_rows", [v], vs, { counts }),
        ...parts.map((part, sequence) =>
          compute(`${at} cache ${sequence}`, "kv.gather", part, [caches[layer]![sequence]!], {
            kvHeads,
            capacity
          })
        )
      ]
    }
  })

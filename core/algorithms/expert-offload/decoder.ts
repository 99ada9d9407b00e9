// The ops of a mixture-of-experts decoder around its experts: attention with its cache, the router, and the way of the
// tokens to the experts' rows and back. Built once for each number of tokens. Knows nothing of loads, slots or strategies.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { printIntegers } from "../../kernels/integer-list.ts"
import { interpose } from "../../machine/interpose.ts"
import { Lane } from "../../machine/lane.ts"
import type { Machine, OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor, TensorSpec } from "../../machine/tensor.ts"
import { DecodeAttention } from "../../models/decode-attention.ts"
import { attentionShape, kvWidthOf } from "../../models/decoder-layer.ts"
import {
  activationSpec,
  allocAll,
  attentionSpecs,
  chooseNext,
  compute,
  headSpecs,
  layerOps
} from "../../models/decoder-ops.ts"
import {
  initialWeight,
  layerWeightSpecs,
  outerWeightSpecs,
  type MoeModel,
  type ResidentWeight
} from "./model.ts"
import { promptsOf, type Prompts, type Workload, type WorkloadStep } from "./workload.ts"

type MachineService = Machine["Service"]

/** A machine that notes which tensors it made. */
const noting = (machine: MachineService, made: Array<Tensor>): MachineService =>
  interpose(machine, {
    alloc: (spec) => Effect.tap(machine.alloc(spec), (tensor) => Effect.sync(() => made.push(tensor)))
  })

type LayerWeights = Readonly<Record<ResidentWeight, Tensor>>

interface Decoder {
  readonly machine: MachineService
  readonly model: MoeModel
  readonly workload: Workload
  readonly outer: Readonly<Record<keyof ReturnType<typeof outerWeightSpecs>, Tensor>>
  readonly layers: ReadonlyArray<LayerWeights>
  /** caches[layer][sequence], of the batches that take turns one after the other */
  readonly caches: ReadonlyArray<ReadonlyArray<Tensor>>
  /** The newest token of each sequence, of each of these batches. */
  readonly tokens: ReadonlyArray<Tensor>
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
          { ...spec, initial: initialWeight(spec, seed) }
        ])
      ) as Record<Name, TensorSpec>
    const outer = yield* allocAll(machine, withValues(outerWeightSpecs(model)))
    const layers: Array<LayerWeights> = []
    const caches: Array<ReadonlyArray<Tensor>> = []
    const { batch, batches = 1 } = workload
    const capacity = capacityOf(workload)
    for (let layer = 0; layer < model.layers; layer++) {
      layers.push(yield* allocAll(machine, withValues(layerWeightSpecs(model, layer))))
      const own: Array<Tensor> = []
      for (let sequence = 0; sequence < batches * batch; sequence++) {
        own.push(
          yield* machine.alloc({
            name: `layers.${layer}.cache ${sequence}`,
            shape: [2, capacity, kvWidthOf(model)],
            dtype: model.dtype
          })
        )
      }
      caches.push(own)
    }
    const tokens = yield* Effect.forEach(Array.from({ length: batches }).keys(), (turn) =>
      machine.alloc({ name: turn === 0 ? "token" : `token ${turn}`, shape: [batch], dtype: "int32" })
    )
    return { machine, model, workload, outer, layers, caches, tokens }
  })

/** Rows of a sequence's cache: what the longest of them comes to. */
const capacityOf = (workload: Workload): number =>
  promptsOf(workload).reduce(
    (most, { promptTokens, decodeTokens }) =>
      Math.max(most, promptTokens + Math.ceil(decodeTokens / (workload.batches ?? 1))),
    0
  )

const spaceSpecs = (name: string, model: MoeModel, tokens: ReadonlyArray<number>, count: number) => {
  const { width, ffnWidth, experts, topK, gated, dtype } = model
  const spec = activationSpec(name, tokens, dtype)
  const flat = activationSpec(name, [], dtype)
  const rows = topK * count
  return {
    ...attentionSpecs(spec, model),
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
type Space = Readonly<Record<keyof ReturnType<typeof spaceSpecs>, Tensor>>

/** A step as far as it does not depend on what the router chooses. */
export interface StepOps {
  readonly space: Space
  /** Where the router's choices of each layer go on the host, and the copy that takes them there. */
  readonly choices: ReadonlyArray<{ readonly host: Tensor; readonly copy: Op }>
  /** From the tokens of the batch whose turn it is to the first layer. */
  readonly begin: (turn: number) => void
  /** Of one layer, up to the router's choices. */
  readonly route: (turn: number, layer: number) => void
  /** Of one layer, from the choices to the experts' rows. */
  readonly dispatch: (layer: number) => void
  /** Of one layer, from the experts' outputs to the next layer. */
  readonly after: (layer: number) => void
  /** From the last layer to the next token of each sequence of that batch. */
  readonly finish: (turn: number) => void
  /** Gives the activations back. */
  readonly free: () => void
}

/** Of the host tensor that holds a layer's choices [..., topK]: a simulation without values gives them. */
export type ChoicesRole = {
  readonly kind: "choices"
  readonly phase: WorkloadStep["phase"]
  readonly prompts: number
  readonly layer: number
}

const ropeBase = 1_000_000

/** What every step of a phase submits: the prefill of a batch of prompts, or a step of decoding after them. */
export const makeStepOps = (
  decoder: Decoder,
  { phase, prompts }: Pick<WorkloadStep, "phase" | "prompts">
): Effect.Effect<StepOps, OutOfMemory> =>
  Effect.gen(function* () {
    const { model, workload, outer, layers } = decoder
    const made: Array<Tensor> = []
    const machine = noting(decoder.machine, made)
    const { batch } = workload
    const { promptTokens } = promptsOf(workload)[prompts]!
    const { topK, experts, normalize } = model
    const prefill = phase === "prefill"
    const tokens = prefill ? [batch, promptTokens] : [batch]
    const count = prefill ? batch * promptTokens : batch
    const space = yield* allocAll(machine, spaceSpecs(phase, model, tokens, count))
    const attends = yield* Effect.forEach(decoder.tokens, (_, turn) => {
      const caches = decoder.caches.map((own) => own.slice(turn * batch, (turn + 1) * batch))
      const own = { ...decoder, machine, caches }
      return prefill ? prefillAttention(own, space, promptTokens) : decodeAttention(own, space, promptTokens)
    })
    const choices: Array<{ readonly host: Tensor; readonly copy: Op }> = []
    for (let layer = 0; layer < model.layers; layer++) {
      const { shape, dtype } = space.chosen
      const name = `${phase} choices ${layer}${prompts === 0 ? "" : ` of prompts ${prompts}`}`
      const role = { kind: "choices", phase, prompts, layer } satisfies ChoicesRole
      const host = yield* machine.alloc({ name, shape, dtype, place: "host", role })
      const copy = launch(`layer ${layer} choices`, kernels.d2h, Lane.d2h, [space.chosen], [host])
      choices.push({ host, copy })
    }
    const { x, projected, logits, weights, chosen, probabilities, places, counts, rows, outputs } = space
    // Up to attention; up to the router's choices; up to the experts' rows; and from their outputs on.
    const parts = layers.map((own, layer) =>
      layerOps({
        at: `layer ${layer}`,
        space,
        weight: (name) => own[name as ResidentWeight],
        feedForward: (emit, normed) => {
          emit.op("router", "linear.forward", [normed, own.router], [logits])
          emit.op("gate", "topk_gate.forward", [logits], [weights, chosen, probabilities], {
            topK,
            normalize
          })
          emit.cut()
          emit.op("permute", "moe_permutation", [chosen], [places, counts], { experts })
          emit.op("dispatch", "moe_dispatch.forward", [normed, places], [rows], { topK })
          emit.cut()
          emit.op("combine", "moe_combine.forward", [outputs, weights, places], [projected], { topK })
          return projected
        }
      })
    )
    const submit = (ops: ReadonlyArray<Op>): void => {
      for (const op of ops) machine.submit(op)
    }
    const part = (layer: number, index: 0 | 1 | 2 | 3): void => submit(parts[layer]![index]!)
    const prompt = prefill ? yield* machine.alloc(promptSpec(decoder, prompts)) : undefined
    const last = prefill
      ? yield* machine.alloc({ name: "last", shape: [batch, model.width], dtype: model.dtype })
      : x
    const { last: _, next: __, ...headOwn } = headSpecs(phase, model, batch)
    const head = { ...(yield* allocAll(machine, headOwn)), last }
    const turns = decoder.tokens.map((token) => ({
      embed: compute("embed", "embedding.forward", [prompt ?? token, outer.embedding], [x]),
      finish: [
        ...(prefill ? [compute("last token", "last_token", [x], [last])] : []),
        ...chooseNext(outer, { ...head, next: token })
      ]
    }))
    return {
      space,
      choices,
      begin: (turn) => {
        machine.submit(turns[turn]!.embed)
        attends[turn]!.begin()
      },
      route: (turn, layer) => {
        part(layer, 0)
        attends[turn]!.layer(layer)
        part(layer, 1)
      },
      dispatch: (layer) => part(layer, 2),
      after: (layer) => part(layer, 3),
      finish: (turn) => submit(turns[turn]!.finish),
      free: () => made.forEach((tensor) => decoder.machine.free(tensor))
    }
  })

/** Attention of a phase: what begins a step, and what each layer submits. */
interface PhaseAttention {
  readonly begin: () => void
  readonly layer: (layer: number) => void
}

/** Attention of one new token of each sequence, which all stand at the same position. */
const decodeAttention = (
  { machine, model, workload, caches }: Decoder,
  space: Space,
  promptTokens: number
): Effect.Effect<PhaseAttention, OutOfMemory> => {
  const { batch } = workload
  const standing = { promptTokens, promptRows: [promptTokens], appended: 0 }
  const options = {
    name: "decode",
    batch,
    lists: 1,
    standings: Array.from({ length: batch }, () => standing),
    sizes: model,
    ropeBase,
    keep: 1
  }
  return Effect.map(DecodeAttention.make(machine, options), (attention) => {
    const layers = caches.map((own, layer) => attention.layer(`layer ${layer}`, 0, space, own))
    return { begin: () => attention.begin(), layer: (layer) => attention.submit(layers[layer]!) }
  })
}

const promptSpec = ({ model, workload }: Decoder, prompts: number): TensorSpec => {
  const { batch } = workload
  const all = promptsOf(workload)
  const { promptTokens } = all[prompts]!
  const tokensOf = (before: number, one: Prompts) => before + batch * one.promptTokens
  const first = all.slice(0, prompts).reduce(tokensOf, 1)
  return {
    name: "prompt",
    shape: [batch, promptTokens],
    dtype: "int32",
    // Some tokens of the vocabulary, spread by a multiplicative hash; what they say does not matter.
    initial: () =>
      Int32Array.from(
        { length: batch * promptTokens },
        (_, i) => (Math.imul(i + first, 0x9e3779b1) >>> 0) % model.vocabulary
      )
  }
}

/** Attention of whole prompts, and each sequence's keys and values into its cache. */
const prefillAttention = (
  { machine, model, workload, caches }: Decoder,
  space: Space,
  promptTokens: number
): Effect.Effect<PhaseAttention, OutOfMemory> =>
  Effect.gen(function* () {
    const { batch } = workload
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
    const attributes = attentionShape(model)
    const rope = { headWidth: attributes.headWidth, base: ropeBase }
    const capacity = capacityOf(workload)
    const { q, k, v, mixed } = space
    const layers = caches.map((own, layer): ReadonlyArray<Op> => {
      const at = `layer ${layer}`
      const [ks, vs] = [parts.map(([one]) => one), parts.map(([, one]) => one)]
      return [
        compute(`${at} turn q`, "rope.forward", [q], [q], rope),
        compute(`${at} turn k`, "rope.forward", [k], [k], rope),
        compute(`${at} attention`, "attention.forward", [q, k, v], [mixed, lse], attributes),
        compute(`${at} split k`, "split_rows", [k], ks, { counts }),
        compute(`${at} split v`, "split_rows", [v], vs, { counts }),
        ...parts.map((part, sequence) =>
          compute(`${at} cache ${sequence}`, "kv.gather", part, [own[sequence]!], { kvHeads, capacity })
        )
      ]
    })
    return {
      begin: () => {},
      layer: (layer) => layers[layer]!.forEach((op) => machine.submit(op))
    }
  })

// Prefill of one prompt: dense attention layer by layer, and after each layer's the choice of what stays in its cache.
// Attention of the prompt is always full, so compression saves memory and decoding time, never time to the first token.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { operand, type Shape } from "../../kernels/kernel.ts"
import type { MachineError } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import type { Dtype, Tensor, TensorSpec } from "../../machine/tensor.ts"
import type { ChoiceCall, LayerChoice } from "./choice.ts"
import { attentionShape, kvWidthOf, queryWidthOf } from "../../models/decoder-layer.ts"
import { allocAll, chooseNext, compute, headSpecs } from "../../models/decoder-ops.ts"
import { aroundAttention, spaceSpecs, submitAll, type Decoder } from "./decoder.ts"
import { bytesOfSpecs, type DecoderModel } from "./model.ts"
import type { Sequence, ServingRequest, ServingRole } from "./sequence.ts"

interface PrefillOptions {
  /** Rows that each layer's cache has for generated tokens. */
  readonly room: number
  /**
   * Give every cache the rows that its choice may keep at most, and leave it to whoever holds the lists to learn how many it
   * keeps: then nothing waits for the device, and both ends of a link know a cache's size ahead.
   */
  readonly padded?: boolean
  /** Run when a layer's cache is under way, before the next layer is submitted. */
  readonly onLayer?: (layer: number, cache: Tensor) => Effect.Effect<void, MachineError>
}

interface Prefilled extends Sequence {
  /** Of a padded prefill: the tokens that each choosing layer kept. The caller's to free. */
  readonly lists: ReadonlyMap<number, Tensor>
}

const keptOf = (lists: ReadonlyMap<number, { readonly kept: Tensor }>): ReadonlyMap<number, Tensor> =>
  new Map([...lists].map(([layer, { kept }]) => [layer, kept]))

/**
 * Submits the prefill of a request; returns as soon as the number of rows of every layer is known, which for a choice that
 * is not exact is when the device has made it.
 */
export const prefill = (
  decoder: Decoder,
  request: ServingRequest,
  choices: ReadonlyArray<LayerChoice>,
  { room, padded = false, onLayer }: PrefillOptions
): Effect.Effect<Prefilled, MachineError> =>
  Effect.gen(function* () {
    const { machine, model } = decoder
    const { id, promptTokens: time } = request
    const made: Array<Tensor> = []
    const tokens = yield* machine.alloc(promptSpec(id, time))
    made.push(tokens)
    const space = yield* allocAll(machine, spaceSpecs(`prefill ${id}`, model, [1, time]))
    made.push(...Object.values(space))
    const lse = yield* machine.alloc(lseSpec(id, model, time))
    made.push(lse)
    const head = yield* allocAll(machine, headSpecs(`prefill ${id}`, model, 1))
    made.push(head.last, head.normed, head.rstd, head.logits, head.next)

    machine.submit(compute("embed", "embedding.forward", [tokens, decoder.embedding], [space.x]))
    const attention = attentionShape(model)
    const rope = { headWidth: attention.headWidth, base: model.ropeBase }
    const caches: Array<Tensor> = []
    const promptRows: Array<number> = []
    const lists = new Map<number, { readonly kept: Tensor; readonly rows: number }>()
    for (const [layer, choice] of choices.entries()) {
      const { q, k, v } = space
      const at = `layer ${layer}`
      const { before, after } = aroundAttention(decoder, layer, space)
      submitAll(machine, before)
      machine.submit(compute(`${at} turn q`, "rope.forward", [q], [q], rope))
      machine.submit(compute(`${at} turn k`, "rope.forward", [k], [k], rope))
      machine.submit(
        compute(`${at} attention`, "attention.forward", [q, k, v], [space.mixed, lse], attention)
      )
      let list = choice.kind === "as" ? lists.get(choice.layer) : undefined
      if (choice.kind === "choose") {
        const kept = yield* chooseTokens(decoder, id, layer, choice.calls, [q, k, lse])
        const known = choice.exact || padded
        list = { kept, rows: known ? choice.room : listed(yield* machine.read(kept), kept) }
        lists.set(layer, list)
      }
      const rows = list === undefined ? time : list.rows
      const cache = yield* machine.alloc(cacheSpec(id, layer, model, rows + room))
      machine.submit(gather(layer, [k, v], list?.kept, cache, model))
      caches.push(cache)
      promptRows.push(rows)
      if (onLayer !== undefined) yield* onLayer(layer, cache)
      submitAll(machine, after)
    }
    const token = yield* machine.alloc(tokenSpec(id))
    machine.submit(compute("last token", "last_token", [space.x], [head.last]))
    submitAll(machine, chooseNext(decoder, head))
    machine.submit(compute("first token", "copy", [head.next], [token]))
    for (const tensor of made) machine.free(tensor)
    if (padded) return { request, caches, promptRows, token, lists: keptOf(lists) }
    for (const { kept } of lists.values()) machine.free(kept)
    return { request, caches, promptRows, token, lists: new Map() }
  })

/** Most bytes that a prefill holds beside weights and caches, the first token included. */
export const prefillBytes = (
  model: DecoderModel,
  choices: ReadonlyArray<LayerChoice>,
  time: number
): number => {
  const fixed = bytesOfSpecs([
    promptSpec(0, time),
    ...Object.values(spaceSpecs("", model, [1, time])),
    lseSpec(0, model, time),
    ...Object.values(headSpecs("", model, 1)),
    tokenSpec(0)
  ])
  // While a call makes its result, the one before is still there.
  const steps = choices.flatMap((choice) => {
    const sizes = resultBytes(choice, model, time)
    return sizes.slice(0, -1).map((size, index) => (sizes[index - 1] ?? 0) + size)
  })
  const last = choices.map((choice) => resultBytes(choice, model, time).at(-2) ?? 0)
  return fixed + listBytes(model, choices, time) + Math.max(0, ...steps, ...last)
}

/** Bytes of all lists of tokens that the layers' choices make. */
export const listBytes = (model: DecoderModel, choices: ReadonlyArray<LayerChoice>, time: number): number =>
  choices.reduce((sum, choice) => sum + (resultBytes(choice, model, time).at(-1) ?? 0), 0)

const resultBytes = (choice: LayerChoice, model: DecoderModel, time: number): ReadonlyArray<number> =>
  choice.kind === "choose"
    ? choiceShapes(choice.calls, model, time).map((result) => bytesOfSpecs([{ name: "", ...result }]))
    : []

export const cacheSpec = (id: number, layer: number, model: DecoderModel, capacity: number): TensorSpec => ({
  name: `request ${id} layer ${layer} cache`,
  shape: [2, capacity, kvWidthOf(model)],
  dtype: model.cacheDtype ?? model.dtype
})

/** A sequence's newest token. */
export const tokenSpec = (id: number): TensorSpec => ({
  name: `request ${id} token`,
  shape: [1],
  dtype: "int32"
})

const promptSpec = (id: number, time: number): TensorSpec => ({
  name: `request ${id} prompt`,
  role: { kind: "prompt", request: id } satisfies ServingRole,
  shape: [1, time],
  dtype: "int32"
})

const lseSpec = (id: number, model: DecoderModel, time: number): TensorSpec => ({
  name: `prefill ${id} lse`,
  shape: [1, model.heads, time],
  dtype: "float32"
})

/** The list of tokens that a layer's choice makes. */
export const listSpec = (
  id: number,
  layer: number,
  calls: ReadonlyArray<ChoiceCall>,
  model: DecoderModel,
  time: number
): TensorSpec => ({ ...keptNamed(id, layer), ...choiceShapes(calls, model, time).at(-1)! })

const keptNamed = (id: number, layer: number) => ({
  name: `request ${id} layer ${layer} kept`,
  role: { kind: "kept", request: id, layer } satisfies ServingRole
})

/** Tokens in a list, the same number for every key/value head. */
export const listed = (values: ArrayLike<number>, { shape }: { readonly shape: Shape }): number => {
  const room = shape[1]!
  let rows = 0
  while (rows < room && values[rows]! >= 0) rows++
  return rows
}

const gather = (
  layer: number,
  keysAndValues: ReadonlyArray<Tensor>,
  kept: Tensor | undefined,
  cache: Tensor,
  { kvHeads }: DecoderModel
): Op =>
  compute(
    `layer ${layer} compact`,
    "kv.gather",
    kept === undefined ? keysAndValues : [...keysAndValues, kept],
    [cache],
    { kvHeads, capacity: cache.shape[1]! }
  )

const queriesAndKeys = (model: DecoderModel, time: number): ReadonlyArray<Shape> => [
  [1, time, queryWidthOf(model)],
  [1, time, kvWidthOf(model)]
]

/** Shape and dtype of what each call makes. */
const choiceShapes = (calls: ReadonlyArray<ChoiceCall>, model: DecoderModel, time: number) => {
  const results: Array<{ readonly shape: Shape; readonly dtype: Dtype }> = []
  for (const { kernel, attributes, reads } of calls) {
    const before = results.at(-1)
    const inputs =
      reads === "nothing"
        ? []
        : reads === "previous"
          ? [operand(before!.shape, before!.dtype)]
          : queriesAndKeys(model, time).map((shape) => operand(shape, model.dtype))
    const shape = kernels[kernel].shapes(inputs, attributes)![0]!
    results.push({ shape, dtype: kernels[kernel].outputDtypes[0]! })
  }
  return results
}

/** Submits a choice; the list of tokens it makes is the last tensor, the others are freed. */
const chooseTokens = (
  { machine, model }: Decoder,
  id: number,
  layer: number,
  calls: ReadonlyArray<ChoiceCall>,
  [q, k, lse]: readonly [q: Tensor, k: Tensor, lse: Tensor]
) =>
  Effect.gen(function* () {
    const name = `request ${id} layer ${layer}`
    let result: Tensor | undefined
    for (const [index, { shape, dtype }] of choiceShapes(calls, model, q.shape[1]!).entries()) {
      const { kernel, attributes, reads } = calls[index]!
      const named = index === calls.length - 1 ? keptNamed(id, layer) : { name: `${name} scores` }
      const output: Tensor = yield* machine.alloc({ ...named, shape, dtype })
      const inputs = { nothing: [], previous: [result!], "queries and keys": [q, k], attention: [q, k, lse] }[
        reads
      ]
      machine.submit(compute(`${name} ${kernel}`, kernel, inputs, [output], attributes))
      if (result !== undefined) machine.free(result)
      result = output
    }
    return result!
  })

// Decoding: one token for every running sequence in each step. Batches are padded to the next of a few sizes, as CUDA graphs
// are captured for: activations and all ops that name no cache are made once per size, the others whenever sequences come or go.
// Between that, every token is made by the same ops.
import * as Effect from "effect/Effect"
import { printIntegers } from "../../kernels/integer-list.ts"
import type { MachineError, OutOfMemory } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { DecodeAttention, placeSpecs } from "../../models/decode-attention.ts"
import { allocAll, chooseNext, compute, headSpecs, type Head } from "../../models/decoder-ops.ts"
import { generatedShare } from "./choices.ts"
import { aroundAttention, spaceSpecs, submitAll, type Decoder, type Space } from "./decoder.ts"
import { bytesOfSpecs, type DecoderModel } from "./model.ts"
import type { Sequence } from "./sequence.ts"
import type { CacheSettings } from "./methods.ts"

/** A sequence in the batch. */
export interface Running {
  readonly sequence: Sequence
  /** Tokens so far, the first (prefill's) included. */
  readonly tokens: Array<number>
}

/** Sizes that batches are padded to: powers of two, and the largest batch itself. */
const batchSizes = (maxBatch: number): ReadonlyArray<number> => {
  const sizes: Array<number> = []
  for (let size = 1; size < maxBatch; size *= 2) sizes.push(size)
  return [...sizes, maxBatch]
}

const specsOf = (model: DecoderModel, batch: number) => ({
  space: spaceSpecs(`decode ${batch}`, model, [batch]),
  head: headSpecs(`decode ${batch}`, model, batch),
  tokens: { name: `decode ${batch} tokens`, shape: [batch], dtype: "int32" } as const
})

/** Bytes of the activations of all batch sizes, and of the sequences' places in their caches. */
export const decodeBytes = (model: DecoderModel, maxBatch: number): number =>
  batchSizes(maxBatch).reduce((sum, batch) => {
    const { space, head, tokens } = specsOf(model, batch)
    const places = placeSpecs("", batch, model.layers)
    return (
      sum + bytesOfSpecs([...Object.values(space), ...Object.values(head), tokens, ...Object.values(places)])
    )
  }, 0)

interface Size {
  readonly batch: number
  readonly space: Space
  readonly head: Head
  readonly tokens: Tensor
  /** Ops that depend on the size alone. */
  readonly embed: Op
  readonly before: ReadonlyArray<ReadonlyArray<Op>>
  readonly after: ReadonlyArray<ReadonlyArray<Op>>
  readonly finish: ReadonlyArray<Op>
  /** Where sequences stand: its memory is kept for the size, and its values are those of whoever is in the batch. */
  attention: DecodeAttention
}

/** What depends on who is in the batch. */
interface Members {
  readonly size: Size
  readonly running: ReadonlyArray<Running>
  readonly join: Op
  readonly part: Op
  readonly layers: ReadonlyArray<ReturnType<DecodeAttention["layer"]>>
}

export class DecodeBatch {
  readonly #decoder: Decoder
  readonly #settings: CacheSettings
  readonly #sizes: ReadonlyArray<Size>
  #members: Members | undefined

  private constructor(decoder: Decoder, settings: CacheSettings, sizes: ReadonlyArray<Size>) {
    this.#decoder = decoder
    this.#settings = settings
    this.#sizes = sizes
  }

  static make(
    decoder: Decoder,
    settings: CacheSettings,
    maxBatch: number
  ): Effect.Effect<DecodeBatch, OutOfMemory> {
    return Effect.map(
      Effect.forEach(batchSizes(maxBatch), (batch) => makeSize(decoder, settings, batch)),
      (sizes) => new DecodeBatch(decoder, settings, sizes)
    )
  }

  /** One step: appends a token to each of `running`, which must be neither none nor more than the largest batch. */
  step(running: ReadonlyArray<Running>): Effect.Effect<void, MachineError> {
    return Effect.gen({ self: this }, function* () {
      const { machine, model } = this.#decoder
      const members = yield* this.#membersOf(running)
      const { size, layers } = members
      const { attention } = size
      machine.submit(members.join)
      machine.submit(size.embed)
      attention.begin()
      for (let layer = 0; layer < model.layers; layer++) {
        submitAll(machine, size.before[layer]!)
        attention.submit(layers[layer]!)
        submitAll(machine, size.after[layer]!)
      }
      submitAll(machine, size.finish)
      machine.submit(members.part)
      const next = yield* machine.read(size.head.next)
      for (const [row, { tokens }] of running.entries()) tokens.push(next[row]!)
      yield* machine.endStep
    })
  }

  #membersOf(running: ReadonlyArray<Running>): Effect.Effect<Members, OutOfMemory> {
    const before = this.#members
    if (before?.running === running) return Effect.succeed(before)
    const decoder = this.#decoder
    const size = this.#sizes.find(({ batch }) => batch >= running.length)!
    const tokens = running.map(({ sequence }) => sequence.token)
    const counts = printIntegers(tokens.map(() => 1))
    size.attention.free()
    return Effect.map(attentionOf(decoder, this.#settings, size.batch, running), (attention) => {
      size.attention = attention
      return (this.#members = {
        size,
        running,
        join: compute("join", "concat_rows", tokens, [size.tokens], { rows: size.batch }),
        part: compute("part", "split_rows", [size.head.next], tokens, { counts }),
        layers: Array.from({ length: decoder.model.layers }, (_, layer) =>
          attention.layer(
            `layer ${layer}`,
            layer,
            size.space,
            running.map(({ sequence }) => sequence.caches[layer]!)
          )
        )
      })
    })
  }
}

const attentionOf = (
  { machine, model }: Decoder,
  settings: CacheSettings,
  batch: number,
  running: ReadonlyArray<Running>
): Effect.Effect<DecodeAttention, OutOfMemory> =>
  DecodeAttention.make(machine, {
    name: `decode ${batch}`,
    batch,
    lists: model.layers,
    standings: running.map(({ sequence: { request, promptRows }, tokens }) => ({
      // Positions count the whole prompt, whatever is left of it.
      promptTokens: request.promptTokens,
      promptRows,
      // The newest is fed in next.
      appended: tokens.length - 1
    })),
    sizes: model,
    ropeBase: model.ropeBase,
    keep: generatedShare(settings)
  })

const makeSize = (
  decoder: Decoder,
  settings: CacheSettings,
  batch: number
): Effect.Effect<Size, OutOfMemory> =>
  Effect.gen(function* () {
    const { machine, model } = decoder
    const specs = specsOf(model, batch)
    const space = yield* allocAll(machine, specs.space)
    const head = yield* allocAll(machine, specs.head)
    const tokens = yield* machine.alloc(specs.tokens)
    const layers = Array.from({ length: model.layers }, (_, layer) => aroundAttention(decoder, layer, space))
    return {
      batch,
      space,
      head,
      tokens,
      embed: compute("embed", "embedding.forward", [tokens, decoder.embedding], [space.x]),
      before: layers.map(({ before }) => before),
      after: layers.map(({ after }) => after),
      finish: [compute("last", "copy", [space.x], [head.last]), ...chooseNext(decoder, head)],
      attention: yield* attentionOf(decoder, settings, batch, [])
    }
  })

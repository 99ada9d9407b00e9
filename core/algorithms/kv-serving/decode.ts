// Decoding: one token for every running sequence in each step. Batches are padded to the next of a few sizes, as CUDA graphs
// are captured for: activations and all ops that do not depend on lengths are made once per size.
import * as Effect from "effect/Effect"
import { printIntegers } from "../../kernels/integer-list.ts"
import type { MachineError, OutOfMemory } from "../../machine/machine.ts"
import type { Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { keptGenerated } from "./choices.ts"
import { attentionShape, headWidthOf } from "../../models/decoder-layer.ts"
import { allocAll, chooseNext, compute, headSpecs, type Head } from "../../models/decoder-ops.ts"
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

/** Bytes of the activations of all batch sizes. */
export const decodeBytes = (model: DecoderModel, maxBatch: number): number =>
  batchSizes(maxBatch)
    .map((batch) => specsOf(model, batch))
    .reduce(
      (sum, { space, head, tokens }) =>
        sum + bytesOfSpecs([...Object.values(space), ...Object.values(head), tokens]),
      0
    )

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
}

/** What depends on who is in the batch. */
interface Members {
  readonly size: Size
  readonly running: ReadonlyArray<Running>
  readonly join: Op
  readonly part: Op
  readonly caches: ReadonlyArray<ReadonlyArray<Tensor>>
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
      Effect.forEach(batchSizes(maxBatch), (batch) => makeSize(decoder, batch)),
      (sizes) => new DecodeBatch(decoder, settings, sizes)
    )
  }

  /** One step: appends a token to each of `running`, which must be neither none nor more than the largest batch. */
  step(running: ReadonlyArray<Running>): Effect.Effect<void, MachineError> {
    return Effect.gen({ self: this }, function* () {
      const { machine, model } = this.#decoder
      const members = this.#membersOf(running)
      const { size } = members
      const { q, k, v, mixed, x } = size.space
      machine.submit(members.join)
      machine.submit(size.embed)
      const rope = {
        headWidth: headWidthOf(model),
        base: model.ropeBase,
        // The token fed in is the newest; its position counts the whole prompt, whatever is left of it.
        positions: printIntegers(
          running.map(({ sequence, tokens }) => sequence.request.promptTokens + tokens.length - 1)
        )
      }
      const heads = attentionShape(model)
      let known: LayerLengths | undefined
      for (let layer = 0; layer < model.layers; layer++) {
        const caches = members.caches[layer]!
        const lengths = this.#lengths(running, layer, heads, known)
        known = lengths
        submitAll(machine, size.before[layer]!)
        machine.submit(compute(`layer ${layer} turn q`, "rope.rows", [q], [q], rope))
        machine.submit(compute(`layer ${layer} turn k`, "rope.rows", [k], [k], rope))
        machine.submit(
          compute(`layer ${layer} append`, "kv.append", [k, v, ...caches], caches, lengths.append)
        )
        machine.submit(
          compute(`layer ${layer} attention`, "kv.attention", [q, ...caches], [mixed], lengths.attention)
        )
        if (lengths.evict !== undefined)
          machine.submit(compute(`layer ${layer} evict`, "kv.evict", [q, ...caches], caches, lengths.evict))
        submitAll(machine, size.after[layer]!)
      }
      machine.submit(compute("last", "copy", [x], [size.head.last]))
      submitAll(machine, size.finish)
      machine.submit(members.part)
      const next = yield* machine.read(size.head.next)
      for (const [row, { tokens }] of running.entries()) tokens.push(next[row]!)
      yield* machine.endStep
    })
  }

  #membersOf(running: ReadonlyArray<Running>): Members {
    const before = this.#members
    if (before?.running === running) return before
    const size = this.#sizes.find(({ batch }) => batch >= running.length)!
    const tokens = running.map(({ sequence }) => sequence.token)
    const counts = printIntegers(tokens.map(() => 1))
    this.#members = {
      size,
      running,
      join: compute("join", "concat_rows", tokens, [size.tokens], { rows: size.batch }),
      part: compute("part", "split_rows", [size.head.next], tokens, { counts }),
      caches: Array.from({ length: this.#decoder.model.layers }, (_, layer) =>
        running.map(({ sequence }) => sequence.caches[layer]!)
      )
    }
    return this.#members
  }

  /** Attributes of a layer's cache kernels. Most methods keep as many tokens in every layer: then they are shared. */
  #lengths(
    running: ReadonlyArray<Running>,
    layer: number,
    heads: { readonly heads: number; readonly kvHeads: number; readonly headWidth: number },
    before: LayerLengths | undefined
  ): LayerLengths {
    const rows = running.map(({ sequence, tokens }) => ({
      prompt: sequence.promptRows[layer]!,
      kept: keptGenerated(this.#settings, tokens.length - 1),
      // The newest is appended before one is given up for it.
      held: keptGenerated(this.#settings, tokens.length)
    }))
    const positions = printIntegers(rows.map(({ prompt, kept }) => prompt + kept))
    if (before?.append.positions === positions) return before
    const lengths = printIntegers(rows.map(({ prompt, kept }) => prompt + kept + 1))
    const from = rows.map(({ prompt, kept, held }) => (held > kept ? -1 : prompt))
    return {
      append: { positions },
      attention: { ...heads, lengths },
      evict: from.every((row) => row < 0) ? undefined : { ...heads, lengths, from: printIntegers(from) }
    }
  }
}

interface LayerLengths {
  readonly append: { readonly positions: string }
  readonly attention: { readonly lengths: string } & Readonly<Record<string, number | string>>
  readonly evict: Readonly<Record<string, number | string>> | undefined
}

const makeSize = (decoder: Decoder, batch: number): Effect.Effect<Size, OutOfMemory> =>
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
      finish: chooseNext(decoder, head)
    }
  })

// What batches are drawn from: a text that lies on the device whole, or one too large for it, in chunks that take turns there.
// Which chunk a rank has at a step follows from seed, rank, step and the number of ranks, so a run that goes on with as many has the same.
// Knows no files.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type OutOfMemory } from "../../machine/machine.ts"
import { launch } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { Random } from "../../random.ts"

export interface Corpus {
  /** Tokens in all, and of one chunk; ids below the vocabulary. */
  readonly tokens: number
  readonly chunkTokens: number
  /** Chunk of this number, from 0. */
  readonly chunk: (index: number) => Int32Array
}

/** A text that is small enough to lie on every rank's device. */
export const wholeCorpus = (tokens: Int32Array): Corpus => ({
  tokens: tokens.length,
  chunkTokens: tokens.length,
  chunk: () => tokens
})

/** Chunks of equal length, at most `chunkTokens`; fewer tokens than there are chunks are left out at the end. */
export const chunksOf = (
  tokens: number,
  chunkTokens: number
): { readonly count: number; readonly length: number } => {
  const count = Math.ceil(tokens / chunkTokens)
  return { count, length: Math.floor(tokens / count) }
}

/** A rank's place in a corpus, and how it moves on. */
export interface Reading {
  /** Tokens of one chunk, which windows are drawn from. */
  readonly tensor: Tensor
  /** After so many steps: brings the chunk whose turn it is, if it has changed. */
  readonly turn: (step: number) => Effect.Effect<void, OutOfMemory>
}

interface ReadingOptions {
  readonly seed: number
  /** Tokens that a rank draws in a step. */
  readonly stepTokens: number
}

/**
 * Every chunk stays for as many steps as it takes to draw as many tokens as it has. Ranks go through one order of all chunks, each
 * taking the next; when all have had their turn, there is another order.
 */
export const readCorpus = (
  corpus: Corpus,
  { seed, stepTokens }: ReadingOptions
): Effect.Effect<Reading, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { rank, world } = machine
    const { tokens, chunkTokens } = corpus
    const count = Math.floor(tokens / chunkTokens)
    const stepsEach = Math.ceil(chunkTokens / stepTokens)
    const indexIn = (turn: number): number => {
      const place = turn * world.size + rank
      return orderOf(count, seed, Math.floor(place / count))[place % count]!
    }
    const shape = [chunkTokens]
    const first = indexIn(0)
    let [here, turnHere] = [first, 0]
    const tensor = yield* machine.alloc({
      name: "batch",
      shape,
      dtype: "int32",
      initial: () => corpus.chunk(first)
    })
    const turn = (step: number): Effect.Effect<void, OutOfMemory> =>
      Effect.gen(function* () {
        const number = Math.floor(step / stepsEach)
        if (number === turnHere) return
        turnHere = number
        const next = indexIn(number)
        if (next === here) return
        here = next
        const initial = () => corpus.chunk(next)
        const host = yield* machine.alloc({
          name: "next chunk",
          shape,
          dtype: "int32",
          place: "host",
          initial
        })
        machine.submit(launch("next chunk", kernels.h2d, Lane.h2d, [host], [tensor]))
        machine.free(host)
      })
    return { tensor, turn }
  })

/** All numbers below `count` once each, in an order of its own for every pass. */
const orderOf = (count: number, seed: number, pass: number): ReadonlyArray<number> => {
  const random = new Random(seed).split(`chunks of pass ${pass}`)
  const order = Array.from({ length: count }, (_, index) => index)
  for (let last = count - 1; last > 0; last--) {
    const other = random.below(last + 1)
    ;[order[last], order[other]] = [order[other]!, order[last]!]
  }
  return order
}

// What a method keeps of a prompt, layer by layer: which kernels choose, and how much room their choice takes. Knows no method;
// methods.ts has them.
import type { KernelName } from "../../kernels/catalogue.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { headWidthOf } from "../../models/decoder-layer.ts"
import type { DecoderModel } from "./model.ts"

/**
 * One kernel of a choice. The first reads the layer's queries and keys, or these and what attention left of them (the logarithm of each
 * query's sum of exponentials), or nothing; each other reads what came before.
 */
export interface ChoiceCall {
  readonly kernel: KernelName
  readonly attributes: Attributes
  readonly reads: "queries and keys" | "attention" | "nothing" | "previous"
}

/** How one layer finds the tokens of a prompt that stay in its cache. */
export type LayerChoice =
  /** Every token stays. */
  | { readonly kind: "all" }
  /** The tokens that an earlier layer chose (ChunkKV's index reuse). */
  | { readonly kind: "as"; readonly layer: number }
  | {
      readonly kind: "choose"
      readonly calls: ReadonlyArray<ChoiceCall>
      /** Rows of the list that the last call makes: at most so many tokens stay. */
      readonly room: number
      /** Whether exactly `room` tokens stay. Where not, the list must be read to know. */
      readonly exact: boolean
    }

/** At most so many tokens stay in each layer; exactly, where the layer's choice is exact. */
export const roomsOf = (choices: ReadonlyArray<LayerChoice>, time: number): ReadonlyArray<number> =>
  choices.map((choice) => {
    if (choice.kind === "all") return time
    const own = choice.kind === "as" ? choices[choice.layer]! : choice
    return own.kind === "choose" ? own.room : time
  })

export const choose = (calls: ReadonlyArray<ChoiceCall>, room: number, exact: boolean): LayerChoice => ({
  kind: "choose",
  calls,
  room,
  exact
})

export const windowScores = (model: DecoderModel, window: number, softmax: boolean): ChoiceCall => ({
  kernel: "kv.window_scores",
  attributes: {
    heads: model.heads,
    kvHeads: model.kvHeads,
    headWidth: headWidthOf(model),
    window,
    softmax
  },
  reads: softmax ? "attention" : "queries and keys"
})

export interface Observation {
  readonly window: number
  readonly kernel: number
  readonly pooling: "avg" | "max"
}

/** A window longer than what may stay is cut to it. */
export const poolScores = ({ window, kernel, pooling }: Observation, limit: number): ChoiceCall => ({
  kernel: "kv.pool_scores",
  attributes: { window: Math.min(window, limit), kernel, mode: pooling },
  reads: "previous"
})

export const topTokens = (count: number): ChoiceCall => ({
  kernel: "kv.top_tokens",
  attributes: { count },
  reads: "previous"
})

/** SnapKV: the best of the tokens before the window by pooled scores, and the window; each key/value head its own. */
export const observed = (settings: Observation, model: DecoderModel, limit: number): LayerChoice =>
  choose(
    [
      windowScores(model, Math.min(settings.window, limit), true),
      poolScores(settings, limit),
      topTokens(limit)
    ],
    limit,
    true
  )

// What a mixture-of-experts model asks of its expert store, call by call: which experts each layer of each step needs.
// Knows nothing of slots, policies or time.

/** An expert of one layer: `layer * experts + expert`. */
export type ExpertId = number

/** How many MoE layers there are, and how many experts in each. */
export interface ExpertShape {
  /** MoE layers. */
  readonly layers: number
  /** Experts of each layer. */
  readonly experts: number
}

/** One MoE layer of one step: all its tokens' experts, which must be computed before the next layer begins. */
export interface LayerCall {
  readonly step: number
  readonly layer: number
  /** The experts that at least one token chose, each once, ascending. */
  readonly needed: ReadonlyArray<ExpertId>
}

/** Calls in the order the model makes them: step by step, layer by layer. */
export interface Demand {
  readonly shape: ExpertShape
  readonly calls: ReadonlyArray<LayerCall>
}

/** The call of one layer, from its tokens' choices [tokens, topK]. */
export const layerCall = (
  shape: ExpertShape,
  step: number,
  layer: number,
  chosen: ArrayLike<number>
): LayerCall => {
  const wanted = new Uint8Array(shape.experts)
  for (let i = 0; i < chosen.length; i++) {
    const expert = chosen[i]!
    if (!(expert >= 0 && expert < shape.experts)) {
      throw new RangeError(`step ${step}, layer ${layer}: expert ${expert} of ${shape.experts}`)
    }
    wanted[expert] = 1
  }
  const needed: Array<ExpertId> = []
  for (let expert = 0; expert < shape.experts; expert++) {
    if (wanted[expert] === 1) needed.push(layer * shape.experts + expert)
  }
  return { step, layer, needed }
}

/** Uses of every expert over all calls. */
export const usesOf = ({ shape, calls }: Demand): Float64Array => {
  const uses = new Float64Array(shape.layers * shape.experts)
  for (const { needed } of calls) for (const id of needed) uses[id]!++
  return uses
}

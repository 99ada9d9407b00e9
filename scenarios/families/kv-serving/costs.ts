// What a step of serving costs by a line fitted to a published table, where no kernel is looked up by itself.
import type { DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import type { CostModel } from "../../../core/cost/cost-model.ts"

/** A step time as published tables allow to fit it: so much for each step, so much more for each cached token. */
interface FittedCosts {
  readonly stepSeconds: number
  readonly tokenSeconds: number
  /** Rate at which prefill gets through its arithmetic. */
  readonly prefillFlopsPerSecond: number
  readonly model: Pick<DecoderModel, "layers" | "width" | "vocabulary">
}

/**
 * Every decoding step takes stepSeconds + tokenSeconds * (cached tokens of the batch, mean over layers); prefill takes its
 * FLOPs at the given rate; nothing else takes time.
 */
export const fittedCosts = ({
  stepSeconds,
  tokenSeconds,
  prefillFlopsPerSecond,
  model: { layers, width, vocabulary }
}: FittedCosts): CostModel => ({
  seconds(op) {
    const { kernel, reads, writes, attributes } = op
    // Once in each step, whatever the batch.
    if (kernel.name === "concat_rows") return stepSeconds
    if (kernel.name === "kv.attention") return (tokenSeconds * (attributes["cached"] as number)) / layers
    // After it stands the product that finds the first token, which looks like that of a decoding step.
    if (kernel.name === "last_token") return (2 * width * vocabulary) / prefillFlopsPerSecond
    const ofPrompt =
      reads[0]?.shape.length === 3 && kernel.kind === "compute" && !kernel.name.startsWith("kv.place")
    return ofPrompt ? kernel.work(reads, writes, attributes).flops / prefillFlopsPerSecond : 0
  },
  estimates: [
    {
      kernel: "decoding step",
      source: "interpolated",
      detail: "a fitted line: so much a step, so much a cached token; no kernel by itself"
    }
  ]
})

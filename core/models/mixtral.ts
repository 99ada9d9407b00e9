// Mixtral-style models as Hugging Face's MixtralForCausalLM: Llama's attention, and in place of each feed-forward part a
// softmax top-k gate over experts. Tokens are never dropped; the auxiliary load-balancing loss is left out.
import type { LayerGraph } from "./layer-graph.ts"
import { llamaLike, type LlamaConfig } from "./llama.ts"
import { checkSizes } from "./sizes.ts"

/** Sizes of a Mixtral. */
export interface MixtralConfig extends LlamaConfig {
  readonly experts: number
  /** Experts per token. */
  readonly topK: number
}

/**
 * Mixtral's layers, one per leaf module: the router is `mlp.gate`, all experts of a block are `mlp.experts` with two
 * parameters, gate_up_proj [experts, 2 ffnWidth, width] and down_proj [experts, width, ffnWidth]. ropeBase defaults to
 * 1,000,000. Throws RangeError for sizes that are no positive whole numbers, do not divide, or topK > experts.
 */
export const mixtral = (config: MixtralConfig): LayerGraph => {
  const { width, ffnWidth, experts, topK } = config
  checkSizes("mixtral", { ffnWidth, experts, topK }, [])
  if (topK > experts) throw new RangeError(`mixtral: topK ${topK} of only ${experts} experts`)
  return llamaLike("mixtral", { ropeBase: 1_000_000, ...config }, ({ graph, layer, project }, x) => {
    const gate = graph.gate(project(x, "mlp.gate", experts), topK)
    layer("mlp.experts")
    const gateUp = graph.parameter("gate_up_proj", [experts, 2 * ffnWidth, width])
    const down = graph.parameter("down_proj", [experts, width, ffnWidth])
    return graph.experts(x, gate, experts, (rows, counts) => {
      const hidden = graph.swiglu([graph.groupedLinear(rows, gateUp, counts, "gate_up")], "hidden")
      return graph.groupedLinear(hidden, down, counts, "down")
    })
  })
}

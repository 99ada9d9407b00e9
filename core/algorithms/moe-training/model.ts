// A transformer of MoE layers as expert-parallel training sees it: sizes, and what each rank holds of them. Attention and
// gate are data-parallel over nodes; attention is split over the ranks of a node (MP), tokens between its parts too; experts
// are spread over nodes (EP), and each expert is split over the ranks of its node (ESP). Knows no machine.
import type { Dtype, Role } from "../../machine/tensor.ts"
import { headWidthOf } from "../../models/decoder-layer.ts"
import { splitSeed } from "../../random.ts"
import { leastCommonMultiple } from "../../whole-numbers.ts"

export const gateNames = ["softmax", "gshard", "sigmoid", "x-moe", "expert-choice", "soft-moe"] as const
type GateName = (typeof gateNames)[number]

/** A stack of layers of attention and experts, with the symbols of FSMoE (arXiv:2501.10714). */
export interface MoeModel {
  readonly layers: number
  /** M. */
  readonly width: number
  /** H, of one expert. */
  readonly hidden: number
  readonly heads: number
  /** Heads of keys and values, which several query heads share. */
  readonly kvHeads: number
  /** Default: width / heads. */
  readonly headWidth?: number | undefined
  /** L. */
  readonly sequence: number
  /** B: sequences of one node, which its ranks share. */
  readonly batch: number
  /** E, over all nodes. */
  readonly experts: number
  /** k. */
  readonly topK: number
  /**
   * f: an expert takes at most k f tokens / E of each rank's tokens. `dropless`: as many as choose it, none padded; the
   * program then reads how many chose what before it sends them.
   */
  readonly capacityFactor: number | "dropless"
  /** `gpt`: two products with gelu between. `mixtral`: three, with SwiGLU. */
  readonly ffn: "gpt" | "mixtral"
  readonly gate: GateName
  /** Width of X-MoE's projection. */
  readonly gateWidth: number
  readonly dtype: Dtype
  /** Of the optimizer's step; undefined leaves gradients unused, as a measurement of passes alone does. */
  readonly learningRate: number | undefined
  readonly seed: number
}

/**
 * What ops and tensors of MoE training are, for whoever stands beside the program. Stages of the pipelined part: messages to and
 * from the experts' nodes, gathers and scatters inside them, and the experts' products.
 */
export type MoeRole =
  | {
      readonly kind: "dispatch" | "gather" | "expert" | "scatter" | "combine"
      readonly pass: "forward" | "backward"
      readonly layer: number
      readonly chunk: number
    }
  /** Around attention, inside the node. */
  | { readonly kind: "MP"; readonly pass: "forward" | "backward" }
  /** Dense gradients, summed over nodes. */
  | { readonly kind: "gradient" }
  /** How many of each rank's tokens chose each expert, [ranks * experts]: what a layer's routing is read from. */
  | { readonly kind: "choices"; readonly layer: number }

/** The role of an op, an entry of a log or a tensor of MoE training. */
export const moeRole = ({ role }: { readonly role?: Role | undefined }): MoeRole | undefined =>
  role as MoeRole | undefined

/** What of a model a rank has when `nodes` nodes of `perNode` ranks train it. */
export interface Shares {
  readonly nodes: number
  readonly perNode: number
  /** Tokens of one rank outside attention. */
  readonly tokens: number
  /** Tokens of one node. */
  readonly nodeTokens: number
  /** Experts on each node. */
  readonly localExperts: number
  /** H of a rank's part of an expert. */
  readonly hidden: number
  /** Heads of a rank. */
  readonly heads: number
  readonly kvHeads: number
}

/** A size that does not go with others; `field` is of the model. */
export class ModelSizeError extends RangeError {
  readonly field: string
  readonly value: number
  readonly accepted: string
  constructor(field: string, value: number, accepted: string) {
    super(`${field} is ${value}: expected ${accepted}`)
    this.field = field
    this.value = value
    this.accepted = accepted
  }
}

/** Throws ModelSizeError when the model does not divide over the ranks. */
export const sharesOf = (model: MoeModel, nodes: number, perNode: number): Shares => {
  const check = (holds: boolean, field: keyof MoeModel, accepted: string): void => {
    if (!holds) throw new ModelSizeError(field, Number(model[field]), accepted)
  }
  const nodeTokens = model.batch * model.sequence
  check(model.experts % nodes === 0, "experts", `a multiple of the ${nodes} nodes`)
  check(model.topK <= model.experts, "topK", `at most the ${model.experts} experts`)
  check(model.hidden % perNode === 0, "hidden", `a multiple of the ${perNode} ranks of a node`)
  check(model.heads % perNode === 0, "heads", `a multiple of the ${perNode} ranks of a node`)
  check(model.heads % model.kvHeads === 0, "kvHeads", `a divisor of the ${model.heads} heads`)
  check(
    model.headWidth !== undefined || model.width % model.heads === 0,
    "width",
    `a multiple of the ${model.heads} heads, or a headWidth`
  )
  check(
    nodeTokens % perNode === 0,
    "sequence",
    `batch times sequence a multiple of the ${perNode} ranks of a node`
  )
  return {
    nodes,
    perNode,
    tokens: nodeTokens / perNode,
    nodeTokens,
    localExperts: model.experts / nodes,
    hidden: model.hidden / perNode,
    heads: model.heads / perNode,
    kvHeads: kvHeadsOf(model, perNode)
  }
}

/**
 * Heads of keys and values that a rank holds. Ranks whose query heads read one and the same hold copies of it; where the
 * heads that one reads do not go evenly into its query heads, they are repeated until they do. As many on each rank as on the
 * one that reads most.
 */
export const kvHeadsOf = (
  { heads, kvHeads }: Pick<MoeModel, "heads" | "kvHeads">,
  perNode: number
): number => {
  const [own, group] = [heads / perNode, heads / kvHeads]
  const readBy = (rank: number): number =>
    Math.floor(((rank + 1) * own - 1) / group) - Math.floor((rank * own) / group) + 1
  let most = 1
  for (let rank = 0; rank < perNode; rank++) most = Math.max(most, readBy(rank))
  while (own % most !== 0) most++
  return most
}

/**
 * T: rows of each expert that one rank sends, padded so that both passes' chunks divide it; 0 where rows are as many as
 * chosen. Expert choice cannot take more tokens than there are.
 */
export const capacityOf = (
  model: MoeModel,
  { tokens }: Shares,
  forwardDegree: number,
  backwardDegree: number
): number => {
  if (model.capacityFactor === "dropless") return 0
  const wanted = Math.ceil((model.topK * model.capacityFactor * tokens) / model.experts)
  // capacity is padded to this, so that both passes' chunks divide it
  const multiple = leastCommonMultiple(forwardDegree, backwardDegree)
  return Math.ceil(wanted / multiple) * multiple
}

/** Of a gate's noise: of every layer and rank its own, for tokens that share noise are not noisy among each other. */
export const noiseSeed = (
  seed: number,
  gate: string,
  { node, position }: { readonly node: number; readonly position: number }
): number => splitSeed(seed, `${gate} noise of node ${node} position ${position}`)

/** Matrix products of one expert's forward pass. */
export const productsOf = ({ ffn }: Pick<MoeModel, "ffn">): number => (ffn === "gpt" ? 2 : 3)

/** Elements of the dense gradients that one rank all-reduces over nodes, in each layer: its part of QKV and projection. */
export const denseElementsOf = (model: MoeModel, { heads, kvHeads }: Shares): number =>
  2 * model.width * headWidthOf(model) * (heads + kvHeads)

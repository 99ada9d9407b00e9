// What published architectures have beside what a scenario says of a model, with its parameters: shared experts, dense layers, biases, norms of
// queries and keys, latent attention. From their makers' modelling code; knows no file and no scenario.

/** A model's sizes, in a scenario's words, and its configuration. */
export interface Sizes {
  readonly type: string
  readonly config: Readonly<Record<string, unknown>>
  /** All of them, those without experts too. */
  readonly layers: number
  readonly width: number
  readonly heads: number
  readonly kvHeads: number
  readonly headWidth: number
  /** Of one expert, or of a layer that has none. */
  readonly ffnWidth: number
  /** Of a mixture's layers without experts. */
  readonly denseWidth: number
  readonly vocabulary: number
  readonly tied: boolean
  /** Routed ones of a layer; undefined of a model without. */
  readonly experts: number | undefined
  readonly topK: number
  /** Layers of a mixture that have no experts. */
  readonly denseLayers: number
}

interface Part {
  readonly what: string
  /** Less than none where a scenario has more than the model. */
  readonly parameters: number
}

const numberOf = ({ config }: Sizes, name: string): number => {
  const value = config[name]
  return typeof value === "number" ? value : 0
}

/** Parameters of one layer's attention as a scenario has it, without norms. */
const attention = ({ width, heads, kvHeads, headWidth }: Sizes): number =>
  2 * width * headWidth * (heads + kvHeads)

/** Biases of queries, keys and values. */
const qkvBias: Extra = (sizes) => ({
  what: "biases of queries, keys and values",
  parameters: sizes.layers * sizes.headWidth * (sizes.heads + 2 * sizes.kvHeads)
})

const outputBias: Extra = ({ layers, width }) => ({
  what: "biases of attention's output",
  parameters: layers * width
})

const headNorms: Extra = ({ layers, headWidth }) => ({
  what: "norms of queries and keys",
  parameters: 2 * layers * headWidth
})

/** Over all heads at once. */
const wideNorms: Extra = ({ layers, heads, kvHeads, headWidth }) => ({
  what: "norms of queries and keys",
  parameters: layers * headWidth * (heads + kvHeads)
})

/** Layer norms have a bias where a scenario's have none. */
const normBiases: Extra = ({ layers, width }) => ({
  what: "biases of norms",
  parameters: (2 * layers + 1) * width
})

const moreNorms: Extra = ({ layers, width }) => ({
  what: "norms behind attention and feed-forward part",
  parameters: 2 * layers * width
})

const outputLayerBias: Extra = ({ vocabulary }) => ({
  what: "biases of the output layer",
  parameters: vocabulary
})

const sinks: Extra = ({ layers, heads }) => ({ what: "attention's sinks", parameters: layers * heads })

const expertBiases: Extra = ({ layers, experts = 0, ffnWidth, width }) => ({
  what: "biases of experts and routers",
  parameters: layers * experts * (2 * ffnWidth + width + 1)
})

const scoreCorrection: Extra = ({ layers, denseLayers, experts = 0 }) => ({
  what: "corrections of routers' scores",
  parameters: (layers - denseLayers) * experts
})

const sharedGate: Extra = ({ layers, denseLayers, width }) => ({
  what: "gates of shared experts",
  parameters: (layers - denseLayers) * width
})

/** Keys and values from a narrow latent: what is really there, less what a scenario has in its place. */
const latentAttention: Extra = (sizes) => {
  const { width, heads, layers } = sizes
  const [rank, queryRank] = [numberOf(sizes, "kv_lora_rank"), numberOf(sizes, "q_lora_rank")]
  const [plain, rotary] = [numberOf(sizes, "qk_nope_head_dim"), numberOf(sizes, "qk_rope_head_dim")]
  const values = numberOf(sizes, "v_head_dim")
  const ofQueries = heads * (plain + rotary)
  const queries = queryRank > 0 ? queryRank * (width + 1 + ofQueries) : width * ofQueries
  const latents = width * (rank + rotary) + rank + rank * heads * (plain + values)
  return {
    what: "latent attention is taken for attention with as many full heads",
    parameters: layers * (queries + latents + heads * values * width - attention(sizes))
  }
}

type Extra = (sizes: Sizes) => Part

/** By `model_type`; what several have, and what their configuration says in so many words, is in `partsOf`. */
const extrasOf: Readonly<Record<string, ReadonlyArray<Extra>>> = {
  llama: [],
  mistral: [],
  mixtral: [],
  granite: [],
  granitemoe: [],
  granitemoeshared: [],
  llama4: [],
  llama4_text: [],
  phi3: [],
  qwen2: [qkvBias],
  qwen2_moe: [qkvBias, sharedGate],
  qwen3: [headNorms],
  qwen3_moe: [headNorms],
  olmoe: [wideNorms],
  deepseek: [],
  deepseek_v2: [],
  deepseek_v3: [scoreCorrection],
  kimi_k2: [scoreCorrection],
  glm4_moe: [qkvBias, scoreCorrection],
  phimoe: [qkvBias, outputBias, normBiases, outputLayerBias],
  gpt_oss: [qkvBias, outputBias, sinks, expertBiases],
  gemma3: [headNorms, moreNorms],
  gemma3_text: [headNorms, moreNorms]
}

/** Architectures whose every parameter is counted. */
export const knownTypes: ReadonlySet<string> = new Set(Object.keys(extrasOf))

/** How wide the experts are that every token has, together, in each layer. */
const sharedWidth = (sizes: Sizes): number =>
  numberOf(sizes, "shared_expert_intermediate_size") ||
  numberOf(sizes, "shared_intermediate_size") ||
  numberOf(sizes, "n_shared_experts") * sizes.ffnWidth ||
  (sizes.type.startsWith("llama4") ? sizes.ffnWidth : 0)

/** What a scenario of these sizes leaves out, or has too much; nothing of no parameters. */
export const partsOf = (sizes: Sizes): ReadonlyArray<Part> => {
  const { type, config, layers, denseLayers, denseWidth, width, vocabulary, tied, experts } = sizes
  const shared = experts === undefined ? 0 : sharedWidth(sizes)
  const extras = [
    ...(extrasOf[type] ?? []),
    // Others whose configuration says so.
    ...(config["use_qk_norm"] === true && type === "glm4_moe" ? [headNorms] : []),
    ...(config["kv_lora_rank"] === undefined ? [] : [latentAttention])
  ]
  return [
    {
      what: `layers without experts, ${denseLayers} of ${layers}`,
      parameters: denseLayers * (attention(sizes) + 3 * width * denseWidth + 2 * width)
    },
    { what: "experts that every token has", parameters: (layers - denseLayers) * 3 * width * shared },
    ...extras.map((extra) => extra(sizes)),
    // A mixture's two weights are apart in scenarios of offloaded experts.
    {
      what: "the output layer's weight, which is the embedding's",
      parameters: tied && experts !== undefined ? -vocabulary * width : 0
    }
  ].filter(({ parameters }) => parameters !== 0)
}

// A model's config.json, as Hugging Face has it, in the words of a scenario: which sizes to write, how many parameters that makes, and what the
// model has that no scenario says, each with its own. Held to reported counts (test/traces/model-config.test.ts).
import { layerWeightSpecs, outerWeightSpecs, type MoeModel } from "../core/algorithms/expert-offload/model.ts"
import { weightSpecs, type DecoderModel } from "../core/algorithms/kv-serving/model.ts"
import { elementsOf, type TensorSpec } from "../core/machine/tensor.ts"
import { counted } from "../core/units.ts"
import type { Use } from "./foreign.ts"
import { partsOf, knownTypes, type Sizes } from "./model-parts.ts"

/** What a scenario can say of it, and what it cannot. */
export interface ModelReading {
  readonly type: string
  /** By a scenario that says these sizes. */
  readonly modelled: number
  /** With everything that it has. */
  readonly whole: number
  readonly contents: ReadonlyArray<string>
  readonly uses: ReadonlyArray<Use>
  readonly warnings: ReadonlyArray<string>
}

type Config = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Config =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** What it is good for, and lacks, beside what every such file has; nothing where this is no JSON. */
export const modelFindings = (json: string) => {
  const found = readModelConfig(json)
  if (found === undefined) return {}
  if ("missing" in found) {
    const how = `${found.missing.join(", ")}: written out, one number each, where the class of the model has a default`
    return { missing: [{ what: "sizes", how }] }
  }
  const { type, contents, uses, warnings } = found
  const title = `a model's configuration, as Hugging Face has it (${type})`
  return { readable: true, title, contents, uses, missing: [], warnings }
}

/** Which fields are missing, or are no one number, that nothing stands for; undefined where this is no JSON. */
export const readModelConfig = (
  json: string
): ModelReading | { readonly missing: ReadonlyArray<string> } | undefined => {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    return undefined
  }
  if (!isObject(parsed)) return undefined
  const inner = parsed["text_config"]
  const config: Config = isObject(inner) ? { ...parsed, ...inner } : parsed
  if (config["model_type"] === "gpt2") return ofGpt2(config)
  const sizes = sizesOf(config)
  if ("missing" in sizes) return sizes
  const notes = notesOf(config, sizes, isObject(inner))
  return sizes.experts === undefined ? ofDense(sizes, notes) : ofExperts(sizes, notes)
}

/** The first of these that is a number above 0; of a list with one for each layer, the one that all have. */
const numberIn = (config: Config, ...names: ReadonlyArray<string>): number | undefined => {
  const found = names
    .map((name) => ofLayers(config[name]))
    .find((value) => typeof value === "number" && value > 0)
  return found as number | undefined
}

const ofLayers = (value: unknown): unknown =>
  Array.isArray(value) && value.every((one) => one === value[0]) ? value[0] : value

/** Those who share the output layer's weight with the embedding where their configuration does not say. */
const tiedByDefault = /^(?:gemma|cohere|gpt2|falcon|bloom|opt)/u

/** Widths of heads of classes that do not divide the model's width, where their configuration does not say. */
const headWidthByDefault: Readonly<Record<string, number>> = {
  gemma: 256,
  gemma2: 256,
  gemma3: 256,
  gemma3_text: 256,
  glm4_moe: 128,
  gpt_oss: 64,
  llama4: 128,
  llama4_text: 128,
  qwen3: 128
}

const namesOf = {
  width: ["hidden_size", "n_embd", "d_model"],
  layers: ["num_hidden_layers", "n_layer", "n_layers", "num_layers"],
  heads: ["num_attention_heads", "n_head", "n_heads"],
  vocabulary: ["vocab_size"],
  inner: ["intermediate_size", "ffn_hidden_size", "n_inner"],
  experts: ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"],
  expertWidth: ["moe_intermediate_size", "expert_ffn_hidden_size"],
  topK: ["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"]
} as const

/** Sizes by the names that configurations have for them. */
const sizesOf = (config: Config): Sizes | { readonly missing: ReadonlyArray<string> } => {
  const of = (field: keyof typeof namesOf): number | undefined => numberIn(config, ...namesOf[field])
  // A list of unlike numbers is one that no scenario can say, and not nothing.
  const isMixture = namesOf.experts.some((name) => Array.isArray(config[name])) || of("experts") !== undefined
  const needed = [
    ...(["width", "layers", "heads", "vocabulary"] as const),
    ...(isMixture ? (["experts", "topK"] as const) : []),
    of("expertWidth") === undefined ? ("inner" as const) : ("expertWidth" as const)
  ]
  const missing = needed.filter((field) => of(field) === undefined)
  if (missing.length > 0) return { missing: missing.map((field) => namesOf[field][0]) }
  const [width, heads, layers] = [of("width")!, of("heads")!, of("layers")!]
  const type = String(config["model_type"])
  const isLatent = numberIn(config, "kv_lora_rank") !== undefined
  const headWidth =
    numberIn(config, isLatent ? "v_head_dim" : "head_dim") ?? headWidthByDefault[type] ?? width / heads
  if (!Number.isInteger(headWidth)) return { missing: ["head_dim"] }
  const ffnWidth = isMixture ? (of("expertWidth") ?? of("inner")!) : of("inner")!
  const tied = config["tie_word_embeddings"]
  return {
    type,
    config,
    layers,
    width,
    heads,
    kvHeads: isLatent ? heads : (numberIn(config, "num_key_value_heads") ?? heads),
    headWidth,
    ffnWidth,
    denseWidth: numberIn(config, "intermediate_size_mlp") ?? of("inner") ?? ffnWidth,
    vocabulary: of("vocabulary")!,
    tied: typeof tied === "boolean" ? tied : tiedByDefault.test(type),
    experts: of("experts"),
    topK: of("topK") ?? 1,
    denseLayers: isMixture ? denseLayersOf(config, layers) : 0
  }
}

/** How many layers of a mixture have no experts. */
const denseLayersOf = (config: Config, layers: number): number => {
  const first = numberIn(config, "first_k_dense_replace") ?? 0
  const named = config["mlp_only_layers"]
  const kinds = config["mlp_layer_types"]
  const each = config["moe_layer_freq"]
  const step = numberIn(config, "decoder_sparse_step", "interleave_moe_layer_step") ?? 1
  const isDense = (layer: number): boolean =>
    layer < first ||
    (layer + 1) % step !== 0 ||
    (Array.isArray(named) && named.includes(layer)) ||
    (Array.isArray(kinds) && kinds[layer] === "dense") ||
    (Array.isArray(each) ? each[layer] === 0 : typeof each === "number" && each > 0 && layer % each !== 0)
  return Array.from({ length: layers }, (_, layer) => layer).filter(isDense).length
}

const dtypes = new Set(["float32", "bfloat16", "float16"])

const dtypeOf = ({ config }: Sizes): string => {
  const said = config["torch_dtype"] ?? config["dtype"]
  return typeof said === "string" && dtypes.has(said) ? said : "bfloat16"
}

/** Of experts that are kept narrower, as published; the method where no scenario has such. */
const quantized = ({ config }: Sizes): { readonly dtype?: string; readonly method?: string } => {
  const said = config["quantization_config"]
  if (!isObject(said)) return {}
  const method = String(said["quant_method"])
  const dtype = { fp8: "float8", mxfp4: "mxfp4" }[method]
  return { method, ...(dtype === undefined ? {} : { dtype }) }
}

/** What is not understood, or is otherwise than a scenario has it and weighs nothing. */
const notesOf = (config: Config, sizes: Sizes, isInner: boolean): ReadonlyArray<string> => {
  const { type } = sizes
  const notes: Array<string> = []
  if (!knownTypes.has(type))
    notes.push(
      `${type} is no architecture that is known here: sizes are taken by their usual names, and what else it has is not counted`
    )
  if (numberIn(config, "num_key_value_heads") === undefined && type !== "llama" && type !== "gpt2")
    notes.push(
      "num_key_value_heads is not said, and taken for as many as heads: a class may have another default"
    )
  const classes = Array.isArray(config["architectures"]) ? config["architectures"].map(String) : []
  if (classes.length > 0 && !classes.some((name) => /CausalLM|LMHead|ConditionalGeneration/u.test(name)))
    notes.push(`${classes.join(", ")} writes no text token by token, which all models here do`)
  if (isInner) notes.push("only its text_config is read: what sees or hears beside is left out")
  const kinds = Array.isArray(config["layer_types"]) ? config["layer_types"].map(String) : []
  const window = numberIn(config, "sliding_window")
  const windows = kinds.filter((kind) => /sliding|chunked/u.test(kind)).length
  if (windows > 0 || (window !== undefined && kinds.length === 0 && config["use_sliding_window"] !== false))
    notes.push(
      `attention over a window of ${window ?? numberIn(config, "attention_chunk_size") ?? "some"} tokens${windows > 0 ? ` in ${windows} of ${kinds.length} layers` : ""} is taken for attention over all: beyond it caches and steps are too large`
    )
  const others = kinds.filter((kind) => !kind.endsWith("attention") || kind.startsWith("linear")).length
  if (
    others > 0 ||
    numberIn(config, "full_attention_interval", "linear_num_key_heads", "mamba_d_state", "ssm_state_size") !==
      undefined
  )
    notes.push(
      "layers without attention (linear, convolution, state space) are taken for attention, which they are not"
    )
  if (numberIn(config, "num_nextn_predict_layers") !== undefined)
    notes.push("layers that predict further tokens (num_nextn_predict_layers) are left out, and not counted")
  const { method, dtype } = quantized(sizes)
  if (method !== undefined && dtype === undefined)
    notes.push(
      `weights are quantised by ${method}, which no scenario has: expertDtype says what comes nearest`
    )
  const activation = config["hidden_act"] ?? config["hidden_activation"] ?? config["activation_function"]
  if (typeof activation === "string" && !/silu|swi|swish/u.test(activation))
    notes.push(`${activation} is taken for SiLU, a gate beside it`)
  return notes
}

const countOf = (specs: Iterable<TensorSpec>): number => {
  let sum = 0
  for (const { shape } of specs) sum += elementsOf(shape)
  return sum
}

const parametersOf = (count: number): string =>
  count >= 1e8
    ? `${(count / 1e9).toPrecision(4)} billion`
    : count >= 1e5
      ? `${(count / 1e6).toPrecision(3)} million`
      : String(count)

/** YAML in one line. */
const flow = (fields: Readonly<Record<string, unknown>>): string =>
  `{${Object.entries(fields)
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${String(value)}`]))
    .join(", ")}}`

const countsOf = ({ type }: Sizes, modelled: number, whole: number): string => {
  const scenario = `a scenario of these sizes has ${parametersOf(modelled)} parameters`
  if (!knownTypes.has(type)) return `${scenario}; how many the model has is not known here`
  return whole === modelled
    ? `${parametersOf(whole)} parameters`
    : `${parametersOf(whole)} parameters; ${scenario}`
}

const reading = (
  sizes: Sizes,
  modelled: number,
  uses: ReadonlyArray<Use>,
  notes: ReadonlyArray<string>
): ModelReading => {
  const parts = partsOf(sizes)
  const whole = parts.reduce((sum, { parameters }) => sum + parameters, modelled)
  const { layers, denseLayers, width, heads, kvHeads, headWidth, experts, topK } = sizes
  const shape = `${counted(layers - denseLayers, "layer")} of width ${width}, ${heads} heads of ${headWidth} over ${kvHeads}`
  return {
    type: sizes.type,
    modelled,
    whole,
    contents: [
      experts === undefined ? shape : `${shape}, ${experts} experts of which a token has ${topK}`,
      countsOf(sizes, modelled, whole)
    ],
    uses,
    warnings: [
      ...parts.map(({ what, parameters }) =>
        parameters < 0
          ? `${what}: ${parametersOf(-parameters)} parameters too many`
          : `${what}: ${parametersOf(parameters)} parameters are left out`
      ),
      ...notes
    ]
  }
}

/** Whose feed-forward part is four times as wide as the model, and has no gate. */
const ofGpt2 = (config: Config): ModelReading | { readonly missing: ReadonlyArray<string> } => {
  const names = {
    layers: "n_layer",
    width: "n_embd",
    heads: "n_head",
    vocabulary: "vocab_size",
    context: "n_positions"
  }
  const missing = Object.values(names).filter((name) => numberIn(config, name) === undefined)
  if (missing.length > 0) return { missing }
  const fields = Object.fromEntries(
    Object.entries(names).map(([field, name]) => [field, numberIn(config, name)!])
  )
  const { layers, width, heads, vocabulary, context } = fields as Record<keyof typeof names, number>
  const whole = (vocabulary + context) * width + layers * (12 * width + 13) * width + 2 * width
  const inner = numberIn(config, "n_inner") ?? 4 * width
  return {
    type: "gpt2",
    modelled: whole,
    whole,
    contents: [
      `${counted(layers, "layer")} of width ${width}, ${heads} heads`,
      `${parametersOf(whole)} parameters`
    ],
    uses: [{ what: "train it, data-parallel", how: `model: {gpt2: ${flow(fields)}}` }],
    warnings:
      inner === 4 * width ? [] : [`n_inner is ${inner}, and taken for ${4 * width}: a scenario has no other`]
  }
}

const ofDense = (sizes: Sizes, notes: ReadonlyArray<string>): ModelReading => {
  const { layers, width, heads, kvHeads, headWidth, ffnWidth, vocabulary, tied } = sizes
  const fields = { layers, width, heads, kvHeads, headWidth, ffnWidth, vocabulary, tied }
  const model: DecoderModel = { ...fields, ropeBase: 10_000, dtype: "bfloat16" }
  const uses = [
    {
      what: "serve it with a key/value cache",
      how: `task: kv-serving, model: ${flow({ ...fields, dtype: dtypeOf(sizes) })}`
    },
    { what: "train it, data-parallel", how: `model: {llama: ${flow(fields)}}` }
  ]
  return reading(sizes, countOf(weightSpecs(model)), uses, notes)
}

const ofExperts = (sizes: Sizes, notes: ReadonlyArray<string>): ModelReading => {
  const { layers, denseLayers, width, heads, kvHeads, headWidth, ffnWidth, vocabulary, topK, tied } = sizes
  const experts = sizes.experts!
  const fields = {
    layers: layers - denseLayers,
    experts,
    topK,
    width,
    heads,
    kvHeads,
    headWidth,
    ffnWidth,
    vocabulary
  }
  const model: MoeModel = { ...fields, gated: true, normalize: true, dtype: "bfloat16" }
  const modelled =
    fields.layers * (countOf(Object.values(layerWeightSpecs(model, 0))) + experts * 3 * ffnWidth * width) +
    countOf(Object.values(outerWeightSpecs(model)))
  const dtype = dtypeOf(sizes)
  const uses = [
    {
      what: "decode with its experts in host memory",
      how: `task: expert-offload, model: ${flow({
        like: "mixtral-8x7b",
        ...fields,
        dtype: dtype === "float32" ? dtype : "bfloat16",
        expertDtype: quantized(sizes).dtype
      })}`
    },
    { what: "train it, data-parallel", how: `model: {mixtral: ${flow({ ...fields, tied })}}` }
  ]
  return reading(sizes, modelled, uses, notes)
}

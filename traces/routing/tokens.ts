// What every importer of routings makes: the choices of tokens, in the order they were computed, and which belong to one
// step. Also what warm-up looks like in them. Knows no format.
import type { RoutedSteps } from "../../core/algorithms/expert-offload/routing.ts"
import { showValue, TraceError } from "../trace-error.ts"

export interface TokenChoices {
  /** What messages call the layers, where some stand beside the model's own (multi-token prediction). */
  readonly titles?: ReadonlyArray<string>
  /** The layers' numbers in the source, ascending: layer i of the result is `layers[i]`. */
  readonly layers: ReadonlyArray<number>
  readonly topK: number
  /** Tokens in order; each [layers, topK], layer by layer. */
  readonly tokens: ReadonlyArray<Int32Array>
  /** Step of each token, ascending from 0; undefined where the source does not say. */
  readonly steps: ReadonlyArray<number> | undefined
}

/** What a recording of a routing does not say. */
export interface RoutingOptions {
  /** Tokens at the beginning that are one step, the prefill; all others are a step each. For sources without steps. */
  readonly promptTokens?: number
  /** Experts of a token, where the source does not say. */
  readonly topK?: number
  /** Keep long runs of identical tokens. */
  readonly keepWarmup?: boolean
}

/** A routing that was made of recordings, and what of them was left out. */
export interface RoutingReport {
  readonly routing: RoutedSteps
  /** The source's number of each layer. */
  readonly layers: ReadonlyArray<number>
  /** Tokens left out, in runs of at least `shortestRun` that all chose the same at every layer. */
  readonly warmupTokens: number
  readonly warnings: ReadonlyArray<string>
}

/**
 * Requests made up to warm a server up route alike at every layer; of real tokens not even a handful in a row does, save
 * where a log has one layer whose router is stuck. Logs of vLLM have been seen to be 31 to 87 % such rows.
 */
const shortestRun = 16

/** Which tokens belong to runs of at least `shortestRun` equal ones. */
const warmupTokens = (tokens: ReadonlyArray<Int32Array>): ReadonlyArray<boolean> => {
  const marked = tokens.map(() => false)
  for (let first = 0; first < tokens.length;) {
    let end = first + 1
    while (end < tokens.length && equal(tokens[end]!, tokens[first]!)) end++
    if (end - first >= shortestRun) marked.fill(true, first, end)
    first = end
  }
  return marked
}

const equal = (a: Int32Array, b: Int32Array): boolean => a.every((expert, i) => expert === b[i])

/** Leaves warm-up out and divides the tokens into steps. Throws TraceError when nothing is left. */
export const reportOf = (file: string, choices: TokenChoices, options: RoutingOptions): RoutingReport => {
  const { layers, topK } = choices
  const warnings: Array<string> = []
  const marked = options.keepWarmup === true ? choices.tokens.map(() => false) : warmupTokens(choices.tokens)
  const tokens = choices.tokens.filter((_, token) => !marked[token]!)
  const left = choices.tokens.length - tokens.length
  if (left > 0) {
    const share = Math.round((100 * left) / choices.tokens.length)
    warnings.push(
      `${left} of ${choices.tokens.length} tokens (${share} %) left out as warm-up: runs of ${shortestRun} or more that chose the same at every layer; keep them with --keep-warmup`
    )
  }
  if (tokens.length === 0) {
    throw new TraceError({
      file,
      field: "content",
      value: left > 0 ? "nothing but warm-up" : "no token",
      accepted: "the choices of at least one token"
    })
  }
  if (choices.steps !== undefined && options.promptTokens !== undefined)
    warnings.push("--prompt-tokens has no effect: the source says which tokens are a step")
  if (options.topK !== undefined && options.topK !== topK)
    warnings.push(`--top-k ${options.topK} has no effect: the source says ${topK} experts of a token`)
  const steps = choices.steps?.filter((_, token) => !marked[token]!) ?? stepsOfTokens(tokens.length, options)
  const groups: Array<Array<Int32Array>> = []
  tokens.forEach((token, index) => {
    if (index === 0 || steps[index] !== steps[index - 1]) groups.push([])
    groups.at(-1)!.push(token)
  })
  if (choices.titles !== undefined || layers.some((layer, index) => layer !== index))
    warnings.push(
      `layers ${(choices.titles ?? layers).join(", ")} of the source are layers 0 to ${layers.length - 1} of the file`
    )
  const experts = tokens.reduce((most, token) => token.reduce((a, b) => Math.max(a, b + 1), most), 0)
  return {
    routing: {
      shape: { layers: layers.length, experts },
      topK,
      choices: groups.map((group) =>
        layers.map((_, layer) =>
          Int32Array.from(group.flatMap((token) => [...token.subarray(layer * topK, (layer + 1) * topK)]))
        )
      )
    },
    layers,
    warmupTokens: left,
    warnings
  }
}

/**
 * Several requests one after the other. Of those whose source does not say which tokens are a step, the first
 * `promptTokens` are one and every other token is a step, request by request. Throws TraceError where they differ in layers.
 */
export const inTurn = (
  requests: ReadonlyArray<{ readonly file: string; readonly choices: TokenChoices }>,
  options: RoutingOptions
): TokenChoices => {
  const [first] = requests
  if (requests.length === 1) return first!.choices
  const tokens: Array<Int32Array> = []
  const steps: Array<number> = []
  let step = 0
  for (const { file, choices } of requests) {
    sameLayers(file, "layers", choices, first!.choices, `in ${first!.file}`)
    const own = choices.steps ?? stepsOfTokens(choices.tokens.length, options)
    for (const [index, token] of choices.tokens.entries()) {
      tokens.push(token)
      steps.push(step + own[index]!)
    }
    step += (own.at(-1) ?? -1) + 1
  }
  return { ...first!.choices, tokens, steps }
}

const stepsOfTokens = (tokens: number, { promptTokens = 1 }: RoutingOptions): ReadonlyArray<number> =>
  Array.from({ length: tokens }, (_, token) => Math.max(0, token + 1 - Math.max(1, promptTokens)))

const sameLayers = (
  file: string,
  field: string,
  { layers, topK }: Omit<TokenChoices, "steps">,
  first: Omit<TokenChoices, "steps">,
  where: string
): void => {
  if (layers.join() === first.layers.join() && topK === first.topK) return
  throw new TraceError({
    file,
    field,
    value: `layers ${layers.join(", ")}, top ${topK}`,
    accepted: `layers ${first.layers.join(", ")}, top ${first.topK}, as ${where}`
  })
}

/** The tokens of steps given layer by layer; all steps must have the same layers and top k. */
export const tokensOfSteps = (
  file: string,
  steps: ReadonlyArray<{
    readonly name: string
    readonly byLayer: ReadonlyMap<number, ReadonlyArray<ReadonlyArray<number>>>
  }>
): TokenChoices => {
  const choices = steps.map(({ byLayer }) => tokensByLayer(file, byLayer))
  for (const [step, own] of choices.entries())
    sameLayers(file, steps[step]!.name, own, choices[0]!, "the first step")
  return {
    layers: choices[0]?.layers ?? [],
    topK: choices[0]?.topK ?? 0,
    tokens: choices.flatMap(({ tokens }) => tokens),
    steps: choices.flatMap(({ tokens }, step) => tokens.map(() => step))
  }
}

/** A number of an expert as a source has it. */
export const expertOf = (file: string, field: string, value: unknown): number => {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 2 ** 31) return value
  throw new TraceError({
    file,
    field,
    value: showValue(value),
    accepted: "the number of an expert, from 0"
  })
}

/** Choices given layer by layer, each [tokens, topK], as tokens; every layer must have as many. */
export const tokensByLayer = (
  file: string,
  byLayer: ReadonlyMap<number, ReadonlyArray<ReadonlyArray<number>>>
): Omit<TokenChoices, "steps"> => {
  const layers = [...byLayer.keys()].toSorted((a, b) => a - b)
  const first = byLayer.get(layers[0] ?? 0) ?? []
  const topK = first[0]?.length ?? 0
  for (const layer of layers) {
    const rows = byLayer.get(layer)!
    if (rows.length !== first.length) {
      throw new TraceError({
        file,
        field: `layer ${layer}`,
        value: `${rows.length} tokens`,
        accepted: `${first.length} tokens, as layer ${layers[0]}`
      })
    }
    const odd = rows.findIndex((row) => row.length !== topK)
    if (odd >= 0) {
      throw new TraceError({
        file,
        field: `layer ${layer}, token ${odd}`,
        value: `${rows[odd]!.length} experts`,
        accepted: `${topK} experts, as every token`
      })
    }
  }
  const tokens = first.map((_, token) =>
    Int32Array.from(layers.flatMap((layer) => byLayer.get(layer)![token]!))
  )
  return { layers, topK, tokens }
}

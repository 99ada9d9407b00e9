// The forms in which other tools say which experts their tokens chose. docs/formats.md describes each.
import { TraceError } from "../trace-error.ts"
import { isNumpy, parseNumpy } from "./npy.ts"
import { expertOf, tokensByLayer, type RoutingOptions, type TokenChoices } from "./tokens.ts"

export const routingSources = ["vllm", "megatron", "llama-cpp", "json"] as const
export type RoutingSource = (typeof routingSources)[number]

type Parser = (file: string, bytes: Uint8Array, options: RoutingOptions) => TokenChoices

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replace(/^\uFEFF/, "")

const jsonOf = (file: string, field: string, text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const value = cause instanceof Error ? cause.message : String(cause)
    throw new TraceError({ file, field, value, accepted: "JSON" })
  }
}

const isList = (value: unknown): value is ReadonlyArray<unknown> => Array.isArray(value)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !isList(value)

const listOf = (file: string, field: string, value: unknown, accepted: string): ReadonlyArray<unknown> => {
  if (isList(value)) return value
  throw new TraceError({ file, field, value: JSON.stringify(value)?.slice(0, 80) ?? "missing", accepted })
}

/** [tokens, topK] of one layer. */
const rowsOf = (file: string, field: string, value: unknown): ReadonlyArray<ReadonlyArray<number>> =>
  listOf(file, field, value, "a list of tokens").map((row, token) =>
    listOf(file, `${field}[${token}]`, row, "a list of experts").map((expert, k) =>
      expertOf(file, `${field}[${token}][${k}]`, expert)
    )
  )

/** `CompletionOutput.routed_experts`, [tokens, layers, topK], saved as .npy or as nested lists. */
const vllm: Parser = (file, bytes) => {
  if (isNumpy(bytes)) {
    const { shape, data } = parseNumpy(file, bytes)
    const [count, layers, topK] = shape
    if (shape.length !== 3 || count === undefined || layers === undefined || topK === undefined) {
      throw new TraceError({
        file,
        field: "shape",
        value: `(${shape.join(", ")})`,
        accepted: "(tokens, layers, top k)"
      })
    }
    data.forEach((expert, i) => expertOf(file, `element ${i}`, expert))
    const size = layers * topK
    return {
      layers: Array.from({ length: layers }, (_, layer) => layer),
      topK,
      tokens: Array.from({ length: count }, (_, token) => data.subarray(token * size, (token + 1) * size)),
      steps: undefined
    }
  }
  const parsed = jsonOf(file, "content", textOf(bytes))
  const given = isRecord(parsed) ? parsed["routed_experts"] : parsed
  const tokens = listOf(
    file,
    "routed_experts",
    given,
    "nested lists [tokens][layers][top k], or an .npy file"
  )
  const byLayer = new Map<number, Array<ReadonlyArray<number>>>()
  const layerCount = tokens.length === 0 ? 0 : listOf(file, "[0]", tokens[0], "a list of layers").length
  tokens.forEach((token, t) => {
    const layers = rowsOf(file, `[${t}]`, token)
    if (layers.length !== layerCount) {
      throw new TraceError({
        file,
        field: `[${t}]`,
        value: `${layers.length} layers`,
        accepted: `${layerCount} layers`
      })
    }
    layers.forEach((row, layer) => {
      const own = byLayer.get(layer)
      if (own === undefined) byLayer.set(layer, [row])
      else own.push(row)
    })
  })
  return { ...tokensByLayer(file, byLayer), steps: undefined }
}

/**
 * Megatron-Core's `--moe-routing-trace-path`: a JSON object a line with step, layer, rank and top_indices [tokens][topK].
 * Tokens of several ranks stand in the order of ranks.
 */
const megatron: Parser = (file, bytes) => {
  const steps = new Map<
    number,
    Map<number, Array<{ readonly rank: number; readonly rows: ReadonlyArray<ReadonlyArray<number>> }>>
  >()
  textOf(bytes)
    .split("\n")
    .forEach((text, index) => {
      if (text.trim() === "") return
      const line = `line ${index + 1}`
      const record = jsonOf(file, line, text)
      if (!isRecord(record))
        throw new TraceError({ file, field: line, value: text.slice(0, 80), accepted: "an object" })
      const number = (name: string, fallback?: number): number =>
        expertOf(file, `${line}, ${name}`, record[name] ?? fallback)
      const layers = entry(steps, number("step"), () => new Map())
      const parts = entry(layers, number("layer"), () => [])
      parts.push({
        rank: number("rank", 0),
        rows: rowsOf(file, `${line}, top_indices`, record["top_indices"])
      })
    })
  const choices: Array<Omit<TokenChoices, "steps">> = []
  const stepOf: Array<number> = []
  ;[...steps.keys()]
    .toSorted((a, b) => a - b)
    .forEach((step, index) => {
      const byLayer = new Map(
        [...steps.get(step)!].map(([layer, parts]) => [
          layer,
          parts.toSorted((a, b) => a.rank - b.rank).flatMap(({ rows }) => rows)
        ])
      )
      const own = tokensByLayer(file, byLayer)
      const first = choices[0] ?? own
      if (own.layers.join() !== first.layers.join() || own.topK !== first.topK) {
        throw new TraceError({
          file,
          field: `step ${step}`,
          value: `layers ${own.layers.join(", ")}, top ${own.topK}`,
          accepted: `layers ${first.layers.join(", ")}, top ${first.topK}, as the first step`
        })
      }
      choices.push(own)
      for (const _ of own.tokens) stepOf.push(index)
    })
  const first = choices[0]
  return {
    layers: first?.layers ?? [],
    topK: first?.topK ?? 0,
    tokens: choices.flatMap(({ tokens }) => tokens),
    steps: stepOf
  }
}

const entry = <K, V>(map: Map<K, V>, key: K, make: () => V): V => {
  let value = map.get(key)
  if (value === undefined) map.set(key, (value = make()))
  return value
}

/**
 * llama.cpp's moe-trace: CSV `layer,expert`, a row for each expert, layer after layer as they are computed. A new step
 * begins where the layer's number falls; where there is one layer only, nothing tells steps apart. Without `topK`, the
 * shortest run of rows of one layer is a token: for one layer, say it.
 */
const llamaCpp: Parser = (file, bytes, options) => {
  const steps: Array<Map<number, Array<number>>> = []
  let before = Infinity
  const [head, ...lines] = textOf(bytes).split(/\r?\n/)
  const headed = head?.trim().toLowerCase().replaceAll(" ", "") === "layer,expert"
  ;(headed ? lines : [head ?? "", ...lines]).forEach((text, index) => {
    if (text.trim() === "" || text.startsWith("#")) return
    const line = `line ${index + (headed ? 2 : 1)}`
    const cells = text.split(",").map((cell) => cell.trim())
    if (cells.length !== 2 || cells.some((cell) => !/^\d+$/.test(cell))) {
      throw new TraceError({
        file,
        field: line,
        value: text.slice(0, 80),
        accepted: "two whole numbers: layer,expert"
      })
    }
    const [layer, expert] = cells.map(Number) as [number, number]
    if (layer < before) steps.push(new Map())
    before = layer
    entry(steps.at(-1)!, layer, () => []).push(expertOf(file, line, expert))
  })
  const runs = steps.flatMap((step) => [...step.values()].map((rows) => rows.length))
  const topK = options.topK ?? runs.reduce((least, run) => Math.min(least, run), runs[0] ?? 0)
  const parts = steps.map((step, index) => {
    const byLayer = new Map(
      [...step].map(([layer, experts]) => {
        if (experts.length % topK !== 0) {
          throw new TraceError({
            file,
            field: `step ${index}, layer ${layer}`,
            value: `${experts.length} rows`,
            accepted: `a multiple of ${topK} experts a token; say another with --top-k`
          })
        }
        const tokens = Array.from({ length: experts.length / topK }, (_, token) =>
          experts.slice(token * topK, (token + 1) * topK)
        )
        return [layer, tokens] as const
      })
    )
    return tokensByLayer(file, byLayer)
  })
  const first = parts[0]
  const odd = parts.findIndex(({ layers }) => layers.join() !== first!.layers.join())
  if (odd >= 0) {
    throw new TraceError({
      file,
      field: `step ${odd}`,
      value: `layers ${parts[odd]!.layers.join(", ")}`,
      accepted: `layers ${first!.layers.join(", ")}, as the first step`
    })
  }
  return {
    layers: first?.layers ?? [],
    topK,
    tokens: parts.flatMap(({ tokens }) => tokens),
    steps:
      first?.layers.length === 1 ? undefined : parts.flatMap(({ tokens }, step) => tokens.map(() => step))
  }
}

/**
 * Plain JSON: per layer a list [tokens][topK], as a list of layers or an object by layer number (null for a dense layer);
 * or a list of such objects, one a step.
 */
const json: Parser = (file, bytes) => {
  const parsed = jsonOf(file, "content", textOf(bytes))
  if (isList(parsed) && parsed.length > 0 && parsed.every(isRecord)) {
    const parts = parsed.map((step, index) => tokensByLayer(file, layersOf(file, `[${index}]`, step)))
    const [first] = parts
    const odd = parts.findIndex(
      ({ layers, topK }) => layers.join() !== first!.layers.join() || topK !== first!.topK
    )
    if (odd >= 0) {
      throw new TraceError({
        file,
        field: `[${odd}]`,
        value: `layers ${parts[odd]!.layers.join(", ")}, top ${parts[odd]!.topK}`,
        accepted: `layers ${first!.layers.join(", ")}, top ${first!.topK}, as the first step`
      })
    }
    return {
      layers: first!.layers,
      topK: first!.topK,
      tokens: parts.flatMap(({ tokens }) => tokens),
      steps: parts.flatMap(({ tokens }, step) => tokens.map(() => step))
    }
  }
  return { ...tokensByLayer(file, layersOf(file, "", parsed)), steps: undefined }
}

const layersOf = (file: string, field: string, value: unknown) => {
  if (!isList(value) && !isRecord(value)) {
    throw new TraceError({
      file,
      field: field === "" ? "content" : field,
      value: JSON.stringify(value) ?? "missing",
      accepted: "a list of layers, or an object of layers by number"
    })
  }
  const byLayer = new Map<number, ReadonlyArray<ReadonlyArray<number>>>()
  for (const [name, rows] of Object.entries(value)) {
    if (rows === null) continue
    const layer = expertOf(
      file,
      `${field}[${JSON.stringify(name)}]`,
      /^\d+$/.test(name) ? Number(name) : name
    )
    byLayer.set(layer, rowsOf(file, `${field}[${name}]`, rows))
  }
  return byLayer
}

export const parsers: Readonly<Record<RoutingSource, Parser>> = {
  vllm,
  megatron,
  "llama-cpp": llamaCpp,
  json
}

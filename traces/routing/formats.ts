// The forms in which other tools say which experts their tokens chose. docs/formats.md describes each.
import { decodeText, tableLines, textLines } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { entry, isList, isRecord, jsonOf, rowsOf } from "./json-values.ts"
import { moeBeyond } from "./moe-beyond.ts"
import { rows } from "./rows.ts"
import { sglang } from "./sglang.ts"
import type { RoutingSource } from "./sources.ts"
import { expertOf, tokensByLayer, tokensOfSteps, type RoutingOptions, type TokenChoices } from "./tokens.ts"
import { vllm } from "./vllm.ts"

type Parser = (file: string, bytes: Uint8Array, options: RoutingOptions) => TokenChoices

/**
 * Megatron-Core's `--moe-routing-trace-path`: a JSON object a line with step, layer, rank and top_indices [tokens][topK].
 * Tokens of several ranks stand in the order of ranks.
 */
const megatron: Parser = (file, bytes) => {
  const steps = new Map<
    number,
    Map<number, Array<{ readonly rank: number; readonly rows: ReadonlyArray<ReadonlyArray<number>> }>>
  >()
  textLines(decodeText(file, bytes)).forEach((text, index) => {
    if (text.trim() === "") return
    const line = `line ${index + 1}`
    const record = jsonOf(file, line, text)
    if (!isRecord(record))
      throw new TraceError({ file, field: line, value: text.slice(0, 80), accepted: "an object" })
    const number = (name: string, fallback?: number): number =>
      expertOf(file, `${line}, ${name}`, record[name] ?? fallback)
    const layers = entry(steps, number("step"), () => new Map())
    const refuse = (field: string, value: unknown, accepted: string) =>
      new TraceError({ file, field: `${line}, ${field}`, value: showValue(value), accepted })
    const parts = entry(layers, layerNumber(number("layer"), record, number, refuse), () => [])
    parts.push({
      rank: number("rank", 0),
      rows: rowsOf(file, `${line}, top_indices`, record["top_indices"])
    })
  })
  const found = tokensOfSteps(
    file,
    [...steps]
      .toSorted((a, b) => a[0] - b[0])
      .map(([step, layers]) => ({
        name: `step ${step}`,
        byLayer: new Map(
          [...layers].map(([layer, parts]) => [
            layer,
            parts.toSorted((a, b) => a.rank - b.rank).flatMap(({ rows }) => rows)
          ])
        )
      }))
  )
  return found.layers.some((layer) => layer >= besideModel)
    ? { ...found, titles: found.layers.map(layerTitle) }
    : found
}

/** Blocks for multi-token prediction count their layers anew: theirs follow the model's, each block's in turn. */
const besideModel = 2 ** 20

const layerNumber = (
  layer: number,
  record: Readonly<Record<string, unknown>>,
  number: (name: string, fallback?: number) => number,
  refuse: (field: string, value: unknown, accepted: string) => TraceError
): number => {
  const { block } = record
  const name = typeof block === "string" ? block.toLowerCase() : block
  if (name === undefined || name === "decoder") return layer
  if (name === "mtp") return besideModel * (1 + number("mtp_idx", 0)) + layer
  throw refuse("block", block, "decoder or mtp")
}

const layerTitle = (layer: number): string =>
  layer < besideModel ? String(layer) : `mtp ${Math.floor(layer / besideModel) - 1}.${layer % besideModel}`

/**
 * llama.cpp's moe-trace: CSV `layer,expert`, a row for each expert, layer after layer as they are computed. A new step
 * begins where the layer's number falls; where there is one layer only, nothing tells steps apart. Without `topK`, the
 * shortest run of rows of one layer is a token: for one layer, say it.
 */
const llamaCpp: Parser = (file, bytes, options) => {
  const steps: Array<Map<number, Array<number>>> = []
  let before = Infinity
  const all = tableLines(file, decodeText(file, bytes), (cells) => cells.length === 2)
  const header = all[0]?.cells.join(",").toLowerCase()
  const isTurned = header === "expert,layer"
  const headed = isTurned || header === "layer,expert"
  for (const { number, cells } of headed ? all.slice(1) : all) {
    if (cells[0]!.startsWith("#")) continue
    const line = `line ${number}`
    if (cells.length !== 2 || cells.some((cell) => !/^\d+$/.test(cell))) {
      throw new TraceError({
        file,
        field: line,
        value: cells.join(",").slice(0, 80),
        accepted: "two whole numbers: layer,expert"
      })
    }
    const [layer, expert] = (isTurned ? cells.toReversed() : cells).map(Number) as [number, number]
    if (layer < before) steps.push(new Map())
    before = layer
    entry(steps.at(-1)!, layer, () => []).push(expertOf(file, line, expert))
  }
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
 * or a list of such objects or lists, one a step.
 */
const json: Parser = (file, bytes) => {
  const parsed = jsonOf(file, "content", decodeText(file, bytes))
  if (isList(parsed) && parsed.length > 0 && (parsed.every(isRecord) || isDeep(parsed, 4))) {
    return tokensOfSteps(
      file,
      parsed.map((step, index) => ({ name: `[${index}]`, byLayer: layersOf(file, `[${index}]`, step) }))
    )
  }
  return { ...tokensByLayer(file, layersOf(file, "", parsed)), steps: undefined }
}

/** Whether lists lie in lists `depth` deep anywhere; looks no deeper. */
const isDeep = (value: unknown, depth: number): boolean =>
  isList(value) && (depth === 1 || value.some((element) => isDeep(element, depth - 1)))

/** The numbers in names of layers ("3", "layer_3", "model.layers.3.mlp.gate"): the one by which they differ; undefined where several do, or none. */
const layerNumbers = (names: ReadonlyArray<string>): ReadonlyArray<number> | undefined => {
  const parts = names.map((name) => name.split(/(\d+)/u))
  const [first = []] = parts
  if (parts.some((own) => own.length !== first.length)) return undefined
  const differing = first.flatMap((_, at) => (parts.some((own) => own[at] !== first[at]) ? [at] : []))
  // A single layer has nothing to differ from: its only number.
  const at = parts.length === 1 && first.length === 3 ? 1 : differing[0]
  return differing.length > 1 || at === undefined || at % 2 === 0
    ? undefined
    : parts.map((own) => Number(own[at]))
}

const layersOf = (file: string, field: string, value: unknown) => {
  if (!isList(value) && !isRecord(value)) {
    throw new TraceError({
      file,
      field: field === "" ? "content" : field,
      value: showValue(value),
      accepted: "a list of layers, or an object of layers by number"
    })
  }
  const byLayer = new Map<number, ReadonlyArray<ReadonlyArray<number>>>()
  const numbers = layerNumbers(Object.keys(value))
  for (const [index, [name, rows]] of Object.entries(value).entries()) {
    if (rows === null) continue
    const layer = expertOf(file, `${field}[${JSON.stringify(name)}]`, numbers?.[index] ?? name)
    byLayer.set(layer, rowsOf(file, `${field}[${name}]`, rows))
  }
  return byLayer
}

export const parsers: Readonly<Record<RoutingSource, Parser>> = {
  vllm,
  sglang,
  megatron,
  "llama-cpp": llamaCpp,
  "moe-beyond": moeBeyond,
  json,
  rows
}

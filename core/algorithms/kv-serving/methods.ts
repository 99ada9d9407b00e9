// Every way to keep a key/value cache small that a scenario can name: the one list, and what follows from it.
import * as Schema from "effect/Schema"
import { Positive, withDefault } from "../../fields.ts"
import { printIntegers } from "../../kernels/integer-list.ts"
import { arbitrary, defaultsOf, settingsOf } from "../algorithm.ts"
import {
  choose,
  observed,
  poolScores,
  topTokens,
  windowScores,
  type ChoiceCall,
  type LayerChoice,
  type Observation
} from "./choice.ts"
import { kvpressChunks, paperChunks } from "./chunks.ts"
import { cacheMethod, type CacheMethod } from "./method.ts"
import type { DecoderModel } from "./model.ts"

const Share = Schema.Number.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1))
const OddKernel = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1001 }))
const Pooling = Schema.Literals(["avg", "max"])

/** How much of a prompt stays: a share of its tokens, or so many tokens. One of the two; default keep: 0.1. */
const size = {
  keep: Schema.optionalKey(Share),
  budget: Schema.optionalKey(Positive)
}

const drawnSize = (maxTokens: number) =>
  ({
    keep: [0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9, 1],
    budget: { from: 1, to: 4 * maxTokens },
    inTokens: [false, false, false, true]
  }) as const

/** A share three times of four, a number of tokens otherwise. */
const sizeOf = (drawn: { readonly keep: number; readonly budget: number; readonly inTokens: boolean }) =>
  drawn.inTokens ? { budget: drawn.budget } : { keep: drawn.keep }

const drawnPool = { kernel: [1, 3, 5, 7], pooling: Pooling.literals } as const

const tokens = (maxTokens: number) => ({ from: 1, to: maxTokens }) as const

/** Settings, other than usual, that decide which tokens stay and not how many: time does not depend on them. */
const onlyWhich = <T extends Readonly<Record<string, unknown>>>(
  settings: T,
  usual: T,
  fields: ReadonlyArray<keyof T & string>
): ReadonlyArray<string> =>
  fields
    .filter((field) => settings[field] !== usual[field])
    .map((field) => `algorithm.${field} decides which tokens stay, not how long anything takes`)

/** The same in every layer. */
const inAllLayers = ({ layers }: DecoderModel, choice: LayerChoice): ReadonlyArray<LayerChoice> =>
  Array.from({ length: layers }, () => choice)

/** Every token stays. */
const fullCache = cacheMethod({
  title: "Full cache",
  settings: Schema.Struct({ name: Schema.Literal("full") }),
  choices: (_, model) => inAllLayers(model, { kind: "all" }),
  arbitrary: () => arbitrary({}, () => ({ name: "full" as const }))
})

/** The first `sinks` tokens and the newest (Xiao et al., arXiv:2309.17453). */
const sinkSettings = Schema.Struct({
  name: Schema.Literal("streaming-llm"),
  ...size,
  sinks: withDefault(Positive, 4)
})

const streamingLlm = cacheMethod({
  title: "StreamingLLM",
  settings: sinkSettings,
  ignored: (own) => onlyWhich(own, defaultsOf(sinkSettings), ["sinks"]),
  choices: ({ sinks }, model, { time, limit }) => {
    const attributes = { time, sinks: Math.min(sinks, limit), count: limit }
    const call: ChoiceCall = { kernel: "kv.sink_tokens", attributes, reads: "nothing" }
    return inAllLayers(model, choose([call], limit, true))
  },
  arbitrary: ({ maxTokens }) =>
    arbitrary({ ...drawnSize(maxTokens), sinks: tokens(maxTokens) }, ({ sinks, ...drawn }) => ({
      name: "streaming-llm" as const,
      ...sizeOf(drawn),
      sinks
    }))
})

/** Heavy hitters: attention accumulated over the whole prompt, and the last `window` tokens (arXiv:2306.14048). */
const h2oSettings = Schema.Struct({ name: Schema.Literal("h2o"), ...size, window: withDefault(Positive, 32) })

const h2o = cacheMethod({
  title: "H2O",
  settings: h2oSettings,
  ignored: (own) => onlyWhich(own, defaultsOf(h2oSettings), ["window"]),
  choices: ({ window }, model, { time, limit }) => {
    // Attention accumulated over every query: a window of the whole prompt.
    const scores = windowScores(model, time, true)
    const pool = poolScores({ window, kernel: 1, pooling: "avg" }, limit)
    return inAllLayers(model, choose([scores, pool, topTokens(limit)], limit, true))
  },
  arbitrary: ({ maxTokens }) =>
    arbitrary({ ...drawnSize(maxTokens), window: tokens(maxTokens) }, ({ window, ...drawn }) => ({
      name: "h2o" as const,
      ...sizeOf(drawn),
      window
    }))
})

const observing = {
  ...size,
  /** Queries that look, and tokens that always stay: the last so many. */
  window: withDefault(Positive, 32),
  /** Width of the pool over neighbouring scores. */
  kernel: withDefault(OddKernel, 5),
  pooling: withDefault(Pooling, "avg")
}

/** What the prompt's last tokens attend to (arXiv:2404.14469). */
const snapSettings = Schema.Struct({ name: Schema.Literal("snapkv"), ...observing })

const snapKv = cacheMethod({
  title: "SnapKV",
  settings: snapSettings,
  ignored: (own) => onlyWhich(own, defaultsOf(snapSettings), ["kernel", "pooling"]),
  choices: (settings, model, { limit }) => inAllLayers(model, observed(settings, model, limit)),
  arbitrary: ({ maxTokens }) =>
    arbitrary(
      { ...drawnSize(maxTokens), window: tokens(maxTokens), ...drawnPool },
      ({ window, kernel, pooling, ...drawn }) => ({
        name: "snapkv" as const,
        ...sizeOf(drawn),
        window,
        kernel,
        pooling
      })
    )
})

/** SnapKV with more room in low layers than in high ones (arXiv:2406.02069). */
const pyramidSettings = Schema.Struct({
  name: Schema.Literal("pyramidkv"),
  ...observing,
  /** The top layer's share of the room is 1 / beta of the mean. */
  beta: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })), 20)
})

const pyramidKv = cacheMethod({
  title: "PyramidKV",
  settings: pyramidSettings,
  ignored: (own) => onlyWhich(own, defaultsOf(pyramidSettings), ["kernel", "pooling"]),
  choices: (settings, model, { time, limit }) =>
    pyramidRooms(settings, model.layers, time, limit).map((room) =>
      room >= time ? { kind: "all" } : observed(settings, model, room)
    ),
  arbitrary: ({ maxTokens }) =>
    arbitrary(
      { ...drawnSize(maxTokens), window: tokens(maxTokens), ...drawnPool, beta: [1, 2, 20] },
      ({ window, kernel, pooling, beta, ...drawn }) => ({
        name: "pyramidkv" as const,
        ...sizeOf(drawn),
        window,
        kernel,
        pooling,
        beta
      })
    )
})

/**
 * PyramidKV's room in each layer, window included: linear from the lowest layer to the highest, where it is 1 / beta of the
 * mean; the mean is `limit`. No layer has more room than tokens: what the lowest cannot use goes to the highest.
 */
const pyramidRooms = (
  settings: Observation & { readonly beta: number },
  layers: number,
  time: number,
  limit: number
): ReadonlyArray<number> => {
  const window = Math.min(settings.window, limit)
  const mean = limit - window
  const least = Math.floor(mean / settings.beta)
  const most = Math.min(2 * mean - least, time - window)
  const last = 2 * mean - most
  return Array.from({ length: layers }, (_, layer) =>
    layers === 1 ? limit : window + most - Math.round((layer * (most - last)) / (layers - 1))
  )
}

const Rule = Schema.Literals(["paper", "kvpress"])

const chunkSettings = Schema.Struct({
  name: Schema.Literal("chunkkv"),
  ...size,
  /** `paper`: Algorithm 1. `kvpress`: NVIDIA's library, which pools SnapKV's scores and counts whole chunks. */
  rule: withDefault(Rule, "paper"),
  /** Tokens in a chunk; default 10 (paper), 20 (kvpress). */
  chunk: Schema.optionalKey(Positive),
  /** Default 32 (paper), 64 (kvpress). */
  window: Schema.optionalKey(Positive),
  /** Of the kvpress rule. */
  kernel: withDefault(OddKernel, 5),
  pooling: withDefault(Pooling, "avg"),
  /** Layers that share one choice: the first of so many makes it, the others use it (Algorithm 2). */
  reuse: withDefault(Positive, 1)
})

/** Whole chunks of tokens (arXiv:2502.00299). */
const chunkKv = cacheMethod({
  title: "ChunkKV",
  settings: chunkSettings,
  mustBeRead: true,
  choices: (settings, model, { time, limit }) => {
    const make = { paper: paperChunks, kvpress: kvpressChunks }[settings.rule]
    const leader = make(settings, model, time, limit)
    return Array.from({ length: model.layers }, (_, layer) => {
      const first = layer - (layer % settings.reuse)
      return layer === first ? leader : { kind: "as", layer: first }
    })
  },
  ignored: (settings) => {
    const usual = defaultsOf(chunkSettings)
    if (settings.rule !== "paper") return onlyWhich(settings, usual, ["kernel", "pooling"])
    return (["kernel", "pooling"] as const)
      .filter((field) => settings[field] !== usual[field])
      .map((field) => `algorithm.${field} has no effect: the paper's rule does not pool scores`)
  },
  arbitrary: ({ maxTokens }) =>
    arbitrary(
      {
        ...drawnSize(maxTokens),
        rule: Rule.literals,
        chunk: tokens(maxTokens),
        window: tokens(maxTokens),
        ...drawnPool,
        reuse: { from: 1, to: 3 }
      },
      ({ rule, chunk, window, kernel, pooling, reuse, ...drawn }) => ({
        name: "chunkkv" as const,
        ...sizeOf(drawn),
        rule,
        chunk,
        window,
        kernel,
        pooling,
        reuse
      })
    )
})

/** Whole examples of the prompt, single tokens of what was generated (arXiv:2502.01941). */
const shotKv = cacheMethod({
  title: "ShotKV",
  settings: Schema.Struct({
    name: Schema.Literal("shotkv"),
    ...size,
    window: withDefault(Positive, 32),
    /** Tokens in a shot, where a request does not say where its shots begin. */
    shot: withDefault(Positive, 128),
    /** Share of the generated tokens that stays. */
    decodeKeep: withDefault(Share, 1)
  }),
  mustBeRead: true,
  keepsNothing: ({ shot }, { time, limit, shots }) =>
    (shots ?? everyShot(shot, time)).every((from, i, starts) => (starts[i + 1] ?? time) - from > limit),
  choices: ({ window, shot }, model, { time, limit, shots }) => {
    const starts = printIntegers(shots ?? everyShot(shot, time))
    const calls: ReadonlyArray<ChoiceCall> = [
      windowScores(model, Math.min(window, time), true),
      { kernel: "kv.shot_scores", attributes: { starts }, reads: "previous" },
      { kernel: "kv.top_shots", attributes: { time, starts, budget: limit }, reads: "previous" }
    ]
    return inAllLayers(model, choose(calls, limit, false))
  },
  generatedShare: ({ decodeKeep }) => decodeKeep,
  arbitrary: ({ maxTokens, decodeEviction }) =>
    arbitrary(
      {
        ...drawnSize(maxTokens),
        window: tokens(maxTokens),
        shot: tokens(maxTokens),
        decodeKeep: decodeEviction ? [1, 0.5, 0.2] : [1]
      },
      ({ window, shot, decodeKeep, ...drawn }) => ({
        name: "shotkv" as const,
        ...sizeOf(drawn),
        window,
        shot,
        decodeKeep
      })
    )
})

const everyShot = (shot: number, time: number): ReadonlyArray<number> =>
  Array.from({ length: Math.ceil(time / shot) }, (_, index) => index * shot)

/** In the order that reports list them. */
export const cacheMethodList = [fullCache, streamingLlm, h2o, snapKv, pyramidKv, chunkKv, shotKv] as const

/** `algorithm` of a scenario: one schema per method, every field with its default. */
export const CacheSettings = Schema.Union(settingsOf(cacheMethodList))
export type CacheSettings = typeof CacheSettings.Type

/** Names as a scenario writes them. */
export const cacheMethods: ReadonlyArray<CacheSettings["name"]> = cacheMethodList.map(({ name }) => name)

const byName = new Map<string, CacheMethod>(cacheMethodList.map((one) => [one.name, one]))

export const cacheMethodNamed = (name: CacheSettings["name"]): CacheMethod => byName.get(name)!

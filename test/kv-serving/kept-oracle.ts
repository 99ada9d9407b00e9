// Which tokens each method keeps, written down from its definition: sets and sorts over whole matrices of attention, one
// statement a step, no kernels. Scores are float32 where a step's results are stored, as the catalogue says they are.
import type { CacheSettings } from "../../core/algorithms/kv-serving/methods.ts"

type Rows = ReadonlyArray<Float64Array>

/** Queries and keys of one layer, a row for each token. */
export interface Layer {
  readonly q: Rows
  readonly k: Rows
  readonly heads: number
  readonly kvHeads: number
  readonly headWidth: number
}

const range = (from: number, to: number): Array<number> =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i)

const sumOf = (values: Iterable<number>): number => {
  let sum = 0
  for (const value of values) sum += value
  return sum
}

/** Products of the query at `t` of head `h` with all keys. */
const products = (
  { q, k, heads, kvHeads, headWidth }: Layer,
  h: number,
  t: number
): ReadonlyArray<number> => {
  const kvHead = Math.floor((h * kvHeads) / heads)
  return k.map((key) =>
    sumOf(range(0, headWidth).map((i) => q[t]![h * headWidth + i]! * key[kvHead * headWidth + i]!))
  )
}

/** Causal attention probabilities of that query. */
const probabilities = (layer: Layer, h: number, t: number): ReadonlyArray<number> => {
  const visible = products(layer, h, t).slice(0, t + 1)
  const weights = visible.map((x) => Math.exp(x / Math.sqrt(layer.headWidth)))
  const total = sumOf(weights)
  return layer.k.map((_, s) => (s <= t ? weights[s]! / total : 0))
}

const groupOf = ({ heads, kvHeads }: Layer, kvHead: number): ReadonlyArray<number> => {
  const size = heads / kvHeads
  return range(kvHead * size, (kvHead + 1) * size)
}

/** [kvHead][token]: mean attention by the last `window` queries. */
const observed = (layer: Layer, window: number): ReadonlyArray<ReadonlyArray<number>> => {
  const time = layer.k.length
  return range(0, layer.kvHeads).map((kvHead) => {
    const group = groupOf(layer, kvHead)
    const rows = group.flatMap((h) => range(time - window, time).map((t) => probabilities(layer, h, t)))
    return range(0, time).map((s) => Math.fround(sumOf(rows.map((row) => row[s]!)) / rows.length))
  })
}

/** The last `window` tokens above all others, the others pooled over their neighbours. */
const pooled = (
  scores: ReadonlyArray<ReadonlyArray<number>>,
  window: number,
  kernel: number,
  mode: "avg" | "max"
): ReadonlyArray<ReadonlyArray<number>> => {
  const prefix = scores[0]!.length - window
  const lists = scores.map((list) =>
    range(0, prefix).map((t) => {
      const near = range(t - (kernel - 1) / 2, t + (kernel - 1) / 2 + 1).filter((s) => s >= 0 && s < prefix)
      const values = near.map((s) => list[s]!)
      return Math.fround(mode === "avg" ? sumOf(values) / kernel : Math.max(...values))
    })
  )
  const top = prefix === 0 ? 1 : Math.max(...lists.flat()) + 1
  return lists.map((list) => [...list, ...range(0, window).map(() => Math.fround(top))])
}

/** Best first, ties to the lower index. */
const order = (scores: ReadonlyArray<number>): ReadonlyArray<number> =>
  range(0, scores.length).toSorted((a, b) => (scores[a] === scores[b] ? a - b : scores[b]! - scores[a]!))

const chunksOf = (time: number, size: number): ReadonlyArray<ReadonlyArray<number>> =>
  range(0, Math.ceil(time / size)).map((c) => range(c * size, Math.min(time, (c + 1) * size)))

/** Tokens that stay in `layer` of `layers`, for each key/value head. Reuse is the caller's: it asks for the leader. */
export const keptBy = (
  settings: CacheSettings,
  layer: Layer,
  position: { readonly layer: number; readonly layers: number }
): ReadonlyArray<ReadonlyArray<number>> => {
  const time = layer.k.length
  const everyHead = (tokens: Iterable<number>) => {
    const list = [...new Set(tokens)].toSorted((a, b) => a - b)
    return range(0, layer.kvHeads).map(() => list)
  }
  if (settings.name === "full") return everyHead(range(0, time))
  const limit =
    settings.budget === undefined
      ? Math.max(1, Math.floor((settings.keep ?? 0.1) * time + 1e-9))
      : Math.min(time, settings.budget)
  if (limit >= time) return everyHead(range(0, time))
  const snap = (count: number, window: number, kernel: number, mode: "avg" | "max") =>
    pooled(observed(layer, Math.min(window, count)), Math.min(window, count), kernel, mode).map((scores) =>
      order(scores)
        .slice(0, count)
        .toSorted((a, b) => a - b)
    )
  switch (settings.name) {
    case "streaming-llm": {
      const sinks = Math.min(settings.sinks, limit)
      return everyHead([...range(0, sinks), ...range(time - (limit - sinks), time)])
    }
    case "h2o":
      return observed(layer, time).map((scores) => {
        const recent = range(time - Math.min(settings.window, limit), time)
        const others = order(scores.slice(0, time - recent.length)).slice(0, limit - recent.length)
        return [...others, ...recent].toSorted((a, b) => a - b)
      })
    case "snapkv":
      return snap(limit, settings.window, settings.kernel, settings.pooling)
    case "pyramidkv": {
      const window = Math.min(settings.window, limit)
      const least = Math.floor((limit - window) / settings.beta)
      const most = Math.min(2 * (limit - window) - least, time - window)
      const fall = most - (2 * (limit - window) - most)
      const room =
        position.layers === 1
          ? limit
          : window + most - Math.round((position.layer * fall) / (position.layers - 1))
      if (room >= time) return everyHead(range(0, time))
      return snap(room, settings.window, settings.kernel, settings.pooling)
    }
    case "chunkkv": {
      if (settings.rule === "paper") {
        const size = settings.chunk ?? 10
        const window = Math.min(settings.window ?? 32, limit)
        const chunks = chunksOf(time, size)
        const heads = range(0, layer.heads)
        const columns = range(0, layer.kvHeads).map((kvHead) => {
          const group = heads.filter((h) => Math.floor((h * layer.kvHeads) / layer.heads) === kvHead)
          const rows = group.flatMap((h) => range(time - window, time).map((t) => products(layer, h, t)))
          return range(0, time).map((s) => Math.fround(sumOf(rows.map((row) => row[s]!))))
        })
        const scores = chunks.map((tokens) =>
          Math.fround(sumOf(columns.flatMap((column) => tokens.map((t) => column[t]!))))
        )
        const best = order(scores).slice(0, Math.max(1, Math.floor(limit / size)))
        const tokens = best.flatMap((c) => chunks[c]!).toSorted((a, b) => a - b)
        return everyHead([...tokens.slice(0, limit - window), ...range(time - window, time)])
      }
      const size = settings.chunk ?? 20
      const window = Math.min(settings.window ?? 64, time)
      if (time < size) return snap(limit, window, settings.kernel, settings.pooling)
      const scores = pooled(observed(layer, window), window, settings.kernel, settings.pooling)
      const chunks = chunksOf(time, size)
      const means = chunks.map((tokens) =>
        Math.fround(sumOf(scores.flatMap((list) => tokens.map((t) => list[t]!))) / tokens.length)
      )
      const kept =
        settings.budget === undefined
          ? Math.trunc(chunks.length * (1 - (1 - (settings.keep ?? 0.1))))
          : Math.floor(limit / size)
      return everyHead(
        order(means)
          .slice(0, Math.max(1, kept))
          .flatMap((c) => chunks[c]!)
      )
    }
    case "shotkv": {
      const scores = observed(layer, Math.min(settings.window, time))
      const shots = chunksOf(time, settings.shot)
      const means = shots.map((tokens) =>
        Math.fround(sumOf(scores.flatMap((list) => tokens.map((t) => list[t]!))) / tokens.length)
      )
      const kept: Array<number> = []
      for (const shot of order(means))
        if (kept.length + shots[shot]!.length <= limit) kept.push(...shots[shot]!)
      return everyHead(kept)
    }
  }
}

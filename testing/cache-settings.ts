// Generated settings of key/value cache compression, as a scenario file would have them.
import * as fc from "fast-check"
import { cacheMethods, type CacheSettings } from "../core/algorithms/kv-serving/settings.ts"

export interface CacheConstraints {
  /** Default: all. */
  readonly methods?: ReadonlyArray<CacheSettings["name"]>
  /** Largest window, chunk and shot, in tokens. Default 12, which small prompts exceed now and then. */
  readonly maxTokens?: number
  /** Whether ShotKV may give up generated tokens. Default true. */
  readonly decodeEviction?: boolean
}

/** Settings of any method; shares of all sizes, 1 and budgets among them. */
export const cacheSettings = (constraints: CacheConstraints = {}): fc.Arbitrary<CacheSettings> => {
  const { methods = cacheMethods, maxTokens = 12, decodeEviction = true } = constraints
  const tokens = fc.integer({ min: 1, max: maxTokens })
  const size = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ keep: fc.constantFrom(0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9, 1) })
    },
    fc.record({ budget: fc.integer({ min: 1, max: 4 * maxTokens }) })
  )
  const pool = fc.record({
    kernel: fc.constantFrom(1, 3, 5, 7),
    pooling: fc.constantFrom("avg" as const, "max" as const)
  })
  const byName: { readonly [Name in CacheSettings["name"]]: fc.Arbitrary<CacheSettings> } = {
    full: fc.constant({ name: "full" }),
    "streaming-llm": fc
      .tuple(size, tokens)
      .map(([size, sinks]) => ({ name: "streaming-llm", ...size, sinks })),
    h2o: fc.tuple(size, tokens).map(([size, window]) => ({ name: "h2o", ...size, window })),
    snapkv: fc
      .tuple(size, tokens, pool)
      .map(([size, window, pool]) => ({ name: "snapkv", ...size, window, ...pool })),
    pyramidkv: fc
      .tuple(size, tokens, pool, fc.constantFrom(1, 2, 20))
      .map(([size, window, pool, beta]) => ({ name: "pyramidkv", ...size, window, ...pool, beta })),
    chunkkv: fc
      .tuple(
        size,
        fc.constantFrom("paper" as const, "kvpress" as const),
        tokens,
        tokens,
        pool,
        fc.integer({ min: 1, max: 3 })
      )
      .map(([size, rule, chunk, window, pool, reuse]) => ({
        name: "chunkkv",
        ...size,
        rule,
        chunk,
        window,
        ...pool,
        reuse
      })),
    shotkv: fc
      .tuple(size, tokens, tokens, decodeEviction ? fc.constantFrom(0.2, 0.5, 1) : fc.constant(1))
      .map(([size, window, shot, decodeKeep]) => ({ name: "shotkv", ...size, window, shot, decodeKeep }))
  }
  return fc.oneof(...methods.map((name) => byName[name]))
}

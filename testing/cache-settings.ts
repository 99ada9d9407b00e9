// Generated settings of key/value cache compression, as a scenario file would have them.
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import { cacheMethodNamed, cacheMethods, CacheSettings } from "../core/algorithms/kv-serving/methods.ts"
import { drawn } from "./draw.ts"

/** Which ways of compressing a cache are drawn, and how large. */
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
  return fc
    .oneof(...methods.map((name) => drawn(cacheMethodNamed(name).arbitrary({ maxTokens, decodeEviction }))))
    .map((choose) => Schema.decodeUnknownSync(CacheSettings)(choose(1)))
}

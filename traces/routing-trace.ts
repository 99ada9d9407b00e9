// A routing file as the steps that a workload runs through: every step's choices, layer by layer. Holds the file to being
// complete, for a missing token would silently make a cache look better.
import * as Effect from "effect/Effect"
import type { RoutedSteps } from "../core/algorithms/expert-offload/routing.ts"
import { foldRouting, type Routing } from "./routing-file.ts"
import { TraceError } from "./trace-error.ts"

/** Reads a routing whole. `experts` of the result is the largest expert that occurs, plus 1. */
export const readRoutedSteps = (path: string): Effect.Effect<RoutedSteps, TraceError> =>
  Effect.flatMap(
    foldRouting<Array<Routing>>(path, [], (parts, part) => {
      parts.push(part)
      return parts
    }),
    (parts) => {
      const routed = routedSteps(parts)
      return typeof routed === "string"
        ? Effect.fail(
            new TraceError({
              file: path,
              field: "rows",
              value: routed,
              accepted: "one row for every step, layer, token and choice, numbered from 0 without gaps"
            })
          )
        : Effect.succeed(routed)
    }
  )

/** The steps of a routing, or what is wrong with it. */
export const routedSteps = (parts: ReadonlyArray<Routing>): RoutedSteps | string => {
  let [layers, experts, topK, rows] = [0, 0, 0, 0]
  const tokens: Array<number> = []
  for (const { step, layer, token, choice, expert } of parts) {
    rows += step.length
    for (let row = 0; row < step.length; row++) {
      layers = Math.max(layers, layer[row]! + 1)
      experts = Math.max(experts, expert[row]! + 1)
      topK = Math.max(topK, choice[row]! + 1)
      tokens[step[row]!] = Math.max(tokens[step[row]!] ?? 0, token[row]! + 1)
    }
  }
  if (rows === 0) return "none"
  const steps = Array.from(tokens, (count) => count ?? 0)
  const empty = steps.indexOf(0)
  if (empty >= 0) return `no row of step ${empty}`
  const expected = steps.reduce((sum, count) => sum + count * layers * topK, 0)
  if (rows !== expected) {
    return `${rows} rows for ${steps.length} steps, ${layers} layers and ${topK} choices: ${expected} expected`
  }
  const choices = steps.map((count) =>
    Array.from({ length: layers }, () => new Int32Array(count * topK).fill(-1))
  )
  for (const { step, layer, token, choice, expert } of parts) {
    for (let row = 0; row < step.length; row++) {
      const [s, l, t, k] = [step[row]!, layer[row]!, token[row]!, choice[row]!]
      const chosen = choices[s]![l]!
      const at = t * topK + k
      if (at >= chosen.length || chosen[at] !== -1)
        return `step ${s}, layer ${l}, token ${t}, choice ${k} twice`
      chosen[at] = expert[row]!
    }
  }
  return { shape: { layers, experts }, topK, choices }
}

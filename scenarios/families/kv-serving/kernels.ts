// A serving scenario with real kernels: for both machines, and for `exec generate`, with random or trained weights. Weights,
// activations and caches are of the model's dtype.
import { greatest } from "../../../core/extremes.ts"
import * as Effect from "effect/Effect"
import type { ServingOutcome, ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import { InputError } from "../../../core/input-error.ts"
import { formatBytes, formatSeconds, formatShare, counted } from "../../../core/units.ts"
import type { Host } from "../../family.ts"
import type { ExecutedEnd, Generating, GeneratingChoices } from "../../generating.ts"
import type { Runnable } from "../../runnable.ts"
import { programs, resolveServing } from "./resolve.ts"
import type { KvServingScenario } from "./scenario.ts"
import { loadTrained, textOf, trainedServing, type Trained } from "./trained.ts"
import { servingValues } from "./values.ts"

interface Serving {
  readonly plan: ServingPlan
  readonly runnable: Runnable<ServingOutcome>
}

/** `trained`: weights and a text for prompts, instead of random ones. */
const servingOf = (
  scenario: KvServingScenario,
  file: string,
  { loader }: Host,
  trained?: Trained
): Effect.Effect<Serving, InputError> =>
  Effect.gen(function* () {
    const { plan: resolved, world } = yield* resolveServing(scenario, file, loader)
    const real: ServingPlan = {
      ...resolved,
      // Keys and values have no scales of blocks, without which those far smaller than 1 have no value of their own in int8 and float4.
      model: { ...resolved.model, cacheDtype: undefined }
    }
    const { plan, initial } =
      trained === undefined
        ? { plan: real, initial: servingValues(real, scenario.seed) }
        : yield* trainedServing(real, scenario.seed, trained, file)
    const { to, bandwidth = Infinity, latency } = scenario.transfer
    const bus = { bytesPerSecond: bandwidth, latencySeconds: latency }
    return {
      plan,
      runnable: {
        world,
        program: () => programs[to](plan),
        initial,
        network: scenario.network,
        collectives: "ring",
        capacityBytes: scenario.memory,
        ...(to === "host" ? { h2d: bus, d2h: bus } : {})
      }
    }
  })

export const kernels = (
  scenario: KvServingScenario,
  file: string,
  host: Host
): Effect.Effect<Runnable<ServingOutcome>, InputError> =>
  Effect.map(servingOf(scenario, file, host), ({ runnable }) => runnable)

/** How much of what is generated is printed; `--json` has all. */
const shownRequests = 8
const shownCharacters = 40
const show = (text: string): string => JSON.stringify(text)

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, n) => total + n, 0)

export const generating = (
  scenario: KvServingScenario,
  file: string,
  host: Host,
  choices: GeneratingChoices
): Effect.Effect<Generating<ServingOutcome, ExecutedEnd<ServingOutcome>>, InputError> =>
  Effect.gen(function* () {
    if (choices.verify === true) {
      return yield* new InputError({
        file,
        field: "task",
        value: scenario.task,
        accepted: "expert-offload with --verify; `exec agree` holds serving to the simulator"
      })
    }
    const trained =
      choices.weights === undefined ? undefined : yield* loadTrained(choices.weights, choices.text)
    const { plan, runnable } = yield* servingOf(scenario, file, host, trained)
    return {
      runnable,
      keep: (ended) => ended,
      tell: ({ ranks, makespanSeconds }) => {
        const finished = ranks
          .flatMap(({ value }) => value.finished)
          .toSorted((a, b) => a.request.id - b.request.id)
        const tokens = sum(finished.map((one) => one.tokens.length))
        const most = (place: "device" | "host") => greatest(ranks.map(({ peakBytes }) => peakBytes[place]))
        const result = {
          scenario: scenario.name,
          task: scenario.task,
          algorithm: scenario.algorithm.name,
          ranks: ranks.length,
          tokens,
          makespanSeconds,
          tokensPerSecond: tokens / makespanSeconds,
          peakBytes: { device: most("device"), host: most("host") },
          peakCacheBytes: greatest(ranks.map(({ value }) => value.peakCacheBytes)),
          ...(trained === undefined ? {} : { weights: trained.weights.name }),
          requests: finished.map(({ request: { id, promptTokens }, promptRows, tokens }) => ({
            id,
            promptTokens,
            keptRows: promptRows,
            tokens,
            ...(trained === undefined
              ? {}
              : {
                  prompt: textOf(trained, trained.prompt(id, promptTokens, scenario.seed)),
                  text: textOf(trained, tokens)
                })
          }))
        }
        const prompts = sum(plan.requests.map(({ promptTokens }) => promptTokens)) * plan.model.layers
        const kept = sum(result.requests.map(({ keptRows }) => sum(keptRows)))
        return {
          ok: true,
          json: result,
          lines: [
            `${result.scenario}: ${result.algorithm} on ${counted(result.ranks, "rank")}, ${counted(finished.length, "request")}`,
            `${tokens} tokens in ${formatSeconds(makespanSeconds)}, ${result.tokensPerSecond.toFixed(1)} tokens/s`,
            `cache      ${formatShare(kept / prompts)} of the prompts' rows kept; ${formatBytes(result.peakCacheBytes)} at most`,
            ...result.requests
              .slice(0, shownRequests)
              .flatMap(({ id, prompt, text }) =>
                prompt === undefined || text === undefined
                  ? []
                  : [`request ${id}  …${show(prompt.slice(-shownCharacters))} + ${show(text)}`]
              )
          ]
        }
      }
    }
  })

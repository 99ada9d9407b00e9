// A serving scenario resolved: its model, requests, costs and world, with the files it names read.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { drawRequests } from "../../../core/algorithms/kv-serving/arrivals.ts"
import { checkSettings } from "../../../core/algorithms/kv-serving/choices.ts"
import { cacheMethodNamed } from "../../../core/algorithms/kv-serving/methods.ts"
import { disaggregated } from "../../../core/algorithms/kv-serving/disaggregated.ts"
import type { DecoderModel } from "../../../core/algorithms/kv-serving/model.ts"
import { namedModels, positionsOf, type KvServingScenario, hostNever } from "./scenario.ts"
import type { ServingRequest } from "../../../core/algorithms/kv-serving/sequence.ts"
import { serve, serveThroughHost } from "../../../core/algorithms/kv-serving/serve.ts"
import type { ServingPlan } from "../../../core/algorithms/kv-serving/server.ts"
import { greatest } from "../../../core/extremes.ts"
import { InputError } from "../../../core/input-error.ts"
import { Random } from "../../../core/random.ts"
import { counted } from "../../../core/units.ts"
import { makeWorld, unlimited, unlimitedLinks, type World } from "../../../core/world.ts"
import { hostLinkSource, makeCostModel, type CostModel } from "../../../core/cost/cost-model.ts"
import { deviceNamed } from "../../../core/cost/devices.ts"
import { headWidthOf } from "../../../core/models/decoder-layer.ts"
import type { Loader } from "../../load.ts"
import { resolveHost } from "../../host.ts"
import { resolveDevice } from "../../resolve.ts"
import { resolveOpTable } from "../../op-table.ts"
import { fittedCosts } from "./costs.ts"
import { seedWarnings } from "./ignored.ts"
import { allStay, keptWarnings } from "./kept-warnings.ts"

interface ResolvedServing {
  readonly plan: ServingPlan
  readonly world: World
  /** A model of costs; each simulation wants its own, for each lists its own estimates. */
  readonly costs: () => CostModel
  readonly warnings: ReadonlyArray<string>
}

export const programs = { none: serve, host: serveThroughHost, node: disaggregated } as const

const defaultDevice = "NVIDIA H200"

export const resolveServing = (
  scenario: KvServingScenario,
  file: string,
  loader: Loader
): Effect.Effect<ResolvedServing, InputError> =>
  Effect.gen(function* () {
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field, value: String(value), accepted })
    const model = yield* resolveModel(scenario, refuse)
    const checked = checkSettings(scenario.algorithm)
    if (Result.isFailure(checked)) {
      const { field, value, accepted } = checked.failure
      return yield* refuse(`algorithm.${field}`, value, accepted)
    }
    const warnings: Array<string> = []
    const requests = yield* resolveRequests(scenario, file, loader, refuse, warnings)
    warnings.push(...keptWarnings(scenario.algorithm, model, requests))
    warnings.push(...arrivalWarnings(scenario.requests, requests))
    // Of methods that draw nothing it is told without the requests.
    if (cacheMethodNamed(scenario.algorithm.name).mustBeRead && allStay(scenario.algorithm, requests))
      warnings.push(...seedWarnings(scenario, false))
    warnings.push(...positionWarnings(scenario, requests))
    const { to, bandwidth = Infinity, latency, window } = scenario.transfer
    const world = makeWorld([{ name: "site 0", nodes: to === "node" ? [1, 1] : [1] }], {
      ...unlimitedLinks,
      inter:
        to === "node"
          ? { bytesPerSecond: bandwidth, latencySeconds: latency, windowBytes: window }
          : unlimited
    })
    const costs = yield* resolveCosts(scenario, model, file, loader)
    const { maxBatch, algorithm: settings } = scenario
    return { plan: { model, settings, requests, maxBatch }, world, costs, warnings }
  })

/** Requests of more tokens than a named model was made for. */
const positionWarnings = (
  { model }: KvServingScenario,
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  if (typeof model !== "string") return []
  const positions = positionsOf[model]
  const lengths = requests.map(({ promptTokens, outputTokens }) => promptTokens + outputTokens)
  const beyond = lengths.filter((length) => length > positions)
  return beyond.length === 0
    ? []
    : [
        `${model} was made for ${positions} tokens, prompt and output: ${beyond.length} of ${counted(requests.length, "request")} beyond, the longest of ${greatest(beyond)}`
      ]
}

/** How far apart requests are, where they all come at once. */
const arrivalWarnings = (
  settings: KvServingScenario["requests"],
  requests: ReadonlyArray<ServingRequest>
): ReadonlyArray<string> => {
  if (requests.some(({ arrivalSeconds }) => arrivalSeconds > 0)) return []
  if ("trace" in settings)
    return settings.speed === 1 ? [] : ["requests.speed has no effect: all requests come at once"]
  const { perSecond, arrivals } = settings
  return perSecond === undefined
    ? []
    : ["perSecond", ...(arrivals === "poisson" ? [] : ["arrivals"])].map(
        (field) => `requests.${field} has no effect: there is one request`
      )
}

type Refuse = (field: string, value: unknown, accepted: string) => InputError

const resolveModel = (
  { model, cacheDtype }: KvServingScenario,
  refuse: Refuse
): Effect.Effect<DecoderModel, InputError> => {
  const kept = cacheDtype === undefined ? {} : { cacheDtype }
  if (typeof model === "string") return Effect.succeed({ ...namedModels[model], ...kept })
  const { width, heads, kvHeads = heads } = model
  if (headWidthOf(model) % 2 !== 0)
    return Effect.fail(
      refuse(
        "model.heads",
        heads,
        `a divisor of the width ${width} that leaves an even head width, or an even headWidth`
      )
    )
  if (heads % kvHeads !== 0)
    return Effect.fail(refuse("model.kvHeads", kvHeads, `a divisor of the ${heads} heads`))
  return Effect.succeed({ ropeBase: 500_000, ...model, ...kept, kvHeads })
}

const resolveRequests = (
  { requests, seed }: KvServingScenario,
  file: string,
  loader: Loader,
  refuse: Refuse,
  warnings: Array<string>
): Effect.Effect<ReadonlyArray<ServingRequest>, InputError> =>
  Effect.gen(function* () {
    if ("trace" in requests) {
      const { trace, limit, speed } = requests
      const traced = yield* loader.requests(file, "requests.trace", trace)
      // A request without a prompt or without tokens to generate asks for nothing.
      const asking = traced.requests.filter(
        ({ promptTokens, outputTokens }) => promptTokens > 0 && outputTokens > 0
      )
      if (asking.length < traced.requests.length)
        warnings.push(
          `${counted(traced.requests.length - asking.length, "request", "of the trace asks for no tokens: left out", "of the trace ask for no tokens: left out")}`
        )
      warnings.push(...traced.warnings)
      if (traced.sharedPrefixes)
        warnings.push("the trace says which prompts begin alike; every prompt is prefilled in full here")
      if (asking.length === 0)
        return yield* refuse("requests.trace", [trace].flat().join(", "), "a trace with at least one request")
      return asking
        .slice(0, limit)
        .map((request, id) => ({ ...request, id, arrivalSeconds: request.arrivalSeconds / speed }))
    }
    const { count, prompt, output, perSecond = Infinity, arrivals } = requests
    for (const [name, length] of Object.entries({ prompt, output })) {
      if (typeof length !== "number" && length.from > length.to)
        return yield* refuse(
          `requests.${name}.from`,
          length.from,
          `at most ${length.to}, which it goes up to`
        )
    }
    return drawRequests({ count, prompt, output, perSecond, arrivals }, new Random(seed).split("requests"))
  })

const resolveCosts = (
  scenario: KvServingScenario,
  model: DecoderModel,
  file: string,
  loader: Loader
): Effect.Effect<() => CostModel, InputError> =>
  Effect.gen(function* () {
    const { costs, device: settings, host, transfer } = scenario
    if (costs !== undefined && "step" in costs) {
      const { step, token, prefill } = costs
      return () =>
        fittedCosts({
          stepSeconds: step,
          tokenSeconds: token,
          prefillFlopsPerSecond: prefill,
          model
        })
    }
    // A table that the scenario names is of the device it was measured on, known or not.
    const stated =
      resolveDevice(settings) ?? (costs?.ops === undefined ? deviceNamed(defaultDevice) : undefined)
    const ops = yield* resolveOpTable(costs?.ops, stated, "costs.ops", file, loader)
    const device = stated ?? ops?.measuredOn
    const timed = costs?.ops === undefined ? undefined : yield* loader.profile(file, "costs.ops", costs.ops)
    const known = yield* resolveHost(host, timed?.host, file, loader, hostNever(scenario))
    const link =
      transfer.to === "host" && transfer.bandwidth !== undefined
        ? [hostLinkSource({ bytesPerSecond: transfer.bandwidth, latencySeconds: 0 })]
        : []
    return () =>
      makeCostModel({
        sources: ops === undefined ? link : [...link, ops],
        device,
        launchSeconds: costs?.launch,
        host: known
      })
  })

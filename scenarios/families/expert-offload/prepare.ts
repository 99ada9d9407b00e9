// A scenario of offloaded experts, resolved: model, routing, workload, slots and costs. Fields that do not go together are
// found here; nothing is simulated.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import {
  demandOf,
  generateRouting,
  isSameRouting,
  tokensOf,
  type RoutedSteps
} from "../../../core/algorithms/expert-offload/routing.ts"
import type { Demand } from "../../../core/algorithms/expert-offload/demand.ts"
import { launchesOfLayer } from "../../../core/algorithms/expert-offload/launches.ts"
import { expertBytes, moeModels, type MoeModel } from "../../../core/algorithms/expert-offload/model.ts"
import type { SlotScope } from "../../../core/algorithms/expert-offload/optimum.ts"
import { featureNames, PredictorWeights } from "../../../core/algorithms/expert-offload/predictor/trained.ts"
import { routingPresets } from "../../../core/algorithms/expert-offload/routing-generator.ts"
import { hostNever, type ExpertOffloadScenario } from "./scenario.ts"
import type { ExpertOffloadSettings } from "../../../core/algorithms/expert-offload/algorithms.ts"
import { fixedScope, makeStrategy, type Strategy } from "../../../core/algorithms/expert-offload/strategy.ts"
import { stepsOf, type Workload } from "../../../core/algorithms/expert-offload/workload.ts"
import { InputError } from "../../../core/input-error.ts"
import { formatSeconds } from "../../../core/units.ts"
import { Random } from "../../../core/random.ts"
import { readRoutedSteps } from "../../../traces/routing-trace.ts"
import { readText } from "../../../traces/text.ts"
import { headWidthOf } from "../../../core/models/decoder-layer.ts"
import type { HostOptions } from "../../../core/cost/cost-model.ts"
import { deviceNamed } from "../../../core/cost/devices.ts"
import type { Loader } from "../../load.ts"
import { mostChoices, mostExperts, requireHeld } from "../../sizes.ts"
import { opTableOf } from "../../op-table.ts"
import { resolveHost } from "../../host.ts"
import { linkOf, resolveDevice } from "../../resolve.ts"
import { loadSeconds, readSeconds, type OffloadCosts } from "./costs.ts"
import { reasonOf } from "../../file/source.ts"

/** What a scenario says, resolved. */
export interface PlannedScenario {
  readonly model: MoeModel
  readonly workload: Workload
  readonly routing: RoutedSteps
  /** Whether tokens were divided anew, and none went to the other batch. */
  readonly tokensStayed: boolean
  readonly demand: Demand
  /** Slots in all, or of each layer: as `scope` says. */
  readonly slots: number
  readonly scope: SlotScope
  readonly costs: OffloadCosts
  /** Prefetches submitted at once where the algorithm does not say. */
  readonly window: number
  /** A fresh strategy of this scenario's algorithm, or of another under the same conditions, or for another demand or scope. */
  readonly strategy: (settings?: ExpertOffloadSettings, demand?: Demand, scope?: SlotScope) => Strategy
  /** Slots that an algorithm gets: in all where they are shared, of each layer where they are not. */
  readonly slotsOf: (
    settings: ExpertOffloadSettings,
    scope?: SlotScope
  ) => { readonly slots: number; readonly scope: SlotScope }
}

/** Of slots, where neither the scenario nor its algorithm says. */
export const usualScope: SlotScope = "per-layer"

const shippedWeights = "traces/expert-predictor.json"

export const planScenario = (
  scenario: ExpertOffloadScenario,
  file: string,
  loader: Loader
): Effect.Effect<PlannedScenario, InputError> =>
  Effect.gen(function* () {
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field, value: String(value), accepted })
    const model = yield* resolveModel(scenario, refuse)
    yield* requireHeld(
      { file, field: "model.layers", value: model.layers },
      model.experts,
      mostExperts,
      "experts of each"
    )
    const { batch, promptTokens, prefill, decodeTokens } = scenario.workload
    const perToken = batch * model.layers * model.topK
    yield* requireHeld(
      { file, field: "workload.decodeTokens", value: decodeTokens },
      perToken,
      mostChoices - (prefill ? promptTokens * perToken : 0),
      "choices of experts for each (sequences, layers and topK)"
    )
    const random = new Random(scenario.seed)
    const { routing, workload, tokensStayed } = yield* resolveRouting(
      scenario,
      model,
      file,
      loader,
      random,
      refuse
    )
    if (scenario.workload.warmupSteps >= decodeTokens) {
      return yield* refuse(
        "workload.warmupSteps",
        scenario.workload.warmupSteps,
        `less than the ${decodeTokens} decoding steps, so that some are measured`
      )
    }
    const demand = demandOf(routing)
    const profile = yield* loader.profile(file, "costs", scenario.costs)
    const device = resolveDevice(scenario.device) ?? deviceNamed(profile.device)
    const ops = opTableOf(profile, device)
    if (ops.isEmpty) {
      return yield* refuse(
        "costs",
        `${scenario.costs} (no timed kernels that can be looked up)`,
        "a profile of timed kernels, as `exec bench --out` or `sim import csv` makes"
      )
    }
    const { hostLink } = scenario
    const costs: OffloadCosts = {
      ops,
      device,
      host: yield* asRecorded(
        yield* resolveHost(scenario.host, profile.host, file, loader, hostNever),
        model,
        batch
      ),
      hostLink: hostLink === undefined ? undefined : linkOf(hostLink)
    }
    const allSlots = yield* resolveSlots(scenario, model, refuse)
    const slotsOf = (settings: ExpertOffloadSettings, asked = scenario.cache.scope ?? usualScope) => {
      const scope = fixedScope(settings) ?? asked
      return scope === "shared"
        ? { slots: allSlots, scope }
        : { slots: Math.floor(allSlots / model.layers), scope }
    }
    const own = slotsOf(scenario.algorithm)
    if (own.slots < 1) {
      return yield* refuse(
        "cache.bytes",
        scenario.cache.bytes,
        own.scope === "shared"
          ? `at least the ${expertBytes(model)} B of an expert`
          : `at least ${model.layers * expertBytes(model)} B: an expert of ${expertBytes(model)} B for each of ${model.layers} layers`
      )
    }
    const weights = yield* resolveWeights(scenario, file, loader, refuse)
    const window = defaultWindow(model, demand, costs)
    return {
      model,
      workload,
      routing,
      tokensStayed,
      demand,
      ...own,
      costs,
      slotsOf,
      window,
      strategy: (settings = scenario.algorithm, known = demand, asked) =>
        makeStrategy(settings, {
          demand: known,
          ...slotsOf(settings, asked),
          stagingSlots: scenario.cache.stagingSlots,
          window,
          weights,
          random: random.split("predictor")
        })
    }
  })

/**
 * A host that was measured in a loop that reads each layer's choices: its launches between two reads are as many as recorded, of which
 * each of those counted here stands for its share.
 */
const asRecorded = (
  host: HostOptions | "none" | undefined,
  model: MoeModel,
  batch: number
): Effect.Effect<HostOptions | "none" | undefined> =>
  Effect.gen(function* () {
    if (host === undefined || host === "none" || host.launchesPerRead === undefined) return host
    const { costs, launchesPerRead } = host
    const counted = yield* Effect.orDie(launchesOfLayer(model, batch))
    const share = launchesPerRead / counted
    return {
      ...host,
      costs: { ...costs, launchSeconds: costs.launchSeconds * share },
      scaled: `${launchesPerRead} launches a layer as recorded, for ${counted} that are counted: each of these takes ${formatSeconds(costs.launchSeconds * share)}${costs.waitsForCopies === undefined ? "; that copies on demand are waited for is assumed (host.waitsForCopies)" : ""}`
    }
  })

type Refuse = (field: string, value: unknown, accepted: string) => InputError

const resolveModel = (
  { model }: ExpertOffloadScenario,
  refuse: Refuse
): Effect.Effect<MoeModel, InputError> =>
  Effect.gen(function* () {
    const { like, ...own } = model
    // Heads of another number or a model of another width are not as wide as the published ones.
    const { headWidth: published, ...base }: MoeModel = moeModels[like]
    const kept = own.width === undefined && own.heads === undefined ? published : undefined
    const resolved: MoeModel = { ...base, headWidth: kept, ...own }
    const { width, heads, kvHeads, topK, experts } = resolved
    if (topK > experts) return yield* refuse("model.topK", topK, `at most the ${experts} experts of a layer`)
    if (headWidthOf(resolved) % 2 !== 0) {
      return yield* refuse(
        "model.heads",
        heads,
        `a number that divides the width ${width} into even parts, or a headWidth that is even`
      )
    }
    if (heads % kvHeads !== 0)
      return yield* refuse("model.kvHeads", kvHeads, `a divisor of the ${heads} heads`)
    return resolved
  })

/** Slots of all layers together. */
const resolveSlots = (
  { cache }: ExpertOffloadScenario,
  model: MoeModel,
  refuse: Refuse
): Effect.Effect<number, InputError> =>
  Effect.gen(function* () {
    const { slotsPerLayer, bytes } = cache
    if ((slotsPerLayer === undefined) === (bytes === undefined)) {
      const given =
        slotsPerLayer === undefined ? "neither slotsPerLayer nor bytes" : "both slotsPerLayer and bytes"
      return yield* refuse("cache", given, "one of slotsPerLayer and bytes")
    }
    if (slotsPerLayer !== undefined) {
      if (slotsPerLayer <= model.experts) return slotsPerLayer * model.layers
      return yield* refuse(
        "cache.slotsPerLayer",
        slotsPerLayer,
        `at most the ${model.experts} experts of a layer`
      )
    }
    return Math.min(model.experts * model.layers, Math.floor(Math.round(bytes!) / expertBytes(model)))
  })

const resolveRouting = (
  { routing, workload: given }: ExpertOffloadScenario,
  model: MoeModel,
  file: string,
  loader: Loader,
  random: Random,
  refuse: Refuse
): Effect.Effect<Pick<PlannedScenario, "routing" | "workload" | "tokensStayed">, InputError> =>
  Effect.gen(function* () {
    const { batch, promptTokens, prefill, decodeTokens, batches, tokenScheduler } = given
    const workload: Workload = { batch, batches, promptTokens, prefill, decodeTokens }
    const shape = { layers: model.layers, experts: model.experts }
    if (batches === 2 && prefill) {
      return yield* refuse("workload.batches", 2, "1, or prefill: false: only decoding steps take turns")
    }
    if (tokenScheduler && batches === 1) {
      return yield* refuse(
        "workload.tokenScheduler",
        true,
        "false, or batches: 2: it divides the tokens of two batches"
      )
    }
    if (!("trace" in routing)) {
      const statistics =
        "preset" in routing
          ? routingPresets[routing.preset]
          : { ...routing.statistics, repeat: [routing.statistics.repeat] }
      const drawn = (divided: boolean) =>
        generateRouting(shape, model.topK, workload, statistics, random.split("routing"), divided)
      const own = drawn(tokenScheduler)
      return { workload, routing: own, tokensStayed: tokenScheduler && isSameRouting(own, drawn(false)) }
    }
    if (batches === 2)
      return yield* refuse("workload.batches", 2, "1 with a trace: its steps are what they are")
    const path = loader.path(file, routing.trace)
    const traced = yield* Effect.mapError(readRoutedSteps(path), (error) =>
      refuse(
        "routing.trace",
        `${routing.trace} (${error.field}: ${error.value})`,
        `a routing file; here ${error.accepted}`
      )
    )
    if (
      traced.shape.layers !== model.layers ||
      traced.topK !== model.topK ||
      traced.shape.experts > model.experts
    ) {
      const { layers, experts } = traced.shape
      return yield* refuse(
        "routing.trace",
        `${routing.trace} (${layers} layers, top ${traced.topK}, experts up to ${experts - 1})`,
        `a trace of the model: ${model.layers} layers, top ${model.topK} of ${model.experts} experts`
      )
    }
    const tokens = tokensOf(traced)
    const found = followTrace(workload, tokens)
    if (found === undefined) {
      const wanted = stepsOf(workload).map((step) => step.tokens)
      return yield* refuse(
        "workload",
        `${wanted.length} steps of ${[...new Set(wanted)].join(" and ")} tokens`,
        `steps that the trace has: ${tokens.length} steps, of ${summary(tokens)} tokens; one of other than ${batch} is the prefill of ${batch === 1 ? "a prompt" : `${batch} prompts of equal length`}`
      )
    }
    const choices = found.steps.map((step) => traced.choices[step]!)
    return { workload: found.workload, routing: { ...traced, shape, choices }, tokensStayed: false }
  })

/**
 * A workload as the steps of a trace have it: its decoding steps, whose tokens are the batch's, and the prefills wherever
 * the trace has them, each of which begins new prompts. Undefined where the trace has not so many steps, other prompts at its
 * beginning, or a step that is neither.
 */
const followTrace = (
  workload: Workload,
  tokens: ReadonlyArray<number>
): { readonly workload: Workload; readonly steps: ReadonlyArray<number> } | undefined => {
  const { batch, prefill, promptTokens, decodeTokens } = workload
  if (prefill && tokens[0] !== batch * promptTokens) return undefined
  const steps: Array<number> = prefill ? [0] : []
  const prompts = [{ promptTokens, decodeTokens: 0 }]
  let decoded = 0
  for (let step = steps.length; decoded < decodeTokens; step++) {
    const count = tokens[step]
    if (count === undefined) return undefined
    if (count === batch) {
      prompts.at(-1)!.decodeTokens++
      decoded++
    } else if (prefill || decoded > 0) {
      if (count % batch !== 0) return undefined
      prompts.push({ promptTokens: count / batch, decodeTokens: 0 })
    }
    if (count === batch || prefill) steps.push(step)
  }
  const [first, ...next] = prompts
  return { workload: { ...workload, ...first!, ...(next.length === 0 ? {} : { next }) }, steps }
}

/** "37, then 63 of 1": runs of equal numbers. */
const summary = (counts: ReadonlyArray<number>): string => {
  const runs: Array<{ readonly count: number; times: number }> = []
  for (const count of counts) {
    const last = runs.at(-1)
    if (last?.count === count) last.times++
    else runs.push({ count, times: 1 })
  }
  const told = runs
    .slice(0, 4)
    .map(({ count, times }) => (times === 1 ? String(count) : `${times} of ${count}`))
  return told.join(", then ") + (runs.length > 4 ? ", ..." : "")
}

const resolveWeights = (
  { algorithm }: ExpertOffloadScenario,
  file: string,
  loader: Loader,
  refuse: Refuse
): Effect.Effect<PredictorWeights, InputError> => {
  const named =
    "predictor" in algorithm && algorithm.predictor.name === "trained"
      ? algorithm.predictor.weights
      : undefined
  const path = loader.path(file, named ?? shippedWeights)
  return Effect.suspend(() => {
    const wrong = (what: string) =>
      Effect.fail(
        refuse(
          "algorithm.predictor.weights",
          `${named ?? shippedWeights} (${what})`,
          `a file of weights with source, features [${featureNames.join(", ")}] and as many weights`
        )
      )
    let json: unknown
    try {
      json = JSON.parse(readText(path))
    } catch (cause) {
      return wrong(reasonOf(cause))
    }
    const decoded = Schema.decodeUnknownExit(PredictorWeights)(json)
    if (Exit.isFailure(decoded)) return wrong("another form")
    const { features, weights } = decoded.value
    if (features.join() !== featureNames.join() || weights.length !== features.length)
      return wrong("other features")
    return Effect.succeed(decoded.value)
  })
}

/**
 * Prefetches submitted at once: as many as copies take no longer than a layer computes, and at least one. On a link that
 * is the bottleneck that is one: a load on demand then waits for at most one guess.
 */
const defaultWindow = (model: MoeModel, { calls }: Demand, costs: OffloadCosts): number => {
  const perCall = calls.reduce((sum, { needed }) => sum + needed.length, 0) / calls.length
  // Each expert's weights must at least cross the device's memory once.
  const computeSeconds = perCall * readSeconds(costs, expertBytes(model))
  return Math.max(1, Math.round(computeSeconds / loadSeconds(costs, expertBytes(model))))
}

// A scenario of offloaded experts with real kernels: for both machines, and for `exec generate`. Strategies that know the future
// know it from a rehearsal with room for every expert. Weights, activations and caches are of the dtypes that the model has.
import { linkOf } from "../../resolve.ts"
import * as Effect from "effect/Effect"
import {
  expertOffload,
  type OffloadLog,
  type Readiness
} from "../../../core/algorithms/expert-offload/program.ts"
import { InputError } from "../../../core/input-error.ts"
import type { Dtype, TensorData } from "../../../core/machine/tensor.ts"
import { formatBytes, formatSeconds, formatShare } from "../../../core/units.ts"
import { oneRank } from "../../../core/world.ts"
import type { Host } from "../../family.ts"
import type { Generating, GeneratingChoices } from "../../generating.ts"
import type { Rehearsed, Runnable } from "../../runnable.ts"
import { planScenario } from "./prepare.ts"
import type { ExpertOffloadScenario } from "./scenario.ts"

/** Weights that are far smaller than 1 have no value of their own in int8 and float4 without a scale. */
const realExpertDtypes: ReadonlySet<Dtype> = new Set(["float32", "bfloat16", "float8"])

export const kernels = (
  scenario: ExpertOffloadScenario,
  file: string,
  { loader }: Host
): Effect.Effect<Rehearsed<OffloadLog>, InputError> =>
  Effect.gen(function* () {
    const planned = yield* planScenario(scenario, file, loader)
    const { model, workload } = planned
    const { expertDtype = model.dtype } = model
    if (!realExpertDtypes.has(expertDtype)) {
      const accepted = `${[...realExpertDtypes].join(", ")}: with real kernels experts have no scales of blocks`
      return yield* new InputError({ file, field: "model.expertDtype", value: expertDtype, accepted })
    }
    const { bytes: _, ...cache } = { bytes: undefined, ...scenario.cache }
    const whole = yield* planScenario(
      { ...scenario, algorithm: { name: "lru" }, cache: { ...cache, slotsPerLayer: model.experts } },
      file,
      loader
    )
    const plan = {
      model,
      workload,
      writeBack: scenario.cache.writeBack,
      seed: scenario.seed
    }
    const { hostLink } = scenario
    const rehearsal: Runnable<OffloadLog> = {
      world: oneRank,
      program: () => expertOffload({ ...plan, strategy: () => whole.strategy() }),
      network: "fluid",
      collectives: "ring",
      ...(hostLink === undefined ? {} : { h2d: linkOf(hostLink) })
    }
    return {
      rehearsal,
      performance: ([log]) => ({
        ...rehearsal,
        program: () =>
          expertOffload({
            ...plan,
            strategy: () => planned.strategy(undefined, { shape: model, calls: log!.calls })
          }),
        capacityBytes: scenario.memory
      })
    }
  })

/** What a run leaves behind. */
interface Kept {
  readonly log: OffloadLog
  readonly results: ReadonlyArray<TensorData>
  readonly makespanSeconds: number
  readonly peakBytes: { readonly device: number; readonly host: number }
}

const equal = (one: ReadonlyArray<TensorData>, other: ReadonlyArray<TensorData>): boolean =>
  one.length === other.length &&
  one.every((data, i) => data.length === other[i]!.length && data.every((x, j) => x === other[i]![j]))

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, n) => total + n, 0)

export const generating = (
  scenario: ExpertOffloadScenario,
  file: string,
  host: Host,
  choices: GeneratingChoices
): Effect.Effect<Generating<OffloadLog, Kept>, InputError> =>
  Effect.gen(function* () {
    if (choices.weights !== undefined) {
      const accepted = "kv-serving with --weights; experts are offloaded with random weights"
      return yield* new InputError({ file, field: "task", value: scenario.task, accepted })
    }
    return {
      runnable: yield* kernels(scenario, file, host),
      keep: ({ ranks, makespanSeconds, valuesOf }) => {
        const { value: log, peakBytes } = ranks[0]!
        const results = log.results.map((tensor) => valuesOf(0, tensor))
        return { log, results, makespanSeconds, peakBytes }
      },
      tell: ({ log, results, makespanSeconds, peakBytes }, rehearsal) => {
        const whole = rehearsal!
        // Each step, a prefill too, ends with a token of every sequence.
        const tokens = scenario.workload.batch * log.loads.length
        const found = (what: Readiness): number => log.needs.filter((need) => need.found === what).length
        const identical = equal(results, whole.results)
        const result = {
          scenario: scenario.name,
          task: scenario.task,
          algorithm: scenario.algorithm.name,
          tokens,
          makespanSeconds,
          tokensPerSecond: tokens / makespanSeconds,
          needs: log.needs.length,
          ready: found("ready"),
          late: found("late"),
          missing: found("missing"),
          loads: sum(log.loads),
          prefetches: sum(log.prefetches),
          uselessPrefetches: log.uselessPrefetches,
          peakBytes,
          uncappedSeconds: whole.makespanSeconds,
          uncappedPeakBytes: whole.peakBytes,
          identical
        }
        return {
          ok: choices.verify !== true || identical,
          json: result,
          lines: [
            `${result.scenario}: ${result.algorithm}, ${tokens} tokens in ${formatSeconds(makespanSeconds)}, ${result.tokensPerSecond.toFixed(1)} tokens/s`,
            `experts    ${result.needs} needed: ${formatShare(result.ready / result.needs)} were there, ${result.late} on their way, ${result.missing} missing; ${result.loads} loads, ${result.prefetches} of them ahead`,
            `memory     ${formatBytes(peakBytes.device)} of the device at most; all experts: ${formatBytes(whole.peakBytes.device)}, ${formatSeconds(whole.makespanSeconds)}`,
            `output     ${identical ? "identical to" : "DIFFERENT FROM"} that with all experts on the device`
          ]
        }
      }
    }
  })

// exec generate: generates for real: with experts in host memory under any cache policy, or serving requests with any key/value
// cache method. Weights are random, or for serving those that `exec train` saved.
import * as Effect from "effect/Effect"
import type { OffloadLog, Readiness } from "../../core/algorithms/expert-offload/program.ts"
import type { ExpertOffloadScenario } from "../../scenarios/families/expert-offload/scenario.ts"
import type { KvServingScenario } from "../../scenarios/families/kv-serving/scenario.ts"
import { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { formatBytes, formatSeconds, formatShare } from "../../core/units.ts"
import { json, type Outcome } from "../../scenarios/cli/execute.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { execute, executeThen } from "../execute.ts"
import { requireDevice, runCommand } from "./command.ts"
import { emulatedLinks } from "./links.ts"
import { offloadPrograms, servingProgram } from "./programs.ts"
import { loadTrained, textOf } from "./trained-serving.ts"

export interface GenerateCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly verify?: boolean
  readonly weights?: string
  readonly text?: string
  readonly json?: boolean
}

export const generateCommand = (file: string, options: GenerateCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      if (options.text !== undefined && options.weights === undefined) {
        const accepted = "a text together with --weights: random weights continue random tokens"
        return yield* new InputError({ file: "--text", field: "", value: options.text, accepted })
      }
      yield* requireDevice
      const told = (command: Effect.Effect<Outcome, InputError | MachineError>) =>
        Effect.mapError(command, (error) => (error instanceof InputError ? locate(error) : error))
      if (scenario.task === "expert-offload") return yield* told(generateOffloaded(scenario, file, options))
      if (scenario.task === "kv-serving") return yield* told(generateServing(scenario, file, options))
      return yield* locate(
        new InputError({
          file,
          field: "task",
          value: scenario.task,
          accepted: "a task that generates: expert-offload or kv-serving"
        })
      )
    })
  )

/** What a run leaves behind. */
interface Generated {
  readonly log: OffloadLog
  readonly results: ReadonlyArray<TensorData>
  readonly makespanSeconds: number
  readonly peakBytes: { readonly device: number; readonly host: number }
}

const equal = (one: ReadonlyArray<TensorData>, other: ReadonlyArray<TensorData>): boolean =>
  one.length === other.length &&
  one.every((data, i) => data.length === other[i]!.length && data.every((x, j) => x === other[i]![j]))

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, n) => total + n, 0)

const generateOffloaded = (
  scenario: ExpertOffloadScenario,
  file: string,
  options: GenerateCommandOptions
): Effect.Effect<Outcome, InputError | MachineError> =>
  Effect.gen(function* () {
    if (options.weights !== undefined) {
      const accepted = "kv-serving with --weights; experts are offloaded with random weights"
      return yield* new InputError({ file, field: "task", value: scenario.task, accepted })
    }
    const { uncapped, knowing, ...common } = yield* offloadPrograms(scenario, file, new Loader())
    const run = (of: Pick<typeof common, "program" | "capacityBytes">) =>
      executeThen(
        { ...common, program: of.program(), capacityBytes: of.capacityBytes },
        (ended): Generated => {
          const { value, peakBytes } = ended.ranks[0]!
          return {
            log: value,
            results: value.results.map((tensor) => ended.valuesOf(0, tensor)),
            makespanSeconds: ended.makespanSeconds,
            peakBytes
          }
        }
      )
    // Strategies that know the future know it from a run with room for all experts.
    const whole = yield* run({ program: uncapped, capacityBytes: undefined })
    const { log, results, makespanSeconds, peakBytes } = yield* run(knowing(whole.log.calls))
    const { batch, decodeTokens, prefill } = scenario.workload
    const tokens = batch * (decodeTokens + (prefill ? 1 : 0))
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
    const ok = options.verify !== true || identical
    if (options.json === true) return { text: json(result), ok }
    const lines = [
      `${result.scenario}: ${result.algorithm}, ${tokens} tokens in ${formatSeconds(makespanSeconds)}, ${result.tokensPerSecond.toFixed(1)} tokens/s`,
      `experts    ${result.needs} needed: ${formatShare(result.ready / result.needs)} were there, ${result.late} on their way, ${result.missing} missing; ${result.loads} loads, ${result.prefetches} of them ahead`,
      `memory     ${formatBytes(peakBytes.device)} of the device at most; all experts: ${formatBytes(whole.peakBytes.device)}, ${formatSeconds(whole.makespanSeconds)}`,
      `output     ${identical ? "identical to" : "DIFFERENT FROM"} that with all experts on the device`
    ]
    return { text: `${lines.join("\n")}\n`, ok }
  })

/** How much of what is generated is printed; `--json` has all. */
const shownRequests = 8
const shownCharacters = 40
const show = (text: string): string => JSON.stringify(text)

const generateServing = (
  scenario: KvServingScenario,
  file: string,
  options: GenerateCommandOptions
): Effect.Effect<Outcome, InputError | MachineError> =>
  Effect.gen(function* () {
    if (options.verify === true) {
      return yield* new InputError({
        file,
        field: "task",
        value: scenario.task,
        accepted: "expert-offload with --verify; `exec agree` holds serving to the simulator"
      })
    }
    const trained =
      options.weights === undefined ? undefined : yield* loadTrained(options.weights, options.text)
    const { world, program, capacityBytes, initial, h2d, d2h, plan } = yield* servingProgram(
      scenario,
      file,
      new Loader(),
      trained
    )
    const { ranks, makespanSeconds } = yield* execute({
      world,
      program: program(),
      capacityBytes,
      initial,
      h2d,
      d2h,
      ...emulatedLinks(world, "ring")
    })
    const finished = ranks
      .flatMap(({ value }) => value.finished)
      .toSorted((a, b) => a.request.id - b.request.id)
    const begun = ranks.flatMap(({ value }) => value.begun)
    const tokens = sum(finished.map((one) => one.tokens.length))
    const most = (place: "device" | "host") => Math.max(...ranks.map(({ peakBytes }) => peakBytes[place]))
    const result = {
      scenario: scenario.name,
      task: scenario.task,
      algorithm: scenario.algorithm.name,
      ranks: world.size,
      tokens,
      makespanSeconds,
      tokensPerSecond: tokens / makespanSeconds,
      peakBytes: { device: most("device"), host: most("host") },
      peakCacheBytes: Math.max(...ranks.map(({ value }) => value.peakCacheBytes)),
      ...(trained === undefined ? {} : { weights: trained.weights.name }),
      requests: finished.map(({ request: { id, promptTokens }, tokens }) => ({
        id,
        promptTokens,
        keptRows: begun.find(({ request }) => request.id === id)?.promptRows ?? [],
        tokens,
        ...(trained === undefined
          ? {}
          : {
              prompt: textOf(trained, trained.prompt(id, promptTokens, scenario.seed)),
              text: textOf(trained, tokens)
            })
      }))
    }
    if (options.json === true) return { text: json(result), ok: true }
    const prompts = sum(plan.requests.map(({ promptTokens }) => promptTokens)) * plan.model.layers
    const kept = sum(result.requests.map(({ keptRows }) => sum(keptRows)))
    const lines = [
      `${result.scenario}: ${result.algorithm} on ${result.ranks} ranks, ${finished.length} requests`,
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
    return { text: `${lines.join("\n")}\n`, ok: true }
  })

// Runs a scheduler in generated scenarios, holds every run to the laws and to the caller's own properties, and turns a
// failure into the smallest scenario that shows it, saved as a file that `sim run` accepts.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fc from "fast-check"
import { profiledModel, type TrainingModelBuilder } from "../core/algorithms/data-parallel/training-model.ts"
import type { Execution } from "../core/laws/execution.ts"
import { journaled, type Journal } from "../core/laws/journal.ts"
import { checkLaws } from "../core/laws/laws.ts"
import { interposing } from "../core/machine/interpose.ts"
import type { Program } from "../core/machine/machine.ts"
import type { Tensor } from "../core/machine/tensor.ts"
import type { Profile } from "../core/profile.ts"
import { messageOf } from "../core/message-of.ts"
import type { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"
import { Loader } from "../scenarios/load.ts"
import {
  prepare,
  type PreparedDataParallel,
  type ScenarioPlan
} from "../scenarios/families/data-parallel/prepare.ts"
import { dataParallel } from "../scenarios/families/data-parallel/family.ts"
import { readProfileSync } from "../traces/profile-file.ts"
import { hostOf, runFamily, runPrepared, type Run } from "../sim/run.ts"
import type { AlgorithmInput } from "./algorithm.ts"
import { saveCounterexample } from "./counterexample.ts"
import { executionOf } from "./execution.ts"
import { decodeScenario, generatedProfile, scenario, type ScenarioCase } from "./scenario.ts"

/** What a scheduler is told: the scenario and its world, the model's costs, and what the scenario's own algorithm planned. */
export interface SchedulerContext extends ScenarioPlan {
  readonly scenario: DataParallelScenario
  /** Builds the model's tensors and ops on a rank's machine. */
  readonly model: TrainingModelBuilder
  /** Steps the program is to run: warm-up and measured steps, whole periods of the scenario's own algorithm. */
  readonly steps: number
}

/** A scheduler: from what it is told to the program that every rank runs. */
export type Scheduler = (context: SchedulerContext) => Program<void>

/** One run of the scheduler, for properties to judge. */
export interface SchedulerRun {
  readonly context: SchedulerContext
  readonly result: DataParallelResult
  /** Timeline, op logs and journals of every rank. */
  readonly execution: Execution
  /** Tensors that hold something before any op writes them: initial values, what has a role, what a checkpoint brings. */
  readonly given: ReadonlySet<Tensor>
  /** The same scenario with another algorithm, the scenario's own by default. */
  readonly withAlgorithm: (algorithm?: AlgorithmInput) => DataParallelResult
}

/** What a run of the scenario comes to: the fields of `sim run --json`. */
type DataParallelResult = Run<PreparedDataParallel>["result"]

/** Says in a sentence what is wrong, or nothing. A property may also throw, as assertions do. */
export type SchedulerProperty = (run: SchedulerRun) => string | undefined

/** Options of fast-check, with its names and meanings, and a few more. */
export interface SchedulerParameters extends Pick<
  fc.Parameters<[ScenarioCase]>,
  "numRuns" | "seed" | "path" | "endOnFailure" | "verbose"
> {
  /** Where the scheduler is tried. Default: `scenario()`. Its own algorithm is what the run is compared with. */
  readonly scenarios?: fc.Arbitrary<ScenarioCase>
  /** What must hold besides the laws, by name. */
  readonly properties?: Readonly<Record<string, SchedulerProperty>>
  /** Names the counterexample's file. Default "scheduler". */
  readonly name?: string
  /** Folder for the counterexample; nothing is written when null. Default "counterexamples". */
  readonly saveTo?: string | null
}

/** What `checkScheduler` found; with a failure, how to repeat it. */
export interface SchedulerDetails {
  readonly failed: boolean
  readonly numRuns: number
  readonly numShrinks: number
  /** Repeats the run; `counterexamplePath` with it goes straight to the counterexample. */
  readonly seed: number
  readonly counterexamplePath: string | undefined
  readonly counterexample: ScenarioCase | undefined
  /** The law or property that the counterexample breaks, and how. */
  readonly failure: string | undefined
  /** The scenario file that was written. */
  readonly file: string | undefined
}

/** Where generated scenarios pretend to be; their profile is in memory. */
const nowhere = "scenario"

class GeneratedProfile extends Loader {
  readonly #profile: Profile | undefined

  constructor(profile: Profile | undefined) {
    super()
    this.#profile = profile
  }

  override profile(file: string, field: string, named: string): ReturnType<Loader["profile"]> {
    if (this.#profile !== undefined && (named === generatedProfile || field === "model.profile"))
      return Effect.succeed(this.#profile)
    return super.profile(file, field, named)
  }

  // Cases run at once, which no file that is waited for could be in.
  protected override read(path: string): ReturnType<typeof readProfileSync> {
    return readProfileSync(path)
  }
}

/** Runs the scenario with its own algorithm. Throws the typed error of what could not be run. */
export const runCase = ({ scenario: input, profile }: ScenarioCase): Run<PreparedDataParallel> =>
  Effect.runSync(
    runFamily(dataParallel, decodeScenario(input), nowhere, { loader: new GeneratedProfile(profile) })
  )

/** The same program; tensors that hold something from the start are added to `given`. */
const notingGiven = <A>(program: Program<A>, given: Set<Tensor>): Program<A> =>
  interposing(program, (machine) => ({
    alloc: (spec) =>
      Effect.map(machine.alloc(spec), (tensor) => {
        const { initial, persistent, role } = spec
        if (initial !== undefined || persistent !== undefined || role !== undefined) given.add(tensor)
        return tensor
      })
  }))

/** Runs the scheduler in one scenario, every rank by itself. Throws the typed error of what could not be run. */
export const runScheduler = (scheduler: Scheduler, generated: ScenarioCase): SchedulerRun => {
  const decoded = decodeScenario(generated.scenario)
  const journals: Array<Journal> = []
  const given = new Set<Tensor>()
  const exit = Effect.runSyncExit(
    Effect.gen(function* () {
      const prepared = yield* prepare(decoded, nowhere, hostOf(new GeneratedProfile(generated.profile)))
      const { simulable, totalSteps: steps, planned, profile, world, shard, facts } = prepared
      const model = profiledModel(profile, { shard })
      const context: SchedulerContext = {
        planned,
        profile,
        world,
        shard,
        facts,
        scenario: decoded,
        model,
        steps
      }
      const program = journaled(notingGiven(scheduler(context), given), journals)
      const scheduled = { ...prepared, simulable: { ...simulable, program, symmetric: false } }
      return { context, ...(yield* runPrepared(decoded, scheduled, true)) }
    })
  )
  if (Exit.isFailure(exit)) throw Cause.squash(exit.cause)
  const { context, result, simulated } = exit.value
  return {
    context,
    result,
    execution: executionOf(simulated, journals, context.world, decoded.collectives.algorithm),
    given,
    withAlgorithm: (algorithm = generated.scenario.algorithm) =>
      runCase({ ...generated, scenario: { ...generated.scenario, algorithm } }).result
  }
}

/** What is wrong with a run: the first law it breaks, else the first property. */
const judge = (
  run: SchedulerRun,
  properties: Readonly<Record<string, SchedulerProperty>>
): string | undefined => {
  const violation = checkLaws(run.execution)
  if (violation !== undefined) return `law ${violation.law}: ${violation.message}`
  for (const [name, property] of Object.entries(properties)) {
    const wrong = property(run)
    if (wrong !== undefined) return `property ${name}: ${wrong}`
  }
  return undefined
}

/**
 * Tries the scheduler in generated scenarios until one fails: it breaks a law or a property, throws, or cannot finish
 * (a deadlock, collectives out of order, memory that does not suffice). What failed is shrunk and saved.
 *
 * The seed is `seed`, else TANDEM_SEED of the environment, else fast-check's.
 */
export const checkScheduler = (
  scheduler: Scheduler,
  parameters: SchedulerParameters = {}
): SchedulerDetails => {
  const {
    scenarios = scenario(),
    properties = {},
    name = "scheduler",
    saveTo = "counterexamples"
  } = parameters
  const { numRuns, path, endOnFailure, verbose } = parameters
  const seed = parameters.seed ?? environmentSeed()
  const predicate = (generated: ScenarioCase): void => {
    const wrong = judge(runScheduler(scheduler, generated), properties)
    if (wrong !== undefined) throw new Error(wrong)
  }
  const details = fc.check(fc.property(scenarios, predicate), {
    ...(seed === undefined ? {} : { seed }),
    ...(numRuns === undefined ? {} : { numRuns }),
    ...(path === undefined ? {} : { path }),
    ...(endOnFailure === undefined ? {} : { endOnFailure }),
    ...(verbose === undefined ? {} : { verbose })
  })
  const [counterexample] = details.counterexample ?? []
  const failure = messageOf(details.errorInstance)
  const facts = {
    failed: details.failed,
    numRuns: details.numRuns,
    numShrinks: details.numShrinks,
    seed: details.seed,
    counterexamplePath: details.counterexamplePath ?? undefined,
    counterexample,
    failure: details.failed ? failure : undefined
  }
  const file =
    counterexample === undefined || saveTo === null
      ? undefined
      : saveCounterexample(saveTo, name, counterexample, [
          failure,
          `To repeat: seed ${facts.seed}, path "${facts.counterexamplePath ?? ""}".`
        ])
  return { ...facts, file }
}

/** As `checkScheduler`; throws an Error that says what failed, how to repeat it and which file shows it. */
export const assertScheduler = (scheduler: Scheduler, parameters: SchedulerParameters = {}): void => {
  const { failed, failure, seed, counterexamplePath, file, numRuns, numShrinks } = checkScheduler(
    scheduler,
    parameters
  )
  if (!failed) return
  throw new Error(
    [
      `${parameters.name ?? "scheduler"} failed after ${numRuns} runs (shrunk ${numShrinks} times): ${failure}`,
      `To repeat: { seed: ${seed}, path: ${JSON.stringify(counterexamplePath)}, endOnFailure: true }`,
      ...(file === undefined ? [] : [`Counterexample: ${file} (sim run ${file})`])
    ].join("\n")
  )
}

/** TANDEM_SEED, where set; a seed that is not an integer must not quietly become another. */
const environmentSeed = (): number | undefined => {
  const text = process.env["TANDEM_SEED"] ?? ""
  if (text === "") return undefined
  const seed = Number(text)
  if (Number.isInteger(seed)) return seed
  throw new RangeError(`TANDEM_SEED=${text}: must be an integer`)
}

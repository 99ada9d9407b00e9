// A family of algorithms as a value: what a scenario of its task says, how it is made ready for each machine, which numbers a
// finished run comes to, and how these are told. Studies, reports and both commands know families through this alone.
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { Estimate } from "../core/cost/cost-model.ts"
import type { InputError } from "../core/input-error.ts"
import type { MachineError } from "../core/machine/machine.ts"
import type { CollectiveAlgorithm } from "../core/wire/network.ts"
import type { FieldPath } from "./file/check.ts"
import type { Generating, GeneratingChoices } from "./generating.ts"
import type { Loader } from "./load.ts"
import type { RunResult } from "./result.ts"
import type { Rehearsed, Runnable, Simulable, SimulatedEnd, Simulator } from "./runnable.ts"
import type { Trainable, TrainingChoices } from "./trainable.ts"

/** A number that every result of a family has. */
export interface Metric {
  /** Field of the result, column of a study: SI unit last, "stepSeconds". */
  readonly name: string
  /** For charts and tables: "step time". */
  readonly label: string
  readonly unit: "seconds" | "bytes" | "share" | "count" | "perSecond" | "bytesPerSecond" | "number"
  readonly better: "lower" | "higher"
  /** One sentence: the definition that a reader needs. */
  readonly description: string
  /** Whether reports draw it; the first metric is always drawn. */
  readonly chart?: boolean
}

/** What only a finished run can tell. */
export interface RunFacts {
  readonly estimates: ReadonlyArray<Estimate>
  readonly makespanSeconds: number
}

/** Something said twice: to programs and to people. */
export interface Told {
  readonly json: unknown
  readonly lines: ReadonlyArray<string>
  /** Costs that it goes by and nothing measured. */
  readonly estimates?: ReadonlyArray<Estimate>
  /** Beside what the scenario's fields are warned of. */
  readonly warnings?: ReadonlyArray<string>
}

/** What a scenario of any task says. */
export interface AnyScenario {
  readonly task: string
  readonly name: string
  readonly seed: number
  readonly algorithm: { readonly name: string }
}

/** What preparing a scenario may use beside it. */
export interface Host {
  readonly loader: Loader
  /** For planners that simulate; absent where there is no simulator, as in `exec train`. */
  readonly simulator?: Simulator | undefined
  /** Of what a schedule puts side by side, only these; all where absent. */
  readonly only?: ReadonlyArray<string> | undefined
  /** Told before each of several long parts. */
  readonly progress?: ((done: number, all: number, next: string) => void) | undefined
}

/** What a finished simulation comes to. */
export interface Summary<F extends object = object> {
  readonly figures: F
  /** The stretch of the timeline that the figures are of. */
  readonly fromSeconds: number
  readonly toSeconds: number
  /** Steps measured, after `warmupSteps` that are not; where the task has steps. */
  readonly steps?: number
  readonly warmupSteps?: number
  /** How messages share links, and how collectives use them; where the task has messages. */
  readonly network?: "fluid" | "alpha-beta"
  readonly collectives?: CollectiveAlgorithm
  /** Costs that are estimated before anything runs. */
  readonly estimates?: ReadonlyArray<Estimate>
  readonly warnings: ReadonlyArray<string>
  /** What is not a single number. */
  readonly details?: Readonly<Record<string, unknown>>
}

/** A scenario ready for the simulator. Runs once: costs list their estimates as they are asked for. */
export interface Prepared<A = unknown, F extends object = object> {
  readonly simulable: Simulable<A>
  /** Sums up a run of `simulable` that has finished. */
  summarise(ended: SimulatedEnd<A>, simulator: Simulator): Effect.Effect<Summary<F>, MachineError>
  /** Why the run took as long as it did, beyond what a timeline shows. */
  explain?(): Told
}

/**
 * Methods, not properties: a family of one task stands where any family is wanted, and is asked of its own task only.
 * `file` is the scenario's path: files that it names are relative to its folder.
 */
export interface Family<S extends AnyScenario = AnyScenario, P extends Prepared = Prepared> {
  readonly task: S["task"]
  readonly schema: Schema.Constraint & { readonly Type: S; readonly DecodingServices: never }
  /** The first is the headline: tables and charts compare by it. */
  readonly metrics: ReadonlyArray<Metric>
  /** Where steps of several points do unlike work, which is a field of their results: what they are compared by instead. */
  readonly throughput?: { readonly metric: Metric; readonly work: string }
  /** Fields that name files. */
  readonly fileFields: ReadonlyArray<FieldPath>
  /** What algorithms are called in papers: {ddp: "DDP"}. */
  readonly displayNames: Readonly<Record<string, string>>
  /** Algorithms that others are compared with where a study has them, first choice first. */
  readonly baselines: ReadonlyArray<string>
  /** Algorithms that know the future: shown as bounds, never named the best. */
  readonly hindsight?: ReadonlyArray<string>
  /** What the algorithms do faster or slower than each other ("trains"), where the headline is a time. */
  readonly verb: string | undefined
  /** A sentence under a report's answer: what the headline leaves out. Empty: nothing. */
  readonly caveat: string
  /** For the simulator's clock, with the costs, dtypes and choices that the scenario says. */
  prepare(scenario: S, file: string, host: Host): Effect.Effect<P, InputError | MachineError>
  /**
   * The same scenario, as short as can be, with memory without limit: what one that does not fit would hold. Absent where what is
   * held depends on what there is.
   */
  unlimited?(scenario: S): S
  /**
   * With real kernels, as `exec` runs it and `exec agree` holds both machines to: in the dtypes that its model or `training.precision`
   * says, but for MoE training, which is in float32 whatever its model says.
   */
  kernels(scenario: S, file: string, host: Host): Effect.Effect<Runnable | Rehearsed, InputError>
  /** For `exec train`; absent where nothing is learnt. */
  train?(
    scenario: S,
    file: string,
    host: Host,
    choices: TrainingChoices
  ): Effect.Effect<Trainable, InputError>
  /** For `exec generate`; absent where nothing is generated. */
  generate?(
    scenario: S,
    file: string,
    host: Host,
    choices: GeneratingChoices
  ): Effect.Effect<Generating, InputError>
  /** One sentence for each field that has no effect on the simulator, in the order of the file. */
  ignored(scenario: S, facts?: RunFacts): ReadonlyArray<string>
  /** The same for a real run; `alsoSimulated`: the simulator runs the same program beside it. */
  ignoredByExec(scenario: S, alsoSimulated: boolean): ReadonlyArray<string>
  /** The figures of a result. */
  print(result: RunResult): ReadonlyArray<string>
  /** What the planner decides, without a run. */
  schedule(scenario: S, file: string, host: Host): Effect.Effect<Told, InputError>
}

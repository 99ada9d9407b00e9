// What is known of a family of algorithms without running it: which numbers a scenario of its task comes to, and how they
// are told to a person. Studies, reports and the command line work through this alone.
import type * as Effect from "effect/Effect"
import type { InputError } from "../core/input-error.ts"
import type { Scenario } from "./scenario.ts"
import type { Estimate } from "../core/cost/cost-model.ts"
import type { Loader } from "./load.ts"
import type { PipelineSimulator } from "./families/moe-training/prepare.ts"
import type { RunResult } from "./result.ts"
import type { FieldPath } from "./file/check.ts"

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
}

/** Methods, not properties: a family of one task stands where any family is wanted, and is asked of its own task only. */
export interface Family<S extends Scenario = Scenario> {
  readonly task: S["task"]
  /** The first is the headline: tables and charts compare by it. */
  readonly metrics: ReadonlyArray<Metric>
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
  /** One sentence for each field that has no effect, in the order of the file. */
  ignored(scenario: S, facts?: RunFacts): ReadonlyArray<string>
  /** The figures of a result. */
  print(result: RunResult): ReadonlyArray<string>
  /** What the planner decides, without a run. */
  schedule(
    scenario: S,
    file: string,
    loader: Loader,
    simulated?: PipelineSimulator
  ): Effect.Effect<Told, InputError>
}

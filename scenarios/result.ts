// What one simulated scenario comes to: the fields of `sim run --json` and of a study's rows that every family has. Each
// family adds its metrics beside them. Documented in docs/cli.md.
import type { Estimate } from "../core/cost/cost-model.ts"
import type { CollectiveAlgorithm, LinkResult } from "../core/wire/network.ts"

/** What `sim run --json` prints of every task (docs/cli.md); times in seconds. */
export interface RunResult {
  readonly digest: string
  readonly scenario: string
  readonly task: string
  readonly algorithm: string
  readonly ranks: number
  /** How messages share links, and how collectives use them; where the task has messages. */
  readonly network?: "fluid" | "alpha-beta"
  readonly collectives?: CollectiveAlgorithm
  /** Steps measured, after `warmupSteps` that are not; where the task has steps. */
  readonly steps?: number
  readonly warmupSteps?: number
  /** Whole run, warm-up included. */
  readonly makespanSeconds: number
  /** Most a rank's memories held at once. */
  readonly peakBytes: { readonly device: number; readonly host: number }
  readonly ops: number
  readonly links: ReadonlyArray<LinkResult>
  /** Costs that were not measured, and what stands for them. */
  readonly estimates: ReadonlyArray<Estimate>
  readonly warnings: ReadonlyArray<string>
  /** What is not a single number. */
  readonly details?: Readonly<Record<string, unknown>>
}

/** A metric of a result by its name; NaN where the result has none. */
export const metricOf = (result: RunResult, name: string): number => {
  const value: unknown = Reflect.get(result, name)
  return typeof value === "number" ? value : Number.NaN
}

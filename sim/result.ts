// What one simulated scenario comes to: the fields of `sim run --json` and of a study's rows. Documented in docs/cli.md.
import type { Estimate } from "./cost/cost-model.ts"
import type { LinkResult } from "./simulate.ts"

export interface RunResult {
  readonly digest: string
  readonly scenario: string
  readonly algorithm: string
  readonly ranks: number
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: "ring" | "tree" | "hierarchical"
  /** Steps measured, after `warmupSteps` that are not. */
  readonly steps: number
  readonly warmupSteps: number
  /** Mean time of a measured step: that of the rank that finishes last. */
  readonly stepSeconds: number
  /** Mean per step and rank of the time its compute lane is busy. */
  readonly computeSeconds: number
  /** computeSeconds / stepSeconds. */
  readonly computeUtilisation: number
  /** stepSeconds - computeSeconds: what a step waits for communication, and for slower ranks. */
  readonly exposedCommunicationSeconds: number
  /** Whole run, warm-up included. */
  readonly makespanSeconds: number
  /** Most a rank's memories held at once: parameters, gradients, optimizer state, outer state. Not activations. */
  readonly peakBytes: { readonly device: number; readonly host: number }
  readonly ops: number
  readonly links: ReadonlyArray<LinkResult>
  /** Costs that were not measured, and what stands for them. */
  readonly estimates: ReadonlyArray<Estimate>
  readonly warnings: ReadonlyArray<string>
}

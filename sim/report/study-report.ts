// What a report is made from: a study's axes and rows, a few timelines, and how to get them again. Whoever ran the study
// fills it in; nothing here reads files or runs anything.
import type { Timeline } from "../../core/machine/timeline.ts"
import type { Family } from "../../scenarios/family.ts"
import type { RunResult } from "../../scenarios/result.ts"

/** SI units of an axis or metric; `text` for choices. Says how values are printed and whether they can be on a scale. */
export type AxisUnit =
  "bytesPerSecond" | "seconds" | "bytes" | "flops" | "count" | "perSecond" | "share" | "number" | "text"

/** SI numbers on numeric axes (Infinity: unlimited), a short name for anything else. */
export type AxisValue = number | string

export interface ReportAxis {
  /** Field of the scenario: "world.links.inter.bandwidth", "algorithm". */
  readonly path: string
  /** What a person calls it: "bandwidth between nodes". */
  readonly label: string
  readonly unit: AxisUnit
  /** In the study's order. */
  readonly values: ReadonlyArray<AxisValue>
}

export interface ReportRow extends RunResult {
  /** Value of each axis, by its path. */
  readonly at: Readonly<Record<string, AxisValue>>
  /** In a study that searches: the value found; absent where none reaches the target. */
  readonly found?: number | undefined
}

/** Path of the axis of targets that a study which searches has beside its own axes. */
export const targetPath = "find.target"

/** What a study that searches looked for: the value of one field at which a metric is near a target. */
export interface ReportSearch {
  /** The field searched: "bandwidth between sites". */
  readonly label: string
  readonly unit: AxisUnit
  /** What has the targets: "compute utilisation". */
  readonly metric: string
}

export interface ReportTimeline {
  /** The algorithm it shows; as on the study's algorithm axis where it has one. */
  readonly algorithm: string
  /** At which point of the study it was recorded: "1 Gbit/s". */
  readonly label: string
  readonly timeline: Timeline
  /** Where it is not all that was measured, of how many steps it is a part, and what these took in the mean. */
  readonly partOf?: { readonly steps: number; readonly meanSeconds: number } | undefined
  /** The stretch to show: whole steps in the steady state. */
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** What a report must know of the family whose algorithms it compares. */
export type Presentation = Pick<
  Family,
  "metrics" | "displayNames" | "baselines" | "hindsight" | "caveat" | "verb"
>

export interface StudyReport {
  readonly title: string
  readonly description?: string | undefined
  /** The scenario file as it was run. */
  readonly scenarioText: string
  readonly family: Presentation
  readonly axes: ReadonlyArray<ReportAxis>
  /** One per point that was run; a study that was interrupted has fewer than its axes promise. */
  readonly rows: ReadonlyArray<ReportRow>
  readonly timelines: ReadonlyArray<ReportTimeline>
  /** Why there are none, where somebody may look for them. */
  readonly withoutTimelines?: string | undefined
  /** Points that could not run. */
  readonly failures?: ReadonlyArray<{ readonly at: string; readonly reason: string }> | undefined
  /** With it, rows carry `found`, one of the axes is `targetPath`, and the report is about what was found. */
  readonly search?: ReportSearch | undefined
  /** Command lines that run the study again. */
  readonly command: string
  /** Program and version: "tandem 0.1.0". */
  readonly version?: string | undefined
  /** Value of the numeric axis at which algorithms are compared; by default the one nearest to 1 Gbit/s, or the middle. */
  readonly focus?: number | undefined
}

// From a study's rows to what its HTML report shows: axes with units and labels, rows at their places, and for each
// algorithm a recorded stretch of a run. Knows nothing of HTML.
import * as Effect from "effect/Effect"
import { stringify } from "yaml"
import type { InputError } from "../../core/input-error.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import { stepWindow } from "../explain/explain.ts"
import { defaultTask, familyOf, isTask } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import type { AxisUnit, AxisValue, ReportAxis, ReportTimeline, StudyReport } from "../report/study-report.ts"
import { runScenario } from "../run.ts"
import { metricsOf } from "./compared.ts"
import type { StudyDefinition, StudyPoint } from "./definition.ts"
import { labelOf, lastName, shortNames } from "./label.ts"
import type { StudyHeader, StudyResult, StudyRow } from "./result.ts"

const units: Readonly<Record<string, AxisUnit>> = {
  bandwidth: "bytesPerSecond",
  memoryBandwidth: "bytesPerSecond",
  latency: "seconds",
  stepSeconds: "seconds",
  bucketBytes: "bytes",
  firstBucketBytes: "bytes",
  flops: "flops",
  jitter: "share",
  localShare: "share"
}

const labels: Readonly<Record<string, string>> = {
  "world.links.intra.bandwidth": "bandwidth inside nodes",
  "world.links.inter.bandwidth": "bandwidth between nodes",
  "world.links.wan.bandwidth": "bandwidth between sites",
  "world.links.intra.latency": "latency inside nodes",
  "world.links.inter.latency": "latency between nodes",
  "world.links.wan.latency": "latency between sites"
}

const unitOf = (path: string, values: ReadonlyArray<AxisValue>): AxisUnit => {
  if (values.some((value) => typeof value !== "number")) return "text"
  const known = units[lastName(path)]
  return known ?? (values.every((value) => Number.isInteger(value)) ? "count" : "number")
}

/** A value as a chart places it: a number, or a short name. */
const placeOf = (row: StudyRow, path: string): AxisValue => {
  const decoded = row.values[path]
  if (typeof decoded === "number") return decoded
  const written = row.axes[path]
  return units[lastName(path)] === "bytesPerSecond" && typeof written === "string"
    ? Infinity
    : labelOf(written)
}

/** What a report needs beside the rows. */
export interface ReportContext {
  /** Command line that runs the study again. */
  readonly command: string
  readonly version: string
  readonly timelines: ReadonlyArray<ReportTimeline>
  readonly withoutTimelines?: string | undefined
}

export const reportOf = ({ header, rows }: StudyResult, context: ReportContext): StudyReport => {
  const short = shortNames(header.axes.map(({ path }) => path))
  const axes = header.axes.map(({ path }): ReportAxis => {
    const values = [...new Set(rows.map((row) => placeOf(row, path)))]
    return { path, label: labels[path] ?? short(path), unit: unitOf(path, values), values }
  })
  const { description, task } = header.scenario
  const own = familyOf({ task: typeof task === "string" && isTask(task) ? task : defaultTask })
  const metrics = metricsOf(rows)
  // Whatever is compared by something else than a step's time is spoken of by its name.
  const family = metrics.length > own.metrics.length ? { ...own, metrics, verb: undefined } : own
  return {
    title: header.name,
    description: typeof description === "string" ? description : undefined,
    scenarioText: scenarioText(header),
    family,
    axes,
    rows: rows
      .filter(({ failure }) => failure === undefined)
      .map((row) => ({
        ...row,
        at: Object.fromEntries(header.axes.map(({ path }) => [path, placeOf(row, path)]))
      })),
    failures: rows.flatMap(({ axes: at, failure }) =>
      failure === undefined
        ? []
        : [
            {
              at: header.axes.map(({ path }) => `${short(path)} ${labelOf(at[path])}`).join(", "),
              reason: failure.reason
            }
          ]
    ),
    timelines: context.timelines,
    withoutTimelines: context.withoutTimelines,
    command: context.command,
    version: `tandem ${context.version}`
  }
}

/** The study as a file that runs it again. */
const scenarioText = ({ scenario, axes }: StudyHeader): string =>
  stringify({
    ...scenario,
    study: { axes: Object.fromEntries(axes.map(({ path, values }) => [path, values])) }
  })

/** Steps shown of a period that is too long to show whole. */
const stepsShown = 4
const stepsMost = 12
const timelinesMost = 8

/**
 * A run of each algorithm of the study, recorded at the point in the middle of its other axes; those after the eighth are
 * left out.
 */
export const recordTimelines = (
  definition: StudyDefinition,
  rows: ReadonlyArray<StudyRow>
): Effect.Effect<ReadonlyArray<ReportTimeline>, InputError | MachineError> =>
  Effect.gen(function* () {
    const loader = new Loader()
    const { file } = definition
    const ran = new Set(rows.flatMap(({ point, failure }) => (failure === undefined ? [point] : [])))
    const points = definition.points.filter(({ index }) => ran.has(index))
    const byAlgorithm = Map.groupBy(points, ({ axes }) => labelOf(axes["algorithm"]))
    const timelines: Array<ReportTimeline> = []
    for (const group of [...byAlgorithm.values()].slice(0, timelinesMost)) {
      const point = middle(group)
      const scenario = point.grid[0]!.scenario
      const run = yield* runScenario(scenario, file, { loader, record: true })
      const { timeline, result } = run
      if (timeline === undefined) continue
      const { steps = 0, warmupSteps = 0 } = result
      const last = warmupSteps + steps - 1
      const first = steps <= stepsMost ? warmupSteps : last - stepsShown + 1
      const window = steps === 0 ? undefined : stepWindow(timeline, timeline.rank[0] ?? 0, first, last)
      timelines.push({
        algorithm: "algorithm" in point.axes ? labelOf(point.axes["algorithm"]) : result.algorithm,
        label: placeLabel(point),
        timeline,
        ...(first > warmupSteps
          ? { partOf: { steps, meanSeconds: (run.toSeconds - run.fromSeconds) / steps } }
          : {}),
        fromSeconds: window?.fromSeconds ?? run.fromSeconds,
        toSeconds: window?.toSeconds ?? run.toSeconds
      })
    }
    return timelines
  })

const gigabit = 1e9 / 8

/** The point whose bandwidth is nearest to 1 Gbit/s, where the report compares, or else the one in the middle. */
const middle = (points: ReadonlyArray<StudyPoint>): StudyPoint => {
  const central = points[(points.length - 1) >> 1]!
  const axis = Object.keys(central.axes).find((path) => units[lastName(path)] === "bytesPerSecond")
  if (axis === undefined) return central
  const distance = (point: StudyPoint): number => {
    const bandwidth = point.values[axis]
    return typeof bandwidth === "number" && bandwidth > 0 ? Math.abs(Math.log(bandwidth / gigabit)) : Infinity
  }
  return points.reduce((best, point) => (distance(point) < distance(best) ? point : best), central)
}

const placeLabel = ({ axes }: StudyPoint): string =>
  Object.entries(axes)
    .filter(([path]) => path !== "algorithm")
    .map(([path, value]) => `${lastName(path)} ${labelOf(value)}`)
    .join(", ")

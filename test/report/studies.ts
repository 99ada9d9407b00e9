// Studies for tests of the report. Step times follow a closed form (compute, plus the bytes a step sends over a
// bandwidth, plus messages times latency), so that a test can work out by hand what the report must say. Timelines come
// from the simulator.
import * as Effect from "effect/Effect"
import type { RunResult } from "../../scenarios/result.ts"
import type { StepFigures } from "../../scenarios/step-figures.ts"
import * as Schema from "effect/Schema"
import { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { dataParallel } from "../../scenarios/families/data-parallel/family.ts"
import { runFamily } from "../../sim/run.ts"
import { Loader } from "../../scenarios/load.ts"
import type {
  AxisValue,
  ReportAxis,
  ReportRow,
  ReportTimeline,
  StudyReport
} from "../../sim/report/study-report.ts"

interface Shape {
  readonly computeSeconds: number
  /** Bytes sent per step; none of it hidden. */
  readonly bytes: number
  readonly messages: number
}

/** GPT-2 124M, float32 gradients, eight ranks on a ring: about 0.87 GB a step, and a period of 10 or 100. */
export const shapes: Readonly<Record<string, Shape>> = {
  "s-sgd": { computeSeconds: 0.0323, bytes: 871e6, messages: 1 },
  ddp: { computeSeconds: 0.0323, bytes: 871e6, messages: 14 },
  "local-sgd": { computeSeconds: 0.0323, bytes: 87.1e6, messages: 7.5 },
  "partial-local-sgd": { computeSeconds: 0.0323, bytes: 86e6, messages: 7.3 },
  dreamddp: { computeSeconds: 0.0323, bytes: 82e6, messages: 7 },
  diloco: { computeSeconds: 0.0329, bytes: 8.71e6, messages: 0.8 },
  "streaming-diloco": { computeSeconds: 0.0331, bytes: 1.09e6, messages: 0 }
}

export const gigabit = 1e9 / 8
/** Twelve, 0.1 to 400 Gbit/s. */
export const bandwidths = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 400].map((rate) => rate * gigabit)

const stepSecondsOf = (algorithm: string, bytesPerSecond: number, latencySeconds: number): number => {
  const { computeSeconds, bytes, messages } = shapes[algorithm]!
  return computeSeconds + bytes / bytesPerSecond + 14 * messages * latencySeconds
}

export const rowOf = (
  algorithm: string,
  stepSeconds: number,
  at: Readonly<Record<string, AxisValue>>,
  changes: Partial<ReportRow> = {}
): ReportRow & RunResult & StepFigures => {
  const { computeSeconds, bytes } = shapes[algorithm]!
  return {
    digest: `${algorithm.length}${Math.round(stepSeconds * 1e6)}`.padStart(16, "0"),
    scenario: "GPT-2 124M",
    task: "data-parallel",
    algorithm,
    ranks: 8,
    network: "fluid",
    collectives: "ring",
    steps: 10,
    warmupSteps: 10,
    stepSeconds,
    computeSeconds,
    computeUtilisation: computeSeconds / stepSeconds,
    exposedCommunicationSeconds: stepSeconds - computeSeconds,
    makespanSeconds: 20 * stepSeconds,
    peakBytes: { device: 2e9, host: 0 },
    ops: 1000,
    links: [{ name: "inter", tier: "inter", count: 8, bytes: 8 * 20 * bytes, busySeconds: stepSeconds }],
    estimates: [],
    warnings: [],
    ...changes,
    at
  }
}

export const bandwidthAxis: ReportAxis = {
  path: "world.links.inter.bandwidth",
  label: "bandwidth between nodes",
  unit: "bytesPerSecond",
  values: bandwidths
}
export const latencyAxis: ReportAxis = {
  path: "world.links.inter.latency",
  label: "latency",
  unit: "seconds",
  values: [0.001, 0.02]
}
export const algorithmAxis = (names: ReadonlyArray<string> = Object.keys(shapes)): ReportAxis => ({
  path: "algorithm",
  label: "algorithm",
  unit: "text",
  values: names
})

/** Every algorithm at every bandwidth; at every latency where the latency axis is one of `axes`. */
export const study = (
  axes: ReadonlyArray<ReportAxis>,
  changes: Partial<StudyReport> & { readonly row?: Partial<ReportRow> } = {}
): StudyReport => {
  const { row, ...report } = changes
  let points: ReadonlyArray<Readonly<Record<string, AxisValue>>> = [{}]
  for (const { path, values } of axes)
    points = points.flatMap((point) => values.map((value) => ({ ...point, [path]: value })))
  return {
    title: "GPT-2 124M on eight sites",
    scenarioText: "name: GPT-2 124M\nalgorithm: ddp\n",
    family: dataParallel,
    axes,
    rows: points.map((at) => {
      const algorithm = String(at["algorithm"] ?? "ddp")
      const bandwidth = Number(at[bandwidthAxis.path] ?? gigabit)
      const latency = Number(at[latencyAxis.path] ?? 0.001)
      return rowOf(algorithm, stepSecondsOf(algorithm, bandwidth, latency), at, row)
    }),
    timelines: [],
    command: "sim study scenarios/geo-gpt2-bandwidth.yaml --out out",
    version: "tandem 0.0.0",
    ...report
  }
}

/** One period of each algorithm, as simulated: twelve layers, 124 M parameters, eight ranks on 1 Gbit/s. */
export const recordTimelines = async (
  names: ReadonlyArray<string> = Object.keys(shapes)
): Promise<ReadonlyArray<ReportTimeline>> =>
  Promise.all(
    names.map(async (algorithm): Promise<ReportTimeline> => {
      const scenario = Schema.decodeUnknownSync(DataParallelScenario)({
        name: "twelve layers",
        model: { layers: 12, parameters: "124M", stepSeconds: "32.3ms" },
        world: { ranks: 8, links: { inter: { bandwidth: "1Gbit/s", latency: "1ms" } } },
        algorithm: { name: algorithm }
      })
      const run = await Effect.runPromise(
        runFamily(dataParallel, scenario, "scenario.yaml", { loader: new Loader(), record: true })
      )
      const { timeline, fromSeconds, toSeconds } = run
      return { algorithm, label: "1 Gbit/s", timeline: timeline!, fromSeconds, toSeconds }
    })
  )

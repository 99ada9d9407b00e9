// What the algorithm's planner decides for a scenario of data-parallel training, and what other planners would have.
import * as Effect from "effect/Effect"
import type { InputError } from "../../../core/input-error.ts"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import type { DataParallelScenario } from "./scenario.ts"
import type { SyncProblem } from "../../../core/algorithms/data-parallel/plan/cost.ts"
import { planSync } from "../../../core/algorithms/data-parallel/plan/planners.ts"
import type { SyncPlan } from "../../../core/algorithms/data-parallel/plan/sync-plan.ts"
import { sizeBytesOf, elementsOf } from "../../../core/machine/tensor.ts"
import { formatBytes, formatSeconds, formatShare } from "../../../core/units.ts"
import type { Told } from "../../family.ts"
import type { Loader } from "../../load.ts"
import { alignColumns } from "../../table.ts"
import { planScenario, type ScenarioPlan } from "./prepare.ts"

/** What the planner decides for the scenario, without a run. */
export const schedule = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader
): Effect.Effect<Told, InputError> =>
  Effect.map(planScenario(scenario, file, loader), (plan) => {
    const json = scheduleOf(plan)
    const head = `${scenario.name}: ${json.algorithm} on ${plan.world.size} ranks, ${plan.profile.layers.length} layers`
    return { json, lines: [head, "", ...printSchedule(json)] }
  })

interface BucketJson {
  readonly parameters: number
  readonly sizeBytes: number
  readonly dtype: string
  /** Layer whose backward pass ends the wait for the bucket's last gradient. */
  readonly readyAfterLayer: string
  /** One all-reduce of it, alone on the links. */
  readonly allReduceSeconds: number
}

interface StepJson {
  readonly layers: ReadonlyArray<string>
  readonly exposedSeconds: number
}

interface PlannerJson {
  readonly planner: string
  readonly exposedSeconds: number
  readonly lowerBoundSeconds: number
  readonly optimal: boolean
}

interface FragmentJson {
  readonly layers: ReadonlyArray<string>
  readonly sizeBytes: number
  readonly sendAfterStep: number
  readonly applyAfterStep: number
}

interface ScheduleJson {
  readonly algorithm: string
  readonly kind: PlannedAlgorithm["plan"]["kind"]
  readonly periodSteps: number
  readonly buckets?: ReadonlyArray<BucketJson>
  readonly steps?: ReadonlyArray<StepJson>
  /** Stall of one period that the plan leaves, by the planner's own reckoning. */
  readonly exposedSeconds?: number
  readonly lowerBoundSeconds?: number
  readonly planner?: string
  readonly planners?: ReadonlyArray<PlannerJson>
  readonly fragments?: ReadonlyArray<FragmentJson>
  readonly delaySteps?: number
  readonly localShare?: number
}

const scheduleOf = ({ planned, profile, facts }: ScenarioPlan): ScheduleJson => {
  const { plan, periodSteps, settings } = planned
  const name = (layer: number): string => profile.layers[layer]?.name ?? String(layer)
  const base = { algorithm: settings.name, kind: plan.kind, periodSteps }
  switch (plan.kind) {
    case "ddp":
      return {
        ...base,
        buckets: plan.buckets.map(({ parameters, sizeBytes, dtype, readyAfter }) => ({
          parameters: parameters.length,
          sizeBytes,
          dtype,
          readyAfterLayer: name(profile.parameters[readyAfter]?.layer ?? 0),
          allReduceSeconds: facts.allReduceSeconds(sizeBytes)
        }))
      }
    case "partial-local-sgd":
      return {
        ...base,
        planner: plan.sync.method,
        steps: stepsOf(plan.sync, name),
        exposedSeconds: plan.sync.exposedSeconds,
        lowerBoundSeconds: plan.sync.lowerBoundSeconds,
        planners: comparePlanners(plan.problem)
      }
    case "local-sgd":
      return {
        ...base,
        exposedSeconds: plan.exposedSeconds,
        steps: plan.details.sets.map((set, step) => ({
          layers: set.map(name),
          exposedSeconds: step === periodSteps - 1 ? plan.exposedSeconds : 0
        }))
      }
    case "diloco": {
      const { schedule } = plan.details
      const wire = settings.wire
      return {
        ...base,
        delaySteps: schedule.delaySteps,
        localShare: schedule.localShare,
        fragments: schedule.fragments.map(({ layers, sendAfterStep }) => ({
          layers: layers.map(name),
          sizeBytes: profile.parameters
            .filter(({ layer }) => layers.includes(layer))
            .reduce((sum, { shape }) => sum + sizeBytesOf(elementsOf(shape), wire), 0),
          sendAfterStep,
          applyAfterStep: sendAfterStep + schedule.delaySteps
        }))
      }
    }
  }
}

const stepsOf = (sync: SyncPlan, name: (layer: number) => string): ReadonlyArray<StepJson> =>
  sync.sets.map((set, step) => ({
    layers: set.map(name),
    exposedSeconds: sync.perIterationSeconds[step] ?? 0
  }))

const comparePlanners = (problem: SyncProblem): ReadonlyArray<PlannerJson> =>
  (["equal-number", "published", "contiguous", "assignment"] as const).map((planner) => {
    const { exposedSeconds, lowerBoundSeconds, exact } = planSync(problem, planner)
    return { planner, exposedSeconds, lowerBoundSeconds, optimal: exact }
  })

const printSchedule = (schedule: ScheduleJson): ReadonlyArray<string> => [
  ...(schedule.buckets === undefined ? [] : printBuckets(schedule.buckets)),
  ...(schedule.steps === undefined ? [] : printSteps(schedule, schedule.steps)),
  ...(schedule.planners === undefined ? [] : printPlanners(schedule.planners, schedule.planner)),
  ...(schedule.fragments === undefined ? [] : printFragments(schedule, schedule.fragments))
]

const printBuckets = (buckets: ReadonlyArray<BucketJson>): ReadonlyArray<string> => [
  `${buckets.length} ${buckets.length === 1 ? "bucket" : "buckets"}, in the order they are sent`,
  ...alignColumns(
    [
      ["", "size", "parameters", "all-reduce", "ready after"],
      ...buckets.map(({ sizeBytes, parameters, allReduceSeconds, readyAfterLayer, dtype }, index) => [
        String(index),
        formatBytes(sizeBytes),
        `${parameters} ${dtype}`,
        formatSeconds(allReduceSeconds),
        readyAfterLayer
      ])
    ],
    (column) => column < 4
  )
]

const longestNames = 60

/** Names of many layers in a line: "a, b, c and 12 more". */
const names = (layers: ReadonlyArray<string>): string => {
  if (layers.length === 0) return "-"
  let text = layers[0]!
  for (const [index, layer] of layers.entries()) {
    if (index === 0) continue
    if (text.length + layer.length + 2 > longestNames) return `${text} and ${layers.length - index} more`
    text += `, ${layer}`
  }
  return text
}

const printSteps = (schedule: ScheduleJson, steps: ReadonlyArray<StepJson>): ReadonlyArray<string> => {
  const { exposedSeconds = 0, periodSteps, lowerBoundSeconds } = schedule
  // Runs of steps that average nothing are one line.
  const lines: Array<ReadonlyArray<string>> = []
  for (let step = 0; step < steps.length;) {
    let end = step + 1
    const { layers, exposedSeconds: own } = steps[step]!
    if (layers.length === 0) while (end < steps.length && steps[end]!.layers.length === 0) end++
    lines.push([
      end === step + 1 ? String(step) : `${step}-${end - 1}`,
      String(layers.length),
      formatSeconds(own),
      names(layers)
    ])
    step = end
  }
  const bound =
    lowerBoundSeconds === undefined
      ? ""
      : `; no assignment of layers exposes less than ${formatSeconds(lowerBoundSeconds)}`
  return [
    `period of ${periodSteps} steps: ${formatSeconds(exposedSeconds)} exposed${bound}`,
    ...alignColumns([["step", "layers", "exposed", "averaged"], ...lines], (column) => column < 3)
  ]
}

const printPlanners = (
  planners: ReadonlyArray<PlannerJson>,
  chosen: string | undefined
): ReadonlyArray<string> => {
  const bound = Math.max(...planners.map(({ lowerBoundSeconds }) => lowerBoundSeconds))
  return [
    "",
    "planners, seconds exposed in a period",
    ...alignColumns(
      planners.map(({ planner, exposedSeconds, optimal }) => [
        `${planner}${planner === chosen ? " (in use)" : ""}`,
        formatSeconds(exposedSeconds),
        optimal ? "optimal" : bound > 0 ? `${formatShare(exposedSeconds / bound - 1)} above the bound` : ""
      ]),
      (column) => column === 1
    )
  ]
}

const printFragments = (
  { periodSteps, delaySteps = 0 }: ScheduleJson,
  fragments: ReadonlyArray<FragmentJson>
): ReadonlyArray<string> => [
  `${fragments.length} ${fragments.length === 1 ? "fragment" : "fragments"} in a period of ${periodSteps} steps, applied ${delaySteps === 0 ? "at once" : `${delaySteps} steps later`}`,
  ...alignColumns(
    [
      ["", "after step", "size", "layers"],
      ...fragments.map(({ sendAfterStep, sizeBytes, layers }, index) => [
        String(index),
        String(sendAfterStep),
        formatBytes(sizeBytes),
        names(layers)
      ])
    ],
    (column) => column < 3
  )
]

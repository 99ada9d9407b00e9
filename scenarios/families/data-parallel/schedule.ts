// What the algorithm's planner decides for a scenario of data-parallel training, and what other planners would have.
import * as Effect from "effect/Effect"
import type { InputError } from "../../../core/input-error.ts"
import {
  blocksIn,
  layerBytes,
  type PlanDescription
} from "../../../core/algorithms/data-parallel/algorithm.ts"
import { elementsOf, sizeBytesOf } from "../../../core/machine/tensor.ts"
import { pairWindowWarnings, withRings } from "../../ignored.ts"
import { goAround } from "./ignored.ts"
import type { DataParallelScenario } from "./scenario.ts"
import { formatBytes, formatSeconds, formatShare, counted } from "../../../core/units.ts"
import type { Host, Told } from "../../family.ts"
import { alignColumns } from "../../table.ts"
import { planScenario, type PlannedScenario, type ScenarioPlan } from "./prepare.ts"

/** What the planner decides for the scenario, without a run. */
export const schedule = (
  scenario: DataParallelScenario,
  file: string,
  { loader }: Host
): Effect.Effect<Told, InputError> =>
  Effect.map(planScenario(scenario, file, loader), (plan) => {
    const json = scheduleOf(plan, scenario.algorithm.name)
    const head = `${scenario.name}: ${json.algorithm} on ${counted(plan.world.size, "rank")}, ${counted(plan.profile.layers.length, "layer")}${inParts(plan)}`
    return {
      json,
      lines: [head, "", ...printSchedule(json)],
      estimates: plan.model.estimates,
      warnings: withRings(goAround(scenario), scenario.collectives, pairWindowWarnings(plan.world))
    }
  })

/** A divided model is planned by its units, whose layers' parts travel together. */
const inParts = ({ shard }: ScenarioPlan): string =>
  shard === undefined
    ? ""
    : ` in ${counted(shard.division.length, "unit")}, each in ${counted(shard.ranks, "part")}`

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

interface FragmentJson {
  readonly layers: ReadonlyArray<string>
  /** The blocks that these are in, and the layers in none. */
  readonly blocks: ReadonlyArray<string>
  readonly sizeBytes: number
  readonly sendAfterStep: number
  readonly applyAfterStep: number
}

interface ScheduleJson extends Omit<PlanDescription, "buckets" | "steps" | "fragments"> {
  readonly algorithm: string
  readonly periodSteps: number
  readonly buckets?: ReadonlyArray<BucketJson>
  readonly steps?: ReadonlyArray<StepJson>
  readonly fragments?: ReadonlyArray<FragmentJson>
}

const scheduleOf = ({ planned, facts, wire }: PlannedScenario, algorithm: string): ScheduleJson => {
  const { periodSteps } = planned
  const { profile } = facts
  const { buckets, steps, fragments, ...figures } = planned.describe()
  const name = (layer: number): string => profile.layers[layer]?.name ?? String(layer)
  const blocks = blocksIn(facts)
  return {
    algorithm,
    periodSteps,
    ...(buckets === undefined
      ? {}
      : {
          buckets: buckets.map(({ parameters, sizeBytes, dtype, readyAfter }) => ({
            parameters: parameters.length,
            sizeBytes,
            dtype,
            readyAfterLayer: name(profile.parameters[readyAfter]?.layer ?? 0),
            allReduceSeconds: facts.allReduceSeconds(
              parameters.reduce(
                (bytes, index) => bytes + sizeBytesOf(elementsOf(profile.parameters[index]!.shape), wire),
                0
              )
            )
          }))
        }),
    ...figures,
    ...(steps === undefined
      ? {}
      : {
          steps: steps.map(({ layers, exposedSeconds }) => ({ layers: layers.map(name), exposedSeconds }))
        }),
    ...(fragments === undefined
      ? {}
      : {
          fragments: fragments.map(({ layers, sendAfterStep }) => ({
            layers: layers.map(name),
            blocks: [...new Set(layers.map((layer) => blocks[layer] ?? name(layer)))],
            sizeBytes: layers.reduce((sum, layer) => sum + layerBytes(profile, wire)[layer]!, 0),
            sendAfterStep,
            applyAfterStep: sendAfterStep + (figures.delaySteps ?? 0)
          }))
        })
  }
}

const printSchedule = (schedule: ScheduleJson): ReadonlyArray<string> => [
  ...(schedule.buckets === undefined ? [] : printBuckets(schedule.buckets)),
  ...(schedule.steps === undefined ? [] : printSteps(schedule, schedule.steps)),
  ...(schedule.planners === undefined ? [] : printPlanners(schedule.planners, schedule.planner)),
  ...(schedule.fragments === undefined ? [] : printFragments(schedule, schedule.fragments))
]

const printBuckets = (buckets: ReadonlyArray<BucketJson>): ReadonlyArray<string> => [
  `${counted(buckets.length, "bucket")}, in the order they are sent`,
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
    `period of ${counted(periodSteps, "step")}: ${formatSeconds(exposedSeconds)} exposed${bound}`,
    ...alignColumns([["step", "layers", "exposed", "averaged"], ...lines], (column) => column < 3)
  ]
}

const printPlanners = (
  planners: NonNullable<PlanDescription["planners"]>,
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
  `${counted(fragments.length, "fragment")} in a period of ${counted(periodSteps, "step")}, applied ${delaySteps === 0 ? "at once" : `${counted(delaySteps, "step")} later`}`,
  ...alignColumns(
    [
      ["", "after step", "size", "blocks and other layers"],
      ...fragments.map(({ sendAfterStep, sizeBytes, blocks }, index) => [
        String(index),
        String(sendAfterStep),
        formatBytes(sizeBytes),
        names(blocks)
      ])
    ],
    (column) => column < 3
  )
]

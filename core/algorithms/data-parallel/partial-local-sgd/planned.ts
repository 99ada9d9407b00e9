// A few layers averaged in each step, planned: what partial local SGD and DreamDDP share.
import type { Dtype } from "../../../machine/tensor.ts"
import { layerBytes, wireOf, type PlannedAlgorithm, type PlanningFacts } from "../algorithm.ts"
import { syncProblem, timedProblem, type Deadline, type SyncProblem, type UpdateOrder } from "../plan/cost.ts"
import { planSync, syncPlanners } from "../plan/planners.ts"
import type { SyncMethod, SyncPlan } from "../plan/sync-plan.ts"
import { rehearseAverages } from "../plan/timeline.ts"
import { partialLocalSgd, type PartialLocalSgdPlan } from "./program.ts"

interface PartialSettings {
  readonly period: number
  readonly wire: Dtype
  readonly deadline: Deadline
  readonly order: UpdateOrder
}

const problemOf = (
  { profile, phaseSeconds, allReduceSeconds, rehearsal }: PlanningFacts,
  { period, wire, deadline, order }: PartialSettings
): SyncProblem => {
  const bytes = layerBytes(profile, wire)
  const communication = bytes.map((size) => (size === 0 ? 0 : allReduceSeconds(size)))
  const hasParameters = bytes.map((size) => size !== 0)
  if (rehearsal !== undefined)
    return timedProblem(
      rehearseAverages(rehearsal, hasParameters, order, deadline),
      Float64Array.from(communication),
      hasParameters,
      period
    )
  return syncProblem(
    profile.layers.map(({ forward, backward, optimizer }, index) => ({
      forwardSeconds: phaseSeconds(forward),
      backwardSeconds: phaseSeconds(backward),
      updateSeconds: phaseSeconds(optimizer),
      communicationSeconds: communication[index]!,
      hasParameters: hasParameters[index]!
    })),
    { period, deadline, order }
  )
}

/** Layers that step before they are averaged step after the last of all gradients, where these are clipped. */
export const lostToClipping = ({ order }: Pick<PartialSettings, "order">): string | undefined =>
  order === "step-then-average" ? "averages begin after the backward pass and not within it" : undefined

/** The sets that `choose` finds for the problem that the model and the links pose. */
export const planSets = (
  settings: PartialSettings,
  facts: PlanningFacts,
  choose: (problem: SyncProblem) => SyncPlan
): PlannedAlgorithm => {
  const problem = problemOf(facts, settings)
  const sync = choose(problem)
  const { period, order, deadline, wire } = settings
  const plan: PartialLocalSgdPlan = { sets: sync.sets, order, deadline, overlap: true, wire: wireOf(wire) }
  return {
    periodSteps: period,
    warmupSteps: period,
    wire,
    describe: () => ({
      planner: sync.method,
      steps: sync.sets.map((layers, step) => ({
        layers,
        exposedSeconds: sync.perIterationSeconds[step] ?? 0
      })),
      exposedSeconds: sync.exposedSeconds,
      lowerBoundSeconds: sync.lowerBoundSeconds,
      planners: (Object.keys(syncPlanners) as ReadonlyArray<SyncMethod>).map((planner) => {
        const { exposedSeconds, lowerBoundSeconds, exact } = planSync(problem, planner)
        return { planner, exposedSeconds, lowerBoundSeconds, optimal: exact }
      })
    }),
    program: (build, steps, from) => partialLocalSgd(build, plan, steps, from),
    gradientsLast: order === "average-then-step" && deadline === "next-use"
  }
}

// Fragments with an outer optimizer, planned: what DiLoCo and Streaming DiLoCo share.
import * as Result from "effect/Result"
import type { Dtype } from "../../../machine/tensor.ts"
import type { SettingsError } from "../../algorithm.ts"
import { wireOf, type PlannedAlgorithm } from "../algorithm.ts"
import { planFragments, type FragmentSettings } from "../plan/fragments.ts"
import { diloco, type DilocoPlan } from "./program.ts"

export const planDiloco = (
  fragments: FragmentSettings,
  { wire, ...how }: Omit<DilocoPlan, "schedule" | "wire"> & { readonly wire: Dtype }
): Result.Result<PlannedAlgorithm, SettingsError> =>
  Result.map(planFragments(fragments), (schedule): PlannedAlgorithm => {
    const { outerLearningRate, outerMomentum, deadline, overlap } = how
    const plan: DilocoPlan = {
      schedule,
      outerLearningRate,
      outerMomentum,
      deadline,
      overlap,
      wire: wireOf(wire)
    }
    const { delaySteps, localShare } = schedule
    return {
      periodSteps: fragments.period,
      warmupSteps: fragments.period,
      wire,
      describe: () => ({ delaySteps, localShare, fragments: schedule.fragments }),
      program: (build, steps, from) => diloco(build, plan, steps, from)
    }
  })

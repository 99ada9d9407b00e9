// A scenario of data-parallel training, resolved and planned, before anything runs: its world, its model's profile, what
// collectives cost, and what the algorithm decides.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { PlannedAlgorithm, PlanningFacts } from "../../../core/algorithms/data-parallel/algorithm.ts"
import { planDataParallel } from "../../../core/algorithms/data-parallel/algorithms.ts"
import type { CollectiveTable } from "../../../core/cost/collective-table.ts"
import { deviceNamed, type Device } from "../../../core/cost/devices.ts"
import type { OpTable } from "../../../core/cost/op-table.ts"
import { InputError } from "../../../core/input-error.ts"
import type { Profile } from "../../../core/profile.ts"
import { aloneSeconds } from "../../../core/wire/alone.ts"
import { Network } from "../../../core/wire/network.ts"
import { interchangeable } from "../../../core/wire/symmetry.ts"
import type { World } from "../../../core/world.ts"
import type { Loader } from "../../load.ts"
import { resolveModel, type ResolvedModel } from "../../model.ts"
import { opTableOf, resolveOpTable } from "../../op-table.ts"
import { resolveCollectiveTable, resolveDevice } from "../../resolve.ts"
import { resolveWorld } from "../../world.ts"
import type { DataParallelScenario } from "./scenario.ts"

/** What the algorithm decides for this scenario, without running it. */
export interface ScenarioPlan {
  readonly planned: PlannedAlgorithm
  readonly profile: Profile
  readonly world: World
  readonly facts: PlanningFacts
}

/** The same with what costs come from. */
export interface PreparedDataParallel extends ScenarioPlan {
  readonly model: ResolvedModel
  /** Whose peak rates estimate what nobody measured. */
  readonly device: Device | undefined
  readonly table: CollectiveTable | undefined
  /** Timed kernels, for what is no layer of a profile. */
  readonly ops: OpTable | undefined
}

// Planning reckons with the world as stated, before anything goes wrong.
const alike = { rank: () => "", node: () => "", site: String }

/** Plans a scenario's algorithm without running it. `file` is its path: files it names are relative to its folder. */
export const planScenario = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader
): Effect.Effect<PreparedDataParallel, InputError> =>
  Effect.gen(function* () {
    const world = yield* resolveWorld(scenario.world, file, loader)
    const chosen = resolveDevice(scenario.device)
    const described = yield* resolveOpTable(scenario.costs, chosen, "costs", file, loader)
    const model = yield* resolveModel(
      scenario.model,
      world.size,
      { device: chosen, ops: described, computeDtype: scenario.precision },
      file,
      loader
    )
    const { profile } = model
    const device = chosen ?? deviceNamed(profile.device)
    const own =
      profile.ops.length > 0 && scenario.costs === undefined ? opTableOf(profile, device) : undefined
    const ops = own ?? (yield* resolveOpTable(scenario.costs, device, "costs", file, loader))
    const table = yield* resolveCollectiveTable(scenario.collectives.measured, "all_reduce", file, loader)
    const facts: PlanningFacts = {
      profile,
      phaseSeconds: (cost) => (model.hostTime === "span" ? cost.spanSeconds : cost.busySeconds),
      allReduceSeconds: aloneSeconds(
        new Network(world, interchangeable(world, alike)),
        "all_reduce",
        world.all,
        {
          algorithm: scenario.collectives.algorithm,
          table
        }
      )
    }
    const planned = planDataParallel(scenario.algorithm, facts)
    if (Result.isFailure(planned)) {
      const { field, value, accepted } = planned.failure
      return yield* new InputError({ file, field: `algorithm.${field}`, value: String(value), accepted })
    }
    return { world, model, profile, device, table, ops, facts, planned: planned.success }
  })

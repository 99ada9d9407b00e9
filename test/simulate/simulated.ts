// Simulations for tests, with everything that does not matter to them left at its default.

import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { PlannedAlgorithm } from "../../core/algorithms/data-parallel/algorithm.ts"
import { DataParallelSettings, planDataParallel } from "../../core/algorithms/data-parallel/algorithms.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import type { Execution } from "../../core/laws/execution.ts"
import type { Profile } from "../../core/profile.ts"
import { makeWorld, type LinkSpec, type World } from "../../core/world.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { makeCostModel, type CostModel } from "../../core/cost/cost-model.ts"
import { Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import { simulate, type Simulation, type SimulationResult } from "../../sim/simulate.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { executionOf } from "../../testing/execution.ts"
import type { AlgorithmInput } from "../../testing/algorithm.ts"

export const unlimited: LinkSpec = { bytesPerSecond: Infinity, latencySeconds: 0 }

/** So many nodes of one rank each at one site. */
export const flatWorld = (ranks: number, inter: LinkSpec = unlimited): World =>
  makeWorld([{ name: "site", nodes: Array.from({ length: ranks }, () => 1) }], {
    intra: unlimited,
    inter,
    wan: undefined
  })

type Options<A> = Partial<Simulation<A>> & Pick<Simulation<A>, "world" | "program">

const complete = <A>(options: Options<A>): Simulation<A> => ({
  costs: freeKernels,
  network: "fluid",
  collectives: { algorithm: "ring" },
  ...options
})

/** Every kernel takes no time. */
export const freeKernels: CostModel = { seconds: () => 0, estimates: [] }

export const run = <A>(options: Options<A>): SimulationResult<A> =>
  Effect.runSync(simulate(complete(options)))

/** The error that the simulation fails with; throws if it does not. */
export const failureOf = <A>(options: Options<A>): unknown => {
  const exit = Effect.runSyncExit(simulate(complete(options)))
  if (Exit.isSuccess(exit)) throw new Error("the simulation succeeded")
  return Cause.squash(exit.cause)
}

/** A recorded run with its journals, as the laws see it. */
export const execute = <A>(
  options: Options<A>
): { readonly simulated: SimulationResult<A>; readonly execution: Execution } => {
  const journals: Array<Journal> = []
  const simulated = run({ ...options, program: journaled(options.program, journals), record: true })
  const algorithm = options.collectives?.algorithm ?? "ring"
  return {
    simulated,
    execution: executionOf(simulated, journals, options.world, algorithm, options.lookAhead)
  }
}

/** A generated algorithm planned for a profile in a world, its settings decoded, and the program's costs. */
export const plan = (
  input: AlgorithmInput,
  profile: Profile,
  world: World,
  collectives: CollectiveAlgorithm = "ring"
): {
  readonly settings: DataParallelSettings
  readonly planned: PlannedAlgorithm
  readonly costs: CostModel
} => {
  const settings = Schema.decodeUnknownSync(DataParallelSettings)(input)
  const planned = Result.getOrThrow(
    planDataParallel(settings, {
      profile,
      ranks: world.size,
      phaseSeconds: ({ spanSeconds }) => spanSeconds,
      allReduceSeconds: aloneSeconds(new Network(world, distinct(world)), "all_reduce", world.all, {
        algorithm: collectives
      })
    })
  )
  return { settings, planned, costs: makeCostModel({ profile }) }
}

/** Compute seconds of one step: every phase of every layer. */
export const computeSecondsOf = ({ layers }: Profile): number =>
  layers.reduce(
    (sum, { forward, backward, optimizer }) =>
      sum + forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds,
    0
  )

/** Within a relative 1e-9, the rounding of sums of times. */
export const close = (a: number, b: number): boolean =>
  Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b), 1e-9)

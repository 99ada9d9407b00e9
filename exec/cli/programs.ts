// For each task, the program of a scenario with real kernels, as both machines run it. Weights and activations are float32,
// whatever the scenario's model says: the processor computes with no other floats.
import * as Effect from "effect/Effect"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { expertOffload, type OffloadLog } from "../../core/algorithms/expert-offload/program.ts"
import type { ExpertOffloadScenario } from "../../scenarios/families/expert-offload/scenario.ts"
import type { KvServingScenario } from "../../scenarios/families/kv-serving/scenario.ts"
import type { ServingOutcome, ServingPlan } from "../../core/algorithms/kv-serving/server.ts"
import { moeTraining } from "../../core/algorithms/moe-training/program.ts"
import type { MoeTrainingScenario } from "../../scenarios/families/moe-training/scenario.ts"
import type { LayerCall } from "../../core/algorithms/expert-offload/demand.ts"
import type { InputError } from "../../core/input-error.ts"
import type { MachineError, Program } from "../../core/machine/machine.ts"
import { toleranceOnWire } from "../../core/agreement/values.ts"
import type { Scenario } from "../../scenarios/scenario.ts"
import { makeWorld } from "../../core/world.ts"
import { prepare as prepareOffload } from "../../scenarios/families/expert-offload/prepare.ts"
import { programs as servingPrograms, resolveServing } from "../../scenarios/families/kv-serving/resolve.ts"
import { prepareMoe, type PipelineSimulator } from "../../scenarios/families/moe-training/prepare.ts"
import type { Loader } from "../../scenarios/load.ts"
import { execute } from "../execute.ts"
import type { InitialValues } from "../../core/machine/machine.ts"
import type { BothOptions } from "./both-machines.ts"
import { prepareTraining } from "./prepare.ts"
import { servingValues } from "./serving-values.ts"
import { trainedServing, type Trained } from "./trained-serving.ts"

/** What a scenario comes to on both machines. `file` is its path: files it names are relative to its folder. */
export const programOf = (
  scenario: Scenario,
  file: string,
  loader: Loader,
  simulated: PipelineSimulator
): Effect.Effect<BothOptions<unknown>, InputError | MachineError> => {
  switch (scenario.task) {
    case "data-parallel":
      return trainingProgram(scenario, file, loader)
    case "moe-training":
      return moeProgram(scenario, file, loader, simulated)
    case "expert-offload":
      return Effect.flatMap(offloadPrograms(scenario, file, loader), ({ uncapped, knowing, ...common }) =>
        Effect.map(execute({ ...common, program: uncapped(), capacityBytes: undefined }), ({ ranks }) =>
          knowing(ranks[0]!.value.calls)
        )
      )
    case "kv-serving":
      return servingProgram(scenario, file, loader)
  }
}

const trainingProgram = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader
): Effect.Effect<BothOptions<void>, InputError> =>
  Effect.map(prepareTraining(scenario, file, loader), ({ world, planned, build, steps }) => ({
    world,
    // Each step's loss is read: a value that both machines must agree on, and a wait that both must keep.
    program: () =>
      observed(build, (model) => planned.program(model, steps), { everySteps: 1, onLoss: () => undefined }),
    tolerance: toleranceOnWire(planned.wire),
    collectives: scenario.collectives.algorithm,
    network: scenario.network,
    capacityBytes: scenario.memory
  }))

const moeProgram = (
  scenario: MoeTrainingScenario,
  file: string,
  loader: Loader,
  simulated: PipelineSimulator
): Effect.Effect<BothOptions<unknown>, InputError> =>
  Effect.map(prepareMoe(scenario, file, loader, simulated), ({ world, model, planned }) => ({
    world,
    program: () =>
      moeTraining({ model: { ...model, dtype: "float32" }, plan: planned.plan, steps: 1 + scenario.steps }),
    network: scenario.network,
    capacityBytes: scenario.memory
  }))

const unlimited = { bytesPerSecond: Infinity, latencySeconds: 0 }

/** One rank, alone. */
export const oneRank = makeWorld([{ name: "site", nodes: [1] }], {
  intra: unlimited,
  inter: unlimited,
  wan: undefined
})

/** A scenario's generation, and the same with room for every expert on the device. */
export interface OffloadPrograms extends BothOptions<OffloadLog> {
  readonly uncapped: () => Program<OffloadLog>
  /** What strategies that know the future are to know: the calls of an uncapped run. */
  readonly knowing: (calls: ReadonlyArray<LayerCall>) => BothOptions<OffloadLog>
}

/** Copies between host and device as the scenario limits them. */
export const hostBus = ({ hostLink }: ExpertOffloadScenario) =>
  hostLink === undefined
    ? {}
    : { h2d: { bytesPerSecond: hostLink.bandwidth, latencySeconds: hostLink.latency } }

export const offloadPrograms = (
  scenario: ExpertOffloadScenario,
  file: string,
  loader: Loader
): Effect.Effect<OffloadPrograms, InputError> =>
  Effect.gen(function* () {
    const prepared = yield* prepareOffload(scenario, file, loader)
    const { model, workload } = prepared
    const { bytes: _, ...cache } = { bytes: undefined, ...scenario.cache }
    const whole = yield* prepareOffload(
      { ...scenario, algorithm: { name: "lru" }, cache: { ...cache, slotsPerLayer: model.experts } },
      file,
      loader
    )
    const plan = {
      model: { ...model, dtype: "float32" as const },
      workload,
      writeBack: scenario.cache.writeBack,
      seed: scenario.seed
    }
    const common = { world: oneRank, ...hostBus(scenario) }
    const knowing = (calls: ReadonlyArray<LayerCall>): BothOptions<OffloadLog> => ({
      ...common,
      program: () =>
        expertOffload({ ...plan, strategy: () => prepared.strategy(undefined, { shape: model, calls }) }),
      capacityBytes: scenario.memory
    })
    return {
      ...knowing(prepared.demand.calls),
      knowing,
      uncapped: () => expertOffload({ ...plan, strategy: () => whole.strategy() })
    }
  })

/** A scenario's serving. */
export interface ServingProgram extends BothOptions<ServingOutcome> {
  readonly plan: ServingPlan
  readonly initial: InitialValues
}

/** `trained`: weights and a text for prompts, instead of random ones. */
export const servingProgram = (
  scenario: KvServingScenario,
  file: string,
  loader: Loader,
  trained?: Trained
): Effect.Effect<ServingProgram, InputError> =>
  Effect.gen(function* () {
    const { plan: resolved, world } = yield* resolveServing(scenario, file, loader)
    const real: ServingPlan = { ...resolved, model: { ...resolved.model, dtype: "float32" } }
    const { plan, initial } =
      trained === undefined
        ? { plan: real, initial: servingValues(real, scenario.seed) }
        : yield* trainedServing(real, scenario.seed, trained, file)
    const { to, bandwidth = Infinity, latency } = scenario.transfer
    const bus = { bytesPerSecond: bandwidth, latencySeconds: latency }
    return {
      plan,
      world,
      program: () => servingPrograms[to](plan),
      initial,
      network: scenario.network,
      capacityBytes: scenario.memory,
      ...(to === "host" ? { h2d: bus, d2h: bus } : {})
    }
  })

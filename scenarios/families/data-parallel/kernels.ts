// From a scenario of data-parallel training to what both machines run: the world, the plan, and a model of real kernels with
// its text. The plan is made once, from estimates or a given profile, so that both machines are handed the same one.
import { linkOf } from "../../resolve.ts"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { observed } from "../../../core/algorithms/data-parallel/observe.ts"
import { kernelModel, type KernelModelBuilder } from "../../../core/algorithms/data-parallel/kernel-model.ts"
import type { PlannedAlgorithm } from "../../../core/algorithms/data-parallel/algorithm.ts"
import type { ShardPlan } from "../../../core/algorithms/data-parallel/shard/plan.ts"
import type { Program } from "../../../core/machine/machine.ts"
import { withSnapshots } from "../../../core/machine/snapshots.ts"
import { dtypeBits, elementsOf } from "../../../core/machine/tensor.ts"
import type { DataParallelScenario } from "./scenario.ts"
import { copiedCheckpoints } from "./checkpoint-settings.ts"
import { savedBeginning } from "./beginning.ts"
import {
  accumulationOf,
  layerDtypeOf,
  lossScalingOf,
  optimizerOf,
  TrainingSettings
} from "./training-settings.ts"
import { InputError } from "../../../core/input-error.ts"
import type { LayerGraph } from "../../../core/models/layer-graph.ts"
import { architectureOf, isArchitecture, modelGraph, vocabularyOf } from "../../model-graph.ts"
import { inTf32 } from "../../../core/models/tf32.ts"
import type { Profile } from "../../../core/profile.ts"
import type { DeviceSettings } from "../../sections.ts"
import type { World } from "../../../core/world.ts"
import * as Schema from "effect/Schema"
import { planScenario, stepsOf } from "./prepare.ts"
import type { Runnable } from "../../runnable.ts"
import type { Continuation, TrainingChoices } from "../../trainable.ts"
import type { Loader } from "../../load.ts"
import type { SavedWeights } from "../../../traces/weights-file.ts"
import { loadCorpus, type Learnable } from "../../corpus.ts"
import { reasonOf } from "../../file/source.ts"

export interface PreparedTraining {
  readonly scenario: DataParallelScenario
  readonly world: World
  readonly planned: PlannedAlgorithm
  readonly shard: ShardPlan | undefined
  /** What the plan was made of. */
  readonly profile: Profile
  readonly graph: LayerGraph
  readonly corpus: Learnable
  readonly build: KernelModelBuilder
  /** What a file of its weights says beside them. */
  readonly learns: Omit<SavedWeights, "parameters">
  readonly continuation: Continuation
  /** Tokens of one rank in a step. */
  readonly batchTokens: number
  /** Warm-up and measured steps, whole periods of the algorithm's schedule. */
  readonly steps: number
}

/** Rates of one processor core, for plans where the scenario names no device: the right order of magnitude. */
const core: DeviceSettings = { name: "processor core", flops: 2e10, memoryBandwidth: 1e10 }

const defaultTraining = Schema.decodeUnknownSync(TrainingSettings)({})

/** `file` is the scenario's path; `choices` are files: a profile of the same model to plan with, weights to begin with. */
export const prepareTraining = (
  scenario: DataParallelScenario,
  file: string,
  loader: Loader,
  { planFrom, weights }: Pick<TrainingChoices, "planFrom" | "weights"> = {}
): Effect.Effect<PreparedTraining, InputError> =>
  Effect.gen(function* () {
    const { model, training = defaultTraining } = scenario
    if (!isArchitecture(model)) {
      return yield* new InputError({
        file,
        field: "model",
        value: "profile" in model ? `{profile: ${model.profile}}` : "{layers, parameters, stepSeconds}",
        accepted: "an architecture, whose kernels can be run: {gpt2}, {llama} or {mixtral} with its sizes"
      })
    }
    const graph = yield* Effect.try({
      try: () => {
        const plain = modelGraph(model, layerDtypeOf(training))
        return training.precision === "tf32" ? inTf32(plain) : plain
      },
      catch: (cause) =>
        new InputError({
          file,
          field: "model",
          value: reasonOf(cause),
          accepted: "sizes that divide"
        })
    })
    const { planned, profile, world, shard } = yield* planScenario(
      planFrom === undefined
        ? { ...scenario, device: scenario.device ?? core }
        : {
            ...scenario,
            model: { profile: path.resolve(planFrom), hostTime: "span" },
            ...(scenario.activations === undefined
              ? {}
              : { activations: { ...scenario.activations, of: model } })
          },
      file,
      loader,
      graph
    ).pipe(
      Effect.mapError((error) =>
        planFrom !== undefined && error.field.startsWith("model.")
          ? new InputError({
              file: "--plan-from",
              field: "",
              value: error.value ?? planFrom,
              accepted: error.accepted
            })
          : error
      )
    )
    if (planFrom !== undefined && !sameLayers(profile, graph)) {
      return yield* new InputError({
        file: planFrom,
        field: "",
        value: `a profile of ${profile.name} with ${profile.layers.length} layers`,
        accepted: `a profile of the scenario's ${graph.name} with its ${graph.layers.length} layers and their parameters, as \`exec profile\` writes it`
      })
    }
    const gathered = shard?.parameterDtype
    const read = layerDtypeOf(training)
    if (gathered !== undefined && gathered !== read && dtypeBits[gathered] >= dtypeBits[read]) {
      return yield* new InputError({
        file,
        field: "shard.parameterDtype",
        value: gathered,
        accepted: `${read}${read === "float32" ? " or narrower" : ""}, in which layers read parameters (training.precision)`
      })
    }
    const [batch, context] = graph.inputs[0]!.shape as readonly [number, number]
    const corpus = yield* loadCorpus(training, { context, vocabulary: vocabularyOf(model) }, file)
    const { warmupSteps, steps } = stepsOf(scenario, planned)
    const learns = {
      name: scenario.name,
      ...architectureOf(model),
      characters: corpus.characters,
      heldOut: training.heldOut
    }
    return {
      scenario,
      world,
      planned,
      shard,
      profile,
      graph,
      corpus,
      build: kernelModel({
        graph,
        recompute: scenario.activations?.recompute,
        optimizer: optimizerOf(training.optimizer),
        corpus: corpus.train,
        heldOut: corpus.heldOut.length > context ? corpus.heldOut : undefined,
        seed: scenario.seed,
        initial: weights === undefined ? undefined : yield* savedBeginning(weights, graph, learns),
        clipNorm: training.clipNorm,
        lossScaling: lossScalingOf(training),
        accumulation: accumulationOf(training),
        gradientsLast: planned.gradientsLast,
        shard
      }),
      learns,
      continuation: continuationOf(scenario, training, planned, corpus, shard),
      batchTokens: training.accumulate * batch * context,
      steps: warmupSteps + steps
    }
  })

/** Links, devices and faults decide when things happen, not what is learnt; of the text, its tokens do. */
const continuationOf = (
  { task, model, algorithm, seed, shard }: DataParallelScenario,
  training: TrainingSettings,
  planned: PlannedAlgorithm,
  { source }: Learnable,
  divided: ShardPlan | undefined
): Continuation => {
  const { text: _, tokens: __, heldOutTokens: ___, ...learning } = training
  return {
    run: {
      task,
      model,
      algorithm,
      shard: shard ?? null,
      // Parts of a small unit are as long whatever their number, so their shapes do not tell.
      ...(divided === undefined ? {} : { parts: divided.ranks }),
      seed,
      training: learning
    },
    plan: planned.describe(),
    data: source,
    fixedRanks: shard === undefined ? planned.fixedRanks : "each rank holds a part of the model of its own"
  }
}

/** By name, and as many parameters of the same sizes in each, in whatever order. */
const sameLayers = ({ layers, parameters }: Profile, graph: LayerGraph): boolean => {
  const told = (all: ReadonlyArray<readonly [name: string, elements: ReadonlyArray<number>]>): string =>
    JSON.stringify(all.map(([name, elements]) => [name, elements.toSorted((a, b) => a - b)]))
  const own = Map.groupBy(parameters, ({ layer }) => layer)
  return (
    told(
      layers.map(({ name }, index) => [name, (own.get(index) ?? []).map(({ shape }) => elementsOf(shape))])
    ) === told(graph.layers.map((layer) => [layer.name, layer.parameters.map(({ elements }) => elements)]))
  )
}

/** Each step's loss is read: a value that both machines must agree on, and a wait that both must keep. */
export const runnableOf = ({ scenario, world, planned, build, steps }: PreparedTraining): Runnable<void> => {
  const { checkpoint } = scenario
  const saved = (program: Program<void>) =>
    checkpoint === undefined ? program : withSnapshots(program, copiedCheckpoints(checkpoint))
  const upTo = (count: number) =>
    observed(build, (model) => saved(planned.program(model, count)), {
      everySteps: 1,
      onLoss: () => undefined
    })
  return {
    ...(checkpoint?.hostLink === undefined ? {} : { d2h: linkOf(checkpoint.hostLink) }),
    world,
    program: () => upTo(steps),
    upTo,
    collectives: scenario.collectives.algorithm,
    network: scenario.network,
    capacityBytes: scenario.memory
  }
}

// What is drawn of each family for both machines: tiny models on a few ranks, each with one of its algorithms. The same for ranks
// that are threads of one process and for ranks that are processes.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import {
  averageOf,
  submitAll,
  submitEarlier,
  type TrainingModelBuilder
} from "../../core/algorithms/data-parallel/training-model.ts"
import type { LossScaling } from "../../core/algorithms/data-parallel/loss-scale.ts"
import type { ExpertOffloadSettings } from "../../core/algorithms/expert-offload/algorithms.ts"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { expertOffload } from "../../core/algorithms/expert-offload/program.ts"
import { fixedScope, makeStrategy } from "../../core/algorithms/expert-offload/strategy.ts"
import type { Workload } from "../../core/algorithms/expert-offload/workload.ts"
import { gateNames, type MoeModel as TrainedModel } from "../../core/algorithms/moe-training/model.ts"
import { laneCounts } from "../../core/algorithms/moe-training/plan/pipeline.ts"
import { moeTraining } from "../../core/algorithms/moe-training/program.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { Random } from "../../core/random.ts"
import { makeWorld } from "../../core/world.ts"
import type { BothOptions } from "../../exec/cli/both-machines.ts"
import { algorithmChoice } from "../../testing/algorithm.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { offloadSettings } from "../../testing/expert-offload.ts"
import { factsOf } from "../expert-offload/facts.ts"
import { expertValues, offloadModel } from "../expert-offload/tiny-experts.ts"
import { places, programs, valuesOf, type Place } from "../kv-serving/served.ts"
import { tinyModel as tinyLlama, weightsOf } from "../kv-serving/tiny-llama.ts"
import { flatWorld, plan, run, unlimited } from "../simulate/simulated.ts"
import { tinyGraphs, tinyModel, tinyProfile } from "../training/tiny.ts"
import { accumulations } from "../training/rule-instances.ts"
import { generatedProgram, programOf } from "./generated-programs.ts"

/** A drawn program for both machines, and what it is of: an algorithm's name, for counting. */
export interface Drawn {
  readonly of: string
  readonly options: BothOptions<unknown>
}

/** Kernels, copies and collectives at random. */
export const drawnPrograms = (ranks: number): fc.Arbitrary<Drawn> =>
  generatedProgram().map((generated) => ({
    of: "generated",
    options: { world: flatWorld(ranks), program: () => programOf({ ...generated, ranks }) }
  }))

/**
 * One that changes from step to step, in every third program. By the seed that is drawn anyway: what else is drawn of a seed is what it
 * was before losses were scaled, so that what an earlier soak found is found again.
 */
const lossScalingOf = (seed: number): LossScaling | undefined =>
  seed % 3 === 2 ? { initial: 1024, growthInterval: 2, growthFactor: 4, backoffFactor: 0.5 } : undefined

/** Training with every data-parallel algorithm. */
export const drawnTraining = (ranks: fc.Arbitrary<number>): fc.Arbitrary<Drawn> =>
  fc
    .tuple(
      fc.constantFrom(...Object.values(tinyGraphs)),
      algorithmChoice({ maxPeriod: 3 }),
      ranks,
      fc.nat({ max: 1000 }),
      fc.constantFrom(undefined, 0.5),
      fc.boolean(),
      accumulations
    )
    .map(([graph, choice, size, seed, clipNorm, inChunks, accumulation]) => {
      const world = flatWorld(size)
      const { settings, planned } = plan(choice(graph.layers.length), tinyProfile(graph), world)
      const usual = tinyModel(graph)
      const text = usual.corpus.chunk(0)
      // Every step draws as many tokens as a chunk has, so the next one's turn comes after each.
      const chunk = (index: number) => text.slice(10 * index, 10 * index + 10)
      const model = tinyModel(graph, {
        seed,
        clipNorm,
        accumulation,
        lossScaling: lossScalingOf(seed),
        corpus: inChunks ? { tokens: text.length, chunkTokens: 10, chunk } : usual.corpus,
        optimizer: { name: "sgd", learningRate: 0.1, momentum: 0.9 }
      })
      return {
        of: settings.name,
        options: {
          world,
          program: () =>
            observed(kernelModel(model), (build) => planned.program(build, 3), {
              everySteps: 1,
              onLoss: () => undefined
            })
        }
      }
    })

/** Local steps, after each of which a rank averages its model with one other, another one in each step, or with nobody. */
const gossip = (build: TrainingModelBuilder, steps: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const model = yield* build
    const { layers, begin, clip } = model
    const update = model.update([...layers.keys()])
    const { rank, world } = machine
    for (let step = 0; step < steps; step++) {
      submitAll(machine, begin(step))
      for (const { forward } of layers) for (const op of forward) machine.submit(op)
      submitEarlier(machine, model, step)
      for (const { backward } of layers.toReversed()) for (const op of backward) machine.submit(op)
      for (const op of clip) machine.submit(op)
      submitAll(machine, update(step))
      const partner = (step + world.size - rank) % world.size
      if (partner !== rank) {
        const ranks = [Math.min(rank, partner), Math.max(rank, partner)]
        const paired = { ...model, peers: { name: `pair ${ranks.join()}`, ranks } }
        for (const { name, parameters } of layers)
          if (parameters.length > 0)
            machine.submit(averageOf(`average ${name}`, paired, parameters, undefined))
      }
      for (const { refresh } of layers) for (const op of refresh) machine.submit(op)
      yield* machine.endStep
    }
    yield* machine.drain
  })

/** Training whose ranks differ: each has partners of its own. */
export const drawnGossip = (ranks: number): fc.Arbitrary<Drawn> =>
  fc
    .tuple(
      fc.constantFrom(...Object.values(tinyGraphs)),
      fc.nat({ max: 1000 }),
      fc.integer({ min: 2, max: 4 }),
      fc.constantFrom(undefined, 0.5),
      accumulations
    )
    .map(([graph, seed, steps, clipNorm, accumulation]) => {
      const model = tinyModel(graph, {
        seed,
        clipNorm,
        accumulation,
        optimizer: { name: "sgd", learningRate: 0.1, momentum: 0.9 }
      })
      return {
        of: "gossip",
        options: {
          world: flatWorld(ranks),
          program: () =>
            observed(kernelModel(model), (build) => gossip(build, steps), {
              everySteps: 1,
              onLoss: () => undefined
            })
        }
      }
    })

/** Layers of experts, on so many nodes of so many ranks, with every gate. */
export const drawnExperts = (
  nodes: fc.Arbitrary<number>,
  perNode: fc.Arbitrary<number>
): fc.Arbitrary<Drawn> =>
  fc
    .record({
      nodes,
      perNode,
      layers: fc.integer({ min: 1, max: 2 }),
      gate: fc.constantFrom(...gateNames),
      ffn: fc.constantFrom("gpt" as const, "mixtral" as const),
      factor: fc.constantFrom(1, 2, "dropless" as const),
      lanes: fc.constantFrom(...laneCounts),
      degree: fc.constantFrom(1, 2),
      seed: fc.nat({ max: 1000 })
    })
    .map(({ nodes, perNode, layers, gate, ffn, factor, lanes, degree, seed }) => {
      const tokenChoice = gate !== "expert-choice" && gate !== "soft-moe"
      const model: TrainedModel = {
        layers,
        // A norm over fewer finds rows that are all alike now and then, and makes a hundred times as much of their rounding.
        width: 8,
        hidden: 6,
        kvHeads: 2,
        heads: 2,
        sequence: 4,
        batch: 2,
        experts: 2 * nodes,
        topK: 2,
        capacityFactor: tokenChoice ? factor : 0.25,
        ffn,
        gate,
        gateWidth: 3,
        dtype: "float32",
        learningRate: 0.1,
        seed
      }
      const degrees = Array.from({ length: layers }, () => (tokenChoice ? degree : 1))
      const zeros = degrees.map(() => 0)
      const rest = (layers * 4 * model.width ** 2) / perNode
      const gradients = { moe: zeros, dense: zeros, rest, messageElements: undefined }
      return {
        of: gate,
        options: {
          world: makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
            intra: unlimited,
            inter: unlimited,
            wan: undefined
          }),
          program: () =>
            moeTraining({
              model,
              plan: { lanes, forwardDegrees: degrees, backwardDegrees: degrees, gradients },
              steps: 2
            })
        }
      }
    })

export const noDemand: Demand = { shape: offloadModel, calls: [] }

export const offloadPlan = (
  settings: ExpertOffloadSettings,
  demand: Demand,
  slots: number,
  workload: Workload,
  expertDtype: "float32" | "bfloat16" = "float32"
) => ({
  model: { ...offloadModel, expertDtype },
  workload,
  strategy: () =>
    makeStrategy(settings, factsOf(demand, { slots, scope: fixedScope(settings) ?? "per-layer" })),
  writeBack: (["none", "same-stream", "own-stream"] as const)[slots % 3]!,
  seed: 1
})

/** Generation with offloaded experts under every strategy; each rank by itself. */
export const drawnOffloads = (ranks: number): fc.Arbitrary<Drawn> =>
  fc
    .tuple(
      offloadSettings(),
      fc.integer({ min: 1, max: 4 }),
      fc.record({
        batch: fc.integer({ min: 1, max: 2 }),
        promptTokens: fc.integer({ min: 1, max: 3 }),
        prefill: fc.boolean(),
        decodeTokens: fc.integer({ min: 1, max: 3 }),
        next: fc.constantFrom([], [{ promptTokens: 2, decodeTokens: 1 }])
      }),
      fc.constantFrom("float32" as const, "bfloat16" as const)
    )
    .map(([settings, slots, workload, expertDtype]) => {
      const whole = run({
        world: flatWorld(1),
        program: expertOffload(
          offloadPlan(
            { name: "lru" } as ExpertOffloadSettings,
            noDemand,
            offloadModel.experts,
            workload,
            expertDtype
          )
        ),
        values: expertValues
      })
      const demand: Demand = { shape: offloadModel, calls: whole.ranks[0]!.value.calls }
      return {
        of: settings.name,
        options: {
          world: flatWorld(ranks),
          program: () => expertOffload(offloadPlan(settings, demand, slots, workload, expertDtype)),
          initial: expertValues
        }
      }
    })

const llama = tinyLlama()
const weights = weightsOf(llama, 7)

/** Serving with every cache method, and caches that go there. */
export const drawnServing = (
  where: fc.Arbitrary<Place> = fc.constantFrom(...places)
): fc.Arbitrary<Drawn & { readonly place: Place }> =>
  fc
    .tuple(cacheSettings(), where, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }), fc.nat())
    .map(([settings, place, count, maxBatch, seed]) => {
      const random = new Random(seed)
      const requests = Array.from({ length: count }, (_, id) => ({
        id,
        arrivalSeconds: id * 1e-3,
        promptTokens: 4 + random.below(20),
        outputTokens: 1 + random.below(4)
      }))
      const prompts = requests.map(({ promptTokens }) =>
        Array.from({ length: promptTokens }, () => random.below(llama.vocabulary))
      )
      return {
        of: settings.name,
        place,
        options: {
          world: flatWorld(place === "node" ? 2 : 1),
          program: () => programs[place]({ model: llama, settings, requests, maxBatch }),
          initial: valuesOf(weights, prompts)
        }
      }
    })

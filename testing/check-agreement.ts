// Holds the two machines to each other in generated scenarios: small models of real kernels, any data-parallel algorithm. What
// fails is shrunk and saved as a scenario that `sim run` and `exec agree` accept. Needs the native addon.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import type { Disagreement } from "../core/agreement/disagreement.ts"
import { runsOf, unitsOf } from "../core/algorithms/data-parallel/shard/units.ts"
import { sharingLayers } from "../core/models/layer-graph.ts"
import { recomputeChoices } from "../core/models/recompute.ts"
import { messageOf } from "../core/message-of.ts"
import { runOnBoth, runnableOn, type BothOptions } from "../exec/cli/both-machines.ts"
import { Loader } from "../scenarios/load.ts"
import { isArchitecture, modelGraph } from "../scenarios/model-graph.ts"
import { algorithmChoice, type AlgorithmConstraints } from "./algorithm.ts"
import { saveCounterexample } from "./counterexample.ts"
import { decodeScenario, type ScenarioInput } from "./scenario.ts"

/** How large the scenarios are that both machines run. */
export interface AgreementConstraints extends AlgorithmConstraints {
  /** Default 3. */
  readonly maxRanks?: number
  /** Most steps, before rounding up to whole periods. Default 2. */
  readonly maxSteps?: number
}

const sizes = fc.record({
  layers: fc.integer({ min: 1, max: 2 }),
  heads: fc.constantFrom(1, 2),
  headWidth: fc.constantFrom(4, 8),
  context: fc.constantFrom(4, 8),
  batch: fc.integer({ min: 1, max: 2 })
})

const optimizers = [
  { name: "sgd", learningRate: 0.1, momentum: 0.9 },
  { name: "sgd", learningRate: 0.05 },
  { name: "adamw", learningRate: 1e-3 }
] as const

/**
 * A mean of two gradients that nearly cancel may be no larger than AdamW's usual epsilon, and its rounding is then a part of its step:
 * seen as 1.2 % of it in one of a hundred tiny models.
 */
const steadier = (optimizer: (typeof optimizers)[number]) =>
  optimizer.name === "adamw" ? { ...optimizer, epsilon: 1e-6 } : optimizer

const divisions = [
  { within: "node" },
  { within: "world", prefetch: 0 },
  { within: "world", units: "layer", copies: true },
  { within: "node", parameters: false, gradients: false }
] as const

/** All but one on one node; over links, or nodes would mean nothing to a real run. */
const unlikeNodes = (ranks: number): ScenarioInput["world"] => ({
  ranks,
  ...(ranks < 3
    ? {}
    : {
        ranksPerNode: [ranks - 1, 1],
        links: { intra: { bandwidth: "1GB/s" }, inter: { bandwidth: "100MB/s" } }
      })
})

/** A tiny GPT-2 or Llama on a few ranks, as a scenario file says it. */
export const agreementScenario = (constraints: AgreementConstraints = {}): fc.Arbitrary<ScenarioInput> => {
  const { maxRanks = 3, maxSteps = 2, ...algorithms } = constraints
  return fc
    .record({
      architecture: fc.constantFrom("gpt2", "llama"),
      sizes,
      ranks: fc.integer({ min: 1, max: maxRanks }),
      algorithm: algorithmChoice({ maxPeriod: 3, ...algorithms }),
      steps: fc.integer({ min: 1, max: maxSteps }),
      optimizer: fc.constantFrom(...optimizers),
      seed: fc.nat({ max: 1000 }),
      // On two ranks a node, of which each holds the model together, or all do.
      shard: fc.constantFrom(undefined, ...divisions),
      // One rank on a node of its own, where ranks are several and no node holds the model.
      unlike: fc.boolean(),
      accumulate: fc.constantFrom(1, 1, 2),
      recompute: fc.constantFrom(...recomputeChoices)
    })
    .map(
      ({
        architecture,
        sizes: { headWidth, ...sizes },
        ranks,
        algorithm,
        steps,
        optimizer,
        seed,
        ...more
      }) => {
        const { shard, accumulate, recompute, unlike } = more
        const all = shard === undefined ? ranks : 2 * ranks
        const decoder = { ...sizes, width: sizes.heads * headWidth, vocabulary: 64 }
        const scenario: ScenarioInput = {
          name: "agreement",
          model:
            architecture === "gpt2"
              ? { gpt2: decoder }
              : { llama: { ...decoder, kvHeads: 1, ffnWidth: 2 * decoder.width } },
          world:
            unlike && shard?.within !== "node"
              ? unlikeNodes(all)
              : { ranks: all, ...(shard === undefined ? {} : { ranksPerNode: 2 }) },
          ...(shard === undefined ? {} : { shard }),
          algorithm: { name: "s-sgd" },
          device: { name: "processor core", flops: "20GFLOP/s", memoryBandwidth: "10GB/s" },
          steps,
          seed,
          // Where layers are gathered one by one, as those of one block are, a block cannot be computed again at once.
          ...(recompute === "none" || (shard !== undefined && (sizes.layers === 1 || "units" in shard))
            ? {}
            : { activations: { by: "fused", recompute } }),
          training: accumulate === 1 ? { optimizer } : { optimizer: steadier(optimizer), accumulate }
        }
        const { model } = decodeScenario(scenario)
        if (!isArchitecture(model)) throw new TypeError("a generated model has an architecture")
        const graph = modelGraph(model)
        const names = graph.layers.map(({ name }) => name)
        const units = shard !== undefined && "units" in shard ? shard.units : "block"
        const layers = shard === undefined ? names : runsOf(unitsOf(names, units, sharingLayers(graph)))
        return { ...scenario, algorithm: algorithm(layers.length) }
      }
    )
}

/** As of fast-check's `assert`, and what is drawn. */
export interface AgreementParameters extends Pick<
  fc.Parameters<[ScenarioInput]>,
  "numRuns" | "seed" | "path" | "endOnFailure"
> {
  /** Default: `agreementScenario()`. */
  readonly scenarios?: fc.Arbitrary<ScenarioInput>
  /** Names the counterexample's file. Default "agreement". */
  readonly name?: string
  /** Folder for the counterexample; nothing is written when null. Default "counterexamples". */
  readonly saveTo?: string | null
  /** More for the run on both machines, a session that breaks something for one. */
  readonly both?: Partial<BothOptions<unknown>>
}

/** What `checkAgreement` found; with a failure, how to repeat it. */
export interface AgreementDetails {
  readonly numRuns: number
  readonly seed: number
  readonly counterexamplePath: string | undefined
  readonly counterexample: ScenarioInput | undefined
  /** How the machines differ in the counterexample, or why it does not run. */
  readonly failure: string | undefined
  /** The scenario file that was written. */
  readonly file: string | undefined
}

/** Where the two machines first part in a scenario, if they do. Fails with the typed error of what cannot run. */
const disagreementIn = (
  scenario: ScenarioInput,
  both: Partial<BothOptions<unknown>>
): Promise<Disagreement | undefined> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const loader = new Loader()
      const runnable = yield* runnableOn(decodeScenario(scenario), "agreement.yaml", loader)
      return (yield* runOnBoth({ ...runnable, ...both })).agreement.firstDisagreement
    })
  )

/** Runs generated scenarios on both machines until one in which they differ, and saves the smallest such. */
export const checkAgreement = async (parameters: AgreementParameters = {}): Promise<AgreementDetails> => {
  const {
    scenarios = agreementScenario(),
    name = "agreement",
    saveTo = "counterexamples",
    both = {},
    ...options
  } = parameters
  const details = await fc.check(
    fc.asyncProperty(scenarios, async (scenario) => {
      const found = await disagreementIn(scenario, both)
      if (found !== undefined) throw new Error(found.message)
    }),
    options
  )
  const [counterexample] = details.counterexample ?? []
  const { numRuns, seed } = details
  const path = details.counterexamplePath ?? undefined
  const error = details.errorInstance
  const failure = details.failed ? messageOf(error) : undefined
  const file =
    counterexample === undefined || saveTo === null
      ? undefined
      : saveCounterexample(saveTo, name, { scenario: counterexample, profile: undefined }, [
          failure ?? "",
          `To repeat: seed ${seed}, path "${path ?? ""}".`
        ])
  return { numRuns, seed, counterexamplePath: path, counterexample, failure, file }
}

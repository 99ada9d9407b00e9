// Tiny models of real kernels, for tests that train them.
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import type { KernelModelOptions } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import type { LayerGraph } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { mixtral } from "../../core/models/mixtral.ts"
import type { Profile } from "../../core/profile.ts"
import { Random } from "../../core/random.ts"

const sizes = {
  layers: 1,
  width: 8,
  heads: 2,
  vocabulary: 11,
  context: 5,
  batch: 2,
  activationDtype: "float32" as const
}

export const tinyGraphs: Readonly<Record<"gpt2" | "llama" | "llamaTied" | "mixtral", LayerGraph>> = {
  gpt2: gpt2(sizes),
  llama: llama({ ...sizes, kvHeads: 1, ffnWidth: 12, tied: false }),
  llamaTied: llama({ ...sizes, kvHeads: 1, ffnWidth: 12, tied: true }),
  mixtral: mixtral({ ...sizes, kvHeads: 1, ffnWidth: 6, experts: 3, topK: 2, tied: false })
}

/** The GPT-2 of `tinyGraphs` whose parameters have float32 masters. */
export const narrowGraph: LayerGraph = gpt2({
  ...sizes,
  activationDtype: "bfloat16",
  parameterDtype: "bfloat16"
})

/** A text that a model can learn: each token mostly decides the next. */
export const learnable = (length: number, vocabulary: number, seed: number): Int32Array => {
  const random = new Random(seed)
  const tokens = new Int32Array(length)
  for (let i = 1; i < length; i++) {
    tokens[i] = random.uniform() < 0.9 ? (tokens[i - 1]! * 3 + 1) % vocabulary : random.below(vocabulary)
  }
  return tokens
}

export const tinyModel = (
  graph: LayerGraph,
  options: Partial<KernelModelOptions> = {}
): KernelModelOptions => ({
  graph,
  optimizer: { name: "adamw", learningRate: 0.02 },
  corpus: wholeCorpus(learnable(400, 11, 1)),
  heldOut: learnable(100, 11, 2),
  seed: 7,
  ...options
})

/** Layer times all alike: enough for planners. */
export const tinyProfile = (graph: LayerGraph): Profile => {
  const phase = { busySeconds: 1e-3, spanSeconds: 1e-3 }
  return {
    name: graph.name,
    device: "",
    source: "made up",
    steps: 0,
    stepSeconds: 1e-3,
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: 1e-3,
    unattributedShare: 0,
    layers: graph.layers.map(({ name }) => ({ name, forward: phase, backward: phase, optimizer: phase })),
    parameters: graph.layers
      .flatMap(({ parameters }, layer) => parameters.map(({ shape }) => ({ layer, shape, dtype: "float32" })))
      .toReversed(),
    ops: [],
    collectives: []
  }
}

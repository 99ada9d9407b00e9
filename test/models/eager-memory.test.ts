// What PyTorch keeps for a backward pass, against sums written down by hand from the modules' code; and what is there at the
// worst moment where gradients come as activations go.
import * as fs from "node:fs"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { backwardPeakBytes } from "../../core/algorithms/data-parallel/activations.ts"
import { divided } from "../training/in-parts.ts"
import { planShards } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { eagerCountOf } from "../../core/cost/host.ts"
import { eagerKernels } from "../../core/models/eager-kernels.ts"
import { eagerSavedBytes, type SavedBytes } from "../../core/models/eager-memory.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { parameterCount, type LayerGraph } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { mixtral } from "../../core/models/mixtral.ts"
import { makeWorld, oneRank } from "../../core/world.ts"
import { unlimited } from "../simulate/simulated.ts"

const recorded = JSON.parse(
  fs.readFileSync(new URL("../../bench/measured/fsdp-memory-h200.json", import.meta.url), "utf8")
) as { readonly atPeak: ReadonlyArray<{ readonly place: string; readonly bytes: number }> }

const tokens = 2 * 16
const llamaGraph = llama({
  layers: 3,
  width: 64,
  heads: 4,
  kvHeads: 2,
  ffnWidth: 96,
  vocabulary: 100,
  context: 16,
  batch: 2,
  tied: false
})
const gpt2Graph = gpt2({ layers: 2, width: 64, heads: 4, vocabulary: 100, context: 16, batch: 2 })

const kept = (
  graph: typeof gpt2Graph,
  precision: "autocast" | "eager",
  recompute: "none" | "attention" | "block"
) => eagerSavedBytes(graph, { precision, recompute }).reduce((sum, one) => sum + one.kept, 0)

describe("what autograd keeps", () => {
  it("of a Llama in 16 bits", () => {
    // Norms: float32 input, 16-bit normalised, rsqrt; outputs once for their projections; q, k, v, out, lse; three of the
    // feed-forward and its product.
    const norm = 4 * 64 + 2 * 64 + 4
    const block = 2 * norm + 2 * 64 + 2 * (64 + 32 + 32) + 2 * 64 + 4 * 4 + 2 * 64 + 4 * 2 * 96
    const head = norm + 2 * 64 + 14 * 100
    expect(kept(llamaGraph, "eager", "none")).toBe(tokens * (3 * block + head))
  })

  it("of a Llama under autocast", () => {
    // Norms in float32, a narrow copy of their output for each projection, and of every weight.
    const norm = 4 * 64 + 4 * 64 + 4
    const block = 2 * norm + 5 * 2 * 64 + 2 * (64 + 32 + 32) + 2 * 64 + 4 * 4 + 4 * 2 * 96
    const head = norm + 2 * 64 + 14 * 100
    const weights = 3 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96) + 64 * 100
    expect(kept(llamaGraph, "autocast", "none")).toBe(tokens * (3 * block + head) + 2 * weights)
  })

  it("of a Mixtral, whose experts' weights are parameters whatever their number", () => {
    const ofExperts = (experts: number, precision: "autocast" | "eager") => {
      const graph = mixtral({
        layers: 1,
        width: 64,
        heads: 4,
        kvHeads: 2,
        ffnWidth: 96,
        experts,
        topK: 2,
        vocabulary: 100,
        context: 16,
        batch: 2,
        tied: false
      })
      const at = graph.layers.findIndex(({ name }) => name.endsWith("mlp.experts"))
      return eagerSavedBytes(graph, { precision })[at]!.kept
    }
    // Only what says which rows are whose grows with them: far less than one expert's weights.
    const weights = 2 * 3 * 64 * 96
    expect(Math.abs(ofExperts(16, "eager") - ofExperts(8, "eager"))).toBeLessThan(0.1 * weights)
    // Under autocast each has a narrow copy.
    expect(ofExperts(16, "autocast") - ofExperts(8, "autocast")).toBeGreaterThanOrEqual(8 * weights)
  })

  it("of a GPT-2 in 16 bits", () => {
    const norm = 2 * 64 + 8
    // Queries, keys and values are one tensor, of which the cache copies the latter.
    const attention = 2 * 3 * 64 + 2 * 2 * 64 + 2 * 64 + 4 * 4
    const block = 2 * (norm + 2 * 64) + attention + 4 * 2 * 256 + 2 * 256
    expect(kept(gpt2Graph, "eager", "none")).toBe(tokens * (2 * block + norm + 2 * 64 + 14 * 100))
  })

  // A step under FSDP2 whose output nobody held: what was there at its peak beside parameters and the optimizer's, and gathered ones.
  it("of a Llama of 853M is what PyTorch's allocator had (bench/measured/fsdp_memory.py)", () => {
    const graph = llama({
      layers: 16,
      width: 2048,
      heads: 32,
      kvHeads: 8,
      ffnWidth: 5632,
      vocabulary: 32_000,
      context: 2048,
      batch: 4,
      tied: false
    })
    const atPeak = recorded.atPeak.filter(({ place }) => !place.includes("_fsdp"))
    const measured = atPeak.reduce((sum, { bytes }) => sum + bytes, 0)
    const bytes = (output: "held" | "dropped") =>
      eagerSavedBytes(graph, { precision: "eager", output }).reduce((sum, one) => sum + one.kept, 0)
    expect(Math.abs(bytes("dropped") / measured - 1)).toBeLessThan(0.001)
    expect(bytes("held") - bytes("dropped")).toBe(2 * 4 * 2048 * 32_000)
  })

  it("is less where it is computed again", () => {
    for (const graph of [gpt2Graph, llamaGraph]) {
      for (const by of ["eager", "autocast"] as const) {
        const [none, attention, block] = (["none", "attention", "block"] as const).map((how) =>
          kept(graph, by, how)
        )
        const attentions = graph.layers.flatMap(({ forward }) =>
          forward.filter(({ kernel }) => kernel === "attention.forward")
        )
        // Flash attention keeps its result, which the projection needs, and the logarithms of its sums, which are spared.
        expect(none! - attention!).toBe(attentions.length * tokens * 4 * 4)
        expect(block).toBeLessThan(attention!)
      }
    }
    // A block keeps what goes into it.
    const head = tokens * (4 * 64 + 2 * 64 + 4 + 2 * 64 + 14 * 100)
    expect(kept(llamaGraph, "eager", "block")).toBe(3 * tokens * 2 * 64 + head)
  })

  it("is there again when a block runs backward, and goes layer by layer", () => {
    const norm = 4 * 64 + 2 * 64 + 4
    const block = 2 * norm + 2 * 64 + 2 * (64 + 32 + 32) + 2 * 64 + 4 * 4 + 2 * 64 + 4 * 2 * 96
    const workingOf = (graph: LayerGraph, by: "eager" | "autocast") => {
      const saved = eagerSavedBytes(graph, { precision: by, recompute: "block" })
      const own = [...graph.layers.keys()].filter(
        (index) => graph.layers[index]!.block !== graph.layers[index]!.name
      )
      const blocks = [...Map.groupBy(own, (index) => graph.layers[index]!.block).values()]
      return blocks.map((indices) => indices.map((index) => saved[index]!.working))
    }
    for (const working of workingOf(llamaGraph, "eager")) {
      expect(working.at(-1)).toBe(tokens * block)
      expect(working[0]).toBe(tokens * norm)
      expect(working).toEqual(working.toSorted((a, b) => a - b))
    }
    // What goes into the block is kept, and is what its first norm saves: not there twice.
    for (const working of workingOf(llamaGraph, "autocast")) expect(working[0]).toBe(tokens * (4 * 64 + 4))
    for (const working of workingOf(gpt2Graph, "eager")) expect(working[0]).toBe(tokens * 2 * 4)
  })
})

describe("the worst moment of a backward pass", () => {
  // Found with sums of whole gradients, which are all there when the first block runs backward.
  it("is no worse where blocks are computed again, whatever is divided", () => {
    const world = makeWorld([{ name: "one", nodes: [4] }], {
      intra: unlimited,
      inter: unlimited,
      wan: unlimited
    })
    for (const graph of [llamaGraph, gpt2Graph])
      for (const by of ["eager", "autocast"] as const)
        for (const [parameters, gradients] of [
          [true, true],
          [false, true],
          [false, false]
        ] as const) {
          const shard = planShards(
            graph.layers.map(({ name }) => name),
            divided(world, "world"),
            {
              units: "block",
              parameters,
              gradients,
              reshardAfterForward: true,
              prefetch: 1,
              reduceDtype: "float32",
              copies: false
            }
          )
          const [none, block] = (["none", "block"] as const).map((how) =>
            backwardPeakBytes(graph, eagerSavedBytes(graph, { precision: by, recompute: how }), { shard })
          )
          // A norm in 16 bits saves a float32 copy of what goes into it, which without recomputing nobody keeps.
          const input = graph === llamaGraph && by === "eager" ? tokens * 2 * 64 : 0
          expect(block, `${graph.name} ${by} ${parameters} ${gradients}`).toBeLessThanOrEqual(none! + input)
        }
  })

  it("is its beginning where activations are large, its end where gradients are", () => {
    const saved = eagerSavedBytes(llamaGraph, { precision: "eager" })
    const all = saved.reduce((sum, one) => sum + one.kept, 0)
    const none = saved.map(() => ({ kept: 0, working: 0 }))
    // Nothing was kept: all gradients are there at the end.
    expect(backwardPeakBytes(llamaGraph, none)).toBe(4 * parameterCount(llamaGraph))
    expect(backwardPeakBytes(llamaGraph, saved)).toBeGreaterThanOrEqual(all)
    const large = saved.map(({ kept }) => ({ kept: 1000 * kept, working: 0 }))
    expect(backwardPeakBytes(llamaGraph, large)).toBe(1000 * all)
  })

  /** Autograd by its allocations: fresh gradients as layers run, added to those of earlier passes where there are any. */
  const walked = (graph: LayerGraph, saved: ReadonlyArray<SavedBytes>, passes: number, stay: boolean) => {
    const live = new Map<string, number>()
    let most = 0
    const alloc = (name: string, bytes: number) => live.set(name, bytes)
    const look = () =>
      (most = Math.max(
        most,
        [...live.values()].reduce((sum, one) => sum + one, 0)
      ))
    const { layers } = graph
    const parametersOf = (layer: number) => layers[layer]!.parameters
    if (stay)
      layers.forEach((_, l) =>
        parametersOf(l).forEach(({ name, elements }) => alloc(`${name}.stays`, 4 * elements))
      )
    for (let pass = 0; pass < passes; pass++) {
      saved.forEach(({ kept }, l) => alloc(`kept ${l}`, kept))
      for (let l = layers.length - 1; l >= 0; l--) {
        const written = layers[l]!.backwardWeight.flatMap(({ outputs }) => outputs)
        for (const { name, elements } of written) if (!live.has(name)) alloc(name, 4 * elements)
        alloc("working", saved[l]!.working)
        look()
        live.delete("working")
        live.delete(`kept ${l}`)
        // Complete: it becomes the parameter's gradient, or is added to it.
        for (const { name, elements } of parametersOf(l)) {
          live.delete(`${name}.grad`)
          alloc(`${name}.stays`, 4 * elements)
        }
      }
    }
    return most
  }

  it("is that of every allocation, with gradients that come, that stay, and of several micro-batches", () => {
    const seen = { first: 0, elsewhere: 0 }
    fc.assert(
      fc.property(
        fc.constantFrom(llamaGraph, gpt2Graph),
        fc.infiniteStream(fc.record({ kept: fc.nat({ max: 40_000 }), working: fc.nat({ max: 20_000 }) })),
        (graph, sizes) => {
          const saved = graph.layers.map(() => sizes.next().value as SavedBytes)
          expect(backwardPeakBytes(graph, saved)).toBe(walked(graph, saved, 1, false))
          expect(backwardPeakBytes(graph, saved, { stay: true })).toBe(walked(graph, saved, 1, true))
          for (const microBatches of [2, 3]) {
            const accumulation = { microBatches, synchronize: "last" as const }
            const peak = backwardPeakBytes(graph, saved, { accumulation })
            expect(peak).toBe(walked(graph, saved, microBatches, false))
            const beginning =
              4 * parameterCount(graph) +
              saved.reduce((sum, { kept }) => sum + kept, 0) +
              saved.at(-1)!.working
            if (peak === beginning) seen.first += 1
            else seen.elsewhere += 1
          }
        }
      )
    )
    // The worst moment is not always the beginning.
    expect(seen.elsewhere).toBeGreaterThan(20)
  })

  it("has parts of gradients, and whole ones of a unit", () => {
    const none = llamaGraph.layers.map(() => ({ kept: 0, working: 0 }))
    const division = divided(oneRank, "world")
    const shard = planShards(
      llamaGraph.layers.map(({ name }) => name),
      division,
      {
        units: "model",
        parameters: true,
        gradients: true,
        reshardAfterForward: true,
        prefetch: 1,
        reduceDtype: "float32",
        copies: false
      }
    )
    // One unit, one part: whole gradients and the sum of all, padded, side by side.
    expect(backwardPeakBytes(llamaGraph, none, { shard })).toBeGreaterThanOrEqual(
      8 * parameterCount(llamaGraph)
    )
    expect(backwardPeakBytes(llamaGraph, none, { shard })).toBeLessThan(8.5 * parameterCount(llamaGraph))
    const padded = backwardPeakBytes(llamaGraph, none, { shard }) / 8
    // Narrow gradients, their sum and its part; of several micro-batches the mean besides, of parts (here of one rank, which has all)
    // or of whole gradients, which is then what is summed.
    const narrow = { ...shard, parameterDtype: "bfloat16" as const }
    const of = (plan: typeof shard, synchronize: "last" | "each") =>
      backwardPeakBytes(llamaGraph, none, { shard: plan, accumulation: { microBatches: 2, synchronize } })
    expect(backwardPeakBytes(llamaGraph, none, { shard: narrow })).toBe((2 + 4 + 4) * padded)
    expect(of(narrow, "each")).toBe((4 + 2 + 4 + 4) * padded)
    expect(of(narrow, "last")).toBe((4 + 2) * padded)
    expect(of(shard, "each")).toBe((4 + 4 + 4) * padded)
    expect(of(shard, "last")).toBe((4 + 4) * padded)
    // Of ZeRO-1, whose gradients stay whole and are summed where they stay, in float32 beside narrow ones.
    const zero1 = { parameters: false, gradients: false }
    expect(backwardPeakBytes(llamaGraph, none, { shard: { ...shard, ...zero1 } })).toBe(4 * padded)
    expect(backwardPeakBytes(llamaGraph, none, { shard: { ...narrow, ...zero1 } })).toBe((2 + 4) * padded)
    expect(of({ ...narrow, ...zero1 }, "each")).toBe((4 + 4 + 2) * padded)
    expect(of({ ...narrow, ...zero1 }, "last")).toBe((4 + 2) * padded)
    // As FSDP2 copies: gradients that are as wide as their sum lie beside what is summed, too.
    const copied = { ...shard, copies: true }
    expect(backwardPeakBytes(llamaGraph, none, { shard: copied })).toBe((4 + 4 + 4) * padded)
    expect(of(copied, "each")).toBe((4 + 4 + 4 + 4) * padded)
    expect(of(copied, "last")).toBe((4 + 4) * padded)
    expect(backwardPeakBytes(llamaGraph, none, { shard: { ...narrow, copies: true } })).toBe(
      (2 + 4 + 4) * padded
    )
  })
})

describe("what eager PyTorch runs", () => {
  const moved = (graph: typeof gpt2Graph, phase: "forward" | "backwardInput", kernel: string) => {
    const call = graph.layers.flatMap((layer) => layer[phase]).find((one) => one.kernel === kernel)!
    return { call, bytes: eagerKernels(call, "eager")!.moved }
  }

  // The launches of the forward passes were counted in traces; these are read off the modules' code.
  it.each(["rms_norm.forward", "rope.forward", "swiglu.forward"])(
    "for %s is as many kernels as traces have",
    (kernel) => expect(moved(llamaGraph, "forward", kernel).bytes).toHaveLength(eagerCountOf(kernel))
  )

  it("moves what the modules' code reads and writes", () => {
    const sum = (graph: typeof gpt2Graph, kernel: string) =>
      moved(graph, "forward", kernel).bytes.reduce((bytes, one) => bytes + one, 0)
    // To float32 6, square 8, mean 4, product 8, back 6, product 4.
    expect(sum(llamaGraph, "rms_norm.forward")).toBe(36 * tokens * 64)
    // Logits to float32 and their log-softmax.
    expect(sum(llamaGraph, "softmax_cross_entropy.forward")).toBe(14 * tokens * 100)
    // Output put back together; two key/value heads written and read for four.
    expect(sum(llamaGraph, "attention.forward")).toBe(tokens * (4 * 64 + 2 * 2 * (32 + 64)))
    expect(sum(gpt2Graph, "attention.forward")).toBe(tokens * 4 * 64)
    // Six products or sums of one tensor, two of two.
    expect(sum(gpt2Graph, "gelu.forward")).toBe(36 * tokens * 256)
  })

  it("knows every kernel of a Llama and of a GPT-2, under autocast with copies of each weight", () => {
    for (const graph of [llamaGraph, gpt2Graph])
      for (const { forward, backwardInput, backwardWeight } of graph.layers)
        for (const call of [...forward, ...backwardInput, ...backwardWeight])
          for (const precision of ["eager", "autocast"] as const) {
            const kernels = eagerKernels(call, precision)
            expect(kernels, call.kernel).toBeDefined()
            if (call.kernel === "linear.forward" && precision === "autocast")
              expect(kernels!.moved).toContain(6 * call.inputs[1]!.elements)
          }
  })
})

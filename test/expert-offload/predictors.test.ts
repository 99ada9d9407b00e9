// Predictors, the generator of routings and the token scheduler against what they promise.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Demand } from "../../core/algorithms/expert-offload/demand.ts"
import { layerCall } from "../../core/algorithms/expert-offload/demand.ts"
import { Oracle } from "../../core/algorithms/expert-offload/predictor/oracle.ts"
import { PreviousLayer, PreviousToken } from "../../core/algorithms/expert-offload/predictor/simple.ts"
import { measureAccuracy, trainPredictor } from "../../core/algorithms/expert-offload/predictor/train.ts"
import { Trained } from "../../core/algorithms/expert-offload/predictor/trained.ts"
import { RoutingGenerator, routingPresets } from "../../core/algorithms/expert-offload/routing-generator.ts"
import { scheduleTokens, touched } from "../../core/algorithms/expert-offload/token-scheduler.ts"
import { Random } from "../../core/random.ts"

const generated = (
  preset: keyof typeof routingPresets,
  shape: { readonly layers: number; readonly experts: number },
  topK: number,
  sequences: number,
  steps: number,
  seed = 3
): Demand => {
  const generator = new RoutingGenerator(shape, topK, sequences, routingPresets[preset], new Random(seed))
  const chosen = new Int32Array(sequences * topK)
  const calls = Array.from({ length: steps * shape.layers }, (_, index) => {
    const [step, layer] = [Math.floor(index / shape.layers), index % shape.layers]
    for (let sequence = 0; sequence < sequences; sequence++) {
      generator.next(sequence, layer, chosen, sequence * topK)
    }
    return layerCall(shape, step, layer, chosen)
  })
  return { shape, calls }
}

/** Share of a layer's experts that the layer used in the step before, mean over one sequence's calls. */
const repeatShare = ({ shape, calls }: Demand, layer: number): number => {
  const own = calls.filter((call) => call.layer === layer)
  let sum = 0
  for (let i = 1; i < own.length; i++) {
    const before = new Set(own[i - 1]!.needed)
    sum += own[i]!.needed.filter((id) => before.has(id)).length / own[i]!.needed.length
  }
  expect(shape.experts).toBeGreaterThan(1)
  return sum / (own.length - 1)
}

describe("the generator", () => {
  it.each([
    ["llama4", { layers: 2, experts: 128 }, 1, [0.33, 0.33]],
    ["deepseek-v2-lite", { layers: 2, experts: 64 }, 6, [0.26, 0.26]],
    ["mixtral", { layers: 3, experts: 8 }, 2, [0.28, 0.36, 0.32]]
  ] as const)("repeats experts as often as %s does", (preset, shape, topK, published) => {
    const demand = generated(preset, shape, topK, 1, 4000)
    published.forEach((share, layer) => {
      expect(Math.abs(repeatShare(demand, layer) - share)).toBeLessThan(0.025)
    })
  })

  it("gives every token topK distinct experts, and the same ones for the same seed", () => {
    const shape = { layers: 2, experts: 16 }
    const one = generated("deepseek-v2-lite", shape, 6, 1, 50)
    expect(one.calls.every(({ needed }) => needed.length === 6)).toBe(true)
    expect(generated("deepseek-v2-lite", shape, 6, 1, 50)).toEqual(one)
    expect(generated("deepseek-v2-lite", shape, 6, 1, 50, 4)).not.toEqual(one)
  })
})

describe("predictors", () => {
  const demand = generated("llama4", { layers: 4, experts: 32 }, 1, 8, 400)

  it("the oracle errs at its stated rates", () => {
    for (const [recall, falsePositiveRate] of [
      [1, 0],
      [0.9, 0.05],
      [0.5, 0.2]
    ] as const) {
      const found = measureAccuracy(demand, new Oracle(demand, { recall, falsePositiveRate }, new Random(5)))
      expect(Math.abs(found.recall - recall)).toBeLessThan(0.015)
      expect(Math.abs(found.falsePositiveRate - falsePositiveRate)).toBeLessThan(0.01)
    }
  })

  it("the previous token is a better guess than the previous layer, as published", () => {
    const token = measureAccuracy(demand, new PreviousToken(demand.shape))
    const layer = measureAccuracy(demand, new PreviousLayer(demand.shape))
    expect(token.recall).toBeGreaterThan(layer.recall + 0.1)
  })

  it("training learns what the routing holds, and beats the previous token on routing it has not seen", () => {
    const weights = trainPredictor([generated("llama4", { layers: 4, experts: 32 }, 1, 8, 200, 11)], "test")
    const trained = measureAccuracy(demand, new Trained(demand.shape, weights, 1))
    const token = measureAccuracy(demand, new PreviousToken(demand.shape))
    expect(trained.recall).toBeGreaterThan(token.recall)
    expect(trained.precision).toBeGreaterThan(token.precision)
    const again = trainPredictor([generated("llama4", { layers: 4, experts: 32 }, 1, 8, 200, 11)], "test")
    expect(again).toEqual(weights)
  })

  it("training finds that layers go together when they do", () => {
    // Each step draws a kind; a layer's expert follows from the kind alone, so the layer before tells all.
    const random = new Random(9)
    const shape = { layers: 3, experts: 16 }
    const calls = Array.from({ length: 600 }, () => random.below(16)).flatMap((kind, step) =>
      [0, 1, 2].map((layer) => ({ step, layer, needed: [layer * 16 + ((kind * (2 * layer + 3)) % 16)] }))
    )
    const linked = { shape, calls }
    const { recall } = measureAccuracy(linked, new Trained(shape, trainPredictor([linked], "test"), 1), 200)
    // The first layer has nothing to go by (1 in 16); the other two are certain once every kind has been seen.
    expect(recall).toBeGreaterThan(0.66)
  })
})

describe("the token scheduler", () => {
  const tokens = fc
    .tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 24 }))
    .chain(([width, count]) =>
      fc.array(fc.uint8Array({ minLength: width, maxLength: width, max: 1 }), {
        minLength: count,
        maxLength: count
      })
    )

  it("divides any tokens into two equal groups, each token once, and never touches more experts than before", () => {
    let better = 0
    fc.assert(
      fc.property(tokens, fc.nat(), (patterns, seed) => {
        const { first, second } = scheduleTokens(patterns, new Random(seed))
        expect([...first, ...second].toSorted((a, b) => a - b)).toEqual(patterns.map((_, token) => token))
        expect(first.length - second.length).toBe(patterns.length % 2)
        const half = Math.ceil(patterns.length / 2)
        const all = patterns.map((_, token) => token)
        const before = touched(all.slice(0, half), patterns) + touched(all.slice(half), patterns)
        const after = touched(first, patterns) + touched(second, patterns)
        expect(after).toBeLessThanOrEqual(before)
        if (after < before) better++
      }),
      { numRuns: 500 }
    )
    expect(better).toBeGreaterThan(30)
  })

  it("separates two kinds of tokens that came interleaved", () => {
    const [a, b] = [Uint8Array.of(1, 1, 0, 0), Uint8Array.of(0, 0, 1, 1)]
    const { first, second } = scheduleTokens([a, b, a, b, a, b], new Random(1))
    expect([first, second].map(String).toSorted()).toEqual(["0,2,4", "1,3,5"])
  })
})

it("the weights that ship are those that the documented command makes", () => {
  const root = fileURLToPath(new URL("../..", import.meta.url))
  const folder = mkdtempSync(join(tmpdir(), "predictor-"))
  try {
    const out = join(folder, "weights.json")
    const { status, stderr } = spawnSync(process.execPath, ["bench/expert-predictor.ts", "-o", out], {
      cwd: root,
      encoding: "utf8"
    })
    expect(status, stderr).toBe(0)
    expect(readFileSync(out, "utf8")).toBe(readFileSync(join(root, "traces/expert-predictor.json"), "utf8"))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

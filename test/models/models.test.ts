// Layer graphs: exact parameter counts and shapes, closed forms of their work, and gradients of whole tiny models.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { checkCall, type Kernel } from "../../core/kernels/kernel.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import {
  byBlock,
  callsOf,
  gradientName,
  parameterCount,
  phases,
  workOf,
  type KernelCall,
  type LayerGraph
} from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { mixtral } from "../../core/models/mixtral.ts"
import { expectClose, numbers, random, randomIntegers } from "../kernels/run.ts"

// The configurations behind the recorded traces in traces/: shapes and counts below are what PyTorch's AccumulateGrad
// events and the module's parameter count say there.
const gpt2Small = { layers: 12, width: 768, heads: 12, vocabulary: 50257, context: 1024, batch: 4 }
const llamaSmall = {
  layers: 12,
  width: 768,
  heads: 12,
  kvHeads: 12,
  ffnWidth: 2048,
  vocabulary: 32000,
  context: 1024,
  batch: 4,
  tied: false
}
const mixtralSmall = {
  layers: 4,
  width: 1024,
  heads: 16,
  kvHeads: 8,
  ffnWidth: 3584,
  vocabulary: 32000,
  context: 1024,
  batch: 4,
  tied: false,
  experts: 8,
  topK: 2
}

const shapeCounts = (graph: LayerGraph): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { parameters } of graph.layers) {
    for (const { shape } of parameters) counts[shape.join("x")] = (counts[shape.join("x")] ?? 0) + 1
  }
  return counts
}

describe("parameters", () => {
  it("of GPT-2 124M are 124,439,808, in the shapes of the trace (its Conv1D weights transposed)", () => {
    const graph = gpt2(gpt2Small)
    expect(parameterCount(graph)).toBe(124_439_808)
    expect(shapeCounts(graph)).toEqual({
      "50257x768": 1,
      "1024x768": 1,
      "2304x768": 12,
      "2304": 12,
      "768x768": 12,
      "3072x768": 12,
      "3072": 12,
      "768x3072": 12,
      "768": 74
    })
  })

  it("of the Llama-style model are 134,105,856, in the shapes of the trace", () => {
    const graph = llama(llamaSmall)
    expect(parameterCount(graph)).toBe(134_105_856)
    expect(shapeCounts(graph)).toEqual({
      "32000x768": 2,
      "768": 25,
      "768x768": 48,
      "2048x768": 24,
      "768x2048": 12
    })
    expect(parameterCount(llama({ ...llamaSmall, tied: true }))).toBe(134_105_856 - 32000 * 768)
  })

  it("of the Mixtral-style model are 430,482,432, in the shapes of the trace", () => {
    const graph = mixtral(mixtralSmall)
    expect(parameterCount(graph)).toBe(430_482_432)
    expect(shapeCounts(graph)).toEqual({
      "32000x1024": 2,
      "1024": 9,
      "1024x1024": 8,
      "512x1024": 8,
      "8x1024": 4,
      "8x7168x1024": 4,
      "8x1024x3584": 4
    })
  })

  it("of published models are the published counts", () => {
    // GPT-2 medium, large and XL, Llama 2 7B and Mixtral 8x7B: parameter counts of the published checkpoints
    const sizes = [
      [24, 1024, 16, 354_823_168],
      [36, 1280, 20, 774_030_080],
      [48, 1600, 25, 1_557_611_200]
    ] as const
    for (const [layers, width, heads, count] of sizes) {
      expect(parameterCount(gpt2({ ...gpt2Small, layers, width, heads }))).toBe(count)
    }
    const llama7b = { ...llamaSmall, layers: 32, width: 4096, heads: 32, kvHeads: 32, ffnWidth: 11008 }
    expect(parameterCount(llama(llama7b))).toBe(6_738_415_616)
    const mixtral8x7b = { ...mixtralSmall, layers: 32, width: 4096, heads: 32, kvHeads: 8, ffnWidth: 14336 }
    expect(parameterCount(mixtral(mixtral8x7b))).toBe(46_702_792_704)
  })
})

const products = new Set(["linear", "grouped_linear"])
const family = ({ kernel }: KernelCall) => kernel.split(".")[0]!
const flopsOf = (calls: ReadonlyArray<KernelCall>, families: ReadonlySet<string>) =>
  workOf(calls.filter((call) => families.has(family(call)))).flops

const small = fc.record({
  layers: fc.integer({ min: 1, max: 3 }),
  headWidth: fc.constantFrom(2, 4),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 2 }),
  ffnWidth: fc.integer({ min: 1, max: 9 }),
  vocabulary: fc.integer({ min: 2, max: 9 }),
  context: fc.integer({ min: 1, max: 6 }),
  batch: fc.integer({ min: 1, max: 3 }),
  tied: fc.boolean(),
  experts: fc.integer({ min: 2, max: 4 }),
  topK: fc.integer({ min: 1, max: 2 })
})

describe("work", () => {
  it("of all matrix products is 2 * parameters * tokens forward, and as much for each half of the backward pass", () => {
    fc.assert(
      fc.property(small, ({ headWidth, group, ...sizes }) => {
        const { layers, kvHeads, ffnWidth, vocabulary, context, batch, experts, topK } = sizes
        const heads = kvHeads * group
        const width = heads * headWidth
        const config = { ...sizes, heads, width }
        const tokens = batch * context
        const kvWidth = kvHeads * headWidth
        const attentionWeights = 2 * width * width + 2 * width * kvWidth
        const pairs = (batch * heads * context * (context + 1)) / 2
        const cases = [
          [gpt2(config), 12 * width * width, heads],
          [llama(config), attentionWeights + 3 * width * ffnWidth, heads],
          // each token runs topK experts
          [mixtral(config), attentionWeights + experts * width + topK * 3 * width * ffnWidth, heads]
        ] as const
        for (const [graph, perLayer] of cases) {
          const expected = 2 * tokens * (layers * perLayer + vocabulary * width)
          for (const phase of phases) expect(flopsOf(callsOf(graph, phase), products)).toBe(expected)
          const attention = 4 * headWidth * pairs * layers
          expect(flopsOf(callsOf(graph, "forward"), new Set(["attention"]))).toBe(attention)
          // the backward pass computes the probabilities again: five products to the forward pass's two
          expect(flopsOf(callsOf(graph, "backwardInput"), new Set(["attention"]))).toBe(2.5 * attention)
          expect(flopsOf(callsOf(graph, "backwardWeight"), new Set(["attention"]))).toBe(0)
        }
      })
    )
  })

  it("of GPT-2 124M at 4 x 1024 tokens is what 6 * parameters * tokens says", () => {
    const graph = gpt2(gpt2Small)
    const products = phases.reduce(
      (sum, phase) => sum + flopsOf(callsOf(graph, phase), new Set(["linear"])),
      0
    )
    // 123,532,032 = 12 * 12 * 768^2 + 50257 * 768 parameters in products
    expect(products).toBe(6 * 123_532_032 * 4096)
    // everything elementwise is a rounding error beside them, and all that is not linear is little
    const all = phases.reduce((sum, phase) => sum + workOf(callsOf(graph, phase)).flops, 0)
    expect(all / products).toBeGreaterThan(1)
    expect(all / products).toBeLessThan(1.1)
  })

  it("of a layer moves its weight and activations once", () => {
    const graph = gpt2(gpt2Small)
    const layer = graph.layers.find(({ name }) => name === "transformer.h.3.mlp.c_fc")!
    const [tokens, width, hidden] = [4096, 768, 3072]
    expect(workOf(layer.forward)).toEqual({
      flops: 2 * tokens * width * hidden,
      // bfloat16 activations, float32 weights and bias
      readBytes: 2 * tokens * width + 4 * (width * hidden + hidden),
      writtenBytes: 2 * tokens * hidden
    })
    expect(workOf(layer.backwardWeight).writtenBytes).toBe(4 * (width * hidden + hidden))
  })
})

const models = (sizes: Readonly<Record<"context" | "batch" | "layers", number>>, tied: boolean) => {
  const config = { ...sizes, width: 8, heads: 2, kvHeads: 1, ffnWidth: 5, vocabulary: 7, tied }
  return [
    gpt2(config),
    llama(config),
    mixtral({ ...config, experts: 3, topK: 2 }),
    byBlock(mixtral({ ...config, experts: 3, topK: 2 }))
  ]
}

describe("structure", () => {
  it("reads only what was written before, writes every value once and every gradient completely", () => {
    let accumulated = 0
    for (const tied of [false, true]) {
      for (const graph of models({ context: 4, batch: 2, layers: 2 }, tied)) {
        const written = new Set(graph.inputs.map(({ name }) => name))
        const parameters = graph.layers.flatMap(({ parameters }) => parameters)
        for (const { name } of parameters) {
          expect(written.has(name), name).toBe(false)
          written.add(name)
        }
        const order = [
          ...graph.layers.flatMap(({ forward }) => forward),
          ...graph.layers.toReversed().flatMap((layer) => [...layer.backwardInput, ...layer.backwardWeight])
        ]
        for (const call of order) {
          checkCall(kernels[call.kernel], call.inputs, call.outputs, call.attributes)
          for (const { name } of call.inputs)
            expect(written.has(name), `${call.kernel} reads ${name}`).toBe(true)
          for (const { name } of call.outputs) {
            const inPlace = call.inputs.some((input) => input.name === name)
            if (inPlace) accumulated++
            expect(written.has(name), `${call.kernel} writes ${name}`).toBe(inPlace)
            written.add(name)
          }
        }
        expect(written.has(graph.loss.name)).toBe(true)
        for (const parameter of parameters) expect(written.has(gradientName(parameter))).toBe(true)
        // a layer that owns a parameter also completes its gradient
        for (const layer of graph.layers) {
          const completed = new Set(
            layer.backwardWeight.flatMap(({ outputs }) => outputs.map(({ name }) => name))
          )
          for (const parameter of layer.parameters) expect(completed.has(gradientName(parameter))).toBe(true)
        }
      }
    }
    // GPT-2 twice (it is always tied), and the three others once
    expect(accumulated).toBe(5)
  })

  it("names layers as Hugging Face's modules, in forward order", () => {
    const names = (graph: LayerGraph) => graph.layers.map(({ name }) => name)
    const sizes = { context: 4, batch: 1, layers: 1 }
    const [g, l, m, blocks] = models(sizes, false) as [LayerGraph, LayerGraph, LayerGraph, LayerGraph]
    const h = (name: string) => `transformer.h.0.${name}`
    expect(names(g)).toEqual([
      "transformer.wte",
      "transformer.wpe",
      ...["ln_1", "attn.c_attn", "attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj"].map(h),
      "transformer.ln_f",
      "lm_head",
      "loss"
    ])
    const block = (name: string) => `model.layers.0.${name}`
    const attention = ["q_proj", "k_proj", "v_proj"].map((name) => block(`self_attn.${name}`))
    const before = [block("input_layernorm"), ...attention, block("self_attn"), block("self_attn.o_proj")]
    expect(names(l)).toEqual([
      "model.embed_tokens",
      ...before,
      block("post_attention_layernorm"),
      ...["gate_proj", "up_proj", "act_fn", "down_proj"].map((name) => block(`mlp.${name}`)),
      "model.norm",
      "lm_head",
      "loss"
    ])
    expect(names(m)).toEqual([
      "model.embed_tokens",
      ...before,
      block("post_attention_layernorm"),
      block("mlp.gate"),
      block("mlp.experts"),
      "model.norm",
      "lm_head",
      "loss"
    ])
    expect(names(blocks)).toEqual(["model.embed_tokens", "model.layers.0", "model.norm", "lm_head", "loss"])
    expect(parameterCount(blocks)).toBe(parameterCount(m))
    for (const phase of phases) expect(workOf(callsOf(blocks, phase))).toEqual(workOf(callsOf(m, phase)))
  })

  it("rejects sizes that make no model", () => {
    expect(() => gpt2({ ...gpt2Small, heads: 7 })).toThrow("gpt2: width 768 is not a multiple of heads 7")
    expect(() => gpt2({ ...gpt2Small, layers: 0 })).toThrow(/layers is 0/)
    expect(() => llama({ ...llamaSmall, kvHeads: 5 })).toThrow(/heads 12 is not a multiple of kvHeads 5/)
    expect(() => llama({ ...llamaSmall, ffnWidth: 1.5 })).toThrow(/ffnWidth is 1.5/)
    expect(() => mixtral({ ...mixtralSmall, topK: 9 })).toThrow(/topK 9 of only 8/)
  })
})

/** Runs a graph on float64 values. */
class Interpreter {
  readonly values = new Map<string, TensorData>()

  run(calls: ReadonlyArray<KernelCall>): void {
    for (const { kernel: name, inputs, outputs, attributes } of calls) {
      const kernel: Kernel = kernels[name]
      for (const { name, elements, dtype } of outputs) {
        if (this.values.has(name)) continue
        this.values.set(name, dtype === "int32" ? new Int32Array(elements) : new Float64Array(elements))
      }
      kernel.reference!(
        inputs.map((value) => this.of(value)),
        outputs.map((value) => this.of(value)),
        attributes,
        { inputs: inputs.map(({ shape }) => shape), outputs: outputs.map(({ shape }) => shape) }
      )
    }
  }

  of({ name }: { readonly name: string }): TensorData {
    const value = this.values.get(name)
    if (value === undefined) throw new RangeError(`no value ${name}`)
    return value
  }
}

describe("gradients of whole models equal finite differences of their loss", () => {
  for (const tied of [false, true]) {
    for (const graph of models({ context: 3, batch: 2, layers: 2 }, tied)) {
      const grain = graph.layers.some(({ name }) => name === "model.layers.0") ? ", by block" : ""
      it(`${graph.name}${grain}${tied ? ", tied" : ""}`, () => {
        const next = numbers(17)
        const machine = new Interpreter()
        for (const { name, shape } of graph.inputs)
          machine.values.set(name, randomIntegers(next, shape, 7).data)
        const parameters = graph.layers.flatMap(({ parameters }) => parameters)
        for (const { name, shape } of parameters) machine.values.set(name, random(next, shape, 0.7).data)
        const forward = callsOf(graph, "forward")
        machine.run(forward)
        // uniform guessing would give log 7 = 1.95
        expect(machine.of(graph.loss)[0]).toBeGreaterThan(1)
        expect(machine.of(graph.loss)[0]).toBeLessThan(4)
        for (const layer of graph.layers.toReversed())
          machine.run([...layer.backwardInput, ...layer.backwardWeight])
        const loss = (): number => {
          machine.run(forward)
          return machine.of(graph.loss)[0]!
        }
        const step = 1e-5
        let checked = 0
        let moved = 0
        for (const parameter of parameters) {
          const value = machine.of(parameter)
          const gradient = machine.of({ name: gradientName(parameter) }).slice()
          // a few elements of every parameter, spread over it
          const stride = Math.max(1, Math.floor(value.length / 7))
          for (let i = 0; i < value.length; i += stride) {
            const before = value[i]!
            value[i] = before + step
            const above = loss()
            value[i] = before - step
            const below = loss()
            value[i] = before
            expectClose(Float64Array.of(gradient[i]!), [(above - below) / (2 * step)], 1e-7)
            checked++
            if (Math.abs(gradient[i]!) > 1e-4) moved++
          }
        }
        expect(checked).toBeGreaterThan(100)
        // most must be far above the tolerance, or the comparison says nothing
        expect(moved / checked).toBeGreaterThan(0.6)
      })
    }
  }
})

// Shape rules, attributes and work of the whole catalogue.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernelNamed, kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import { checkCall, operand, type Attributes, type Kernel, type Shape } from "../../core/kernels/kernel.ts"
import { bind, outputShapes, parseSignature } from "../../core/kernels/signature.ts"

describe("signatures", () => {
  const shapes = (
    text: string,
    inputs: ReadonlyArray<Shape>,
    given: Record<string, number> = {},
    flags: Attributes = {}
  ) => {
    const signature = parseSignature(text)
    return outputShapes("k", signature, bind("k", signature, inputs, given, flags), flags)
  }

  it("bind names, multiples, open extents and their product", () => {
    expect(
      shapes("a[..., n], w[m, n] -> out[..., m]", [
        [2, 3, 4],
        [5, 4]
      ])
    ).toEqual([[2, 3, 5]])
    expect(shapes("a[2*n] -> out[n], rest[3, n]", [[6]])).toEqual([[3], [3, 3]])
    expect(shapes("a[k*n] -> out[k, n]", [[6]], { k: 3 })).toEqual([[3, 2]])
    expect(shapes("a[..., n] -> out[2*rows, n]", [[2, 3, 4]])).toEqual([[12, 4]])
    expect(shapes("a[n, ..., m] -> out[..., n]", [[2, 3, 4, 5]])).toEqual([[3, 4, 2]])
    expect(shapes("a[...] -> out[]", [[]])).toEqual([[]])
  })

  it("know optional and conditional operands", () => {
    const text = "a[n], b[n]?, c[m]?x&!y -> out[n], more[m]?x&!y"
    expect(shapes(text, [[2]])).toEqual([[2]])
    expect(shapes("a[n], c[m]?x&!y -> out[n], more[m]?x&!y", [[2], [3]], {}, { x: true })).toEqual([[2], [3]])
    expect(shapes("a[n], c[m]?x&!y -> out[n], more[m]?x&!y", [[2]], {}, { x: 1, y: true })).toEqual([[2]])
    expect(() => shapes("a[n], c[m]?x -> out[n]", [[2]], {}, { x: 0.5 })).toThrow(/input 1 \(c\) is missing/)
  })

  it("reject misfits by name", () => {
    expect(() => shapes("a[n], b[n] -> out[n]", [[2], [3]])).toThrow(
      "k: input 1 (b) has shape [3]; expected [n] with n=2"
    )
    expect(() => shapes("a[2*n] -> out[n]", [[5]])).toThrow(/expected \[2\*n\]/)
    expect(() => shapes("a[..., n] -> out[n]", [[]])).toThrow(/has shape \[\]/)
    expect(() => shapes("a[...], b[...] -> out[...]", [[2, 3], [6]])).toThrow(/input 1/)
    expect(() => shapes("a[n] -> out[n]", [[1], [1]])).toThrow(/2 inputs given, 1 expected/)
    expect(() => shapes("a[n] -> out[m]", [[1]])).toThrow(/nothing binds "m"/)
    expect(() => shapes("a[n] -> out[n]", [[1]], { n: 1.5 })).toThrow(/n is 1.5/)
    expect(() => parseSignature("a[n]")).toThrow(/->/)
    expect(() => parseSignature("a[n+1] -> b[n]")).toThrow(/n\+1/)
  })
})

/** One call that fits for every kernel whose rule is not "anything goes": input shapes ("2x3 4"), attributes, output shapes. */
const calls: Readonly<
  Record<
    Exclude<KernelName, "profiled" | "barrier" | "repack">,
    readonly [inputs: string, attributes: Attributes, outputs: string]
  >
> = {
  "embedding.forward": ["2x3 7x4", {}, "2x3x4"],
  "embedding.backward_weight": ["2x3x4 2x3", { vocabulary: 7 }, "7x4"],
  "position_add.forward": ["2x3x4 5x4", {}, "2x3x4"],
  "position_add.backward_weight": ["2x3x4", { positions: 5 }, "5x4"],
  "layer_norm.forward": ["2x3x4 4 4", {}, "2x3x4 2x3 2x3"],
  "layer_norm.backward_input": ["2x3x4 2x3x4 4 2x3 2x3", {}, "2x3x4"],
  "layer_norm.backward_weight": ["2x3x4 2x3x4 2x3 2x3", {}, "4 4"],
  "rms_norm.forward": ["2x3x4 4", {}, "2x3x4 2x3"],
  "rms_norm.backward_input": ["2x3x4 2x3x4 4 2x3", {}, "2x3x4"],
  "rms_norm.backward_weight": ["2x3x4 2x3x4 2x3", {}, "4"],
  "linear.forward": ["2x3x4 5x4 5", {}, "2x3x5"],
  "linear.backward_input": ["2x3x5 5x4", {}, "2x3x4"],
  "linear.backward_weight": ["2x3x5 2x3x4", { bias: true }, "5x4 5"],
  "rope.forward": ["2x3x8", { headWidth: 4 }, "2x3x8"],
  "rope.backward": ["2x3x8", { headWidth: 4 }, "2x3x8"],
  "attention.forward": ["2x3x16 2x5x8 2x5x8", { heads: 4, kvHeads: 2, headWidth: 4 }, "2x3x16 2x4x3"],
  "attention.backward": [
    "2x3x16 2x3x32 2x3x16 2x4x3",
    { heads: 4, kvHeads: 2, headWidth: 4, packed: true },
    "2x3x32"
  ],
  "gelu.forward": ["2x3", {}, "2x3"],
  "gelu.backward": ["2x3 2x3", {}, "2x3"],
  "swiglu.forward": ["2x6", { packed: true }, "2x3"],
  "swiglu.backward": ["2x3 2x3 2x3", {}, "2x3 2x3"],
  "residual.forward": ["2x3 2x3", {}, "2x3"],
  "residual.backward": ["2x3", {}, "2x3 2x3"],
  "softmax.forward": ["2x3", {}, "2x3"],
  "softmax.backward": ["2x3 2x3", {}, "2x3"],
  "softmax_cross_entropy.forward": ["2x3x7 2x3", {}, "scalar"],
  "softmax_cross_entropy.backward": ["2x3x7 2x3", {}, "2x3x7"],
  "residual_layer_norm.forward": ["2x3x4 2x3x4 4 4", {}, "2x3x4 2x3x4 2x3 2x3"],
  "residual_rms_norm.forward": ["2x3x4 2x3x4 4", {}, "2x3x4 2x3x4 2x3"],
  "residual_layer_norm.backward": ["2x3x4 2x3x4 2x3x4 4 2x3 2x3", {}, "2x3x4 4 4"],
  "residual_rms_norm.backward": ["2x3x4 2x3x4 2x3x4 4 2x3", {}, "2x3x4 4"],
  "layer_norm.backward": ["2x3x4 2x3x4 4 2x3 2x3", {}, "2x3x4 4 4"],
  "rms_norm.backward": ["2x3x4 2x3x4 4 2x3", {}, "2x3x4 4"],
  "linear_gelu.forward": ["2x3x4 5x4 5", {}, "2x3x5 2x3x5"],
  "gelu_linear.backward_input": ["2x3x4 4x5 2x3x5", {}, "2x3x5"],
  "softmax_cross_entropy.fused": ["2x3x7 2x3", { scale: 2 }, "scalar 2x3x7"],
  "topk_gate.forward": ["2x3x8", { topK: 2 }, "2x3x2 2x3x2 2x3x8"],
  "topk_gate.backward": ["2x3x2 2x3x8 2x3x2", { topK: 2 }, "2x3x8"],
  moe_permutation: ["2x3x2", { experts: 8 }, "2x3x2 8"],
  "moe_dispatch.forward": ["2x3x4 2x3x2", { topK: 2 }, "12x4"],
  "moe_dispatch.backward": ["12x4 2x3x2", { topK: 2 }, "2x3x4"],
  "moe_combine.forward": ["12x4 2x3x2 2x3x2", { topK: 2 }, "2x3x4"],
  "moe_combine.backward_input": ["2x3x4 2x3x2 2x3x2", { topK: 2 }, "12x4"],
  "moe_combine.backward_gate": ["2x3x4 12x4 2x3x2", { topK: 2 }, "2x3x2"],
  random_normal: ["", { rows: 3, width: 4, seed: 1 }, "3x4"],
  "noisy_logits.forward": ["2x3x8 2x3x8 2x3x8", {}, "2x3x8"],
  "noisy_logits.backward": ["2x3x8 2x3x8 2x3x8", {}, "2x3x8"],
  "sigmoid_gate.forward": ["2x3x8", { topK: 2 }, "2x3x2 2x3x2"],
  "sigmoid_gate.backward": ["2x3x2 2x3x2 2x3x2 2x3x8", { topK: 2 }, "2x3x8"],
  "cosine_scores.forward": ["2x3x4 8x4", {}, "2x3x8"],
  "cosine_scores.backward_input": ["2x3x8 2x3x4 8x4 2x3x8", {}, "2x3x4"],
  "cosine_scores.backward_weight": ["2x3x8 2x3x4 8x4 2x3x8", {}, "8x4"],
  "expert_choice.forward": ["6x4", { capacity: 3 }, "4x3 4x3"],
  "expert_choice.backward": ["4x3 4x3 4x3 6x4", { capacity: 3 }, "6x4"],
  "soft_gate.forward": ["6x4", {}, "6x4 6x4"],
  "soft_gate.backward": ["6x4 6x4 6x4 6x4", {}, "6x4"],
  moe_layout: ["6x2", { experts: 4, ranks: 2, chunks: 2, capacity: 4, topK: 2 }, "16 16 4"],
  expert_choice_layout: ["4x6", { experts: 4, ranks: 2, chunks: 3, capacity: 6 }, "24 24"],
  soft_layout: ["", { experts: 4, ranks: 2, chunks: 1, capacity: 3 }, "12"],
  "moe_order.forward": ["6x5 7", { rows: "3,4" }, "3x5 4x5"],
  "moe_order.backward": ["7 3x5 4x5", { inputs: 6 }, "6x5"],
  "moe_inverse_order.forward": ["6x2 7 7 3x5 4x5", { outputs: 6 }, "6x5"],
  "moe_inverse_order.backward_input": ["6x5 6x2 7 7", { rows: "3,4" }, "3x5 4x5"],
  "moe_inverse_order.backward_gate": ["6x5 6x2 7 7 3x5 4x5", {}, "6x2"],
  "soft_order.forward": ["6x5 6x8 7", { rows: "3,4" }, "3x5 4x5"],
  "soft_inverse_order.forward": ["6x8 7 3x5 4x5", {}, "6x5"],
  "soft_order.backward_mix": ["6x5 6x8 7 3x5 4x5", {}, "6x8"],
  moe_rechunk: ["3x5 4x5", { blocks: "2,5", chunks: 3 }, "1x5 3x5 3x5"],
  "grouped_linear.forward": ["12x4 8x5x4 8", {}, "12x5"],
  "grouped_linear.backward_input": ["12x5 8x5x4 8", {}, "12x4"],
  "grouped_linear.backward_weight": ["12x5 12x4 8", {}, "8x5x4"],
  "expert_ffn.forward": ["12x4 15x4 12x10 12x4", { first: 0, count: 12 }, "12x10 12x4"],
  "rope.rows": ["3x8 3", { headWidth: 4 }, "3x8"],
  last_token: ["2x3x4", {}, "2x4"],
  argmax: ["2x3x7", {}, "2x3"],
  concat_rows: ["1x3 1x3", { rows: 2 }, "2x3"],
  split_rows: ["4x3", { counts: "1,2" }, "1x3 2x3"],
  "kv.advance": ["3 3 2x3", { keep: 0.5 }, "3 3 2x3"],
  "kv.append": ["3x8 3x8 2x3 2x5x8 2x4x8", { list: 1 }, "2x5x8 2x4x8"],
  "kv.attention": [
    "3x16 2x3 2x5x8 2x4x8",
    { heads: 4, kvHeads: 2, headWidth: 4, list: 1, cached: 6, longest: 5 },
    "3x16"
  ],
  "kv.evict": [
    "3x16 2x3 2x3 3 2x5x8 2x4x8",
    { heads: 4, kvHeads: 2, headWidth: 4, list: 1, keep: 0.5, evicting: 1, cached: 5, longest: 5 },
    "2x5x8 2x4x8"
  ],
  "kv.gather": ["1x6x8 1x6x8 2x3", { kvHeads: 2, capacity: 5 }, "2x5x8"],
  "kv.place": ["2x3x8", { capacity: 5 }, "2x5x8"],
  "kv.window_scores": ["1x6x16 1x6x8", { heads: 4, kvHeads: 2, headWidth: 4, window: 2 }, "2x6"],
  "kv.pool_scores": ["2x6", { window: 2, kernel: 3 }, "2x6"],
  "kv.chunk_scores": ["2x7", { chunk: 3 }, "3"],
  "kv.shot_scores": ["2x7", { starts: "0,2,3" }, "3"],
  "kv.top_tokens": ["2x7", { count: 3 }, "2x3"],
  "kv.sink_tokens": ["", { time: 9, count: 6 }, "1x6"],
  "kv.top_chunks": ["3", { time: 8, chunk: 3, count: 2, limit: 5, window: 2 }, "1x7"],
  "kv.top_shots": ["3", { time: 7, starts: "0,2,3", budget: 4 }, "1x4"],
  sgd: ["2x3 2x3 2x3", { learningRate: 1, momentum: 0.9 }, "2x3 2x3"],
  adamw: ["2x3 2x3 2x3 2x3", { learningRate: 1, step: 1 }, "2x3 2x3 2x3"],
  outer_nesterov: ["2x3 2x3 2x3", { learningRate: 1 }, "2x3 2x3"],
  squared_norm: ["2x3 4", {}, "scalar"],
  clip_by_norm: ["scalar 2x3 4", { maxNorm: 1 }, "2x3 4"],
  loss_scale: ["scalar 4", {}, "4"],
  copy: ["2x3", {}, "2x3"],
  zero: ["2x3", {}, "2x3"],
  add: ["2x3 2x3", {}, "2x3"],
  subtract: ["2x3 2x3", {}, "2x3"],
  scale: ["2x3", { factor: 2 }, "2x3"],
  lerp: ["2x3 2x3", { weight: 0.5 }, "2x3"],
  average: ["2x3 2x3 2x3", {}, "2x3"],
  "pack.float4": ["2x3", { block: 4 }, "2x3 2"],
  "unpack.float4": ["2x3 2", { block: 4 }, "2x3"],
  "pack.float8": ["2x3", {}, "2x3 1"],
  "unpack.float8": ["2x3 1", {}, "2x3"],
  "pack.int8": ["2x3", { block: 1 }, "2x3 6"],
  "unpack.int8": ["2x3 6", { block: 1 }, "2x3"],
  "pack.bfloat16": ["2x3", {}, "2x3"],
  "unpack.bfloat16": ["2x3", {}, "2x3"],
  h2d: ["2x3", {}, "2x3"],
  d2h: ["2x3", {}, "2x3"],
  d2d: ["2x3", {}, "2x3"],
  all_reduce: ["2x3 4", { reduce: "avg" }, "2x3 4"],
  all_gather: ["2x3", { ranks: 4 }, "8x3"],
  reduce_scatter: ["8x3", { ranks: 4 }, "2x3"],
  all_to_all: ["5x3", { ranks: 2, sendCounts: "1,4", receiveCounts: "1,2" }, "3x3"],
  broadcast: ["2x3", {}, "2x3"],
  send_recv: ["2x3", { source: true }, ""],
  normal_values: ["2x3", { seed: 1 }, "2x3"],
  uniform_values: ["2x3", { seed: 1 }, "2x3"],
  constant_values: ["2x3", { value: 1 }, "2x3"],
  token_windows: ["9", { batch: 2, time: 3, seed: 1, step: 0 }, "2x3 2x3"]
}

const shapesOf = (text: string): ReadonlyArray<Shape> =>
  text === "" ? [] : text.split(" ").map((shape) => (shape === "scalar" ? [] : shape.split("x").map(Number)))

const operandsOf = (kernel: Kernel, shapes: ReadonlyArray<Shape>, side: "inputDtypes" | "outputDtypes") =>
  shapes.map((shape, index) => operand(shape, kernel[side][index] ?? "bfloat16"))

const entries = Object.entries(calls).map(
  ([name, [inputs, attributes, outputs]]) =>
    [kernels[name as KernelName] as Kernel, shapesOf(inputs), attributes, shapesOf(outputs)] as const
)

describe("every kernel", () => {
  it("is in the catalogue under its name", () => {
    for (const [name, kernel] of Object.entries(kernels)) {
      expect(kernel.name).toBe(name)
      expect(kernelNamed(name)).toBe(kernel)
      expect(kernel.signature).toContain("->")
    }
    expect(kernelNamed("constructor")).toBeUndefined()
    expect(entries.length).toBe(Object.keys(kernels).length - 3)
  })

  it("has the output shapes of its rule, and work that is finite and not negative", () => {
    for (const [kernel, inputs, attributes, outputs] of entries) {
      const operands = operandsOf(kernel, inputs, "inputDtypes")
      expect(kernel.shapes(operands, attributes), kernel.name).toEqual(outputs)
      const results = operandsOf(kernel, outputs, "outputDtypes")
      checkCall(kernel, operands, results, attributes)
      const work = kernel.work(operands, results, attributes)
      for (const amount of Object.values(work)) {
        expect(Number.isFinite(amount) && amount >= 0, `${kernel.name} ${JSON.stringify(work)}`).toBe(true)
      }
      const written = results.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
      // these write some rows of a cache that is far larger
      if (["kv.append", "kv.evict", "kv.gather", "kv.place"].includes(kernel.name))
        expect(work.writtenBytes, kernel.name).toBeLessThan(written)
      else expect(work.writtenBytes, kernel.name).toBe(written)
    }
  })

  it("has the same work at every launch, unless it says that its cost follows its scalars", () => {
    let withScalars = 0
    for (const [kernel, inputs, attributes, outputs] of entries) {
      if (kernel.scalars.length === 0) continue
      withScalars++
      for (const name of kernel.scalars) expect(kernel.attributes[name]?.type, kernel.name).toBe("number")
      const operands = operandsOf(kernel, inputs, "inputDtypes")
      const results = operandsOf(kernel, outputs, "outputDtypes")
      const left = Object.fromEntries(
        Object.entries(attributes).filter(([name]) => !kernel.scalars.includes(name))
      )
      checkCall(kernel, operands, results, left)
      if (kernel.costFollowsScalars) continue
      expect(kernel.work(operands, results, left), kernel.name).toEqual(
        kernel.work(operands, results, attributes)
      )
      if (kernel.scalars.every((name) => kernel.attributes[name]!.fallback !== undefined)) continue
      const values = (all: ReadonlyArray<{ readonly elements: number }>) =>
        all.map(({ elements }) => new Float32Array(elements))
      expect(
        () => kernel.reference!(values(operands), values(results), left, { inputs, outputs }),
        kernel.name
      ).toThrow(/is missing/)
    }
    expect(withScalars).toBeGreaterThan(3)
  })

  it("rejects a missing, unknown or wrong attribute, too many inputs, and a wrong output", () => {
    for (const [kernel, inputs, attributes, outputs] of entries) {
      const operands = operandsOf(kernel, inputs, "inputDtypes")
      const results = operandsOf(kernel, outputs, "outputDtypes")
      expect(() => kernel.shapes(operands, { ...attributes, colour: 1 }), kernel.name).toThrow(
        /unknown attribute "colour"/
      )
      for (const [name, { type, fallback }] of Object.entries(kernel.attributes)) {
        const wrong = type === "number" ? "1" : 1
        expect(() => kernel.shapes(operands, { ...attributes, [name]: wrong })).toThrow(/expected a/)
        if (fallback !== undefined || kernel.scalars.includes(name)) continue
        const rest = Object.fromEntries(Object.entries(attributes).filter(([key]) => key !== name))
        expect(() => kernel.shapes(operands, rest), kernel.name).toThrow(/is missing/)
      }
      const wrong = [...results, operand([1], "float32")]
      expect(() => checkCall(kernel, operands, wrong, attributes), kernel.name).toThrow(RangeError)
    }
  })

  it("rejects inputs whose extents contradict each other", () => {
    // these have one operand, or operands that share no extent with another: any shape is right
    const free = new Set<string>([
      "zero",
      "copy",
      "h2d",
      "d2h",
      "d2d",
      "scale",
      "gelu.forward",
      "softmax.forward"
    ])
    for (const name of ["pack.float4", "pack.float8", "pack.int8", "pack.bfloat16", "unpack.bfloat16"])
      free.add(name)
    for (const name of [
      "moe_permutation",
      "topk_gate.forward",
      "sigmoid_gate.forward",
      "expert_choice.forward",
      "soft_gate.forward",
      "random_normal",
      "soft_layout",
      "residual.backward",
      "position_add.backward_weight",
      "token_windows",
      "normal_values",
      "uniform_values",
      "constant_values"
    ]) {
      free.add(name)
    }
    for (const name of ["squared_norm", "clip_by_norm", "embedding.forward", "all_reduce", "all_gather"])
      free.add(name)
    for (const name of ["broadcast", "send_recv"]) free.add(name)
    for (const name of ["last_token", "argmax", "split_rows", "kv.sink_tokens", "kv.top_tokens"])
      free.add(name)
    for (const name of ["kv.pool_scores", "kv.chunk_scores", "kv.shot_scores"]) free.add(name)
    let rejected = 0
    for (const [kernel, inputs, attributes] of entries) {
      let own = 0
      for (const [index, shape] of inputs.entries()) {
        for (const axis of shape.keys()) {
          const changed = shape.map((extent, i) => (i === axis ? extent + 1 : extent))
          const shapes = inputs.map((one, i) => (i === index ? changed : one))
          try {
            kernel.shapes(operandsOf(kernel, shapes, "inputDtypes"), attributes)
          } catch (error) {
            expect(error).toBeInstanceOf(RangeError)
            expect(String(error)).toContain(`${kernel.name}: `)
            own++
          }
        }
      }
      rejected += own
      expect(own > 0, `${kernel.name} rejected ${own}`).toBe(!free.has(kernel.name))
    }
    expect(rejected).toBeGreaterThan(150)
  })

  it("rejects wrong dtypes and lengths at evaluation", () => {
    const tokens = operand([2], "float32")
    const weight = operand([3, 4], "float32")
    const out = operand([2, 4], "float32")
    expect(() => checkCall(kernels["embedding.forward"], [tokens, weight], [out], {})).toThrow(
      /input 0 is float32; expected int32/
    )
    const call = (length: number) =>
      evaluate(kernels.copy, [out], [new Float32Array(length)], [out], [new Float32Array(8)], {})
    expect(() => call(7)).toThrow(/7 values for 8 elements/)
    expect(() => call(8)).not.toThrow()
    expect(() => evaluate(kernels.profiled, [], [], [], [], { layer: 0, phase: "forward" })).toThrow(
      /no reference/
    )
  })
})

describe("work", () => {
  const size = fc.integer({ min: 1, max: 300 })
  const work = (kernel: Kernel, inputs: ReadonlyArray<Shape>, attributes: Attributes = {}) => {
    const operands = operandsOf(kernel, inputs, "inputDtypes")
    return kernel.work(
      operands,
      operandsOf(kernel, kernel.shapes(operands, attributes)!, "outputDtypes"),
      attributes
    )
  }

  it("of the three linear products is 2 m n k, with every bfloat16 operand moved once", () => {
    fc.assert(
      fc.property(size, size, size, (m, n, k) => {
        expect(
          work(kernels["linear.forward"], [
            [m, k],
            [n, k]
          ])
        ).toEqual({
          flops: 2 * m * n * k,
          readBytes: 2 * (m * k + n * k),
          writtenBytes: 2 * m * n
        })
        expect(
          work(kernels["linear.backward_input"], [
            [m, n],
            [n, k]
          ]).flops
        ).toBe(2 * m * n * k)
        expect(
          work(kernels["linear.backward_weight"], [
            [m, n],
            [m, k]
          ])
        ).toEqual({
          flops: 2 * m * n * k,
          readBytes: 2 * (m * n + m * k),
          writtenBytes: 2 * n * k
        })
        expect(work(kernels["grouped_linear.forward"], [[m, k], [3, n, k], [3]]).flops).toBe(2 * m * n * k)
      })
    )
  })

  it("of attention counts the pairs that the mask allows", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 20 }),
        fc.boolean(),
        (time, earlier, causal) => {
          const context = time + earlier
          let pairs = 0
          for (let t = 0; t < time; t++) {
            for (let s = 0; s < context; s++) if (!causal || s <= earlier + t) pairs++
          }
          const attributes = { heads: 4, kvHeads: 2, headWidth: 8, causal }
          const [q, kv] = [
            [3, time, 32],
            [3, context, 16]
          ] as const
          const forward = work(kernels["attention.forward"], [q, kv, kv], attributes)
          expect(forward.flops).toBe(3 * 4 * pairs * 4 * 8)
          const backward = work(kernels["attention.backward"], [q, q, kv, kv, q, [3, 4, time]], attributes)
          expect(backward.flops).toBe(2.5 * forward.flops)
        }
      )
    )
  })

  it("of an embedding reads only the rows it looks up", () => {
    // 6 tokens of 4 B, 6 rows of 8 bfloat16
    expect(
      work(kernels["embedding.forward"], [
        [2, 3],
        [50_000, 8]
      ])
    ).toEqual({
      flops: 0,
      readBytes: 6 * 4 + 6 * 8 * 2,
      writtenBytes: 6 * 8 * 2
    })
  })

  it("of adamw reads four tensors and writes three", () => {
    const four = [[10], [10], [10], [10]]
    const { readBytes, writtenBytes } = work(kernels.adamw, four, { learningRate: 1, step: 1 })
    expect([readBytes, writtenBytes]).toEqual([4 * 10 * 2, 3 * 10 * 2])
  })

  it("of profiled and barrier is none: their time comes from elsewhere", () => {
    const none = { flops: 0, readBytes: 0, writtenBytes: 0 }
    const any = [operand([2], "float32")]
    const attributes = { layer: 3, phase: "forward" }
    expect(kernels.profiled.shapes(any, attributes)).toBeUndefined()
    expect(kernels.profiled.work(any, any, attributes)).toEqual(none)
    expect(kernels.profiled.reference).toBeUndefined()
    expect(() => kernels.profiled.shapes(any, { layer: 3 })).toThrow(/"phase"/)
    checkCall(kernels.profiled, any, [...any, ...any], attributes)
    expect(kernels.barrier.shapes(any, {})).toEqual([])
    expect(kernels.barrier.work(any, [], {})).toEqual(none)
  })
})

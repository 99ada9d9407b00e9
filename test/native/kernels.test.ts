// Every native kernel against its TypeScript reference, over drawn shapes, attributes, dtypes and values.
import * as fc from "fast-check"
import { afterAll, expect, it } from "vitest"
import { collectives, kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import { operand, type Kernel } from "../../core/kernels/kernel.ts"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import type { Dtype, TensorData } from "../../core/machine/tensor.ts"
import { nativeInfo, NativeSession, useBlas } from "../../exec/native.ts"
import { numbers } from "../kernels/run.ts"
import { describeNative, drained, tensorOn } from "./addon.ts"
import type { Draw, KernelCase, KernelCases } from "./cases/draw.ts"
import { expertCases } from "./cases/experts.ts"
import { fusedCases } from "./cases/fused.ts"
import { modelCases } from "./cases/model.ts"
import { moeOrderCases } from "./cases/moe-order.ts"
import { scheduleCases } from "./cases/schedule.ts"
import { servingCases } from "./cases/serving.ts"

/** Collectives have their own tests; copies, barrier and profiled are tested with sessions. */
const kernelCases: KernelCases = {
  ...modelCases,
  ...fusedCases,
  ...expertCases,
  ...moeOrderCases,
  ...servingCases,
  ...scheduleCases
}

/** Results of these are the reference's, bit for bit: no sum is reordered, and arithmetic is float64 rounded once. */
const exact: ReadonlySet<string> = new Set<KernelName>([
  ...(["embedding.forward", "embedding.backward_weight", "position_add.forward"] as const),
  ...(["position_add.backward_weight", "residual.forward", "residual.backward", "moe_permutation"] as const),
  ...([
    "moe_dispatch.forward",
    "moe_dispatch.backward",
    "moe_combine.forward",
    "moe_combine.backward_input"
  ] as const),
  ...([
    "moe_layout",
    "expert_choice_layout",
    "soft_layout",
    "moe_order.forward",
    "moe_order.backward"
  ] as const),
  ...(["moe_inverse_order.forward", "moe_inverse_order.backward_input", "moe_rechunk"] as const),
  ...(["moe_inverse_order.backward_gate", "soft_order.forward", "soft_inverse_order.forward"] as const),
  ...(["soft_order.backward_mix", "cosine_scores.forward", "random_normal"] as const),
  ...(["cosine_scores.backward_input", "cosine_scores.backward_weight"] as const),
  ...([
    "concat_rows",
    "split_rows",
    "last_token",
    "argmax",
    "repack",
    "token_windows",
    "normal_values"
  ] as const),
  ...(["kv.append", "kv.evict", "kv.gather", "kv.place", "kv.pool_scores", "kv.chunk_scores"] as const),
  ...(["kv.shot_scores", "kv.top_tokens", "kv.sink_tokens", "kv.top_chunks", "kv.top_shots"] as const),
  ...(["sgd", "outer_nesterov", "clip_by_norm"] as const),
  ...(["copy", "zero", "add", "subtract", "scale", "lerp", "average"] as const),
  ...(["pack.float4", "pack.float8", "pack.int8", "pack.bfloat16"] as const),
  ...(["unpack.float4", "unpack.float8", "unpack.int8", "unpack.bfloat16"] as const)
])

/** Where rounding flips between neighbours of the dtype's grid, results differ by that step, relative to the value. */
const gridStep: Readonly<Record<Dtype, number>> = {
  float32: 0,
  bfloat16: 2 ** -7,
  float16: 2 ** -10,
  float8: 2 ** -3,
  float4: 1,
  int8: 0,
  int32: 0,
  // Computed with nowhere.
  mxfp4: Number.NaN
}
const tolerance = 1e-5

const expectSame = (
  name: string,
  actual: TensorData,
  expected: TensorData,
  dtype: Dtype,
  shape: ReadonlyArray<number>
): void => {
  let size = 1
  for (const value of expected) size = Math.max(size, Math.abs(value))
  for (let i = 0; i < expected.length; i++) {
    const [got, wanted] = [actual[i]!, expected[i]!]
    if (Object.is(got, wanted) || got === wanted) continue
    const allowed =
      exact.has(name) || dtype === "int32" ? 0 : tolerance * size + gridStep[dtype] * Math.abs(wanted)
    if (Math.abs(got - wanted) <= allowed) continue
    expect.fail(
      `${name}, output [${shape.join(", ")}] ${dtype}, element ${i}: ${got}, the reference has ${wanted}`
    )
  }
}

const drawFrom = (seed: number): Draw => {
  const float = numbers(seed)
  const integer = (min: number, max: number) =>
    Math.min(max, min + Math.floor(((float() + 1) / 2) * (max - min + 1)))
  return { float, integer, flag: () => float() > 0 }
}

const floatDtypes = ["float32", "float32", "bfloat16", "float16"] as const

describeNative("native kernels", () => {
  const session = NativeSession.open({ ranks: 1 })
  const rank = session.ranks[0]!
  afterAll(() => session.close())

  /** Runs one call on both sides and compares every output. */
  const check = async (kernel: Kernel, drawn: KernelCase, draw: Draw): Promise<void> => {
    const anyFloat = (): Dtype => floatDtypes[draw.integer(0, 3)]!
    const inputs = drawn.inputs.map(({ shape, dtype, value = () => draw.float() }, index) => {
      const of = operand(shape, dtype ?? kernel.inputDtypes[index] ?? anyFloat())
      const data =
        of.dtype === "int32" || of.dtype === "int8"
          ? new Int32Array(of.elements)
          : new Float32Array(of.elements)
      for (let i = 0; i < data.length; i++) data[i] = value(i)
      roundInPlace(data, of.dtype)
      return { of, data, tensor: tensorOn(rank, shape, of.dtype, data) }
    })
    const ruled = kernel.shapes(
      inputs.map(({ of }) => of),
      drawn.attributes ?? {}
    )
    const shapes = ruled ?? drawn.outputs!
    const outputs = shapes.map((shape, index) => {
      const overwritten = drawn.inPlace?.[index]
      const dtype = kernel.outputDtypes[index]
      const same = overwritten === undefined ? undefined : inputs[overwritten]!
      if (same !== undefined && (dtype === undefined || dtype === same.of.dtype)) return same
      const of = operand(shape, dtype ?? drawn.outputDtype ?? anyFloat())
      const data =
        of.dtype === "int32" || of.dtype === "int8"
          ? new Int32Array(of.elements)
          : new Float32Array(of.elements)
      return { of, data, tensor: tensorOn(rank, shape, of.dtype) }
    })
    const tensors = new Set([...inputs, ...outputs].map(({ tensor }) => tensor))
    const op = launch(
      "call",
      kernel,
      Lane.compute,
      inputs.map(({ tensor }) => tensor),
      outputs.map(({ tensor }) => tensor),
      drawn.attributes
    )
    rank.submit(op, 0)
    evaluate(
      kernel,
      inputs.map(({ of }) => of),
      inputs.map(({ data }) => data),
      outputs.map(({ of }) => of),
      outputs.map(({ data }) => data),
      drawn.attributes ?? {}
    )
    await drained(rank)
    expect(session.fault).toBeUndefined()
    for (const { of, data, tensor } of outputs) {
      expectSame(kernel.name, rank.read(tensor), data, of.dtype, of.shape)
    }
    rank.release(op)
    for (const tensor of tensors) rank.free(tensor)
  }

  it("are all of the catalogue, and there is a case for each", () => {
    const info = nativeInfo()
    const backends = "missing" in info ? [] : info.backends
    for (const backend of backends) {
      // A composite without a kernel of its own is its parts.
      const apart = Object.values<Kernel>(kernels).filter(
        ({ name, expand }) => expand === undefined || backend.kernels.includes(name)
      )
      expect(backend.kernels.toSorted()).toEqual(apart.map(({ name }) => name).toSorted())
    }
    const native = backends.find(({ name }) => name === "cpu")!.kernels
    const untested = native.filter((name) => !(name in kernelCases))
    expect(untested.toSorted()).toEqual(
      [...Object.keys(collectives), "barrier", "d2d", "d2h", "h2d", "profiled"].toSorted()
    )
  })

  for (const [name, make] of Object.entries(kernelCases)) {
    it(`${name} equals its reference`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 1e9 }), async (seed) => {
          const draw = drawFrom(seed)
          await check(kernels[name as KernelName], make(draw), draw)
        }),
        { numRuns: 40 }
      )
    })
  }

  it("multiply the same with the own product as with OpenBLAS, and sizes beyond one block", async () => {
    const info = nativeInfo()
    const before = "missing" in info ? "own" : info.blas
    try {
      for (const blas of [before, "own"]) {
        useBlas(blas)
        await fc.assert(
          fc.asyncProperty(
            fc.integer({ min: 1, max: 1e9 }),
            fc.constantFrom(
              [7, 300, 40], // depth beyond a panel
              [110, 20, 30], // rows beyond a block
              [5, 40, 1050], // columns beyond a block
              [1, 513, 1],
              [97, 257, 17]
            ),
            fc.constantFrom("linear.forward", "linear.backward_input", "linear.backward_weight"),
            async (seed, [rows, inWidth, outWidth], name) => {
              const draw = drawFrom(seed)
              const floats = (...shape: ReadonlyArray<number>) => ({ shape, dtype: "float32" as const })
              const inputs = {
                "linear.forward": [floats(rows!, inWidth!), floats(outWidth!, inWidth!), floats(outWidth!)],
                "linear.backward_input": [floats(rows!, outWidth!), floats(outWidth!, inWidth!)],
                "linear.backward_weight": [floats(rows!, outWidth!), floats(rows!, inWidth!)]
              }[name]!
              await check(kernels[name], { inputs }, draw)
            }
          ),
          { numRuns: 20 }
        )
      }
    } finally {
      useBlas(before)
    }
  })
})

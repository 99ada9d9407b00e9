// One call of a native kernel beside its TypeScript reference: what the tests of kernels are made of.
import { expect } from "vitest"
import type { KernelName } from "../../core/kernels/catalogue.ts"
import { evaluate } from "../../core/kernels/evaluate.ts"
import { operand, type Kernel } from "../../core/kernels/kernel.ts"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import type { Dtype, TensorData } from "../../core/machine/tensor.ts"
import type { NativeSession } from "../../exec/native.ts"
import { numbers } from "../kernels/run.ts"
import { drained, tensorOn } from "./addon.ts"
import type { Draw, KernelCase } from "./cases/draw.ts"

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
    "normal_values",
    "uniform_values",
    "constant_values"
  ] as const),
  ...([
    "kv.advance",
    "kv.append",
    "kv.evict",
    "kv.gather",
    "kv.place",
    "kv.pool_scores",
    "kv.chunk_scores"
  ] as const),
  ...(["kv.shot_scores", "kv.top_tokens", "kv.sink_tokens", "kv.top_chunks", "kv.top_shots"] as const),
  ...(["sgd", "outer_nesterov", "clip_by_norm", "loss_scale"] as const),
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
const expectSame = (
  name: string,
  actual: TensorData,
  expected: TensorData,
  dtype: Dtype,
  shape: ReadonlyArray<number>,
  products: number,
  size: number
): void => {
  for (let i = 0; i < expected.length; i++) {
    const [got, wanted] = [actual[i]!, expected[i]!]
    if (Object.is(got, wanted) || got === wanted) continue
    const allowed =
      exact.has(name) || dtype === "int32" ? 0 : products * size + gridStep[dtype] * Math.abs(wanted)
    if (Math.abs(got - wanted) <= allowed) continue
    expect.fail(
      `${name}, output [${shape.join(", ")}] ${dtype}, element ${i}: ${got}, the reference has ${wanted}`
    )
  }
}

export const drawFrom = (seed: number): Draw => {
  const float = numbers(seed)
  const integer = (min: number, max: number) =>
    Math.min(max, min + Math.floor(((float() + 1) / 2) * (max - min + 1)))
  return { float, integer, flag: () => float() > 0 }
}

const largest = (data: TensorData): number => {
  let size = 1
  for (const value of data) size = Math.max(size, Math.abs(value))
  return size
}

const floatDtypes = ["float32", "float32", "bfloat16", "float16"] as const

/**
 * Runs one call on both sides and compares every output. `products` is how far sums of products may be off, relative to the
 * largest value: 1e-5 unless they are made of narrower numbers.
 */
export const checkKernel = async (
  session: NativeSession,
  kernel: Kernel,
  drawn: KernelCase,
  draw: Draw,
  products = 1e-5
): Promise<void> => {
  const rank = session.ranks[0]!
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
  const all = Math.max(...outputs.map(({ data }) => largest(data)))
  for (const [index, { of, data, tensor }] of outputs.entries()) {
    const isNarrow = of.dtype === "bfloat16" || of.dtype === "float16"
    const said = (isNarrow ? drawn.approximate?.[index] : undefined) ?? drawn.products
    const [allowed, size] = said === undefined ? [products, largest(data)] : [said, all]
    expectSame(kernel.name, rank.read(tensor), data, of.dtype, of.shape, allowed, size)
  }
  rank.release(op)
  for (const tensor of tensors) rank.free(tensor)
}

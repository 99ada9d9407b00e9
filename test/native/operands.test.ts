// Calls that the catalogue refuses, given to the native layer with nothing in between: wrong numbers of operands, shapes and
// dtypes of every kernel. And kernels that take indices from memory, with indices that are none.
import { afterAll, expect, it } from "vitest"
import { kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import { checkCall, operand, type Attributes, type Kernel, type Operand } from "../../core/kernels/kernel.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Dtype, Tensor } from "../../core/machine/tensor.ts"
import { NativeSession } from "../../exec/native.ts"
import { numbers } from "../kernels/run.ts"
import { describeNative, drained, tensorOn, withSession } from "./addon.ts"
import type { Draw, KernelCases } from "./cases/draw.ts"
import { expertCases } from "./cases/experts.ts"
import { modelCases } from "./cases/model.ts"
import { moeOrderCases } from "./cases/moe-order.ts"
import { scheduleCases } from "./cases/schedule.ts"
import { servingCases } from "./cases/serving.ts"

const cases: KernelCases = {
  ...modelCases,
  ...expertCases,
  ...moeOrderCases,
  ...servingCases,
  ...scheduleCases
}

const drawFrom = (seed: number): Draw => {
  const float = numbers(seed)
  const integer = (min: number, max: number) =>
    Math.min(max, min + Math.floor(((float() + 1) / 2) * (max - min + 1)))
  return { float, integer, flag: () => float() > 0 }
}

interface Call {
  readonly inputs: ReadonlyArray<Operand>
  readonly outputs: ReadonlyArray<Operand>
  readonly attributes: Attributes
}

const callOf = (kernel: Kernel, name: string, draw: Draw): Call => {
  const drawn = cases[name as KernelName]!(draw)
  const inputs = drawn.inputs.map(({ shape, dtype }, index) =>
    operand(shape, dtype ?? kernel.inputDtypes[index] ?? "float32")
  )
  const attributes = drawn.attributes ?? {}
  const shapes = kernel.shapes(inputs, attributes) ?? drawn.outputs!
  const outputs = shapes.map((shape, index) =>
    operand(shape, kernel.outputDtypes[index] ?? drawn.outputDtype ?? "float32")
  )
  return { inputs, outputs, attributes }
}

/** One thing wrong with one operand, more often than not. */
const spoil = (operands: ReadonlyArray<Operand>, draw: Draw): ReadonlyArray<Operand> => {
  const at = draw.integer(0, Math.max(0, operands.length - 1))
  const one = operands[at]
  const others = operands.filter((_, index) => index !== at)
  const replaced = (by: Operand): ReadonlyArray<Operand> =>
    operands.map((each, index) => (index === at ? by : each))
  const way = draw.integer(0, 6)
  if (one === undefined || way === 0) return [...operands, operand([2, 3], "float32")]
  if (way === 1) return others
  if (way === 2)
    return replaced(
      operand(
        one.shape,
        draw.flag() ? "int32" : (["float32", "bfloat16", "int8"] as const)[draw.integer(0, 2)]!
      )
    )
  if (way === 3) return replaced(operand([...one.shape, 1], one.dtype))
  if (way === 4) return replaced(operand(one.shape.slice(1), one.dtype))
  const axis = draw.integer(0, Math.max(0, one.shape.length - 1))
  const by = way === 5 ? 1 : -1
  return replaced(
    operand(
      one.shape.map((extent, index) => (index === axis ? Math.max(0, extent + by) : extent)),
      one.dtype
    )
  )
}

const throws = (body: () => void): unknown => {
  try {
    body()
    return undefined
  } catch (error) {
    return error
  }
}

describeNative("operands below TypeScript", () => {
  const session = NativeSession.open({ ranks: 1 })
  const rank = session.ranks[0]!
  afterAll(() => session.close())

  it("are refused by the native layer wherever the catalogue refuses them, and taken as they should be", () => {
    let refused = 0
    for (const [index, name] of Object.keys(cases).entries()) {
      const kernel: Kernel = kernels[name as KernelName]
      if (kernel.expand !== undefined) continue
      let own = 0
      for (let round = 0; round < 60; round++) {
        const draw = drawFrom(1000 * index + round + 1)
        const { inputs, outputs, attributes } = callOf(kernel, name, draw)
        const drawn = (): readonly [ReadonlyArray<Operand>, ReadonlyArray<Operand>] =>
          draw.flag() ? [spoil(inputs, draw), outputs] : [inputs, spoil(outputs, draw)]
        let [reads, writes] = round % 6 === 0 ? [inputs, outputs] : drawn()
        // Some take almost anything: what is not wrong after all is drawn anew.
        for (let again = 0; again < 3 && round % 6 !== 0; again++) {
          const [given, made] = [reads, writes]
          if (throws(() => checkCall(kernel, given, made, attributes)) === undefined)
            [reads, writes] = drawn()
        }
        const tensors = [...reads, ...writes].map(({ shape, dtype }) => tensorOn(rank, shape, dtype))
        const op = launch(
          "call",
          kernel,
          Lane.compute,
          tensors.slice(0, reads.length),
          tensors.slice(reads.length),
          attributes
        )
        const expected = throws(() => checkCall(kernel, reads, writes, attributes))
        const actual = throws(() => rank.prepare(op))
        const call = `${name}: ${JSON.stringify({ reads, writes, attributes })}`
        if (round % 6 === 0) expect(actual, call).toBeUndefined()
        if (expected !== undefined) {
          expect(actual, `${call}\n${String(expected)}`).toBeInstanceOf(RangeError)
          own++
        }
        rank.release(op)
        for (const tensor of tensors) rank.free(tensor)
      }
      refused += own
      // any operands of one size are repack's
      if (name !== "repack") expect(own, name).toBeGreaterThan(10)
    }
    expect(refused).toBeGreaterThan(3000)
  })

  it("of shapes that cannot be are refused", () => {
    const shaped = (shape: ReadonlyArray<number>): Tensor => ({
      id: 2 ** 30,
      name: "t",
      shape,
      dtype: "float32",
      place: "device",
      elements: 1,
      sizeBytes: 4
    })
    for (const shape of [[-1], [2, -3], [2 ** 32, 2 ** 32], [0.5], [NaN], [Infinity], [2 ** 53, 2]]) {
      expect(() => rank.alloc(shaped(shape)), String(shape)).toThrow(RangeError)
    }
    // nobody has so much: it does not fit, and nothing is broken
    expect(rank.alloc(shaped([2 ** 50]))).toBe(false)
    expect(rank.freeBytes("device")).toBeGreaterThan(0)
    expect(rank.freeBytes("device")).toBeLessThan(Infinity)
  })
})

/** A call whose indices lie in memory, and indices that are none. */
interface Indexed {
  readonly kernel: KernelName
  readonly inputs: ReadonlyArray<readonly [shape: ReadonlyArray<number>, dtype?: Dtype]>
  readonly outputs: ReadonlyArray<readonly [shape: ReadonlyArray<number>, dtype?: Dtype]>
  readonly attributes?: Attributes
  /** Which input holds them, beside what the others hold. */
  readonly at: number
  readonly others?: Readonly<Record<number, number>>
  readonly wrong: ReadonlyArray<number>
}

const far = [2 ** 31 - 1, -(2 ** 31)]

const indexed: ReadonlyArray<Indexed> = [
  {
    kernel: "embedding.forward",
    inputs: [[[3], "int32"], [[5, 2]]],
    outputs: [[[3, 2]]],
    at: 0,
    wrong: [5, -1, ...far]
  },
  {
    kernel: "embedding.backward_weight",
    inputs: [[[3, 2]], [[3], "int32"]],
    outputs: [[[5, 2]]],
    attributes: { vocabulary: 5 },
    at: 1,
    wrong: [5, -1, ...far]
  },
  ...(["softmax_cross_entropy.forward", "softmax_cross_entropy.backward"] as const).map(
    (kernel): Indexed => ({
      kernel,
      inputs: [[[3, 5]], [[3], "int32"]],
      outputs: [[kernel.endsWith("forward") ? [] : [3, 5]]],
      at: 1,
      wrong: [5, -1, ...far]
    })
  ),
  {
    kernel: "topk_gate.backward",
    inputs: [[[3, 2]], [[3, 4]], [[3, 2], "int32"]],
    outputs: [[[3, 4]]],
    attributes: { topK: 2 },
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "sigmoid_gate.backward",
    inputs: [[[3, 2]], [[3, 2]], [[3, 2], "int32"], [[3, 4]]],
    outputs: [[[3, 4]]],
    attributes: { topK: 2 },
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "expert_choice.backward",
    inputs: [[[2, 3]], [[2, 3]], [[2, 3], "int32"], [[4, 2]]],
    outputs: [[[4, 2]]],
    attributes: { capacity: 3 },
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "moe_permutation",
    inputs: [[[3, 2], "int32"]],
    outputs: [
      [[3, 2], "int32"],
      [[4], "int32"]
    ],
    attributes: { experts: 4 },
    at: 0,
    wrong: [4, -1, ...far]
  },
  ...(["moe_dispatch.forward", "moe_dispatch.backward"] as const).map((kernel): Indexed => ({
    kernel,
    inputs: [[kernel.endsWith("forward") ? [3, 2] : [6, 2]], [[3, 2], "int32"]],
    outputs: [[kernel.endsWith("forward") ? [6, 2] : [3, 2]]],
    attributes: { topK: 2 },
    at: 1,
    wrong: [6, -1, ...far]
  })),
  {
    kernel: "moe_combine.forward",
    inputs: [[[6, 2]], [[3, 2]], [[3, 2], "int32"]],
    outputs: [[[3, 2]]],
    attributes: { topK: 2 },
    at: 2,
    wrong: [6, -1, ...far]
  },
  {
    kernel: "moe_combine.backward_input",
    inputs: [[[3, 2]], [[3, 2]], [[3, 2], "int32"]],
    outputs: [[[6, 2]]],
    attributes: { topK: 2 },
    at: 2,
    wrong: [6, -1, ...far]
  },
  {
    kernel: "moe_combine.backward_gate",
    inputs: [[[3, 2]], [[6, 2]], [[3, 2], "int32"]],
    outputs: [[[3, 2]]],
    attributes: { topK: 2 },
    at: 2,
    wrong: [6, -1, ...far]
  },
  ...(["grouped_linear.forward", "grouped_linear.backward_input"] as const).map((kernel): Indexed => ({
    kernel,
    inputs: [[[4, 2]], [[2, 2, 2]], [[2], "int32"]],
    outputs: [[[4, 2]]],
    at: 2,
    wrong: [1, 3, -2, ...far]
  })),
  {
    kernel: "grouped_linear.backward_weight",
    inputs: [[[4, 2]], [[4, 3]], [[2], "int32"]],
    outputs: [[[2, 2, 3]]],
    at: 2,
    wrong: [1, 3, -2, ...far]
  },
  {
    kernel: "moe_layout",
    inputs: [[[3, 2], "int32"]],
    outputs: [
      [[6], "int32"],
      [[6], "int32"],
      [[4], "int32"]
    ],
    attributes: { experts: 4, ranks: 2, chunks: 1, topK: 2 },
    at: 0,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "moe_order.forward",
    inputs: [[[3, 2]], [[4], "int32"]],
    outputs: [[[4, 2]]],
    attributes: { rows: "4" },
    at: 1,
    wrong: [3, 2 ** 31 - 1]
  },
  {
    kernel: "moe_order.backward",
    inputs: [[[4], "int32"], [[4, 2]]],
    outputs: [[[3, 2]]],
    attributes: { inputs: 3 },
    at: 0,
    wrong: [3, 2 ** 31 - 1]
  },
  ...[1, 2].map((at): Indexed => ({
    kernel: "moe_inverse_order.forward",
    inputs: [[[6]], [[4], "int32"], [[4], "int32"], [[4, 2]]],
    outputs: [[[3, 2]]],
    attributes: { outputs: 3 },
    at,
    wrong: at === 1 ? [3, 2 ** 31 - 1] : [6, -1, ...far]
  })),
  ...[2, 3].map((at): Indexed => ({
    kernel: "moe_inverse_order.backward_input",
    inputs: [[[3, 2]], [[6]], [[4], "int32"], [[4], "int32"]],
    outputs: [[[4, 2]]],
    attributes: { rows: "4" },
    at,
    wrong: at === 2 ? [3, 2 ** 31 - 1] : [6, -1, ...far]
  })),
  ...[2, 3].map((at): Indexed => ({
    kernel: "moe_inverse_order.backward_gate",
    inputs: [[[3, 2]], [[6]], [[4], "int32"], [[4], "int32"], [[4, 2]]],
    outputs: [[[6]]],
    at,
    wrong: at === 2 ? [3, 2 ** 31 - 1] : [6, -1, ...far]
  })),
  {
    kernel: "soft_order.forward",
    inputs: [[[3, 2]], [[3, 4]], [[4], "int32"]],
    outputs: [[[4, 2]]],
    attributes: { rows: "4" },
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "soft_inverse_order.forward",
    inputs: [[[3, 4]], [[4], "int32"], [[4, 2]]],
    outputs: [[[3, 2]]],
    at: 1,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "soft_order.backward_mix",
    inputs: [[[3, 2]], [[3, 4]], [[4], "int32"], [[4, 2]]],
    outputs: [[[3, 4]]],
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "kv.append",
    inputs: [[[1, 3]], [[1, 3]], [[2, 1], "int32"], [[2, 4, 3]]],
    outputs: [[[2, 4, 3]]],
    attributes: { list: 1 },
    at: 2,
    wrong: [4, -1, ...far]
  },
  {
    kernel: "kv.attention",
    inputs: [[[1, 4]], [[1, 1], "int32"], [[2, 5, 2]]],
    outputs: [[[1, 4]]],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2, cached: 1, longest: 1 },
    at: 1,
    wrong: [5, -1, ...far]
  },
  {
    kernel: "kv.evict",
    inputs: [[[1, 4]], [[1, 1], "int32"], [[1, 1], "int32"], [[1], "int32"], [[2, 5, 2]]],
    outputs: [[[2, 5, 2]]],
    attributes: { heads: 2, kvHeads: 1, headWidth: 2, keep: 0.5, evicting: 0, cached: 0, longest: 1 },
    at: 1,
    others: { 3: 1 },
    wrong: [5, -1, ...far]
  },
  {
    kernel: "kv.gather",
    inputs: [[[1, 5, 4]], [[1, 5, 4]], [[1, 3], "int32"]],
    outputs: [[[2, 6, 4]]],
    attributes: { kvHeads: 2, capacity: 6 },
    at: 2,
    wrong: [5, 2 ** 31 - 1]
  }
]

describeNative("indices from memory that are none", () => {
  const integers: ReadonlySet<Dtype | undefined> = new Set(["int32", "int8"])

  const faultOf = ({ kernel, inputs, outputs, attributes, at, others }: Indexed, index: number | undefined) =>
    withSession({ ranks: 1 }, async (session, rank) => {
      const reads = inputs.map(([shape, dtype], which) => {
        const tensor = tensorOn(rank!, shape, dtype)
        // 0, 1, ... are indices of everything here, but counts must add up
        const counts = kernel.startsWith("grouped_linear")
        const value = (i: number) => others?.[which] ?? (counts ? 2 : i % 2)
        const { elements } = tensor
        const data = integers.has(dtype)
          ? Int32Array.from({ length: elements }, (_, i) => value(i))
          : new Float32Array(elements).fill(0.5)
        if (index !== undefined && which === at) data[elements - 1] = index
        rank!.write(tensor, data)
        return tensor
      })
      const writes = outputs.map(([shape, dtype]) => tensorOn(rank!, shape, dtype))
      const op: Op = launch("call", kernels[kernel], Lane.compute, reads, writes, attributes)
      rank!.submit(op, 0)
      await drained(rank!)
      return session.fault
    })

  for (const call of indexed) {
    it(`${call.kernel}, input ${call.at}: a fault of the op, and no write beyond its tensors`, async () => {
      expect(await faultOf(call, undefined)).toBeUndefined()
      for (const index of call.wrong) {
        const fault = await faultOf(call, index)
        expect(fault, `${index}`).toMatchObject({ kind: "value", rank: 0, op: 0 })
      }
    })
  }
})

// What no tolerance covers, and where tolerances end: each of these would let a wrong run pass where it is looser.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { narrowed, nothing, scalingApart, type Passed } from "../../core/agreement/narrow.ts"
import {
  compareReads,
  defaultTolerance,
  gapBetween,
  mayBeOff,
  ofScaledLoss
} from "../../core/agreement/values.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Dtype, Tensor, TensorData } from "../../core/machine/tensor.ts"
import { flatWorld, run as simulated } from "../simulate/simulated.ts"

const gap = (
  dtype: Dtype,
  expected: TensorData,
  actual: TensorData,
  passed: Partial<Passed> = {}
): ReturnType<typeof gapBetween> =>
  gapBetween({ dtype, shape: [expected.length] }, expected, actual, defaultTolerance, {
    ...nothing,
    ...passed
  })

describe("values", () => {
  it("of integers are equal, every one, however large they are and whatever lies upstream", () => {
    const tokens = Int32Array.of(50_000, 50_001, 50_002)
    for (const dtype of ["int8", "int32"] as const)
      for (const passed of [{}, { grid: "bfloat16", roundings: 4, swing: 9 }] as const) {
        expect(gap(dtype, tokens, tokens.slice(), passed).ratio).toBe(0)
        for (const at of tokens.keys()) {
          const other = tokens.map((x, i) => (i === at ? x + 1 : x))
          expect(gap(dtype, tokens, other, passed).ratio, `${dtype} ${at}`).toBe(Infinity)
        }
        const reach = mayBeOff({ dtype, shape: [3] }, tokens, defaultTolerance, { ...nothing, ...passed })
        for (const at of tokens.keys()) expect(reach(at)).toBe(0)
      }
  })

  it("are as many on both machines", () => {
    const two = Float32Array.of(1, 2)
    for (const other of [Float32Array.of(1), Float32Array.of(1, 2, 3), Float32Array.of()]) {
      expect(gap("float32", two, other)).toEqual({
        ratio: Infinity,
        message: `2 values; executed ${other.length} values`
      })
      expect(gap("float32", other, two).ratio).toBe(Infinity)
      expect(gap("int32", Int32Array.from(two), Int32Array.from(other)).ratio).toBe(Infinity)
    }
  })

  it("are not excused by an infinity beside them", () => {
    for (const padding of [Infinity, -Infinity]) {
      const [ours, theirs] = [Float32Array.of(padding, 1, 2), Float32Array.of(padding, 1, 2.1)]
      expect(gap("float32", ours, ours.slice()).ratio).toBe(0)
      expect(gap("float32", ours, theirs).ratio).toBeGreaterThan(1)
      expect(gap("float32", ours, theirs, { grid: "bfloat16", roundings: 1 }).ratio).toBeGreaterThan(1)
    }
  })

  it("that were rounded again and again add up as a random walk does, and no faster", () => {
    // Behind bfloat16 rounded nine times: three steps of it for one element, and three quarters of one in the mean.
    const passed = { grid: "bfloat16", roundings: 9 } as const
    const ones = new Float32Array(64).fill(1)
    const off = (count: number, steps: number) => ones.map((x, i) => (i < count ? x + steps * 2 ** -7 : x))
    expect(gap("float32", ones, off(1, 2.9), passed).ratio).toBeLessThan(1)
    expect(gap("float32", ones, off(1, 3.1), passed).ratio).toBeGreaterThan(1)
    expect(gap("float32", ones, off(64, 0.74), passed).ratio).toBeLessThan(1)
    expect(gap("float32", ones, off(64, 0.78), passed).ratio).toBeGreaterThan(1)
  })

  it("that one rank alone read otherwise are told, from just beyond what they may be off by", () => {
    const tensor = { id: 0, name: "x", dtype: "float32", shape: [1] } as unknown as Tensor
    const reading = (...values: ReadonlyArray<number>): ReadonlyArray<Journal> =>
      values.map((value, rank) => ({
        rank,
        entries: [{ kind: "read", tensor, writer: 3, values: Float32Array.of(value) }]
      }))
    const most = 8192 * 2 ** -23
    for (const rank of [0, 1, 2]) {
      const but = (value: number) => reading(...[0, 1, 2].map((one) => (one === rank ? value : 1)))
      expect(compareReads(but(1), but(1 + 0.99 * most), defaultTolerance)).toBeUndefined()
      expect(compareReads(but(1), but(1 + 1.02 * most), defaultTolerance)).toMatchObject({ rank, op: 3 })
    }
  })

  it("of a scaled loss are held so far by its scale, and by none that is no number of its kind", () => {
    expect(ofScaledLoss(defaultTolerance, 1024).absolute).toBe(1024 * defaultTolerance.absolute)
    for (const scale of [undefined, 1, 0.5, 0, -4, NaN, Infinity])
      expect(ofScaledLoss(defaultTolerance, scale).absolute, String(scale)).toBe(defaultTolerance.absolute)
  })
})

describe("the state of a scaled loss", () => {
  it("is the same in its scale, in what it does with the step, and in both counts", () => {
    const state = [1024, 1 / 1024, 7, 2]
    expect(scalingApart(Float32Array.from(state), Float32Array.from(state))).toBeUndefined()
    for (const [at, value] of [
      [0, 2048],
      [1, 0],
      [2, 8],
      [3, 3]
    ] as const) {
      const other = Float32Array.from(state)
      other[at] = value
      expect(scalingApart(Float32Array.from(state), other), String(at)).toMatch(/^simulated .*; executed /u)
      expect(scalingApart(other, Float32Array.from(state)), String(at)).toMatch(/^simulated .*; executed /u)
    }
    // By what gradients were multiplied follows from the scale and from their norm, which a machine rounds.
    expect(
      scalingApart(Float32Array.from(state), Float32Array.from([1024, 1.001 / 1024, 7, 2]))
    ).toBeUndefined()
  })
})

describe("updates in a run of which was not kept what they left", () => {
  const learningRate = 0.01
  /** What two updates by gradients in that dtype, and what is made of them, have passed. */
  const passedOf = (dtype: "float32" | "bfloat16") => {
    const journals: Array<Journal> = []
    const tensors: Record<string, Tensor> = {}
    simulated({
      world: flatWorld(1),
      record: true,
      program: journaled(
        Effect.gen(function* () {
          const { alloc, submit, drain } = yield* Machine
          const of = (name: string, own: Dtype = "float32") =>
            Effect.map(alloc({ name, shape: [4, 4], dtype: own }), (tensor) => (tensors[name] = tensor))
          const [p, m, v] = [yield* of("p"), yield* of("m"), yield* of("v")]
          const [a, g] = [yield* of("a", dtype), yield* of("g", dtype)]
          const [moved, product] = [yield* of("moved"), yield* of("product")]
          for (const step of [1, 2]) {
            for (let i = 0; i < 3; i++) {
              submit(launch("forward", kernels.scale, Lane.compute, [g], [a], { factor: 2 }))
              submit(launch("backward", kernels.scale, Lane.compute, [a], [g], { factor: 2 }))
            }
            const attributes = { learningRate, step }
            submit(launch("update", kernels.adamw, Lane.compute, [p, g, m, v], [p, m, v], attributes))
          }
          submit(launch("move", kernels.copy, Lane.compute, [p], [moved]))
          submit(launch("multiply", kernels["linear.forward"], Lane.compute, [p, p], [product]))
          yield* drain
        }),
        journals
      )
    })
    const grids = narrowed(journals, "once")
    return (name: string): Passed => grids.atEnd(0, tensors[name]!)
  }

  it("may have moved a parameter by the bound of each, and what is moved of it; no product of it", () => {
    // Kingma and Ba's bound of a step at betas of 0.9 and 0.999.
    const bound = learningRate * Math.max(1, 0.1 / Math.sqrt(0.001))
    for (const dtype of ["float32", "bfloat16"] as const) {
      const passed = passedOf(dtype)
      expect(passed("p").swing, dtype).toBeCloseTo(2 * bound, 12)
      expect(passed("moved").swing, dtype).toBeCloseTo(2 * bound, 12)
      for (const name of ["product", "g", "a"]) expect(passed(name).swing, name).toBe(0)
    }
  })

  it("leave a parameter rounded once, however often its gradients were", () => {
    const passed = passedOf("bfloat16")
    expect(passed("g")).toMatchObject({ grid: "bfloat16", roundings: 12 })
    expect(passed("p")).toMatchObject({ grid: "bfloat16", roundings: 1 })
    expect(passedOf("float32")("p")).toMatchObject({ grid: "float32", roundings: 0 })
  })
})

// Values that a tensor begins with and that kernels draw: the same on every machine, in either memory, for whoever uses them
// first, and no ops of the program.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { initialValues } from "../../core/machine/initial.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, Misuse } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Dtype, Drawn, Initial, Place, TensorData } from "../../core/machine/tensor.ts"
import { constant, normal, uniform } from "../../core/models/initial-values.ts"
import { describeContract, failureOn, runOn } from "./machines.ts"

/** More than is filled at once. */
const large = 20_000
const specs: ReadonlyArray<{
  readonly name: string
  readonly shape: ReadonlyArray<number>
  readonly dtype: Dtype
  readonly initial: ReadonlyArray<Drawn>
}> = [
  { name: "normal", shape: [large], dtype: "float32", initial: [normal(2 ** 40 + 3, 0.02)] },
  { name: "narrow", shape: [large], dtype: "bfloat16", initial: [normal(2 ** 40 + 3, 0.02)] },
  // The largest that a stream of core/random.ts may have, and one that was refused as no whole number.
  { name: "largest seed", shape: [3], dtype: "float32", initial: [normal(2 ** 53 - 1, 1)] },
  { name: "large seed", shape: [3], dtype: "float32", initial: [uniform(9_002_103_259_560_645, 0, 1)] },
  { name: "uniform", shape: [7, 9], dtype: "float32", initial: [uniform(5, -0.3, 0.7)] },
  { name: "constant", shape: [33], dtype: "float32", initial: [constant(1)] },
  { name: "part", shape: [40], dtype: "float32", initial: [normal(1, 1, { first: 9, at: 5, count: 20 })] },
  {
    name: "parts",
    shape: [6, 4],
    dtype: "float32",
    initial: [
      uniform(2, 0, 1, { first: 3, at: 0, count: 8, columns: 4, stride: 10 }),
      uniform(2, 0, 1, { first: 93, at: 8, count: 16, columns: 4, stride: 10 })
    ]
  },
  { name: "nothing", shape: [0], dtype: "float32", initial: [normal(1, 1)] }
]

/** How the values come to where they are read: in device memory by a kernel, from host memory by a copy. */
const ways = [
  { place: "device", lane: Lane.inter, kernel: kernels.copy },
  { place: "device", lane: Lane.d2h, kernel: kernels.d2h },
  { place: "host", lane: Lane.h2d, kernel: kernels.h2d }
] as const

describeContract("first values that kernels draw", (machine) => {
  it("are those of their references, for the first op in any lane", async () => {
    const { ranks } = await runOn(
      machine,
      2,
      Effect.gen(function* () {
        const own = yield* Machine
        const values: Array<TensorData> = []
        for (const { place, lane, kernel } of ways) {
          // The second time in memory that was in use.
          for (const _ of [0, 1]) {
            for (const spec of specs) {
              const from = yield* own.alloc({ ...spec, place })
              const to: Place = kernel === kernels.d2h ? "host" : "device"
              const copy = yield* own.alloc({ ...spec, initial: undefined, place: to })
              own.submit(launch("copy", kernel, lane, [from], [copy]))
              own.free(from)
              values.push(yield* own.read(copy))
              own.free(copy)
            }
          }
        }
        yield* own.drain
        return values
      })
    )
    const expected = specs.map(initialValues)
    for (const { value, ops } of ranks) {
      for (const [i, values] of value.entries()) expect(values).toEqual(expected[i % specs.length])
      // What is drawn is no op of the program.
      expect(ops).toBe(2 * ways.length * specs.length)
    }
  })

  it("are there to read where no op has used them, and at the end of the run", async () => {
    const { ranks } = await runOn(
      machine,
      1,
      Effect.gen(function* () {
        const own = yield* Machine
        const values: Array<TensorData> = []
        for (const spec of specs) values.push(yield* own.read(yield* own.alloc(spec)))
        return values
      })
    )
    expect(ranks[0]!.value).toEqual(specs.map(initialValues))
  })

  it("give way to those that the run is given", async () => {
    const given = (name: string) =>
      name === "x" ? Float32Array.of(1, 2, 3) : name === "y" ? [constant(4)] : undefined
    const { ranks } = await runOn(
      machine,
      1,
      Effect.gen(function* () {
        const own = yield* Machine
        const make = (name: string, initial: Initial) =>
          Effect.flatMap(own.alloc({ name, shape: [3], dtype: "float32", initial }), own.read)
        return [
          yield* make("x", [constant(9)]),
          yield* make("y", () => Float32Array.of(7, 8, 9)),
          yield* make("z", [constant(6)])
        ]
      }),
      { initial: (_, { name }) => given(name) }
    )
    expect(ranks[0]!.value.map((values) => [...values])).toEqual([
      [1, 2, 3],
      [4, 4, 4],
      [6, 6, 6]
    ])
  })

  it("refuse a window beyond the tensor, and attributes that the kernel has not", async () => {
    for (const [initial, says] of [
      [normal(1, 1, { at: 2, count: 3 }), "3 elements from 2 on, of a tensor of 4"],
      [normal(1, 1, { first: -1 }), '"first" is -1; expected a whole number from 0'],
      [{ kernel: "constant_values", attributes: {} }, 'attribute "value" (number) is missing']
    ] as ReadonlyArray<readonly [Drawn, string]>) {
      const failure = await failureOn(
        machine,
        1,
        Effect.flatMap(Machine, (own) =>
          own.alloc({ name: "x", shape: [4], dtype: "float32", initial: [initial] })
        )
      )
      expect(failure).toBeInstanceOf(Misuse)
      expect(String(failure)).toContain(says)
    }
  })
})

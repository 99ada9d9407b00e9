// Programs drawn at random: kernels, copies and collectives on all lanes over a few tensors, tensors that come and go, and
// decisions that depend on data. Any machine must do with them what any other does.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Place, Tensor } from "../../core/machine/tensor.ts"

/** One thing that a program does; numbers name tensors, modulo how many there are. */
type Action =
  | {
      readonly do: "combine"
      readonly kernel: "add" | "subtract"
      readonly of: readonly [number, number]
      readonly to: number
    }
  | { readonly do: "scale"; readonly of: number; readonly to: number; readonly factor: number }
  | { readonly do: "load"; readonly of: number; readonly to: number }
  | { readonly do: "store"; readonly of: number; readonly to: number }
  | { readonly do: "average"; readonly lane: "inter" | "intra"; readonly of: ReadonlyArray<number> }
  | { readonly do: "broadcast"; readonly of: number; readonly root: number }
  | { readonly do: "renew"; readonly of: number }
  | { readonly do: "decide"; readonly by: number; readonly of: number }
  | { readonly do: "step" }

interface GeneratedProgram {
  readonly ranks: number
  readonly elements: number
  readonly device: number
  readonly host: number
  readonly actions: ReadonlyArray<Action>
}

const index = fc.nat({ max: 7 })

const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("combine" as const),
      kernel: fc.constantFrom("add" as const, "subtract" as const),
      of: fc.tuple(index, index),
      to: index
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("scale" as const),
      of: index,
      to: index,
      factor: fc.constantFrom(-1, 0.5, 1.25)
    })
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("load" as const), of: index, to: index }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("store" as const), of: index, to: index }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("average" as const),
      lane: fc.constantFrom("inter" as const, "intra" as const),
      of: fc.uniqueArray(index, { minLength: 1, maxLength: 3 })
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("broadcast" as const), of: index, root: index }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("renew" as const), of: index }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("decide" as const), by: index, of: index }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("step" as const) }) }
)

export const generatedProgram = (maxActions = 40): fc.Arbitrary<GeneratedProgram> =>
  fc.record({
    ranks: fc.integer({ min: 1, max: 3 }),
    elements: fc.constantFrom(1, 5, 64, 3000),
    device: fc.integer({ min: 2, max: 5 }),
    host: fc.integer({ min: 1, max: 2 }),
    actions: fc.array(action, { minLength: 3, maxLength: maxActions, size: "max" })
  })

/** The program of one rank. */
export const programOf = ({ elements, device, host, actions }: GeneratedProgram): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const { rank, world } = machine
    let made = 0
    const make = (place: Place) => {
      const number = made++
      return machine.alloc({
        name: `${place} ${number}`,
        shape: [elements],
        dtype: "float32",
        place,
        initial: () =>
          Float32Array.from({ length: elements }, (_, i) => ((7 * number + 3 * rank + i) % 11) / 4 - 1)
      })
    }
    const near: Array<Tensor> = []
    for (let i = 0; i < device; i++) near.push(yield* make("device"))
    const far: Array<Tensor> = []
    for (let i = 0; i < host; i++) far.push(yield* make("host"))
    const on = (tensors: ReadonlyArray<Tensor>, i: number): Tensor => tensors[i % tensors.length]!

    for (const [number, one] of actions.entries()) {
      const label = `${number} ${one.do}`
      switch (one.do) {
        case "combine":
          machine.submit(
            launch(
              label,
              kernels[one.kernel],
              Lane.compute,
              one.of.map((i) => on(near, i)),
              [on(near, one.to)]
            )
          )
          break
        case "scale":
          machine.submit(
            launch(label, kernels.scale, Lane.compute, [on(near, one.of)], [on(near, one.to)], {
              factor: one.factor
            })
          )
          break
        case "load":
          machine.submit(launch(label, kernels.h2d, Lane.h2d, [on(far, one.of)], [on(near, one.to)]))
          break
        case "store":
          machine.submit(launch(label, kernels.d2h, Lane.d2h, [on(near, one.of)], [on(far, one.to)]))
          break
        case "average": {
          const tensors = [...new Set(one.of.map((i) => on(near, i)))]
          const group = one.lane === "inter" ? world.all : { name: "inside", ranks: world.all.ranks }
          machine.submit(
            collective(label, kernels.all_reduce, Lane[one.lane], group, tensors, tensors, {
              attributes: { reduce: "avg" }
            })
          )
          break
        }
        case "broadcast": {
          const tensor = on(near, one.of)
          machine.submit(
            collective(label, kernels.broadcast, Lane.inter, world.all, [tensor], [tensor], {
              attributes: { root: one.root % world.size }
            })
          )
          break
        }
        case "renew": {
          const slot = one.of % near.length
          machine.free(near[slot]!)
          near[slot] = yield* make("device")
          break
        }
        case "decide": {
          const values = yield* machine.read(on(near, one.by))
          const tensor = on(near, one.of)
          const kernel = values[0]! > 0.3 ? kernels.zero : kernels.copy
          machine.submit(launch(label, kernel, Lane.compute, [on(near, one.by)], [tensor]))
          break
        }
        case "step":
          yield* machine.endStep
      }
    }
  })

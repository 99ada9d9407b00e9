// Weight decay acts on all parameters, or spares biases and norms; either way an optimizer's step is one launch for each kind.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import {
  optimizerState,
  optimizerUpdate,
  type Optimizer
} from "../../core/algorithms/data-parallel/optimizer.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { Machine } from "../../core/machine/machine.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

const shapes = [[2, 3], [3], [4, 1], [], [5]]

/** Parameters of all ones after a step without gradients, and how many ops that took. */
const decayed = (optimizer: Optimizer) =>
  run({
    world: flatWorld(1),
    values: (_, { name, elements }) =>
      name.startsWith("p") && !name.includes(" ") ? new Float32Array(elements).fill(1) : undefined,
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const all = yield* Effect.forEach(shapes, (shape, index) =>
        Effect.gen(function* () {
          const parameter = yield* machine.alloc({ name: `p${index}`, shape, dtype: "float32" })
          const gradient = yield* machine.alloc({ name: `p${index} gradient`, shape, dtype: "float32" })
          return yield* optimizerState(optimizer, parameter, gradient)
        })
      )
      const update = optimizerUpdate(optimizer, "optimizer", all)(0)
      submitAll(machine, update)
      const values = yield* Effect.forEach(all, ({ parameter }) => machine.read(parameter))
      return { launches: update.length, values: values.map((one) => [...new Set(one)]) }
    })
  }).ranks[0]!.value

const optimizers = [
  { name: "adamw", learningRate: 0.5, weightDecay: 0.5 },
  { name: "sgd", learningRate: 0.5, weightDecay: 0.5 },
  { name: "sgd", learningRate: 0.5, weightDecay: 0.5, momentum: 0.9 }
] as const

for (const optimizer of optimizers) {
  it(`${JSON.stringify(optimizer)} decays everything, or matrices alone`, () => {
    expect(decayed(optimizer)).toEqual({ launches: 1, values: shapes.map(() => [0.75]) })
    expect(decayed({ ...optimizer, decays: "matrices" })).toEqual({
      launches: 2,
      values: shapes.map(({ length }) => [length > 1 ? 0.75 : 1])
    })
  })
}

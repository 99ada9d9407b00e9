// What ranks have learnt at the end of a program on a model of real kernels, for tests that compare ways of learning the same.
import * as Effect from "effect/Effect"
import {
  kernelModel,
  type KernelModel,
  type KernelModelOptions
} from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import type { TrainingModelBuilder } from "../../core/algorithms/data-parallel/training-model.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import type { World } from "../../core/world.ts"
import { run } from "../simulate/simulated.ts"

export interface Learnt {
  readonly losses: ReadonlyArray<number>
  readonly heldOut: number
  /** By place: its name, and what the rank has of it from where. */
  readonly parts: ReadonlyArray<
    readonly [name: string, offset: number, elements: number, part: ArrayLike<number>]
  >
}

/** Runs `program` for `steps` steps on that model, and evaluates what was learnt at the end. */
export const trained = (
  options: KernelModelOptions,
  steps: number,
  program: (build: TrainingModelBuilder) => Program<void>
): Program<Learnt> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    let model: KernelModel | undefined
    const losses: Array<number> = []
    let heldOut = 0
    const build = Effect.tap(kernelModel(options), (built) => Effect.sync(() => (model = built)))
    yield* observed(build, program, {
      everySteps: 1,
      onLoss: (_, __, loss) => losses.push(loss),
      evaluation: { everySteps: steps, batches: 2, onLoss: (_, __, loss) => (heldOut = loss) }
    })
    const parts: Array<Learnt["parts"][number]> = []
    for (const { name, shape, layer, learnt, offset } of model!.places) {
      const elements = shape.reduce((product, extent) => product * extent, 1)
      parts.push([name, offset, elements, yield* machine.read(model!.layers[layer]!.parameters[learnt]!)])
    }
    return { losses, heldOut, parts }
  })

/** Every parameter, of the parts that these ranks hold. */
export const assembled = (ranks: ReadonlyArray<{ readonly value: Learnt }>) =>
  ranks[0]!.value.parts.map(([name, offset, elements], place) => {
    const whole = ranks.flatMap(({ value }) => Array.from(value.parts[place]![3]))
    return [name, whole.slice(offset, offset + elements)] as const
  })

/** The most bytes of each rank by the simulator's count, which computes no values: they are none of what is held. */
export const simulatedPeaks = <A>(world: World, program: Program<A>) =>
  run({ world, program, symmetric: false, source: () => new Float32Array(1) }).ranks.map(
    ({ peakBytes }) => peakBytes
  )

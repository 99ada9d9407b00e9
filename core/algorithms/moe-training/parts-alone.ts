// What any plan of MoE training is made of, one op after another: steps at every pipeline degree whose ops all take one lane, so that
// nothing overlaps, and gradients of several sizes. For profiles: what an op takes alone, of which a simulation makes any schedule.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { interposing } from "../../machine/interpose.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type Program } from "../../machine/machine.ts"
import { collective, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import { moeGroups } from "./groups.ts"
import { denseElementsOf, sharesOf, type MoeModel } from "./model.ts"
import { moeTraining } from "./program.ts"
import { Tensors } from "./tensors.ts"

interface PartsAlone {
  readonly model: MoeModel
  readonly degrees: ReadonlyArray<number>
  /** Of each degree, after one of warm-up. */
  readonly steps: number
}

/** The same program with all its ops on one lane; what it leaves allocated is freed. */
const inOneLane = <A>(program: Program<A>): Program<A> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const live = new Set<Tensor>()
    // An op is prepared once, whoever submits it how often.
    const moved = new Map<Op, Op>()
    const value = yield* interposing(program, () => ({
      alloc: (spec) => Effect.tap(machine.alloc(spec), (tensor) => Effect.sync(() => live.add(tensor))),
      free: (tensor) => {
        live.delete(tensor)
        machine.free(tensor)
      },
      submit: (op, scalars) => {
        let own = moved.get(op)
        if (own === undefined) moved.set(op, (own = { ...op, lane: Lane.compute }))
        return machine.submit(own, scalars)
      }
    }))
    yield* machine.drain
    for (const tensor of live) machine.free(tensor)
    return value
  })

/** Shares of a layer's dense gradients that are averaged: plans cut them anywhere. */
const gradientShares = [1 / 32, 1 / 8, 1 / 4, 1 / 2, 1]

const gradientsAlone = (model: MoeModel, steps: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const groups = moeGroups(machine.world, machine.rank)
    const elements = denseElementsOf(model, sharesOf(model, groups.nodes, groups.perNode))
    const tensors = new Tensors(machine, model.dtype, model.seed)
    const ops: Array<Op> = []
    for (const share of gradientShares) {
      const tensor = yield* tensors.make("gradient", [Math.max(1, Math.round(share * elements))])
      ops.push(collective("gradient", kernels.all_reduce, Lane.inter, groups.across, [tensor], [tensor]))
    }
    for (let step = 0; step < 1 + steps; step++) {
      for (const op of ops) machine.submit(op)
      yield* machine.endStep
    }
  })

/** Degrees of both passes: each of them for both, and one pair that differs, for what cuts anew what was saved. */
const pairsOf = (degrees: ReadonlyArray<number>): ReadonlyArray<readonly [number, number]> => {
  const alike = degrees.map((degree) => [degree, degree] as const)
  const [first, last] = [degrees[0]!, degrees.at(-1)!]
  return first === last ? alike : [...alike, [last, first]]
}

/** Steps that first do something: how long these take says little. */
export const isWarmup =
  (steps: number) =>
  (step: number): boolean =>
    step % (1 + steps) === 0

/** One rank's part: `1 + steps` steps of each pair of degrees, and as many of gradients. */
export const moePartsAlone = ({ model, degrees, steps }: PartsAlone): Program<void> =>
  Effect.gen(function* () {
    const { world, rank } = yield* Machine
    const { nodes, perNode } = moeGroups(world, rank)
    const none = Array.from({ length: model.layers }, () => 0)
    const rest = model.layers * denseElementsOf(model, sharesOf(model, nodes, perNode))
    for (const [forward, backward] of pairsOf(degrees)) {
      // Messages of a stage follow each other as on three lanes: what a shaped link lets pass at once after a pause counts as often.
      const plan = {
        lanes: "three",
        forwardDegrees: none.map(() => forward),
        backwardDegrees: none.map(() => backward),
        gradients: { moe: none, dense: none, rest }
      } as const
      yield* inOneLane(moeTraining({ model, plan, steps: 1 + steps }))
    }
    if (nodes > 1) yield* inOneLane(gradientsAlone(model, steps))
  })

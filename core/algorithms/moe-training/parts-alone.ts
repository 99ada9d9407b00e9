// What any plan of MoE training is made of, one op after another: steps at every pipeline degree whose ops all take one lane, so that
// nothing overlaps, and gradients of several sizes; and products beside messages. For profiles: what an op takes alone, of which a
// simulation makes any schedule, and how much slower it is in company.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { interposing } from "../../machine/interpose.ts"
import { Lane } from "../../machine/lane.ts"
import { Machine, type Program } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { World } from "../../world.ts"
import { moeGroups } from "./groups.ts"
import { capacityOf, denseElementsOf, sharesOf, type MoeModel } from "./model.ts"
import { moeTraining } from "./program.ts"
import { Tensors } from "./tensors.ts"
import type { ProfiledStep } from "../../profile.ts"

interface PartsAlone {
  readonly model: MoeModel
  readonly degrees: ReadonlyArray<number>
  /** Of each degree, after one of warm-up. */
  readonly steps: number
}

/** The same program with each op on the lane that is said; what it leaves allocated is freed. */
const onLanes = <A>(program: Program<A>, laneOf: (op: Op) => Lane): Program<A> =>
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
        if (own === undefined) moved.set(op, (own = { ...op, lane: laneOf(op) }))
        return machine.submit(own, scalars)
      }
    }))
    yield* machine.drain
    for (const tensor of live) machine.free(tensor)
    return value
  })

const oneLane = (): Lane => Lane.compute

/** Every op of `made`, in `steps` steps. */
const repeated = (made: Program<ReadonlyArray<Op>>, steps: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const ops = yield* made
    for (let step = 0; step < steps; step++) {
      for (const op of ops) machine.submit(op)
      yield* machine.endStep
    }
  })

const sizesOf = (model: MoeModel) =>
  Effect.map(Machine, (machine) => {
    const groups = moeGroups(machine.world, machine.rank)
    const shares = sharesOf(model, groups.nodes, groups.perNode)
    return { groups, shares, tensors: new Tensors(machine, model.dtype, model.seed) }
  })

/** Shares of a layer's dense gradients that are averaged: plans cut them anywhere. */
const gradientShares = [1 / 32, 1 / 8, 1 / 4, 1 / 2, 1]

const gradients = (model: MoeModel): Program<ReadonlyArray<Op>> =>
  Effect.gen(function* () {
    const { groups, shares, tensors } = yield* sizesOf(model)
    const elements = denseElementsOf(model, shares)
    return yield* Effect.forEach(gradientShares, (share) =>
      Effect.map(tensors.make("gradient", [Math.max(1, Math.round(share * elements))]), (tensor) =>
        collective("gradient", kernels.all_reduce, Lane.inter, groups.across, [tensor], [tensor])
      )
    )
  })

/** Products of one expert, and before them the messages of a few dispatches, if so. */
const products = (model: MoeModel, withMessages: boolean): Program<ReadonlyArray<Op>> =>
  Effect.gen(function* () {
    const { groups, shares, tensors } = yield* sizesOf(model)
    const { nodes, perNode } = groups
    const { width } = model
    const even = Math.max(1, Math.ceil((shares.tokens * model.topK) / model.experts))
    const sent = nodes * (capacityOf(model, shares, 1, 1) || even)
    const input = yield* tensors.make("input", [perNode * sent, width])
    const weight = yield* tensors.make("weight", [shares.hidden, width])
    const output = yield* tensors.make("output", [perNode * sent, shares.hidden])
    const [x, w, y] = [[input, weight], [output, input], output] as const
    const each = [
      launch("product", kernels["linear.forward"], Lane.compute, x, [y]),
      launch("product", kernels["linear.backward_weight"], Lane.compute, w, [weight])
    ]
    const all = Array.from({ length: 4 }, () => each).flat()
    if (!withMessages) return all
    const shapes = Array.from({ length: shares.localExperts }, () => [sent, width])
    const from = yield* tensors.several("sent", shapes)
    const to = yield* tensors.several("received", shapes)
    const message = collective("message", kernels.all_to_all, Lane.inter, groups.across, from, to, {
      attributes: { ranks: nodes }
    })
    return [message, message, message, ...all]
  })

/** Degrees of both passes: each of them for both, and one pair that differs, for what cuts anew what was saved. */
const pairsOf = (degrees: ReadonlyArray<number>): ReadonlyArray<readonly [number, number]> => {
  const alike = degrees.map((degree) => [degree, degree] as const)
  const [first, last] = [degrees[0]!, degrees.at(-1)!]
  return first === last ? alike : [...alike, [last, first]]
}

/** One rank's part: `1 + steps` steps of each pair of degrees; of more nodes than one as many of gradients, and of products without and with messages. */
export const moePartsAlone = (
  world: World,
  { model, degrees, steps }: PartsAlone
): { readonly program: Program<void>; readonly kindOf: (step: number) => ProfiledStep } => {
  const { nodes, perNode } = moeGroups(world, 0)
  const none = Array.from({ length: model.layers }, () => 0)
  const rest = model.layers * denseElementsOf(model, sharesOf(model, nodes, perNode))
  const each = 1 + steps
  const pairs = pairsOf(degrees)
  const program = Effect.gen(function* () {
    for (const [forward, backward] of pairs) {
      // Messages of a stage follow each other as on three lanes: what a shaped link lets pass at once after a pause counts as often.
      const plan = {
        lanes: "three",
        forwardDegrees: none.map(() => forward),
        backwardDegrees: none.map(() => backward),
        gradients: { moe: none, dense: none, rest }
      } as const
      yield* onLanes(moeTraining({ model, plan, steps: each }), oneLane)
    }
    if (nodes === 1) return
    yield* onLanes(repeated(gradients(model), each), oneLane)
    yield* onLanes(repeated(products(model, false), each), oneLane)
    yield* onLanes(repeated(products(model, true), each), ({ lane }) => lane)
  })
  const besideFrom = (pairs.length + 2) * each
  return {
    program,
    kindOf: (step) => (step % each === 0 ? "warm-up" : step < besideFrom ? "alone" : "beside")
  }
}

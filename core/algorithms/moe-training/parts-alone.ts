// What any plan of MoE training is made of, one op after another: steps at every pipeline degree whose ops all take one lane, so that
// nothing overlaps, and gradients of several sizes; and products beside messages, of the sizes of each degree. For profiles: what an op takes
// alone, of which a simulation makes any schedule, and how much slower it is in company.
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

/** What runs beside products of one expert's chunk: messages of one lane, of that chunk's sizes. */
interface Beside {
  readonly products: ReadonlyArray<Op>
  readonly between: ReadonlyArray<Op>
  readonly inside: ReadonlyArray<Op>
}

/** Of each kind of message, in a step beside products. */
const messagesOfKind = 4

const beside = (model: MoeModel, degree: number): Program<Beside> =>
  Effect.gen(function* () {
    const { groups, shares, tensors } = yield* sizesOf(model)
    const { nodes, perNode, across, inNode } = groups
    const { width } = model
    const even = Math.ceil((shares.tokens * model.topK) / model.experts)
    const rows = Math.max(1, Math.ceil((capacityOf(model, shares, degree, degree) || even) / degree))
    const [sent, gathered] = [nodes * rows, perNode * nodes * rows]
    const experts = Array.from({ length: shares.localExperts })
    const whole = (name: string) =>
      tensors.several(
        name,
        experts.map(() => [gathered, width])
      )
    const own = (name: string) =>
      tensors.several(
        name,
        experts.map(() => [sent, width])
      )
    // As many tensors as may be under way, so that it shows which are.
    const [input, weight] = [
      yield* tensors.make("input", [gathered, width]),
      yield* tensors.make("weight", [shares.hidden, width])
    ]
    const products = yield* Effect.forEach([0, 1, 2], (i) =>
      Effect.gen(function* () {
        const output = yield* tensors.make(`output ${i}`, [gathered, shares.hidden])
        const gradient = yield* tensors.make(`weight gradient ${i}`, [shares.hidden, width])
        const back = yield* tensors.make(`input gradient ${i}`, [gathered, width])
        return [
          launch("product", kernels["linear.forward"], Lane.compute, [input, weight], [output]),
          launch("product", kernels["linear.backward_input"], Lane.compute, [output, weight], [back]),
          launch("product", kernels["linear.backward_weight"], Lane.compute, [output, input], [gradient])
        ]
      })
    )
    const repeat = (ops: ReadonlyArray<Op>): ReadonlyArray<Op> =>
      Array.from({ length: messagesOfKind }, () => ops).flat()
    const between =
      nodes === 1
        ? []
        : [
            collective(
              "message",
              kernels.all_to_all,
              Lane.inter,
              across,
              yield* own("sent"),
              yield* own("received"),
              {
                attributes: { ranks: nodes }
              }
            )
          ]
    const attributes = { ranks: perNode }
    const inside =
      perNode === 1
        ? []
        : [
            collective(
              "gather",
              kernels.all_gather,
              Lane.intra,
              inNode,
              yield* own("part"),
              yield* whole("gathered"),
              {
                attributes
              }
            ),
            collective(
              "scatter",
              kernels.reduce_scatter,
              Lane.intra,
              inNode,
              yield* whole("terms"),
              yield* own("sum"),
              {
                attributes
              }
            )
          ]
    return { products: products.flat(), between: repeat(between), inside: repeat(inside) }
  })

/** Between two looks at what has ended. */
const lookSeconds = 2e-4

/** Steps of these messages with products under way until the last of them has ended. */
const besideProducts = (
  products: ReadonlyArray<Op>,
  messages: ReadonlyArray<Op>,
  steps: number
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const last = messages.at(-1)!.writes
    // Read at each look: so a rank that is lost ends this one too.
    const token = yield* machine.alloc({ name: "token", shape: [1], dtype: "float32" })
    for (let step = 0; step < steps; step++) {
      for (const op of products) machine.submit(op)
      for (const op of messages) machine.submit(op)
      for (let next = 0; !last.every((tensor) => machine.ready(tensor));) {
        for (let given = 0; given < products.length && machine.ready(products[next]!.writes[0]!); given++) {
          machine.submit(products[next]!)
          next = (next + 1) % products.length
        }
        yield* machine.sleepUntil((yield* machine.now) + lookSeconds)
        yield* machine.read(token)
      }
      yield* machine.endStep
    }
    machine.free(token)
  })

/** At that degree: products alone, then beside messages of each lane. */
const inCompany = (model: MoeModel, degree: number, steps: number): Program<void> =>
  Effect.gen(function* () {
    const { products, between, inside } = yield* beside(model, degree)
    yield* repeated(Effect.succeed(products), steps)
    for (const messages of [between, inside]) {
      const machine = yield* Machine
      yield* machine.drain
      if (messages.length > 0) yield* besideProducts(products, messages, steps)
    }
  })

/** Degrees of both passes: each of them for both, and one pair that differs, for what cuts anew what was saved. */
const pairsOf = (degrees: ReadonlyArray<number>): ReadonlyArray<readonly [number, number]> => {
  const alike = degrees.map((degree) => [degree, degree] as const)
  const [first, last] = [degrees[0]!, degrees.at(-1)!]
  return first === last ? alike : [...alike, [last, first]]
}

/**
 * One rank's part: `1 + steps` steps of each pair of degrees; of more ranks than one as many of gradients, and for each degree of products
 * alone, beside messages between nodes and beside messages inside them.
 */
export const moePartsAlone = (
  world: World,
  { model, degrees, steps }: PartsAlone
): { readonly program: Program<void>; readonly kindOf: (step: number) => ProfiledStep } => {
  const { nodes, perNode } = moeGroups(world, 0)
  const none = Array.from({ length: model.layers }, () => 0)
  const rest = model.layers * denseElementsOf(model, sharesOf(model, nodes, perNode))
  const each = 1 + steps
  const pairs = pairsOf(degrees)
  const companies = nodes * perNode === 1 ? [] : degrees
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
    if (nodes > 1) yield* onLanes(repeated(gradients(model), each), oneLane)
    for (const degree of companies) yield* onLanes(inCompany(model, degree, each), ({ lane }) => lane)
  })
  const alone: ReadonlyArray<ProfiledStep> = [...pairs, ...(nodes > 1 ? [1] : [])].map(() => "alone")
  const kinds = [
    ...alone,
    ...companies.flatMap((): ReadonlyArray<ProfiledStep> => [
      "alone",
      ...(nodes > 1 ? (["beside"] as const) : []),
      ...(perNode > 1 ? (["beside"] as const) : [])
    ])
  ]
  return {
    program,
    kindOf: (step) => (step % each === 0 ? "warm-up" : (kinds[Math.floor(step / each)] ?? "alone"))
  }
}

// Programs drawn at random, with what they mean when their ops are done one after the other: kernels, copies and collectives on
// all lanes, tensors that come and go, ops built once and told their scalars, and reads, several at once. Values are such that
// every order of rounding gives the same ones.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch, type Op } from "../../core/machine/op.ts"
import type { Place, Tensor } from "../../core/machine/tensor.ts"

/** One thing that a program does; numbers name tensors of the device (or, `far`, of the host), modulo how many there are. */
type Action =
  | { readonly do: "add"; readonly lane: number; readonly of: readonly [number, number]; readonly to: number }
  | {
      readonly do: "scale"
      readonly lane: number
      readonly of: number
      readonly to: number
      readonly factor: number
    }
  | {
      readonly do: "descend"
      readonly of: number
      readonly by: number
      readonly rate: number
      readonly step: number
    }
  | { readonly do: "load" | "store"; readonly near: number; readonly far: number }
  | { readonly do: "sum"; readonly lane: number; readonly of: ReadonlyArray<number> }
  | { readonly do: "broadcast"; readonly of: number; readonly root: number }
  | { readonly do: "renew"; readonly of: number }
  | { readonly do: "read"; readonly of: ReadonlyArray<number> }
  | { readonly do: "step" }

export interface ContractProgram {
  readonly ranks: number
  readonly near: number
  readonly far: number
  readonly actions: ReadonlyArray<Action>
}

const index = fc.nat({ max: 5 })
const lane = fc.nat({ max: 4 })
const one = <K extends string>(kind: K) => fc.constant(kind)

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: one("add"), lane, of: fc.tuple(index, index), to: index }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: one("scale"),
      lane,
      of: index,
      to: index,
      factor: fc.constantFrom(-1, 0.5, 0)
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: one("descend"),
      of: index,
      by: index,
      rate: fc.constantFrom(1, 0.5, 0.25),
      step: fc.integer({ min: 1, max: 9 })
    })
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("load", "store"), near: index, far: index }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: one("sum"), lane, of: fc.uniqueArray(index, { minLength: 1, maxLength: 3 }) })
  },
  { weight: 1, arbitrary: fc.record({ do: one("broadcast"), of: index, root: index }) },
  { weight: 2, arbitrary: fc.record({ do: one("renew"), of: index }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: one("read"), of: fc.array(index, { minLength: 1, maxLength: 3 }) })
  },
  { weight: 3, arbitrary: fc.record({ do: one("step") }) }
)

export const contractProgram: fc.Arbitrary<ContractProgram> = fc.record({
  ranks: fc.integer({ min: 1, max: 3 }),
  near: fc.integer({ min: 2, max: 4 }),
  far: fc.integer({ min: 1, max: 2 }),
  actions: fc.array(action, { minLength: 3, maxLength: 40, size: "max" })
})

export const elements = 3

/** First values of the tensor that is allocated as number `made` on a rank. */
const first = (rank: number, made: number): Float32Array =>
  Float32Array.from({ length: elements }, (_, i) => ((5 * made + 3 * rank + i) % 7) - 3)

/** Position of a tensor among as many as there are. */
const at = (count: number, i: number): number => i % count

/** A third of all lanes' ops are named slow: a machine that takes times by labels may let them take some. */
const labelOf = (number: number, { do: what }: Action): string =>
  `${number % 3 === 0 ? "slow " : ""}${number} ${what}`

/** The program of one rank; gives what it read, and every tensor's values at the end. */
export const programOf = ({
  near,
  far,
  actions
}: ContractProgram): Program<ReadonlyArray<ReadonlyArray<number>>> =>
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
        initial: () => first(rank, number)
      })
    }
    const device: Array<Tensor> = []
    for (let i = 0; i < near; i++) device.push(yield* make("device"))
    const host: Array<Tensor> = []
    for (let i = 0; i < far; i++) host.push(yield* make("host"))
    const of = (i: number): Tensor => device[at(near, i)]!
    const seen: Array<ReadonlyArray<number>> = []
    // Ops that descend are built once for each pair of tensors.
    const built = new Map<string, Op>()

    for (const [number, act] of actions.entries()) {
      const label = labelOf(number, act)
      switch (act.do) {
        case "add":
          machine.submit(launch(label, kernels.add, act.lane as Lane, act.of.map(of), [of(act.to)]))
          break
        case "scale": {
          const attributes = { factor: act.factor }
          machine.submit(
            launch(label, kernels.scale, act.lane as Lane, [of(act.of)], [of(act.to)], attributes)
          )
          break
        }
        case "descend": {
          const [params, grads] = [of(act.of), of(act.by)]
          const key = `${params.id} ${grads.id}`
          const op = built.get(key) ?? launch("descend", kernels.sgd, Lane.compute, [params, grads], [params])
          built.set(key, op)
          machine.submit(op, [act.rate, act.step])
          break
        }
        case "load":
          machine.submit(launch(label, kernels.h2d, Lane.h2d, [host[at(far, act.far)]!], [of(act.near)]))
          break
        case "store":
          machine.submit(launch(label, kernels.d2h, Lane.d2h, [of(act.near)], [host[at(far, act.far)]!]))
          break
        case "sum": {
          const tensors = [...new Set(act.of.map(of))]
          // A lane of its own has a communicator of its own, over the same ranks.
          const group = { name: `ranks by lane ${act.lane}`, ranks: world.all.ranks }
          machine.submit(collective(label, kernels.all_reduce, act.lane as Lane, group, tensors, tensors))
          break
        }
        case "broadcast": {
          const attributes = { root: at(world.size, act.root) }
          const tensor = of(act.of)
          machine.submit(
            collective(label, kernels.broadcast, Lane.inter, world.all, [tensor], [tensor], { attributes })
          )
          break
        }
        case "renew": {
          const slot = at(near, act.of)
          machine.free(device[slot]!)
          device[slot] = yield* make("device")
          break
        }
        case "read": {
          const reads = act.of.map((i) => machine.read(of(i)))
          for (const values of yield* Effect.all(reads, { concurrency: "unbounded" })) seen.push([...values])
          break
        }
        case "step":
          yield* machine.endStep
      }
    }
    for (const tensor of [...device, ...host]) seen.push([...(yield* machine.read(tensor))])
    return seen
  })

/** What every rank reads when ops are done in the order in which they are written. */
export const meaningOf = ({
  ranks,
  near,
  far,
  actions
}: ContractProgram): ReadonlyArray<ReadonlyArray<ReadonlyArray<number>>> => {
  const all = Array.from({ length: ranks }, (_, rank) => ({
    rank,
    made: near + far,
    device: Array.from({ length: near }, (__, i) => first(rank, i)),
    host: Array.from({ length: far }, (__, i) => first(rank, near + i)),
    seen: [] as Array<ReadonlyArray<number>>
  }))
  for (const act of actions) {
    // What members put into a collective, before any of them takes anything out.
    const before = all.map(({ device }) => device.map((values) => values.slice()))
    for (const own of all) {
      const { device, host } = own
      const of = (i: number): Float32Array => device[at(near, i)]!
      const mapped = (value: (i: number) => number): Float32Array =>
        Float32Array.from({ length: elements }, (_, i) => value(i))
      switch (act.do) {
        case "add":
          of(act.to).set(mapped((i) => of(act.of[0])[i]! + of(act.of[1])[i]!))
          break
        case "scale":
          of(act.to).set(mapped((i) => act.factor * of(act.of)[i]!))
          break
        case "descend":
          of(act.of).set(mapped((i) => of(act.of)[i]! - act.rate * of(act.by)[i]!))
          break
        case "load":
          of(act.near).set(host[at(far, act.far)]!)
          break
        case "store":
          host[at(far, act.far)]!.set(of(act.near))
          break
        case "sum":
          for (const slot of new Set(act.of.map((i) => at(near, i))))
            device[slot]!.set(mapped((i) => before.reduce((sum, member) => sum + member[slot]![i]!, 0)))
          break
        case "broadcast":
          of(act.of).set(before[at(ranks, act.root)]![at(near, act.of)]!)
          break
        case "renew":
          device[at(near, act.of)] = first(own.rank, own.made++)
          break
        case "read":
          for (const i of act.of) own.seen.push([...of(i)])
          break
        case "step":
      }
    }
  }
  return all.map(({ device, host, seen }) => [...seen, ...[...device, ...host].map((values) => [...values])])
}

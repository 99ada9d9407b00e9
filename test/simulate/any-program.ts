// Programs of any shape - ops on all lanes over a few tensors, collectives, reads - for tests of what machines may and may not
// reorder; and what such a program means: its ops done one after the other, as written.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane, laneCount } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch, type Op } from "../../core/machine/op.ts"
import { Random } from "../../core/random.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"

export type Step =
  | { readonly kind: "copy"; readonly lane: Lane; readonly from: number; readonly to: number }
  | {
      readonly kind: "add"
      readonly lane: Lane
      readonly from: number
      readonly and: number
      readonly to: number
    }
  | { readonly kind: "average"; readonly lane: Lane; readonly tensor: number }
  | { readonly kind: "read"; readonly tensor: number }
  | { readonly kind: "endStep" }

export interface AnyProgram {
  readonly ranks: number
  readonly tensors: number
  readonly steps: ReadonlyArray<Step>
  /** Of op times. */
  readonly seed: number
}

export const anyProgram: fc.Arbitrary<AnyProgram> = fc
  .record({ ranks: fc.integer({ min: 1, max: 3 }), tensors: fc.integer({ min: 2, max: 5 }) })
  .chain(({ ranks, tensors }) => {
    const lane = fc.nat({ max: laneCount - 1 }).map((index) => index as Lane)
    const wire = fc.constantFrom(Lane.inter, Lane.intra)
    const tensor = fc.nat({ max: tensors - 1 })
    const step = fc.oneof<Array<fc.WeightedArbitrary<Step>>>(
      {
        weight: 4,
        arbitrary: fc.record({ kind: fc.constant("copy" as const), lane, from: tensor, to: tensor })
      },
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant("add" as const),
          lane,
          from: tensor,
          and: tensor,
          to: tensor
        })
      },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant("average" as const), lane: wire, tensor }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("read" as const), tensor }) },
      { weight: 1, arbitrary: fc.constant({ kind: "endStep" as const }) }
    )
    return fc.record({
      ranks: fc.constant(ranks),
      tensors: fc.constant(tensors),
      steps: fc.array(step, { maxLength: 40, size: "max" }),
      seed: fc.nat({ max: 1e6 })
    })
  })

const first = (rank: number, tensor: number): number => 1 + tensor + 10 * rank

/** The program on a machine; gives what it read. */
export const programOf = ({ tensors, steps }: AnyProgram): Program<ReadonlyArray<number>> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const values = yield* Effect.forEach(
      Array.from({ length: tensors }, (_, index) => index),
      (index) =>
        machine.alloc({
          name: `t${index}`,
          shape: [1],
          dtype: "float32",
          initial: () => Float32Array.of(first(machine.rank, index))
        })
    )
    const read: Array<number> = []
    for (const [index, step] of steps.entries()) {
      const label = `${index} ${step.kind}`
      switch (step.kind) {
        case "copy":
          machine.submit(launch(label, kernels.copy, step.lane, [values[step.from]!], [values[step.to]!]))
          break
        case "add": {
          const reads = [values[step.from]!, values[step.and]!]
          machine.submit(launch(label, kernels.add, step.lane, reads, [values[step.to]!]))
          break
        }
        case "average": {
          const tensor = [values[step.tensor]!]
          const attributes = { reduce: "avg" }
          machine.submit(
            collective(label, kernels.all_reduce, step.lane, machine.world.all, tensor, tensor, {
              attributes
            })
          )
          break
        }
        case "read":
          read.push((yield* machine.read(values[step.tensor]!))[0]!)
          break
        case "endStep":
          yield* machine.endStep
      }
    }
    yield* machine.drain
    for (const tensor of values) read.push((yield* machine.read(tensor))[0]!)
    return read
  })

/** What every rank reads, its tensors' last values included, when ops are done in the order in which they are written. */
export const meaningOf = ({ ranks, tensors, steps }: AnyProgram): ReadonlyArray<ReadonlyArray<number>> => {
  const values = Array.from({ length: ranks }, (_, rank) =>
    Float32Array.from({ length: tensors }, (__, tensor) => first(rank, tensor))
  )
  const read: ReadonlyArray<Array<number>> = values.map(() => [])
  for (const step of steps) {
    if (step.kind === "average") {
      const mean = values.reduce((sum, own) => sum + own[step.tensor]!, 0) / ranks
      for (const own of values) own[step.tensor] = mean
      continue
    }
    for (const [rank, own] of values.entries()) {
      if (step.kind === "copy") own[step.to] = own[step.from]!
      if (step.kind === "add") own[step.to] = own[step.from]! + own[step.and]!
      if (step.kind === "read") read[rank]!.push(own[step.tensor]!)
    }
  }
  for (const [rank, own] of values.entries()) read[rank]!.push(...own)
  return read
}

/** Any time for any op, the same one whenever the same op is asked about. */
export const anyCosts = (seed: number): CostModel => {
  const random = new Random(seed).split("op times")
  const known = new Map<Op, number>()
  return {
    seconds: (op) => {
      const seconds = known.get(op) ?? random.uniform()
      known.set(op, seconds)
      return seconds
    },
    estimates: []
  }
}

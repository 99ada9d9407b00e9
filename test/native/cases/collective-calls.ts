// Generated calls of collectives, as each member sees them, and their values: for tests that hold a transport to the reference.
import * as fc from "fast-check"
import { collectives } from "../../../core/kernels/catalogue.ts"
import { printCounts, type Collective } from "../../../core/kernels/collectives.ts"
import { evaluateCollective } from "../../../core/kernels/evaluate.ts"
import { operand, type Attributes, type Operand, type Shape } from "../../../core/kernels/kernel.ts"
import { roundInPlace } from "../../../core/kernels/rounding.ts"
import type { Dtype, TensorData } from "../../../core/machine/tensor.ts"

const wires = ["", "float32", "bfloat16", "float16", "float8", "float4", "int8"] as const

/** One call, as each member sees it. */
interface MemberCall {
  readonly attributes: Attributes
  readonly inputs: ReadonlyArray<Shape>
  /** Only where the inputs do not decide it. */
  readonly outputs?: ReadonlyArray<Shape>
}

export interface Call {
  readonly kernel: Collective
  readonly members: ReadonlyArray<number>
  readonly perMember: ReadonlyArray<MemberCall>
  readonly mayBeInPlace: boolean
}

const extent = fc.integer({ min: 0, max: 6 })
const shapes = fc.array(fc.array(extent, { maxLength: 2 }), { minLength: 1, maxLength: 3 })
const wire = fc.constantFrom(...wires)
const reduce = fc.constantFrom("sum", "avg")

const same = (members: ReadonlyArray<number>, call: MemberCall) => members.map(() => call)

/** From one member to all, or to another one. */
const oneSided = (
  group: fc.Arbitrary<ReadonlyArray<number>>,
  pairs: fc.Arbitrary<ReadonlyArray<number>>
): fc.Arbitrary<Call> =>
  fc.oneof(
    fc.record({ members: group, shapes, wire, root: fc.nat() }).map(({ members, shapes, wire, root }) => ({
      kernel: collectives.broadcast,
      members,
      perMember: same(members, { attributes: { wire, root: root % members.length }, inputs: shapes }),
      mayBeInPlace: true
    })),
    fc
      .record({
        members: pairs,
        shapes,
        wire,
        first: fc.boolean()
      })
      .map(({ members, shapes, wire, first }) => ({
        kernel: collectives.send_recv,
        members,
        perMember: [first, !first].map((source) => ({
          attributes: { wire, source },
          inputs: source ? shapes : [],
          outputs: source ? [] : shapes
        })),
        mayBeInPlace: false
      }))
  )

/** Calls among groups of these; `pairs`, those of two. Any number of members up to four. */
export const callsAmong = (
  group: fc.Arbitrary<ReadonlyArray<number>>,
  pairs: fc.Arbitrary<ReadonlyArray<number>>
): fc.Arbitrary<Call> =>
  fc.oneof(
    fc.record({ members: group, shapes, wire, reduce }).map(({ members, shapes, wire, reduce }) => ({
      kernel: collectives.all_reduce,
      members,
      perMember: same(members, { attributes: { wire, reduce }, inputs: shapes }),
      mayBeInPlace: true
    })),
    fc.record({ members: group, shapes, wire, rows: extent }).map(({ members, shapes, wire, rows }) => ({
      kernel: collectives.all_gather,
      members,
      perMember: same(members, {
        attributes: { wire, ranks: members.length },
        inputs: shapes.map((shape) => [rows, ...shape])
      }),
      mayBeInPlace: false
    })),
    fc
      .record({ members: group, shapes, wire, reduce, rows: extent })
      .map(({ members, shapes, wire, reduce, rows }) => ({
        kernel: collectives.reduce_scatter,
        members,
        perMember: same(members, {
          attributes: { wire, reduce, ranks: members.length },
          inputs: shapes.map((shape) => [members.length * rows, ...shape])
        }),
        mayBeInPlace: false
      })),
    fc.record({ members: group, shapes, wire, rows: extent }).map(({ members, shapes, wire, rows }) => ({
      kernel: collectives.all_to_all,
      members,
      perMember: same(members, {
        attributes: { wire, ranks: members.length },
        inputs: shapes.map((shape) => [members.length * rows, ...shape])
      }),
      mayBeInPlace: true
    })),
    fc
      .record({ members: group, shapes, wire, table: fc.array(extent, { minLength: 16, maxLength: 16 }) })
      .map(({ members, shapes, wire, table }) => {
        const sends = members.map((_, from) => members.map((_, to) => table[4 * from + to]!))
        return {
          kernel: collectives.all_to_all,
          members,
          perMember: members.map((_, rank) => {
            const counts = sends[rank]!
            return {
              attributes: {
                wire,
                ranks: members.length,
                sendCounts: printCounts(counts),
                receiveCounts: printCounts(sends.map((row) => row[rank]!))
              },
              inputs: shapes.map((shape) => [counts.reduce((sum, count) => sum + count, 0), ...shape])
            }
          }),
          mayBeInPlace: false
        }
      }),
    fc
      .record({
        members: group,
        shapes,
        wire,
        gather: fc.boolean(),
        rows: fc.array(extent, { minLength: 4, maxLength: 4 })
      })
      .map(({ members, shapes, wire, gather, rows }) => {
        const counts = members.map((_, member) => rows[member]!)
        const total = counts.reduce((sum, count) => sum + count, 0)
        return {
          kernel: gather ? collectives.all_gather : collectives.reduce_scatter,
          members,
          perMember: members.map((_, member) => ({
            attributes: { wire, ranks: members.length, counts: printCounts(counts), member },
            inputs: shapes.map((shape) => [gather ? counts[member]! : total, ...shape])
          })),
          mayBeInPlace: false
        }
      }),
    oneSided(group, pairs)
  )

export const callDtype = fc.constantFrom<Dtype>("float32", "float32", "bfloat16", "float16", "int32")

/** Values from which those of all tensors of a call are made. */
export const callValues = fc.noShrink(
  fc.array(fc.float({ noNaN: true, min: -1000, max: 1000 }), { minLength: 8, maxLength: 40 })
)

/** A tensor of one member. */
export interface Held {
  readonly of: Operand
  readonly before: TensorData
  /** By the reference, when all have run. */
  readonly after: TensorData
}

/** A member's tensors; an output that lies in the place of an input is the same object. */
interface Part {
  readonly attributes: Attributes
  readonly sent: ReadonlyArray<Held>
  readonly received: ReadonlyArray<Held>
}

/** What all members hold before and after the call. */
export const partsOf = (
  { kernel, perMember }: Call,
  dtype: Dtype,
  values: ReadonlyArray<number>,
  inPlace: boolean
): ReadonlyArray<Part> => {
  let next = 0
  const hold = (shape: Shape, filled: boolean): Held => {
    const of = operand(shape, dtype)
    const before = dtype === "int32" ? new Int32Array(of.elements) : new Float32Array(of.elements)
    for (let i = 0; filled && i < before.length; i++)
      before[i] = values[next++ % values.length]! * (1 + (next % 7))
    roundInPlace(before, dtype)
    return { of, before, after: before.slice() }
  }
  const parts = perMember.map(({ attributes, inputs, outputs }) => {
    const sent = inputs.map((shape) => hold(shape, true))
    const results =
      outputs ??
      kernel.shapes(
        sent.map(({ of }) => of),
        attributes
      )!
    return {
      attributes,
      sent,
      received: results.map((shape, i) => (inPlace ? sent[i]! : hold(shape, false)))
    }
  })
  evaluateCollective(
    kernel,
    parts.map(({ attributes, sent, received }) => ({
      inputs: sent.map(({ of }) => of),
      inputData: sent.map(({ after }) => after),
      outputs: received.map(({ of }) => of),
      outputData: received.map(({ after }) => after),
      attributes
    }))
  )
  return parts
}

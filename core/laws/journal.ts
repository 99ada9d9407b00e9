// What a program asked of its machine, call by call: ops with their tensors, allocations, reads, ends of steps. Kept by
// standing between program and machine, so it is the same for every machine and costs nothing where it is not asked for.
import * as Effect from "effect/Effect"
import type { Scalars } from "../kernels/scalars.ts"
import { interposing } from "../machine/interpose.ts"
import type { Program } from "../machine/machine.ts"
import type { Op, OpId } from "../machine/op.ts"
import type { Tensor, TensorData } from "../machine/tensor.ts"

/** One call of a program to its machine, in program order. */
export type JournalEntry =
  | {
      readonly kind: "op"
      readonly id: OpId
      readonly step: number
      readonly op: Op
      readonly scalars?: Scalars | undefined
      /** What it found in the tensors that it reads, where a machine has kept that; in their order. */
      readonly inputs?: ReadonlyArray<TensorData> | undefined
      /** What it left in the tensors that it writes, where a machine has kept that; in their order. */
      readonly results?: ReadonlyArray<TensorData> | undefined
    }
  | { readonly kind: "alloc"; readonly tensor: Tensor }
  | { readonly kind: "free"; readonly tensor: Tensor }
  /** The read has returned: from here on the program knows these values. `writer` is -1 if no op wrote the tensor. */
  | { readonly kind: "read"; readonly tensor: Tensor; readonly writer: OpId; readonly values: TensorData }
  /** What the program was told of time; it depends on the machine. */
  | { readonly kind: "ready"; readonly tensor: Tensor; readonly ready: boolean }
  | { readonly kind: "now"; readonly seconds: number }
  | { readonly kind: "endStep" | "drain" }

/** One rank's calls in program order. */
export interface Journal {
  readonly rank: number
  readonly entries: ReadonlyArray<JournalEntry>
}

/** The same program; what it asks of its machine is appended to `journals`, one journal for each rank that runs it. */
export const journaled = <A>(program: Program<A>, journals: Array<Journal>): Program<A> =>
  interposing(program, (machine) => {
    const entries: Array<JournalEntry> = []
    journals.push({ rank: machine.rank, entries })
    const writers = new Map<Tensor, OpId>()
    let step = 0
    return {
      alloc: (spec) =>
        Effect.tap(machine.alloc(spec), (tensor) =>
          Effect.sync(() => entries.push({ kind: "alloc", tensor }))
        ),
      free: (tensor) => {
        entries.push({ kind: "free", tensor })
        machine.free(tensor)
      },
      submit: (op, scalars) => {
        const id = machine.submit(op, scalars)
        entries.push({
          kind: "op",
          id,
          step,
          op,
          ...(scalars === undefined ? {} : { scalars: [...scalars] })
        })
        for (const tensor of op.writes) writers.set(tensor, id)
        return id
      },
      read: (tensor) =>
        Effect.suspend(() => {
          const writer = writers.get(tensor) ?? -1
          return Effect.tap(machine.read(tensor), (values) =>
            Effect.sync(() => entries.push({ kind: "read", tensor, writer, values: values.slice() }))
          )
        }),
      endStep: Effect.suspend(() => {
        step++
        entries.push({ kind: "endStep" })
        return machine.endStep
      }),
      drain: Effect.suspend(() => {
        entries.push({ kind: "drain" })
        return machine.drain
      }),
      ready: (tensor, after) => {
        const ready = machine.ready(tensor, after)
        entries.push({ kind: "ready", tensor, ready })
        return ready
      },
      now: Effect.tap(machine.now, (seconds) => Effect.sync(() => entries.push({ kind: "now", seconds })))
    }
  })

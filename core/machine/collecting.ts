// A machine that carries nothing out: for what a program, or a part of it, would submit. Its memory has no bounds, and it has no
// values to read.
import * as Effect from "effect/Effect"
import { oneRank } from "../world.ts"
import { Misuse, type Machine } from "./machine.ts"
import type { Op, OpId } from "./op.ts"
import { tensorOf } from "./tensor.ts"

/** Ops are put at the end of `submitted`, in program order. A read is a `Misuse`. */
export const collectingMachine = (submitted: Array<Op>): Machine["Service"] => {
  let tensors = 0
  return {
    rank: 0,
    world: oneRank,
    alloc: (spec) => Effect.sync(() => tensorOf(tensors++, spec)),
    free: () => {},
    freeBytes: () => Infinity,
    submit: (op) => (submitted.push(op) - 1) as OpId,
    read: ({ name }) =>
      Effect.die(
        new Misuse({
          rank: 0,
          call: "read",
          subject: name,
          reason: "a machine that only collects has no values"
        })
      ),
    endStep: Effect.void,
    drain: Effect.void,
    ready: () => true,
    now: Effect.succeed(0),
    sleepUntil: () => Effect.void
  }
}

// Training steps that have company: the steps of a program that communicates nothing, first alone, then with messages of tensors that
// are none of theirs under way. What each costs the other: in-company.ts.
import * as Effect from "effect/Effect"
import { kernels } from "../core/kernels/catalogue.ts"
import { interposing } from "../core/machine/interpose.ts"
import { Lane } from "../core/machine/lane.ts"
import { Machine, type OutOfMemory, type Program } from "../core/machine/machine.ts"
import { collective, type Op } from "../core/machine/op.ts"
import type { Dtype } from "../core/machine/tensor.ts"
import type { ProfiledStep } from "../core/profile.ts"
import type { Group } from "../core/world.ts"
import { attributesOf } from "./bench.ts"

/** Steps of each kind, one kind after another: to get going, alone, beside messages; and one of messages that are alone. */
interface Company {
  /** At least 1: the first begins with one of each message, for which connections are made. */
  readonly warmup: number
  readonly each: number
  /** Of each, in a step that has company. */
  readonly messages: number
  readonly of: ReadonlyArray<CompanyMessage>
  /** Among whom a rank's messages are. */
  readonly among: (rank: number) => Group
}

/** What travels: numbers of this dtype, rounded on their way where `wire` says so. */
export interface MessageKind {
  readonly dtype: Dtype
  readonly wire?: Dtype
}

/** A message, sent over and over. */
export interface CompanyMessage extends MessageKind {
  readonly kernel: "all_reduce" | "all_gather" | "reduce_scatter"
  /** Of each of its tensors, all ranks' parts together. */
  readonly elements: ReadonlyArray<number>
}

/**
 * As an algorithm that sends in `wire` has it: gradients as they are, where that is their dtype; otherwise float32. Which of the two
 * decides who adds, and so what company costs: a backend's own kernels share the device with layers.
 */
export const messageKindOf = (wire: Dtype, gradients: Dtype): MessageKind => {
  if (wire === "float32") return { dtype: "float32" }
  return { dtype: wire === gradients ? wire : "float32", wire }
}

/** Of each, in the last step, which nothing else is beside. */
const messagesAlone = 5

export const stepsWith = ({ warmup, each }: Company): number => warmup + 2 * each

export const kindOfStep =
  ({ warmup, each }: Company) =>
  (step: number): ProfiledStep =>
    step < warmup ? "warm-up" : step < warmup + each ? "alone" : step < warmup + 2 * each ? "beside" : "alone"

const opOf = (
  { kernel, elements, dtype, wire }: CompanyMessage,
  group: Group
): Effect.Effect<Op, OutOfMemory, Machine> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const parts = group.ranks.length
    const tensors = (share: number) =>
      Effect.forEach(elements, (all) =>
        machine.alloc({ name: "message", shape: [Math.ceil(all / share)], dtype })
      )
    const from = yield* tensors(kernel === "all_gather" ? parts : 1)
    const to = kernel === "all_reduce" ? from : yield* tensors(kernel === "reduce_scatter" ? parts : 1)
    return collective("message", kernels[kernel], Lane.inter, group, from, to, {
      attributes: attributesOf(kernel, parts),
      ...(wire === undefined ? {} : { wire })
    })
  })

/** `steps` is a program of as many steps as `stepsWith` says. */
export const inCompany = (steps: Program<unknown>, company: Company): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const ops = yield* Effect.forEach(company.of, (message) => opOf(message, company.among(machine.rank)))
    const send = (count: number): void => {
      for (let i = 0; i < count; i++) for (const op of ops) machine.submit(op)
    }
    const kindOf = kindOfStep(company)
    // A backend connects its ranks when the first message of a kind is sent, for as long as several steps.
    send(1)
    yield* machine.drain
    let step = 0
    yield* interposing(steps, (own) => ({
      endStep: Effect.gen(function* () {
        yield* own.endStep
        step++
        if (kindOf(step) !== "beside") return
        // Steps that are to be alone have ended before the first message begins.
        if (kindOf(step - 1) !== "beside") yield* own.drain
        send(company.messages)
      })
    }))
    yield* machine.drain
    send(messagesAlone)
    yield* machine.endStep
    yield* machine.drain
  })

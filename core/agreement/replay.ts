// A program that asks for the time, or whether an op has ended, decides by when things happen. To hold two runs of it to the
// same decisions, the second is told what the first was told; all else it finds out by itself.
import * as Effect from "effect/Effect"
import type { Journal } from "../laws/journal.ts"
import { interposing } from "../machine/interpose.ts"
import type { Program } from "../machine/machine.ts"

/**
 * The same program; answers of `now` and `ready` come, in order, from the journal of the same rank. Where that has no more
 * answers, or one to another question, the runs have parted: from there on the machine answers itself.
 */
export const replaying = <A>(program: Program<A>, journals: ReadonlyArray<Journal>): Program<A> =>
  interposing(program, (machine) => {
    const answers = (journals.find(({ rank }) => rank === machine.rank)?.entries ?? []).filter(
      (entry) => entry.kind === "now" || entry.kind === "ready"
    )
    let next = 0
    let parted = false
    return {
      ready: (tensor, after) => {
        const answer = answers[next++]
        parted ||= answer?.kind !== "ready" || answer.tensor.id !== tensor.id
        return parted || answer?.kind !== "ready" ? machine.ready(tensor, after) : answer.ready
      },
      now: Effect.suspend(() => {
        const answer = answers[next++]
        parted ||= answer?.kind !== "now"
        return parted || answer?.kind !== "now" ? machine.now : Effect.succeed(answer.seconds)
      })
    }
  })

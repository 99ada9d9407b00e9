// All ranks in this process: they begin together when the last of them can, and what they wait for is all there is to know of
// whether any of them can still go on.
import * as Effect from "effect/Effect"
import { CollectiveOrder, describeUnmet } from "../../core/machine/collective-order.ts"
import { Deadlock, type MachineError } from "../../core/machine/machine.ts"
import type { World } from "../../core/world.ts"
import { canSubmit, stuckForGood, stuckMeetings } from "./deadlock.ts"
import type { Job, RankState } from "./job.ts"
import { StartGate } from "./start-gate.ts"

/** How often to look whether everything waits for something that cannot come. */
const lookEveryMillis = 200

export class InProcessJob implements Job {
  readonly ranks: ReadonlyArray<number>
  readonly order = new CollectiveOrder()
  readonly gate: StartGate

  constructor(world: World) {
    this.ranks = world.all.ranks
    this.gate = new StartGate(this.ranks.length)
  }

  watch(states: () => ReadonlyArray<RankState>, nowSeconds: () => number): Effect.Effect<never, Deadlock> {
    const look = Effect.suspend(() => {
      const now = states()
      if (now.some(canSubmit)) return Effect.void
      const ranks = now.map((state) => ({ ...state, pending: [...state.pending] }))
      const stuck = stuckForGood(ranks)
      if (stuck === undefined) return Effect.void
      return new Deadlock({
        atSeconds: nowSeconds(),
        waiting: [
          ...stuckMeetings(ranks, stuck).map(describeUnmet),
          ...ranks.flatMap(({ waitingFor }) => waitingFor)
        ]
      })
    })
    return Effect.forever(Effect.andThen(Effect.sleep(lookEveryMillis), look))
  }

  explained(error: MachineError): MachineError {
    return error
  }
}

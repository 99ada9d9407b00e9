// Tells the recorder when ops ran: which op an activity of the engine belongs to, and what let it start. Only runs that ask for
// it pay for it.
import type { OpId } from "../core/machine/op.ts"
import type { Cause, Recorder } from "../core/machine/recorder.ts"
import type { Activity, Recorder as EngineRecorder } from "./engine/engine.ts"

export class ActivityTimes implements EngineRecorder {
  readonly #recorder: Recorder
  // A collective is one chain of activities and an op of each simulated member.
  readonly #byFirst = new Map<Activity, Array<Cause>>()
  readonly #byLast = new Map<Activity, Array<Cause>>()
  // What let a turn start is what lets the collective start whose last turn it is.
  readonly #turns = new Map<Activity, Array<Cause> | undefined>()

  constructor(recorder: Recorder) {
    this.#recorder = recorder
  }

  /**
   * The op begins with one activity and ends with another, or the same. `turn`: what waits in place of the first for what the op
   * waits for, or the first itself; not yet released.
   */
  belongs(rank: number, op: OpId, turn: Activity, first: Activity, last: Activity): void {
    if (turn !== first) this.#turns.set(turn, undefined)
    append(this.#byFirst, first, { rank, op })
    append(this.#byLast, last, { rank, op })
  }

  started(activity: Activity, timeSeconds: number, cause: Activity): void {
    if (this.#turns.has(activity)) {
      this.#turns.set(activity, this.#byLast.get(cause))
      return
    }
    const causes = this.#byLast.get(cause) ?? this.#turns.get(cause)
    for (const { rank, op } of this.#byFirst.get(activity) ?? []) {
      // Of a collective's ops, prefer the one of the same rank.
      const own = causes?.find((other) => other.rank === rank) ?? causes?.[0]
      this.#recorder.started(rank, op, timeSeconds, own)
    }
  }

  ended(activity: Activity, timeSeconds: number): void {
    for (const { rank, op } of this.#byLast.get(activity) ?? []) this.#recorder.ended(rank, op, timeSeconds)
  }
}

const append = (ops: Map<Activity, Array<Cause>>, activity: Activity, op: Cause): void => {
  const list = ops.get(activity)
  if (list === undefined) ops.set(activity, [op])
  else list.push(op)
}

// Tells the recorder when ops ran: which op an activity of the engine belongs to, and what let it start. Only runs that ask for
// it pay for it.
import type { OpId } from "../core/machine/op.ts"
import type { Cause, Delay, Recorder } from "../core/machine/recorder.ts"
import type { Activity, Recorder as EngineRecorder } from "./engine/engine.ts"

/** What came before an activity of a rank's host, or lies between an op's causes and its start. */
interface Before {
  /** Since when the host has been at work without a pause; of one that only waits, since its end. */
  readonly hostSince: number
  /** Since when the program slept before that; the same where it did not. */
  readonly asleepSince: number
  /** The ops whose end let the host go on. */
  readonly causes: ReadonlyArray<Cause> | undefined
}

export class ActivityTimes implements EngineRecorder {
  readonly #recorder: Recorder
  // Ops by the activity that they begin with, until that starts, and by the one that they end with, until another has ended: nothing
  // is let start by an activity but at its end. A collective is one chain of activities and an op of each simulated member.
  readonly #byFirst = new Map<Activity, Array<Cause>>()
  readonly #byLast = new Map<Activity, Array<Cause>>()
  /** The activity that ended last. */
  #ended: Activity = -1
  // What let a turn start is what lets the collective start whose last turn it is.
  readonly #turns = new Map<Activity, ReadonlyArray<Cause> | undefined>()
  // Of what waits in a turn's place; and when such turns ended.
  readonly #placed = new Map<Activity, Activity>()
  readonly #turnSeconds = new Map<Activity, number>()
  // Of activities of hosts, and of turns that a host let start.
  readonly #hosts = new Map<Activity, Before | undefined>()
  readonly #ranksOfHosts = new Map<Activity, number>()
  readonly #lastOfHosts = new Map<number, { readonly endedAt: number; readonly before: Before }>()
  // By rank: when its program last fell asleep, and woke.
  readonly #sleeps = new Map<number, { readonly since: number; readonly until: number }>()

  constructor(recorder: Recorder) {
    this.#recorder = recorder
  }

  /**
   * The op begins with one activity and ends with another, or the same. `turn`: what waits in place of the first for what the op
   * waits for, or the first itself; not yet released.
   */
  belongs(rank: number, op: OpId, turn: Activity, first: Activity, last: Activity): void {
    if (turn !== first) this.#turns.set(turn, undefined)
    const own = { rank, op }
    append(this.#byFirst, first, own)
    append(this.#byLast, last, own)
  }

  /** The activity waits in place of a turn, and longer: for multiprocessors that kernels hold. Not yet released. */
  placed(activity: Activity, turn: Activity): void {
    this.#placed.set(activity, turn)
    this.#turns.set(activity, undefined)
  }

  /** The activity is the host's of a rank: what it does, or its wait for something. Not yet released. */
  host(rank: number, activity: Activity): void {
    this.#hosts.set(activity, undefined)
    this.#ranksOfHosts.set(activity, rank)
  }

  /** What waits for the activity waits for what that waits for: the end of a step. Not yet released. */
  stands(activity: Activity): void {
    this.#turns.set(activity, undefined)
  }

  /** A rank's program slept; what it does at the moment when it wakes was put off by that. */
  slept(rank: number, since: number, until: number): void {
    const before = this.#sleeps.get(rank)
    this.#sleeps.set(rank, { since: before?.until === since ? before.since : since, until })
  }

  started(activity: Activity, timeSeconds: number, cause: Activity): void {
    const turn = this.#placed.get(activity)
    if (turn !== undefined) {
      this.#turns.set(activity, this.#turns.get(turn))
      const host = this.#hosts.get(turn)
      if (host !== undefined) this.#hosts.set(activity, host)
      return
    }
    if (this.#hosts.has(activity)) {
      this.#hosts.set(activity, this.#before(this.#ranksOfHosts.get(activity)!, timeSeconds, cause))
      return
    }
    if (this.#turns.has(activity)) {
      const before = this.#hosts.get(cause)
      if (before !== undefined) this.#hosts.set(activity, before)
      this.#turns.set(activity, before?.causes ?? this.#byLast.get(cause))
      this.#turnSeconds.set(activity, timeSeconds)
      return
    }
    const begins = this.#byFirst.get(activity)
    if (begins === undefined) return
    this.#byFirst.delete(activity)
    const host = this.#hosts.get(cause)
    const causes = host?.causes ?? this.#byLast.get(cause) ?? this.#turns.get(cause)
    for (const { rank, op } of begins) {
      // Of a collective's ops, prefer the one of the same rank.
      const own = causes?.find((other) => other.rank === rank) ?? causes?.[0]
      this.#recorder.started(rank, op, timeSeconds, own, this.#delay(rank, timeSeconds, cause, host))
    }
  }

  /** Of an activity of a host that begins now: it goes on where the host was at work, and begins anew where it had waited. */
  #before(rank: number, now: number, cause: Activity): Before {
    const host = this.#hosts.get(cause)
    if (host !== undefined) return host
    // A program that goes on at the end of a read has its host launch what follows at that moment.
    const last = this.#lastOfHosts.get(rank)
    if (cause < 0 && last?.endedAt === now) return last.before
    const causes = this.#byLast.get(cause) ?? this.#turns.get(cause)
    return { hostSince: now, asleepSince: cause < 0 ? this.#asleepSince(rank, now) : now, causes }
  }

  #asleepSince(rank: number, now: number): number {
    const sleep = this.#sleeps.get(rank)
    return sleep?.until === now ? sleep.since : now
  }

  #delay(rank: number, now: number, cause: Activity, host: Before | undefined): Delay | undefined {
    const turn = this.#placed.get(cause)
    const ready = (turn === undefined ? undefined : this.#turnSeconds.get(turn)) ?? now
    const placement = now - ready
    if (host !== undefined)
      return { host: ready - host.hostSince, asleep: host.hostSince - host.asleepSince, placement }
    const since = cause < 0 ? this.#asleepSince(rank, now) : ready
    return since < ready || placement > 0 ? { host: 0, asleep: ready - since, placement } : undefined
  }

  ended(activity: Activity, timeSeconds: number): void {
    const before = this.#hosts.get(activity)
    const hostOf = this.#ranksOfHosts.get(activity)
    if (before !== undefined && hostOf !== undefined)
      this.#lastOfHosts.set(hostOf, { endedAt: timeSeconds, before })
    this.#byLast.delete(this.#ended)
    this.#ended = activity
    const ends = this.#byLast.get(activity)
    if (ends !== undefined) for (const { rank, op } of ends) this.#recorder.ended(rank, op, timeSeconds)
  }
}

const append = (ops: Map<Activity, Array<Cause>>, activity: Activity, op: Cause): void => {
  const list = ops.get(activity)
  if (list === undefined) ops.set(activity, [op])
  else list.push(op)
}

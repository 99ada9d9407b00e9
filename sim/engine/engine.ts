// The discrete-event engine: a clock, activities that wait for each other, and a network of links.
// Knows time, activities, links and flows; nothing of ranks, layers, tensors or programs.
//
// Activities live in slots of typed arrays and are recycled when they end, so memory is bounded by what is in flight.
// Events leave the queue by (time, order of creation), so a run is determined by the calls that built it.

import { AlphaBetaNetwork } from "./alpha-beta-network.ts"
import { EdgeLists, EMPTY } from "./edge-lists.ts"
import { EventQueue } from "./event-queue.ts"
import { FluidNetwork } from "./fluid-network.ts"
import { grownFloat64, grownInt32, grownUint8 } from "./grown.ts"
import { requireAtLeastZero, requireDuration, SIMULTANEOUS, type Link, type Network } from "./network.ts"
import { Routes } from "./routes.ts"
import { SpeedProfile, type SpeedChange } from "./speed-profile.ts"

export type { Link } from "./network.ts"
export type { SpeedChange } from "./speed-profile.ts"

/** Handle of an activity: its slot, and how often the slot was used before. Stale handles read as ended. */
export type Activity = number
/** An interned route; see `Engine.route`. */
export type Route = number
/** A processor's speed over time; see `Engine.speedProfile`. */
export type SpeedProfileId = number

/** Hears of every start and end. Absent by default, and then costs one comparison per event. */
export interface Recorder {
  /** `cause` is the activity that ended last and so let this one start; -1 if it was released or born free. */
  started(activity: Activity, timeSeconds: number, cause: Activity): void
  ended(activity: Activity, timeSeconds: number): void
}

/** An activity that has not ended when nothing can happen any more, and what it waits for. */
interface Waiting {
  readonly activity: Activity
  readonly kind: "work" | "flow"
  /** "holds" and "predecessors": it has not started; "links": it moves no bytes; "speed": its processor stopped. */
  readonly waitsFor: "holds" | "predecessors" | "links" | "speed"
  readonly holds: number
  readonly predecessors: ReadonlyArray<Activity>
  /** Names of links that are down, or (alpha-beta) that serve another flow first. */
  readonly links: ReadonlyArray<string>
}

interface EngineOptions {
  /** `fluid`: max-min fair sharing (SimGrid's CM02); `alpha-beta`: one flow per link at a time, first come first served. */
  readonly network: "fluid" | "alpha-beta"
  readonly links: ReadonlyArray<Link>
}

/** At most this many activities in flight: 2^24 slots, so that handles have 29 bits for reuse. */
const SLOTS_MAX = 2 ** 24
const SLOT_MASK = SLOTS_MAX - 1
const REUSES_MAX = 2 ** 29 - 1
const NONE = -1
/** Steps between two moves of the clock's epoch: seldom enough to cost nothing. */
const EPOCH_STEPS = 256

const FREE = 0
const WORK = 1 // not yet started
const FLOW = 2
const WORK_RUNNING = 3
const FLOW_LATENCY = 4 // paying its latency
const FLOW_JOINED = 5 // in the network
const FLOW_ENDING = 6 // out of the network, in the queue for its turn
const TIMER = 7

/** What to give `flow` as a latency where `beginningOf(key)` will know it when the flow starts; key is 0, 1, ... */
export const beginningKey = (key: number): number => -1 - key

export class Engine {
  /** Called when a watched activity has ended, after its successors were started. May call back into the engine. */
  onEnd: ((tag: number, activity: Activity) => void) | undefined
  /** Called at the time of an `at`. */
  onTimer: ((tag: number) => void) | undefined
  recorder: Recorder | undefined
  /** Says, when it starts, how a flow begins that was made with `beginningKey(key)`: where latencies change. */
  beginningOf: ((key: number) => { latencySeconds: number; bytesPerSecondMax: number }) | undefined
  /** Seconds spent by the works that named a meter, by meter. Grows as meters are used. */
  meters = new Float64Array(16)
  /** Activities not yet ended (timers do not count). */
  pending = 0
  /** Activities that have ended. */
  endedCount = 0

  // The clock reads #now, which is counted from #epoch and kept small: see #advanceEpoch. Between steps no time is
  // earlier than #clock, their sum.
  #now = 0
  #epoch = 0
  #clock = 0
  #stepsLeft = EPOCH_STEPS
  readonly #links: Array<Link>
  readonly #network: Network
  readonly #fluid: boolean
  readonly #queue = new EventQueue()
  #networkChanged = false
  #sequence = 0

  // Per slot.
  #slots = 0
  #freeSlot = NONE
  #states = new Uint8Array(64)
  #waits = new Int32Array(64) // predecessors and holds still to go; of a free slot: the next free slot
  #reuses = new Float64Array(64) // doubles: a handle soon has more bits than a small integer
  #sequences = new Float64Array(64)
  #amounts = new Float64Array(64) // work: seconds; flow: bytes; timer: its moment
  #extras = new Float64Array(64) // work: start once running; flow: latency, NaN = that of the route
  #kinds = new Int32Array(64) // work: meter; flow: channel; timer: tag
  #details = new Int32Array(64) // work: speed profile; flow: route

  /** Successors (>= 0: slot) and watchers (< 0: ~tag) of each slot. */
  readonly #edges = new EdgeLists()
  readonly #routes: Routes
  readonly #profiles: Array<SpeedProfile> = []

  constructor(options: EngineOptions) {
    for (const link of options.links) {
      requireAtLeastZero(`bandwidth of link ${link.name}`, link.bytesPerSecond)
      requireDuration(`latency of link ${link.name}`, link.latencySeconds)
    }
    this.#links = [...options.links]
    this.#fluid = options.network === "fluid"
    this.#network = this.#fluid ? new FluidNetwork(this.#links) : new AlphaBetaNetwork(this.#links)
    this.#routes = new Routes(this.#network, this.#links)
  }

  /** The clock, in seconds. */
  get now(): number {
    return this.#clock
  }

  /**
   * A route over links (numbers in the order given to the constructor). One flow of rate x uses weights[i] * x of
   * links[i] (default 1 each): more than 1 for a flow that crosses a link several times, or that stands for several.
   * Equal routes are one; a link that appears twice counts with the sum of its weights. May be empty: never shared.
   */
  route(links: ArrayLike<number>, weights?: ArrayLike<number>): Route {
    return this.#routes.intern(links, weights)
  }

  /** A processor's speed over time, for `work`. Speed is 1 before the first change; times ascend; factors are 0 or more. */
  speedProfile(changes: ReadonlyArray<SpeedChange>): SpeedProfileId {
    return this.#profiles.push(new SpeedProfile(changes)) - 1
  }

  /**
   * Work of so many seconds at full speed. Like every activity it is born with one hold, so that its predecessors can
   * be named before `release` lets it start. `meter` (0, 1, ...) adds its duration to that meter.
   */
  work(seconds: number, meter: number = NONE, speed: SpeedProfileId = NONE): Activity {
    if (!(seconds >= 0 && seconds < Infinity)) requireDuration("work", seconds)
    if (meter >= this.meters.length)
      this.meters = grownFloat64(this.meters, Math.max(meter + 1, this.meters.length * 2))
    const slot = this.#allocate(WORK)
    this.#amounts[slot] = seconds
    this.#kinds[slot] = meter
    this.#details[slot] = speed
    this.pending++
    return this.#handle(slot)
  }

  /**
   * A flow of bytes over a route, at most `bytesPerSecondMax` fast. Its latency (default: that of the route's links when
   * it starts; or a `beginningKey`) is paid first; then it joins the network.
   */
  flow(route: Route, bytes: number, latencySeconds = NaN, bytesPerSecondMax = Infinity): Activity {
    if (!(bytes >= 0 && bytes < Infinity))
      throw new RangeError(`flow of ${bytes} bytes: must be finite, 0 or more`)
    // Negative whole numbers are keys.
    if (!(latencySeconds >= 0) && !Number.isNaN(latencySeconds) && this.beginningOf === undefined)
      requireDuration("flow latency", latencySeconds)
    const channel = this.#routes.channel(route, bytesPerSecondMax)
    const slot = this.#allocate(FLOW)
    this.#amounts[slot] = bytes
    this.#extras[slot] = latencySeconds
    this.#kinds[slot] = channel
    this.#details[slot] = route
    this.pending++
    return this.#handle(slot)
  }

  /** `activity`, which must not have started, waits for `predecessor` to end; nothing to wait for if it already has. */
  after(activity: Activity, predecessor: Activity): void {
    const before = this.#slotOf(predecessor)
    if (before === NONE) return
    const slot = this.#waitingSlot(activity)
    this.#waits[slot]!++
    this.#edges.append(before, slot)
  }

  /** One more `release` is needed before the activity can start: how several parties meet in one activity. */
  hold(activity: Activity): void {
    this.#waits[this.#waitingSlot(activity)]!++
  }

  /** Gives up one hold. The activity starts, now, with the last of its holds and predecessors. */
  release(activity: Activity): void {
    const slot = this.#waitingSlot(activity)
    if (--this.#waits[slot]! === 0) this.#start(slot, NONE)
  }

  /** Reports `tag` (an integer, 0 to 2^31-2) to `onEnd` when the activity ends. False, and no report, if it already has. */
  watch(activity: Activity, tag: number): boolean {
    const slot = this.#slotOf(activity)
    if (slot === NONE) return false
    this.#edges.append(slot, ~tag)
    return true
  }

  /** Has the activity ended? True for good, also after its slot went to another. */
  ended(activity: Activity): boolean {
    return this.#slotOf(activity) === NONE
  }

  /** Reports `tag` (a 32-bit integer) to `onTimer` at a time not before now: the clock then says that time, to the last bit. */
  at(timeSeconds: number, tag: number): void {
    if (!(timeSeconds >= this.#clock && timeSeconds < Infinity))
      throw new RangeError(`timer at ${timeSeconds} s: must be finite and not before now, ${this.#clock} s`)
    const slot = this.#allocate(TIMER)
    this.#kinds[slot] = tag
    this.#amounts[slot] = timeSeconds
    this.#queue.push(Math.max(this.#now, timeSeconds - this.#epoch), this.#sequences[slot]!, slot)
  }

  /**
   * Changes a link from now on: flows in the network get their new shares at once; a latency counts for flows that
   * start later. Bandwidth 0 is a link that is down: its flows stall until it returns.
   */
  setLink(
    link: number,
    change: { readonly bytesPerSecond?: number; readonly latencySeconds?: number }
  ): void {
    const before = this.#links[link]
    if (before === undefined) throw new RangeError(`there is no link ${link}`)
    if (change.bytesPerSecond !== undefined)
      requireAtLeastZero(`bandwidth of ${before.name}`, change.bytesPerSecond)
    if (change.latencySeconds !== undefined)
      requireDuration(`latency of ${before.name}`, change.latencySeconds)
    this.#links[link] = { ...before, ...change }
    if (change.latencySeconds !== undefined) this.#routes.takeLatencies()
    if (change.bytesPerSecond === undefined) return
    this.#network.setBandwidth(link, change.bytesPerSecond, this.#now)
    this.#networkChanged = true
  }

  /**
   * Goes to the next time at which something happens and does all that happens then: everything that ends, what that
   * starts and ends at the same time, and one new solution of the network. False when nothing will happen any more;
   * activities still `pending` are then in deadlock, see `waiting`.
   */
  step(): boolean {
    const queue = this.#queue
    if (this.#networkChanged) this.#settle()
    if (--this.#stepsLeft === 0) this.#advanceEpoch()
    const networkSeconds = this.#network.nextEndSeconds()
    const queueSeconds = queue.nextSeconds()
    const now = networkSeconds < queueSeconds ? networkSeconds : queueSeconds
    if (now === Infinity) return false
    this.#now = now
    // A timer that was set from far away may have lost its last digit, counted from the epoch: it keeps its own moment.
    const isTimer = queueSeconds === now && this.#states[queue.first] === TIMER
    const clock = isTimer ? this.#amounts[queue.first]! : this.#epoch + now
    if (clock > this.#clock) this.#clock = clock
    if (networkSeconds <= now * SIMULTANEOUS) this.#takeFromNetwork()
    while (queue.nextSeconds() <= now) this.#handleEvent(queue.pop())
    if (this.#networkChanged) this.#settle()
    return true
  }

  /** Steps until nothing happens any more; the time of the last event. */
  run(): number {
    while (this.step());
    return this.#clock
  }

  /** Bytes that have crossed a link, weights included, counted when their flow ends. */
  linkBytes(link: number): number {
    return this.#network.linkBytes(link)
  }

  /** Seconds during which the link carried at least one flow, up to now; a rounded sum of its spells says no more than now. */
  linkBusySeconds(link: number): number {
    return Math.min(this.#clock, this.#network.linkBusySeconds(link, this.#now))
  }

  /** Every activity that has not ended and does not move, and why. For when `step` says false; takes O(in flight). */
  waiting(): ReadonlyArray<Waiting> {
    const predecessors = new Map<number, Array<Activity>>()
    for (let slot = 0; slot < this.#slots; slot++) {
      if (this.#states[slot] === FREE || this.#states[slot] === TIMER) continue
      for (const target of this.#edges.of(slot)) {
        if (target < 0) continue
        const list = predecessors.get(target) ?? []
        list.push(this.#handle(slot))
        predecessors.set(target, list)
      }
    }
    const [found, stalled] = [[] as Array<Waiting>, this.#network.stalled()]
    for (let slot = 0; slot < this.#slots; slot++) {
      const state = this.#states[slot]!
      const activity = this.#handle(slot)
      if (state === WORK || state === FLOW) {
        const before = predecessors.get(slot) ?? []
        const holds = this.#waits[slot]! - before.length
        found.push({
          activity,
          kind: state === WORK ? "work" : "flow",
          waitsFor: before.length > 0 ? "predecessors" : "holds",
          holds,
          predecessors: before,
          links: []
        })
      } else if (state === WORK_RUNNING && this.#workEnd(slot) === Infinity) {
        found.push({ activity, kind: "work", waitsFor: "speed", holds: 0, predecessors: [], links: [] })
      } else if (state === FLOW_JOINED) {
        const links = (stalled.get(slot) ?? []).map((link) => this.#links[link]!.name)
        if (links.length > 0)
          found.push({ activity, kind: "flow", waitsFor: "links", holds: 0, predecessors: [], links })
      }
    }
    return found
  }

  /**
   * Puts the clock back. A time is rounded to a step of the floats around it, and what matters of a time is how far it is
   * from others: counted from zero, a minute into a run, 1 ms is known to 12 digits only, and contention amplifies what
   * is lost. Half of the reading stays, so that the clock's reading follows the pace of events. The epoch is a float of
   * 24 bits: then what is moved into it, and so every time that is still of interest, is moved without rounding.
   */
  #advanceEpoch(): void {
    this.#stepsLeft = EPOCH_STEPS
    const epoch = Math.fround(this.#epoch + this.#now / 2)
    const by = epoch - this.#epoch
    if (!(by > 0 && by <= this.#now)) return
    this.#epoch = epoch
    this.#now -= by
    this.#queue.forEach((slot) => {
      if (this.#states[slot] === WORK_RUNNING) this.#extras[slot]! -= by
    })
    this.#queue.advance(by)
    this.#network.advance(by)
  }

  #settle(): void {
    this.#networkChanged = false
    this.#network.settle(this.#now)
  }

  /** Queues the flows that end now, so that they take their turn among simultaneous events. */
  #takeFromNetwork(): void {
    const count = this.#network.takeEnded(this.#now)
    this.#networkChanged = true
    const ended = this.#network.ended
    // One alone has nobody to wait its turn for.
    if (count === 1 && this.#queue.nextSeconds() > this.#now) return this.#end(ended[0]!)
    for (let i = 0; i < count; i++) {
      const slot = ended[i]!
      this.#states[slot] = FLOW_ENDING
      this.#queue.push(this.#now, this.#sequences[slot]!, slot)
    }
  }

  #handleEvent(slot: number): void {
    const state = this.#states[slot]!
    if (state === WORK_RUNNING) {
      const meter = this.#kinds[slot]!
      if (meter >= 0) this.meters[meter]! += this.#workedSeconds(slot)
      this.#end(slot)
    } else if (state === FLOW_ENDING) this.#end(slot)
    else if (state === FLOW_LATENCY) this.#join(slot, 0)
    else {
      const tag = this.#kinds[slot]!
      this.#clock = Math.max(this.#clock, this.#amounts[slot]!)
      this.#free(slot)
      this.onTimer?.(tag)
    }
  }

  #start(slot: number, cause: Activity): void {
    if (this.recorder !== undefined) this.recorder.started(this.#handle(slot), this.#clock, cause)
    if (this.#states[slot] === WORK) {
      this.#states[slot] = WORK_RUNNING
      this.#extras[slot] = this.#now
      const end = this.#workEnd(slot)
      if (end !== Infinity) this.#queue.push(end, this.#sequences[slot]!, slot)
      return
    }
    let latency = this.#extras[slot]!
    if (Number.isNaN(latency)) latency = this.#routes.latencySeconds(this.#details[slot]!)
    else if (latency < 0) {
      const { latencySeconds, bytesPerSecondMax } = this.beginningOf!(-1 - latency)
      latency = latencySeconds
      this.#kinds[slot] = this.#routes.channel(this.#details[slot]!, bytesPerSecondMax)
    }
    if (this.#fluid && latency > 0) {
      this.#states[slot] = FLOW_LATENCY
      this.#queue.push(this.#now + latency, this.#sequences[slot]!, slot)
    } else this.#join(slot, latency)
  }

  #join(slot: number, latencySeconds: number): void {
    this.#states[slot] = FLOW_JOINED
    this.#network.join(slot, this.#kinds[slot]!, this.#amounts[slot]!, latencySeconds, this.#now)
    this.#networkChanged = true
  }

  #workEnd(slot: number): number {
    const profile = this.#details[slot]!
    if (profile < 0) return this.#extras[slot]! + this.#amounts[slot]!
    return this.#profiles[profile]!.endSeconds(this.#extras[slot]!, this.#amounts[slot]!, this.#epoch)
  }

  /** The activity ends now: its successors may start, its watchers are told. */
  #end(slot: number): void {
    const handle = this.#handle(slot)
    this.pending--
    this.endedCount++
    if (this.recorder !== undefined) this.recorder.ended(handle, this.#clock)
    const edges = this.#edges
    const first = edges.firsts[slot]!
    const rest = edges.rests[slot]!
    this.#free(slot)
    if (first === EMPTY) return
    if (first >= 0 && --this.#waits[first]! === 0) this.#start(first, handle)
    for (let e = rest; e !== NONE; e = edges.nexts[e]!) {
      const target = edges.targets[e]!
      if (target >= 0 && --this.#waits[target]! === 0) this.#start(target, handle)
    }
    // Watchers come last, when the engine is consistent again: they may add activities, and so edges.
    if (first < 0) this.onEnd?.(~first, handle)
    let e = rest
    while (e !== NONE) {
      const target = edges.targets[e]!
      e = edges.release(e)
      if (target < 0) this.onEnd?.(~target, handle)
    }
  }

  #handle(slot: number): Activity {
    return this.#reuses[slot]! * SLOTS_MAX + slot
  }

  /** The slot of a handle, -1 if its activity has ended. */
  #slotOf(activity: Activity): number {
    const slot = activity & SLOT_MASK
    return this.#reuses[slot] === (activity - slot) / SLOTS_MAX && this.#states[slot] !== FREE ? slot : NONE
  }

  #waitingSlot(activity: Activity): number {
    const slot = this.#slotOf(activity)
    const state = slot === NONE ? FREE : this.#states[slot]!
    if (state !== WORK && state !== FLOW) throw new RangeError(`activity ${activity} has already started`)
    return slot
  }

  #allocate(state: number): number {
    let slot = this.#freeSlot
    if (slot !== NONE) this.#freeSlot = this.#waits[slot]!
    else {
      slot = this.#slots++
      if (slot === this.#states.length) this.#growSlots()
    }
    this.#states[slot] = state
    this.#waits[slot] = 1
    this.#edges.firsts[slot] = EMPTY
    this.#sequences[slot] = this.#sequence++
    return slot
  }

  #free(slot: number): void {
    this.#states[slot] = FREE
    // A slot that has used up its handles is retired rather than reused under an old name.
    if (++this.#reuses[slot]! > REUSES_MAX) return
    this.#waits[slot] = this.#freeSlot
    this.#freeSlot = slot
  }

  #growSlots(): void {
    if (this.#slots > SLOTS_MAX) throw new RangeError(`more than ${SLOTS_MAX} activities in flight`)
    const length = 2 * this.#states.length
    this.#states = grownUint8(this.#states, length)
    this.#waits = grownInt32(this.#waits, length)
    this.#reuses = grownFloat64(this.#reuses, length)
    this.#sequences = grownFloat64(this.#sequences, length)
    this.#amounts = grownFloat64(this.#amounts, length)
    this.#extras = grownFloat64(this.#extras, length)
    this.#kinds = grownInt32(this.#kinds, length)
    this.#details = grownInt32(this.#details, length)
    this.#edges.grow(length)
  }

  /** Of work that ends now: since it began, but for when its processor stood. */
  #workedSeconds(slot: number): number {
    const since = this.#extras[slot]!
    const profile = this.#details[slot]!
    const stopped =
      profile === NONE ? 0 : this.#profiles[profile]!.stoppedSeconds(since, this.#now, this.#epoch)
    return this.#now - since - stopped
  }
}

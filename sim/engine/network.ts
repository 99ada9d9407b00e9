// What the engine asks of a network model: when the next flow ends, and which. A model knows links, routes and flows,
// and calls a flow by the integer the engine gave it; it knows nothing of activities, dependencies or the event queue.

/** A link as a model is given it. */
export interface Link {
  readonly name: string
  /** bytes/s; Infinity for a link that never limits, 0 for one that is down. */
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}

/** Links in order, each with the weight with which one flow's rate counts on it. Links are distinct. */
export interface WeightedLinks {
  readonly links: ReadonlyArray<number>
  readonly weights: ReadonlyArray<number>
}

/** A model of how flows share links. Times in seconds, sizes in bytes. */
export interface Network {
  /** Flows that use the same links with the same weights and the same own limit use one channel. Interned by the caller. */
  channel(route: WeightedLinks, bytesPerSecondMax: number): number
  /**
   * The flow asks for its channel at `nowSeconds`. A model may let it join at once or make it wait; it ends when all
   * `bytes` have passed, `latencySeconds` after its start at the earliest.
   */
  join(flow: number, channel: number, bytes: number, latencySeconds: number, nowSeconds: number): void
  /** Earliest end of a flow, given the present shares; Infinity when none will end. Valid after `settle`. */
  nextEndSeconds(): number
  /** Removes the flows that end at `nowSeconds` and returns how many; they are `ended[0 .. n)`, in no special order. */
  takeEnded(nowSeconds: number): number
  readonly ended: Int32Array
  /** Brings the shares up to date after joins, ends and changes of links, all at `nowSeconds`. */
  settle(nowSeconds: number): void
  setBandwidth(link: number, bytesPerSecond: number, nowSeconds: number): void
  /** The clock is put back by so many seconds: every time the model keeps is to become less by as much. */
  advance(seconds: number): void
  /** Bytes that crossed the link, weights included, counted when a flow ends. */
  linkBytes(link: number): number
  /** Seconds until `nowSeconds` with at least one flow on the link. */
  linkBusySeconds(link: number, nowSeconds: number): number
  /** Flows that do not move at all, each with the links that keep it from moving. For reports of deadlocks; O(in flight). */
  stalled(): ReadonlyMap<number, ReadonlyArray<number>>
}

/**
 * Ends this close to each other (relative to the clock's reading, 2^-48) are one event: only rounding separates them, and each
 * separate event would cost a solve.
 */
export const SIMULTANEOUS = 1 + 2 ** -48

export function requireAtLeastZero(what: string, value: number): void {
  if (!(value >= 0)) throw new RangeError(`${what} is ${value}: must be 0 or more`)
}

export function requireDuration(what: string, seconds: number): void {
  if (!(seconds >= 0 && seconds < Infinity))
    throw new RangeError(`${what} of ${seconds} s: must be finite, 0 or more`)
}

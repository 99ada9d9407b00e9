// How long messages are held back for what may be on their way: as much as a window of TCP lets, or buffers of the software hold,
// until word comes back that it has arrived.
import type { Hop } from "./hops.ts"

/**
 * How many seconds longer a flow of so many bytes takes than its links alone would have it, which let `bytesPerSecond` of it through;
 * with their delays as they are when it is asked.
 */
export type Held = (bytes: number, bytesPerSecond: number) => number

const free: Held = () => 0

/**
 * How many seconds longer one message takes of which no more than a window may be on the way: a window goes at the link's rate, and the
 * next one a round trip after it began.
 */
export const heldBack = (
  bytes: number,
  bytesPerSecond: number,
  windowBytes: number,
  roundTripSeconds: number
): number => {
  const before = Math.ceil(bytes / windowBytes) - 1
  return before < 1 ? 0 : Math.max(0, before * (roundTripSeconds - windowBytes / bytesPerSecond))
}

/** Windows of one network. */
export class Windows {
  readonly #pathOf: (from: number, to: number) => ReadonlyArray<number>
  readonly #secondsBetween: (from: number, to: number) => number
  readonly #bytesOf: (link: number) => number
  readonly #any: boolean

  /**
   * @param pathOf link classes that a message from one rank to another crosses
   * @param secondsBetween its delay as it is now
   * @param bytes of each link class, how many of one rank's to another may be on their way; Infinity where nothing says so
   */
  constructor(
    pathOf: (from: number, to: number) => ReadonlyArray<number>,
    secondsBetween: (from: number, to: number) => number,
    bytes: ReadonlyArray<number>
  ) {
    this.#pathOf = pathOf
    this.#secondsBetween = secondsBetween
    this.#bytesOf = (link) => bytes[link]!
    this.#any = bytes.some((most) => most < Infinity)
  }

  /**
   * Of a flow over hops that are made at once. The least window of a way counts, and the hop that takes longest.
   *
   * @param steps messages that each hop makes of its bytes, one after another
   * @param amount bytes that a hop carries for each of the flow's, by its place among the hops. Default: one
   */
  over(hops: ReadonlyArray<Hop>, steps: number, amount: (hop: number) => number = () => 1): Held {
    if (!this.#any) return free
    const ways = new Map<string, { readonly hop: Hop; readonly window: number; readonly amount: number }>()
    hops.forEach((hop, i) => {
      const [a, b] = hop
      const there = this.#pathOf(a, b)
      const window = there.reduce((least, link) => Math.min(least, this.#bytesOf(link)), Infinity)
      if (window === Infinity) return
      const key = `${there.join(" ")};${this.#pathOf(b, a).join(" ")}`
      ways.set(key, { hop, window, amount: Math.max(amount(i), ways.get(key)?.amount ?? 0) })
    })
    return (bytes, bytesPerSecond) => {
      let seconds = 0
      for (const { hop, window, amount: own } of ways.values()) {
        const [a, b] = hop
        const roundTrip = this.#secondsBetween(a, b) + this.#secondsBetween(b, a)
        const each = heldBack((own * bytes) / steps, own * bytesPerSecond, window, roundTrip)
        seconds = Math.max(seconds, steps * each)
      }
      return seconds
    }
  }
}

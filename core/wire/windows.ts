// How long messages are held back: for what may be on their way, as much as a window of TCP lets until word comes back that it has
// arrived; and for what a ring's software sends around at a time.
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

/** Of a ring: its steps, and the delay of the farthest as it is now. */
export interface Turns {
  readonly steps: number
  readonly farthestSeconds: () => number
}

/**
 * Of a ring whose software has a chunk of each step's bytes go around before the next, as NCCL's kernels do: a rank hands on and gets
 * the last part of a chunk before it begins the next. A chunk moves in two halves, one on a link while the other is handed on. So
 * it is around after all steps' delays and (steps + 1) / 2 times its own time on a link, and no sooner than when a link has had all of it
 * and the last of that has come. Ranks do all at the same time.
 *
 * @param around delays of all steps as they are now, seconds
 */
export const inTurns = (turns: Turns | undefined, around: () => number, chunkBytes = Infinity): Held =>
  turns === undefined || chunkBytes === Infinity
    ? free
    : (bytes, bytesPerSecond) => {
        const { steps, farthestSeconds } = turns
        const before = Math.ceil(bytes / steps / chunkBytes) - 1
        if (before < 1) return 0
        const covered = ((steps - 1) / 2) * (chunkBytes / bytesPerSecond)
        return before * Math.max(farthestSeconds(), around() - covered)
      }

// What messages of a collective wait for links' delays: of hops that are all made at once, of steps one after another, and around
// rings. Asks for delays whenever it is asked, as a fault may have changed them.
import type { Hop, Rounds, Step } from "./hops.ts"

/** Seconds, with the links as they are when it is asked. */
type Wait = () => number

/** Delays of one network. */
export class Delays {
  readonly #linksOf: (from: number, to: number) => ReadonlyArray<number>
  readonly #secondsOf: (link: number) => number

  /**
   * @param linksOf link classes whose delays a message from one rank to another pays
   * @param secondsOf such a delay as it is now
   */
  constructor(
    linksOf: (from: number, to: number) => ReadonlyArray<number>,
    secondsOf: (link: number) => number
  ) {
    this.#linksOf = linksOf
    this.#secondsOf = secondsOf
  }

  /** Of one message from rank `from` to rank `to`. */
  between(from: number, to: number): number {
    return this.#sum(this.#linksOf(from, to))
  }

  #sum(links: ReadonlyArray<number>): number {
    return links.reduce((seconds, link) => seconds + this.#secondsOf(link), 0)
  }

  /** So many times that of the farthest hop. */
  farthest(hops: ReadonlyArray<Hop>, times: number): Wait {
    const ways = new Map<string, ReadonlyArray<number>>()
    for (const [a, b] of hops) {
      const way = this.#linksOf(a, b)
      ways.set(way.join(" "), way)
    }
    return () => {
      let most = 0
      for (const way of ways.values()) most = Math.max(most, this.#sum(way))
      return times * most
    }
  }

  /** Of the longest way that the steps of a list make. */
  longest(lists: ReadonlyArray<ReadonlyArray<Step>>): Wait {
    const links = lists.map((steps) => steps.map(({ hops }) => hops.flatMap(([a, b]) => this.#linksOf(a, b))))
    return () => {
      let most = 0
      lists.forEach((steps, list) => {
        const ends = new Float64Array(steps.length)
        steps.forEach(({ after }, i) => {
          ends[i] = (after === undefined ? 0 : ends[after]!) + this.#sum(links[list]![i]!)
          most = Math.max(most, ends[i])
        })
      })
      return most
    }
  }

  /**
   * Of the longest way around a ring that a message makes which is handed on so many times: with infinitely fast links the time of
   * the whole, for a rank hands on what it has just got. Where all hops are alike it is so many times a hop's.
   */
  around({ rings, steps, begins }: Rounds): Wait {
    const waysOf = new Map<string, { readonly id: number; readonly links: ReadonlyArray<number> }>()
    const idOf = (from: number, to: number): number => {
      const links = this.#linksOf(from, to)
      const key = links.join(" ")
      let way = waysOf.get(key)
      if (way === undefined) waysOf.set(key, (way = { id: waysOf.size, links }))
      return way.id
    }
    /** How often the message takes each way, for messages that differ in that. */
    const counts = new Map<string, ReadonlyMap<number, number>>()
    for (const ring of rings) {
      const n = ring.length
      const hops = ring.map((rank, i) => idOf(rank, ring[(i + 1) % n]!))
      const once = new Map<number, number>()
      for (const id of hops) once.set(id, (once.get(id) ?? 0) + 1)
      const rounds = Math.ceil(steps / n)
      const seen = new Set<string>()
      for (const begin of begins ?? ring.keys()) {
        // It goes around whole, but for the last hops, those before where it began.
        const left = Array.from({ length: rounds * n - steps }, (_, i) => hops[(begin + n - 1 - i) % n]!)
        const key = left.toSorted((a, b) => a - b).join(" ")
        if (seen.has(key)) continue
        seen.add(key)
        const taken = new Map([...once].map(([id, count]) => [id, rounds * count]))
        for (const id of left) taken.set(id, taken.get(id)! - 1)
        const vector = [...taken].toSorted(([a], [b]) => a - b)
        counts.set(vector.join(" "), new Map(vector))
      }
    }
    const ways = [...waysOf.values()].map(({ links }) => links)
    return () => {
      const delays = ways.map((links) => this.#sum(links))
      let most = 0
      for (const taken of counts.values()) {
        let seconds = 0
        for (const [id, count] of taken) seconds += count * delays[id]!
        most = Math.max(most, seconds)
      }
      return most
    }
  }
}

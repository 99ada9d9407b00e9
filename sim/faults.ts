// What goes wrong or changes during a run: ranks that are slow or away, links that change speed or drop. Turns a
// scenario's list into speed profiles and timed link changes. Knows nothing of programs.
import type { Fault, LinkFault, RankFault } from "../core/fault.ts"
import type { LinkSpec } from "../core/world.ts"
import type { Engine, SpeedChange } from "./engine/engine.ts"
import type { Network } from "../core/wire/network.ts"

/** A scenario's faults as the simulator asks for them: speeds of a rank over time, and changes of links. */
export class Faults {
  readonly #faults: ReadonlyArray<Fault>

  constructor(faults: ReadonlyArray<Fault>) {
    this.#faults = faults
  }

  /** What sets a rank apart from others; ranks with equal keys may be simulated as one. */
  rankKey(rank: number): string {
    return this.#keyOf("intra", rank) + JSON.stringify(this.#rankFaults(rank))
  }

  nodeKey(node: number): string {
    return this.#keyOf("inter", node)
  }

  siteKey(site: number): string {
    return this.#keyOf("wan", site)
  }

  /** Does some link change? */
  get changeLinks(): boolean {
    return this.#faults.some((fault) => fault.kind === "link")
  }

  /** Speed of the rank's compute lane over time; undefined when nothing happens to it. */
  speedOf(rank: number): ReadonlyArray<SpeedChange> | undefined {
    const faults = this.#rankFaults(rank)
    if (faults.length === 0) return undefined
    const times = [...new Set(faults.flatMap((fault) => [fault.fromSeconds, fault.untilSeconds]))]
      .filter((time) => time !== Infinity)
      .toSorted((a, b) => a - b)
    // Where faults overlap their factors multiply.
    const factorAt = (time: number): number =>
      faults
        .filter((fault) => fault.fromSeconds <= time && time < fault.untilSeconds)
        .reduce((factor, fault) => factor * fault.factor, 1)
    return times.map((atSeconds) => ({ atSeconds, factor: factorAt(atSeconds) }))
  }

  /** Schedules the link changes, with `at`. Where faults overlap, the later in the list wins. */
  install(engine: Engine, network: Network, at: (seconds: number, then: () => void) => void): void {
    const faults = this.#faults.filter((fault): fault is LinkFault => fault.kind === "link")
    if (faults.length === 0) return
    const affected = faults.map(({ tier, owner }) => network.linksOf(tier, owner))
    const times = [...new Set(faults.flatMap((fault) => [fault.fromSeconds, fault.untilSeconds]))]
      .filter((time) => time !== Infinity)
      .toSorted((a, b) => a - b)
    const changeAt = (now: number): void => {
      for (const link of new Set(affected.flat())) {
        const spec = faults.reduce<LinkSpec>(
          (current, fault, i) =>
            affected[i]!.includes(link) && fault.fromSeconds <= now && now < fault.untilSeconds
              ? { ...current, ...fault.change }
              : current,
          network.links[link]!.spec
        )
        engine.setLink(link, { bytesPerSecond: spec.bytesPerSecond })
        network.setLink(link, spec)
      }
    }
    for (const time of times)
      at(time, () => {
        changeAt(time)
      })
  }

  #rankFaults(rank: number): ReadonlyArray<RankFault> {
    return this.#faults.filter((fault): fault is RankFault => fault.kind === "rank" && fault.rank === rank)
  }

  #keyOf(tier: LinkFault["tier"], owner: number): string {
    const own = this.#faults.filter(
      (fault) => fault.kind === "link" && fault.tier === tier && fault.owner === owner
    )
    return own.length === 0 ? "" : JSON.stringify(own)
  }
}

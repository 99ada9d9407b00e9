// Which of the things said of collectives have changed none that a run had: each collective is laid out once more as though one of
// them were not said, until the first that it changes. Knows no clock.
import type { LinkSpec, World } from "../world.ts"
import { legsOf, type CollectiveOptions, type Legs } from "./legs.ts"
import { Network } from "./network.ts"
import type { Symmetry } from "./symmetry.ts"

/** Options whose absence other legs would show. */
const inLegs = ["chunkBytes", "handshake", "table", "inside"] as const
const tiers = ["intra", "inter", "wan"] as const

/** What may be said of collectives in vain; the windows are those of links. */
export type CollectiveOption =
  (typeof inLegs)[number] | `${(typeof tiers)[number]}Window` | "waitSeconds" | "slowdown" | "slowdownInside"

type Groups = ReadonlyArray<ReadonlyArray<number>>
type Message = Parameters<typeof legsOf>[1]
type LayOut = (message: Message, together: Groups, alike: Groups) => Legs

/** A world in which any number of bytes may be on the way across a tier's links; undefined where that is so anyway. */
const unlimited = (world: World, tier: (typeof tiers)[number]): World | undefined => {
  const given = world.links[tier]
  const any = <L extends LinkSpec>(link: L): L => ({ ...link, windowBytes: undefined })
  if (given === undefined) return undefined
  if (!("pairs" in given))
    return given.windowBytes === undefined
      ? undefined
      : { ...world, links: { ...world.links, [tier]: any(given) } }
  if (given.pairs.every(({ link }) => link.windowBytes === undefined)) return undefined
  const pairs = given.pairs.map((pair) => ({ ...pair, link: any(pair.link) }))
  return { ...world, links: { ...world.links, wan: { pairs } } }
}

/** What a collective takes with nothing but its like on its links. */
const timeOf = ({ legs, waitSeconds }: Legs): string =>
  [
    waitSeconds,
    ...legs.map(
      ({ phase, softwareSeconds, aloneBytesPerSecond }) =>
        `${phase.latencySeconds + softwareSeconds} ${aloneBytesPerSecond}`
    )
  ].join()

export class IdleOptions {
  /** How a collective is laid out without each that has changed none so far. */
  readonly #without = new Map<CollectiveOption, LayOut>()

  constructor(world: World, symmetry: Symmetry, network: Network, options: CollectiveOptions) {
    // Where links change meanwhile, so may what they are no limit to.
    if (options.linksVary === true) return
    for (const option of inLegs)
      if (options[option] !== undefined && options[option] !== false) {
        const less = { ...options, [option]: undefined }
        this.#without.set(option, (...collective) => legsOf(network, ...collective, less))
      }
    for (const tier of tiers) {
      const wider = unlimited(world, tier)
      if (wider === undefined) continue
      const other = new Network(wider, symmetry)
      this.#without.set(`${tier}Window`, (...collective) => legsOf(other, ...collective, options))
    }
  }

  get found(): ReadonlySet<CollectiveOption> {
    return new Set(this.#without.keys())
  }

  /** A collective of the run, as it is laid out. */
  met(laidOut: Legs, ...collective: Parameters<LayOut>): void {
    if (this.#without.size === 0) return
    const time = timeOf(laidOut)
    for (const [option, layOut] of this.#without)
      if (timeOf(layOut(...collective)) !== time) this.#without.delete(option)
  }
}

// Interned routes of an engine: each with its links, their weights, and the channels of the network that carry it. Knows nothing of flows.
import type { Link, Network } from "./network.ts"

interface Interned {
  readonly links: ReadonlyArray<number>
  readonly weights: ReadonlyArray<number>
  /** Channels by the most bytes/s that a flow of theirs may have. */
  readonly capped: Map<number, number>
}

export class Routes {
  readonly #network: Network
  readonly #links: ReadonlyArray<Link>
  readonly #routes: Array<Interned> = []
  readonly #ids = new Map<string, number>()
  /** Channel without a limit, by route. */
  readonly #channels: Array<number> = []

  /** Sum of its links' latencies, by route. */
  readonly #latencies: Array<number> = []

  /** Over these links, which may change their latencies: see `takeLatencies`. */
  constructor(network: Network, links: ReadonlyArray<Link>) {
    this.#network = network
    this.#links = links
  }

  /** As `Engine.route`. */
  intern(links: ArrayLike<number>, weights: ArrayLike<number> | undefined): number {
    const distinct: Array<number> = []
    const sums: Array<number> = []
    for (let i = 0; i < links.length; i++) {
      const link = links[i]!
      const weight = weights === undefined ? 1 : weights[i]!
      if (!(Number.isInteger(link) && link >= 0 && link < this.#links.length))
        throw new RangeError(`route over link ${link}: there is no such link`)
      if (!(weight > 0 && weight < Infinity)) throw new RangeError(`route weight ${weight}: must be positive`)
      const at = distinct.indexOf(link)
      if (at >= 0) sums[at]! += weight
      else {
        distinct.push(link)
        sums.push(weight)
      }
    }
    const key = `${distinct.join()};${sums.join()}`
    const known = this.#ids.get(key)
    if (known !== undefined) return known
    const route: Interned = { links: distinct, weights: sums, capped: new Map() }
    const id = this.#routes.push(route) - 1
    this.#ids.set(key, id)
    this.#channels.push(this.#network.channel(route, Infinity))
    this.#latencies.push(this.#latencyOf(route))
    return id
  }

  /** Sum of the latencies of a route's links as they are now. */
  latencySeconds(route: number): number {
    return this.#latencies[route]!
  }

  /** Links have other latencies than before. */
  takeLatencies(): void {
    this.#routes.forEach((route, id) => (this.#latencies[id] = this.#latencyOf(route)))
  }

  #latencyOf({ links }: Interned): number {
    return links.reduce((sum, link) => sum + this.#links[link]!.latencySeconds, 0)
  }

  /** The channel of flows over the route that are at most so fast. */
  channel(route: number, bytesPerSecondMax: number): number {
    if (bytesPerSecondMax === Infinity) return this.#channels[route]!
    if (!(bytesPerSecondMax > 0))
      throw new RangeError(`a flow's limit of ${bytesPerSecondMax} bytes/s: must be positive`)
    const { capped } = this.#routes[route]!
    let channel = capped.get(bytesPerSecondMax)
    if (channel === undefined) {
      channel = this.#network.channel(this.#routes[route]!, bytesPerSecondMax)
      capped.set(bytesPerSecondMax, channel)
    }
    return channel
  }
}

// How long a collective takes with only its like on the links: what planners reckon with. Knows no clock and no other traffic.
import type { CollectiveTable } from "../cost/collective-table.ts"
import type { Group } from "../world.ts"
import type { CollectiveAlgorithm, Network, Phase } from "./network.ts"

export interface CollectiveOptions {
  readonly algorithm: CollectiveAlgorithm
  /** Measured times that bound how fast a collective can be, whatever the links. */
  readonly table?: CollectiveTable | undefined
  /** Latencies change during the run: each collective pays what holds when it starts. */
  readonly latencyVaries?: boolean
  /**
   * Share of a rank's own port (its slot on the host, the multiprocessors that move its bytes) that a collective takes at
   * its full speed. Above one half, two collectives of a rank that run at once slow each other. Default: none.
   */
  readonly portShare?: number | undefined
}

/** Flow bytes per second of a phase that has its links to itself. */
export const linkRate = (network: Network, { links, weights }: Phase): number => {
  let rate = Infinity
  links.forEach((link, i) => {
    rate = Math.min(rate, network.links[link]!.spec.bytesPerSecond / weights[i]!)
  })
  return rate
}

/** Seconds of a collective of so many bytes with only its like on the links: what planners reckon with. */
export const aloneSeconds = (
  network: Network,
  kernel: string,
  group: Group,
  options: CollectiveOptions
): ((sizeBytes: number) => number) => {
  const phases = network.phases(kernel, options.algorithm, group.alike ?? [group.ranks])
  return (sizeBytes) => {
    const ceiling =
      phases.length === 1 ? options.table?.ceiling(kernel, group.ranks.length, sizeBytes) : undefined
    return phases.reduce((seconds, phase) => {
      const bytes = phase.unitsPerByte * sizeBytes
      const measured = ceiling === undefined ? 0 : ceiling.seconds - ceiling.latencySeconds
      const flowing = Math.max(measured, bytes / linkRate(network, phase))
      return seconds + phase.latencySeconds + (ceiling?.latencySeconds ?? 0) + flowing
    }, 0)
  }
}

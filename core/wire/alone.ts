// How long a collective takes with only its like on the links: what planners reckon with. Knows no clock and no other traffic.
import type { Group } from "../world.ts"
import { legSeconds, legsOf, type CollectiveOptions } from "./legs.ts"
import type { Network } from "./network.ts"

/**
 * Seconds of a collective of so many bytes with only its like on the links: what planners reckon with.
 *
 * @param widening bytes of sums per byte that is sent, of an all-reduce over a narrow wire
 */
export const aloneSeconds = (
  network: Network,
  kernel: string,
  group: Group,
  options: CollectiveOptions,
  widening = 1
): ((sizeBytes: number) => number) => {
  const groups = group.alike ?? [group.ranks]
  return (sizeBytes) =>
    legsOf(network, { kernel, sizeBytes, from: 0, widening }, groups, groups, options).legs.reduce(
      (seconds, leg) => seconds + legSeconds(leg),
      0
    )
}

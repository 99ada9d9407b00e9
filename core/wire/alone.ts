// How long a collective takes with only its like on the links: what planners reckon with. Knows no clock and no other traffic.
import type { Op } from "../machine/op.ts"
import type { Group } from "../world.ts"
import { hasWaits, legSeconds, legsOf, wideningOf, type CollectiveOptions } from "./legs.ts"
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

/** How much longer a collective takes that begins while kernels of its ranks run, seconds; 0 of anything else. */
export const waitBeside =
  (network: Network, options: CollectiveOptions) =>
  ({ group, kernel, sizeBytes }: Op): number => {
    if (group === undefined || group.ranks.length < 2 || !hasWaits(options)) return 0
    const groups = group.alike ?? [group.ranks]
    return legsOf(network, { kernel: kernel.name, sizeBytes, from: 0 }, groups, groups, options).waitSeconds
  }

/**
 * Seconds of any op with only its like beside it: a kernel's as `kernelSeconds` says, a collective's by its links, those of one
 * kind, size and group reckoned once.
 */
export const secondsAlone = (
  network: Network,
  options: CollectiveOptions,
  kernelSeconds: (op: Op) => number
): ((op: Op) => number) => {
  const known = new Map<Group, Map<string, number>>()
  return (op) => {
    const { group, kernel, sizeBytes } = op
    if (group === undefined) return kernelSeconds(op)
    const own = known.get(group) ?? new Map<string, number>()
    known.set(group, own)
    const widening = wideningOf(op)
    const key = `${kernel.name} ${sizeBytes} ${widening}`
    const before = own.get(key)
    if (before !== undefined) return before
    const seconds = aloneSeconds(network, kernel.name, group, options, widening)(sizeBytes)
    own.set(key, seconds)
    return seconds
  }
}

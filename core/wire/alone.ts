// How long a collective takes with only its like on the links: what planners reckon with. Knows no clock and no other traffic.
import type { Op } from "../machine/op.ts"
import type { Group } from "../world.ts"
import { greatest } from "../extremes.ts"
import { hasWaits, legSeconds, legsOf, wideningOf, type CollectiveOptions } from "./legs.ts"
import type { Network } from "./network.ts"
import { composedAlike, kindsOf } from "./symmetry.ts"

type Groups = ReadonlyArray<ReadonlyArray<number>>

/** A group and those that do the same at the same time, as they go over the links. */
interface Together {
  readonly alike: Groups
  /** Those that are one flow, each laid out by itself where they are not all alike: a site of one node has other phases than one of two. */
  readonly flows: ReadonlyArray<Groups>
}

const togetherOf = (network: Network, { ranks, alike = [ranks] }: Group): Together =>
  composedAlike(network.ranks, alike)
    ? { alike, flows: [alike] }
    : { alike, flows: kindsOf(network.ranks, alike).map((one) => [one]) }

/** One that is as long as the longest of those that do the same. */
const secondsOf = (
  network: Network,
  message: Parameters<typeof legsOf>[1],
  { alike, flows }: Together,
  options: CollectiveOptions
): number =>
  greatest(
    flows.map((flow) =>
      legsOf(network, message, flow, alike, options).legs.reduce(
        (seconds, leg) => seconds + legSeconds(leg),
        0
      )
    )
  )

/**
 * Seconds of a collective of so many bytes with only its like on the links: what planners reckon with. Of groups that are not all
 * alike, the last one's.
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
  const together = togetherOf(network, group)
  return (sizeBytes) => secondsOf(network, { kernel, sizeBytes, from: 0, widening }, together, options)
}

/** How much longer a collective takes that begins while kernels of its ranks run, seconds; 0 of anything else. */
export const waitBeside = (network: Network, options: CollectiveOptions): ((op: Op) => number) => {
  const known = new Map<Group, Together>()
  return ({ group, kernel, sizeBytes }) => {
    if (group === undefined || group.ranks.length < 2 || !hasWaits(options)) return 0
    let together = known.get(group)
    if (together === undefined) known.set(group, (together = togetherOf(network, group)))
    const { alike, flows } = together
    const message = { kernel: kernel.name, sizeBytes, from: 0 }
    return greatest(flows.map((flow) => legsOf(network, message, flow, alike, options).waitSeconds))
  }
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
  const known = new Map<Group, { readonly together: Together; readonly seconds: Map<string, number> }>()
  return (op) => {
    const { group, kernel, sizeBytes } = op
    if (group === undefined) return kernelSeconds(op)
    let own = known.get(group)
    if (own === undefined)
      known.set(group, (own = { together: togetherOf(network, group), seconds: new Map() }))
    const widening = wideningOf(op)
    const key = `${kernel.name} ${sizeBytes} ${widening}`
    let seconds = own.seconds.get(key)
    if (seconds === undefined) {
      seconds = secondsOf(
        network,
        { kernel: kernel.name, sizeBytes, from: 0, widening },
        own.together,
        options
      )
      own.seconds.set(key, seconds)
    }
    return seconds
  }
}

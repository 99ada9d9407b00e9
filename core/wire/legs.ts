// What a collective puts on the wire: its legs one after another, each with the links it crosses, its bytes, and how slow the
// software that was measured makes it. The simulator, the executor's emulated links and closed forms all read it from here.
// Knows no clock and no other traffic.
import type { CollectiveTable } from "../cost/collective-table.ts"
import type { Estimate } from "../cost/provenance.ts"
import type { Op } from "../machine/op.ts"
import type { CollectiveAlgorithm, Network, Phase } from "./network.ts"
import { unevenRows, type UnevenRows } from "./uneven.ts"
import { inTurns } from "./windows.ts"

/**
 * Up to so many bytes of one rank's input, a direct all-reduce sends everything to everybody where sums by shares would be as many
 * bytes: one latency less. As this project's processes do it (`oneShotBytes` of native/transport/collective-plan.cc).
 */
export const oneShotBytes = 2 ** 18

/** How collectives are laid out, and what bounds them beside the links. */
export interface CollectiveOptions {
  readonly algorithm: CollectiveAlgorithm
  /** Measured times that bound how fast a collective can be, whatever the links. */
  readonly table?: CollectiveTable | undefined
  /** The same of what stays inside a node. Default: `table`. */
  readonly inside?: CollectiveTable | undefined
  /** Links change during the run: each collective pays the latency, and the software's, that holds when it starts. */
  readonly linksVary?: boolean
  /**
   * Share of a rank's own port (its slot on the host, the multiprocessors that move its bytes) that a collective takes at
   * its full speed. Above one half, two collectives of a rank that run at once slow each other. Default: none.
   */
  readonly portShare?: number | undefined
  /** How many times as long a rank's kernels take while a collective of it is under way, or waits for other ranks. Default: 1. */
  readonly slowdown?: number | undefined
  /** The same beside one whose members are all of one node. Default: `slowdown`. */
  readonly slowdownInside?: number | undefined
  /**
   * How much longer a collective takes that begins while a kernel of its rank runs, until its own kernels get multiprocessors, seconds.
   * Default: by what the table was measured to take beside kernels; nothing where it was not.
   */
  readonly waitSeconds?: number | undefined
  /** Of direct collectives: senders wait until they hear that receivers are there, the farthest hop's delay more. Default: they are known to be. */
  readonly handshake?: boolean | undefined
  /** Of rings of even parts: so many bytes of each step go around at a time, and the next when they have. Default: all at once. */
  readonly chunkBytes?: number | undefined
}

/** Whether any collective waits that begins beside kernels. */
export const hasWaits = ({ table, inside, waitSeconds }: CollectiveOptions): boolean =>
  waitSeconds === undefined ? table?.hasWaits === true || inside?.hasWaits === true : waitSeconds > 0

/** A collective as the wire sees it. */
interface Message {
  readonly kernel: string
  /** Bytes that one rank puts in. */
  readonly sizeBytes: number
  /** Position in the group of the member whose bytes the others get: of a broadcast's root, of a message's source. */
  readonly from: number
  /** Bytes of an all-reduce's sums per byte that is sent. Default: 1. */
  readonly widening?: number
  /** Where members put in different numbers of rows. */
  readonly uneven?: UnevenRows | undefined
}

/** What `rank` says of a collective that it takes part in; the other members say the same. */
export const messageOf = (op: Op, rank: number): Message => ({
  kernel: op.kernel.name,
  sizeBytes: op.sizeBytes,
  from: senderOf(op, rank),
  widening: wideningOf(op),
  uneven: unevenRows(op)
})

/**
 * Bytes of sums per byte that is sent, of an all-reduce: of all tensors of the message together, as real processes send them
 * (`CollectivePlan::oneShot` of native/transport).
 */
export const wideningOf = ({ kernel, writes, sizeBytes }: Op): number => {
  if (kernel.name !== "all_reduce" || sizeBytes === 0) return 1
  let sumBytes = 0
  for (const tensor of writes) sumBytes += tensor.sizeBytes
  return sumBytes / sizeBytes
}

const senderOf = ({ kernel, attributes, group }: Op, rank: number): number => {
  if (kernel.name === "broadcast") return Number(attributes["root"] ?? 0)
  if (kernel.name !== "send_recv") return 0
  const own = group!.ranks.indexOf(rank)
  return attributes["source"] === true ? own : 1 - own
}

/** One stretch of a collective: pay the phase's latency and the software's, then move the bytes through every link at once. */
export interface Leg {
  readonly phase: Phase
  readonly bytes: number
  /** Of the software, where measured: the part of its time in which no byte needs to flow at the links' full speed. */
  readonly softwareSeconds: number
  /** The same with the links as they are now, after `Network.setLink`. */
  readonly softwareNowSeconds: () => number
  /** What bounds the flow beside its links' bandwidths, flow bytes per second: the software's rate where measured, windows, turns. Infinity: nothing. */
  readonly bytesPerSecondMax: number
  /** The same with the links as they are now. */
  readonly bytesPerSecondMaxNow: () => number
  /** How fast the bytes flow with only this collective, and those alike, on the links. */
  readonly aloneBytesPerSecond: number
}

export interface Legs {
  readonly legs: ReadonlyArray<Leg>
  /** How much longer it takes where it begins beside kernels. */
  readonly waitSeconds: number
  /** The same with the links as they are now. */
  readonly waitNowSeconds: () => number
  /** What the table of measured collectives does not have, and what stands for it. */
  readonly estimate: Estimate | undefined
}

type Load = Pick<Phase, "links" | "weights">

/** Flow bytes per second of a phase that has its links to itself; of a link by itself `bytesPerSecond` says them. */
export const linkRate = ({ links, weights }: Load, bytesPerSecond: (link: number) => number): number => {
  let rate = Infinity
  links.forEach((link, i) => {
    rate = Math.min(rate, bytesPerSecond(link) / weights[i]!)
  })
  return rate
}

/**
 * How much longer a measured leg takes that begins beside kernels: it waits for multiprocessors, and then the software takes
 * longer, which costs nothing where links let no more pass.
 *
 * @param ceilingSeconds the software's time alone, links left out
 * @param aloneSeconds the leg's time alone on its links, without their latency
 */
const longerBeside = (
  { waitSeconds, moreSeconds }: NonNullable<ReturnType<CollectiveTable["besideKernels"]>>,
  ceilingSeconds: number,
  aloneSeconds: number
): number => waitSeconds + Math.max(0, ceilingSeconds + moreSeconds - aloneSeconds)

/**
 * A measured leg takes the longer of its measured time and its time on the wire, after the latency of the links: the software
 * sends while it computes, so the two do not add up. At contended links the bytes flow slower, after the same start.
 *
 * @param together groups whose traffic is one flow: those that the simulated ranks stand for
 * @param alike all groups that do the same at the same time; on their links this one has its share
 */
export const legsOf = (
  network: Network,
  { kernel, sizeBytes, from, widening, uneven }: Message,
  together: ReadonlyArray<ReadonlyArray<number>>,
  alike: ReadonlyArray<ReadonlyArray<number>>,
  options: CollectiveOptions
): Legs => {
  const { algorithm, table: between, inside = between, waitSeconds: stated, handshake = false } = options
  const ranks = together[0]!
  const short = sizeBytes <= oneShotBytes
  const plain =
    uneven === undefined
      ? network.phases(kernel, algorithm, together, from, widening, short)
      : ranks.length < 2
        ? []
        : [network.unevenPhase(kernel, ranks, uneven.rows)]
  const phases = handshake && algorithm === "direct" ? heard(network, together, plain) : plain
  const beside =
    uneven !== undefined || alike === together
      ? phases
      : besideOf(phases, network.phases(kernel, algorithm, alike, from, widening, short))
  const lacking = new Set<string>()
  let outside = false
  const waits: Array<(now: boolean) => number> = stated === undefined ? [] : [() => stated]
  const legs = phases.map((phase, index): Leg => {
    const bytes = uneven?.rowBytes ?? phase.unitsPerByte * sizeBytes
    const wire = linkRate(beside[index]!, (link) => network.links[link]!.spec.bytesPerSecond)
    const wireNow = (): number => linkRate(beside[index]!, (link) => network.bytesPerSecondNow(link))
    const inTurn = inTurns(phase.turns, phase.latencyNowSeconds, options.chunkBytes)
    /** Infinity where neither windows nor turns hold anything back. */
    const windowRate = (rate: number): number => {
      const held = Math.max(phase.held(bytes, rate), inTurn(bytes, rate))
      return held > 0 ? bytes / (bytes / rate + held) : Infinity
    }
    const wireRate = Math.min(wire, windowRate(wire))
    const { like } = phase
    // Uneven ones between nodes may move nothing.
    const stays = uneven === undefined ? network.staysInside(phase) : network.onOneNode(ranks)
    const table = stays ? inside : between
    const message = uneven?.messageBytes ?? like.share * sizeBytes
    const ceiling = table?.ceiling(like.kernel, like.ranks, message)
    if (ceiling === undefined) {
      if (table !== undefined) lacking.add(like.kernel)
      const softwareNowSeconds = () => 0
      return {
        phase,
        bytes,
        softwareSeconds: 0,
        softwareNowSeconds,
        bytesPerSecondMax: windowRate(wire),
        bytesPerSecondMaxNow: () => windowRate(wireNow()),
        aloneBytesPerSecond: wireRate
      }
    }
    outside ||= !ceiling.inside
    const flowing = ceiling.seconds - ceiling.latencySeconds
    const softwareRate = flowing > 0 ? bytes / flowing : Infinity
    const bytesPerSecondMaxNow = (): number => Math.min(softwareRate, windowRate(wireNow()))
    const bytesPerSecondMax = Math.min(softwareRate, windowRate(wire))
    // Where links alone take longer than what was measured, none of the software's time is left over.
    const softwareAt = (rate: number): number =>
      Math.min(ceiling.latencySeconds, Math.max(0, ceiling.seconds - (rate === Infinity ? 0 : bytes / rate)))
    const leg: Leg = {
      phase,
      bytes,
      softwareSeconds: softwareAt(wireRate),
      softwareNowSeconds: () => softwareAt(Math.min(wireNow(), windowRate(wireNow()))),
      bytesPerSecondMax,
      bytesPerSecondMaxNow,
      aloneBytesPerSecond: Math.min(bytesPerSecondMax, wireRate)
    }
    const besideKernels = stated === undefined ? table!.besideKernels(like.kernel, message) : undefined
    if (besideKernels !== undefined)
      waits.push((now) =>
        longerBeside(
          besideKernels,
          ceiling.seconds,
          now
            ? leg.softwareNowSeconds() + flowSeconds(bytes, Math.min(bytesPerSecondMaxNow(), wireNow()))
            : leg.softwareSeconds + flowSeconds(bytes, leg.aloneBytesPerSecond)
        )
      )
    return leg
  })
  const parts =
    phases.length > 1 ? `${phases.map(({ like }) => `${like.kernel} of ${like.ranks}`).join(", ")}: ` : ""
  const estimate: Estimate | undefined =
    lacking.size > 0
      ? {
          kernel,
          source: "extrapolated",
          detail: `${parts}${[...lacking].join(", ")} not in the table of measured collectives: links alone bound it`
        }
      : outside
        ? {
            kernel,
            source: "extrapolated",
            detail: `${parts}ranks or a message of this size lie outside the table of measured collectives`
          }
        : undefined
  const waitSeconds = (now: boolean): number => waits.reduce((sum, wait) => sum + wait(now), 0)
  return { legs, waitSeconds: waitSeconds(false), waitNowSeconds: () => waitSeconds(true), estimate }
}

const heardFirst = new WeakMap<Phase, Phase>()

/** Phases of which the first begins when receivers have said that they are there. */
const heard = (
  network: Network,
  groups: ReadonlyArray<ReadonlyArray<number>>,
  [first, ...others]: ReadonlyArray<Phase>
): ReadonlyArray<Phase> => {
  if (first === undefined) return []
  let later = heardFirst.get(first)
  if (later === undefined) {
    const way = network.farthest(groups)
    const { latencySeconds, latencyNowSeconds } = first
    later = {
      ...first,
      latencySeconds: latencySeconds + way(),
      latencyNowSeconds: () => latencyNowSeconds() + way()
    }
    heardFirst.set(first, later)
  }
  return [later, ...others]
}

/**
 * What all groups that do the same put on the links of each phase of this one; where they are not laid out as it is, as those of
 * unlike nodes may not be, what it puts there itself.
 */
const besideOf = (own: ReadonlyArray<Phase>, all: ReadonlyArray<Phase>): ReadonlyArray<Load> => {
  const comparable =
    all.length === own.length &&
    all.every(({ like }, i) => like.kernel === own[i]!.like.kernel && like.ranks === own[i]!.like.ranks)
  return comparable ? own.map((phase, i) => loadOn(phase, all[i]!)) : own
}

const loads = new WeakMap<Phase, { readonly all: Phase; readonly load: Load }>()

/** What `all` puts on the links of a phase that is one of it. */
const loadOn = (own: Phase, all: Phase): Load => {
  let known = loads.get(own)
  if (known?.all !== all) {
    const weightOf = new Map(Array.from(all.links, (link, i) => [link, all.weights[i]!]))
    const weights = Float64Array.from(own.links, (link) => weightOf.get(link)!)
    loads.set(own, (known = { all, load: { links: own.links, weights } }))
  }
  return known.load
}

const flowSeconds = (bytes: number, bytesPerSecond: number): number =>
  bytesPerSecond === Infinity || bytes === 0 ? 0 : bytes / bytesPerSecond

/** Seconds of one leg alone on its links. */
export const legSeconds = ({ phase, bytes, softwareSeconds, aloneBytesPerSecond }: Leg): number =>
  phase.latencySeconds + softwareSeconds + flowSeconds(bytes, aloneBytesPerSecond)

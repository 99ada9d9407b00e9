// Turns a collective into engine activities that every simulated member joins: one chain of phases, held until all have
// come. Who meets whom is core/machine/collective-order.ts's. Knows nothing of lanes or programs.
import type { Communicator, Meeting } from "../core/machine/collective-order.ts"
import type { Op } from "../core/machine/op.ts"
import { hasWaits, legsOf, messageOf, type CollectiveOptions, type Leg } from "../core/wire/legs.ts"
import { IdleOptions, type CollectiveOption } from "../core/wire/idle.ts"
import type { Group, World } from "../core/world.ts"
import type { Estimate } from "../core/cost/cost-model.ts"
import { beginningKey, type Activity, type Engine, type Route } from "./engine/engine.ts"
import type { Network, Phase } from "../core/wire/network.ts"
import { composedAlike, type Classes, type Symmetry } from "../core/wire/symmetry.ts"

/** What a joining rank puts into its lane: the lane waits for `last`; `first` waits for the lane. */
interface Joined {
  readonly first: Activity
  readonly last: Activity
  /** How much longer it takes that begins now beside kernels; undefined where none does. */
  readonly waitSeconds: Wait
}

type Wait = (() => number) | undefined

interface Routed {
  readonly legs: ReadonlyArray<RoutedLeg>
  readonly waitSeconds: Wait
}

interface RoutedLeg {
  readonly route: Route
  readonly phase: Phase
  readonly bytes: number
  readonly latencySeconds: number
  readonly bytesPerSecondMax: number
}

export class Collectives {
  readonly #engine: Engine
  readonly #network: Network
  readonly #ranks: Classes
  readonly #options: CollectiveOptions
  // The groups that a communicator's flows stand for: those alike where ranks stand for others, itself alone otherwise.
  readonly #together = new Map<Communicator, ReadonlyArray<ReadonlyArray<number>>>()
  // Collectives that some members have joined.
  readonly #joined = new Map<Meeting, Joined>()
  readonly #legs = new Map<Op, Routed>()
  readonly #routes = new Map<Phase, Route>()
  /** How flows begin whose links vary. */
  readonly #beginnings: Array<() => { readonly latencySeconds: number; readonly bytesPerSecondMax: number }> =
    []
  readonly #notes = new Map<string, Estimate>()
  readonly #idle: IdleOptions
  /** Told when all members have joined a collective: what each submitted, in group order, and its last activity. */
  onMet:
    | ((meeting: Meeting, ranks: ReadonlyArray<number>, ops: ReadonlyArray<Op>, last: Activity) => void)
    | undefined
  /** Bytes that crossed each link class so far, over all its links. */
  readonly linkBytes: Float64Array

  constructor(
    engine: Engine,
    network: Network,
    world: World,
    symmetry: Symmetry,
    options: CollectiveOptions
  ) {
    this.#engine = engine
    this.#network = network
    this.#ranks = symmetry.ranks
    this.#options = options
    this.#idle = new IdleOptions(world, symmetry, network, options)
    this.linkBytes = new Float64Array(network.links.length)
    if (options.linksVary === true) engine.beginningOf = (key) => this.#beginnings[key]!()
  }

  get estimates(): ReadonlyArray<Estimate> {
    return [...this.#notes.values()]
  }

  /** Options that no collective so far is laid out otherwise for. */
  get idle(): ReadonlySet<CollectiveOption> {
    return this.#idle.found
  }

  /**
   * A member comes to its collective, as the order of collectives found it. The activities it gets are held once for it: it
   * must release `first` when its own predecessors are in place.
   */
  join(meeting: Meeting): Joined {
    const { communicator, missing, ops } = meeting
    // One rank that stands for all members meets nobody.
    const alone = communicator.members === 1
    let joined = alone ? undefined : this.#joined.get(meeting)
    if (joined === undefined) {
      joined = this.#start(meeting)
      // Born with one hold; every further member adds its own before anyone can release the last.
      for (let i = 1; i < communicator.members; i++) this.#engine.hold(joined.first)
      if (!alone) this.#joined.set(meeting, joined)
    }
    if (missing > 0) return joined
    if (!alone) this.#joined.delete(meeting)
    if (this.onMet !== undefined && ops !== undefined) {
      const ranks = communicator.group.ranks.filter((member) => ops.has(member))
      this.onMet(
        meeting,
        ranks,
        ranks.map((member) => ops.get(member)!),
        joined.last
      )
    }
    return joined
  }

  #togetherOf(communicator: Communicator): ReadonlyArray<ReadonlyArray<number>> {
    const known = this.#together.get(communicator)
    if (known !== undefined) return known
    const { group } = communicator
    const { classOf, sizes } = this.#ranks
    const shared = group.ranks.some((rank) => sizes[classOf[rank]!]! > 1)
    const together = (shared ? group.alike : undefined) ?? [group.ranks]
    this.#requireWhole(group, together)
    this.#together.set(communicator, together)
    return together
  }

  /**
   * A rank that stands for others can only join a group that has all of them, itself or together with groups alike that have
   * as many of each kind: other traffic of groups of their own would be missing. Groups alike of one rank have none. Throws
   * RangeError otherwise.
   */
  #requireWhole(group: Group, together: ReadonlyArray<ReadonlyArray<number>>): void {
    const { classOf, sizes, representatives } = this.#ranks
    const own = new Map<number, number>()
    for (const rank of group.ranks) own.set(classOf[rank]!, (own.get(classOf[rank]!) ?? 0) + 1)
    const even = composedAlike(this.#ranks, together)
    if (even && together.length > 1 && group.ranks.length === 1) return
    for (const [id, count] of own) {
      if (even && count * together.length === sizes[id]) continue
      throw new RangeError(
        `group "${group.name}" has ${count} of the ${sizes[id]} ranks that rank ${representatives[id]} stands for: simulate with symmetric: false, or have the algorithm's plan say that ranksDiffer`
      )
    }
  }

  #start(meeting: Meeting): Joined {
    const { legs, waitSeconds } = this.#legsOf(meeting)
    const engine = this.#engine
    if (legs.length === 0) {
      const nothing = engine.work(0)
      return { first: nothing, last: nothing, waitSeconds: undefined }
    }
    let first = -1
    let last = -1
    for (const leg of legs) {
      const { links, totals } = leg.phase
      for (let i = 0; i < links.length; i++) this.linkBytes[links[i]!]! += totals[i]! * leg.bytes
      const activity = engine.flow(leg.route, leg.bytes, leg.latencySeconds, leg.bytesPerSecondMax)
      if (last < 0) first = activity
      else {
        engine.after(activity, last)
        engine.release(activity)
      }
      last = activity
    }
    return { first, last, waitSeconds }
  }

  #latency({ phase, softwareSeconds, softwareNowSeconds, bytesPerSecondMaxNow }: Leg): number {
    if (this.#options.linksVary !== true) return phase.latencySeconds + softwareSeconds
    this.#beginnings.push(() => ({
      latencySeconds: phase.latencyNowSeconds() + softwareNowSeconds(),
      bytesPerSecondMax: bytesPerSecondMaxNow()
    }))
    return beginningKey(this.#beginnings.length - 1)
  }

  /** Flows of a collective; the same for every submission of one op. */
  #legsOf(meeting: Meeting): Routed {
    const { op } = meeting
    const known = this.#legs.get(op)
    if (known !== undefined) return known
    const legs = this.#makeLegs(meeting)
    this.#legs.set(op, legs)
    return legs
  }

  #makeLegs({ communicator, op, byRank }: Meeting): Routed {
    const { group } = communicator
    const together = this.#togetherOf(communicator)
    const message = messageOf(op, byRank)
    // Beside groups of their own that do the same, on the same links.
    const alike = together.length > 1 || group.alike === undefined ? together : group.alike
    const laidOut = legsOf(this.#network, message, together, alike, this.#options)
    this.#idle.met(laidOut, message, together, alike)
    const { legs, waitSeconds, waitNowSeconds, estimate } = laidOut
    if (estimate !== undefined) this.#notes.set(`${estimate.kernel} ${estimate.detail}`, estimate)
    const { portShare, linksVary } = this.#options
    const routed = legs.map((leg): RoutedLeg => {
      const { phase, bytes, bytesPerSecondMax, aloneBytesPerSecond } = leg
      const latencySeconds = this.#latency(leg)
      // What takes no time takes nothing of a port.
      const ported = portShare !== undefined && aloneBytesPerSecond > 0 && aloneBytesPerSecond < Infinity
      const route = ported
        ? this.#withPorts(phase, group.ranks, portShare / aloneBytesPerSecond)
        : this.#routed(phase)
      return { route, phase, bytes, latencySeconds, bytesPerSecondMax }
    })
    if (linksVary === true && hasWaits(this.#options)) return { legs: routed, waitSeconds: waitNowSeconds }
    return { legs: routed, waitSeconds: waitSeconds > 0 ? () => waitSeconds : undefined }
  }

  #routed(phase: Phase): Route {
    let route = this.#routes.get(phase)
    if (route === undefined) this.#routes.set(phase, (route = this.#engine.route(phase.links, phase.weights)))
    return route
  }

  /** The phase's links and the ports of all members, of which a byte of the flow takes so much. */
  #withPorts({ links, weights }: Phase, ranks: ReadonlyArray<number>, portPerByte: number): Route {
    const ports = [...new Set(ranks.map((rank) => this.#ranks.classOf[rank]!))]
    return this.#engine.route(
      Int32Array.of(...links, ...ports.map((port) => this.#network.links.length + port)),
      Float64Array.of(...weights, ...ports.map(() => portPerByte))
    )
  }
}

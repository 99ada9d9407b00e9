// Turns a collective into engine activities that every simulated member joins: one chain of phases, held until all have
// come. Checks that members agree on the order of collectives. Knows nothing of lanes or programs.
import { fitsCollective } from "../core/machine/collective-fit.ts"
import { CollectiveMismatch } from "../core/machine/machine.ts"
import type { Op } from "../core/machine/op.ts"
import { legsOf, messageOf, type CollectiveOptions } from "../core/wire/legs.ts"
import type { Group } from "../core/world.ts"
import type { Estimate } from "../core/cost/cost-model.ts"
import { latencyKey, type Activity, type Engine, type Route } from "./engine/engine.ts"
import type { Network, Phase } from "../core/wire/network.ts"
import type { Classes } from "../core/wire/symmetry.ts"

/** What a joining rank puts into its lane: the lane waits for `last`; `first` waits for the lane. */
export interface Joined {
  readonly first: Activity
  readonly last: Activity
}

/** One collective that some members have joined. */
interface Meeting extends Joined {
  readonly op: Op
  readonly byRank: number
  /** What each rank submitted; kept only where someone asks for it. */
  readonly joined: Map<number, Op> | undefined
  missing: number
}

/** A communicator: who of it is simulated, and the collectives not yet joined by all, in order. */
interface Communicator {
  readonly group: Group
  /** The groups that its flows stand for: those alike where ranks stand for others, itself alone otherwise. */
  readonly together: ReadonlyArray<ReadonlyArray<number>>
  readonly members: number
  /** Collectives each simulated rank has submitted so far. */
  readonly position: Map<number, number>
  readonly open: Map<number, Meeting>
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
  // By name, since every rank makes its own group object; and by object, because that is found faster.
  readonly #communicators = new Map<string, Communicator>()
  readonly #communicatorOf = new Map<Group, Communicator>()
  readonly #legs = new Map<Op, ReadonlyArray<RoutedLeg>>()
  readonly #routes = new Map<Phase, Route>()
  readonly #latencies: Array<() => number> = []
  readonly #notes = new Map<string, Estimate>()
  /** Told when all members have joined a collective: what each submitted, in group order, and its last activity. */
  onMet: ((ranks: ReadonlyArray<number>, ops: ReadonlyArray<Op>, last: Activity) => void) | undefined
  /** Bytes that crossed each link class so far, over all its links. */
  readonly linkBytes: Float64Array

  constructor(engine: Engine, network: Network, ranks: Classes, options: CollectiveOptions) {
    this.#engine = engine
    this.#network = network
    this.#ranks = ranks
    this.#options = options
    this.linkBytes = new Float64Array(network.links.length)
    if (options.latencyVaries === true) engine.latencyOf = (key) => this.#latencies[key]!()
  }

  get estimates(): ReadonlyArray<Estimate> {
    return [...this.#notes.values()]
  }

  /** Collectives that some but not all members have submitted, for the message of a deadlock. */
  get unmet(): ReadonlyArray<string> {
    return [...this.#communicators.values()].flatMap(({ group, open, members }) =>
      [...open].map(
        ([position, { op, missing }]) =>
          `collective ${position} of group "${group.name}" (${op.label}): ${members - missing} of ${members} simulated ranks joined`
      )
    )
  }

  /**
   * `rank` joins its next collective on the op's group. The activities it gets are held once for it: it must release
   * `first` when its own predecessors are in place.
   */
  join(rank: number, op: Op): Joined | CollectiveMismatch {
    const communicator = this.#communicatorOf.get(op.group!) ?? this.#communicator(op.group!)
    // One rank that stands for all members meets nobody.
    if (communicator.members === 1 && this.onMet === undefined) return this.#start(communicator, op, rank)
    const position = communicator.position.get(rank) ?? 0
    communicator.position.set(rank, position + 1)
    let meeting = communicator.open.get(position)
    if (meeting === undefined) {
      meeting = {
        ...this.#start(communicator, op, rank),
        op,
        byRank: rank,
        joined: this.onMet === undefined ? undefined : new Map(),
        missing: communicator.members
      }
      // Born with one hold; every further member adds its own before anyone can release the last.
      for (let i = 1; i < communicator.members; i++) this.#engine.hold(meeting.first)
      if (communicator.members > 1) communicator.open.set(position, meeting)
    } else if (!fitsCollective(meeting.op, op)) {
      return new CollectiveMismatch({
        group: communicator.group.name,
        position,
        rank,
        submitted: describe(op),
        expected: describe(meeting.op),
        expectedByRank: meeting.byRank
      })
    }
    meeting.missing--
    meeting.joined?.set(rank, op)
    if (meeting.missing === 0) {
      communicator.open.delete(position)
      if (this.onMet !== undefined) {
        const ranks = communicator.group.ranks.filter((member) => meeting.joined!.has(member))
        this.onMet(
          ranks,
          ranks.map((member) => meeting.joined!.get(member)!),
          meeting.last
        )
      }
    }
    return meeting
  }

  #communicator(group: Group): Communicator {
    const known = this.#communicators.get(group.name)
    if (known !== undefined) {
      this.#communicatorOf.set(group, known)
      return known
    }
    const { classOf, sizes, representatives } = this.#ranks
    const simulated = new Set(representatives)
    const shared = group.ranks.some((rank) => sizes[classOf[rank]!]! > 1)
    const together = (shared ? group.alike : undefined) ?? [group.ranks]
    this.#requireWhole(group, together)
    const communicator: Communicator = {
      group,
      together,
      members: group.ranks.filter((rank) => simulated.has(rank)).length,
      position: new Map(),
      open: new Map()
    }
    this.#communicators.set(group.name, communicator)
    this.#communicatorOf.set(group, communicator)
    return communicator
  }

  /**
   * A rank that stands for others can only join a group that has all of them, itself or together with groups alike that have
   * as many of each kind: other traffic of groups of their own would be missing. Throws RangeError otherwise.
   */
  #requireWhole(group: Group, together: ReadonlyArray<ReadonlyArray<number>>): void {
    const { classOf, sizes, representatives } = this.#ranks
    const countsOf = (ranks: ReadonlyArray<number>): ReadonlyMap<number, number> => {
      const counts = new Map<number, number>()
      for (const rank of ranks) counts.set(classOf[rank]!, (counts.get(classOf[rank]!) ?? 0) + 1)
      return counts
    }
    const own = countsOf(group.ranks)
    const even = together.every((ranks) => {
      const counts = countsOf(ranks)
      return counts.size === own.size && [...counts].every(([id, count]) => own.get(id) === count)
    })
    for (const [id, count] of own) {
      if (even && count * together.length === sizes[id]) continue
      throw new RangeError(
        `group "${group.name}" has ${count} of the ${sizes[id]} ranks that rank ${representatives[id]} stands for: simulate with symmetric: false`
      )
    }
  }

  #start(communicator: Communicator, op: Op, rank: number): Joined {
    const legs = this.#legsOf(communicator, op, rank)
    const engine = this.#engine
    if (legs.length === 0) {
      const nothing = engine.work(0)
      return { first: nothing, last: nothing }
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
    return { first, last }
  }

  #latency(phase: Phase, moreSeconds: number): number {
    if (this.#options.latencyVaries !== true) return phase.latencySeconds + moreSeconds
    this.#latencies.push(() => phase.latencyNowSeconds() + moreSeconds)
    return latencyKey(this.#latencies.length - 1)
  }

  /** Flows of a collective; the same for every submission of one op. */
  #legsOf(communicator: Communicator, op: Op, rank: number): ReadonlyArray<RoutedLeg> {
    const known = this.#legs.get(op)
    if (known !== undefined) return known
    const legs = this.#makeLegs(communicator, op, rank)
    this.#legs.set(op, legs)
    return legs
  }

  #makeLegs({ group, together }: Communicator, op: Op, rank: number): ReadonlyArray<RoutedLeg> {
    const message = messageOf(op, rank)
    // Beside groups of their own that do the same, on the same links.
    const alike = together.length > 1 || group.alike === undefined ? together : group.alike
    const { legs, estimate } = legsOf(this.#network, message, together, alike, this.#options)
    if (estimate !== undefined) this.#notes.set(`${estimate.kernel} ${estimate.detail}`, estimate)
    const { portShare } = this.#options
    return legs.map((leg): RoutedLeg => {
      const { phase, bytes, softwareSeconds, bytesPerSecondMax, aloneBytesPerSecond } = leg
      const latencySeconds = this.#latency(phase, softwareSeconds)
      // What takes no time takes nothing of a port.
      const ported = portShare !== undefined && aloneBytesPerSecond > 0 && aloneBytesPerSecond < Infinity
      const route = ported
        ? this.#withPorts(phase, group.ranks, portShare / aloneBytesPerSecond)
        : this.#routed(phase)
      return { route, phase, bytes, latencySeconds, bytesPerSecondMax }
    })
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

const describe = (op: Op): string => `${op.kernel.name} "${op.label}" of ${op.sizeBytes} B`

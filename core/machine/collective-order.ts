// Holds ranks to one order of collectives per communicator, at submission: whatever two members contradict each other in is
// found where it is made, before anyone waits for a partner that never comes. Knows nothing of lanes, bytes on wires or time.
//
// A communicator is a name and the ranks behind it, in order. One name stands for one list of ranks throughout a run; two
// names over the same ranks are two communicators, each with an order of its own, as after splitting one twice in NCCL.
import { isCollective, memberRows, type Collective } from "../kernels/collectives.ts"
import type { Member } from "../kernels/evaluate.ts"
import type { Group } from "../world.ts"
import { CollectiveMismatch } from "./machine.ts"
import type { Op } from "./op.ts"
import type { Tensor, TensorData } from "./tensor.ts"

export interface Communicator {
  readonly group: Group
  /** How many of its ranks this order hears of. */
  readonly members: number
  readonly byRank: number
  /** Collectives that some but not all of these have submitted, by position. */
  readonly open: Map<number, Meeting>
  readonly seats: Map<number, Seat>
  /** Whether this order hears of a rank. */
  readonly present: (rank: number) => boolean
}

/** One collective, as its members come to it. */
export interface Meeting {
  readonly communicator: Communicator
  /** Which of the communicator's collectives it is, from 0. */
  readonly position: number
  /** What the first to come submitted, and who that was. */
  readonly op: Op
  readonly byRank: number
  /** What every member must submit alike. */
  readonly terms: string
  /** Members still to come. */
  missing: number
  /** What each member submitted; where it is kept. */
  readonly ops: Map<number, Op> | undefined
}

/** A collective whose values are computed: which one it is, and what its members bring and get, in group order. */
export interface ComputedCollective {
  /** The communicator's name, and which of its collectives it is, from 0. */
  readonly group: string
  readonly position: number
  readonly kernel: Collective
  readonly ranks: ReadonlyArray<number>
  readonly ops: ReadonlyArray<Op>
  readonly members: ReadonlyArray<Member>
  /** What a tensor of a rank holds now. */
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

/**
 * Hears of a collective while its members' inputs are there; what it returns is called when its results are, before anything reads
 * them: it may put others in their place.
 */
export type OnCollective = (computed: ComputedCollective) => (() => void) | undefined

/** A rank's place in a communicator. */
export interface Seat {
  readonly rank: number
  readonly communicator: Communicator
  /** Position of its next collective. */
  position: number
}

interface CollectiveOrderOptions {
  /** Whether a rank's collectives are submitted here; default all. Others are not waited for. */
  readonly present?: ((rank: number) => boolean) | undefined
  /** Keep what each member submitted in `Meeting.ops`. Default false. */
  readonly keepsOps?: boolean | undefined
}

export class CollectiveOrder {
  readonly #communicators = new Map<string, Communicator>()
  readonly #present: (rank: number) => boolean
  readonly #keepsOps: boolean

  constructor({ present = () => true, keepsOps = false }: CollectiveOrderOptions = {}) {
    this.#present = present
    this.#keepsOps = keepsOps
  }

  /** The rank's place in the communicator that the group is; what is wrong when the group's name has other ranks behind it. */
  seat(rank: number, group: Group): Seat | CollectiveMismatch {
    let communicator = this.#communicators.get(group.name)
    if (communicator === undefined) {
      const members = group.ranks.filter((member) => this.#present(member)).length
      const present = this.#present
      communicator = { group, members, byRank: rank, open: new Map(), seats: new Map(), present }
      this.#communicators.set(group.name, communicator)
    } else if (!sameRanks(communicator.group.ranks, group.ranks)) {
      return new CollectiveMismatch({
        group: group.name,
        position: 0,
        rank,
        submitted: `a group of ranks ${group.ranks.join(", ")}`,
        expected: `one of ranks ${communicator.group.ranks.join(", ")}`,
        expectedByRank: communicator.byRank
      })
    }
    const { seats } = communicator
    let seat = seats.get(rank)
    if (seat === undefined) seats.set(rank, (seat = { rank, communicator, position: 0 }))
    return seat
  }

  /** The rank comes to its next collective there, or what is wrong with it. `terms` are `termsOf(op)`. */
  join(seat: Seat, op: Op, terms: string): Meeting | CollectiveMismatch {
    const { communicator, rank } = seat
    const { group, open, members } = communicator
    const position = seat.position++
    let meeting = open.get(position)
    if (meeting === undefined) {
      const ops = this.#keepsOps ? new Map<number, Op>() : undefined
      meeting = { communicator, position, op, byRank: rank, terms, missing: members, ops }
      if (members > 1) open.set(position, meeting)
    } else if (meeting.terms !== terms) {
      return new CollectiveMismatch({
        group: group.name,
        position,
        rank,
        submitted: describe(op, meeting.op),
        expected: describe(meeting.op, op),
        expectedByRank: meeting.byRank
      })
    }
    meeting.missing--
    meeting.ops?.set(rank, op)
    if (meeting.missing === 0 && members > 1) open.delete(position)
    return meeting
  }

  /** How many collectives a rank has submitted, by the communicator's name. */
  *submittedBy(rank: number): Generator<readonly [name: string, count: number]> {
    for (const { group, seats } of this.#communicators.values()) {
      const seat = seats.get(rank)
      if (seat !== undefined) yield [group.name, seat.position]
    }
  }

  /** Collectives that some but not all members have submitted. */
  get unmet(): ReadonlyArray<Meeting> {
    return [...this.#communicators.values()].flatMap(({ open }) => [...open.values()])
  }
}

const sameRanks = (one: ReadonlyArray<number>, other: ReadonlyArray<number>): boolean =>
  one === other || (one.length === other.length && one.every((rank, i) => rank === other[i]))

/** Ranks that a message names one by one. */
const mostNamed = 8

/** "collective 2 of group "world" (all-reduce bucket 1): 1 of 2 ranks joined, not rank 1", for the message of a deadlock. */
export const describeUnmet = ({ communicator, position, op, missing }: Meeting): string => {
  const { group, members, seats, present } = communicator
  const simulated = members === group.ranks.length ? "" : "simulated "
  const absent = group.ranks.filter((rank) => present(rank) && (seats.get(rank)?.position ?? 0) <= position)
  const named = absent.slice(0, mostNamed).join(", ")
  const others = absent.length > mostNamed ? ` and ${absent.length - mostNamed} more` : ""
  const who = absent.length === 0 ? "" : `, not rank ${named}${others}`
  return `collective ${position} of group "${group.name}" (${op.label}): ${members - missing} of ${members} ${simulated}ranks joined${who}`
}

/**
 * What all members of a collective must submit alike, as a text: kernel, shared attributes, and what of the message's
 * tensors is the same on all.
 */
export const termsOf = ({ kernel, attributes, reads, writes, sizeBytes }: Op): string => {
  const shared = isCollective(kernel) ? kernel.shared : []
  const values = shared.map(
    (name) => `${name} ${String(attributes[name] ?? kernel.attributes[name]?.fallback)}`
  )
  // The destination of a point-to-point message has what the source reads among its outputs.
  const message = reads.length > 0 ? reads : writes
  const uneven = memberRows(attributes) !== ""
  const part = ({ dtype, shape, elements }: Tensor): string =>
    uneven ? `${dtype} rows of ${shape.slice(1).join("x")}` : `${elements} ${dtype}`
  const size = uneven ? "" : `${sizeBytes} B, `
  return `${kernel.name}: ${size}${[...message.map(part), ...values].join(", ")}`
}

/** An op for people; what it must share with the other in addition, where the two look the same otherwise. */
const describe = (op: Op, other: Op): string => {
  const short = ({ kernel, sizeBytes }: Op): string => `${kernel.name} of ${sizeBytes} B`
  const { kernel, label, sizeBytes } = op
  const terms = short(op) === short(other) ? ` (${termsOf(op)})` : ""
  return `${kernel.name} "${label}" of ${sizeBytes} B${terms}`
}

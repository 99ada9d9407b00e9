// Holds the ranks of one process to one order of collectives per group, at submission: a mismatch is reported where it is
// made, before any thread waits for a partner that never comes. Knows nothing of lanes, bytes or time.
import { fitsCollective } from "../core/machine/collective-fit.ts"
import { CollectiveMismatch } from "../core/machine/machine.ts"
import type { Op } from "../core/machine/op.ts"
import type { Group } from "../core/world.ts"

interface Meeting {
  readonly op: Op
  readonly byRank: number
  readonly ranks: Set<number>
}

interface Communicator {
  readonly group: Group
  /** Collectives each rank has submitted so far. */
  readonly position: Map<number, number>
  /** Those that some but not all members have submitted, by position. */
  readonly open: Map<number, Meeting>
}

/** A collective that waits for members: which group, which of its collectives, and who has come. */
export interface Unmet {
  readonly group: Group
  readonly position: number
  readonly label: string
  readonly ranks: ReadonlySet<number>
}

export class CollectiveOrder {
  // By name, for every rank makes its own group object; and by object, because that is found faster.
  readonly #communicators = new Map<string, Communicator>()
  readonly #communicatorOf = new WeakMap<Group, Communicator>()

  /** The place of `rank`'s next collective in its group's order, or what is wrong with it. */
  join(rank: number, op: Op): number | CollectiveMismatch {
    const group = op.group!
    const communicator = this.#communicatorOf.get(group) ?? this.#communicator(group)
    const { position: positions, open } = communicator
    const position = positions.get(rank) ?? 0
    positions.set(rank, position + 1)
    const meeting = open.get(position)
    if (meeting === undefined) {
      if (group.ranks.length > 1) open.set(position, { op, byRank: rank, ranks: new Set([rank]) })
      return position
    }
    if (!fitsCollective(meeting.op, op)) {
      return new CollectiveMismatch({
        group: group.name,
        position,
        rank,
        submitted: describe(op),
        expected: describe(meeting.op),
        expectedByRank: meeting.byRank
      })
    }
    meeting.ranks.add(rank)
    if (meeting.ranks.size === group.ranks.length) open.delete(position)
    return position
  }

  get unmet(): ReadonlyArray<Unmet> {
    return [...this.#communicators.values()].flatMap(({ group, open }) =>
      [...open].map(([position, { op, ranks }]) => ({ group, position, label: op.label, ranks }))
    )
  }

  #communicator(group: Group): Communicator {
    let communicator = this.#communicators.get(group.name)
    if (communicator === undefined) {
      communicator = { group, position: new Map(), open: new Map() }
      this.#communicators.set(group.name, communicator)
    }
    this.#communicatorOf.set(group, communicator)
    return communicator
  }
}

const describe = (op: Op): string => `${op.kernel.name} "${op.label}" of ${op.sizeBytes} B`

// Finds out that ranks of different processes wait for each other for ever. Each rank tells rank 0 when it stands still; when all
// do, and nothing of what they wait for can come, rank 0 asks again: whoever stands as before has stood so all the time between,
// so there was a moment when all of it held at once. Exact, like the search in one process (deadlock.ts) that it leads to.
import * as Effect from "effect/Effect"
import type { CollectiveOrder, Meeting } from "../../core/machine/collective-order.ts"
import type { Lane } from "../../core/machine/lane.ts"
import { Deadlock } from "../../core/machine/machine.ts"
import type { OpId } from "../../core/machine/op.ts"
import { canSubmit, stuckForGood, stuckMeetings } from "./deadlock.ts"
import type { Links, RankState } from "./job.ts"

/** How often a rank looks whether it has done anything. */
const lookEveryMillis = 500

/** What a rank does, or waits to do, as it tells another process. */
interface Standstill {
  readonly rank: number
  readonly pending: ReadonlyArray<PendingThere>
  readonly waits: ReadonlyArray<ReadonlyArray<OpId>>
  readonly waitingFor: ReadonlyArray<string>
  readonly finished: boolean
  /** Collectives that it has submitted, by communicator. */
  readonly submitted: Readonly<Record<string, number>>
}

interface PendingThere {
  readonly op: OpId
  readonly lane: Lane
  readonly edges: ReadonlyArray<OpId>
  readonly collective?: Collective
}

interface Collective {
  readonly group: string
  readonly ranks: ReadonlyArray<number>
  readonly position: number
  readonly label: string
}

/** A rank of this process as it stands. */
const standstillOf = (state: RankState, order: CollectiveOrder): Standstill => ({
  rank: state.rank,
  pending: Array.from(state.pending, ({ op, lane, edges, meeting }) => ({
    op,
    lane,
    edges,
    ...(meeting === undefined ? {} : { collective: there(meeting) })
  })),
  waits: state.waits,
  waitingFor: state.waitingFor,
  finished: state.finished,
  submitted: Object.fromEntries(order.submittedBy(state.rank))
})

const there = ({ communicator: { group }, position, op }: Meeting): Collective => ({
  group: group.name,
  ranks: group.ranks,
  position,
  label: op.label
})

/** What waits for what, when none of these ranks can go on; undefined while one can. */
const deadlockAmong = (ranks: ReadonlyArray<Standstill>): ReadonlyArray<string> | undefined => {
  const submitted = new Map(ranks.map((one) => [one.rank, one.submitted]))
  const meetings = new Map<string, { readonly missing: number; readonly text: string }>()
  const meetingOf = ({ group, ranks: members, position, label }: Collective) => {
    const name = `${group}:${members.join()}:${position}`
    let meeting = meetings.get(name)
    if (meeting === undefined) {
      const absent = members.filter((rank) => (submitted.get(rank)?.[group] ?? 0) <= position)
      const joined = `${members.length - absent.length} of ${members.length} ranks joined`
      const text = `collective ${position} of group "${group}" (${label}): ${joined}${absent.length === 0 ? "" : `, not rank ${absent.join(", ")}`}`
      meetings.set(name, (meeting = { missing: absent.length, text }))
    }
    return meeting
  }
  const waiting = ranks.map(({ rank, pending, waits, finished }) => ({
    rank,
    waits,
    finished,
    pending: pending.map(({ op, lane, edges, collective }) => ({
      op,
      lane,
      edges,
      meeting: collective === undefined ? undefined : meetingOf(collective)
    }))
  }))
  const stuck = stuckForGood(waiting)
  if (stuck === undefined) return undefined
  return [
    ...stuckMeetings(waiting, stuck).map(({ text }) => text),
    ...ranks.flatMap(({ rank, finished, waitingFor }) => (finished ? [`rank ${rank} has ended`] : waitingFor))
  ]
}

/** Links with which a run's ranks tell each other where they stand; `run` tells runs of a job apart. */
interface Standing {
  readonly links: Links
  readonly rank: number
  readonly size: number
  readonly run: number
  readonly order: CollectiveOrder
}

/**
 * Watches one run of a job of processes. `found` is the deadlock, once rank 0 has found it and all ranks know of it.
 */
export class StandstillWatch {
  readonly #standing: Standing
  #found: Deadlock | undefined
  /** What rank 0 was told last. */
  #told: string | undefined

  constructor(standing: Standing) {
    this.#standing = standing
  }

  get found(): Deadlock | undefined {
    return this.#found
  }

  /** Fails, at rank 0, when the job is deadlocked; never ends at the others, who are ended by rank 0's end. */
  watch(state: () => RankState, nowSeconds: () => number): Effect.Effect<never, Deadlock> {
    const { links, rank, size, run, order } = this.#standing
    const current = (): Standstill => standstillOf(state(), order)
    const about = (what: string): string => `standstill ${run} ${what}`
    const looking = Effect.suspend(() => {
      let before: string | undefined
      const look = Effect.sync(() => {
        // A rank that computes does not stand still.
        const now = canSubmit(state()) ? undefined : JSON.stringify(current())
        if (now !== undefined && now === before && now !== this.#told) {
          this.#told = now
          links.tell(0, about("stands"), now)
        }
        before = now
      })
      return Effect.forever(Effect.andThen(Effect.sleep(lookEveryMillis), look))
    })
    links.onTold(about("again?"), () => {
      this.#told = undefined
      links.tell(0, about("again"), JSON.stringify(current()))
    })
    links.onTold(about("found"), (_, waiting) => {
      this.#found = new Deadlock({ atSeconds: nowSeconds(), waiting: waiting as ReadonlyArray<string> })
      links.tell(0, about("heard"), undefined)
    })
    const judged = rank === 0 ? this.#judge(about, size) : Effect.never
    return Effect.raceFirst(judged, looking).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          for (const what of ["stands", "again?", "again", "found", "heard"]) links.forget(about(what))
        })
      )
    )
  }

  /** Rank 0 hears where all stand. */
  #judge(about: (what: string) => string, size: number): Effect.Effect<never, Deadlock> {
    const { links } = this.#standing
    return Effect.callback<never, Deadlock>((resume) => {
      const stands = new Map<number, string>()
      const answers = new Map<number, string>()
      /** Where all stood when they were asked, and what that comes to; a rank may tell something newer before the last has answered. */
      let asked:
        { readonly stands: ReadonlyMap<number, string>; readonly waiting: ReadonlyArray<string> } | undefined
      const deadlock = (): ReadonlyArray<string> | undefined =>
        stands.size < size
          ? undefined
          : deadlockAmong(
              [...stands.values()]
                .map((text) => JSON.parse(text) as Standstill)
                .toSorted((one, other) => one.rank - other.rank)
            )
      const all = (tell: (peer: number) => void): void => {
        for (let peer = 0; peer < size; peer++) tell(peer)
      }
      const ask = (): void => {
        const waiting = asked === undefined ? deadlock() : undefined
        if (waiting === undefined) return
        asked = { stands: new Map(stands), waiting }
        answers.clear()
        all((peer) => links.tell(peer, about("again?"), undefined))
      }
      links.onTold(about("stands"), (peer, text) => {
        stands.set(peer, text as string)
        ask()
      })
      links.onTold(about("again"), (peer, text) => {
        answers.set(peer, text as string)
        if (answers.size < size || asked === undefined) return
        const { stands: before, waiting } = asked
        asked = undefined
        const gone = [...answers].filter(([rank, answer]) => before.get(rank) !== answer)
        if (gone.length === 0) {
          all((rank) => links.tell(rank, about("found"), waiting))
          return
        }
        // Whoever has gone on will tell when it stands again, or has told already.
        for (const [rank] of gone) if (stands.get(rank) === before.get(rank)) stands.delete(rank)
        ask()
      })
      let heard = 0
      links.onTold(about("heard"), () => {
        heard++
        // All know: whoever sees another end now knows why.
        if (heard === size) resume(Effect.fail(this.#found!))
      })
    })
  }
}

// Finds out that ranks of different processes wait for each other for ever. Each rank tells the first of those that have not left when
// it stands still; when all do, and nothing of what they wait for can come, that one asks again: whoever stands as before has stood so
// all the time between, so there was a moment when all of it held at once. Exact, like the search in one process (deadlock.ts) that it
// leads to. Of a rank that has left what is missing counts as there: where it is not, the transport says that this rank is lost.
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

/** What waits for what, when none of these ranks can go on, and the others have left; undefined while one can. */
const deadlockAmong = (
  ranks: ReadonlyArray<Standstill>,
  left: ReadonlyArray<number>
): ReadonlyArray<string> | undefined => {
  const submitted = new Map(ranks.map((one) => [one.rank, one.submitted]))
  const meetings = new Map<string, { readonly missing: number; readonly text: string }>()
  const meetingOf = ({ group, ranks: members, position, label }: Collective) => {
    const name = `${group}:${members.join()}:${position}`
    let meeting = meetings.get(name)
    if (meeting === undefined) {
      const present = members.filter((rank) => !left.includes(rank))
      const absent = present.filter((rank) => (submitted.get(rank)?.[group] ?? 0) <= position)
      const joined = `${present.length - absent.length} of ${members.length} ranks joined`
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
    ...ranks.flatMap(({ rank, finished, waitingFor }) =>
      finished ? [`rank ${rank} has ended`] : waitingFor
    ),
    ...left.map((rank) => `rank ${rank} has left`)
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

/** Where a rank stands, to whoever has asked for the `round`th time. */
interface Answer {
  readonly round: number
  readonly stands: string
}

/**
 * Watches one run of a job of processes. `found` is the deadlock, once it has been found and all ranks know of it.
 */
export class StandstillWatch {
  readonly #standing: Standing
  #found: Deadlock | undefined
  /** What was told last. */
  #told: string | undefined

  constructor(standing: Standing) {
    this.#standing = standing
  }

  get found(): Deadlock | undefined {
    return this.#found
  }

  /** Fails, at the first rank, when the job is deadlocked; never ends at the others, who are ended by that one's end. */
  watch(state: () => RankState, nowSeconds: () => number): Effect.Effect<never, Deadlock> {
    const { links, run, order } = this.#standing
    const current = (): Standstill => standstillOf(state(), order)
    const about = (what: string): string => `standstill ${run} ${what}`
    const looking = Effect.suspend(() => {
      let before: string | undefined
      const look = Effect.sync(() => {
        // A rank that computes does not stand still.
        const now = canSubmit(state()) ? undefined : JSON.stringify(current())
        if (now !== undefined && now === before && now !== this.#told) {
          this.#told = now
          links.tell(this.#present()[0]!, about("stands"), now)
        }
        before = now
      })
      return Effect.forever(Effect.andThen(Effect.sleep(lookEveryMillis), look))
    })
    links.onTold(about("again?"), (peer, round) => {
      this.#told = undefined
      const stands = JSON.stringify(current())
      links.tell(peer, about("again"), { round: round as number, stands } satisfies Answer)
    })
    links.onTold(about("found"), (peer, waiting) => {
      this.#found = new Deadlock({ atSeconds: nowSeconds(), waiting: waiting as ReadonlyArray<string> })
      links.tell(peer, about("heard"), undefined)
    })
    return Effect.raceFirst(this.#judge(about), looking).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          for (const what of ["stands", "again?", "again", "found", "heard"]) links.forget(about(what))
        })
      )
    )
  }

  /** Ranks that have not left, ascending. */
  #present(): ReadonlyArray<number> {
    const { links, size } = this.#standing
    return Array.from({ length: size }, (_, rank) => rank).filter((rank) => !links.left.has(rank))
  }

  /** Hears where all stand, where this rank is the first. */
  #judge(about: (what: string) => string): Effect.Effect<never, Deadlock> {
    const { links, rank } = this.#standing
    return Effect.callback<never, Deadlock>((resume) => {
      const stands = new Map<number, string>()
      const answers = new Map<number, string>()
      const heard = new Set<number>()
      let rounds = 0
      /** Where all stood when they were asked, and what that comes to; a rank may tell something newer before the last has answered. */
      let asked:
        { readonly stands: ReadonlyMap<number, string>; readonly waiting: ReadonlyArray<string> } | undefined
      const deadlock = (): ReadonlyArray<string> | undefined => {
        const present = this.#present()
        if (present[0] !== rank || !present.every((one) => stands.has(one))) return undefined
        const all = present.map((one) => JSON.parse(stands.get(one)!) as Standstill)
        return deadlockAmong(
          all,
          [...links.left].toSorted((one, other) => one - other)
        )
      }
      const ask = (): void => {
        const waiting = asked === undefined ? deadlock() : undefined
        if (waiting === undefined) return
        asked = { stands: new Map(stands), waiting }
        answers.clear()
        // Answers of earlier rounds say nothing of this one: whoever gave them may have gone on since.
        rounds++
        for (const peer of this.#present()) links.tell(peer, about("again?"), rounds)
      }
      const end = (): void => {
        // All know: whoever sees another end now knows why.
        if (heard.size === 0 || !this.#present().every((one) => heard.has(one))) return
        forget()
        resume(Effect.fail(this.#found!))
      }
      links.onTold(about("stands"), (peer, text) => {
        stands.set(peer, text as string)
        ask()
      })
      links.onTold(about("again"), (peer, value) => {
        const { round, stands: answer } = value as Answer
        if (asked === undefined || round !== rounds) return
        answers.set(peer, answer)
        const present = this.#present()
        if (!present.every((one) => answers.has(one))) return
        const { stands: before, waiting } = asked
        asked = undefined
        const gone = present.filter((one) => before.get(one) !== answers.get(one))
        if (gone.length === 0) {
          for (const one of present) links.tell(one, about("found"), waiting)
          return
        }
        // Whoever has gone on will tell when it stands again, or has told already.
        for (const one of gone) if (stands.get(one) === before.get(one)) stands.delete(one)
        ask()
      })
      links.onTold(about("heard"), (peer) => {
        heard.add(peer)
        end()
      })
      const forget = links.onLeft((peer) => {
        // Another may be the first now, and is to be told anew; and what the others stood for may come to something else.
        this.#told = undefined
        stands.delete(peer)
        asked = undefined
        end()
        ask()
      })
      return Effect.sync(forget)
    })
  }
}

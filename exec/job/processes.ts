// A job of one process per rank: how a process joins it, and how the programs of its processes speak to each other beside their
// collectives (a common start, clocks, what each has done). Knows nothing of machines or scenarios.
import { readFileSync, readlinkSync } from "node:fs"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { CollectiveOrder } from "../../core/machine/collective-order.ts"
import { RankLost } from "../../core/machine/machine.ts"
import { messageOf } from "../../core/message-of.ts"
import type { Place } from "./environment.ts"
import type { TransportWish } from "./meeting.ts"
import { Mesh, type MeshFault } from "./mesh.ts"
import type { ClockOffset, Job, Links } from "./job.ts"
import { NoRendezvous, rendezvous, type Meeting } from "./rendezvous.ts"
import { StandstillWatch } from "./standstill.ts"
import { StartGate } from "./start-gate.ts"

interface JoinOptions {
  readonly place: Place
  readonly secret: string
  /** What must be the same everywhere, by name. */
  readonly alike: Readonly<Record<string, string>>
  /** Address of the interface to use; by default that from which rank 0 is reached. */
  readonly host?: string | undefined
  /** What carries messages between processes; default "auto". */
  readonly transport?: TransportWish | undefined
  readonly streams?: number | undefined
  readonly lostAfterSeconds?: number | undefined
  readonly timeoutSeconds: number
}

/** A message between programs: what it is about, and a value that can be cloned. */
interface Told {
  readonly about: string
  readonly value: unknown
}

const pings = 32

const nobody = (): boolean => false
const first = (peer: number): boolean => peer === 0

export class ProcessJob implements Links {
  readonly rank: number
  readonly size: number
  /** Position among the processes of this host. */
  localRank = 0
  /** What is the same of two ranks where they are on one host. */
  hosts: ReadonlyArray<string> = []
  readonly mesh: Mesh
  readonly #handlers = new Map<string, (peer: number, value: unknown) => void>()
  readonly #early = new Map<string, Array<readonly [number, unknown]>>()
  /** How each wait ends when the mesh fails, and whether it needs something yet that a peer has not said. */
  readonly #waiting = new Map<(fault: RankLost) => void, (peer: number) => boolean>()
  readonly #left = new Set<number>()
  readonly #onLeft = new Set<(peer: number) => void>()
  readonly #close: () => void
  #exchanges = 0
  #runs = 0

  private constructor(mesh: Mesh, close: () => void) {
    this.mesh = mesh
    this.rank = mesh.rank
    this.size = mesh.size
    this.#close = close
    mesh.onTold(
      (peer, value) => this.#told(peer, value as Told),
      (peer) => {
        this.#left.add(peer)
        for (const handler of this.#onLeft) handler(peer)
        for (const needs of this.#waiting.values()) this.#loseWhom(needs)
      },
      (fault) => {
        const lost = this.#lostBy(fault)
        for (const tell of this.#waiting.keys()) tell(lost)
      }
    )
    mesh.hold(false)
  }

  /** Comes together with the other processes. The job ends with the scope of `use`; where that fails, at every rank, who learn why. */
  static use<A, E>(
    options: JoinOptions,
    use: (job: ProcessJob) => Effect.Effect<A, E>
  ): Effect.Effect<A, E | NoRendezvous | RankLost> {
    const end = (job: ProcessJob, exit: Exit.Exit<A, E>) =>
      Effect.sync(() => {
        // Whoever is interrupted is so by a signal, which a launcher sends to all.
        if (Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause) && job.mesh.fault === undefined) {
          const cause = Cause.squash(exit.cause)
          job.mesh.fail(`rank ${job.rank}: ${messageOf(cause)}`)
        }
        job.#close()
      })
    // Who waits for others may be ended by a signal; what it has opened by then it closes itself.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(ProcessJob.#join(options)), (job) =>
        Effect.onExit(restore(use(job)), (exit) => end(job, exit))
      )
    )
  }

  static #join({
    place,
    secret,
    alike,
    host,
    transport = "auto",
    streams,
    lostAfterSeconds,
    timeoutSeconds
  }: JoinOptions): Effect.Effect<ProcessJob, NoRendezvous | RankLost> {
    const { rank, size, master } = place
    return Effect.suspend(() => {
      let mesh: Mesh | undefined
      let meeting: Meeting | undefined
      const listen = (address: string): number => {
        mesh?.close()
        mesh = new Mesh({
          rank,
          size,
          host: address,
          transport,
          ...(streams === undefined ? {} : { streams }),
          ...(lostAfterSeconds === undefined ? {} : { lostAfterSeconds })
        })
        return mesh.port
      }
      const close = (): void => {
        meeting?.close()
        mesh?.close()
      }
      const same = { ...alike, transport }
      return rendezvous({ rank, size, master, secret, alike: same, host, listen, timeoutSeconds }).pipe(
        Effect.flatMap((met) => {
          meeting = met
          return connected(met, mesh!, timeoutSeconds)
        }),
        Effect.flatMap(() => new ProcessJob(mesh!, close).#located(place)),
        Effect.onError(() => Effect.sync(close))
      )
    })
  }

  /** The same, with its position on its host: as the launcher says, else by rank. All ranks come to this together. */
  #located(place: Place): Effect.Effect<ProcessJob, NoRendezvous> {
    return this.exchange(hostId()).pipe(
      Effect.map((hosts) => {
        const before = hosts.slice(0, this.rank).filter((host) => host === hosts[this.rank]).length
        this.localRank = place.localRank ?? before
        this.hosts = hosts
        return this
      }),
      Effect.mapError(({ rank, reason }) => new NoRendezvous({ rank, reason }))
    )
  }

  /** A run of this process's rank, among the others'. All ranks begin their runs in the same order. */
  run(): Job {
    const { rank, size } = this
    const order = new CollectiveOrder({ present: (other) => other === rank })
    const gate = new StartGate(1, (open) => {
      // When it fails, so does `watch`.
      Effect.runFork(this.barrier).addObserver((exit) => {
        if (Exit.isSuccess(exit)) open()
      })
    })
    const standstill = new StandstillWatch({ links: this, rank, size, run: this.#runs++, order })
    const lost = this.#heard<never>("nothing", nobody, () => {})
    return {
      ranks: [rank],
      order,
      gate,
      links: this,
      watch: (states, nowSeconds) =>
        Effect.raceFirst(
          lost,
          standstill
            .watch(() => states()[0]!, nowSeconds)
            .pipe(Effect.tapError(({ message }) => Effect.sync(() => this.mesh.fail(message))))
        ),
      // Whoever is ended by another's end is told of that, not of what was behind it.
      explained: (error) => (error instanceof RankLost ? (standstill.found ?? error) : error)
    }
  }

  /** Tells the program of a rank something; of this one too. */
  tell(peer: number, about: string, value: unknown): void {
    if (peer === this.rank) this.#told(peer, { about, value })
    else this.mesh.tell(peer, { about, value } satisfies Told)
  }

  /** Calls `handler` with what is told about this, and with what was. */
  onTold(about: string, handler: (peer: number, value: unknown) => void): void {
    this.#handlers.set(about, handler)
    for (const [peer, value] of this.#early.get(about) ?? []) handler(peer, value)
    this.#early.delete(about)
  }

  forget(about: string): void {
    this.#handlers.delete(about)
  }

  get left(): ReadonlySet<number> {
    return this.#left
  }

  onLeft(handler: (peer: number) => void): () => void {
    this.#onLeft.add(handler)
    return () => void this.#onLeft.delete(handler)
  }

  /** Every rank's value, by rank, once all ranks have come to this point. Ranks call it in the same order. */
  exchange<A>(value: A): Effect.Effect<ReadonlyArray<A>, RankLost> {
    const about = `exchange ${this.#exchanges++}`
    if (this.rank !== 0) {
      return this.#heard<ReadonlyArray<A>>(`${about} done`, first, (resolve) => {
        this.onTold(`${about} done`, (_, all) => resolve(all as ReadonlyArray<A>))
        this.tell(0, about, value)
      })
    }
    return Effect.tap(this.#collected(about, value), (all) =>
      Effect.sync(() => {
        for (let peer = 1; peer < this.size; peer++) this.tell(peer, `${about} done`, all)
      })
    )
  }

  /** Every rank's value at rank 0, by rank; undefined at the others, who go on when all have come. */
  gather<A>(value: A): Effect.Effect<ReadonlyArray<A> | undefined, RankLost> {
    const about = `gather ${this.#exchanges++}`
    if (this.rank !== 0) this.tell(0, about, value)
    const all = this.rank !== 0 ? Effect.succeed(undefined) : this.#collected(about, value)
    return Effect.tap(all, () => this.barrier)
  }

  /** At rank 0: the values that all others tell about this, and its own. */
  #collected<A>(about: string, own: A): Effect.Effect<ReadonlyArray<A>, RankLost> {
    return Effect.suspend(() => {
      const values = new Map<number, A>([[0, own]])
      const needs = (peer: number): boolean => !values.has(peer)
      return this.#heard<ReadonlyArray<A>>(about, needs, (resolve) => {
        const look = (): void => {
          if (values.size === this.size)
            resolve(Array.from({ length: this.size }, (_, rank) => values.get(rank)!))
        }
        this.onTold(about, (peer, theirs) => {
          values.set(peer, theirs as A)
          look()
        })
        look()
      })
    })
  }

  /** All ranks leave it when the last has come. */
  get barrier(): Effect.Effect<void, RankLost> {
    return Effect.asVoid(this.exchange(undefined))
  }

  /**
   * How far rank 0's clock is from this process's: none on one host, whose processes share a clock; elsewhere from the quickest
   * of a few round trips (Cristian's algorithm). All ranks call it together.
   */
  get clockOffset(): Effect.Effect<ClockOffset, RankLost> {
    return Effect.flatMap(this.barrier, () => {
      if (this.rank === 0) {
        this.onTold("time?", (peer) => this.tell(peer, "time", this.mesh.nowNanoseconds))
        return Effect.as(this.barrier, { seconds: 0, errorSeconds: 0 })
      }
      const measured: Effect.Effect<ClockOffset, RankLost> =
        this.hosts[this.rank] === this.hosts[0]
          ? Effect.succeed({ seconds: 0, errorSeconds: 0 })
          : this.#askTime()
      return Effect.tap(measured, () => this.barrier)
    })
  }

  #askTime(): Effect.Effect<ClockOffset, RankLost> {
    return this.#heard("time", first, (resolve) => {
      let best: ClockOffset = { seconds: 0, errorSeconds: Infinity }
      let left = pings
      let asked = 0
      const ask = (): void => {
        asked = this.mesh.nowNanoseconds
        this.tell(0, "time?", undefined)
      }
      this.onTold("time", (_, theirs) => {
        const now = this.mesh.nowNanoseconds
        const errorSeconds = (now - asked) * 0.5e-9
        if (errorSeconds < best.errorSeconds)
          best = { seconds: ((theirs as number) - (asked + now) / 2) * 1e-9, errorSeconds }
        left--
        if (left > 0) ask()
        else resolve(best)
      })
      ask()
    })
  }

  /** Waits for something to be heard, or for the mesh to fail; it fails when who has left `needs` to say something yet. */
  #heard<A>(
    about: string,
    needs: (peer: number) => boolean,
    begin: (resolve: (value: A) => void) => void
  ): Effect.Effect<A, RankLost> {
    return Effect.callback<A, RankLost>((resume) => {
      const fail = (lost: RankLost): void => {
        end()
        resume(Effect.fail(lost))
      }
      const end = (): void => {
        this.#waiting.delete(fail)
        this.#handlers.delete(about)
        if (this.#waiting.size === 0) this.mesh.hold(false)
      }
      const fault = this.mesh.fault
      if (fault !== undefined) {
        resume(Effect.fail(this.#lostBy(fault)))
        return
      }
      this.#waiting.set(fail, needs)
      this.mesh.hold(true)
      begin((value) => {
        end()
        resume(Effect.succeed(value))
      })
      if (this.#waiting.has(fail)) this.#loseWhom(needs)
      return Effect.sync(end)
    })
  }

  /** Ends the job where one of those that have left is needed. */
  #loseWhom(needs: (peer: number) => boolean): void {
    for (const peer of this.#left) {
      if (needs(peer)) {
        this.mesh.lose(peer)
        return
      }
    }
  }

  #told(peer: number, { about, value }: Told): void {
    const handler = this.#handlers.get(about)
    if (handler !== undefined) {
      handler(peer, value)
      return
    }
    const early = this.#early.get(about)
    if (early === undefined) this.#early.set(about, [[peer, value]])
    else early.push([peer, value])
  }

  #lostBy(fault: MeshFault): RankLost {
    return new RankLost({ rank: this.rank, lost: fault.rank, reason: fault.message })
  }
}

/** A connection that fails since its other end is gone is known of the other end a little later. */
const goneWithin = "1 second"

/** Connects with all others, or says who of them is lost meanwhile. */
const connected = (
  { addresses, key, company }: Meeting,
  mesh: Mesh,
  timeoutSeconds: number
): Effect.Effect<void, NoRendezvous | RankLost> => {
  const lost = Effect.mapError(
    company.watch,
    ({ rank, reason }) => new RankLost({ rank: mesh.rank, lost: rank, reason })
  )
  return mesh.connect(addresses, key, timeoutSeconds).pipe(
    Effect.catch((failure) =>
      Effect.raceFirst(lost, Effect.andThen(Effect.sleep(goneWithin), Effect.fail(failure)))
    ),
    Effect.raceFirst(lost),
    Effect.tap(() => Effect.sync(() => company.connected())),
    Effect.tapError(({ reason }) => Effect.sync(() => company.close(reason))),
    Effect.onInterrupt(() => Effect.sync(() => company.close()))
  )
}

/** The same for all processes that have one clock: those of a running system, but for time namespaces of their own. */
const hostId = (): string => {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
    return `${boot} ${readlinkSync("/proc/self/ns/time")}`
  } catch {
    return `process ${process.pid}`
  }
}

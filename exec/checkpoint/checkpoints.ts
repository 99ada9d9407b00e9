// The checkpoints of a run under way: taken every so many steps, at the last, and at the next that all ranks can reach when the
// run is to stop. Ranks write their own parts; rank 0 completes a checkpoint when all parts are there. A checkpoint that cannot
// be written costs the run nothing but that one: the last stays as it is.
import * as path from "node:path"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { MachineError } from "../../core/machine/machine.ts"
import type { AtStepEnd, Kept, Snapshots } from "../../core/machine/snapshots.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { messageOf } from "../../core/message-of.ts"
import type { Loss } from "../../scenarios/cli/folder-lock.ts"
import type { Links } from "../job/job.ts"
import { abandon, complete, keepNewest, partialFolder } from "./folder.ts"
import { printManifest, type Manifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { shardName, writeShard, type ShardEntry } from "./shard.ts"

interface CheckpointOptions {
  readonly folder: string
  /** Steps from one to the next. */
  readonly every: number
  /** How many of the newest stay. */
  readonly keep: number
  readonly ranks: number
  /** Those of this process. */
  readonly here: ReadonlyArray<number>
  /** To those of others. */
  readonly links: Pick<Links, "tell" | "onTold"> | undefined
  /** Steps that the run takes in all. */
  readonly steps: number
  /** Where it goes on from an earlier one: steps that were taken, and what a rank's tensors held then. */
  readonly resumed?: Pick<Snapshots, "from" | "restored"> | undefined
  readonly manifestAfter: (step: number, shards: ReadonlyArray<ShardEntry>) => Omit<Manifest, "sha256">
  /** Why the folder is not this run's any more; undefined while it is. Asked at every rank, before each write. */
  readonly lost: () => Loss | undefined
  /** Told at rank 0 of each that is written, and of each that could not be. */
  readonly onWritten: (outcome: Written) => void
}

interface Written {
  readonly step: number
  /** Its folder; undefined where it could not be written. */
  readonly folder: string | undefined
  /** Why it could not. */
  readonly failure: string | undefined
  /** Why older ones, which were to make room, are still there. */
  readonly unremoved?: string | undefined
}

/** What a rank tells of its part. */
interface Part {
  readonly step: number
  readonly shard?: ShardEntry
  readonly failure?: string
}

const partTold = "checkpoint part"
const doneTold = "checkpoint done"
const stopAsked = "checkpoint stop"
const whenAsked = "checkpoint how far"
const farTold = "checkpoint so far"
const stopTold = "checkpoint stop after"

export class Checkpoints implements Snapshots {
  readonly from: number
  readonly #options: CheckpointOptions
  /** Steps that each rank of this process has ended. */
  readonly #ended = new Map<number, number>()
  /** Parts of a step's checkpoint that have come, at rank 0. */
  readonly #parts = new Map<number, Array<Part>>()
  /** What waits for a step's checkpoint to be complete, or given up. */
  readonly #done = new Map<number, Deferred.Deferred<void>>()
  #last: Written | undefined
  #newest: string | undefined
  /** Why nothing may be written to the folder any more. */
  #takenOver: string | undefined
  /** The step after which all ranks stop. */
  #stopAfter: number | undefined
  /** While ranks agree on that step. */
  #agreeing: Deferred.Deferred<void> | undefined
  #isAsking = false
  /** At rank 0, while ranks are asked how far they are: steps that each has ended. */
  readonly #far = new Map<number, number>()

  constructor(options: CheckpointOptions) {
    this.#options = options
    this.from = options.resumed?.from ?? 0
    for (const rank of options.here) this.#ended.set(rank, this.from)
    const { links } = options
    if (links === undefined) return
    links.onTold(partTold, (_, part) => this.#came(part as Part))
    links.onTold(doneTold, (_, outcome) => this.#settle(outcome as Written))
    links.onTold(stopAsked, () => this.#askAll())
    links.onTold(whenAsked, () => {
      this.#agreeing ??= Deferred.makeUnsafe<void>()
      links.tell(0, farTold, this.#furthest)
    })
    links.onTold(farTold, (peer, furthest) => this.#heardHowFar(peer, furthest as number))
    links.onTold(stopTold, (_, step) => this.#stopAt(step as number))
  }

  /** The last that was written or could not be, as far as this process knows. */
  get last(): Written | undefined {
    return this.#last
  }

  /** Folder of the last that was written. */
  get newest(): string | undefined {
    return this.#newest
  }

  /** The step after which the run stopped or will; undefined where it goes on to its end. */
  get stopsAfter(): number | undefined {
    const { steps } = this.#options
    return this.#stopAfter !== undefined && this.#stopAfter < steps ? this.#stopAfter : undefined
  }

  /** Lets all ranks stop with a checkpoint, after the first step that none of them has ended yet. */
  requestStop(): void {
    const { links } = this.#options
    if (this.#stopAfter !== undefined) return
    if (links === undefined) this.#stopAt(this.#furthest + 1)
    else links.tell(0, stopAsked, undefined)
  }

  readonly restored = (rank: number, tensor: Kept): TensorData =>
    this.#options.resumed!.restored(rank, tensor)

  readonly atStepEnd = (rank: number, step: number): Effect.Effect<AtStepEnd> =>
    Effect.suspend(() => {
      this.#ended.set(rank, step)
      const agreed = this.#agreeing === undefined ? Effect.void : Deferred.await(this.#agreeing)
      return Effect.map(agreed, (): AtStepEnd => {
        const { every, steps } = this.#options
        if (step === this.stopsAfter) return "snapshot and stop"
        return step % every === 0 || step === steps ? "snapshot" : "go on"
      })
    })

  readonly take: Snapshots["take"] = (rank, step, tensors, valuesOf): Effect.Effect<void, MachineError> => {
    const { folder, ranks, links } = this.#options
    const file = shardName(rank, ranks)
    return Effect.gen({ self: this }, function* () {
      const done = this.#doneWith(step)
      const failed = (why: string): Part => ({ step, failure: `rank ${rank}: ${why}` })
      const lost = this.#whyNot()
      const part =
        lost !== undefined
          ? failed(lost)
          : yield* writeShard(path.join(partialFolder(folder, step), file), tensors, valuesOf).pipe(
              Effect.map((written): Part => ({ step, shard: { rank, file, ...written } })),
              Effect.catchTag("TraceError", ({ message }) => Effect.succeed(failed(message)))
            )
      if (links === undefined) this.#came(part)
      else links.tell(0, partTold, part)
      yield* Deferred.await(done)
    })
  }

  /** Why nothing may be written now. What another run has taken over stays that run's, whichever process of this one finds out. */
  #whyNot(): string | undefined {
    const loss = this.#takenOver === undefined ? this.#options.lost() : undefined
    if (loss !== undefined && "gone" in loss) return loss.gone
    if (loss !== undefined)
      this.#takenOver = `${loss.by} has taken the folder over, as this run gave no sign of life for minutes`
    return this.#takenOver
  }

  get #furthest(): number {
    return Math.max(...this.#ended.values())
  }

  #doneWith(step: number): Deferred.Deferred<void> {
    let done = this.#done.get(step)
    if (done === undefined) this.#done.set(step, (done = Deferred.makeUnsafe<void>()))
    return done
  }

  #settle(outcome: Written): void {
    this.#last = outcome
    this.#newest = outcome.folder ?? this.#newest
    const done = this.#done.get(outcome.step)
    this.#done.delete(outcome.step)
    if (done !== undefined) Deferred.doneUnsafe(done, Effect.void)
  }

  /** At rank 0. */
  #came(part: Part): void {
    const { folder, ranks, keep, links, manifestAfter, onWritten } = this.#options
    const { step } = part
    const parts = this.#parts.get(step) ?? []
    parts.push(part)
    this.#parts.set(step, parts)
    if (parts.length < ranks) return
    this.#parts.delete(step)
    const shards = parts.flatMap(({ shard }) => (shard === undefined ? [] : [shard]))
    const lost = this.#whyNot()
    let failure = lost ?? parts.find((one) => one.failure !== undefined)?.failure
    let written: string | undefined
    if (failure === undefined) {
      const inOrder = shards.toSorted((a, b) => a.rank - b.rank)
      const manifest = printManifest(manifestAfter(step, inOrder))
      failure = refusalOf(() => (written = complete(folder, step, manifest, inOrder)))
    }
    const unremoved = written === undefined ? undefined : refusalOf(() => keepNewest(folder, keep))
    // What is left of it otherwise is removed when a run next begins in this folder; what another run writes there is not ours.
    if (written === undefined && lost === undefined) refusalOf(() => abandon(folder, step))
    const outcome: Written = { step, folder: written, failure, unremoved }
    onWritten(outcome)
    this.#settle(outcome)
    if (links !== undefined) for (let peer = 1; peer < ranks; peer++) links.tell(peer, doneTold, outcome)
  }

  // From the moment when a rank of another process has said how far it is, it waits at ends of steps until all know where to
  // stop: nobody can be past it. What says so is not the program, so a program that waits for others' ops holds nobody up.

  /** At rank 0. */
  #askAll(): void {
    const { links, ranks } = this.#options
    if (this.#isAsking || this.#stopAfter !== undefined || links === undefined) return
    this.#isAsking = true
    for (let peer = 0; peer < ranks; peer++) links.tell(peer, whenAsked, undefined)
  }

  /** At rank 0. */
  #heardHowFar(peer: number, furthest: number): void {
    const { links, ranks } = this.#options
    this.#far.set(peer, furthest)
    if (this.#far.size < ranks || links === undefined) return
    const step = Math.max(...this.#far.values()) + 1
    for (let other = 0; other < ranks; other++) links.tell(other, stopTold, step)
  }

  #stopAt(step: number): void {
    this.#stopAfter = step
    const agreeing = this.#agreeing
    this.#agreeing = undefined
    if (agreeing !== undefined) Deferred.doneUnsafe(agreeing, Effect.void)
  }
}

/** Why the system refused; undefined where it did not. */
const refusalOf = (work: () => void): string | undefined => {
  try {
    work()
    return undefined
  } catch (cause) {
    return messageOf(cause)
  }
}

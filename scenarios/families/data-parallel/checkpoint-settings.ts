// What a scenario says of checkpoints: how often all ranks save what they must find again, and what takes it. The copies are ops of
// the program on both machines; storage is simulated here, and for real it is the disk.
import { greatest } from "../../../core/extremes.ts"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Positive, withDefault } from "../../../core/fields.ts"
import { Machine, type Program, type ReadSource } from "../../../core/machine/machine.ts"
import { withSnapshots, type AtStepEnd, type Kept, type Snapshots } from "../../../core/machine/snapshots.ts"
import { elementsOf, sizeBytesOf } from "../../../core/machine/tensor.ts"
import { Bandwidth } from "../../../core/units.ts"
import type { World } from "../../../core/world.ts"
import { HostLinkSettings } from "../../sections.ts"

export const CheckpointSettings = Schema.Struct({
  /** Steps from one to the next. */
  every: Positive,
  /** Copies to the host; default: as measured, or estimated. */
  hostLink: Schema.optionalKey(HostLinkSettings),
  /** What the host's copies are written to; default: what takes all at once. */
  storage: Schema.optionalKey(
    Schema.Struct({
      bandwidth: Bandwidth.check(Schema.isGreaterThan(0)),
      /** Whose ranks share it, each its equal part: one rank alone (a disk of its own), those of a node, of a site, or all. */
      sharedBy: withDefault(Schema.Literals(["rank", "node", "site", "job"]), "job")
    })
  )
})
export type CheckpointSettings = typeof CheckpointSettings.Type

/** What one checkpoint of a rank took: the last that was written. */
export interface CheckpointTimes {
  readonly sizeBytes: number
  /** From the end of its step until all copies were on the host, and until the last was written. */
  readonly copiedSeconds: number
  readonly writtenSeconds: number
}

/** How many ranks share storage at most. */
const sharers = (
  by: NonNullable<CheckpointSettings["storage"]>["sharedBy"],
  { size, nodeOf, siteOf }: World
): number => {
  if (by === "rank") return 1
  if (by === "job") return size
  const counts = new Map<number, number>()
  for (const owner of by === "node" ? nodeOf : siteOf) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  return greatest(counts.values())
}

const dueAfter = (step: number, every: number): AtStepEnd => (step % every === 0 ? "snapshot" : "go on")

/**
 * Checkpoints of a program that two machines are to agree on: all that would be saved is copied, and nothing is written. When a copy
 * is read is a question of time, on which they need not agree.
 */
export const copiedCheckpoints = ({ every }: CheckpointSettings): Snapshots => ({
  from: 0,
  restored: neverRestored,
  atStepEnd: (_, step) => Effect.succeed(dueAfter(step, every)),
  take: () => Effect.void
})

const neverRestored = (): never => {
  throw new RangeError("this run begins at its beginning")
}

interface Simulated {
  /** Of a copy to the host. */
  readonly copySeconds: (tensor: Kept) => number
  /** Told of each that rank 0 has written, or the rank that stands for it. */
  readonly onWritten: (times: CheckpointTimes) => void
}

/** The program with simulated checkpoints: a rank's tensors are written one behind the other, each when its copy has come. */
export const savingProgram = (
  program: Program<void>,
  { every, storage }: CheckpointSettings,
  world: World,
  { copySeconds, onWritten }: Simulated
): Program<void> => {
  const bytesPerSecond =
    storage === undefined ? Infinity : storage.bandwidth / sharers(storage.sharedBy, world)
  return Effect.flatMap(Machine, ({ now, sleepUntil }) =>
    withSnapshots(program, {
      from: 0,
      restored: neverRestored,
      atStepEnd: (_, step) => Effect.succeed(dueAfter(step, every)),
      take: (rank, _, tensors, valuesOf) =>
        Effect.gen(function* () {
          let sizeBytes = 0
          // When the step has ended: the program was there earlier, and its first copy begins then.
          let begun: number | undefined
          // Copied, and written, up to then. What comes while storage is at another one waits in the host's memory.
          let [copied, written] = [0, 0]
          for (const tensor of tensors) {
            yield* valuesOf(tensor)
            copied = yield* now
            begun ??= copied - copySeconds(tensor)
            const bytes = sizeBytesOf(elementsOf(tensor.shape), tensor.dtype)
            written = Math.max(written, copied) + bytes / bytesPerSecond
            sizeBytes += bytes
          }
          if (written > copied) yield* sleepUntil(written)
          if (rank === 0 && begun !== undefined)
            onWritten({ sizeBytes, copiedSeconds: copied - begun, writtenSeconds: written - begun })
        })
    })
  )
}

const nothing = new Float32Array(0)

/** What the program of a simulated checkpoint reads is there, and what it is does not matter. */
export const savedValues: ReadSource = (_, tensor) => (tensor.place === "host" ? nothing : undefined)

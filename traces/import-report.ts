// What every importer answers with.
import type { Profile } from "../core/profile.ts"

/** Time of a step in which collectives ran, seconds. */
export interface CommunicationTimes {
  /** Kernels that communicate, per step. */
  readonly kernels: number
  /** In which a kernel computed: copies, fills and what runs on a stream that communicates are none. */
  readonly computeSeconds: number
  /** In which at least one collective ran. */
  readonly unionSeconds: number
  /** Of that, while a kernel computed. */
  readonly overlappedSeconds: number
  /** Of that, while none did. */
  readonly exposedSeconds: number
  /** How many times as long kernels took beside collectives as the same kernels did without; undefined where too few tell. */
  readonly slowdown?: number | undefined
}

/** Collectives of one kind of a unit, per step: `bytes` of one rank's part, `seconds` of their kernels. */
interface Travelled {
  readonly calls: number
  readonly bytes: number
  readonly seconds: number
}

/** A unit of a sharded run: what is gathered at once. */
export interface ShardedUnit {
  /** As FSDP says it; the one that holds what is in no other is "root". */
  readonly name: string
  readonly tensors: number
  readonly elements: number
  readonly gathers: Travelled
  readonly scatters: Travelled
}

/** A run whose parameters were sharded. */
export interface ShardedRun {
  /** That hold the model together. */
  readonly ranks: number
  readonly units: ReadonlyArray<ShardedUnit>
  /** Device time per step of copies and casts around what travels; it is in no layer. */
  readonly copySeconds: number
}

/** One rank of a job whose trace, or part of one, was imported. */
export interface RankTimes {
  readonly rank: number
  readonly file: string
  readonly steps: number
  readonly stepSeconds: number
  readonly deviceBusySeconds: number
  readonly communication: CommunicationTimes
  /** What its clock shows later than the first rank's, from when their collectives end; undefined where none was common. */
  readonly clockOffsetSeconds: number | undefined
  /** Mean time, per step, that it came to collectives after the first to come; undefined where none was common. */
  readonly lateSeconds: number | undefined
}

/** How a recorded run was parallel beyond data. */
export type Parallelism = "fsdp" | "tensor" | "pipeline" | "expert"

/** A profile that was made of traces, and how sure each part of it is. */
export interface ImportReport {
  readonly profile: Profile
  /** Device time per step that belongs to no layer, by what it was, largest first. `share` is of the busy time (0..1). */
  readonly unattributed: ReadonlyArray<{
    readonly name: string
    readonly seconds: number
    readonly share: number
  }>
  /** Of traces: communication per step. */
  readonly communication?: CommunicationTimes
  /** Of traces of several ranks: each, by rank. */
  readonly ranks?: ReadonlyArray<RankTimes>
  /** Of traces: what their collectives say of how the run was parallel. */
  readonly parallelism?: ReadonlyArray<Parallelism>
  /** Of a trace of a sharded run: its units and what travelled. */
  readonly sharded?: ShardedRun | undefined
  /** What the user should know of how the input was read, one sentence each. */
  readonly warnings: ReadonlyArray<string>
}

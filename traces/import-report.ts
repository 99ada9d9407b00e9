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
  /** What the user should know of how the input was read, one sentence each. */
  readonly warnings: ReadonlyArray<string>
}

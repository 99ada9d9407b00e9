// When each op started and ended, in columns: the same for a simulated and a measured run.
// Knows nothing of files (traces/timeline writes it) nor of what made it.

import { Dictionary } from "../dictionary.ts"
import type { Role } from "./tensor.ts"

/** One row per op and rank. */
export interface Timeline {
  readonly rank: Int32Array
  /** Position in the rank's program order. */
  readonly op: Int32Array
  readonly lane: Uint8Array
  readonly step: Int32Array
  /** Index into `labels`. */
  readonly label: Int32Array
  readonly labels: ReadonlyArray<string>
  readonly kernel: Int32Array
  readonly kernels: ReadonlyArray<string>
  readonly startSeconds: Float64Array
  readonly endSeconds: Float64Array
  readonly sizeBytes: Float64Array
  /** Row of the op whose end let this one start, -1 where none did: the edge a critical path follows. */
  readonly cause: Int32Array
  /** What held each op up besides, between its cause's end and its start; of machines that tell, and not in files. */
  readonly held?: Held
}

/** In columns as a timeline; seconds directly before each op's start, first asleep, then the host's, then for multiprocessors. */
interface Held {
  /** The host was at work without a pause, and came to launch the op at its start; 0 where something else let it start. */
  readonly hostSeconds: Float64Array
  /** The program slept: until storage had taken something, or a request came. */
  readonly asleepSeconds: Float64Array
  /** Kernels of the rank held the multiprocessors that the op's own needed. */
  readonly placementSeconds: Float64Array
}

/** The edges of every op of one rank, as derived at submission: what two machines must agree on. */
export interface OpLog {
  readonly rank: number
  readonly entries: ReadonlyArray<OpLogEntry>
}

export interface OpLogEntry {
  readonly op: number
  readonly label: string
  /** The op's, where it has one; not in files. */
  readonly role?: Role | undefined
  readonly kernel: string
  readonly lane: number
  readonly step: number
  readonly group: string | undefined
  /** The ranks of the group, in its order; not in files. */
  readonly members?: ReadonlyArray<number> | undefined
  readonly sizeBytes: number
  /** Of a collective whose members put in different amounts: how much each does, the same on all (`memberRows`). */
  readonly rows?: string | undefined
  /** Values given at this launch, in the order of the kernel's `scalars`. */
  readonly scalars?: ReadonlyArray<number> | undefined
  /** Ops of the same rank on other lanes that must end first, beside those this lane already waited for. */
  readonly after: ReadonlyArray<number>
}

/**
 * Timelines as one, in the order given. `causes`: what a `cause` counts, rows of its own part (timelines of different ranks)
 * or already rows of the whole (pieces of one timeline).
 */
export const joinTimelines = (parts: ReadonlyArray<Timeline>, causes: "own" | "whole"): Timeline => {
  const rows = parts.reduce((sum, { op }) => sum + op.length, 0)
  const labels = new Dictionary()
  const kernels = new Dictionary()
  const joined = {
    rank: new Int32Array(rows),
    op: new Int32Array(rows),
    lane: new Uint8Array(rows),
    step: new Int32Array(rows),
    label: new Int32Array(rows),
    labels: labels.values,
    kernel: new Int32Array(rows),
    kernels: kernels.values,
    startSeconds: new Float64Array(rows),
    endSeconds: new Float64Array(rows),
    sizeBytes: new Float64Array(rows),
    cause: new Int32Array(rows)
  }
  let first = 0
  for (const part of parts) {
    for (const column of ["rank", "op", "lane", "step", "startSeconds", "endSeconds", "sizeBytes"] as const)
      joined[column].set(part[column], first)
    const labelCodes = part.labels.map((word) => labels.code(word))
    const kernelCodes = part.kernels.map((word) => kernels.code(word))
    part.label.forEach((label, row) => (joined.label[first + row] = labelCodes[label]!))
    part.kernel.forEach((kernel, row) => (joined.kernel[first + row] = kernelCodes[kernel]!))
    const before = causes === "own" ? first : 0
    part.cause.forEach((cause, row) => (joined.cause[first + row] = cause < 0 ? cause : before + cause))
    first += part.op.length
  }
  return joined
}

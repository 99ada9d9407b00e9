// A scenario ready to generate for real: its program, and what is told of what comes out. Knows no device.
import type { Tensor, TensorData } from "../core/machine/tensor.ts"
import type { Place } from "../core/machine/tensor.ts"
import type { Told } from "./family.ts"
import type { Rehearsed, Runnable } from "./runnable.ts"

/** What a person says of a generation beside the scenario. */
export interface GeneratingChoices {
  /** The result says no unless what comes out is right. */
  readonly verify?: boolean | undefined
  /** Weights that were trained, and the text that they learnt. */
  readonly weights?: string | undefined
  readonly text?: string | undefined
}

/** A real run that has ended and whose tensors still hold their values. */
export interface ExecutedEnd<A> {
  readonly ranks: ReadonlyArray<{
    readonly rank: number
    readonly value: A
    readonly peakBytes: Readonly<Record<Place, number>>
  }>
  readonly makespanSeconds: number
  readonly valuesOf: (rank: number, tensor: Tensor) => TensorData
}

/** A scenario that generates, ready for `exec generate`. */
export interface Generating<A = unknown, K = unknown> {
  readonly runnable: Runnable<A> | Rehearsed<A>
  /** What of a run is to be told, copied out of it. */
  keep(ended: ExecutedEnd<A>): K
  /** The result, whether it is as it should be, and of the rehearsal where there was one. */
  tell(kept: K, rehearsal: K | undefined): Told & { readonly ok: boolean }
}

// One request on its way: what it asked for, and the caches it holds. Knows nothing of batches or of who serves it.
import type { Tensor } from "../../machine/tensor.ts"

/** What a client asks for. Generation goes on for exactly `outputTokens`. */
export interface ServingRequest {
  readonly id: number
  readonly arrivalSeconds: number
  readonly promptTokens: number
  readonly outputTokens: number
  /** Where the prompt's examples begin, for ShotKV. */
  readonly shots?: ReadonlyArray<number>
}

/** Prompt and first token done: the cache that decoding starts from. */
export interface Sequence {
  readonly request: ServingRequest
  /** One per layer: [2, capacity, kvWidth], the prompt's kept rows first. */
  readonly caches: ReadonlyArray<Tensor>
  /** Rows of the prompt in each layer. */
  readonly promptRows: ReadonlyArray<number>
  /** The newest token, [1]. */
  readonly token: Tensor
}

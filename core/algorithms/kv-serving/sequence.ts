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

/** What serving gets from outside: a request's prompt, and which tokens of it a layer's choice kept. */
export type ServingRole =
  | { readonly kind: "prompt"; readonly request: number }
  | { readonly kind: "kept"; readonly request: number; readonly layer: number }

/** The role of a tensor that a serving program made. */
export const servingRole = ({ role }: Pick<Tensor, "role">): ServingRole | undefined =>
  role as ServingRole | undefined

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

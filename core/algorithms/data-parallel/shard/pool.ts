// Memory that units of a model in parts use in turn. Knows nothing of what is in it.
import * as Effect from "effect/Effect"
import type { Tensor } from "../../../machine/tensor.ts"

/** Tensors that several units use one after the other, made when one is first asked for. */
export class Pool {
  readonly #made = new Map<string, Array<ReadonlyArray<Tensor>>>()
  readonly #asked = new Map<string, number>()

  /** `slots` sets of tensors at most for all who ask with the same key, in turn. */
  take<E, R>(
    key: string,
    slots: number,
    make: (slot: number) => Effect.Effect<ReadonlyArray<Tensor>, E, R>
  ): Effect.Effect<ReadonlyArray<Tensor>, E, R> {
    const made = this.#made.get(key) ?? []
    this.#made.set(key, made)
    const turn = this.#asked.get(key) ?? 0
    this.#asked.set(key, turn + 1)
    const slot = turn % slots
    const known = made[slot]
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(make(slot), (tensors) => (made[slot] = tensors))
  }
}

// The gradients of the dense parts as the messages a plan sends: all layers' gradients in the order they become ready, cut
// where the plan cuts. A gradient that travels whole is sent as it is; others are copied into pieces and back.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { Group } from "../../world.ts"
import type { MoeRole } from "./model.ts"
import type { Tensors } from "./tensors.ts"

/** Gradients of what all ranks hold alike, norms and gates: one message of all layers, after all others. */
export const alikeMessage = (all: Group, gradients: ReadonlyArray<Tensor>): Op =>
  collective("all-reduce of norms and gates", kernels.all_reduce, Lane.inter, all, gradients, gradients)

/** Elements sent at each place of a backward pass, as a plan says them; layers in the order of the backward pass. */
export interface SentElements {
  readonly moe: ReadonlyArray<number>
  readonly dense: ReadonlyArray<number>
  readonly rest: number
  /** Largest message; a place with more to send sends several. */
  readonly messageElements?: number | undefined
}

interface GradientMessages {
  /** Per layer, to be run when its gradients are ready: copies into pieces. */
  readonly pack: ReadonlyArray<ReadonlyArray<Op>>
  readonly moe: ReadonlyArray<ReadonlyArray<Op>>
  readonly dense: ReadonlyArray<ReadonlyArray<Op>>
  readonly rest: ReadonlyArray<Op>
  /** When everything has been sent: copies back. */
  readonly unpack: ReadonlyArray<Op>
}

/**
 * @param gradients of each layer, in the order of the backward pass
 * Throws RangeError when the plan does not send everything, or something before it is ready.
 */
export const gradientMessages = (
  tensors: Tensors,
  group: Group,
  gradients: ReadonlyArray<ReadonlyArray<Tensor>>,
  sent: SentElements
): Effect.Effect<GradientMessages, OutOfMemory> =>
  Effect.gen(function* () {
    const sizes = gradients.map((own) => own.reduce((sum, { elements }) => sum + elements, 0))
    const total = sizes.reduce((sum, size) => sum + size, 0)
    // Ends of the messages, in elements from the first gradient on, and the place each belongs to.
    const places: Array<{
      readonly kind: "moe" | "dense" | "rest"
      readonly layer: number
      readonly upTo: number
    }> = []
    let exact = 0
    let ready = 0
    const most = sent.messageElements ?? Infinity
    const place = (kind: "moe" | "dense" | "rest", layer: number, elements: number): void => {
      const from = exact
      exact += elements
      const upTo = kind === "rest" ? total : Math.min(ready, Math.round(exact))
      for (let at = from + most; at < upTo; at += most) places.push({ kind, layer, upTo: Math.round(at) })
      places.push({ kind, layer, upTo })
    }
    sizes.forEach((size, layer) => {
      place("moe", layer, sent.moe[layer]!)
      place("dense", layer, sent.dense[layer]!)
      ready += size
    })
    if (Math.abs(exact + sent.rest - total) > 1 + 1e-6 * total) {
      throw new RangeError(`a plan that sends ${exact + sent.rest} of ${total} gradient elements`)
    }
    place("rest", sizes.length, sent.rest)

    // Cut every layer where messages end inside it.
    const pieces: Array<{ readonly upTo: number; readonly tensors: ReadonlyArray<Tensor> }> = []
    const pack: Array<ReadonlyArray<Op>> = []
    const unpack: Array<Op> = []
    let begin = 0
    for (const [layer, own] of gradients.entries()) {
      const end = begin + sizes[layer]!
      const inside = places.map(({ upTo }) => upTo).filter((upTo) => upTo > begin && upTo < end)
      const cuts = [...new Set([...inside, end])].filter((cut) => cut > begin)
      if (cuts.length <= 1) {
        if (cuts.length === 1) pieces.push({ upTo: end, tensors: own })
        pack.push([])
      } else {
        let from = begin
        const flat: Array<Tensor> = []
        for (const cut of cuts) {
          const piece = yield* tensors.make(
            `gradient piece ${layer} ${flat.length}`,
            [cut - from],
            own[0]!.dtype
          )
          flat.push(piece)
          pieces.push({ upTo: cut, tensors: [piece] })
          from = cut
        }
        pack.push([launch(`pack gradients ${layer}`, kernels.repack, Lane.compute, own, flat)])
        unpack.push(launch(`unpack gradients ${layer}`, kernels.repack, Lane.compute, flat, own))
      }
      begin = end
    }

    const moe = gradients.map((): Array<Op> => [])
    const dense = gradients.map((): Array<Op> => [])
    const rest: Array<Op> = []
    let next = 0
    for (const { kind, layer, upTo } of places) {
      const own: Array<Tensor> = []
      while (next < pieces.length && pieces[next]!.upTo <= upTo) own.push(...pieces[next++]!.tensors)
      if (own.length === 0) continue
      const op = collective("gradient all-reduce", kernels.all_reduce, Lane.inter, group, own, own, {
        role: { kind: "gradient" } satisfies MoeRole
      })
      if (kind === "rest") rest.push(op)
      else (kind === "moe" ? moe : dense)[layer]!.push(op)
    }
    return { pack, moe, dense, rest, unpack }
  })

// The dense part of a layer: normalisation, attention and projection, attention split over the ranks of a node (MP) and
// tokens split between (sequence parallelism). Gathers before and scatters after, inside the node.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { MoeGroups } from "./groups.ts"
import type { MoeModel, Shares } from "./model.ts"
import type { Parameter, Tensors } from "./tensors.ts"

export interface DensePart {
  /** Split over the node; gradients are summed over nodes. */
  readonly split: ReadonlyArray<Parameter>
  /** Held alike by all; gradients are summed over everyone. */
  readonly alike: ReadonlyArray<Parameter>
  readonly forward: ReadonlyArray<Op>
  readonly output: Tensor
  /** Written by `backward`. */
  readonly dinput: Tensor
  /**
   * In two parts: gradients of other layers may be sent between them, when what this one gathers is on its way.
   *
   * @param doutput gradient of `output`
   */
  readonly backward: (doutput: Tensor) => {
    readonly gather: ReadonlyArray<Op>
    readonly rest: ReadonlyArray<Op>
  }
}

interface Building {
  readonly tensors: Tensors
  readonly label: string
  readonly model: MoeModel
  readonly shares: Shares
  readonly groups: MoeGroups
  /** Lane of collectives inside the node. */
  readonly intra: Lane
  /** [tokens, width]. */
  readonly input: Tensor
}

export const makeDensePart = (building: Building): Effect.Effect<DensePart, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, label, model, shares, groups, intra, input } = building
    const { width, batch, sequence, heads: allHeads } = model
    const { perNode, nodeTokens, tokens, heads, kvHeads } = shares
    const headWidth = width / allHeads
    // Of queries, and of keys or values, on this rank.
    const [part, kvPart] = [heads * headWidth, kvHeads * headWidth]
    const packed = part + 2 * kvPart
    const kvWidth = kvPart * perNode
    const { position } = groups
    const stretch = [position * part, (position + 1) * part] as const
    const attention = { heads, kvHeads, headWidth, packed: true }

    const norm = yield* tensors.scale(`${label} norm`, width)
    // Queries, keys and values of this rank's heads.
    const qkv = yield* tensors.matrix(`${label} qkv`, width + 2 * kvWidth, width, {
      rows: [
        stretch,
        ...[0, 1].map((i) => {
          const from = width + i * kvWidth + position * kvPart
          return [from, from + kvPart] as const
        })
      ],
      columns: [0, width]
    })
    const projection = yield* tensors.matrix(`${label} projection`, width, width, {
      rows: [[0, width]],
      columns: stretch
    })

    const pass = (direction: string) => {
      const launched = (
        what: string,
        kernel: Kernel,
        reads: ReadonlyArray<Tensor>,
        writes: ReadonlyArray<Tensor>,
        attributes: Attributes = {}
      ): Op => launch(`${direction} ${label} ${what}`, kernel, Lane.compute, reads, writes, attributes)
      // A node of one rank has nothing to gather or scatter.
      const inNode = (
        kernel: "all_gather" | "reduce_scatter",
        from: Tensor,
        to: Tensor
      ): ReadonlyArray<Op> =>
        perNode === 1
          ? []
          : [
              collective(
                `${direction} ${label} MP ${kernel}`,
                kernels[kernel],
                intra,
                groups.inNode,
                [from],
                [to],
                {
                  attributes: { ranks: perNode }
                }
              )
            ]
      return { launched, inNode }
    }
    const make = (what: string, rows: number, columns: number) =>
      tensors.make(`${label} ${what}`, [rows, columns])
    const gathered = (what: string, own: Tensor) =>
      perNode === 1 ? Effect.succeed(own) : make(what, nodeTokens, width)
    const scattered = (what: string, whole: Tensor) =>
      perNode === 1 ? Effect.succeed(whole) : make(what, tokens, width)

    const normed = yield* make("normed", tokens, width)
    const rstd = yield* tensors.make(`${label} rstd`, [tokens], "float32")
    const whole = yield* gathered("gathered", normed)
    const projected = yield* make("qkv out", nodeTokens, packed)
    const shaped = yield* tensors.make(`${label} qkv by sequence`, [batch, sequence, packed])
    const attended = yield* tensors.make(`${label} attended`, [batch, sequence, part])
    const lse = yield* tensors.make(`${label} lse`, [batch, heads, sequence], "float32")
    const flat = yield* make("attended by token", nodeTokens, part)
    const partial = yield* make("projected", nodeTokens, width)
    const own = yield* scattered("scattered", partial)
    const output = yield* make("output", tokens, width)
    const forward = pass("forward")

    const dwhole = yield* tensors.make(`${label} projected gradient`, [nodeTokens, width])
    const dflat = yield* make("attended by token gradient", nodeTokens, part)
    const dattended = yield* tensors.make(`${label} attended gradient`, [batch, sequence, part])
    const dshaped = yield* tensors.make(`${label} qkv by sequence gradient`, [batch, sequence, packed])
    const dprojected = yield* make("qkv out gradient", nodeTokens, packed)
    const dgathered = yield* make("gathered gradient", nodeTokens, width)
    const dnormed = yield* scattered("normed gradient", dgathered)
    const dinput = yield* make("input gradient", tokens, width)
    const backward = pass("backward")

    return {
      split: [qkv, projection],
      alike: [norm],
      output,
      dinput,
      forward: [
        forward.launched("norm", kernels["rms_norm.forward"], [input, norm.tensor], [normed, rstd]),
        ...forward.inNode("all_gather", normed, whole),
        forward.launched("qkv", kernels["linear.forward"], [whole, qkv.tensor], [projected]),
        forward.launched("reshape", kernels.repack, [projected], [shaped]),
        forward.launched("attention", kernels["attention.forward"], [shaped], [attended, lse], attention),
        forward.launched("reshape", kernels.repack, [attended], [flat]),
        forward.launched("projection", kernels["linear.forward"], [flat, projection.tensor], [partial]),
        ...forward.inNode("reduce_scatter", partial, own),
        forward.launched("residual", kernels["residual.forward"], [input, own], [output])
      ],
      backward: (doutput) => {
        const dpartial = perNode === 1 ? doutput : dwhole
        const { launched, inNode } = backward
        return {
          gather: inNode("all_gather", doutput, dwhole),
          rest: [
            launched("projection", kernels["linear.backward_input"], [dpartial, projection.tensor], [dflat]),
            launched(
              "projection",
              kernels["linear.backward_weight"],
              [dpartial, flat],
              [projection.gradient]
            ),
            launched("reshape", kernels.repack, [dflat], [dattended]),
            launched(
              "attention",
              kernels["attention.backward"],
              [dattended, shaped, attended, lse],
              [dshaped],
              attention
            ),
            launched("reshape", kernels.repack, [dshaped], [dprojected]),
            launched("qkv", kernels["linear.backward_input"], [dprojected, qkv.tensor], [dgathered]),
            ...inNode("reduce_scatter", dgathered, dnormed),
            // After the scatter has left, so that it is hidden.
            launched("qkv", kernels["linear.backward_weight"], [dprojected, whole], [qkv.gradient]),
            launched(
              "norm",
              kernels["rms_norm.backward_input"],
              [dnormed, input, norm.tensor, rstd],
              [dinput]
            ),
            launched("norm", kernels["rms_norm.backward_weight"], [dnormed, input, rstd], [norm.gradient]),
            launched("residual", kernels.add, [dinput, doutput], [dinput])
          ]
        }
      }
    }
  })

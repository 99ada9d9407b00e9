// The Expert sub-module: the feed-forward part of one expert, as far as a rank holds it (ESP), on the rows of one chunk.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { ChunkRole } from "./exchange.ts"
import type { MoeModel, Shares } from "./model.ts"
import type { Parameter, Part, Tensors } from "./tensors.ts"

/** A rank's part of one expert: [gate,] up, down. */
export interface ExpertWeights {
  readonly name: string
  /** Products with the input: one for gpt, gate and up for mixtral. */
  readonly inward: ReadonlyArray<Parameter>
  readonly down: Parameter
}

/** What an expert's forward pass leaves for its backward pass, for one chunk. */
export interface ExpertSaved {
  readonly input: Tensor
  /** Results of the inward products. */
  readonly projected: ReadonlyArray<Tensor>
  /** Result of the activation. */
  readonly activated: Tensor
}

/** Allocates a rank's part of expert `expert` of a layer. */
export const expertWeights = (
  tensors: Tensors,
  model: MoeModel,
  { hidden }: Shares,
  layer: number,
  expert: number,
  position: number
): Effect.Effect<ExpertWeights, OutOfMemory> =>
  Effect.gen(function* () {
    const name = `layer ${layer} expert ${expert}`
    const range = [position * hidden, (position + 1) * hidden] as const
    const rows: Part = { rows: [range], columns: [0, model.width] }
    const columns: Part = { rows: [[0, model.width]], columns: range }
    const names = model.ffn === "gpt" ? ["up"] : ["gate", "up"]
    const inward = yield* Effect.forEach(names, (one) =>
      tensors.matrix(`${name} ${one}`, model.hidden, model.width, rows)
    )
    const down = yield* tensors.matrix(`${name} down`, model.width, model.hidden, columns)
    return { name, inward, down }
  })

const chunkOf = ({ name }: ExpertWeights, at: Omit<ChunkRole, "kind">) => ({
  label: `${at.pass} ${name} chunk ${at.chunk}`,
  role: { kind: "expert", ...at } satisfies ChunkRole
})

/** Forward ops on `input`, and the partial result, which is still to be summed over the node. */
export const expertForward = (
  tensors: Tensors,
  weights: ExpertWeights,
  at: Omit<ChunkRole, "kind">,
  input: Tensor
): Effect.Effect<
  { readonly ops: ReadonlyArray<Op>; readonly output: Tensor; readonly saved: ExpertSaved },
  OutOfMemory
> =>
  Effect.gen(function* () {
    const { label, role } = chunkOf(weights, at)
    const rows = input.shape[0]!
    const width = weights.inward[0]!.tensor.shape[0]!
    const ops: Array<Op> = []
    const projected: Array<Tensor> = []
    for (const { tensor } of weights.inward) {
      const out = yield* tensors.make(`${label} projected ${projected.length}`, [rows, width])
      ops.push(
        launch(`${label} expert`, kernels["linear.forward"], Lane.compute, [input, tensor], [out], {}, role)
      )
      projected.push(out)
    }
    const activated = yield* tensors.make(`${label} activated`, [rows, width])
    const activation = projected.length === 1 ? kernels["gelu.forward"] : kernels["swiglu.forward"]
    ops.push(launch(`${label} activation`, activation, Lane.compute, projected, [activated]))
    const output = yield* tensors.make(`${label} output`, [rows, input.shape[1]!])
    const down = [activated, weights.down.tensor]
    ops.push(launch(`${label} expert`, kernels["linear.forward"], Lane.compute, down, [output], {}, role))
    return { ops, output, saved: { input, projected, activated } }
  })

/**
 * Backward ops of one chunk, from the gradient of its whole output; the first chunk starts the weights' gradients, later ones
 * add to them. The input's gradient is still to be summed over the node.
 */
export const expertBackward = (
  tensors: Tensors,
  weights: ExpertWeights,
  at: Omit<ChunkRole, "kind">,
  saved: ExpertSaved,
  dout: Tensor
): Effect.Effect<{ readonly ops: ReadonlyArray<Op>; readonly dinput: Tensor }, OutOfMemory> =>
  Effect.gen(function* () {
    const { label, role } = chunkOf(weights, at)
    const first = at.chunk === 0
    const { input, projected, activated } = saved
    const ops: Array<Op> = []
    const product = (
      name: "linear.backward_input" | "linear.backward_weight",
      reads: ReadonlyArray<Tensor>,
      out: Tensor
    ) => {
      const weight = name === "linear.backward_weight"
      ops.push(
        launch(
          `${label} expert`,
          kernels[name],
          Lane.compute,
          weight && !first ? [...reads, out] : reads,
          [out],
          weight ? { accumulate: !first } : {},
          role
        )
      )
    }
    const dactivated = yield* tensors.make(`${label} activated gradient`, activated.shape)
    product("linear.backward_input", [dout, weights.down.tensor], dactivated)
    product("linear.backward_weight", [dout, activated], weights.down.gradient)
    const dprojected = yield* tensors.several(
      `${label} projected gradient`,
      projected.map(({ shape }) => shape)
    )
    const activation = projected.length === 1 ? kernels["gelu.backward"] : kernels["swiglu.backward"]
    ops.push(launch(`${label} activation`, activation, Lane.compute, [...projected, dactivated], dprojected))
    let dinput: Tensor | undefined
    for (const [i, { tensor, gradient }] of weights.inward.entries()) {
      const part = yield* tensors.make(`${label} input gradient ${i}`, input.shape)
      product("linear.backward_input", [dprojected[i]!, tensor], part)
      product("linear.backward_weight", [dprojected[i]!, input], gradient)
      if (dinput !== undefined) {
        ops.push(launch(`${label} sum`, kernels.add, Lane.compute, [dinput, part], [part]))
      }
      dinput = part
    }
    return { ops, dinput: dinput! }
  })

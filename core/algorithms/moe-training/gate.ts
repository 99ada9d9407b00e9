// The Gate sub-module with its Order and I-Order: which tokens go to which expert's rows, with what weight, and back. One
// builder for gates where tokens choose, one where experts do, one where every row is a mix (SoftMoE).
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../kernels/kernel.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { MoeGroups } from "./groups.ts"
import { noiseSeed, type MoeModel, type Shares } from "./model.ts"
import type { Parameter, Tensors } from "./tensors.ts"

/** Which row is whose, for one number of chunks. */
interface Layout {
  readonly chunks: number
  /** Token of each row; none where a row is a mix of all. */
  readonly tokens: Tensor | undefined
  /** Entry of the gate's weights that each row belongs to; its column where a row is a mix. */
  readonly assignments: Tensor
}

export interface Gate {
  /** Held alike by all ranks. */
  readonly parameters: ReadonlyArray<Parameter>
  /** From the tokens to weights and layouts. */
  readonly forward: ReadonlyArray<Op>
  readonly forwardLayout: Layout
  readonly backwardLayout: Layout
  /** How many of this rank's tokens chose each expert; only where tokens choose. */
  readonly counts: Tensor | undefined
  /** Tokens into message tensors, chunk by chunk. */
  order(messages: ReadonlyArray<Tensor>): Op
  /** Message tensors, back from the experts, into tokens. */
  inverseOrder(messages: ReadonlyArray<Tensor>, out: Tensor): Op
  /** From the gradient of the tokens to that of the messages, and of the weights (from `messages` as they came back). */
  inverseOrderBackward(
    dout: Tensor,
    dmessages: ReadonlyArray<Tensor>,
    messages: ReadonlyArray<Tensor>
  ): ReadonlyArray<Op>
  /** From the gradient of the dispatched messages to that of the gate's input, weights and choices included. */
  backward(dmessages: ReadonlyArray<Tensor>): ReadonlyArray<Op>
  /** Written by `backward`. */
  readonly dinput: Tensor
}

interface Building {
  readonly tensors: Tensors
  readonly label: string
  readonly model: MoeModel
  readonly shares: Shares
  /** Whose tokens these are. */
  readonly groups: Pick<MoeGroups, "node" | "position">
  readonly capacity: number
  readonly degrees: { readonly forward: number; readonly backward: number }
  /** The gate's input, [tokens, width]. */
  readonly input: Tensor
}

const rowsText = (tensors: ReadonlyArray<Tensor>): string => tensors.map(({ shape }) => shape[0]!).join(",")

/** Starts an op on the compute lane under the gate's name. */
const op = (
  { label }: Building,
  what: string,
  kernel: Kernel,
  reads: ReadonlyArray<Tensor>,
  writes: ReadonlyArray<Tensor>,
  attributes: Attributes = {}
): Op => launch(`${label} ${what}`, kernel, Lane.compute, reads, writes, attributes)

/** A linear layer of the gate, its gradients, and the gradient of its input. */
const linear = (building: Building, parameter: Parameter, input: Tensor) =>
  Effect.gen(function* () {
    const { tensors, label } = building
    const [width] = parameter.tensor.shape
    const out = yield* tensors.make(`${label} ${parameter.name} out`, [input.shape[0]!, width!])
    const dout = yield* tensors.make(`${label} ${parameter.name} out gradient`, out.shape)
    const dinput = yield* tensors.make(`${label} ${parameter.name} input gradient`, input.shape)
    return {
      out,
      dout,
      dinput,
      forward: op(building, "gate", kernels["linear.forward"], [input, parameter.tensor], [out]),
      backward: [
        op(building, "gate", kernels["linear.backward_weight"], [dout, input], [parameter.gradient]),
        op(building, "gate", kernels["linear.backward_input"], [dout, parameter.tensor], [dinput])
      ]
    }
  })

/** Adds gradients of one tensor into the first of them. */
const summed = (building: Building, gradients: ReadonlyArray<Tensor>): ReadonlyArray<Op> =>
  gradients
    .slice(1)
    .map((more) => op(building, "gate sum", kernels.add, [gradients[0]!, more], [gradients[0]!]))

export const makeGate = (building: Building): Effect.Effect<Gate, OutOfMemory> => {
  switch (building.model.gate) {
    case "expert-choice":
      return expertChoice(building)
    case "soft-moe":
      return softMoe(building)
    default:
      return tokenChoice(building)
  }
}

const layoutAttributes = ({ model, shares, capacity }: Building, chunks: number) => ({
  experts: model.experts,
  ranks: shares.nodes,
  chunks,
  capacity
})

/** Layouts of both passes, made by `build` once where their degrees are equal. */
const bothLayouts = <E>(
  { degrees }: Building,
  build: (chunks: number) => Effect.Effect<{ readonly layout: Layout; readonly op: Op }, E>
) =>
  Effect.gen(function* () {
    const forward = yield* build(degrees.forward)
    const backward = degrees.backward === degrees.forward ? forward : yield* build(degrees.backward)
    return {
      forwardLayout: forward.layout,
      backwardLayout: backward.layout,
      ops: backward === forward ? [forward.op] : [forward.op, backward.op]
    }
  })

/** Layouts of `rows` rows that are one token's each, made from what was chosen; `writes` beside them. */
const rowLayouts = (
  building: Building,
  kernel: Kernel,
  chosen: Tensor,
  rows: number,
  writes: ReadonlyArray<Tensor> = [],
  attributes: Attributes = {}
) =>
  bothLayouts(building, (chunks) =>
    Effect.gen(function* () {
      const { tensors, label } = building
      const layout = {
        chunks,
        tokens: yield* tensors.make(`${label} tokens by ${chunks}`, [rows], "int32"),
        assignments: yield* tensors.make(`${label} assignments by ${chunks}`, [rows], "int32")
      }
      const how = { ...layoutAttributes(building, chunks), ...attributes }
      const made = [layout.tokens, layout.assignments, ...writes]
      return { layout, op: op(building, "layout", kernel, [chosen], made, how) }
    })
  )

/** Order, I-Order and their gradients where a row is one token's. */
const rowOrder = (
  building: Building,
  weights: Tensor,
  dweights: Tensor,
  forwardLayout: Layout,
  backwardLayout: Layout,
  dinput: Tensor
) => {
  const tokens = building.input.shape[0]!
  return {
    order: (messages: ReadonlyArray<Tensor>) =>
      op(building, "order", kernels["moe_order.forward"], [building.input, forwardLayout.tokens!], messages, {
        rows: rowsText(messages)
      }),
    inverseOrder: (messages: ReadonlyArray<Tensor>, out: Tensor) =>
      op(
        building,
        "I-order",
        kernels["moe_inverse_order.forward"],
        [weights, forwardLayout.tokens!, forwardLayout.assignments, ...messages],
        [out],
        { outputs: tokens }
      ),
    inverseOrderBackward: (
      dout: Tensor,
      dmessages: ReadonlyArray<Tensor>,
      messages: ReadonlyArray<Tensor>
    ) => [
      op(
        building,
        "I-order",
        kernels["moe_inverse_order.backward_input"],
        [dout, weights, backwardLayout.tokens!, backwardLayout.assignments],
        dmessages,
        { rows: rowsText(dmessages) }
      ),
      op(
        building,
        "I-order weights",
        kernels["moe_inverse_order.backward_gate"],
        [dout, weights, forwardLayout.tokens!, forwardLayout.assignments, ...messages],
        [dweights]
      )
    ],
    orderBackward: (dmessages: ReadonlyArray<Tensor>) =>
      op(building, "order", kernels["moe_order.backward"], [backwardLayout.tokens!, ...dmessages], [dinput], {
        inputs: tokens
      })
  }
}

const tokenChoice = (building: Building): Effect.Effect<Gate, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, label, model, shares, groups, input } = building
    const { experts, topK, width, gate, gateWidth } = model
    const tokens = shares.tokens
    const attributes = { topK }
    const ops: Array<Op> = []
    const back: Array<Op> = []
    const gradients: Array<Tensor> = []
    const parameters: Array<Parameter> = []

    // Scores [tokens, experts], and how their gradient goes on.
    let scores: Tensor
    let dscores: Tensor
    if (gate === "x-moe") {
      const projection = yield* tensors.matrix(`${label} projection`, gateWidth, width)
      const directions = yield* tensors.matrix(`${label} directions`, experts, gateWidth)
      parameters.push(projection, directions)
      const projected = yield* linear(building, projection, input)
      scores = yield* tensors.make(`${label} scores`, [tokens, experts])
      dscores = yield* tensors.make(`${label} scores gradient`, [tokens, experts])
      const cosine = { temperature }
      const reads = [projected.out, directions.tensor]
      ops.push(
        projected.forward,
        op(building, "gate", kernels["cosine_scores.forward"], reads, [scores], cosine)
      )
      const all = [dscores, ...reads, scores]
      back.push(
        op(building, "gate", kernels["cosine_scores.backward_weight"], all, [directions.gradient], cosine),
        op(building, "gate", kernels["cosine_scores.backward_input"], all, [projected.dout], cosine),
        ...projected.backward
      )
      gradients.push(projected.dinput)
    } else {
      const weight = yield* tensors.matrix(`${label} weight`, experts, width)
      parameters.push(weight)
      const clean = yield* linear(building, weight, input)
      ops.push(clean.forward)
      scores = clean.out
      dscores = clean.dout
      gradients.push(clean.dinput)
      if (gate === "gshard") {
        const noiseWeight = yield* tensors.matrix(`${label} noise weight`, experts, width)
        parameters.push(noiseWeight)
        const spread = yield* linear(building, noiseWeight, input)
        const noise = yield* tensors.make(`${label} noise`, [tokens, experts])
        scores = yield* tensors.make(`${label} noisy logits`, [tokens, experts])
        const draw = { rows: tokens, width: experts, seed: noiseSeed(model.seed, label, groups) }
        ops.push(
          spread.forward,
          op(building, "gate noise", kernels.random_normal, [], [noise], draw),
          op(building, "gate", kernels["noisy_logits.forward"], [clean.out, spread.out, noise], [scores])
        )
        back.push(
          op(building, "gate", kernels["noisy_logits.backward"], [dscores, spread.out, noise], [spread.dout]),
          ...spread.backward
        )
        gradients.push(spread.dinput)
      }
      back.push(...clean.backward)
    }

    const weights = yield* tensors.make(`${label} weights`, [tokens, topK], "float32")
    const dweights = yield* tensors.make(`${label} weights gradient`, [tokens, topK], "float32")
    const chosen = yield* tensors.make(`${label} chosen`, [tokens, topK], "int32")
    if (gate === "sigmoid") {
      ops.push(op(building, "gate", kernels["sigmoid_gate.forward"], [scores], [weights, chosen], attributes))
      const reads = [dweights, weights, chosen, scores]
      back.unshift(op(building, "gate", kernels["sigmoid_gate.backward"], reads, [dscores], attributes))
    } else {
      const probabilities = yield* tensors.make(`${label} probabilities`, [tokens, experts], "float32")
      const writes = [weights, chosen, probabilities]
      ops.push(op(building, "gate", kernels["topk_gate.forward"], [scores], writes, attributes))
      const reads = [dweights, probabilities, chosen]
      back.unshift(op(building, "gate", kernels["topk_gate.backward"], reads, [dscores], attributes))
    }

    const rows = building.capacity === 0 ? tokens * topK : experts * building.capacity
    const counts = yield* tensors.make(`${label} counts`, [experts], "int32")
    const layouts = yield* rowLayouts(building, kernels.moe_layout, chosen, rows, [counts], { topK })
    const { forwardLayout, backwardLayout } = layouts
    const dinput = yield* tensors.make(`${label} input gradient`, input.shape)
    const { orderBackward, ...order } = rowOrder(
      building,
      weights,
      dweights,
      forwardLayout,
      backwardLayout,
      dinput
    )
    return {
      parameters,
      forward: [...ops, ...layouts.ops],
      forwardLayout,
      backwardLayout,
      counts,
      ...order,
      backward: (dmessages) => [
        orderBackward(dmessages),
        ...back,
        ...summed(building, [dinput, ...gradients])
      ],
      dinput
    }
  })

/** Of X-MoE's cosine scores. */
const temperature = 0.3

const expertChoice = (building: Building): Effect.Effect<Gate, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, label, model, capacity, input } = building
    const { experts, width } = model
    const weight = yield* tensors.matrix(`${label} weight`, experts, width)
    const logits = yield* linear(building, weight, input)
    const attributes = { capacity }
    const weights = yield* tensors.make(`${label} weights`, [experts, capacity], "float32")
    const dweights = yield* tensors.make(`${label} weights gradient`, [experts, capacity], "float32")
    const chosen = yield* tensors.make(`${label} chosen`, [experts, capacity], "int32")
    const { forwardLayout, backwardLayout, ops } = yield* rowLayouts(
      building,
      kernels.expert_choice_layout,
      chosen,
      experts * capacity
    )
    const dinput = yield* tensors.make(`${label} input gradient`, input.shape)
    const { orderBackward, ...order } = rowOrder(
      building,
      weights,
      dweights,
      forwardLayout,
      backwardLayout,
      dinput
    )
    return {
      parameters: [weight],
      forward: [
        logits.forward,
        op(building, "gate", kernels["expert_choice.forward"], [logits.out], [weights, chosen], attributes),
        ...ops
      ],
      forwardLayout,
      backwardLayout,
      counts: undefined,
      ...order,
      backward: (dmessages) => [
        orderBackward(dmessages),
        op(
          building,
          "gate",
          kernels["expert_choice.backward"],
          [dweights, weights, chosen, logits.out],
          [logits.dout],
          attributes
        ),
        ...logits.backward,
        ...summed(building, [dinput, logits.dinput])
      ],
      dinput
    }
  })

const softMoe = (building: Building): Effect.Effect<Gate, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, label, model, shares, capacity, input } = building
    const slots = model.experts * capacity
    const mixShape = [shares.tokens, slots]
    const weight = yield* tensors.matrix(`${label} weight`, slots, model.width)
    const logits = yield* linear(building, weight, input)
    const [dispatch, combine, ddispatch, dcombine] = yield* Effect.all([
      tensors.make(`${label} dispatch`, mixShape, "float32"),
      tensors.make(`${label} combine`, mixShape, "float32"),
      tensors.make(`${label} dispatch gradient`, mixShape, "float32"),
      tensors.make(`${label} combine gradient`, mixShape, "float32")
    ])
    const { forwardLayout, backwardLayout, ops } = yield* bothLayouts(building, (chunks) =>
      Effect.gen(function* () {
        const columns = yield* tensors.make(`${label} columns by ${chunks}`, [slots], "int32")
        const how = layoutAttributes(building, chunks)
        return {
          layout: { chunks, tokens: undefined, assignments: columns },
          op: op(building, "layout", kernels.soft_layout, [], [columns], how)
        }
      })
    )
    const dinput = yield* tensors.make(`${label} input gradient`, input.shape)
    const [own, back] = [forwardLayout.assignments, backwardLayout.assignments]
    const softOrder = kernels["soft_order.forward"]
    const mixGradient = kernels["soft_order.backward_mix"]
    return {
      parameters: [weight],
      forward: [
        logits.forward,
        op(building, "gate", kernels["soft_gate.forward"], [logits.out], [dispatch, combine]),
        ...ops
      ],
      forwardLayout,
      backwardLayout,
      counts: undefined,
      order: (messages) =>
        op(building, "order", softOrder, [input, dispatch, own], messages, { rows: rowsText(messages) }),
      inverseOrder: (messages, out) =>
        op(building, "I-order", kernels["soft_inverse_order.forward"], [combine, own, ...messages], [out]),
      inverseOrderBackward: (dout, dmessages, messages) => [
        op(building, "I-order", softOrder, [dout, combine, back], dmessages, { rows: rowsText(dmessages) }),
        op(building, "I-order weights", mixGradient, [dout, combine, own, ...messages], [dcombine])
      ],
      backward: (dmessages) => [
        op(
          building,
          "order",
          kernels["soft_inverse_order.forward"],
          [dispatch, back, ...dmessages],
          [dinput]
        ),
        op(building, "order weights", mixGradient, [input, dispatch, back, ...dmessages], [ddispatch]),
        op(
          building,
          "gate",
          kernels["soft_gate.backward"],
          [ddispatch, dcombine, dispatch, combine],
          [logits.dout]
        ),
        ...logits.backward,
        ...summed(building, [dinput, logits.dinput])
      ],
      dinput
    }
  })

// The dense part of a layer: normalisation, attention and projection, attention split over the ranks of a node (MP) and
// tokens split between (sequence parallelism). Gathers before and scatters after, inside the node. It is the attention part
// of any decoder (core/models), of a rank's sizes; the backward pass follows from the forward one.
import * as Effect from "effect/Effect"
import { kernels } from "../../kernels/catalogue.ts"
import { Lane } from "../../machine/lane.ts"
import type { OutOfMemory } from "../../machine/machine.ts"
import { collective, launch, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import {
  attentionPart,
  attentionWeightShapes,
  headWidthOf,
  normEpsilon,
  type LayerStyle
} from "../../models/decoder-layer.ts"
import { GraphBuilder } from "../../models/graph-builder.ts"
import { gradientName, type KernelCall, type Layer, type Value } from "../../models/layer-graph.ts"
import type { MoeGroups } from "./groups.ts"
import type { MoeModel, MoeRole, Shares } from "./model.ts"
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

const style = {
  norm: "rms",
  attentionNorm: "norm",
  qkv: ["qkv"],
  attention: "attention",
  output: "projection",
  feedForwardNorm: "MoE norm",
  bias: false
} as const satisfies LayerStyle

/** What a rank computes of a layer's dense part. A layer of the graph is what an op is called after. */
const denseGraph = (model: MoeModel, shares: Shares) => {
  const { width, batch, sequence, dtype } = model
  const { perNode, nodeTokens, tokens, heads, kvHeads } = shares
  const shape = { heads, kvHeads, headWidth: headWidthOf(model) }
  const weights = attentionWeightShapes(style, { width, ...shape })
  const graph = new GraphBuilder("dense", { activations: dtype, parameters: dtype })
  const input = graph.input("input", [tokens, width], dtype)
  const output = attentionPart<Value, typeof style>(
    style,
    {
      norm: (x, name) => {
        graph.layer(name)
        return graph.rmsNorm(x, graph.parameter("weight", weights[name]), normEpsilon)
      },
      // The first map is cut by its rows, the second by its columns: its results are still to be summed over the node. Gather and
      // scatter stand so that the backward pass's scatter leaves before the gradient of the weight is computed, and is hidden.
      project: (x, name) => {
        graph.layer(name)
        const whole = name === style.output ? x : graph.allGather(x, perNode)
        const out = graph.linear(whole, graph.parameter("weight", weights[name]))
        return name === style.output ? graph.reduceScatter(out, perNode) : out
      },
      attention: ([qkv]) => {
        graph.layer("reshape")
        const bySequence = graph.reshape(qkv!, [batch, sequence, qkv!.shape[1]!], "qkv by sequence")
        graph.layer(style.attention)
        const attended = graph.attention([bySequence], shape)
        graph.layer("reshape")
        return graph.reshape(attended, [nodeTokens, attended.shape[2]!], "attended by token")
      },
      residual: (x, change) => {
        graph.layer("residual")
        return graph.residual(x, change)
      }
    },
    input
  )
  return { ...graph.part(input, output), input, output }
}

/** A rank's parts of the weights: queries, keys and values of its heads, and what goes from them into the projection. */
const makeParameters = ({ tensors, label, model, shares, groups }: Building) => {
  const { width } = model
  const { perNode, heads, kvHeads } = shares
  const headWidth = headWidthOf(model)
  const [part, kvPart] = [heads * headWidth, kvHeads * headWidth]
  const queryWidth = part * perNode
  const kvWidth = kvPart * perNode
  const { position } = groups
  const stretch = [position * part, (position + 1) * part] as const
  const kvStretch = (i: number) => {
    const from = queryWidth + i * kvWidth + position * kvPart
    return [from, from + kvPart] as const
  }
  return Effect.all({
    norm: tensors.scale(`${label} norm`, width),
    qkv: tensors.matrix(`${label} qkv`, queryWidth + 2 * kvWidth, width, {
      rows: [stretch, kvStretch(0), kvStretch(1)],
      columns: [0, width]
    }),
    projection: tensors.matrix(`${label} projection`, width, queryWidth, {
      rows: [[0, width]],
      columns: stretch
    })
  })
}

export const makeDensePart = (building: Building): Effect.Effect<DensePart, OutOfMemory> =>
  Effect.gen(function* () {
    const { tensors, label, model, shares, groups, intra } = building
    const { layers, input, output, outputGradient, inputGradient } = denseGraph(model, shares)
    const parameters = yield* makeParameters(building)
    const bound = new Map([[input.name, building.input]])
    for (const { name, parameters: own } of layers) {
      for (const value of own) {
        const { tensor, gradient } = parameters[name as keyof typeof parameters]
        bound.set(value.name, tensor)
        bound.set(gradientName(value), gradient)
      }
    }
    const calls = layers.flatMap((layer) => [...layer.forward, ...layer.backwardInput])
    for (const { kernel, inputs, outputs } of calls) {
      for (const { name, shape, dtype } of outputs) {
        // A sum takes the place of what was added last.
        const place = kernel === "add" ? bound.get(inputs[1]!.name) : undefined
        bound.set(name, place ?? (yield* tensors.make(`${label} ${name}`, shape, dtype)))
      }
    }
    const tensorOf = ({ name }: Value): Tensor => bound.get(name)!
    const op = (
      pass: "forward" | "backward",
      layer: string,
      { kernel, inputs, outputs, attributes }: KernelCall
    ): Op => {
      const [reads, writes] = [inputs.map(tensorOf), outputs.map(tensorOf)]
      return kernels[kernel].kind === "collective"
        ? collective(`${pass} ${label} MP ${kernel}`, kernels[kernel], intra, groups.inNode, reads, writes, {
            attributes,
            role: { kind: "MP", pass } satisfies MoeRole
          })
        : launch(`${pass} ${label} ${layer}`, kernels[kernel], Lane.compute, reads, writes, attributes)
    }
    const backwardCalls = ({ backwardInput, backwardWeight }: Layer) => [...backwardInput, ...backwardWeight]
    return {
      split: [parameters.qkv, parameters.projection],
      alike: [parameters.norm],
      output: tensorOf(output),
      dinput: tensorOf(inputGradient),
      forward: layers.flatMap(({ name, forward }) => forward.map((call) => op("forward", name, call))),
      backward: (doutput) => {
        bound.set(outputGradient.name, doutput)
        const ops = layers
          .toReversed()
          .flatMap((layer) => backwardCalls(layer).map((call) => op("backward", layer.name, call)))
        // What it gathers, where there is anything to, is the first that it needs.
        const gathers = shares.perNode === 1 ? 0 : 1
        return { gather: ops.slice(0, gathers), rest: ops.slice(gathers) }
      }
    }
  })

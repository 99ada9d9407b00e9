// Builds a layer graph from a forward pass: each operation emits its forward calls and notes how its backward calls follow,
// as a tape. Knows which kernel differentiates which; knows no particular model.
import { kernels, type KernelName } from "../kernels/catalogue.ts"
import { checkCall, operand, type Attributes, type Kernel, type Shape } from "../kernels/kernel.ts"
import type { Dtype } from "../machine/tensor.ts"
import {
  gradientName,
  type GraphPhase,
  type KernelCall,
  type Layer,
  type LayerGraph,
  type Value
} from "./layer-graph.ts"

interface GraphDtypes {
  /** Of activations and their gradients. Row statistics, gate weights and the loss are float32 always. */
  readonly activations: Dtype
  /** Of parameters and their gradients. */
  readonly parameters: Dtype
}

type LayerUnderConstruction = {
  readonly name: string
  readonly block: string
  readonly parameters: Array<Value>
} & { readonly [Phase in GraphPhase]: Array<KernelCall> }

/** A name and, where it is not the activations', a dtype for each output of a call. */
type Output = string | readonly [name: string, dtype: Dtype]

interface AttentionShape {
  readonly heads: number
  readonly kvHeads: number
  readonly headWidth: number
}

/** A layer graph under construction: `layer` opens one, operations are called on values, `finish` adds loss and backward pass. */
export class GraphBuilder {
  readonly #name: string
  readonly #dtypes: GraphDtypes
  readonly #layers: Array<LayerUnderConstruction> = []
  readonly #inputs: Array<Value> = []
  readonly #parameters = new Set<string>()
  /** Run in reverse, each within the layer that it was noted in. */
  readonly #tape: Array<{ readonly layer: LayerUnderConstruction; readonly backward: () => void }> = []
  readonly #gradients = new Map<string, Value>()
  readonly #contributions = new Map<string, number>()
  #current: LayerUnderConstruction | undefined

  constructor(name: string, dtypes: GraphDtypes) {
    this.#name = name
    this.#dtypes = dtypes
  }

  /** What follows belongs to this layer. */
  layer(name: string, block = name): void {
    this.#current = { name, block, parameters: [], forward: [], backwardInput: [], backwardWeight: [] }
    this.#layers.push(this.#current)
  }

  /** Token or target ids; of a part of a model, what comes before it leaves. */
  input(name: string, shape: Shape, dtype: Dtype = "int32"): Value {
    const value = { name, ...operand(shape, dtype) }
    this.#inputs.push(value)
    return value
  }

  /** A trainable tensor of the current layer. Of a padded table only the first `usedRows` rows are in use. */
  parameter(name: string, shape: Shape, usedRows = shape[0]): Value {
    const layer = this.#layer
    const value: Value = {
      name: `${layer.name}.${name}`,
      ...operand(shape, this.#dtypes.parameters),
      ...(usedRows === undefined || usedRows === shape[0] ? {} : { usedRows })
    }
    layer.parameters.push(value)
    this.#parameters.add(value.name)
    return value
  }

  embedding(tokens: Value, weight: Value): Value {
    const [out] = this.#forward("embedding.forward", {}, [tokens, weight], ["out"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toParameters(
        "embedding.backward_weight",
        { vocabulary: weight.shape[0]! },
        [dout, tokens],
        [weight]
      )
    })
    return out
  }

  positions(inp: Value, weight: Value): Value {
    const [out] = this.#forward("position_add.forward", {}, [inp, weight], ["out"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toParameters("position_add.backward_weight", { positions: weight.shape[0]! }, [dout], [weight])
      this.#share(inp, dout)
    })
    return out
  }

  layerNorm(inp: Value, weight: Value, bias: Value, epsilon: number): Value {
    const [out, mean, rstd] = this.#forward(
      "layer_norm.forward",
      { epsilon },
      [inp, weight, bias],
      ["out", "mean", "rstd"]
    )
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toInputs("layer_norm.backward_input", {}, [dout, inp, weight, mean!, rstd!], [inp])
      this.#toParameters("layer_norm.backward_weight", {}, [dout, inp, mean!, rstd!], [weight, bias])
    })
    return out
  }

  rmsNorm(inp: Value, weight: Value, epsilon: number): Value {
    const [out, rstd] = this.#forward("rms_norm.forward", { epsilon }, [inp, weight], ["out", "rstd"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toInputs("rms_norm.backward_input", {}, [dout, inp, weight, rstd!], [inp])
      this.#toParameters("rms_norm.backward_weight", {}, [dout, inp, rstd!], [weight])
    })
    return out
  }

  linear(inp: Value, weight: Value, bias?: Value): Value {
    const operands = bias === undefined ? [inp, weight] : [inp, weight, bias]
    const [out] = this.#forward("linear.forward", {}, operands, ["out"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toInputs("linear.backward_input", {}, [dout, weight], [inp])
      const parameters = bias === undefined ? [weight] : [weight, bias]
      this.#toParameters("linear.backward_weight", { bias: bias !== undefined }, [dout, inp], parameters)
    })
    return out
  }

  rope(inp: Value, headWidth: number, base: number, name: string): Value {
    const attributes = { headWidth, base }
    const [out] = this.#forward("rope.forward", attributes, [inp], [name])
    this.#note(() => this.#toInputs("rope.backward", attributes, [this.#gradientOf(out)], [inp]))
    return out
  }

  /** Causal self-attention of q, k and v, or of one operand that holds all three. */
  attention(operands: ReadonlyArray<Value>, shape: AttentionShape): Value {
    const attributes = { ...shape, packed: operands.length === 1 }
    const [out, lse] = this.#forward("attention.forward", attributes, operands, ["out", "lse"])
    this.#note(() => {
      const inputs = [this.#gradientOf(out), ...operands, out, lse!]
      this.#toInputs("attention.backward", attributes, inputs, operands)
    })
    return out
  }

  gelu(inp: Value): Value {
    const [out] = this.#forward("gelu.forward", {}, [inp], ["out"])
    this.#note(() => this.#toInputs("gelu.backward", {}, [inp, this.#gradientOf(out)], [inp]))
    return out
  }

  /** silu(gate) * up, of two operands or of one that holds both. */
  swiglu(operands: ReadonlyArray<Value>, name = "out"): Value {
    const attributes = { packed: operands.length === 1 }
    const [out] = this.#forward("swiglu.forward", attributes, operands, [name])
    this.#note(() =>
      this.#toInputs("swiglu.backward", attributes, [...operands, this.#gradientOf(out)], operands)
    )
    return out
  }

  /** Both gradients are the sum's own: no backward kernel. */
  residual(inp1: Value, inp2: Value): Value {
    const [out] = this.#forward("residual.forward", {}, [inp1, inp2], ["residual"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#share(inp1, dout)
      this.#share(inp2, dout)
    })
    return out
  }

  /** The gate's weights, [..., topK], and the experts it chose. */
  gate(logits: Value, topK: number): { readonly weights: Value; readonly chosen: Value } {
    const attributes = { topK }
    const [weights, chosen, probs] = this.#forward(
      "topk_gate.forward",
      attributes,
      [logits],
      [["weights", "float32"], "chosen", ["probs", "float32"]]
    )
    this.#note(() => {
      const inputs = [this.#gradientOf(weights), probs!, chosen!]
      this.#toInputs("topk_gate.backward", attributes, inputs, [logits])
    })
    return { weights, chosen: chosen! }
  }

  /** Sends every token to its experts, runs `body` on the rows sorted by expert, and adds the weighted results. */
  experts(
    inp: Value,
    { weights, chosen }: { readonly weights: Value; readonly chosen: Value },
    experts: number,
    body: (rows: Value, counts: Value) => Value
  ): Value {
    const topK = { topK: chosen.shape.at(-1)! }
    const [slots, counts] = this.#forward("moe_permutation", { experts }, [chosen], ["slots", "counts"])
    const [rows] = this.#forward("moe_dispatch.forward", topK, [inp, slots], ["dispatched"])
    this.#note(() => this.#toInputs("moe_dispatch.backward", topK, [this.#gradientOf(rows), slots], [inp]))
    const results = body(rows, counts!)
    const [out] = this.#forward("moe_combine.forward", topK, [results, weights, slots], ["out"])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toInputs("moe_combine.backward_gate", topK, [dout, results, slots], [weights])
      this.#toInputs("moe_combine.backward_input", topK, [dout, weights, slots], [results])
    })
    return out
  }

  groupedLinear(inp: Value, weight: Value, counts: Value, name: string): Value {
    const [out] = this.#forward("grouped_linear.forward", {}, [inp, weight, counts], [name])
    this.#note(() => {
      const dout = this.#gradientOf(out)
      this.#toInputs("grouped_linear.backward_input", {}, [dout, weight, counts], [inp])
      this.#toParameters("grouped_linear.backward_weight", {}, [dout, inp, counts], [weight])
    })
    return out
  }

  /** The same values in another shape. */
  reshape(inp: Value, shape: Shape, name: string): Value {
    const [out] = this.#forward("repack", {}, [inp], [name], [shape])
    this.#note(() => this.#toInputs("repack", {}, [this.#gradientOf(out)], [inp]))
    return out
  }

  /** The rows of all members of a group of `ranks`, one after the other, on each. */
  allGather(inp: Value, ranks: number): Value {
    if (ranks === 1) return inp
    const [out] = this.#forward("all_gather", { ranks }, [inp], ["gathered"])
    this.#note(() => this.#toInputs("reduce_scatter", { ranks }, [this.#gradientOf(out)], [inp]))
    return out
  }

  /** Of the sum over the members of a group of `ranks`, a part of the rows on each. */
  reduceScatter(inp: Value, ranks: number): Value {
    if (ranks === 1) return inp
    const [out] = this.#forward("reduce_scatter", { ranks }, [inp], ["scattered"])
    this.#note(() => this.#toInputs("all_gather", { ranks }, [this.#gradientOf(out)], [inp]))
    return out
  }

  /**
   * Ends a part of a model, and writes its backward pass down: from the gradient of `output`, which what follows leaves, to that
   * of `input`.
   */
  part(input: Value, output: Value) {
    const outputGradient: Value = { ...output, name: gradientName(output) }
    this.#gradients.set(output.name, outputGradient)
    this.#differentiate()
    const layers: ReadonlyArray<Layer> = this.#layers
    return { layers, outputGradient, inputGradient: this.#gradientOf(input) }
  }

  /**
   * Ends the model with the mean cross-entropy of `logits`, and writes the backward pass down. Logits beyond the vocabulary
   * are padding.
   */
  finish(logits: Value, targets: Value, vocabulary: number): LayerGraph {
    this.layer("loss")
    const operands = [logits, targets]
    const attributes = logits.shape.at(-1) === vocabulary ? {} : { classes: vocabulary }
    const [loss] = this.#forward("softmax_cross_entropy.forward", attributes, operands, [["out", "float32"]])
    this.#note(() => this.#toInputs("softmax_cross_entropy.backward", attributes, operands, [logits]))
    this.#differentiate()
    const layers: ReadonlyArray<Layer> = this.#layers
    return { name: this.#name, layers, inputs: this.#inputs, loss }
  }

  #differentiate(): void {
    for (const { layer, backward } of this.#tape.toReversed()) {
      this.#current = layer
      backward()
    }
  }

  get #layer(): LayerUnderConstruction {
    if (this.#current === undefined) throw new RangeError(`${this.#name}: no layer has been begun`)
    return this.#current
  }

  #note(backward: () => void): void {
    this.#tape.push({ layer: this.#layer, backward })
  }

  #call(
    phase: GraphPhase,
    kernel: KernelName,
    attributes: Attributes,
    inputs: ReadonlyArray<Value>,
    outputs: ReadonlyArray<Value>
  ): void {
    checkCall(kernels[kernel], inputs, outputs, attributes)
    this.#layer[phase].push({ kernel, attributes, inputs, outputs })
  }

  #forward(
    name: KernelName,
    attributes: Attributes,
    inputs: ReadonlyArray<Value>,
    outputs: readonly [Output, ...Array<Output>],
    chosen: ReadonlyArray<Shape> = []
  ): readonly [Value, ...Array<Value>] {
    const kernel: Kernel = kernels[name]
    const shapes = kernel.shapes(inputs, attributes) ?? chosen
    const toValue = (output: Output, index: number): Value => {
      const [own, dtype] = typeof output === "string" ? [output, this.#dtypes.activations] : output
      const fixed = kernel.outputDtypes[index] ?? dtype
      return { name: `${this.#layer.name}.${own}`, ...operand(shapes[index]!, fixed) }
    }
    const [first, ...rest] = outputs
    const values = [toValue(first, 0), ...rest.map((output, index) => toValue(output, index + 1))] as const
    this.#call("forward", name, attributes, inputs, values)
    return values
  }

  #gradientOf(value: Value): Value {
    const gradient = this.#gradients.get(value.name)
    if (gradient === undefined) throw new RangeError(`${this.#name}: nothing depends on ${value.name}`)
    return gradient
  }

  /** `value` contributes to the loss through one more use, with this gradient. */
  #share(value: Value, gradient: Value): void {
    const before = this.#gradients.get(value.name)
    if (before === undefined) {
      this.#gradients.set(value.name, gradient)
      return
    }
    const uses = (this.#contributions.get(value.name) ?? 1) + 1
    this.#contributions.set(value.name, uses)
    const sum = { ...before, name: `${gradientName(value)}.sum${uses}` }
    this.#call("backwardInput", "add", {}, [before, gradient], [sum])
    this.#gradients.set(value.name, sum)
  }

  /** A call that computes gradients of activations. */
  #toInputs(
    kernel: KernelName,
    attributes: Attributes,
    inputs: ReadonlyArray<Value>,
    values: ReadonlyArray<Value>
  ): void {
    const outputs = values.map((value) => ({
      ...value,
      name: this.#gradients.has(value.name)
        ? `${gradientName(value)}.${this.#layer.name}`
        : gradientName(value)
    }))
    this.#call("backwardInput", kernel, attributes, inputs, outputs)
    for (const [index, value] of values.entries()) this.#share(value, outputs[index]!)
  }

  /** A call that computes gradients of parameters, adding to what a tied use has left. */
  #toParameters(
    kernel: KernelName,
    attributes: Attributes,
    inputs: ReadonlyArray<Value>,
    parameters: ReadonlyArray<Value>
  ): void {
    const gradients = parameters.map((parameter): Value => ({ ...parameter, name: gradientName(parameter) }))
    const started = parameters.filter(({ name }) => this.#gradients.has(name)).length
    if (started !== 0 && started !== parameters.length) {
      throw new RangeError(`${this.#name}: ${kernel} would accumulate into only some of its gradients`)
    }
    const accumulate = started > 0
    const operands = accumulate ? [...inputs, ...gradients] : inputs
    this.#call(
      "backwardWeight",
      kernel,
      accumulate ? { ...attributes, accumulate } : attributes,
      operands,
      gradients
    )
    for (const [index, { name }] of parameters.entries()) this.#gradients.set(name, gradients[index]!)
  }
}

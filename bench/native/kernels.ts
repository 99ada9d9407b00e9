// How long the kernels of a training step of GPT-2 124M take on a backend, one after another in one lane, by its own clock.
//   npx node bench/native/kernels.ts --backend cuda --batch 4
//   npx node bench/native/kernels.ts --backend cuda --batch 4 --precision tf32    or float32, float16: as training.precision
//   npx node bench/native/kernels.ts --backend cuda --batch 4 --only attention    kernels whose names have that word
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Shape } from "../../core/kernels/kernel.ts"
import type { Dtype, Tensor } from "../../core/machine/tensor.ts"
import { TimedKernels, type TimedCall } from "./timed-kernels.ts"
import { backendOf, nameOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    batch: { type: "string", default: "4" },
    time: { type: "string", default: "1024" },
    vocabulary: { type: "string", default: "50304" },
    only: { type: "string", default: "" },
    repeats: { type: "string", default: "30" },
    precision: { type: "string", default: "bfloat16" }
  }
})
const backend = backendOf(values.backend)
const [batch, time, vocabulary] = [
  wholeNumber("--batch", values.batch),
  wholeNumber("--time", values.time),
  wholeNumber("--vocabulary", values.vocabulary)
]
const repeats = wholeNumber("--repeats", values.repeats)
const [width, heads] = [768, 12]

const precision = nameOf("--precision", values.precision, ["bfloat16", "float16", "float32", "tf32"])
const tf32 = precision === "tf32"
const layers: Dtype = tf32 ? "float32" : precision

const timed = new TimedKernels(backend)
const tensor = (dtype: Dtype, ...shape: Shape): Tensor =>
  timed.tensor(dtype, shape, Math.min(50_000, vocabulary))
/** Of layers: values, their gradients, and the parameters that they read. */
const ofLayers = (...shape: Shape): Tensor => tensor(layers, ...shape)
const single = (...shape: Shape): Tensor => tensor("float32", ...shape)

interface Case extends TimedCall {
  /** How often a step runs it. */
  readonly count: number
}

const linears = (
  name: string,
  count: number,
  inWidth: number,
  outWidth: number,
  bias: boolean
): Array<Case> => {
  const [x, y] = [ofLayers(batch, time, inWidth), ofLayers(batch, time, outWidth)]
  const weight = ofLayers(outWidth, inWidth)
  const vector = ofLayers(outWidth)
  return [
    {
      name: `${name} forward`,
      kernel: "linear.forward",
      count,
      inputs: bias ? [x, weight, vector] : [x, weight],
      outputs: [y],
      attributes: { tf32 }
    },
    {
      name: `${name} dinput`,
      kernel: "linear.backward_input",
      count,
      inputs: [y, weight],
      outputs: [x],
      attributes: { tf32 }
    },
    {
      name: `${name} dweight`,
      kernel: "linear.backward_weight",
      count,
      inputs: [y, x],
      outputs: bias ? [weight, vector] : [weight],
      attributes: { bias, tf32 }
    }
  ]
}

const rows = ofLayers(batch, time, width)
const other = ofLayers(batch, time, width)
const third = ofLayers(batch, time, width)
const wide = ofLayers(batch, time, 4 * width)
const wideOther = ofLayers(batch, time, 4 * width)
const qkv = ofLayers(batch, time, 3 * width)
const dqkv = ofLayers(batch, time, 3 * width)
const lse = single(batch, heads, time)
const [mean, rstd] = [single(batch, time), single(batch, time)]
const [weight, bias] = [ofLayers(width), ofLayers(width)]
const attributes = { heads, kvHeads: heads, headWidth: width / heads, packed: true, causal: true }
const tokens = tensor("int32", batch, time)
const table = ofLayers(vocabulary, width)
const logits = ofLayers(batch, time, vocabulary)
const loss = single()
const parameters = 124_475_904
const [master, gradient, m, v] = [
  single(parameters),
  ofLayers(parameters),
  single(parameters),
  single(parameters)
]

const cases: ReadonlyArray<Case> = [
  ...linears("qkv", 12, width, 3 * width, true),
  ...linears("attention output", 12, width, width, true),
  ...linears("fc", 12, width, 4 * width, true),
  ...linears("projection", 12, 4 * width, width, true),
  ...linears("lm head", 1, width, vocabulary, false),
  {
    name: "attention forward",
    kernel: "attention.forward",
    count: 12,
    inputs: [qkv],
    outputs: [rows, lse],
    attributes
  },
  {
    name: "attention backward",
    kernel: "attention.backward",
    count: 12,
    inputs: [other, qkv, rows, lse],
    outputs: [dqkv],
    attributes
  },
  {
    name: "layer norm forward",
    kernel: "layer_norm.forward",
    count: 25,
    inputs: [rows, weight, bias],
    outputs: [other, mean, rstd]
  },
  {
    name: "layer norm dinput",
    kernel: "layer_norm.backward_input",
    count: 25,
    inputs: [other, rows, weight, mean, rstd],
    outputs: [third]
  },
  {
    name: "layer norm dweight",
    kernel: "layer_norm.backward_weight",
    count: 25,
    inputs: [other, rows, mean, rstd],
    outputs: [weight, bias]
  },
  { name: "gelu forward", kernel: "gelu.forward", count: 12, inputs: [wide], outputs: [wideOther] },
  {
    name: "gelu backward",
    kernel: "gelu.backward",
    count: 12,
    inputs: [wide, wideOther],
    outputs: [wideOther]
  },
  {
    name: "residual + norm",
    kernel: "residual_layer_norm.forward",
    count: 24,
    inputs: [rows, other, weight, bias],
    outputs: [third, other, mean, rstd]
  },
  {
    name: "norm backward",
    kernel: "residual_layer_norm.backward",
    count: 25,
    inputs: [rows, other, third, weight, mean, rstd],
    outputs: [rows, weight, bias]
  },
  {
    name: "fc + gelu",
    kernel: "linear_gelu.forward",
    count: 12,
    inputs: [rows, ofLayers(4 * width, width), ofLayers(4 * width)],
    outputs: [wide, wideOther],
    attributes: { tf32 }
  },
  {
    name: "projection dinput + gelu",
    kernel: "gelu_linear.backward_input",
    count: 12,
    inputs: [rows, ofLayers(width, 4 * width), wide],
    outputs: [wideOther],
    attributes: { tf32 }
  },
  { name: "residual", kernel: "residual.forward", count: 24, inputs: [rows, other], outputs: [third] },
  { name: "add", kernel: "add", count: 24, inputs: [rows, other], outputs: [third] },
  {
    name: "embedding forward",
    kernel: "embedding.forward",
    count: 1,
    inputs: [tokens, table],
    outputs: [rows]
  },
  {
    name: "embedding dweight",
    kernel: "embedding.backward_weight",
    count: 1,
    inputs: [rows, tokens],
    outputs: [table],
    attributes: { vocabulary }
  },
  {
    name: "cross-entropy",
    kernel: "softmax_cross_entropy.fused",
    count: 1,
    inputs: [logits, tokens],
    outputs: [loss, logits]
  },
  { name: "squared norm", kernel: "squared_norm", count: 1, inputs: [gradient], outputs: [loss] },
  {
    name: "adamw",
    kernel: "adamw",
    count: 1,
    inputs: [master, gradient, m, v],
    outputs: [master, m, v],
    attributes: { learningRate: 1e-4, step: 10 }
  }
]

const line = (name: string, ...columns: ReadonlyArray<string>): void =>
  console.log([name.padEnd(26), ...columns.map((column) => column.padStart(10))].join(""))

line("", "us", "per step", "ms", "TFLOP/s", "GB/s")
let total = 0
for (const one of cases) {
  if (!one.kernel.includes(values.only)) continue
  const { name, kernel, count, inputs, outputs, attributes: given = {} } = one
  const declared = kernels[kernel]
  const seconds = await timed.seconds([one], repeats)
  const { flops, readBytes, writtenBytes } = declared.work(inputs, outputs, given)
  total += seconds * count
  line(
    name,
    (seconds * 1e6).toFixed(1),
    String(count),
    (seconds * count * 1e3).toFixed(2),
    (flops / seconds / 1e12).toFixed(1),
    ((readBytes + writtenBytes) / seconds / 1e9).toFixed(0)
  )
}
line("all", "", "", (total * 1e3).toFixed(2))
timed.close()

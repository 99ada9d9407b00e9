// The products of a layer's experts, all at once (grouped_linear) and expert by expert (linear): rows as uneven as routing may be, one
// expert without any. TANDEM_CUDA_GROUPED=0 puts grouped ones on the ordinary cores,
// TANDEM_CUDA_WGMMA=0 has mma.sync for them on a Hopper too.
//   npx node bench/native/experts.ts --backend cuda
//   npx node bench/native/experts.ts --backend cpu --rows 96 --width 64 --ffn 128 --repeats 6
import { TimedKernels, type TimedCall } from "./timed-kernels.ts"
import { backendOf, nameOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    experts: { type: "string", default: "8" },
    rows: { type: "string", default: "8192" },
    width: { type: "string", default: "4096" },
    ffn: { type: "string", default: "14336" },
    dtype: { type: "string", default: "bfloat16" },
    repeats: { type: "string", default: "20" }
  }
})
const backend = backendOf(values.backend)
const [experts, rows] = [wholeNumber("--experts", values.experts), wholeNumber("--rows", values.rows)]
const [width, out] = [wholeNumber("--width", values.width), wholeNumber("--ffn", values.ffn)]
const repeats = wholeNumber("--repeats", values.repeats)
const dtype = nameOf("--dtype", values.dtype, ["bfloat16", "float16", "float32"])

// the last expert has none, the others fewer and fewer
const shares = Array.from({ length: experts }, (_, expert) => (expert === experts - 1 ? 0 : 1 / (expert + 1)))
const whole = shares.reduce((sum, share) => sum + share, 0)
const counts = shares.map((share) => Math.floor((rows * share) / whole))
counts[0]! += rows - counts.reduce((sum, count) => sum + count, 0)

const timed = new TimedKernels(backend)
const inp = timed.tensor(dtype, [rows, width])
const dout = timed.tensor(dtype, [rows, out])
const weight = timed.tensor(dtype, [experts, out, width])
const gradient = timed.tensor(dtype, [experts, out, width])
const sizes = timed.holding("int32", [experts], Int32Array.from(counts))
const apart = counts
  .filter((count) => count > 0)
  .map((count) => ({
    inp: timed.tensor(dtype, [count, width]),
    dout: timed.tensor(dtype, [count, out]),
    weight: timed.tensor(dtype, [out, width])
  }))

const cases: ReadonlyArray<readonly [TimedCall, ReadonlyArray<TimedCall>]> = [
  [
    { name: "forward", kernel: "grouped_linear.forward", inputs: [inp, weight, sizes], outputs: [dout] },
    apart.map((one) => ({
      name: "forward",
      kernel: "linear.forward",
      inputs: [one.inp, one.weight],
      outputs: [one.dout]
    }))
  ],
  [
    {
      name: "backward input",
      kernel: "grouped_linear.backward_input",
      inputs: [dout, weight, sizes],
      outputs: [inp]
    },
    apart.map((one) => ({
      name: "backward input",
      kernel: "linear.backward_input",
      inputs: [one.dout, one.weight],
      outputs: [one.inp]
    }))
  ],
  [
    {
      name: "backward weight",
      kernel: "grouped_linear.backward_weight",
      inputs: [dout, inp, sizes],
      outputs: [gradient]
    },
    apart.map((one) => ({
      name: "backward weight",
      kernel: "linear.backward_weight",
      inputs: [one.dout, one.inp],
      outputs: [one.weight]
    }))
  ]
]

const flops = 2 * rows * width * out
const told: Array<string> = []
for (const [together, each] of cases) {
  const [one, loop] = [await timed.seconds([together], repeats), await timed.seconds(each, repeats)]
  told.push(
    `${together.name} ${(one * 1e3).toFixed(3)} ms (${(flops / one / 1e12).toFixed(1)} TFLOP/s), expert by expert ${(loop * 1e3).toFixed(3)} ms`
  )
}
console.log(`${rows} rows of ${counts.join(", ")}, ${width} by ${out}, ${dtype}: ${told.join("; ")}`)
timed.close()

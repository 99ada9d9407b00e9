// How long it takes to choose a tenth of a prompt's tokens by kvpress's ChunkKV rule and to compact one layer's cache, by the
// clock of a backend. 32 query heads, 8 key/value heads, 128 wide; window 64, chunks of 20. Once as serving does it, with what prefill's
// attention has left of each query (the logarithm of its sum of exponentials), and once from queries and keys alone.
//   npx node bench/native/select.ts --backend cuda
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import { elementsOf, sizeBytesOf, type Dtype, type Tensor } from "../../core/machine/tensor.ts"
import { NativeSession } from "../../exec/native.ts"
import { median } from "../../core/median.ts"
import { backendOf, numbersOf, optionsOf, wholeNumber } from "../numbers.ts"

const { values } = optionsOf({
  options: {
    backend: { type: "string", default: "cuda" },
    tokens: { type: "string", default: "8192,32768,131072" },
    repeats: { type: "string", default: "20" }
  }
})
const backend = backendOf(values.backend)
const lengths = numbersOf("--tokens", values.tokens, wholeNumber)
const [heads, kvHeads, headWidth, window, chunk] = [32, 8, 128, 64, 20]
const repeats = wholeNumber("--repeats", values.repeats)

const session = NativeSession.open({ ranks: 1, backend, timed: true })
const rank = session.ranks[0]!
const drained = (): Promise<void> => new Promise((resolve) => rank.whenDrained(resolve))

let nextId = 0
const tensor = (dtype: Dtype, ...shape: ReadonlyArray<number>): Tensor => {
  const elements = elementsOf(shape)
  const id = nextId++
  const sizeBytes = sizeBytesOf(elements, dtype)
  const made: Tensor = { id, name: `t${id}`, shape, dtype, place: "device", elements, sizeBytes }
  if (!rank.alloc(made)) throw new Error(`${sizeBytes} B do not fit`)
  return made
}

let seed = 1
const random = (): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return seed / 2 ** 31 - 1
}

for (const time of lengths) {
  const chunks = Math.ceil(time / chunk)
  const count = Math.max(1, Math.floor(chunks * 0.1))
  const kept = Math.min(time, count * chunk)
  const [q, k, v] = [
    tensor("bfloat16", 1, time, heads * headWidth),
    tensor("bfloat16", 1, time, kvHeads * headWidth),
    tensor("bfloat16", 1, time, kvHeads * headWidth)
  ]
  for (const one of [q, k, v]) {
    const data = new Float32Array(one.elements)
    const stretch = Math.min(one.elements, 1_000_003)
    for (let i = 0; i < stretch; i++) data[i] = random()
    for (let at = stretch; at < data.length; at += stretch)
      data.set(data.subarray(0, Math.min(stretch, data.length - at)), at)
    rank.write(one, data)
  }
  const scores = tensor("float32", kvHeads, time)
  const pooled = tensor("float32", kvHeads, time)
  const ofChunks = tensor("float32", chunks)
  const list = tensor("int32", 1, kept)
  const cache = tensor("bfloat16", 2, kept, kvHeads * headWidth)
  const of = (
    name: string,
    ...rest: Parameters<typeof launch> extends [unknown, unknown, unknown, ...infer R] ? R : never
  ) => launch(name, kernels[name as keyof typeof kernels], Lane.compute, ...rest)
  const [mixed, lse] = [tensor("bfloat16", 1, time, heads * headWidth), tensor("float32", 1, heads, time)]
  rank.submit(of("attention.forward", [q, k, v], [mixed, lse], { heads, kvHeads, headWidth }), 0)
  await drained()
  rank.takeTimes()
  for (const [sums, known] of [
    ["attention's sums", [lse]],
    ["queries and keys alone", []]
  ] as const) {
    const ops = [
      of("kv.window_scores", [q, k, ...known], [scores], {
        heads,
        kvHeads,
        headWidth,
        window,
        softmax: true
      }),
      of("kv.pool_scores", [scores], [pooled], { window, kernel: 5, mode: "avg" }),
      of("kv.chunk_scores", [pooled], [ofChunks], { chunk, reduce: "mean" }),
      of("kv.top_chunks", [ofChunks], [list], { time, chunk, count, limit: time, window: 0 }),
      of("kv.gather", [k, v, list], [cache], { kvHeads, capacity: kept })
    ]
    for (let i = 0; i < repeats; i++) for (const op of ops) rank.submit(op, 0)
    await drained()
    if (session.fault !== undefined) throw new Error(JSON.stringify(session.fault))
    const times = rank.takeTimes()
    const rounds = Array.from({ length: repeats }, (_, i) =>
      times.slice(i * ops.length, (i + 1) * ops.length)
    ).slice(3)
    const whole = median(rounds.map((round) => round.at(-1)!.endSeconds - round[0]!.startSeconds))
    const each = ops.map((op, i) => {
      const seconds = median(rounds.map((round) => round[i]!.endSeconds - round[i]!.startSeconds))
      return `${op.kernel.name} ${(seconds * 1e6).toFixed(1)}`
    })
    console.log(`${time} tokens, ${sums}: ${(whole * 1e3).toFixed(3)} ms (us: ${each.join(", ")})`)
  }
  for (const one of [q, k, v, mixed, lse, scores, pooled, ofChunks, list, cache]) rank.free(one)
}
session.close()

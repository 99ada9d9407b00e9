// What a submission costs: from the TypeScript call until the op is in the native queue, one call at a time, and what
// surrounds it. Needs the native addon; `npm run bench:native`.
import { kernels } from "../../core/kernels/catalogue.ts"
import { Dependencies, touchedBy } from "../../core/machine/dependencies.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import { elementsOf, sizeBytesOf, type Tensor } from "../../core/machine/tensor.ts"
import { NativeSession, type NativeRank } from "../../exec/native.ts"

const rounds = 20
const opsPerRound = 2000

let nextId = 0
const tensorOn = (rank: NativeRank, shape: ReadonlyArray<number>): Tensor => {
  const elements = elementsOf(shape)
  const id = nextId++
  const tensor = { id, name: `t${id}`, shape, dtype: "float32", place: "device", elements } as const
  const made = { ...tensor, sizeBytes: sizeBytesOf(elements, tensor.dtype) }
  rank.alloc(made)
  return made
}

const drained = (rank: NativeRank): Promise<void> => new Promise((resolve) => rank.whenDrained(resolve))

/** Sorted nanoseconds per call, over all rounds. */
type Samples = Float64Array

const measure = async (rank: NativeRank, call: (i: number) => void): Promise<Samples> => {
  const samples = new Float64Array(rounds * opsPerRound)
  // once unmeasured, so that everything is compiled
  for (let round = -1; round < rounds; round++) {
    for (let i = 0; i < opsPerRound; i++) {
      const start = process.hrtime.bigint()
      call(i)
      const end = process.hrtime.bigint()
      if (round >= 0) samples[round * opsPerRound + i] = Number(end - start)
    }
    await drained(rank)
  }
  return samples.toSorted()
}

const print = (what: string, samples: Samples, clock: number): void => {
  const at = (share: number): string =>
    `${Math.max(0, samples[Math.floor(share * (samples.length - 1))]! - clock).toFixed(0)} ns`.padStart(9)
  console.log(`${what.padEnd(52)}${at(0.5)}${at(0.9)}${at(0.99)}`)
}

const session = NativeSession.open({ ranks: 1 })
const rank = session.ranks[0]!
const dependencies = new Dependencies()
rank.takeEdgesFrom(dependencies.edges)

const tensors = [0, 1, 2].map(() => {
  const tensor = tensorOn(rank, [256])
  dependencies.allocated(tensor)
  return tensor
})
const [a, b, c] = tensors as [Tensor, Tensor, Tensor]
const large = tensorOn(rank, [1 << 20])
const small = launch("small", kernels.add, Lane.compute, [a, b], [c])
const slow = launch("slow", kernels.scale, Lane.compute, [large], [large], { factor: 1 })
const copies = [Lane.compute, Lane.inter].map((lane) => launch("copy", kernels.copy, lane, [a], [b]))
const touched = new Map([small, ...copies].map((op) => [op, touchedBy(op)]))
let next = 0
const derived = (op: Op): void => {
  dependencies.derive(next, op.lane, touched.get(op)!)
  next = rank.submit(op, dependencies.edgeCount) + 1
}

const clock = (await measure(rank, () => {}))[Math.floor((rounds * opsPerRound) / 2)]!
console.log(`submitting one op; ${rounds * opsPerRound} calls each, less the ${clock} ns of the clock`)
console.log(`${"".padEnd(52)}${"median".padStart(9)}${"90 %".padStart(9)}${"99 %".padStart(9)}`)
print(
  "submit, lane busy with longer ops",
  await measure(rank, () => (next = rank.submit(slow, 0) + 1)),
  clock
)
print(
  "submit, small ops that end as fast as they come",
  await measure(rank, () => (next = rank.submit(small, 0) + 1)),
  clock
)
print("derive edges and submit, one lane", await measure(rank, () => derived(small)), clock)
print(
  "derive edges and submit, lanes that wait in turn",
  await measure(rank, (i) => derived(copies[i % 2]!)),
  clock
)
print("ask what a lane has ended", await measure(rank, () => void rank.ended(Lane.compute)), clock)

const before = performance.now()
for (let i = 0; i < 200_000; i++) next = rank.submit(small, 0) + 1
const each = ((performance.now() - before) / 200_000) * 1e6
await drained(rank)
console.log(`200,000 submissions in a row: ${each.toFixed(0)} ns each`)
session.close()

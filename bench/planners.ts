// How good and how fast the synchronisation planners are, on seeded instances:
//   node bench/planners.ts [instances per class, default 400]
// 1. gap of each method to the optimum (small instances, optimum proven by branch and bound) and, for the published
//    search, to the contiguous optimum it looks for and to the equal-number partition it is compared with;
// 2. gap to the lower bound and time at sizes of real models, up to 1,000 layers and H = 50.

import { planAssignment } from "../core/algorithms/data-parallel/plan/assignment.ts"
import { planContiguous } from "../core/algorithms/data-parallel/plan/contiguous.ts"
import { type Deadline, type LayerTimes, syncProblem } from "../core/algorithms/data-parallel/plan/cost.ts"
import { planPublished, publishedSearch } from "../core/algorithms/data-parallel/plan/dreamddp.ts"
import { planEqualNumber } from "../core/algorithms/data-parallel/plan/partition.ts"
import type { SyncPlan } from "../core/algorithms/data-parallel/plan/sync-plan.ts"
import { wholeNumber } from "./numbers.ts"

/** A 32-bit xorshift; the instances are the same on every machine. */
const generator = (seed: number) => {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

interface Shape {
  readonly name: string
  readonly layer: (random: () => number, index: number, layers: number) => LayerTimes
}

const times = (forward: number, update: number, communication: number): LayerTimes => ({
  forwardSeconds: forward,
  backwardSeconds: 2 * forward,
  updateSeconds: update,
  communicationSeconds: communication
})

/** Costs per layer before the communication is scaled to the wanted load. */
const shapes: ReadonlyArray<Shape> = [
  { name: "equal layers", layer: () => times(1, 0.1, 1) },
  { name: "uniform random", layer: (random) => times(random(), 0.1 * random(), random()) },
  {
    name: "tied embedding, norms",
    layer: (random, index) =>
      index === 0
        ? times(0.1, 0.5, 25)
        : index % 4 === 3
          ? times(0.3, 0.01, 0)
          : times(0.5 + random(), 0.1, 0.5 + random())
  },
  {
    name: "convolutional: sizes grow",
    layer: (random, index, layers) =>
      times(1.5 - index / layers + 0.2 * random(), 0.05, 0.05 + (index / layers) ** 3)
  }
]

/** Layers whose total communication is `load` times what H backward passes last. */
const instance = (shape: Shape, layers: number, period: number, load: number, seed: number) => {
  const random = generator(seed)
  const raw = Array.from({ length: layers }, (_, index) => shape.layer(random, index, layers))
  const total = (pick: (layer: LayerTimes) => number) => raw.reduce((sum, layer) => sum + pick(layer), 0)
  const scale =
    (load * period * total((layer) => layer.backwardSeconds)) / total((layer) => layer.communicationSeconds)
  const scaled = raw.map((layer) => ({
    ...layer,
    communicationSeconds: layer.communicationSeconds * scale
  }))
  return (deadline: Deadline) => syncProblem(scaled, { period, deadline })
}

const count = wholeNumber("instances", process.argv[2] ?? "400")
const loads = [0.1, 0.3, 0.6, 0.9, 1.2, 2]
const deadlines: ReadonlyArray<Deadline> = ["end-of-backward", "next-use"]

/** Median, 95th percentile and largest of relative gaps, as text in per cent. */
const spread = (gaps: ReadonlyArray<number>): string => {
  const sorted = gaps.toSorted((a, b) => a - b)
  const at = (q: number) => `${(100 * (sorted[Math.floor(q * (sorted.length - 1))] ?? 0)).toFixed(1)}`
  return `${at(0.5)} / ${at(0.95)} / ${at(1)} %`
}
const gap = (seconds: number, reference: number): number =>
  reference === 0 ? (seconds === 0 ? 0 : Number.POSITIVE_INFINITY) : seconds / reference - 1

console.log(`# Gap of the exposed time, median / 95th / largest, ${count} instances a row (L 6..14, H 2..4)`)
for (const deadline of deadlines)
  for (const shape of shapes) {
    const random = generator(7)
    const gaps: Record<string, Array<number>> = { published: [], contiguous: [], "equal-number": [] }
    const toContiguous: Array<number> = []
    let proven = 0
    let publishedLoses = 0
    let publishedMisses = 0
    for (let k = 0; k < count; k++) {
      const layers = 6 + Math.floor(random() * 9)
      const period = 2 + Math.floor(random() * 3)
      const problem = instance(shape, layers, period, loads[k % loads.length]!, k + 1)(deadline)
      const best = planAssignment(problem)
      if (!best.exact) continue
      proven++
      const plans = [planPublished(problem), planContiguous(problem), planEqualNumber(problem)]
      for (const plan of plans) gaps[plan.method]!.push(gap(plan.exposedSeconds, best.exposedSeconds))
      const [published, contiguous, equal] = plans as [SyncPlan, SyncPlan, SyncPlan]
      toContiguous.push(gap(published.exposedSeconds, contiguous.exposedSeconds))
      if (published.exposedSeconds > contiguous.exposedSeconds * (1 + 1e-9)) publishedMisses++
      if (published.exposedSeconds > equal.exposedSeconds * (1 + 1e-9)) publishedLoses++
    }
    console.log(`${deadline}, ${shape.name}: optimum proven in ${proven} of ${count}`)
    for (const [method, values] of Object.entries(gaps))
      console.log(`  ${method.padEnd(13)} over the optimum     ${spread(values)}`)
    console.log(`  published     over best contiguous ${spread(toContiguous)}`)
    console.log(
      `  published is not the contiguous optimum in ${publishedMisses}, loses to equal-number in ${publishedLoses}`
    )
  }

console.log("\n# Sizes of real models: seconds exposed per period, and milliseconds to plan")
const sizes: ReadonlyArray<[number, number]> = [
  [46, 10],
  [125, 10],
  [400, 20],
  [1000, 50]
]
for (const deadline of deadlines)
  for (const shape of shapes)
    for (const [layers, period] of sizes)
      for (const load of [0.6, 1.2]) {
        const problem = instance(shape, layers, period, load, 1)(deadline)
        const timed = (plan: () => SyncPlan): [SyncPlan, string] => {
          const start = performance.now()
          const result = plan()
          return [result, `${(performance.now() - start).toFixed(0)} ms`]
        }
        const [assignment, assignmentTime] = timed(() => planAssignment(problem))
        const [contiguous, contiguousTime] = timed(() => planContiguous(problem))
        const [published, publishedTime] = timed(() => planPublished(problem))
        const [equal] = timed(() => planEqualNumber(problem))
        const row = (plan: SyncPlan, time: string) =>
          `${plan.method} ${plan.exposedSeconds.toFixed(2)}${plan.exact ? " (optimal)" : ""} ${time}`
        console.log(
          `${deadline}, ${shape.name}, L=${layers} H=${period} load ${load}: bound ${assignment.lowerBoundSeconds.toFixed(2)}; ` +
            [
              row(assignment, assignmentTime),
              row(contiguous, contiguousTime),
              row(published, publishedTime),
              row(equal, "")
            ].join("; ") +
            `; ${publishedSearch(problem).calls} calls`
        )
      }

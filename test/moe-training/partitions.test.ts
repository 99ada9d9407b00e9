// Where gradients are sent, by hand: chunks that outlast the gap they begin in, and a search over pieces too large to be better.
import { expect, it } from "vitest"
import {
  exactPartition,
  fixedChunks,
  greedyPartition,
  type GradientProblem
} from "../../core/algorithms/moe-training/plan/gradients.ts"

const costs = () => ({ allToAll: 1, allGather: 1, reduceScatter: 1, expert: 1 })

/** Each layer's pipelined part takes 10 s, of which its link idles for 4; its dense part 3 s. An element takes an eighth of a second. */
const problem: GradientProblem = {
  layers: [1000, 100].map((elements) => ({ elements, denseSeconds: 3, costs })),
  allReduceSeconds: (elements) => elements / 8,
  lanes: "three",
  degrees: [1],
  by: (_, gradientSeconds) => 10 + Math.max(0, gradientSeconds - 4)
}

it("chunks of a fixed size begin as long as there is a gap, and the last may outlast it", () => {
  // A chunk of 24 takes 3 s: in 4 s two begin, beside 3 s of dense ops one.
  const plan = fixedChunks(problem, 24)
  expect([plan.moe, plan.dense, plan.rest]).toEqual([[0, 48], [0, 24], 1028]) // prettier-ignore
  // The second layer takes 2 s longer for the 6 that its chunks take, and the rest is behind all.
  expect(plan.seconds).toBeCloseTo(10 + 3 + 12 + 3 + 1028 / 8, 9)
  // No more begin than there is to send.
  expect(
    fixedChunks({ ...problem, layers: [{ ...problem.layers[0]!, elements: 30 }, problem.layers[1]!] }, 24).moe
  ).toEqual([0, 30])
})

it("a search over whole pieces is never worse than filling what is idle, however large they are", () => {
  const greedy = greedyPartition(problem)
  expect(greedy.moe[1]).toBeCloseTo(32, 6)
  expect(greedy.dense[1]).toBeCloseTo(24, 6)
  for (const pieces of [1, 2, 3, 8])
    expect(exactPartition(problem, pieces).seconds).toBeLessThanOrEqual(greedy.seconds)
})

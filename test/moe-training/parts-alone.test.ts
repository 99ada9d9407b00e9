// Parts of MoE training that are profiled, simulated with a wait that is given: it is what their timeline tells, of every size and lane.
import { expect, it } from "vitest"
import { moePartsAlone } from "../../core/algorithms/moe-training/parts-alone.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { makeWorld } from "../../core/world.ts"
import { costOfCompany, withWaits } from "../../exec/in-company.ts"
import { forSimulation, recordedCollectives, without } from "../../exec/recorded.ts"
import { run } from "../simulate/simulated.ts"

const model = {
  layers: 1,
  width: 16,
  hidden: 32,
  heads: 2,
  kvHeads: 2,
  sequence: 64,
  batch: 2,
  experts: 4,
  topK: 2,
  capacityFactor: 1,
  ffn: "mixtral",
  gate: "softmax",
  gateWidth: 4,
  dtype: "float32",
  seed: 0,
  learningRate: undefined
} as const

it("tells what messages wait beside products, at every degree and on both lanes", () => {
  const link = { bytesPerSecond: 1e6, latencySeconds: 0 }
  const world = makeWorld([{ name: "here", nodes: [2, 2] }], { intra: link, inter: link, wan: undefined })
  const degrees = [1, 2, 4]
  const { program, kindOf } = moePartsAlone(world, { model, degrees, steps: 2 })
  const [waitSeconds, productSeconds] = [1e-3, 2e-3]
  const journals: Array<Journal> = []
  const { timeline, opLogs } = run({
    world,
    costs: { seconds: ({ label }) => (label === "product" ? productSeconds : 1e-5), estimates: [] },
    collectives: { algorithm: "ring", waitSeconds },
    record: true,
    symmetric: false,
    source: () => new Float32Array(1),
    program: journaled(program, journals)
  })
  const record = { timeline: timeline!, opLogs, journals }
  const company = costOfCompany(record, kindOf)!
  expect(company.kernels).toBeCloseTo(1, 6)
  const rows = recordedCollectives(
    without(record, (step) => kindOf(step) !== "alone"),
    forSimulation
  )
  // A message of each degree, there and back alike.
  for (const op of ["all_to_all", "all_gather", "reduce_scatter"]) {
    const own = company.waits.filter((wait) => wait.op === op)
    expect(own.length, op).toBe(degrees.length)
  }
  const known = withWaits(rows, company).filter(({ besideSeconds }) => besideSeconds !== undefined)
  expect(known.length).toBe(3 * degrees.length)
  expect([...new Set(Array.from(timeline!.step, kindOf))].toSorted()).toEqual(["alone", "beside", "warm-up"])
})

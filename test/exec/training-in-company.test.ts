// Steps that have company, simulated with a slowdown that is given: it is what their timeline tells.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { divide } from "../../core/algorithms/data-parallel/shard/groups.ts"
import { planShards, type ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { makeWorld } from "../../core/world.ts"
import { costOfCompany, withWaits } from "../../exec/in-company.ts"
import {
  inCompany,
  kindOfStep,
  messageKindOf,
  stepsWith,
  type CompanyMessage,
  type MessageKind
} from "../../exec/training-in-company.ts"
import { unitMessages } from "../../exec/unit-messages.ts"
import { modelGraph } from "../../scenarios/model-graph.ts"
import { run } from "../simulate/simulated.ts"
import { fsdp } from "../training/shard-stages.ts"

const link = { bytesPerSecond: 1e6, latencySeconds: 0 }
const world = makeWorld([{ name: "here", nodes: [1, 1] }], { intra: link, inter: link, wan: undefined })

const allReduced = (kind: MessageKind): CompanyMessage => ({
  ...kind,
  kernel: "all_reduce",
  elements: [1000]
})

const slowdownOf = (slowdown: number, messages: number, each: number, of: ReadonlyArray<CompanyMessage>) => {
  const company = { warmup: 1, each, messages, of, among: () => world.all }
  const kindOf = kindOfStep(company)
  const seen = { alone: 0, beside: 0 }
  const steps = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    for (let step = 0; step < stepsWith(company); step++) {
      const kind = kindOf(step)
      if (kind !== "warm-up") seen[kind]++
      for (let i = 0; i < 4; i++)
        machine.submit(launch(`work ${i}`, kernels.scale, Lane.compute, [x], [x], { factor: 1 }))
      yield* machine.endStep
    }
  })
  const journals: Array<Journal> = []
  const { timeline, opLogs } = run({
    world,
    costs: { seconds: () => 1e-3, estimates: [] },
    collectives: { algorithm: "ring", slowdown },
    record: true,
    symmetric: false,
    program: journaled(inCompany(steps, company), journals)
  })
  const sent = journals[0]!.entries.flatMap((entry) =>
    entry.kind === "op" && entry.op.group !== undefined ? [entry.op] : []
  )
  const firstKernel = Math.min(
    ...timeline!.startSeconds.filter((_, row) => timeline!.kernels[timeline!.kernel[row]!] === "scale")
  )
  const ahead = timeline!.endSeconds.filter((end, row) => timeline!.sizeBytes[row]! > 0 && end <= firstKernel)
  return {
    ahead: ahead.length,
    seen,
    sent,
    company: costOfCompany({ timeline: timeline!, opLogs, journals }, kindOf)
  }
}

it("tells what kernels lose beside messages, and that messages lose nothing", () => {
  fc.assert(
    fc.property(
      fc.double({ min: 1, max: 4, noNaN: true }),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 4 }),
      (slowdown, messages, each) => {
        const { ahead, seen, company } = slowdownOf(slowdown, messages, each, [
          allReduced({ dtype: "float32" })
        ])
        // One at each rank has ended before anything is timed: connections are made for the first.
        expect(ahead).toBe(2)
        expect(seen).toEqual({ alone: 2 * each, beside: 2 * each })
        expect(company!.kernels).toBeCloseTo(slowdown, 9)
        expect(company!.collectives).toBeCloseTo(1, 9)
      }
    )
  )
})

it("sends what the scenario's algorithm does: gradients as they are, or float32 that is rounded on its way", () => {
  expect(messageKindOf("float32", "bfloat16")).toEqual({ dtype: "float32" })
  expect(messageKindOf("float4", "bfloat16")).toEqual({ dtype: "float32", wire: "float4" })
  const kind = messageKindOf("bfloat16", "bfloat16")
  expect(kind).toEqual({ dtype: "bfloat16", wire: "bfloat16" })
  const { sent } = slowdownOf(1, 2, 1, [allReduced(kind)])
  for (const { reads, attributes } of sent) {
    expect(reads.map(({ dtype }) => dtype)).toEqual(["bfloat16"])
    expect(attributes["wire"]).toBe("bfloat16")
  }
  expect(sent.length).toBeGreaterThan(0)
})

/** Two blocks of two layers each, and an embedding that is in none, divided in two. */
const divided = (choices: Partial<ShardChoices> = {}) => {
  const graph = modelGraph(
    {
      gpt2: { layers: 2, width: 16, heads: 2, vocabulary: 64, vocabularyMultiple: 1, context: 16, batch: 2 }
    },
    "bfloat16"
  )
  const division = divide(world, "world")
  if ("sizes" in division) throw new Error("two equal parts")
  const plan = planShards(
    graph.layers.map(({ name }) => name),
    division,
    { ...fsdp, ...choices }
  )
  return { plan, graph }
}

it("sends a unit's gather and what sums its gradients, in their dtypes", () => {
  const { plan, graph } = divided()
  const messages = unitMessages(plan, graph)
  expect(messages.map(({ kernel, dtype, wire }) => [kernel, dtype, wire])).toEqual([
    ["all_gather", "bfloat16", undefined],
    ["reduce_scatter", "float32", undefined]
  ])
  // A block of width 16: 4 x 16 x 16 of attention, 8 x 16 x 16 of the feed-forward; biases and norms, each from a multiple of 128 on.
  expect(messages[0]!.elements).toEqual([12 * 16 * 16, 8 * 128])
  const zero1 = unitMessages(
    divided({ parameters: false, gradients: false, reduceDtype: "bfloat16" }).plan,
    graph
  )
  expect(zero1[1]).toMatchObject({ kernel: "all_reduce", dtype: "bfloat16" })
  const narrow = unitMessages(divided({ parameterDtype: "float8", reduceDtype: "float8" }).plan, graph)
  expect(narrow.map(({ wire }) => wire)).toEqual(["float8", "float8"])
})

it("tells what kernels lose beside a unit's messages, whose times it adds to a profile's", () => {
  const { plan, graph } = divided()
  const { company, sent } = slowdownOf(2, 3, 2, unitMessages(plan, graph))
  expect(company!.kernels).toBeCloseTo(2, 9)
  expect([...new Set(sent.map(({ kernel }) => kernel.name))]).toEqual(["all_gather", "reduce_scatter"])
  const rows = withWaits([], company)
  expect(rows.map(({ op, ranks }) => [op, ranks])).toEqual([
    ["all_gather", 2],
    ["reduce_scatter", 2]
  ])
  const whole = (12 * 16 * 16 + 8 * 128) * 2
  // Half of bfloat16 goes out, half of float32 comes in.
  expect(rows.map(({ sizeBytes }) => sizeBytes)).toEqual([whole / 2, whole])
  for (const { medianSeconds, besideSeconds } of rows) {
    expect(medianSeconds).toBeGreaterThan(0)
    expect(besideSeconds).toBeCloseTo(medianSeconds, 9)
  }
})

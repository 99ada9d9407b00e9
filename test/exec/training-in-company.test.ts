// Steps that have company, simulated with a slowdown that is given: it is what their timeline tells.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { makeWorld } from "../../core/world.ts"
import { costOfCompany } from "../../exec/in-company.ts"
import {
  inCompany,
  kindOfStep,
  messageKindOf,
  stepsWith,
  type MessageKind
} from "../../exec/training-in-company.ts"
import { run } from "../simulate/simulated.ts"

const link = { bytesPerSecond: 1e6, latencySeconds: 0 }
const world = makeWorld([{ name: "here", nodes: [1, 1] }], { intra: link, inter: link, wan: undefined })

const slowdownOf = (slowdown: number, messages: number, each: number, message: MessageKind) => {
  const company = { warmup: 1, each, messages, elements: [1000], message }
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
        const { ahead, seen, company } = slowdownOf(slowdown, messages, each, { dtype: "float32" })
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
  const { sent } = slowdownOf(1, 2, 1, kind)
  for (const { reads, attributes } of sent) {
    expect(reads.map(({ dtype }) => dtype)).toEqual(["bfloat16"])
    expect(attributes["wire"]).toBe("bfloat16")
  }
  expect(sent.length).toBeGreaterThan(0)
})

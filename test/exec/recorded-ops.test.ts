// Rows of a profile from a run whose ops change their sizes with every launch: a device that is slower for a while makes no size slower.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { oneRank } from "../../core/world.ts"
import { forBenchmark, recordedOps } from "../../exec/recorded.ts"
import { run } from "../simulate/simulated.ts"

/** Attention of one sequence, launched with each length in turn; an op takes what `secondsOf` says of its length and position. */
const rowsOf = (lengths: ReadonlyArray<number>, secondsOf: (length: number, position: number) => number) => {
  const journals: Array<Journal> = []
  let position = 0
  const { timeline, opLogs } = run({
    world: oneRank,
    costs: {
      seconds: ({ attributes }) => secondsOf(Number(attributes["longest"]), position++),
      estimates: [],
      host: undefined
    },
    record: true,
    program: journaled(
      Effect.gen(function* () {
        const machine = yield* Machine
        const q = yield* machine.alloc({ name: "q", shape: [1, 8], dtype: "float32" })
        const rows = yield* machine.alloc({ name: "rows", shape: [1, 1], dtype: "int32" })
        const cache = yield* machine.alloc({ name: "cache", shape: [2, 5000, 8], dtype: "float32" })
        const out = yield* machine.alloc({ name: "out", shape: [1, 8], dtype: "float32" })
        const attributes = { heads: 1, kvHeads: 1, headWidth: 8, list: 0 }
        const op = launch(
          "attention",
          kernels["kv.attention"],
          Lane.compute,
          [q, rows, cache],
          [out],
          attributes
        )
        for (const length of lengths) machine.submit(op, [length, length])
        yield* machine.drain
      }),
      journals
    )
  })
  return new Map(
    recordedOps({ timeline: timeline!, opLogs, journals }, forBenchmark).map(
      ({ attributes, medianSeconds }) => [attributes["kv"]!, medianSeconds] as const
    )
  )
}

const from = (first: number, count: number): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, i) => first + i)

it("has the median of all lengths that are as good as equal, whatever the first of them took", () => {
  const rows = rowsOf(from(4000, 40), (_, position) => (position < 8 ? 1.3e-4 : 1e-4))
  expect(rows.size).toBe(40)
  for (const seconds of rows.values()) expect(seconds).toBeCloseTo(1e-4, 12)
})

it("tells lengths apart that are not", () => {
  const rows = rowsOf([...from(100, 3), ...from(110, 3), ...from(4000, 3)], (length) => length * 1e-7)
  expect(rows.get(101)).toBeCloseTo(101e-7, 12)
  expect(rows.get(111)).toBeCloseTo(111e-7, 12)
  expect(rows.get(4001)).toBeCloseTo(4001e-7, 12)
})

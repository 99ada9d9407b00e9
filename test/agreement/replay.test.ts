// A program that asks for the time or whether an op has ended is told what another run of it was told, as long as it asks the same.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { replaying } from "../../core/agreement/replay.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Journal, JournalEntry } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { flatWorld, run } from "../simulate/simulated.ts"

/** Asks for the time, whether its op of a second has ended, and for the time once more. */
const asking: Program<ReadonlyArray<number | boolean>> = Effect.gen(function* () {
  const { alloc, submit, ready, now, drain } = yield* Machine
  const x = yield* alloc({ name: "x", shape: [4], dtype: "float32" })
  const before = yield* now
  submit(launch("double", kernels.scale, Lane.compute, [x], [x], { factor: 2 }))
  const ended = ready(x)
  const after = yield* now
  yield* drain
  return [before, ended, after, yield* now]
})

const told = (journals: ReadonlyArray<Journal>) =>
  run({
    world: flatWorld(1),
    costs: { seconds: () => 1, estimates: [] },
    program: replaying(asking, journals)
  }).ranks[0]!.value

const now = (seconds: number): JournalEntry => ({ kind: "now", seconds })
const ready = (id: number): JournalEntry => ({ kind: "ready", tensor: { id } as Tensor, ready: true })
const of = (...entries: ReadonlyArray<JournalEntry>): ReadonlyArray<Journal> => [{ rank: 0, entries }]
const own = [0, false, 0, 1]

describe("a program that is told what another run was", () => {
  it("asks its own machine where there is no other run", () => {
    expect(told([])).toEqual(own)
    expect(told([{ rank: 1, entries: [now(5), ready(0), now(7), now(9)] }])).toEqual(own)
  })

  it("has all answers of that run in order, whatever stands between them", () => {
    const end: JournalEntry = { kind: "endStep" }
    expect(told(of(now(5), ready(0), now(7), now(9)))).toEqual([5, true, 7, 9])
    expect(told(of(end, now(5), end, ready(0), now(7), end, now(9)))).toEqual([5, true, 7, 9])
  })

  it("asks its own machine from where the runs have parted: no answers are left, or one is to another question", () => {
    expect(told(of(now(5), ready(0)))).toEqual([5, true, 0, 1])
    expect(told(of(now(5), now(6), now(7), now(9)))).toEqual([5, false, 0, 1])
    expect(told(of(now(5), ready(1), now(7), now(9)))).toEqual([5, false, 0, 1])
    expect(told(of(ready(0), ready(0), now(7), now(9)))).toEqual(own)
    expect(told(of(now(5), ready(0), ready(0), now(9)))).toEqual([5, true, 0, 1])
  })
})

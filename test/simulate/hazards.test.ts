// Edges that a machine leaves out are missed where tensors share bytes, by whatever name, and nowhere else.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Execution } from "../../core/laws/execution.ts"
import { hazardsOrdered } from "../../core/laws/order.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { execute, flatWorld } from "./simulated.ts"

/** A view of 64 float32 numbers, 256 B, so many bytes behind the arena's beginning; undefined for the arena itself. */
type Place = number | undefined

/** One op on each of two lanes, each on a place in an arena of 1 KiB: what the first does to its place, then the second. */
const twoOps = (first: "read" | "write", at: Place, second: "read" | "write", then: Place): Execution =>
  execute({
    world: flatWorld(1, { bytesPerSecond: 8, latencySeconds: 0 }),
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const arena = yield* machine.alloc({ name: "arena", shape: [256], dtype: "float32" })
      const place = (name: string, offsetBytes: Place) =>
        offsetBytes === undefined
          ? Effect.succeed(arena)
          : machine.alloc({ name, shape: [64], dtype: "float32", within: { arena, offsetBytes } })
      const other = (name: string, of: Place) =>
        machine.alloc({ name, shape: [of === undefined ? 256 : 64], dtype: "float32" })
      const one = yield* place("one", at)
      const two = yield* place("two", then)
      const oneElse = yield* other("one else", at)
      const twoElse = yield* other("two else", then)
      const scaled = (
        label: string,
        lane: Lane,
        what: "read" | "write",
        own: typeof one,
        apart: typeof one
      ) =>
        launch(label, kernels.scale, lane, [what === "read" ? own : apart], [what === "read" ? apart : own], {
          factor: 2
        })
      machine.submit(scaled("first", Lane.compute, first, one, oneElse))
      machine.submit(scaled("second", Lane.inter, second, two, twoElse))
    })
  }).execution

const withoutEdges = (execution: Execution): Execution => ({
  ...execution,
  opLogs: execution.opLogs.map((log) => ({
    ...log,
    entries: log.entries.map((entry) => ({ ...entry, after: [] }))
  }))
})

describe("two ops on an arena, without the edge between them, are", () => {
  const shared: ReadonlyArray<readonly [Place, Place]> = [
    [0, 0],
    [256, 256],
    [0, undefined],
    [undefined, 768],
    [undefined, undefined]
  ]
  const apart: ReadonlyArray<readonly [Place, Place]> = [
    [0, 256],
    [512, 256],
    [0, 768]
  ]
  const ways = [
    ["write", "read"],
    ["write", "write"],
    ["read", "write"]
  ] as const
  it.each(ways.flatMap(([a, b]) => shared.map(([at, then]) => [a, at, b, then] as const)))(
    "a hazard: %s at %s, %s at %s",
    (a, at, b, then) => {
      const execution = twoOps(a, at, b, then)
      expect(hazardsOrdered(execution)).toBeUndefined()
      const violation = hazardsOrdered(withoutEdges(execution))
      expect(violation?.ops).toEqual([0, 1])
      expect(violation?.message).toMatch(
        /nothing orders op 1 "second" after op 0 "first", which (reads|writes) /u
      )
    }
  )
  it.each(apart)("none where they have no byte in common: %s and %s", (at, then) => {
    for (const [a, b] of ways) expect(hazardsOrdered(withoutEdges(twoOps(a, at, b, then)))).toBeUndefined()
  })
  it("none where both read", () => {
    expect(hazardsOrdered(withoutEdges(twoOps("read", 0, "read", undefined)))).toBeUndefined()
  })
})

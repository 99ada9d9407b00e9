// What a timeline says of the host, where it is known: a simulation is given the host's costs, and its timeline gives them back.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { hostSecondsOf, type HostCosts } from "../../core/cost/host.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { oneRank } from "../../core/world.ts"
import { recordedHost } from "../../exec/recorded-host.ts"
import { run } from "../simulate/simulated.ts"

/**
 * Rounds of so many ops on two lanes, each round begun by a read of what the last one wrote. `slow`: so many launches after a read take
 * five times as long as the others.
 */
const recorded = (deviceSeconds: number, host: HostCosts, ops: number, rounds: number, slow = 0) => {
  const journals: Array<Journal> = []
  const program = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    const y = yield* machine.alloc({ name: "y", shape: [1], dtype: "float32" })
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < ops; i++)
        machine.submit(
          launch(
            i < slow ? "slow" : "work",
            kernels.scale,
            i % 3 === 2 ? Lane.h2d : Lane.compute,
            [i % 3 === 2 ? y : x],
            [i % 3 === 2 ? y : x],
            {
              factor: 1
            }
          )
        )
      yield* machine.read(x)
    }
    yield* machine.drain
  })
  const { timeline, opLogs } = run({
    world: oneRank,
    costs: {
      seconds: () => deviceSeconds,
      estimates: [],
      host: {
        seconds: (op) => hostSecondsOf(host, op) * (op.label === "slow" ? 5 : 1),
        readSeconds: host.readSeconds,
        replaySeconds: 0,
        launchesLayers: false,
        readsEachStep: false,
        waitsFor: () => false
      }
    },
    record: true,
    source: () => new Float32Array(1),
    program: journaled(program, journals)
  })
  return recordedHost({ timeline: timeline!, opLogs, journals })
}

const hostOf = (launchSeconds: number, readSeconds: number): HostCosts => ({
  mode: "compiled",
  launchSeconds,
  collectiveSeconds: 0,
  hookSeconds: 0,
  readSeconds,
  replaySeconds: 0
})

describe("the host's costs in a timeline", () => {
  it("are those that were simulated, where the device waits for launches", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 5e-6, max: 5e-5, noNaN: true }),
        fc.double({ min: 1e-5, max: 1e-3, noNaN: true }),
        fc.integer({ min: 2, max: 30 }),
        (launchSeconds, readSeconds, ops) => {
          const found = recorded(1e-6, hostOf(launchSeconds, readSeconds), ops, 4)
          expect(found.launchSeconds).toBeCloseTo(launchSeconds, 10)
          expect(found.readSeconds).toBeCloseTo(readSeconds, 10)
        }
      )
    )
  })

  it("have no launch where the device never waits for the second: it is part of the read", () => {
    const found = recorded(2e-3, hostOf(1e-5, 4e-4), 2, 3)
    expect(found.launchSeconds).toBeUndefined()
    expect(found.readSeconds).toBeCloseTo(4.1e-4, 10)
  })

  it("are none of a run that reads once, at its end", () => {
    expect(recorded(1e-6, hostOf(1e-5, 1e-4), 5, 1)).toEqual({})
  })

  it("are no more than leaves room for all launches, where the device waits for the first alone", () => {
    const [launchSeconds, readSeconds, deviceSeconds] = [4e-6, 1e-4, 12e-6]
    const { launchSeconds: found } = recorded(deviceSeconds, hostOf(launchSeconds, readSeconds), 60, 4, 3)
    expect(found).toBeGreaterThan(launchSeconds)
    // the first three alone say 20 us; two of three ops are on the lane that all of them wait for
    expect(found).toBeLessThan(deviceSeconds)
  })
})

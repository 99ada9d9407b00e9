// What a program that serves requests asks of its machine: the time, to be woken at a time, and whether an op has ended.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { flatWorld, run } from "./simulated.ts"

const seconds = fc.double({ min: 0, max: 100, noNaN: true })

describe("a machine's clock", () => {
  it("wakes a program at the moment it asked for, and not before a moment that is past", () => {
    fc.assert(
      fc.property(fc.array(seconds, { minLength: 1, maxLength: 8 }), (moments) => {
        const program = Effect.gen(function* () {
          const machine = yield* Machine
          const woken: Array<number> = []
          for (const moment of moments) {
            yield* machine.sleepUntil(moment)
            woken.push(yield* machine.now)
          }
          return woken
        })
        const { value } = run({ world: flatWorld(1), program }).ranks[0]!
        let latest = 0
        for (const [index, moment] of moments.entries()) {
          latest = Math.max(latest, moment)
          expect(value[index]).toBe(latest)
        }
      }),
      // Of doubles, 0.3 + (0.9 - 0.3) is more than 0.9.
      { examples: [[[0.3, 0.9]], [[0.6, 1.7, 1.8]]] }
    )
  })

  it("says that a tensor is ready once its writer has ended, and lets ops run meanwhile", () => {
    fc.assert(
      fc.property(seconds, seconds, (duration, moment) => {
        const program = Effect.gen(function* () {
          const machine = yield* Machine
          const spec = { shape: [4], dtype: "float32" } as const
          const source = yield* machine.alloc({ name: "source", ...spec })
          const target = yield* machine.alloc({ name: "target", ...spec })
          machine.submit(launch("copy", kernels.copy, Lane.compute, [source], [target]))
          yield* machine.sleepUntil(moment)
          return [machine.ready(source), machine.ready(target)]
        })
        const costs = { seconds: () => duration, estimates: [] }
        const { ranks } = run({ world: flatWorld(1), program, costs })
        expect(ranks[0]!.value[0]).toBe(true)
        if (duration !== moment) expect(ranks[0]!.value[1]).toBe(duration < moment)
      })
    )
  })
})

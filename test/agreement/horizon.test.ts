// Where rounding grows and no update puts both machines at the same place again: how far they can be held to each other is found by
// running them step by step; and a step that is wrong is told from one that rounding has moved.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { Random } from "../../core/random.ts"
import { runOnBoth } from "../../exec/cli/both-machines.ts"
import { horizonOf } from "../../exec/cli/horizon.ts"
import { NativeSession } from "../../exec/native.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld } from "../simulate/simulated.ts"

const width = 48
const steps = 96

/** x = layer norm of V (silu(W x) * x), again and again: chaotic, so that what is rounded differently is more with each step. */
const iterated = (count: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const random = new Random(5)
    const tensor = (name: string, shape: ReadonlyArray<number>, initial: () => number) =>
      machine.alloc({
        name,
        shape,
        dtype: "float32",
        initial: () =>
          Float32Array.from({ length: shape.reduce((size, extent) => size * extent, 1) }, initial)
      })
    const drawn = () => 2 * random.uniform() - 1
    const x = yield* tensor("x", [4, width], drawn)
    const weight = yield* tensor("weight", [width, width], drawn)
    const mixing = yield* tensor("mixing", [width, width], drawn)
    const scale = yield* tensor("scale", [width], () => 1)
    const shift = yield* tensor("shift", [width], () => 0)
    const gate = yield* tensor("gate", [4, width], () => 0)
    const y = yield* tensor("y", [4, width], () => 0)
    const mixed = yield* tensor("mixed", [4, width], () => 0)
    const mean = yield* tensor("mean", [4], () => 0)
    const rstd = yield* tensor("rstd", [4], () => 0)
    for (let step = 0; step < count; step++) {
      machine.submit(launch("linear", kernels["linear.forward"], Lane.compute, [x, weight], [gate]))
      machine.submit(launch("gate", kernels["swiglu.forward"], Lane.compute, [gate, x], [y]))
      machine.submit(launch("mix", kernels["linear.forward"], Lane.compute, [y, mixing], [mixed]))
      machine.submit(
        launch("norm", kernels["layer_norm.forward"], Lane.compute, [mixed, scale, shift], [x, mean, rstd])
      )
      yield* machine.endStep
    }
    yield* machine.drain
  })

describeNative("two machines that rounding drives apart", () => {
  const options = { world: flatWorld(1), program: () => iterated(steps) }

  it("are held to each other in everything as far as that goes", async () => {
    const whole = await Effect.runPromise(runOnBoth(options))
    expect(whole.agreement).toMatchObject({ decisions: true, values: false, order: true })
    const horizon = (await Effect.runPromise(horizonOf(options, iterated, steps)))!
    expect(horizon.growth.ofRounding).toBe(true)
    expect(horizon.steps).toBeGreaterThan(0)
    expect(horizon.steps).toBeLessThan(horizon.growth.firstBeyond)
    expect(horizon.growth.steepest.factor).toBeGreaterThan(1)
    expect(horizon.agreement!.firstDisagreement).toBeUndefined()
    expect(horizon.agreement!.comparedTensors).toBe(10)
  })

  it("are not where a step is wrong", async () => {
    let ops = 0
    const wrong = {
      ...options,
      execution: {
        open: (opened: Parameters<typeof NativeSession.open>[0]) => {
          const session = NativeSession.open(opened)
          ops = 0
          for (const rank of session.ranks) {
            const submit = rank.submit.bind(rank)
            const other = new Map<unknown, Parameters<typeof submit>[0]>()
            // The tenth step takes one for the other.
            rank.submit = (op, edges, scalars) => {
              if (op.label !== "gate" || ops++ !== 9) return submit(op, edges, scalars)
              const swapped = other.get(op) ?? { ...op, reads: op.reads.toReversed() }
              other.set(op, swapped)
              return submit(swapped, edges, scalars)
            }
          }
          return session
        }
      }
    }
    const horizon = (await Effect.runPromise(horizonOf(wrong, iterated, steps)))!
    expect(horizon.growth.ofRounding).toBe(false)
    expect(horizon.growth.steepest.step).toBe(10)
    expect(horizon.agreement).toBeUndefined()
  })
})

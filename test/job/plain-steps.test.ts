// Steps by a program's own clock beside the same from the timeline, which a run that nobody times does not have.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { letOn, meanStepSeconds } from "../../bench/cluster/plain-steps.ts"
import { executedSteps } from "../../bench/cluster/measured-steps.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { defaultLookAhead, Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { oneRank } from "../../core/world.ts"
import { run } from "../simulate/simulated.ts"

const ran = (seconds: ReadonlyArray<number>, steps: number) => {
  const ends: Array<number> = []
  const program = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    for (let step = 0; step < steps; step++) {
      machine.submit(launch(String(step), kernels.scale, Lane.compute, [x], [x], { factor: 1 }))
      yield* machine.endStep
    }
  })
  const { timeline } = run({
    world: oneRank,
    costs: { seconds: ({ label }) => seconds[Number(label)]!, estimates: [] },
    record: true,
    program: letOn(program, ends)
  })
  return { ends, timeline: timeline! }
}

it("is what the timeline says, of steps that are not alike", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 1e-3, max: 1, noNaN: true }), { minLength: 6, maxLength: 20 }),
      fc.integer({ min: 0, max: 3 }),
      (seconds, warmupSteps) => {
        const steps = seconds.length - defaultLookAhead - warmupSteps
        const { ends, timeline } = ran(seconds, seconds.length)
        const { stepSeconds } = executedSteps(timeline, warmupSteps, steps)
        expect(meanStepSeconds(ends, warmupSteps, steps)).toBeCloseTo(stepSeconds, 9)
      }
    )
  )
})

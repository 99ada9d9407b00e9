// The example of docs/testing.md: a scheduler of one's own, and what it is checked for.
// #region scheduler
import * as Effect from "effect/Effect"
import { collective, kernels, Lane, Machine } from "tandem"
import type { Scheduler } from "tandem/testing"

/** Whose turn it is: is this layer averaged after this step? */
type Turn = (layer: number, step: number, period: number) => boolean

/** Local SGD whose communication is spread out: a few layers after each step, every layer once in each period. */
const staggered =
  (turn: Turn): Scheduler =>
  ({ model, planned, steps }) =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const { layers, update, peers } = yield* model
      const takeStep = update([...layers.keys()])
      for (let step = 0; step < steps; step++) {
        for (const { forward } of layers) for (const op of forward) machine.submit(op)
        for (const { backward } of layers.toReversed()) for (const op of backward) machine.submit(op)
        for (const { op, scalars } of takeStep(step)) machine.submit(op, scalars)
        const due = layers.filter((_, index) => turn(index, step, planned.periodSteps))
        const parameters = due.flatMap((layer) => layer.parameters)
        if (parameters.length > 0) {
          const average = { attributes: { reduce: "avg" } }
          machine.submit(
            collective("average", kernels.all_reduce, Lane.inter, peers, parameters, parameters, average)
          )
        }
        yield* machine.endStep
      }
    })

export const firstAttempt = staggered((layer, step, period) => layer === step % period)
// #endregion

// #region check
import { checkScheduler, neverSlowerThan, scenario, synchronisesEveryLayer } from "tandem/testing"

export const check = (scheduler: Scheduler, saveTo: string) =>
  checkScheduler(scheduler, {
    name: "staggered",
    scenarios: scenario({ algorithms: ["local-sgd"], maxFaults: 0, jitter: false }),
    properties: {
      synchronisesEveryLayer: synchronisesEveryLayer(),
      neverSlowerThanSynchronousSgd: neverSlowerThan({ name: "s-sgd" })
    },
    numRuns: 200,
    seed: 1, // so that this page can show what comes out
    saveTo
  })
// #endregion

// #region corrected
export const corrected = staggered((layer, step, period) => layer % period === step % period)
// #endregion

// #region test
import { assertScheduler } from "tandem/testing"

/** The body of a test, for any test runner. */
export const keepsTheLaws = () => assertScheduler(corrected, { numRuns: 50 })
// #endregion

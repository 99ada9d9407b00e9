// When two machines' values differ at the end of a long training run: is it rounding that grew? Runs both again, watched step
// by step; and if so compares all values at the last step at which they can be held to each other.
import * as Effect from "effect/Effect"
import type { Agreement } from "../../core/agreement/agree.ts"
import { gapsByStep, growthOf, watched, type Growth } from "../../core/agreement/growth.ts"
import type { MachineError, Program } from "../../core/machine/machine.ts"
import { runOnBoth, type BothOptions } from "./both-machines.ts"

/** Elements that are read of each rank at the end of each step. */
const watchedElements = 4096

export interface Horizon {
  readonly growth: Growth
  /** Both machines agree in everything after so many steps, on tensors at the end too. 0: nowhere, it is a disagreement. */
  readonly steps: number
  /** Of the run of so many steps. */
  readonly agreement: Agreement | undefined
}

/** Undefined where watching finds no step with values further apart than they may be. `steps`: of the whole run. */
export const horizonOf = <A>(
  options: BothOptions<A>,
  upTo: (steps: number) => Program<A>,
  steps: number
): Effect.Effect<Horizon | undefined, MachineError> =>
  Effect.gen(function* () {
    let growth: Growth | undefined
    // Most that part do so long before the end, and steps that are simulated with values are what takes time.
    for (const count of [Math.ceil(steps / 4), Math.ceil(steps / 2), steps]) {
      const seen = yield* runOnBoth({ ...options, program: () => watched(upTo(count), watchedElements) })
      const [ours, theirs] = [seen.simulatedRun.journals ?? [], seen.executedRun.journals ?? []]
      growth = growthOf(gapsByStep(ours, theirs, seen.tolerance))
      if (growth !== undefined) break
    }
    if (growth === undefined) return undefined
    if (!growth.ofRounding) return { growth, steps: 0, agreement: undefined }
    // Tensors that were not watched may have parted a little earlier.
    for (let steps = growth.firstBeyond - 1; steps >= 1; steps = steps >> 1) {
      const { agreement } = yield* runOnBoth({ ...options, program: () => upTo(steps) })
      if (agreement.firstDisagreement === undefined) return { growth, steps, agreement }
    }
    return { growth, steps: 0, agreement: undefined }
  })

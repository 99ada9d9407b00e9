// The simulated machine beside a real one that is broken on purpose: its native ranks are changed as soon as there are any.
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type { Agreement } from "../../core/agreement/agree.ts"
import { runOnBoth, runnableOn } from "../../exec/cli/both-machines.ts"
import { NativeSession, type NativeRank } from "../../exec/native.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"

/** Changes the native ranks that a run gets. */
export type Breakage = (rank: NativeRank, index: number) => void

export const intact: Breakage = () => undefined

/** Opens sessions whose ranks are changed so. */
export const openBroken =
  (breakage: Breakage) =>
  (options: Parameters<typeof NativeSession.open>[0]): NativeSession => {
    const session = NativeSession.open(options)
    session.ranks.forEach(breakage)
    return session
  }

/** A scenario of scenarios/agree on both machines, of which the real one may be broken. */
export const agreedOn = (
  name: string,
  settings: ReadonlyArray<string>,
  breakage: Breakage = intact
): Promise<Agreement> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const file = fileURLToPath(new URL(`../../scenarios/agree/${name}.yaml`, import.meta.url))
      const scenario = yield* loadScenario(file, settings)
      const runnable = yield* runnableOn(scenario, file, new Loader())
      const { agreement } = yield* runOnBoth({ ...runnable, execution: { open: openBroken(breakage) } })
      return agreement
    })
  )

/** One step of S-SGD, unless `settings` say otherwise. */
export const trainedOn = (breakage: Breakage, settings: ReadonlyArray<string>): Promise<Agreement> =>
  agreedOn("data-parallel", ["algorithm=s-sgd", "steps=1", ...settings], breakage)

// How properties run everywhere: seeded, so that a run repeats exactly; longer when soaking. Knows no property.
//   TANDEM_SEED=<integer>  another seed; a failed test prints the one it ran with
//   TANDEM_SOAK=<n>        20 n times the runs of every property, whether or not it names a number

import * as fc from "fast-check"
import { afterEach, vi } from "vitest"
import { settings } from "./settings.ts"

const { seed, runs, factor } = settings(process.env)

fc.configureGlobal({ seed, numRuns: runs * factor })

if (factor !== 1) {
  vi.doMock("fast-check", async (original) => {
    const actual = await original<typeof fc>()
    const longer = <T>(parameters: fc.Parameters<T> = {}): fc.Parameters<T> =>
      // A run repeated from its path, or over given examples only, has nothing to multiply.
      parameters.numRuns === undefined || parameters.path !== undefined
        ? parameters
        : { ...parameters, numRuns: parameters.numRuns * factor }
    const assert = <T>(property: fc.IRawProperty<T>, parameters?: fc.Parameters<T>) =>
      actual.assert(property, longer(parameters))
    const check = <T>(property: fc.IRawProperty<T>, parameters?: fc.Parameters<T>) =>
      actual.check(property, longer(parameters))
    return { ...actual, assert, check, default: { ...actual.default, assert, check } }
  })
}

afterEach(({ task }) => {
  if (task.result?.state !== "fail") return
  const soak = factor === 1 ? "" : `TANDEM_SOAK=${factor / 20} `
  console.error(
    `To repeat: TANDEM_SEED=${seed} ${soak}npx vitest run ${task.file.name} -t ${JSON.stringify(task.name)}`
  )
})

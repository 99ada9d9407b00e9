// Steps and peaks of memory that were measured, against a scenario and the changes that make it each step's: how such a table is
// simulated, claimed of and printed. What was measured, and what is claimed, its section says.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { formatBytes, formatSeconds } from "../../core/units.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { alignColumns } from "../../scenarios/table.ts"
import type { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../run.ts"
import { readTable, shipped, type Claim, type Section } from "./section.ts"

const Step = Schema.Struct({
  link: Schema.String,
  model: Schema.String,
  mode: Schema.String,
  /** What is added to the mode: from what it was predicted, where not as the others. */
  shown: Schema.optionalKey(Schema.String),
  stepSeconds: Schema.Number,
  peakBytes: Schema.optionalKey(Schema.Number),
  /** Changes to the scenario. */
  set: Schema.Array(Schema.String),
  /** Which claim it counts for: `StepClaim.of`. None: it is shown alone. */
  claim: Schema.optionalKey(Schema.String),
  /** Its costs are scaled to this very step. */
  given: Schema.optionalKey(Schema.Literal(true))
})
type Step = typeof Step.Type

const MeasuredSteps = Schema.Struct({
  source: Schema.String,
  /** From the table's folder. */
  scenario: Schema.String,
  steps: Schema.Array(Step)
})

interface StepClaim {
  readonly of: string
  readonly claim: string
  /** A share of the measured step. */
  readonly within: number
}

interface StepTable {
  readonly name: string
  readonly title: string
  readonly calibrated?: boolean
  /** As of a section. */
  readonly missed?: string
  /** A file of scenarios/validate. */
  readonly table: string
  readonly peaksWithin: number
  readonly claims: ReadonlyArray<StepClaim>
  readonly notes: ReadonlyArray<string>
}

/** What is asked for of steps; looser claims say how many meet it. */
const asked = 0.05

interface Compared extends Step {
  readonly simulatedSeconds: number
  readonly simulatedBytes: number
  readonly off: number
  readonly memoryOff: number | undefined
}

const compare = (step: Step, file: string, loader: Loader) =>
  Effect.gen(function* () {
    const scenario = yield* loadScenario(file, step.set)
    const { result } = yield* runScenario(scenario, file, { loader })
    const simulatedSeconds = metricOf(result, "stepSeconds")
    const simulatedBytes = result.peakBytes.device
    return {
      ...step,
      simulatedSeconds,
      simulatedBytes,
      off: simulatedSeconds / step.stepSeconds - 1,
      memoryOff: step.peakBytes === undefined ? undefined : simulatedBytes / step.peakBytes - 1
    }
  })

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`
const signed = (share: number): string => `${share < 0 ? "-" : "+"}${percent(Math.abs(share))}`

const claimOf = (claim: string, offs: ReadonlyArray<number>, within: number): Claim => {
  if (offs.length === 0)
    return { claim: `${claim} within ${Math.round(within * 100)} %`, holds: false, found: "none measured" }
  const worst = Math.max(...offs.map((off) => Math.abs(off)))
  const inside = (bound: number): number => offs.filter((off) => Math.abs(off) <= bound).length
  const met = within === asked ? "" : `(within 5 %: ${inside(asked)} of ${offs.length}) `
  return {
    claim: `${claim} ${met}within ${Math.round(within * 100)} %`,
    holds: inside(within) === offs.length,
    found: `${inside(within)} of ${offs.length}, worst ${percent(worst)}`
  }
}

/** A section of measured steps. */
export const stepTable = (options: StepTable): Section => ({
  name: options.name,
  title: options.title,
  ...(options.calibrated === undefined ? {} : { calibrated: options.calibrated }),
  ...(options.missed === undefined ? {} : { missed: options.missed }),
  open: Effect.map(readTable(options.table, MeasuredSteps), (table) => ({
    points: table.steps.length,
    check: (loader, done) =>
      Effect.gen(function* () {
        const file = path.resolve(path.dirname(shipped("")), "validate", table.scenario)
        const values: Array<Compared> = []
        for (const step of table.steps) {
          values.push(yield* compare(step, file, loader))
          done()
          // Lets signals in.
          yield* Effect.yieldNow
        }
        const peaks = values.flatMap(({ memoryOff }) => (memoryOff === undefined ? [] : [memoryOff]))
        return {
          source: table.source,
          claims: [
            claimOf("peaks of memory, whole and in parts,", peaks, options.peaksWithin),
            ...options.claims.map(({ of, claim, within }) =>
              claimOf(
                claim,
                values.filter((value) => value.claim === of).map(({ off }) => off),
                within
              )
            )
          ],
          lines: print(values),
          notes: options.notes,
          values: values.map((value) => ({ ...value }))
        }
      })
  }))
})

const print = (values: ReadonlyArray<Compared>): ReadonlyArray<string> => [
  ...alignColumns([
    ["  link", "model", "mode", "measured", "simulated", "off", "peak", "simulated", "off"],
    ...values.map((value) => [
      `  ${value.link}`,
      value.model,
      value.shown === undefined ? value.mode : `${value.mode}, ${value.shown}`,
      formatSeconds(value.stepSeconds),
      value.given === true ? "given" : formatSeconds(value.simulatedSeconds),
      value.given === true ? "" : signed(value.off),
      value.peakBytes === undefined ? "" : formatBytes(value.peakBytes),
      value.peakBytes === undefined ? "" : formatBytes(value.simulatedBytes),
      value.memoryOff === undefined ? "" : signed(value.memoryOff)
    ])
  ]),
  ""
]

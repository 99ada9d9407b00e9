// Training steps of PyTorch DDP over shaped links, measured, against the scenario that predicts them from a profile, the
// local step and all-reduce times on links that were no limit. None of the steps compared here is an input.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { formatSeconds } from "../../core/units.ts"
import { alignColumns } from "../../scenarios/table.ts"
import type { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../run.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { readTable, shipped, type Section } from "./section.ts"

const MeasuredSteps = Schema.Struct({
  source: Schema.String,
  /** Files that hold every repetition; a step says which it is from. */
  series: Schema.Array(Schema.String),
  scenario: Schema.String,
  steps: Schema.Array(
    Schema.Struct({
      ranks: Schema.Int,
      /** As tc takes it, or "unshaped". */
      linkRate: Schema.String,
      stepSeconds: Schema.Number,
      leastSeconds: Schema.Number,
      mostSeconds: Schema.Number,
      series: Schema.Int
    })
  )
})

const tolerance = 0.05
/** Faster than this, the measurements themselves differ by up to a quarter from run to run. */
const hostBound = new Set(["20gbit", "unshaped"])

export const measuredSteps: Section = {
  name: "ddp-gpt2-h200",
  title: "PyTorch DDP training GPT-2 124M over shaped links, measured",
  open: Effect.map(readTable("ddp-gpt2-h200.measured.json", MeasuredSteps), (table) => ({
    points: table.steps.length,
    check: (loader, done) =>
      Effect.gen(function* () {
        const file = path.resolve(path.dirname(shipped("")), "validate", table.scenario)
        const values: Array<Compared> = []
        for (const { ranks, linkRate, stepSeconds, leastSeconds, mostSeconds, series } of table.steps) {
          const simulatedSeconds = yield* predict(file, ranks, linkRate, loader)
          values.push({
            ranks,
            linkRate,
            measuredSeconds: stepSeconds,
            leastSeconds,
            mostSeconds,
            simulatedSeconds,
            relativeError: simulatedSeconds / stepSeconds - 1,
            claimed: !hostBound.has(linkRate),
            series: table.series[series] ?? ""
          })
          done()
          // Lets signals in.
          yield* Effect.yieldNow
        }
        const claimed = values.filter((value) => value.claimed)
        const worst = claimed.reduce((most, { relativeError }) => Math.max(most, Math.abs(relativeError)), 0)
        return {
          source: table.source,
          claims: [
            {
              claim: `every step at 10 Gbit/s and below within ${tolerance * 100} %`,
              holds: claimed.length > 0 && worst <= tolerance,
              found: `${claimed.filter(({ relativeError }) => Math.abs(relativeError) <= tolerance).length} of ${claimed.length}, worst ${percent(worst)}`
            }
          ],
          lines: printSteps(values),
          notes,
          values: values.map((value) => ({ ...value }))
        }
      })
  }))
}

interface Compared {
  readonly ranks: number
  readonly linkRate: string
  readonly measuredSeconds: number
  readonly leastSeconds: number
  readonly mostSeconds: number
  readonly simulatedSeconds: number
  readonly relativeError: number
  readonly claimed: boolean
  readonly series: string
}

const predict = (file: string, ranks: number, linkRate: string, loader: Loader) =>
  Effect.gen(function* () {
    const bandwidth = linkRate === "unshaped" ? "unlimited" : linkRate
    const scenario = yield* loadScenario(file, [
      `world.ranks=${ranks}`,
      `world.links.inter.bandwidth=${bandwidth}`
    ])
    const { result } = yield* runScenario(scenario, file, { loader })
    return metricOf(result, "stepSeconds")
  })

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`

const signedPercent = (share: number): string => `${share < 0 ? "-" : "+"}${percent(Math.abs(share))}`

const printSteps = (values: ReadonlyArray<Compared>): ReadonlyArray<string> => [
  ...alignColumns([
    ["  ranks", "link", "measured", "least to most", "simulated", "off", ""],
    ...values.map((value) => [
      `  ${value.ranks}`,
      value.linkRate,
      formatSeconds(value.measuredSeconds),
      `${formatSeconds(value.leastSeconds)} to ${formatSeconds(value.mostSeconds)}`,
      formatSeconds(value.simulatedSeconds),
      signedPercent(value.relativeError),
      value.claimed ? "" : "host-bound, no claim"
    ])
  ]),
  ""
]

const notes = [
  "Unshaped links and 20 Gbit/s are bound by the host's TCP stack: one point measured twice, on freshly started machines of one kind, differed by up to a quarter. They are shown, not claimed. A step is simulated with the unshaped all-reduce times of one of those machines."
]

// DreamDDP's published schedule of ResNet-18: the authors' layer times through our planners, against the seconds per
// iteration that their scheduler computed. Planning only; nothing is simulated.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { syncProblem } from "../../core/algorithms/data-parallel/plan/cost.ts"
import { planSync } from "../../core/algorithms/data-parallel/plan/planners.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { readTable, type Section } from "./section.ts"

const PublishedSchedule = Schema.Struct({
  source: Schema.String,
  backwardScale: Schema.Number,
  communicationScale: Schema.Number,
  period: Schema.Int,
  /** Seconds per iteration. */
  published: Schema.Struct({
    sgd: Schema.Number,
    localsgd: Schema.Number,
    equalNumber: Schema.Number,
    dreamDdp: Schema.Number
  }),
  /** Name, backward seconds, communication seconds, before scaling; in forward order. */
  layers: Schema.Array(Schema.Tuple([Schema.String, Schema.Number, Schema.Number]))
})

/** The authors count the waits of 99 of 1,000 iterations, for full local SGD and for DreamDDP; for the partition, all. */
const syncsPerIteration = 0.099

const tolerance = 1e-4

export const publishedSchedule: Section = {
  name: "dreamddp-resnet18",
  title: "DreamDDP's schedule of ResNet-18, 8 workers, H = 10",
  open: Effect.map(readTable("dreamddp-resnet18.published.json", PublishedSchedule), (table) => ({
    points: 1,
    check: (_loader, done) =>
      Effect.sync(() => {
        const layers = table.layers.map(([, backward, communication]) => ({
          forwardSeconds: 0,
          updateSeconds: 0,
          backwardSeconds: backward * table.backwardScale,
          communicationSeconds: communication * table.communicationScale
        }))
        const backward = layers.reduce((sum, layer) => sum + layer.backwardSeconds, 0)
        const communication = layers.reduce((sum, layer) => sum + layer.communicationSeconds, 0)
        const problem = syncProblem(layers, { period: table.period, deadline: "end-of-backward" })
        const wait = (method: Parameters<typeof planSync>[1]): number =>
          planSync(problem, method).exposedSeconds
        const rows = [
          { row: "S-SGD", published: table.published.sgd, ours: backward + communication },
          {
            row: "local SGD",
            published: table.published.localsgd,
            ours: backward + syncsPerIteration * communication
          },
          {
            row: "equal-number partition",
            published: table.published.equalNumber,
            ours: backward + wait("equal-number") / table.period
          },
          {
            row: "DreamDDP",
            published: table.published.dreamDdp,
            ours: backward + syncsPerIteration * wait("published")
          }
        ]
        done()
        const off = rows.map(({ published, ours }) => Math.abs(ours / published - 1))
        const holding = off.filter((error) => error <= tolerance).length
        return {
          source: table.source,
          claims: [
            {
              claim: `every published iteration time within ${tolerance * 100} %`,
              holds: holding === rows.length,
              found: `${holding} of ${rows.length}, worst ${(Math.max(...off) * 100).toPrecision(2)} %`
            }
          ],
          lines: [
            ...alignColumns([
              ["  ms per iteration", "published", "planned", "off"],
              ...rows.map(({ row, published, ours }) => [
                `  ${row}`,
                (published * 1000).toFixed(4),
                (ours * 1000).toFixed(4),
                `${(Math.abs(ours / published - 1) * 100).toFixed(4)} %`
              ])
            ]),
            ""
          ],
          notes: [
            "The authors round layer times to 8 decimals, and their evaluator of the search loses part of the time left in a layer under way; so their DreamDDP time lies a little below what any schedule can reach."
          ],
          values: rows.map(({ row, published, ours }) => ({
            row,
            publishedSeconds: published,
            plannedSeconds: ours
          }))
        }
      })
  }))
}

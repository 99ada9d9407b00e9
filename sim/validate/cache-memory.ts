// Published sizes of key/value caches, and how many sequences fit into a device with them: closed forms, nothing simulated.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { CachePlans } from "../../core/algorithms/kv-serving/admission.ts"
import { cacheBytes } from "../../core/algorithms/kv-serving/model.ts"
import { namedModels } from "../../scenarios/families/kv-serving/scenario.ts"
import { alignColumns } from "../../scenarios/table.ts"
import { readTable, type Section } from "./section.ts"
import { median } from "../../core/median.ts"

const BatchRow = Schema.Struct({
  /** Tokens of a whole sequence. */
  length: Schema.Int,
  keep: Schema.optionalKey(Schema.Number),
  budget: Schema.optionalKey(Schema.Int),
  batch: Schema.Int
})
type BatchRow = typeof BatchRow.Type

const PublishedMemory = Schema.Struct({
  source: Schema.String,
  cacheTokens: Schema.Int,
  caches: Schema.Array(Schema.Struct({ removed: Schema.Number, gib: Schema.Number })),
  buffer: Schema.Int,
  batches: Schema.Array(BatchRow)
})

const model = namedModels["llama-3.1-8b"]
const gib = 2 ** 30
/** What a chart can be read to. */
const chartGib = 0.1
const batchTolerance = 0.1
/** Rows of this length give the memory that caches have; the others are predicted. */
const fittedLength = 8192

const nameOf = ({ keep, budget }: BatchRow): string =>
  budget !== undefined ? `budget ${budget}` : keep === 1 ? "full" : `keep ${keep}`

/** Bytes that one sequence holds: its budget and the buffer; the full cache has no buffer. */
const sequenceBytes = ({ length, keep, budget }: BatchRow, buffer: number): number => {
  const tokens = keep === 1 ? length : (budget ?? Math.floor(keep! * length)) + buffer
  return cacheBytes(
    model,
    Array.from({ length: model.layers }, () => tokens)
  )
}

export const cacheMemory: Section = {
  name: "kv-memory",
  calibrated: true,
  title: "Memory of caches of Llama-3.1-8B, and largest batches",
  open: Effect.map(readTable("kv-memory.published.json", PublishedMemory), (table) => ({
    points: 1,
    check: (_loader, done) =>
      Effect.sync(() => {
        const caches = table.caches.map(({ removed, gib: published }) => {
          const settings = {
            name: "snapkv",
            keep: 1 - removed,
            window: 64,
            kernel: 5,
            pooling: "avg"
          } as const
          const plan = new CachePlans(settings, model).of({
            id: 0,
            arrivalSeconds: 0,
            promptTokens: table.cacheTokens,
            outputTokens: 1
          })
          return { removed, published, ours: plan.promptBytes / gib }
        })
        const fitted = table.batches.filter(({ length }) => length === fittedLength)
        const memoryBytes = median(fitted.map((row) => row.batch * sequenceBytes(row, table.buffer)))
        const batches = table.batches.map((row) => {
          const ours = Math.floor(memoryBytes / sequenceBytes(row, table.buffer))
          return { row, ours, off: ours / row.batch - 1 }
        })
        done()
        const outside = caches.filter(({ published, ours }) => Math.abs(published - ours) > chartGib)
        const beyond = batches.filter(({ off }) => Math.abs(off) > batchTolerance)
        const predicted = batches.filter(({ row }) => row.length !== fittedLength)
        const names = beyond.map(
          ({ row, off }) => `${row.length} ${nameOf(row)} ${off > 0 ? "+" : ""}${(off * 100).toFixed(0)} %`
        )
        return {
          source: table.source,
          claims: [
            {
              claim: `cache sizes within ${chartGib} GiB, as well as the chart can be read`,
              holds: outside.length === 0,
              found: `${caches.length - outside.length} of ${caches.length}`
            },
            {
              claim: `largest batches within ${batchTolerance * 100} %, but for one row that is not explained`,
              holds: beyond.length <= 1,
              found: `${batches.length - beyond.length} of ${batches.length}${names.length === 0 ? "" : `; ${names.join(", ")}`}`
            }
          ],
          lines: [
            ...alignColumns([
              ["  share removed", "published GiB", "closed form GiB"],
              ...caches.map(({ removed, published, ours }) => [
                `  ${removed}`,
                published.toFixed(2),
                ours.toFixed(3)
              ])
            ]),
            "",
            `  memory for caches, from the rows of ${fittedLength}: ${(memoryBytes / 1e9).toFixed(1)} GB`,
            ...alignColumns([
              ["  length", "cache", "published batch", "batch", "off"],
              ...batches.map(({ row, ours, off }) => [
                `  ${row.length}`,
                nameOf(row),
                String(row.batch),
                String(ours),
                `${off >= 0 ? "+" : ""}${(off * 100).toFixed(1)} %`
              ])
            ]),
            ""
          ],
          notes: [
            `One number is fitted: the memory that caches have, the median over the rows of ${fittedLength} tokens; the ${predicted.length} rows of 16,384 are predicted with it. The published row of 16,384 tokens at 54 % holds 54 GB of caches where the others hold 59 to 67: it could hold 53 sequences, and why it stops at 46 is not published.`
          ],
          values: [
            ...caches.map(({ removed, published, ours }) => ({
              removed,
              publishedGib: published,
              closedFormGib: ours
            })),
            ...batches.map(({ row, ours }) => ({ ...row, predictedBatch: ours }))
          ]
        }
      })
  }))
}

// What bench/cluster/collectives.ts makes of times: a table that importers read back, and what fewer ranks say of more.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import {
  collectivesCsv,
  collectivesReport,
  predictedFromFewer
} from "../../bench/cluster/collectives-report.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { importCsv } from "../../traces/csv.ts"

const row = (
  op: CollectiveCost["op"],
  ranks: number,
  sizeBytes: number,
  medianSeconds: number
): CollectiveCost => ({ op, ranks, sizeBytes, medianSeconds, link: "unshaped" })

// 1 GB/s a link around a ring: an all-reduce of n ranks puts 2 (n-1)/n of the bytes on each, a reduce-scatter n-1 of what comes out.
const rows = [
  row("all_reduce", 2, 1e6, 1e-3),
  row("reduce_scatter", 2, 1e6, 1e-3),
  row("broadcast", 4, 1e6, 1e-3),
  row("all_reduce", 4, 1e6, 2e-3),
  row("reduce_scatter", 4, 5e5, 1.5e-3)
]

it("predicts collectives of more ranks from those of fewer, by what a ring puts on a link", () => {
  const predicted = predictedFromFewer(rows).map(({ predictedSeconds }) => predictedSeconds)
  expect(predicted.slice(0, 3)).toEqual([undefined, undefined, undefined])
  expect(predicted[3]).toBeCloseTo(1.5e-3, 12)
  expect(predicted[4]).toBeCloseTo(1.5e-3, 12)
  const text = collectivesReport(predictedFromFewer(rows))
  expect(text).toContain(
    "all_reduce of 4 from fewer ranks: error in the median 25.0 %, worst 25.0 %; bias -25.0 % (1 sizes)"
  )
  expect(text).toContain("reduce_scatter of 4 from fewer ranks: error in the median 0.0 %")
  expect(text).not.toContain("broadcast of 4 from")
})

it("writes a table that imports as it is", async () => {
  const { profile } = await Effect.runPromise(importCsv(collectivesCsv(rows)))
  expect(profile.collectives).toEqual(rows)
})

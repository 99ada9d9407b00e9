// The two published tables of bandwidth by utilisation: how each is read, what is claimed, and why cells deviate.
import { bandwidthTable, finiteRun, steadyState, type BandwidthTableOptions } from "./bandwidth-table.ts"

export const streamingDiloco = bandwidthTable({
  name: "streaming-diloco",
  calibrated: true,
  title: "bandwidth for a compute utilisation, Streaming DiLoCo",
  table: "streaming-diloco.published.json",
  readings: [steadyState({ withinCells: 1, exactShare: 0.8 })],
  notes: [
    "Values lie on a grid of 50 points from 0.1 to 1000 Gbit/s, so the table knows a bandwidth to 21 %. A cell that is one off needs no large cause: DiLoCo's two and Data-Parallel's one reach the published value with 0.0005 more of utilisation than the target.",
    "The authors' simulator is not published. Waiting for an overlapped fragment at the end of the step it is due after, rather than at its layers' next forward pass, makes 44 of the 50 cells equal (deadline: end-of-backward in the last two rows); the published description fits both."
  ]
})

/** Steps of a run that explains the table best; the paper does not say how many were simulated. */
const scalingLawsSteps = 1000

export const scalingLawsOptions: BandwidthTableOptions = {
  name: "scaling-laws",
  calibrated: true,
  title: "bandwidth for a compute utilisation, DiLoCo by period",
  table: "scaling-laws.published.json",
  readings: [
    steadyState({ withinCells: 2 }),
    finiteRun(scalingLawsSteps, { withinCells: 1, exactShare: 0.55 })
  ],
  notes: [
    "Same grid and same 10B as the Streaming DiLoCo table, yet H = 100 at 10B is not that table's DiLoCo row (it is its 1B row), so some input differs that is not stated. Read as a steady state, nearly all cells with H > 1 are one cell (21 %) high: the table counts fewer synchronisations than steps/H.",
    "A run of 1,000 steps whose last synchronisation nobody waits for has 9 of them at H = 100 rather than 10, 3 at H = 300 rather than 3.33: so read, no cell is more than one off. What remains is as if a step took 0.88 s at 10B and 26.5 s at 405B (printed: 0.8 and 26): with these, 43 of 50 are equal. Of the seven left, five are at H = 50, one cell high; for those we have no explanation."
  ]
}

export const scalingLaws = bandwidthTable(scalingLawsOptions)

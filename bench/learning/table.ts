// The learning bench's results as a Markdown table: held-out loss at the end, and how far it is from S-SGD's of the same seed.
import type { DataParallelSettings } from "../../core/algorithms/data-parallel/algorithms.ts"
import { byLabel, finalLoss, mean, type RecordedRun } from "./results.ts"

const bitsPerElement: Readonly<Record<string, number>> = {
  float32: 32,
  bfloat16: 16,
  float16: 16,
  float8: 8,
  int8: 8,
  float4: 4
}

/** Bytes on the wire over those of S-SGD with float32: every layer once in each period. */
const trafficShare = (algorithm: DataParallelSettings): number =>
  bitsPerElement[algorithm.wire]! / 32 / ("period" in algorithm ? algorithm.period : 1)

/** Differences of the final loss to the baseline's of the same seed. */
export const margins = (
  runs: ReadonlyArray<RecordedRun>,
  baseline: ReadonlyArray<RecordedRun>
): ReadonlyArray<number> =>
  runs.flatMap((run) => {
    const other = baseline.find(({ seed }) => seed === run.seed)
    return other === undefined ? [] : [finalLoss(run) - finalLoss(other)]
  })

const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(3)}`

export const tabulate = (runs: ReadonlyArray<RecordedRun>): string => {
  const groups = byLabel(runs)
  const baseline = groups.get("S-SGD") ?? []
  const lines = [
    "| algorithm | period | inner rate | traffic | held-out loss, by seed | mean | from S-SGD, by seed | worst |",
    "|---|---|---|---|---|---|---|---|"
  ]
  for (const [label, runs] of groups) {
    const [{ algorithm, learningRate }] = runs as [RecordedRun]
    const from = margins(runs, baseline)
    lines.push(
      `| ${[
        label,
        "period" in algorithm ? algorithm.period : "–",
        learningRate,
        trafficShare(algorithm) === 1 ? "1" : `1/${Math.round(1 / trafficShare(algorithm))}`,
        runs.map((run) => finalLoss(run).toFixed(3)).join(", "),
        mean(runs.map(finalLoss)).toFixed(3),
        runs === baseline ? "–" : from.map(signed).join(", "),
        runs === baseline || from.length === 0 ? "–" : signed(Math.max(...from))
      ].join(" | ")} |`
    )
  }
  return `${lines.join("\n")}\n`
}

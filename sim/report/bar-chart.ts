// Step times as bars, each split into what the step computes and what it waits: for one point of a numeric axis, or for
// a study that has none.
import { formatPercent, formatRatio, formatTime } from "./format.ts"
import { markup, type Markup } from "./markup.ts"
import type { ReportRow } from "./study-report.ts"

export interface Bar {
  readonly key: string
  readonly name: string
  readonly slot: number
  readonly row: ReportRow
}

export interface BarChart {
  /** "On 1 Gbit/s", or the panel's title. */
  readonly title: string
  readonly bars: ReadonlyArray<Bar>
  /** The one that ratios compare with. */
  readonly baseline: Bar | undefined
  /** Step time that fills the width: that of the longest bar of all charts that compare. */
  readonly longestSeconds: number
}

/** Fastest first. */
export const barChart = ({ title, bars, baseline, longestSeconds }: BarChart): Markup => {
  const ordered = bars.toSorted((a, b) => a.row.stepSeconds - b.row.stepSeconds)
  return markup`<figure class="bars" data-figure="bars">
<figcaption><b>${title}</b> <span>time of a step: <i class="key compute"></i>computing, <i class="key exposed"></i>waiting</span></figcaption>
${ordered.map((bar) => {
  const { stepSeconds, computeSeconds, computeUtilisation } = bar.row
  const ratio = baseline === undefined ? undefined : baseline.row.stepSeconds / stepSeconds
  const compared =
    baseline === undefined || ratio === undefined || bar.key === baseline.key
      ? ""
      : `${comparedTo(ratio)} ${baseline.name}`
  const width = (seconds: number): string => ((100 * seconds) / longestSeconds).toFixed(3)
  const computing = Math.min(computeSeconds, stepSeconds)
  return markup`<div class="bar" data-key="${bar.key}" style="--c:var(--s${bar.slot})" title="${bar.name}: ${formatTime(stepSeconds)} a step, ${formatTime(computing)} computing, ${formatTime(stepSeconds - computing)} waiting"><span class="who">${bar.name}</span><span class="track"><i class="compute" style="width:${width(computing)}%"></i><i class="exposed" style="width:${width(stepSeconds - computing)}%"></i></span><span class="value"><b>${formatTime(stepSeconds)}</b> <span>${formatPercent(computeUtilisation)} computing${compared === "" ? "" : `, ${compared}`}</span></span></div>`
})}
</figure>`
}

/** How much faster than the baseline, as a clause that its name ends. */
const comparedTo = (ratio: number): string => {
  const larger = Math.max(ratio, 1 / ratio)
  const word = ratio >= 1 ? "faster than" : "slower than"
  if (larger < 1.005) return "as fast as"
  return larger < 1.095 ? `${Math.round((larger - 1) * 100)} % ${word}` : `${formatRatio(larger)} ${word}`
}

// The headline metric as bars, a step's time split into what it computes and what it waits: for one point of a numeric
// axis, or for a study that has none.
import type { Metric } from "../../scenarios/family.ts"
import { metricOf } from "../../scenarios/result.ts"
import { costOf } from "./answer.ts"
import { formatAxisValue, formatMore, formatPercent, formatTime } from "./format.ts"
import { markup, type Markup } from "./markup.ts"
import type { ReportRow } from "./study-report.ts"

export interface Bar {
  readonly key: string
  readonly name: string
  readonly slot: number
  readonly row: ReportRow
}

interface BarChart {
  /** "On 1 Gbit/s", or the panel's title. */
  readonly title: string
  readonly bars: ReadonlyArray<Bar>
  /** The one that ratios compare with. */
  readonly baseline: Bar | undefined
  readonly headline: Metric
  /** Value that fills the width: that of the longest bar of all charts that compare. */
  readonly longest: number
  /** "faster", "slower", as the family speaks of its headline. */
  readonly words: CompareWords
}

export interface CompareWords {
  readonly better: string
  readonly worse: string
  readonly same: string
}

/** Best first. */
export const barChart = (chart: BarChart): Markup => {
  const { title, bars, headline } = chart
  const cost = costOf(headline)
  const split = bars.every(({ row }) => !Number.isNaN(metricOf(row, "computeSeconds")))
  const caption = split
    ? markup`time of a step: <i class="key compute"></i>computing, <i class="key exposed"></i>waiting`
    : markup`${headline.label}; ${headline.better} is better`
  return markup`<figure class="bars" data-figure="bars">
<figcaption><b>${title}</b> <span>${caption}</span></figcaption>
${bars.toSorted((a, b) => cost(a.row) - cost(b.row)).map((one) => (split ? stepBar(one, chart) : bar(one, chart)))}
</figure>`
}

const comparison = ({ key, row }: Bar, { baseline, headline, words }: BarChart): string => {
  if (baseline === undefined || key === baseline.key) return ""
  const cost = costOf(headline)
  return `${comparedTo(cost(baseline.row) / cost(row), words)} ${baseline.name}`
}

const widthOf = (value: number, { longest }: BarChart): string =>
  longest > 0 ? ((100 * value) / longest).toFixed(3) : "0"

const bar = (one: Bar, chart: BarChart): Markup => {
  const { headline } = chart
  const value = metricOf(one.row, headline.name)
  const text = formatAxisValue(value, headline.unit)
  return markup`<div class="bar" data-key="${one.key}" style="--c:var(--s${one.slot})" title="${one.name}: ${headline.label} ${text}"><span class="who">${one.name}</span><span class="track"><i class="compute" style="width:${widthOf(value, chart)}%"></i></span><span class="value"><b>${text}</b> <span>${comparison(one, chart)}</span></span></div>`
}

const stepBar = (one: Bar, chart: BarChart): Markup => {
  const { row, key, slot, name } = one
  const stepSeconds = metricOf(row, "stepSeconds")
  const compared = comparison(one, chart)
  const computing = Math.min(metricOf(row, "computeSeconds"), stepSeconds)
  return markup`<div class="bar" data-key="${key}" style="--c:var(--s${slot})" title="${name}: ${formatTime(stepSeconds)} a step, ${formatTime(computing)} computing, ${formatTime(stepSeconds - computing)} waiting"><span class="who">${name}</span><span class="track"><i class="compute" style="width:${widthOf(computing, chart)}%"></i><i class="exposed" style="width:${widthOf(stepSeconds - computing, chart)}%"></i></span><span class="value"><b>${formatTime(stepSeconds)}</b> <span>${formatPercent(metricOf(row, "computeUtilisation"))} computing${compared === "" ? "" : `, ${compared}`}</span></span></div>`
}

/** How much better than the baseline, as a clause that its name ends. */
const comparedTo = (ratio: number, { better, worse, same }: CompareWords): string => {
  const larger = Math.max(ratio, 1 / ratio)
  const word = `${ratio >= 1 ? better : worse} than`
  if (larger < 1.005) return same
  return `${formatMore(larger)} ${word}`
}

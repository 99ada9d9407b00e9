// A study as one HTML page that needs nothing else: no network, no fonts, no server. Puts the figures in order and says
// what they rest on.
import { createHash } from "node:crypto"
import { Digest } from "../../core/digest.ts"
import type { Metric } from "../../scenarios/family.ts"
import { metricOf } from "../../scenarios/result.ts"
import { answerOf, comparisonOf, headlineOf, rowAt } from "./answer.ts"
import { barChart, type Bar, type CompareWords } from "./bar-chart.ts"
import { clientScript } from "./client.ts"
import { capitalized, formatAbout, formatAxisValue } from "./format.ts"
import { displayName, gridOf, type Grid, type Panel } from "./grid.ts"
import { foundValue, lineChart, marksOf, plotted, type Mark, type Plotted } from "./line-chart.ts"
import { markup, trusted, type Markup } from "./markup.ts"
import { assignSlots, palette } from "./palette.ts"
import { styleSheet } from "./style.ts"
import { ofPoints, talliedWarnings } from "../study/tallied.ts"
import type { ReportRow, StudyReport } from "./study-report.ts"
import { table } from "./table.ts"
import { timelineFigure } from "./timeline-figure.ts"

/** The one script that a browser runs, whatever else comes to stand in the page. */
const scriptHash = `sha256-${createHash("sha256").update(clientScript).digest("base64")}`

/** The page, as text to be written to a file. Deterministic: equal studies give equal pages. */
export const renderReport = (report: StudyReport): string => {
  const { family } = report
  const grid = gridOf(report)
  const comparison = comparisonOf(grid, family, report.focus)
  const all = grid.panels.flatMap(({ series }) => series)
  const keys = new Map(all.map((series) => [series.key, series]))
  const slots = assignSlots([...keys.values()])
  const answer = answerOf(grid, family, comparison, report.search)
  const baseline = comparison.baseline

  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src '${scriptHash}'">
<meta name="color-scheme" content="light dark">
<title>${report.title}</title>
<style>${trusted(styleSheet(palette))}</style>
</head>
<body>
<header>
<div class="bar-top"><p class="kicker">Simulated study</p><button type="button" id="theme" hidden>Theme</button></div>
<h1>${report.title}</h1>
<p class="answer">${answer}</p>
${caveat(report)}
${report.description !== undefined && markup`<p class="lead">${report.description}</p>`}
${facts(report, grid)}
${notices(report)}
</header>
<main>
${charts(report, grid, slots, baseline?.key)}
${report.search === undefined && bars(grid, report, comparison, slots)}
${timelines(report, grid, slots)}
${failures(report)}
${basis(report)}
<section id="points"><h2>All points</h2>${table(report, grid, baseline?.algorithm)}</section>
${scenario(report)}
</main>
<footer><p>${report.version ?? "tandem"}. Made by a simulator: every number here is predicted, not measured.</p></footer>
<div id="tip" role="status" aria-live="polite" hidden></div>
<script>${trusted(clientScript)}</script>
</body>
</html>
`
  return page.html
}

/** The answer compares by one number; that is not all there is to compare. */
const caveat = ({ rows, search, family }: StudyReport): Markup | undefined =>
  search === undefined && family.caveat !== "" && new Set(rows.map(({ algorithm }) => algorithm)).size > 1
    ? markup`<p class="note">${family.caveat}</p>`
    : undefined

/** What holds for the whole study, in a line of small facts. */
const facts = ({ rows, axes }: StudyReport, { fixed }: Grid): Markup => {
  const distinct = <T>(of: (row: ReportRow) => T): ReadonlyArray<T> => [...new Set(rows.map(of))]
  const ranks = distinct((row) => row.ranks).toSorted((a, b) => a - b)
  const entries: Array<readonly [string, string]> = [
    ["scenario", distinct((row) => row.scenario).join(", ")],
    [
      "ranks",
      ranks.length > 3
        ? `${ranks[0]} to ${ranks.at(-1)}`
        : ranks.map((n) => n.toLocaleString("en")).join(", ")
    ],
    ...fixed
      .filter(({ axis }) => axis.path !== "algorithm")
      .map(({ axis, value }) => [axis.label, formatAxisValue(value, axis.unit)] as const),
    ["points", pointsOf(rows, axes)],
    ["simulated ops", rows.reduce((sum, { ops }) => sum + ops, 0).toLocaleString("en")]
  ]
  return markup`<dl class="facts">${entries
    .filter(([, value]) => value !== "")
    .map(([name, value]) => markup`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`
}

const pointsOf = (rows: ReadonlyArray<ReportRow>, axes: StudyReport["axes"]): string => {
  const promised = axes.reduce((product, { values }) => product * values.length, 1)
  return rows.length < promised
    ? `${rows.length} of ${promised}: the study is not complete`
    : String(rows.length)
}

/** What a reader must know before trusting a number; details stand further down. */
const notices = ({ rows }: StudyReport): Markup | undefined => {
  const warnings = talliedWarnings(rows).length
  const estimates = new Set(
    rows.flatMap(({ estimates }) => estimates.map(({ kernel, source }) => `${kernel} ${source}`))
  ).size
  if (warnings + estimates === 0) return undefined
  const parts = [
    ...(estimates > 0
      ? [`${estimates} ${estimates === 1 ? "kind of cost was" : "kinds of cost were"} not measured`]
      : []),
    ...(warnings > 0 ? [`${warnings} ${warnings === 1 ? "warning" : "warnings"}`] : [])
  ]
  return markup`<p class="notice"><a href="#basis">${parts.join("; ")}</a></p>`
}

const charts = (
  { search, family }: StudyReport,
  grid: Grid,
  slots: ReadonlyMap<string, number>,
  baseline: string | undefined
): Markup | undefined => {
  const axis = grid.xAxis
  if (axis === undefined) return undefined
  const scaleRows = grid.panels.flatMap(({ series }) =>
    series.flatMap(({ points }) => points.map(({ row }) => row))
  )
  const headline = headlineOf(family.metrics)
  const drawn = family.metrics.filter((metric) => metric === headline || metric.chart === true)
  const metrics =
    search === undefined ? drawn.map((metric) => plotted(metric, scaleRows)) : [foundValue(search)]
  return markup`<section id="charts"><h2>Over ${axis.label}</h2>
${grid.panels.map((panel) => {
  const { marks, omitted } =
    search === undefined ? marksOf(panel.series, headline, baseline) : { marks: [], omitted: 0 }
  const draw = (metric: Plotted): Markup =>
    lineChart({
      metric,
      axis,
      series: panel.series,
      slots,
      marks,
      scaleRows,
      label: `${metric.title} over ${axis.label}${panel.title === "" ? "" : `, ${panel.title}`}: ${panel.series.map(({ name }) => name).join(", ")}. Arrow keys move along the axis.`
    })
  return markup`<div class="panel">${panel.title !== "" && markup`<h3>${panel.title}</h3>`}<div class="pair">${metrics.map(draw)}</div>${crossings(marks, omitted, headline, axis.unit, slots)}</div>`
})}
</section>`
}

const crossings = (
  marks: ReadonlyArray<Mark>,
  omitted: number,
  headline: Metric,
  unit: Parameters<typeof formatAbout>[1],
  slots: ReadonlyMap<string, number>
): Markup | undefined => {
  if (marks.length === 0) return undefined
  const name = ({ key, name }: { readonly key: string; readonly name: string }): Markup =>
    markup`<b style="color:var(--s${slots.get(key) ?? 0})">${name}</b>`
  return markup`<ol class="crossings">${marks.map(
    ({ x, y, betterBefore, betterAfter }) =>
      markup`<li><span>at ${formatAbout(x, unit)}</span> ${name(betterAfter)} overtakes ${name(betterBefore)} <span>(${formatAbout(y, headline.unit)}${headline.name === "stepSeconds" ? " a step" : ""})</span></li>`
  )}</ol>${omitted > 0 && markup`<p class="note">${omitted} more ${omitted === 1 ? "crossing" : "crossings"} among algorithms that are not the best there not numbered.</p>`}`
}

const bars = (
  grid: Grid,
  { family }: StudyReport,
  { focus, where, baseline }: ReturnType<typeof comparisonOf>,
  slots: ReadonlyMap<string, number>
): Markup | undefined => {
  const of = ({ series }: Panel): ReadonlyArray<Bar> =>
    series.flatMap((one) => {
      const row = rowAt(one, focus)
      return row === undefined ? [] : [{ key: one.key, name: one.name, slot: slots.get(one.key) ?? 0, row }]
    })
  const panels = grid.panels
    .map((panel) => ({ panel, bars: of(panel) }))
    .filter(({ bars }) => bars.length > 0)
  // One bar compares nothing; the charts have its number.
  if (panels.length === 0 || (grid.xAxis !== undefined && panels.every(({ bars }) => bars.length < 2)))
    return undefined
  const headline = headlineOf(family.metrics)
  const longest = Math.max(
    ...panels.flatMap(({ bars }) => bars.map(({ row }) => metricOf(row, headline.name)))
  )
  const words = family.verb === undefined ? valueWords(headline) : speedWords
  return markup`<section id="comparison"><h2>${where === "" ? capitalized(`${headline.label}s`) : where}</h2>
${panels.map(({ panel, bars }) =>
  barChart({
    title: panel.title === "" ? (family.verb === undefined ? "Best first" : "Fastest first") : panel.title,
    bars,
    baseline: bars.find(({ key }) => key === baseline?.key),
    headline,
    longest,
    words
  })
)}</section>`
}

const speedWords: CompareWords = { better: "faster", worse: "slower", same: "as fast as" }

const valueWords = ({ better }: Metric): CompareWords => ({
  better,
  worse: better === "lower" ? "higher" : "lower",
  same: "as"
})

/** Points that have no place in a chart, and why. */
const failures = ({ failures = [] }: StudyReport): Markup | undefined =>
  failures.length === 0
    ? undefined
    : markup`<section id="failures"><h2>Points that cannot run</h2><ul>${failures.map(
        ({ at, reason }) => markup`<li><b>${at}</b>: ${reason}</li>`
      )}</ul></section>`

const timelines = (
  report: StudyReport,
  grid: Grid,
  slots: ReadonlyMap<string, number>
): Markup | undefined => {
  const title = report.family.verb === undefined ? "What a run looks like" : "What a step looks like"
  if (report.timelines.length === 0) {
    const { withoutTimelines: reason } = report
    return reason === undefined
      ? undefined
      : markup`<section id="timelines"><h2>${title}</h2><p>Not shown: ${reason}.</p></section>`
  }
  const series = grid.panels.flatMap((panel) => panel.series)
  const longestSeconds = Math.max(
    ...report.timelines.map(({ fromSeconds, toSeconds }) => toSeconds - fromSeconds)
  )
  return markup`<section id="timelines"><h2>${title}</h2>
<p class="legend"><span><i class="key compute"></i>computing</span><span><i class="key communication"></i>communication, hidden</span><span><i class="key exposed"></i>communication, exposed: the rank waits</span>${
    report.timelines.length > 1 &&
    markup`<label hidden><input type="checkbox" id="same-scale"> same time scale</label>`
  }</p>
${report.timelines.map((timeline) => {
  const own = series.find(({ key }) => key === timeline.algorithm)
  const match = own ?? series.find(({ algorithm }) => algorithm === timeline.algorithm)
  return timelineFigure({
    ...timeline,
    name: match?.name ?? displayName(report.family.displayNames, timeline.algorithm),
    slot: match === undefined ? 0 : (slots.get(match.key) ?? 0),
    longestSeconds
  })
})}</section>`
}

const networks: Readonly<Record<NonNullable<ReportRow["network"]>, string>> = {
  fluid:
    "Fluid: messages under way at the same time share every link max-min fairly, and rates change whenever one starts or ends; a message pays the latency of its route before its first byte.",
  "alpha-beta":
    "Alpha-beta: a link carries one message at a time, first come first served; a message takes latency plus bytes over bandwidth."
}

const collectiveAlgorithms: Readonly<Record<NonNullable<ReportRow["collectives"]>, string>> = {
  ring: "Ring collectives: an all-reduce over n ranks sends 2 (n - 1) / n of its bytes over every rank's link.",
  tree: "Tree collectives: a reduction to one rank and a broadcast from it, along a binary tree.",
  hierarchical:
    "Hierarchical collectives: an all-reduce inside each node, then between the nodes of a site, then between sites, and back.",
  direct: "Direct collectives: every rank sends to every other at once, in one step each way."
}

/** What the numbers rest on: which costs were not measured, what was warned of, which models were in force. */
const basis = ({ rows }: StudyReport): Markup => {
  const tally = <T>(of: (row: ReportRow) => ReadonlyArray<T>, key: (item: T) => string) => {
    const counts = new Map<string, { item: T; runs: number }>()
    for (const row of rows) {
      for (const [name, item] of new Map(of(row).map((item) => [key(item), item]))) {
        const known = counts.get(name)
        if (known === undefined) counts.set(name, { item, runs: 1 })
        else known.runs++
      }
    }
    return [...counts.values()].toSorted((a, b) => b.runs - a.runs)
  }
  const estimates = tally(
    ({ estimates }) => estimates,
    ({ kernel, source, detail }) => `${kernel}\n${source}\n${detail}`
  )
  const warnings = talliedWarnings(rows).toSorted((a, b) => b.points - a.points)
  const runs = (count: number): string => ofPoints(count, rows) || "all points"
  const models = [...new Set(rows.flatMap(({ network }) => network ?? []))].map(
    (network) => networks[network]
  )
  const algorithms = [...new Set(rows.flatMap(({ collectives }) => collectives ?? []))].map(
    (algorithm) => collectiveAlgorithms[algorithm]
  )
  return markup`<section id="basis"><h2>What this rests on</h2>
<div class="columns"><div><h3>Costs that were not measured</h3>${
    estimates.length === 0
      ? markup`<p>None: every kernel's time was in the profile.</p>`
      : markup`<ul>${estimates.map(
          ({ item, runs: count }) =>
            markup`<li><b>${item.kernel}</b> ${item.source}: ${item.detail} <span>(${runs(count)})</span></li>`
        )}</ul>`
  }<h3>Warnings</h3>${
    warnings.length === 0
      ? markup`<p>None.</p>`
      : markup`<ul>${warnings.map(({ text, points }) => markup`<li>${text} <span>(${runs(points)})</span></li>`)}</ul>`
  }</div><div><h3>Network model</h3>${[...models, ...algorithms].map((text) => markup`<p>${text}</p>`)}</div></div>
</section>`
}

const scenario = ({ rows, scenarioText, command }: StudyReport): Markup => {
  const digest = new Digest()
  for (const row of rows) digest.text(row.digest)
  return markup`<section id="reproduce"><h2>How to get this again</h2>
<p>The same scenario, seed and version give the same numbers to the last bit. Digest of all points: <code>${digest.hex}</code></p>
<div class="code"><button type="button" class="copy" hidden>Copy</button><pre>${command}</pre></div>
<h3>Scenario</h3>
<div class="code"><button type="button" class="copy" hidden>Copy</button><pre>${scenarioText}</pre></div>
</section>`
}

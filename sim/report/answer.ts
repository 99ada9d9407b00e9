// What a study says, in a sentence: who is best where it matters, by how much, and what the baseline would need to
// match it. Numbers and words only; page.ts shows them.
import type { Metric } from "../../scenarios/family.ts"
import { metricOf } from "../../scenarios/result.ts"
import { reaches, type Curve } from "./crossover.ts"
import { formatAbout, formatAxisValue, formatMore, formatPercent, formatRatio } from "./format.ts"
import type { Grid, Panel, Series } from "./grid.ts"
import {
  targetPath,
  type Presentation,
  type ReportAxis,
  type ReportRow,
  type ReportSearch
} from "./study-report.ts"

/** Where algorithms are compared, and which one the others are compared with. */
interface Comparison {
  /** Value of the x axis; undefined where there is none. */
  readonly focus: number | undefined
  /** "On 1 Gbit/s", "With 16 ranks"; empty without an x axis. */
  readonly where: string
  readonly baseline: Series | undefined
}

const gigabit = 1e9 / 8

/** The value nearest to 1 Gbit/s on a bandwidth axis that spans it, else the middle one, among those every series has. */
export const comparisonOf = (
  grid: Grid,
  { metrics, baselines }: Presentation,
  wanted: number | undefined
): Comparison => {
  const panel = grid.panels[0]
  const axis = grid.xAxis
  const baseline =
    panel === undefined || panel.series.length < 2
      ? undefined
      : (baselines
          .map((name) => panel.series.find(({ algorithm }) => algorithm === name))
          .find((series) => series !== undefined) ?? worst(panel, headlineOf(metrics)))
  if (axis === undefined || panel === undefined) return { focus: undefined, where: "", baseline }
  const counts = new Map<number, number>()
  for (const { points } of panel.series)
    for (const { x } of points) counts.set(Number(x), (counts.get(Number(x)) ?? 0) + 1)
  const most = Math.max(...counts.values())
  const candidates = [...counts.keys()]
    .filter((x) => counts.get(x) === most && x > 0 && x < Infinity)
    .toSorted((a, b) => a - b)
  const among = axis.unit === "bytesPerSecond" && candidates[0]! <= gigabit && candidates.at(-1)! >= gigabit
  const usual = axis.path === targetPath ? 0.9 : among ? gigabit : candidates[(candidates.length - 1) >> 1]
  const target = wanted ?? usual
  const focus = candidates.toSorted(
    (a, b) => Math.abs(Math.log(a / target!)) - Math.abs(Math.log(b / target!))
  )[0]
  return { focus, where: focus === undefined ? "" : preposition(axis, focus), baseline }
}

const preposition = (axis: ReportAxis, value: number): string =>
  axis.unit === "bytesPerSecond"
    ? `On ${formatAxisValue(value, axis.unit)}`
    : `With ${axis.label} ${formatAxisValue(value, axis.unit)}`

/** The metric that charts and sentences compare by. */
export const headlineOf = (metrics: ReadonlyArray<Metric>): Metric => {
  const [headline] = metrics
  if (headline === undefined) throw new RangeError("a family has at least one metric")
  return headline
}

/** A metric as something of which less is better, so that ratios and crossings need no second case. */
export const costOf =
  ({ name, better }: Metric) =>
  (row: ReportRow): number =>
    better === "lower" ? metricOf(row, name) : 1 / metricOf(row, name)

const worst = ({ series }: Panel, headline: Metric): Series | undefined => {
  const cost = costOf(headline)
  const most = ({ points }: Series): number => Math.max(...points.map(({ row }) => cost(row)))
  return series.toSorted((a, b) => most(b) - most(a) || (a.key < b.key ? -1 : 1))[0]
}

/** The row of a series at the focus. */
export const rowAt = ({ points }: Series, focus: number | undefined): ReportRow | undefined =>
  (focus === undefined ? points[0] : points.find(({ x }) => x === focus))?.row

export const costCurve = ({ points }: Series, headline: Metric): Curve => ({
  x: points.map(({ x }) => Number(x)),
  y: points.map(({ row }) => costOf(headline)(row))
})

/** Values nearer than this are the same, for what a sentence claims. */
const SAME = 1.005

export const answerOf = (
  grid: Grid,
  family: Presentation,
  comparison: Comparison,
  search?: ReportSearch
): string => {
  const panel = grid.panels[0]
  if (panel === undefined) return "No point of the study has finished."
  if (search !== undefined) return foundAnswer(grid, panel, comparison, search)
  const { focus, where, baseline } = comparison
  const headline = headlineOf(family.metrics)
  const cost = costOf(headline)
  const among = grid.panels.length > 1 ? ` (${panel.title})` : ""
  const all = panel.series
    .map((series) => ({ series, row: rowAt(series, focus) }))
    .filter((entry): entry is { series: Series; row: ReportRow } => entry.row !== undefined)
    .toSorted((a, b) => cost(a.row) - cost(b.row))
  const causal = all.filter(({ series }) => !(family.hindsight ?? []).includes(series.algorithm))
  const known = causal.length > 0 ? causal : all
  const best = known[0]
  if (best === undefined) return "No point of the study has finished."
  const place = where === "" ? "" : `${where}${among} `
  const words = wordsOf(headline, family.verb)
  const value = formatAxisValue(metricOf(best.row, headline.name), headline.unit)
  if (known.length === 1) {
    const utilisation = metricOf(best.row, "computeUtilisation")
    return Number.isNaN(utilisation)
      ? `${place}${best.series.name} ${words.has(value)}.`
      : `${place}${best.series.name} ${words.has(value)} and computes ${formatPercent(utilisation)} of it${utilisationNeeds(grid.xAxis, best.series)}.`
  }
  const behind = known[1]!
  const base = known.find(({ series }) => series.key === baseline?.key)
  if (base === undefined || cost(base.row) <= cost(best.row) * SAME) {
    const ratio = cost(behind.row) / cost(best.row)
    return !(ratio > SAME)
      ? `${place}${best.series.name} and ${behind.series.name} are equally ${words.good}: ${words.value(value)}.`
      : `${place}${best.series.name} is the ${words.best} with ${words.value(value)}, ${words.asGood(ratio, behind.series.name)}.`
  }
  const claim = `${place}${best.series.name} ${words.beats(formatMore(cost(base.row) / cost(best.row)), base.series.name)}`
  return `${claim}${matching(grid.xAxis, headline, base.series, cost(best.row))}.`
}

/** How a sentence speaks of the headline: of times as steps that are fast, of anything else by its name. */
const wordsOf = ({ label, better }: Metric, verb: string | undefined) =>
  verb === undefined
    ? {
        good: better === "lower" ? "low" : "high",
        best: better === "lower" ? "lowest" : "highest",
        has: (value: string) => `has ${label} ${value}`,
        value: (value: string) => `${label} ${value}`,
        asGood: (ratio: number, name: string) =>
          `${formatMore(ratio)} ${better === "lower" ? "below" : "above"} ${name}`,
        beats: (ratio: string, name: string) => `has ${ratio} ${better} ${label} than ${name}`
      }
    : {
        good: "fast",
        best: "fastest",
        has: (value: string) => `takes ${value} a step`,
        value: (value: string) => `${value} a step`,
        asGood: (ratio: number, name: string) =>
          ratio < 1.095
            ? `${formatMore(ratio)} faster than ${name}`
            : `${formatRatio(ratio)} as fast as ${name}`,
        beats: (ratio: string, name: string) => `${verb} ${ratio} faster than ${name}`
      }

/** Who needs least for the target in focus, and what the baseline needs for it. */
const foundAnswer = (
  grid: Grid,
  panel: Panel,
  { focus, baseline }: Comparison,
  { label, unit, metric }: ReportSearch
): string => {
  const target = focus ?? grid.fixed.find(({ axis }) => axis.path === targetPath)?.value
  const among = grid.panels.length > 1 ? ` (${panel.title})` : ""
  const known = panel.series
    .flatMap((series) => {
      const found = rowAt(series, focus)?.found
      return found === undefined ? [] : [{ series, found }]
    })
    .toSorted((a, b) => a.found - b.found)
  const best = known[0]
  const what = `${typeof target === "number" ? `${formatPercent(target)} ` : ""}${metric}${among}`
  if (best === undefined) return `No ${label} tried gives ${what}.`
  const base = known.find(({ series }) => series.key === baseline?.key)
  const needs = `${best.series.name} needs ${formatAbout(best.found, unit)}`
  return base === undefined || base === best
    ? `For ${what} ${needs}.`
    : `For ${what} ${needs}, ${base.series.name} ${formatAbout(base.found, unit)}.`
}

/** What more bandwidth the baseline would need to be as good. */
const matching = (axis: ReportAxis | undefined, headline: Metric, series: Series, cost: number): string => {
  if (axis?.unit !== "bytesPerSecond") return ""
  const needed = reaches(costCurve(series, headline), cost)
  if (needed !== undefined) return `; ${series.name} needs ${formatAbout(needed, axis.unit)} to match it`
  const most = Math.max(...series.points.map(({ x }) => Number(x)))
  return `; ${series.name} does not match it on any bandwidth studied, up to ${formatAxisValue(most, axis.unit)}`
}

/** Bandwidths at which one algorithm's compute utilisation reaches marks people ask for. */
const utilisationNeeds = (axis: ReportAxis | undefined, series: Series): string => {
  if (axis?.unit !== "bytesPerSecond") return ""
  const idle: Curve = {
    x: series.points.map(({ x }) => Number(x)),
    y: series.points.map(({ row }) => 1 / metricOf(row, "computeUtilisation"))
  }
  const needs = [0.5, 0.9].flatMap((share) => {
    const at = reaches(idle, 1 / share)
    return at === undefined || at <= idle.x[0]!
      ? []
      : [`${formatPercent(share)} needs ${formatAbout(at, axis.unit)}`]
  })
  return needs.length === 0 ? "" : `; ${needs.join(", ")}`
}

// What a study says, in a sentence: who is fastest where it matters, by how much, and what the baseline would need to
// match it. Numbers and words only; page.ts shows them.
import { formatAbout, formatAxisValue, formatPercent, formatRatio, formatTime } from "./format.ts"
import { reaches, type Curve } from "./crossover.ts"
import type { Grid, Panel, Series } from "./grid.ts"
import { targetPath, type ReportAxis, type ReportRow, type ReportSearch } from "./study-report.ts"

/** Where algorithms are compared, and which one the others are compared with. */
export interface Comparison {
  /** Value of the x axis; undefined where there is none. */
  readonly focus: number | undefined
  /** "On 1 Gbit/s", "With 16 ranks"; empty without an x axis. */
  readonly where: string
  readonly baseline: Series | undefined
}

const gigabit = 1e9 / 8

/** The value nearest to 1 Gbit/s on a bandwidth axis, else the middle one, among those every series has. */
export const comparisonOf = (grid: Grid, wanted: number | undefined): Comparison => {
  const panel = grid.panels[0]
  const axis = grid.xAxis
  const baseline =
    panel === undefined || panel.series.length < 2
      ? undefined
      : (panel.series.find(({ algorithm }) => algorithm === "ddp") ??
        panel.series.find(({ algorithm }) => algorithm === "s-sgd") ??
        slowest(panel))
  if (axis === undefined || panel === undefined) return { focus: undefined, where: "", baseline }
  const counts = new Map<number, number>()
  for (const { points } of panel.series)
    for (const { x } of points) counts.set(Number(x), (counts.get(Number(x)) ?? 0) + 1)
  const most = Math.max(...counts.values())
  const candidates = [...counts.keys()]
    .filter((x) => counts.get(x) === most && x > 0 && x < Infinity)
    .toSorted((a, b) => a - b)
  const usual =
    axis.path === targetPath
      ? 0.9
      : axis.unit === "bytesPerSecond"
        ? gigabit
        : candidates[(candidates.length - 1) >> 1]
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

const slowest = ({ series }: Panel): Series | undefined =>
  series.toSorted(
    (a, b) =>
      Math.max(...b.points.map(stepOf)) - Math.max(...a.points.map(stepOf)) || (a.key < b.key ? -1 : 1)
  )[0]

const stepOf = ({ row }: { readonly row: ReportRow }): number => row.stepSeconds

/** The row of a series at the focus. */
export const rowAt = ({ points }: Series, focus: number | undefined): ReportRow | undefined =>
  (focus === undefined ? points[0] : points.find(({ x }) => x === focus))?.row

export const stepCurve = ({ points }: Series): Curve => ({
  x: points.map(({ x }) => Number(x)),
  y: points.map(stepOf)
})

/** Step times nearer than this are the same, for what a sentence claims. */
const SAME = 1.005

export const answerOf = (grid: Grid, comparison: Comparison, search?: ReportSearch): string => {
  const panel = grid.panels[0]
  if (panel === undefined) return "No point of the study has finished."
  if (search !== undefined) return foundAnswer(grid, panel, comparison, search)
  const { focus, where, baseline } = comparison
  const among = grid.panels.length > 1 ? ` (${panel.title})` : ""
  const known = panel.series
    .map((series) => ({ series, row: rowAt(series, focus) }))
    .filter((entry): entry is { series: Series; row: ReportRow } => entry.row !== undefined)
    .toSorted((a, b) => a.row.stepSeconds - b.row.stepSeconds)
  const best = known[0]
  if (best === undefined) return "No point of the study has finished."
  const place = where === "" ? "" : `${where}${among} `
  const seconds = formatTime(best.row.stepSeconds)
  if (known.length === 1) {
    const computes = `${best.series.name} takes ${seconds} a step and computes ${formatPercent(best.row.computeUtilisation)} of it`
    return `${place}${computes}${utilisationNeeds(grid.xAxis, best.series)}.`
  }
  const behind = known[1]!
  const base = known.find(({ series }) => series.key === baseline?.key)
  if (base === undefined || base.row.stepSeconds <= best.row.stepSeconds * SAME) {
    const ratio = behind.row.stepSeconds / best.row.stepSeconds
    return ratio <= SAME
      ? `${place}${best.series.name} and ${behind.series.name} are equally fast: ${seconds} a step.`
      : `${place}${best.series.name} is the fastest with ${seconds} a step, ${formatRatio(ratio)} as fast as ${behind.series.name}.`
  }
  const ratio = formatRatio(base.row.stepSeconds / best.row.stepSeconds)
  const claim = `${place}${best.series.name} trains ${ratio} faster than ${base.series.name}`
  return `${claim}${matching(grid.xAxis, base.series, best.row.stepSeconds)}.`
}

/** Who needs least for the target in focus, and what the baseline needs for it. */
const foundAnswer = (
  grid: Grid,
  panel: Panel,
  { focus, baseline }: Comparison,
  { label, unit }: ReportSearch
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
  const what = `${typeof target === "number" ? `${formatPercent(target)} ` : ""}compute utilisation${among}`
  if (best === undefined) return `No ${label} tried gives ${what}.`
  const base = known.find(({ series }) => series.key === baseline?.key)
  const needs = `${best.series.name} needs ${formatAbout(best.found, unit)}`
  return base === undefined || base === best
    ? `For ${what} ${needs}.`
    : `For ${what} ${needs}, ${base.series.name} ${formatAbout(base.found, unit)}.`
}

/** What more bandwidth the slower one would need for the same step time. */
const matching = (axis: ReportAxis | undefined, series: Series, stepSeconds: number): string => {
  if (axis?.unit !== "bytesPerSecond") return ""
  const needed = reaches(stepCurve(series), stepSeconds)
  if (needed !== undefined) return `; ${series.name} needs ${formatAbout(needed, axis.unit)} to match it`
  const most = Math.max(...series.points.map(({ x }) => Number(x)))
  return `; ${series.name} does not match it on any bandwidth studied, up to ${formatAxisValue(most, axis.unit)}`
}

/** Bandwidths at which one algorithm's compute utilisation reaches marks people ask for. */
const utilisationNeeds = (axis: ReportAxis | undefined, series: Series): string => {
  if (axis?.unit !== "bytesPerSecond") return ""
  const idle: Curve = {
    x: series.points.map(({ x }) => Number(x)),
    y: series.points.map(({ row }) => 1 / row.computeUtilisation)
  }
  const needs = [0.5, 0.9].flatMap((share) => {
    const at = reaches(idle, 1 / share)
    return at === undefined || at <= idle.x[0]!
      ? []
      : [`${formatPercent(share)} needs ${formatAbout(at, axis.unit)}`]
  })
  return needs.length === 0 ? "" : `; ${needs.join(", ")}`
}

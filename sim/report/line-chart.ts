// A line per algorithm over a numeric axis, as SVG that is complete without the page's script: names stand at the lines'
// ends, crossings are numbered rings. The script adds the crosshair from the data beside it.
import type { Metric } from "../../scenarios/family.ts"
import { metricOf } from "../../scenarios/result.ts"
import { costCurve } from "./answer.ts"
import { crossings, valueAt } from "./crossover.ts"
import { capitalized, formatAxisValue, formatPercent, formatTick, formatTime, tickUnit } from "./format.ts"
import type { Series } from "./grid.ts"
import { jsonData, markup, px, type Markup } from "./markup.ts"
import { linearScale, logScale, type Scale } from "./scale.ts"
import type { AxisUnit, ReportAxis, ReportRow, ReportSearch } from "./study-report.ts"

/** A number of a row that charts show. */
export interface Plotted {
  readonly title: string
  readonly note: string
  readonly unit: AxisUnit
  readonly scale: "log" | "linear" | "share"
  readonly of: (row: ReportRow) => number
}

/** A metric as a chart: shares from 0 to 1, what can be 0 linearly, anything else on a log scale. */
export const plotted = (metric: Metric, rows: ReadonlyArray<ReportRow>): Plotted => {
  const of = (row: ReportRow): number => metricOf(row, metric.name)
  const scale = metric.unit === "share" ? "share" : rows.some((row) => of(row) <= 0) ? "linear" : "log"
  return {
    title: capitalized(metric.label),
    note: `${metric.unit === "share" ? `${metric.description}; ` : ""}${metric.better} is better${scale === "log" ? "; log scale" : ""}`,
    unit: metric.unit,
    scale,
    of
  }
}

/** What a study that searches found. Rows that found nothing have no place in its chart. */
export const foundValue = ({ label, unit }: ReportSearch): Plotted => ({
  title: `Needed: ${label}`,
  note: "lower is better; log scale",
  unit,
  scale: "log",
  of: ({ found }) => found ?? NaN
})

/** Two lines that change places; numbered alike in all charts of a panel. */
export interface Mark {
  readonly number: number
  readonly first: Series
  readonly second: Series
  /** Of the headline metric, by interpolation. */
  readonly x: number
  readonly y: number
  readonly betterBefore: Series
  readonly betterAfter: Series
}

const MARKS_MAX = 9

/**
 * Crossings of the headline metric between all pairs, x ascending; at most nine: those at which the best algorithm changes
 * come first, then those of the baseline. `omitted` counts the rest.
 */
export const marksOf = (
  series: ReadonlyArray<Series>,
  headline: Metric,
  baseline: string | undefined
): { readonly marks: ReadonlyArray<Mark>; readonly omitted: number } => {
  const curves = series.map((one) => costCurve(one, headline))
  const found: Array<Omit<Mark, "number"> & { readonly rank: number }> = []
  series.forEach((first, i) => {
    series.forEach((second, j) => {
      if (j <= i) return
      for (const { x, y, firstIsLowerBefore } of crossings(curves[i]!, curves[j]!)) {
        const isBest = curves.every((curve) => (valueAt(curve, x) ?? Infinity) >= y * (1 - 1e-6))
        const hasBaseline = first.key === baseline || second.key === baseline
        found.push({
          first,
          second,
          x,
          y: headline.better === "lower" ? y : 1 / y,
          betterBefore: firstIsLowerBefore ? first : second,
          betterAfter: firstIsLowerBefore ? second : first,
          rank: isBest ? 0 : hasBaseline ? 1 : 2
        })
      }
    })
  })
  const kept = found.toSorted((a, b) => a.rank - b.rank || a.x - b.x).slice(0, MARKS_MAX)
  return {
    marks: kept
      .toSorted((a, b) => a.x - b.x || a.y - b.y)
      .map((mark, index) => ({ ...mark, number: index + 1 })),
    omitted: found.length - kept.length
  }
}

interface LineChart {
  readonly metric: Plotted
  readonly axis: ReportAxis
  readonly series: ReadonlyArray<Series>
  readonly slots: ReadonlyMap<string, number>
  readonly marks: ReadonlyArray<Mark>
  /** Rows over which scales run: of all small multiples, so that they compare. */
  readonly scaleRows: ReadonlyArray<ReportRow>
  readonly label: string
}

const WIDTH = 560
const HEIGHT = 368
const TOP = 14
const BOTTOM = 46
const AXIS_SIDE = 58
const LABEL_LINE = 15

const formatMetric = (value: number, { unit }: Plotted): string =>
  unit === "share"
    ? formatPercent(value)
    : unit === "seconds"
      ? formatTime(value)
      : formatAxisValue(value, unit)

export const lineChart = (chart: LineChart): Markup => {
  const { metric, axis, slots, label } = chart
  const series = chart.series
    .map((one) => ({ ...one, points: one.points.filter(({ row }) => !Number.isNaN(metric.of(row))) }))
    .filter(({ points }) => points.length > 0)
  const labelSide = Math.min(170, 20 + 6.6 * Math.max(4, ...series.map(({ name }) => name.length)))
  const y = yScale(chart)
  const side = labelledSide(series, metric, y)
  const left = side === "left" ? labelSide : AXIS_SIDE
  const right = WIDTH - (side === "left" ? AXIS_SIDE : labelSide)
  const xs = chart.scaleRows.map((row) => Number(row.at[axis.path]))
  const x = xScale(xs, axis.unit, left + 8, right - 8)
  const frame: Frame = { x, y, left, right, side }
  const unit = tickUnit(axis.unit)
  const axisTitle = unit === "" ? axis.label : `${axis.label} (${unit})`
  return markup`<figure class="chart">
<figcaption><b>${metric.title}</b> <span>${metric.note}</span></figcaption>
<div class="plot" data-figure="lines">
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${label}" tabindex="0" data-hover="lines">
${gridLines(frame, metric, axis, axisTitle)}
<g class="lines">${series.map((one) => line(one, metric, frame, slots.get(one.key) ?? 0))}</g>
<g class="marks">${markRings(chart, frame)}</g>
<g class="names">${endLabels(series, metric, frame, slots)}</g>
<line class="cross" y1="${TOP}" y2="${HEIGHT - BOTTOM}" x1="0" x2="0"/><g class="dots"></g>
</svg>${hoverData({ ...chart, series }, frame)}</div>
</figure>`
}

interface Frame {
  readonly x: Scale
  readonly y: Scale
  readonly left: number
  readonly right: number
  readonly side: "left" | "right"
}

const yScale = ({ metric, scaleRows }: LineChart): Scale => {
  const bottom = HEIGHT - BOTTOM
  if (metric.scale === "share") return linearScale(0, 1, bottom - 6, TOP + 4, 5)
  const values = scaleRows.map(metric.of).filter((value) => !Number.isNaN(value))
  if (metric.scale === "linear") return linearScale(0, Math.max(...values), bottom - 6, TOP + 4, 5)
  return logScale(values, bottom - 6, TOP + 4, { margin: 1.12, tickCount: 8 })
}

/** Logarithmic where values span enough of it to need it. */
const xScale = (values: ReadonlyArray<number>, unit: AxisUnit, from: number, to: number): Scale => {
  const regular = values.filter((value) => value > 0 && value < Infinity)
  const least = Math.min(...regular)
  const most = Math.max(...regular)
  const perUnit = unit === "bytesPerSecond" ? 8 : 1
  if (most / least >= 8 || values.includes(Infinity))
    return logScale(values, from, to, { perUnit, tickCount: 7 })
  const linear = linearScale(Math.min(...values), Math.max(...values), from, to, 6)
  return linear
}

/** The side on which the lines' ends lie further apart. */
const labelledSide = (series: ReadonlyArray<Series>, metric: Plotted, y: Scale): "left" | "right" => {
  const crowding = (end: 0 | -1): number => {
    const ends = series.map(({ points }) => y.at(metric.of(points.at(end)!.row))).toSorted((a, b) => a - b)
    return spread(ends).reduce((sum, placed, i) => sum + Math.abs(placed - ends[i]!), 0)
  }
  return crowding(0) < 0.8 * crowding(-1) ? "left" : "right"
}

/** Places as near as possible to `wanted` (ascending), LABEL_LINE apart, inside the plot. */
const spread = (wanted: ReadonlyArray<number>): ReadonlyArray<number> => {
  const top = TOP + 6
  const bottom = HEIGHT - BOTTOM - 4
  // Pool neighbours that overlap into blocks, each centred on the mean of what its members want.
  const blocks: Array<{ sum: number; count: number }> = []
  const start = ({ sum, count }: { sum: number; count: number }): number =>
    Math.max(top, Math.min(bottom - (count - 1) * LABEL_LINE, sum / count - ((count - 1) * LABEL_LINE) / 2))
  for (const at of wanted) {
    blocks.push({ sum: at, count: 1 })
    while (blocks.length > 1) {
      const last = blocks.at(-1)!
      const before = blocks.at(-2)!
      if (start(before) + before.count * LABEL_LINE <= start(last)) break
      blocks.pop()
      before.sum += last.sum
      before.count += last.count
    }
  }
  return blocks.flatMap((block) =>
    Array.from({ length: block.count }, (_, i) => start(block) + i * LABEL_LINE)
  )
}

const gridLines = (
  { x, y, left, right, side }: Frame,
  metric: Plotted,
  axis: ReportAxis,
  axisTitle: string
): Markup => {
  const bottom = HEIGHT - BOTTOM
  const textX = side === "left" ? right + 7 : left - 7
  const anchor = side === "left" ? "start" : "end"
  const inPlot = (at: number): boolean => at >= TOP && at <= bottom
  const xTicks = x.ticks.filter((tick, index) => {
    const before = x.ticks[index - 1]
    return before === undefined || Math.abs(x.at(tick) - x.at(before)) > 30 || x.isBeyond(tick)
  })
  return markup`<g class="grid">${y.minorTicks
    .map((tick) => y.at(tick))
    .filter(inPlot)
    .map((at) => markup`<path class="minor" d="M${left} ${px(at)}H${right}"/>`)}${y.ticks
    .filter((tick) => inPlot(y.at(tick)))
    .map(
      (tick) =>
        markup`<path d="M${left} ${px(y.at(tick))}H${right}"/><text x="${textX}" y="${px(y.at(tick) + 4)}" text-anchor="${anchor}">${formatTick(tick, metric.unit)}</text>`
    )}${xTicks.map(
    (tick) =>
      markup`<path class="${x.isBeyond(tick) ? "beyond" : "minor"}" d="M${px(x.at(tick))} ${TOP}V${bottom}"/><text x="${px(x.at(tick))}" y="${bottom + 17}" text-anchor="middle">${formatTick(tick, axis.unit)}</text>`
  )}<path class="base" d="M${left} ${bottom}H${right}"/><text class="title" x="${px((left + right) / 2)}" y="${HEIGHT - 6}" text-anchor="middle">${axisTitle}</text></g>`
}

const line = ({ points, key }: Series, metric: Plotted, { x, y }: Frame, slot: number): Markup => {
  let path = ""
  const dots: Array<Markup> = []
  points.forEach(({ x: value, row }, index) => {
    const at = Number(value)
    const here = metric.of(row)
    dots.push(markup`<circle cx="${px(x.at(at))}" cy="${px(y.at(here))}" r="2.4"/>`)
    path += `${index === 0 ? "M" : "L"}${px(x.at(at))} ${px(y.at(here))}`
  })
  return markup`<g class="s" data-key="${key}" style="--c:var(--s${slot})"><path class="line" d="${path}"/>${dots}</g>`
}

const endLabels = (
  series: ReadonlyArray<Series>,
  metric: Plotted,
  { x, y, side, left, right }: Frame,
  slots: ReadonlyMap<string, number>
): ReadonlyArray<Markup> => {
  const mean = ({ points }: Series): number =>
    points.reduce((sum, { row }) => sum + y.at(metric.of(row)), 0) / points.length
  const ends = series
    .map((one) => {
      const end = one.points.at(side === "left" ? 0 : -1)!
      return { one, x: x.at(Number(end.x)), y: y.at(metric.of(end.row)), mean: mean(one) }
    })
    // Where lines end together, the order they had before.
    .toSorted((a, b) => (Math.abs(a.y - b.y) < 2 ? a.mean - b.mean : a.y - b.y))
  const ordered = ends.map(({ y }) => y).toSorted((a, b) => a - b)
  const places = spread(ordered)
  const textX = side === "left" ? left - 14 : right + 14
  const anchor = side === "left" ? "end" : "start"
  const near = side === "left" ? textX + 4 : textX - 4
  return ends.map(({ one, x: endX, y: endY }, index) => {
    const at = places[index]!
    const from = side === "left" ? endX - 4 : endX + 4
    return markup`<g class="name" data-key="${one.key}" style="--c:var(--s${slots.get(one.key) ?? 0})"><path d="M${px(from)} ${px(endY)}L${px(near)} ${px(at)}"/><text x="${px(textX)}" y="${px(at + 4)}" text-anchor="${anchor}">${one.name}</text></g>`
  })
}

/** Rings where lines cross, their numbers beside them where there is room. */
const markRings = ({ metric, marks }: LineChart, { x, y }: Frame): ReadonlyArray<Markup> => {
  const placed: Array<readonly [number, number]> = []
  const free = (at: readonly [number, number]): boolean =>
    placed.every(([otherX, otherY]) => Math.hypot(at[0] - otherX, at[1] - otherY) >= 15)
  const rings = marks.flatMap((mark) => {
    const drawn = ({ points }: Series) =>
      new Map(points.map((point) => [Number(point.x), y.at(metric.of(point.row))]))
    const at = meeting(drawn(mark.first), drawn(mark.second), x, x.at(mark.x))
    return at === undefined ? [] : [{ mark, ...at }]
  })
  for (const ring of rings) placed.push([ring.x, ring.y])
  return rings.map(({ mark, x: cx, y: cy }) => {
    const around = [14, 19, 26].flatMap((radius) =>
      [-60, -120, -30, -150, 60, 120, 0, 180].map((degrees): readonly [number, number] => [
        cx + radius * Math.cos((degrees * Math.PI) / 180),
        cy + radius * Math.sin((degrees * Math.PI) / 180)
      ])
    )
    const inside = ([, atY]: readonly [number, number]): boolean => atY > TOP + 8 && atY < HEIGHT - BOTTOM - 6
    const spot = around.find((candidate) => inside(candidate) && free(candidate)) ?? around[0]!
    placed.push(spot)
    return markup`<g class="mark"><title>${mark.betterBefore.name} is better before, ${mark.betterAfter.name} after</title><circle class="ring" cx="${px(cx)}" cy="${px(cy)}" r="3.6"/><circle class="badge" cx="${px(spot[0])}" cy="${px(spot[1])}" r="7"/><text x="${px(spot[0])}" y="${px(spot[1] + 3.6)}" text-anchor="middle">${mark.number}</text></g>`
  })
}

/**
 * Where two drawn lines cross, in pixels: of several places the one nearest to `nearX`. On a chart that is not log-log,
 * and of another metric, it is not quite where the headline metric's lines cross.
 */
const meeting = (
  first: ReadonlyMap<number, number>,
  second: ReadonlyMap<number, number>,
  x: Scale,
  nearX: number
): { readonly x: number; readonly y: number } | undefined => {
  const shared = [...first.keys()].filter((value) => second.has(value)).toSorted((a, b) => a - b)
  let best: { readonly x: number; readonly y: number } | undefined
  for (let i = 1; i < shared.length; i++) {
    const [from, to] = [shared[i - 1]!, shared[i]!]
    const [before, after] = [first.get(from)! - second.get(from)!, first.get(to)! - second.get(to)!]
    if (before === after || before * after > 0) continue
    const share = before / (before - after)
    const at = x.at(from) + share * (x.at(to) - x.at(from))
    if (best !== undefined && Math.abs(best.x - nearX) <= Math.abs(at - nearX)) continue
    best = { x: at, y: first.get(from)! + share * (first.get(to)! - first.get(from)!) }
  }
  return best
}

/** What the crosshair shows: for each x, each line's place and value. */
const hoverData = ({ series, metric, axis, slots }: LineChart, { x, y }: Frame): Markup => {
  const values = [
    ...new Set(series.flatMap(({ points }) => points.map((point) => Number(point.x))))
  ].toSorted((a, b) => a - b)
  return jsonData("points", {
    x: values.map((value) => Number(px(x.at(value)))),
    labels: values.map((value) => formatAxisValue(value, axis.unit)),
    series: series.map(({ key, name, points }) => {
      const rows = values.map((value) => points.find((point) => Number(point.x) === value)?.row)
      return {
        key,
        name,
        slot: slots.get(key) ?? 0,
        y: rows.map((row) => (row === undefined ? null : Number(px(y.at(metric.of(row)))))),
        text: rows.map((row) => (row === undefined ? "" : formatMetric(metric.of(row), metric)))
      }
    })
  })
}

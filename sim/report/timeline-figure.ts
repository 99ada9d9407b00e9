// A stretch of a timeline as rows of bars, one row per lane, with the communication that nothing hides standing out.
// Bars too narrow to see are merged, so its size is bounded by pixels and not by ops.
import { Lane, laneCount, laneNames, type LaneName } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { formatPercent, formatTime, formatTick, formatSize } from "./format.ts"
import { jsonData, markup, type Markup } from "./markup.ts"
import { linearScale } from "./scale.ts"
import type { ReportTimeline } from "./study-report.ts"

/** Units across; a bar or gap narrower than LEAST of them is not told apart from its neighbours. */
const UNITS = 1000
const LEAST = 0.9
const RANKS_MAX = 4
const STEP_LINES_MAX = 40

const rowNames: Readonly<Record<LaneName, string>> = {
  compute: "compute",
  inter: "network",
  intra: "in-node",
  h2d: "to device",
  d2h: "to host"
}

/** One drawn bar: an op, or neighbours merged into one. Times in seconds from the start of the stretch. */
interface LaneBar {
  readonly from: number
  readonly to: number
  readonly firstRow: number
  readonly lastRow: number
  /** Ops it stands for, those without duration not counted. */
  readonly ops: number
}

/** Bars of a lane's rows (in order), clipped to the stretch, merged where less than `least` seconds wide or apart. */
export const laneBars = (
  timeline: Timeline,
  rows: ReadonlyArray<number>,
  fromSeconds: number,
  toSeconds: number,
  least: number
): ReadonlyArray<LaneBar> => {
  const bars: Array<{ from: number; to: number; firstRow: number; lastRow: number; ops: number }> = []
  for (const row of rows) {
    const from = Math.max(0, timeline.startSeconds[row]! - fromSeconds)
    const to = Math.min(toSeconds, timeline.endSeconds[row]!) - fromSeconds
    if (!(to > from)) continue
    const last = bars.at(-1)
    if (last !== undefined && from - last.to < least && (to - from < least || last.to - last.from < least)) {
      last.to = Math.max(last.to, to)
      last.lastRow = row
      last.ops++
    } else bars.push({ from, to, firstRow: row, lastRow: row, ops: 1 })
  }
  return bars
}

interface Stretch {
  readonly timeline: Timeline
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** Rows under way in the stretch, by lane of one rank, in the order they started. */
const rowsByLane = (
  { timeline, fromSeconds, toSeconds }: Stretch,
  rank: number
): ReadonlyArray<ReadonlyArray<number>> => {
  const lanes: Array<Array<number>> = Array.from({ length: laneCount }, () => [])
  for (let row = 0; row < timeline.rank.length; row++) {
    if (timeline.rank[row] !== rank) continue
    if (timeline.endSeconds[row]! > fromSeconds && timeline.startSeconds[row]! < toSeconds)
      lanes[timeline.lane[row]!]!.push(row)
  }
  for (const rows of lanes)
    rows.sort(
      (a, b) => timeline.startSeconds[a]! - timeline.startSeconds[b]! || timeline.op[a]! - timeline.op[b]!
    )
  return lanes
}

type Interval = readonly [fromSeconds: number, toSeconds: number]

const unionOf = (timeline: Timeline, rows: ReadonlyArray<number>): ReadonlyArray<Interval> => {
  const union: Array<[number, number]> = []
  for (const row of rows) {
    const from = timeline.startSeconds[row]!
    const to = timeline.endSeconds[row]!
    const last = union.at(-1)
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to)
    else if (to > from) union.push([from, to])
  }
  return union
}

/** The parts of `intervals` inside the stretch that no interval of `covers` covers; both ascend. */
const uncovered = (
  intervals: ReadonlyArray<Interval>,
  covers: ReadonlyArray<Interval>,
  fromSeconds: number,
  toSeconds: number
): ReadonlyArray<Interval> => {
  const left: Array<Interval> = []
  let first = 0
  for (const [start, end] of intervals) {
    let from = Math.max(start, fromSeconds)
    const to = Math.min(end, toSeconds)
    while (first < covers.length && covers[first]![1] <= from) first++
    for (let i = first; i < covers.length && covers[i]![0] < to; i++) {
      if (covers[i]![0] > from) left.push([from, covers[i]![0]])
      from = Math.max(from, covers[i]![1])
    }
    if (to > from) left.push([from, to])
  }
  return left
}

interface TimelineFigure extends ReportTimeline {
  readonly name: string
  readonly slot: number
  /** Length of the longest stretch shown beside it, for drawing all to one scale. */
  readonly longestSeconds: number
}

export const timelineFigure = (figure: TimelineFigure): Markup => {
  const { timeline, fromSeconds, toSeconds, name, slot, label, longestSeconds, partOf } = figure
  const seconds = toSeconds - fromSeconds
  const ranks = [...new Set(timeline.rank)].toSorted((a, b) => a - b)
  const shown = ranks.slice(0, RANKS_MAX)
  const scale = UNITS / seconds
  const lanesOf = new Map(shown.map((rank) => [rank, rowsByLane(figure, rank)]))
  const steps = stepEnds(figure, lanesOf.get(shown[0]!)?.[Lane.compute] ?? [])
  const labels = new Labels()

  const rows: Array<Markup> = []
  let waiting = 0
  for (const [index, rank] of shown.entries()) {
    const lanes = lanesOf.get(rank)!
    const busy = unionOf(timeline, lanes[Lane.compute]!)
    if (index === 0) {
      const waits = uncovered([[fromSeconds, toSeconds]], busy, fromSeconds, toSeconds)
      waiting = waits.reduce((sum, [from, to]) => sum + to - from, 0)
    }
    laneNames.forEach((laneName, lane) => {
      const ops = lanes[lane]!
      if (ops.length === 0) return
      const kind = lane === Lane.compute ? "compute" : lane <= Lane.intra ? "communication" : "copy"
      const bars = laneBars(timeline, ops, fromSeconds, toSeconds, LEAST / scale)
      const exposed =
        kind === "compute" ? [] : uncovered(unionOf(timeline, ops), busy, fromSeconds, toSeconds)
      const text = ranks.length > 1 ? `${rank} ${rowNames[laneName]}` : rowNames[laneName]
      rows.push(
        markup`<div class="lane"><span class="who">${text}</span><div class="strip ${kind}" data-hover="lane" tabindex="0" aria-label="${name}, ${text}"><svg viewBox="0 0 ${UNITS} 20" preserveAspectRatio="none" aria-hidden="true"><path class="bar" d="${barPath(bars, scale)}"/>${
          exposed.length > 0 &&
          markup`<path class="exposed" d="${barPath(
            mergeClose(exposed, fromSeconds, LEAST / scale),
            scale
          )}"/>`
        }</svg>${jsonData("bars", labels.encode(timeline, bars, scale))}</div></div>`
      )
    })
  }
  const ticks = linearScale(0, seconds, 0, 100, 6)
  // Steps of a period differ: a part of one is no mean step.
  const perStep =
    partOf !== undefined
      ? `the last ${steps.length} of ${partOf.steps} steps: ${formatTime(seconds)}, where a step takes ${formatTime(partOf.meanSeconds)} in the mean`
      : steps.length > 1
        ? `${steps.length} steps of ${formatTime(seconds / steps.length)} in the mean`
        : "1 step"
  const hidden =
    ranks.length > RANKS_MAX &&
    markup`<p class="note">${RANKS_MAX} of ${ranks.length} recorded ranks shown.</p>`
  return markup`<figure class="timeline" data-figure="timeline" style="--c:var(--s${slot});--share:${(seconds / longestSeconds).toFixed(5)}">
<figcaption><b>${name}</b> <span>${label === "" ? "" : `${label}: `}${perStep}, ${formatPercent(waiting / seconds)} waiting</span></figcaption>
<div class="body">${rows}<div class="steps">${
    steps.length > 1 &&
    steps.length <= STEP_LINES_MAX &&
    steps
      .slice(0, -1)
      .map((end) => markup`<i style="left:${((100 * (end - fromSeconds)) / seconds).toFixed(3)}%"></i>`)
  }</div><div class="times">${ticks.ticks.map(
    (tick) =>
      markup`<span${ticks.at(tick) > 96 && markup` class="last"`} style="left:${ticks.at(tick).toFixed(3)}%">${tick === 0 ? "0" : formatTick(tick, "seconds")}</span>`
  )}</div></div>${jsonData("labels", { texts: labels.texts, secondsPerUnit: 1 / scale })}${hidden}
</figure>`
}

/** When each step that ends in the stretch ended, on the compute lane. */
const stepEnds = (
  { timeline, toSeconds }: Stretch,
  compute: ReadonlyArray<number>
): ReadonlyArray<number> => {
  const ends = new Map<number, number>()
  for (const row of compute) {
    const step = timeline.step[row]!
    ends.set(step, Math.max(ends.get(step) ?? 0, timeline.endSeconds[row]!))
  }
  // A stretch ends with a step, but for rounding.
  return [...ends.values()].filter((end) => end <= toSeconds * (1 + 1e-9)).toSorted((a, b) => a - b)
}

const mergeClose = (
  intervals: ReadonlyArray<Interval>,
  fromSeconds: number,
  least: number
): ReadonlyArray<{ readonly from: number; readonly to: number }> => {
  const merged: Array<{ from: number; to: number }> = []
  for (const [start, end] of intervals) {
    const last = merged.at(-1)
    if (last !== undefined && start - fromSeconds - last.to < least / 3) last.to = end - fromSeconds
    else merged.push({ from: start - fromSeconds, to: end - fromSeconds })
  }
  return merged
}

/** Rectangles; those of neighbouring ops leave a hairline between them where they are wide enough. */
const barPath = (
  bars: ReadonlyArray<{ readonly from: number; readonly to: number }>,
  scale: number
): string => {
  let path = ""
  bars.forEach(({ from, to }, index) => {
    const left = from * scale
    const width = (to - from) * scale
    const next = bars[index + 1]
    const touches = next !== undefined && next.from * scale - (left + width) < 0.4
    const hairline = touches ? Math.min(0.5, width / 4) : 0
    path += `M${round(left)} 0h${round(Math.max(0.3, width - hairline))}v20H${round(left)}z`
  })
  return path
}

const round = (units: number): string => String(Math.round(units * 100) / 100)

/** Texts of bars, each kept once for all lanes of a figure. */
class Labels {
  readonly texts: Array<string> = []
  readonly #codes = new Map<string, number>()

  /** Bars as flat numbers, five each: start and width in hundredths of a unit, first and last text, ops; then bytes. */
  encode(timeline: Timeline, bars: ReadonlyArray<LaneBar>, scale: number): ReadonlyArray<number | string> {
    return bars.flatMap(({ from, to, firstRow, lastRow, ops }) => [
      Math.round(from * scale * 100),
      Math.round((to - from) * scale * 100),
      this.#code(textOf(timeline, firstRow)),
      ops === 1 ? -1 : this.#code(textOf(timeline, lastRow)),
      ops
    ])
  }

  #code(text: string): number {
    let code = this.#codes.get(text)
    if (code === undefined) {
      code = this.texts.push(text) - 1
      this.#codes.set(text, code)
    }
    return code
  }
}

const textOf = (timeline: Timeline, row: number): string => {
  const label = timeline.labels[timeline.label[row]!]!
  return timeline.lane[row] === Lane.compute ? label : `${label}, ${formatSize(timeline.sizeBytes[row]!)}`
}

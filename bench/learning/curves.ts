// Curves of held-out loss as one SVG, complete by itself: readable on light and dark pages, names at the lines' ends, one colour for
// one algorithm everywhere. Knows nothing of where curves come from.
import { palette } from "../../sim/report/palette.ts"

const size = { width: 760, height: 420 }
const frame = { left: 52, right: 610, top: 36, bottom: 376 }

/** Slots of the report's palette. */
const slots: Readonly<Record<string, number>> = {
  "S-SGD": 0,
  DDP: 1,
  "Local SGD": 2,
  "PyTorch DDP": 3,
  DreamDDP: 4,
  DiLoCo: 5,
  "Streaming DiLoCo": 6
}

/** Of several runs: their mean loss at `x`, the lowest and the highest. */
export interface Band {
  readonly x: number
  readonly mean: number
  readonly low: number
  readonly high: number
}

interface Curves {
  readonly title: string
  /** For those who do not see it. */
  readonly description: string
  readonly curves: ReadonlyArray<{ readonly label: string; readonly band: ReadonlyArray<Band> }>
  readonly axis: {
    readonly title: string
    readonly ticks: ReadonlyArray<number>
    /** Logarithmic from `from` on, linear from 0 on where absent. */
    readonly from?: number
  }
  /** Between lines of the grid. */
  readonly lossStep: number
}

/** Ends of lines that lie closer than a line of text are moved apart, in order, and none below the frame. */
const spread = (ends: ReadonlyArray<{ readonly y: number; readonly label: string }>) => {
  const leastGap = 15
  const sorted = ends.toSorted((a, b) => a.y - b.y)
  let above = -Infinity
  return sorted.map(({ y, label }, index) => {
    const lowest = frame.bottom - (sorted.length - 1 - index) * leastGap
    above = Math.min(Math.max(y, above + leastGap), lowest)
    return { y: above, label }
  })
}

export const drawCurves = ({ title, description, curves, axis, lossStep }: Curves): string => {
  const all = curves.flatMap(({ band }) => band)
  const last = Math.max(...all.map(({ x }) => x))
  const grid = 1 / lossStep
  const least = Math.floor(Math.min(...all.map(({ low }) => low)) * grid) / grid
  const most = Math.ceil(Math.max(...all.map(({ high }) => high)) * grid) / grid
  const [along, whole] =
    axis.from === undefined
      ? [(value: number) => value, last]
      : [(value: number) => Math.log(value / axis.from!), Math.log(last / axis.from)]
  const x = (value: number) => frame.left + ((frame.right - frame.left) * along(value)) / whole
  const y = (loss: number) => frame.bottom - ((frame.bottom - frame.top) * (loss - least)) / (most - least)
  const at = (value: number, loss: number) => `${x(value).toFixed(1)},${y(loss).toFixed(1)}`
  const colour = (label: string) => `c${slots[label] ?? 9}`

  const parts: Array<string> = []
  for (let k = 0; k <= Math.round((most - least) / lossStep); k++) {
    const loss = least + k * lossStep
    parts.push(
      `<path class="hair" d="M${frame.left} ${y(loss).toFixed(1)}H${frame.right}"/>`,
      `<text class="tick" x="${frame.left - 8}" y="${(y(loss) + 4).toFixed(1)}" text-anchor="end">${loss.toFixed(1)}</text>`
    )
  }
  for (const tick of axis.ticks)
    parts.push(
      `<text class="tick" x="${x(tick).toFixed(1)}" y="${frame.bottom + 20}" text-anchor="middle">${tick}</text>`
    )
  for (const { label, band } of curves) {
    const upper = band.map((point) => at(point.x, point.high))
    const lower = band.map((point) => at(point.x, point.low)).toReversed()
    parts.push(`<polygon class="band ${colour(label)}" points="${[...upper, ...lower].join(" ")}"/>`)
  }
  for (const { label, band } of curves)
    parts.push(
      `<polyline class="line ${colour(label)}" points="${band.map((p) => at(p.x, p.mean)).join(" ")}"/>`
    )
  for (const end of spread(curves.map(({ label, band }) => ({ label, y: y(band.at(-1)!.mean) }))))
    parts.push(
      `<text class="name ${colour(end.label)}" x="${frame.right + 8}" y="${(end.y + 4).toFixed(1)}">${end.label}</text>`
    )

  const rules = (scheme: "light" | "dark") =>
    palette
      .map(
        (one, slot) =>
          `.line.c${slot}{stroke:${one[scheme]}}.band.c${slot},.name.c${slot}{fill:${one[scheme]}}`
      )
      .join("")
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="${description}">
<style>text{font:13px system-ui,sans-serif}.title{font-weight:600;fill:#16191d}.tick,.axis{fill:#59616b}.hair{stroke:#e6e9ec;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}.band{opacity:.14}.paper{fill:#fff}.name{font-weight:600}${rules("light")}@media(prefers-color-scheme:dark){.paper{fill:#14171b}.title{fill:#e8ebee}.tick,.axis{fill:#a4acb6}.hair{stroke:#2a2f36}${rules("dark")}}</style>
<rect class="paper" width="${size.width}" height="${size.height}"/>
<text class="title" x="${frame.left}" y="20">${title}</text>
<text class="axis" x="${(frame.left + frame.right) / 2}" y="${size.height - 6}" text-anchor="middle">${axis.title}</text>
${parts.join("\n")}
</svg>
`
}

// The learning bench's curves as one SVG: held-out loss over steps, a line for the mean of each algorithm's seeds, a band from
// the lowest to the highest. Complete by itself: readable on light and dark pages, names at the lines' ends.
import { palette } from "../../sim/report/palette.ts"
import { byLabel, mean, type RecordedRun } from "./results.ts"

const size = { width: 760, height: 420 }
const frame = { left: 52, right: 610, top: 36, bottom: 376 }

/** Slots of the report's palette: one colour for one algorithm everywhere. */
const slots: Readonly<Record<string, number>> = {
  "S-SGD": 0,
  "Local SGD": 2,
  DreamDDP: 4,
  DiLoCo: 5,
  "Streaming DiLoCo": 6
}

interface Band {
  readonly step: number
  readonly mean: number
  readonly low: number
  readonly high: number
}

const bandOf = (runs: ReadonlyArray<RecordedRun>): ReadonlyArray<Band> =>
  runs[0]!.heldOutLosses.map(({ step }, index) => {
    const losses = runs.map(({ heldOutLosses }) => heldOutLosses[index]!.loss)
    return { step, mean: mean(losses), low: Math.min(...losses), high: Math.max(...losses) }
  })

/** Ends of lines that lie closer than a line of text are moved apart, in order. */
const spread = (ends: ReadonlyArray<{ readonly y: number; readonly label: string }>) => {
  const leastGap = 15
  let above = -Infinity
  return ends
    .toSorted((a, b) => a.y - b.y)
    .map(({ y, label }) => {
      above = Math.max(y, above + leastGap)
      return { y: above, label }
    })
}

export const learningChart = (runs: ReadonlyArray<RecordedRun>): string => {
  const curves = [...byLabel(runs)].map(([label, runs]) => ({ label, band: bandOf(runs) }))
  const all = curves.flatMap(({ band }) => band)
  const lastStep = Math.max(...all.map(({ step }) => step))
  const least = Math.floor(Math.min(...all.map(({ low }) => low)) * 5) / 5
  const most = Math.ceil(Math.max(...all.map(({ high }) => high)) * 5) / 5
  const x = (step: number) => frame.left + ((frame.right - frame.left) * step) / lastStep
  const y = (loss: number) => frame.bottom - ((frame.bottom - frame.top) * (loss - least)) / (most - least)
  const at = (step: number, loss: number) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`
  const colour = (label: string) => `c${slots[label] ?? 9}`

  const parts: Array<string> = []
  for (let k = 0; k <= Math.round((most - least) / 0.2); k++) {
    const loss = least + k * 0.2
    parts.push(
      `<path class="hair" d="M${frame.left} ${y(loss).toFixed(1)}H${frame.right}"/>`,
      `<text class="tick" x="${frame.left - 8}" y="${(y(loss) + 4).toFixed(1)}" text-anchor="end">${loss.toFixed(1)}</text>`
    )
  }
  const every = lastStep <= 1000 ? 200 : 300
  for (let step = 0; step <= lastStep; step += every)
    parts.push(
      `<text class="tick" x="${x(step).toFixed(1)}" y="${frame.bottom + 20}" text-anchor="middle">${step}</text>`
    )
  for (const { label, band } of curves) {
    const upper = band.map(({ step, high }) => at(step, high))
    const lower = band.map(({ step, low }) => at(step, low)).toReversed()
    parts.push(`<polygon class="band ${colour(label)}" points="${[...upper, ...lower].join(" ")}"/>`)
  }
  for (const { label, band } of curves)
    parts.push(
      `<polyline class="line ${colour(label)}" points="${band.map((p) => at(p.step, p.mean)).join(" ")}"/>`
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
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="Held-out loss over steps for five data-parallel algorithms">
<style>text{font:13px system-ui,sans-serif}.title{font-weight:600;fill:#16191d}.tick,.axis{fill:#59616b}.hair{stroke:#e6e9ec;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round}.band{opacity:.14}.paper{fill:#fff}.name{font-weight:600}${rules("light")}@media(prefers-color-scheme:dark){.paper{fill:#14171b}.title{fill:#e8ebee}.tick,.axis{fill:#a4acb6}.hair{stroke:#2a2f36}${rules("dark")}}</style>
<rect class="paper" width="${size.width}" height="${size.height}"/>
<text class="title" x="${frame.left}" y="20">Held-out loss (nats per character): mean, lowest and highest of the seeds</text>
<text class="axis" x="${(frame.left + frame.right) / 2}" y="${size.height - 6}" text-anchor="middle">steps</text>
${parts.join("\n")}
</svg>
`
}

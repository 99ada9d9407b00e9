// The learning bench's curves: held-out loss over steps, a line for the mean of each algorithm's seeds, a band from the lowest to
// the highest.
import { drawCurves, type Band } from "./curves.ts"
import { byLabel, mean, type RecordedRun } from "./results.ts"

const bandOf = (runs: ReadonlyArray<RecordedRun>): ReadonlyArray<Band> =>
  runs[0]!.heldOutLosses.map(({ step }, index) => {
    const losses = runs.map(({ heldOutLosses }) => heldOutLosses[index]!.loss)
    return { x: step, mean: mean(losses), low: Math.min(...losses), high: Math.max(...losses) }
  })

export const learningChart = (runs: ReadonlyArray<RecordedRun>): string => {
  const curves = [...byLabel(runs)].map(([label, runs]) => ({ label, band: bandOf(runs) }))
  const lastStep = Math.max(...curves.flatMap(({ band }) => band).map(({ x }) => x))
  const every = lastStep <= 1000 ? 200 : 300
  return drawCurves({
    title: "Held-out loss (nats per character): mean, lowest and highest of the seeds",
    description: "Held-out loss over steps for five data-parallel algorithms",
    curves,
    axis: {
      title: "steps",
      ticks: Array.from({ length: Math.floor(lastStep / every) + 1 }, (_, index) => index * every)
    },
    lossStep: 0.2
  })
}

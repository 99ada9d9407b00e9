// Where each profiled step begins and ends on the host. Knows nothing of layers.
import type { HostTree } from "./host-tree.ts"

export interface Step {
  readonly start: number
  readonly end: number
}

/** Steps of the host: the profiler's own marks, else the optimizer's steps, else all is one step. */
export const findSteps = (tree: HostTree, warnings: Array<string>): ReadonlyArray<Step> => {
  const marks: Array<Step> = []
  const optimizers: Array<Step> = []
  let first = Infinity
  let last = -Infinity
  for (const row of tree.order) {
    const extent = { start: tree.start(row), end: tree.end(row) }
    first = Math.min(first, extent.start)
    last = Math.max(last, extent.end)
    if (tree.isStep(row)) marks.push(extent)
    else if (tree.name(row).startsWith("Optimizer.step")) optimizers.push(extent)
  }
  const byStart = (a: Step, b: Step) => a.start - b.start
  if (marks.length > 0) {
    const sorted = marks.toSorted(byStart)
    return sorted.map(({ start, end }, i) => ({ start, end: sorted[i + 1]?.start ?? end }))
  }
  if (optimizers.length > 0) {
    warnings.push(`no ProfilerStep marks: the ${optimizers.length} optimizer steps divide the trace`)
    const sorted = optimizers.toSorted(byStart)
    return sorted.map((_, i) => ({
      start: i === 0 ? first : sorted[i - 1]!.end,
      end: i === sorted.length - 1 ? last + 1 : sorted[i]!.end
    }))
  }
  warnings.push("no ProfilerStep marks and no optimizer: the whole trace is taken for one step")
  return [{ start: -Infinity, end: Math.max(last, -Infinity) + 1 }]
}

/** The step under way at a host time, -1 outside all. */
export const stepAt = (steps: ReadonlyArray<Step>, time: number): number => {
  let low = 0
  let high = steps.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (steps[middle]!.start <= time) low = middle + 1
    else high = middle
  }
  const step = low - 1
  return step >= 0 && (time <= steps[step]!.end || step < steps.length - 1) ? step : -1
}

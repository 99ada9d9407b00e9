// Where each profiled step begins and ends on the host. Knows nothing of layers.
import { formatSeconds } from "../../core/units.ts"
import type { HostTree } from "./host-tree.ts"
import { countBefore } from "./ascending.ts"
import { Numbers } from "./trace.ts"

export interface Step {
  readonly start: number
  readonly end: number
}

const byStart = (a: Step, b: Step): number => a.start - b.start

/** A mark of the profiler's; `number` is its own in its name, NaN where that has none. */
interface Mark extends Step {
  readonly number: number
}

/**
 * Steps of the host: the profiler's own marks, else the optimizer's steps, else all is one step. A mark that launches
 * nothing is no step; one around several whole training steps is as many; where marks are missing between two, what lies there
 * is in no step. `launches`: when device work was launched, in any order.
 */
export const findSteps = (
  tree: HostTree,
  launches: Numbers,
  warnings: Array<string>
): ReadonlyArray<Step> => {
  const steps = markedSteps(tree, launches, warnings)
  tellUnlike(steps, warnings)
  return steps
}

/** What lies between steps where marks are missing, or hold no step. */
export const betweenSteps = (steps: ReadonlyArray<Step>): ReadonlyArray<Step> =>
  steps.flatMap(({ end }, i) => {
    const next = steps[i + 1]
    return next !== undefined && end < next.start ? [{ start: end, end: next.start }] : []
  })

/** Steps of more than so many times the usual length: something else happened in them. */
const unlike = 2

const tellUnlike = (steps: ReadonlyArray<Step>, warnings: Array<string>): void => {
  const lengths = steps.map(({ start, end }) => end - start).toSorted((a, b) => a - b)
  const usual = lengths[(lengths.length - 1) >> 1] ?? 0
  const odd = lengths.filter((length) => length > unlike * usual)
  if (!Number.isFinite(usual) || odd.length === 0) return
  const told = (microseconds: number): string => formatSeconds(microseconds * 1e-6)
  warnings.push(
    `steps are unlike: ${odd.length} of ${steps.length} take up to ${told(odd.at(-1)!)} on the host, the others about ${told(usual)}; times are means over all, so record steps after warm-up, and whole ones`
  )
}

const markedSteps = (tree: HostTree, launches: Numbers, warnings: Array<string>): ReadonlyArray<Step> => {
  const marks: Array<Mark> = []
  const optimizers: Array<Step> = []
  const nodes = new Numbers()
  let first = Infinity
  let last = -Infinity
  for (const row of tree.order) {
    const start = tree.start(row)
    const end = tree.end(row)
    first = Math.min(first, start)
    last = Math.max(last, end)
    if (tree.isStep(row))
      marks.push({ start, end, number: Number(/#(\d+)$/u.exec(tree.name(row))?.[1] ?? Number.NaN) })
    else if (tree.isOptimizer(row) && tree.name(row).startsWith("Optimizer.step"))
      optimizers.push({ start, end })
    else if (tree.isNode(row)) nodes.push(start)
  }
  optimizers.sort(byStart)
  const times = {
    launches: ascending(launches),
    nodes: ascending(nodes)
  }
  if (marks.length > 0) {
    const filled = withoutEmpty(marks.toSorted(byStart), times, warnings)
    if (filled.length > 0) {
      const whole = filled.flatMap((mark) => parted(mark, optimizers, times.nodes, warnings))
      return joined(whole, optimizers, times.nodes, warnings)
    }
    warnings.push(`none of the ${marks.length} ProfilerStep marks launches device work: they are not used`)
  }
  if (optimizers.length > 0) {
    warnings.push(`no ProfilerStep marks: the ${optimizers.length} optimizer steps divide the trace`)
    return optimizers.map((_, i) => ({
      start: i === 0 ? first : optimizers[i - 1]!.end,
      end: i === optimizers.length - 1 ? last + 1 : optimizers[i]!.end
    }))
  }
  warnings.push("no ProfilerStep marks and no optimizer: the whole trace is taken for one step")
  return [{ start: -Infinity, end: Math.max(last, -Infinity) + 1 }]
}

/** How many of ascending times lie in [from, to). */
const countIn = (times: Float64Array, from: number, to: number): number =>
  countBefore(times, to) - countBefore(times, from)

const ascending = ({ values, length }: Numbers): Float64Array =>
  Float64Array.from(values.subarray(0, length)).toSorted()

interface Times {
  readonly launches: Float64Array
  readonly nodes: Float64Array
}

/** A last mark with less than this share of the others' launches, and without a backward pass, is no whole step. */
const stubShare = 0.1

/** Each mark up to the next; marks without device work left out, as `profile()` without a schedule leaves one at the end. */
const withoutEmpty = (
  marks: ReadonlyArray<Mark>,
  { launches, nodes }: Times,
  warnings: Array<string>
): ReadonlyArray<Step> => {
  const missing: Array<string> = []
  const extents = marks.map(({ start, end, number }, i) => {
    const next = marks[i + 1]
    if (next === undefined || next.number <= number + 1 || Number.isNaN(next.number - number))
      return { start, end: next?.start ?? end }
    missing.push(number + 2 === next.number ? `#${number + 1}` : `#${number + 1} to #${next.number - 1}`)
    return { start, end: Math.min(end, next.start) }
  })
  if (missing.length > 0)
    warnings.push(
      `ProfilerStep marks ${missing.join(", ")} are missing: what lies between their neighbours is in no step`
    )
  // Where no launch was recorded nothing tells an empty mark.
  if (launches.length === 0) return extents
  const counts = extents.map(({ start, end }) => countIn(launches, start, end))
  const filled = extents.filter((_, i) => counts[i]! > 0)
  if (filled.length < extents.length) {
    const empty = extents.length - filled.length
    warnings.push(
      empty === 1
        ? "an empty ProfilerStep mark (nothing was launched in it) was left out: it is no step"
        : `${empty} empty ProfilerStep marks (nothing was launched in them) were left out: they are no steps`
    )
  }
  const stub = filled.at(-1)
  const others = filled.slice(0, -1)
  if (stub === undefined || others.length === 0) return filled
  const least = others.reduce((min, { start, end }) => Math.min(min, countIn(launches, start, end)), Infinity)
  const isStub =
    countIn(launches, stub.start, stub.end) < least * stubShare &&
    countIn(nodes, stub.start, stub.end) === 0 &&
    others.every(({ start, end }) => countIn(nodes, start, end) > 0)
  if (!isStub) return filled
  warnings.push(
    `the last ProfilerStep mark (${countIn(launches, stub.start, stub.end)} launches, no backward pass) was left out: it is no whole step`
  )
  return others
}

/** Backward passes of training steps that repeat differ by less than this. */
const alike = 1.2

/** One mark as the training steps in it: one, or as many as optimizer steps with a backward pass of their own. */
const parted = (
  mark: Step,
  optimizers: ReadonlyArray<Step>,
  nodes: Float64Array,
  warnings: Array<string>
): ReadonlyArray<Step> => {
  const ends: Array<number> = []
  const passes: Array<number> = []
  let from = mark.start
  for (const { start, end } of optimizers) {
    if (start < mark.start || start >= mark.end) continue
    const pass = countIn(nodes, from, start)
    // Several optimizers over parts of one model step after the same backward pass.
    if (pass === 0 && ends.length > 0) ends[ends.length - 1] = end
    else {
      ends.push(end)
      passes.push(pass)
    }
    from = end
  }
  if (ends.length < 2) return [mark]
  const smallest = Math.min(...passes)
  if (smallest === 0 || Math.max(...passes) > smallest * alike) {
    warnings.push(
      `a ProfilerStep mark holds ${ends.length} optimizer steps with different backward passes: taken as one step`
    )
    return [mark]
  }
  warnings.push(`a ProfilerStep mark holds ${ends.length} optimizer steps: it was divided at them`)
  return ends.map((end, i) => ({
    start: i === 0 ? mark.start : ends[i - 1]!,
    end: i === ends.length - 1 ? mark.end : end
  }))
}

/**
 * Marks of single batches as the training steps that they are parts of, where the optimizer steps after each several of them: from one's
 * to the next one's. What is before or after whole ones is left out. Where they are not alike, nothing tells which are whole.
 */
const joined = (
  marks: ReadonlyArray<Step>,
  optimizers: ReadonlyArray<Step>,
  nodes: Float64Array,
  warnings: Array<string>
): ReadonlyArray<Step> => {
  const steps = (mark: Step): boolean =>
    optimizers.some(({ start }) => start >= mark.start && start < mark.end)
  const last = marks.flatMap((mark, i) => (steps(mark) ? [i] : []))
  if (last.length === 0 || last.length === marks.length) return marks
  if (!marks.every(({ start, end }) => countIn(nodes, start, end) > 0)) return marks
  const batches = last.length > 1 ? last[1]! - last[0]! : last[0]! + 1
  const whole = last.filter((at) => at + 1 >= batches)
  const isAlike =
    batches > 1 &&
    last[0]! < batches &&
    marks.length - 1 - last.at(-1)! < batches &&
    last.every((at, i) => i === 0 || last[i - 1] === at - batches) &&
    marks.every(({ start }, i) => i === 0 || marks[i - 1]!.end === start)
  const told = `the optimizer steps in ${last.length} of ${marks.length} ProfilerStep marks that have a backward pass`
  if (!isAlike) {
    warnings.push(
      `${told} (gradients are accumulated over marks, a step was skipped, or the recording ends within one): times are means over marks, not over steps; let each mark be a whole step`
    )
    return marks
  }
  const left = marks.length - whole.length * batches
  warnings.push(
    `${told}: gradients are accumulated over ${batches} marks, which make one step${left > 0 ? `; ${left} marks of steps that are not whole were left out` : ""}`
  )
  return whole.map((at) => ({ start: marks[at + 1 - batches]!.start, end: marks[at]!.end }))
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
  if (step < 0) return -1
  const { end } = steps[step]!
  // The next step begins where this one ends, save where marks between them were left out.
  return time <= end ? step : -1
}

// What one device did in the profiled steps: which work, launched by which host row, in which step, and whether it
// computes or communicates. Knows nothing of layers.
import { counted } from "../../core/units.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { isTooMuch } from "../left-out.ts"
import { sortedRows } from "./by-id.ts"
import { findCommunication } from "./communication.ts"
import type { HostTree } from "./host-tree.ts"
import { launchRows, Origins } from "./origins.ts"
import { findSteps, stepAt, type Step } from "./steps.ts"
import { Host, Numbers, type KinetoTrace } from "./trace.ts"

export interface DeviceWork {
  readonly steps: ReadonlyArray<Step>
  /** Device rows by start. Positions in this list are what the others speak of. */
  readonly kernels: Int32Array
  /** The host row that launched each, -1 where none is known. */
  readonly rows: Int32Array
  /** What surrounds that row. */
  readonly origins: Origins
  /** Positions of what computes and of what communicates within the steps, ascending. */
  readonly compute: ReadonlyArray<number>
  readonly collective: ReadonlyArray<number>
  /** Of `compute`, what is neither a copy nor a fill nor on a stream that communicates. */
  readonly pure: ReadonlyArray<number>
}

/** Throws `TraceError` where no step has device work. */
export const deviceWork = (trace: KinetoTrace, tree: HostTree, warnings: Array<string>): DeviceWork => {
  const kernels = chooseDevice(trace, warnings)
  requireOnce(trace, kernels, warnings)
  const rows = launchRows(tree, kernels)
  const launches = new Numbers()
  for (const row of rows) if (row >= 0) launches.push(tree.start(row))
  const steps = findSteps(tree, launches, warnings)
  const origins = new Origins(tree, steps, rows)
  const communication = findCommunication(trace, tree, kernels, rows)
  if (communication.suspects.length > 0) {
    const named = communication.suspects.slice(0, 5).map(({ name, microseconds }) => {
      const milliseconds = (microseconds * 1e-3).toPrecision(3)
      return `${name.length > 80 ? `${name.slice(0, 80)}...` : name} (${milliseconds} ms)`
    })
    const more = communication.suspects.length - named.length
    warnings.push(
      `kernels that may communicate were taken for compute: ${named.join(", ")}${more > 0 ? ` and ${more} more` : ""}`
    )
  }
  const compute: Array<number> = []
  const collective: Array<number> = []
  const stepOf = stepFinder(trace, kernels, origins, steps, launches.length)
  let before = 0
  let outside = 0
  for (const index of kernels.keys()) {
    const step = stepOf(index)
    if (step === earlier) before++
    else if (step < 0) outside++
    else if (communication.is[index] === 1) collective.push(index)
    else compute.push(index)
  }
  if (before > 0) {
    warnings.push(
      `${counted(before, "device event", "was launched before the profiled steps and was", "were launched before the profiled steps and were")} left out`
    )
  }
  if (outside > 0) {
    warnings.push(
      `${counted(outside, "device event", "was launched outside the profiled steps and was", "were launched outside the profiled steps and were")} left out`
    )
  }
  if (compute.length === 0) {
    const nothing = trace.isOld
      ? "no device events (Kernel, Memcpy, Memset) that a step launched"
      : "no device events (kernel, gpu_memcpy, gpu_memset)"
    const others = trace.unread.length === 0 ? "" : `, but events of ${trace.unread.slice(0, 5).join(", ")}`
    const alone = trace.host.kind.length > 0 ? ": a trace of the host alone" : ""
    throw new TraceError({
      file: trace.file,
      field: "traceEvents",
      value: kernels.length === 0 ? nothing + (others || alone) : "no kernels inside a step",
      accepted: exportedTooLate(trace, kernels)
        ? "an export of the steps: this one has calls of the device's runtime alone, as when the profiler has begun anew " +
          "(schedule() with wait=0 and without repeat=1); export in on_trace_ready, or set repeat=1"
        : "a trace recorded with ProfilerActivity.CUDA (of NVIDIA or AMD) or ProfilerActivity.XPU"
    })
  }
  const pure = compute.filter((index) => communication.computes[index] === 1)
  return { steps, kernels, rows, origins, compute, collective, pure }
}

/** How many events that begin at one time are looked through for one that is there twice. */
const mostAtOnce = 64

/**
 * A stream does one thing at a time: what is there twice, with all that it says, was written twice. With it, so were parameters,
 * launches and calls.
 */
const requireOnce = ({ file, device }: KinetoTrace, kernels: Int32Array, warnings: Array<string>): void => {
  const { start, end, name, stream, correlation } = device
  const same = (a: number, b: number): boolean =>
    [end, name, stream, correlation].every(({ values }) => values[a] === values[b])
  let twice = 0
  for (const [index, row] of kernels.entries()) {
    const from = start.values[row]!
    if (!(end.values[row]! > from)) continue
    for (let before = index - 1; before >= 0 && index - before <= mostAtOnce; before--) {
      if (start.values[kernels[before]!] !== from) break
      if (!same(kernels[before]!, row)) continue
      twice++
      break
    }
  }
  if (twice === 0) return
  const value = `${twice} of ${kernels.length} device events there twice, with the same name, times and stream`
  if (isTooMuch(twice, kernels.length))
    throw new TraceError({
      file,
      field: "traceEvents",
      value,
      accepted: "each event once, as the profiler writes it: not a trace put together with a copy of itself"
    })
  warnings.push(`${value}: they are counted as often as they are there`)
}

/** Whether nothing was recorded but calls of the runtime, such as the synchronisation with which the profiler begins and ends. */
const exportedTooLate = ({ host }: KinetoTrace, kernels: Int32Array): boolean =>
  kernels.length === 0 &&
  host.kind.length > 0 &&
  host.kind.values.subarray(0, host.kind.length).every((kind) => kind === Host.launch)

const earlier = -2

/**
 * The step of each kernel, asked in order; `earlier` for work of before the steps, -1 for other work outside them. Launch
 * records begin with the recording, so on each stream what comes before the first recorded launch was launched before.
 * Later work without a record belongs to the step the device is in.
 */
const stepFinder = (
  trace: KinetoTrace,
  kernels: Int32Array,
  origins: Origins,
  steps: ReadonlyArray<Step>,
  launches: number
): ((index: number) => number) => {
  const { start, stream } = trace.device
  if (launches === 0) {
    return steps.length === 1 ? () => 0 : (index) => stepAt(steps, start.values[kernels[index]!]!)
  }
  const everRecorded = new Set<number>()
  for (const [index, kernel] of kernels.entries()) {
    if ((origins.at(index)?.step ?? -1) >= 0) everRecorded.add(stream.values[kernel]!)
  }
  const recorded = new Set<number>()
  const first = steps[0]!.start
  let last = -1
  return (index) => {
    const origin = origins.at(index)
    const line = stream.values[kernels[index]!]!
    if (origin === undefined) {
      if (last < 0) return earlier
      return recorded.has(line) || !everRecorded.has(line) ? last : earlier
    }
    if (origin.step < 0) return origin.start < first ? earlier : -1
    recorded.add(line)
    return (last = origin.step)
  }
}

/** Rows of the busiest device, by start. */
const chooseDevice = (trace: KinetoTrace, warnings: Array<string>): Int32Array => {
  const { start, end, device } = trace.device
  const busy = new Map<number, number>()
  for (let row = 0; row < start.length; row++) {
    const id = device.values[row]!
    busy.set(id, (busy.get(id) ?? 0) + end.values[row]! - start.values[row]!)
  }
  const [chosen, ...others] = [...busy].toSorted((a, b) => b[1] - a[1] || a[0] - b[0])
  if (others.length > 0) {
    warnings.push(
      `one process used ${busy.size} devices; only device ${showValue(chosen![0])}, the busiest, is used`
    )
  }
  const rows = sortedRows(start.length, (a, b) => start.values[a]! - start.values[b]! || a - b)
  return others.length === 0 ? rows : rows.filter((row) => device.values[row] === chosen![0])
}

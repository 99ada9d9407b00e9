// Times that cannot be: far from all others, before what caused them, over what must follow them. A few are left out or
// clipped, and told; a trace of them is refused. Knows nothing of steps or layers.
import { counted } from "../../core/units.ts"
import { TraceError } from "../trace-error.ts"
import { ById, sortedRows } from "./by-id.ts"
import { isTooMuch } from "../left-out.ts"
import { subset } from "./subset.ts"
import type { KinetoTrace } from "./trace.ts"

/** Microseconds no recording pauses for, if it is also `farther` times as long as all of the rest. */
const longPause = 60e6
const farther = 100
/** Microseconds a device's clock may run before the host's. */
const clockSkew = 1000
/** Share of events far from the others above which it is not known which of them are right. */
const tooManyFar = 0.25

/** The trace without impossible times. Throws `TraceError` where too much of it is impossible. */
export const withoutAbsurdTimes = (trace: KinetoTrace, warnings: Array<string>): KinetoTrace => {
  const near = withoutFarTimes(trace, warnings)
  const caused = withoutEffectsBeforeCauses(near, warnings)
  clipOverSuccessors(caused, warnings)
  const { start, end } = caused.device
  let still = 0
  for (let row = 0; row < start.length; row++) if (end.values[row] === start.values[row]) still++
  if (still > start.length / 4 && still > 0) {
    warnings.push(`${still} of ${start.length} device events have no duration: times are too short by them`)
  }
  return caused
}

const seconds = (microseconds: number): string => `${(microseconds * 1e-6).toPrecision(3)} s`

const withoutFarTimes = (trace: KinetoTrace, warnings: Array<string>): KinetoTrace => {
  const { host, device } = trace
  const all = new Float64Array(host.start.length + device.start.length)
  all.set(host.start.values.subarray(0, host.start.length))
  all.set(device.start.values.subarray(0, device.start.length), host.start.length)
  const [earliest, latest] = extremes(all)
  if (latest - earliest > longPause) all.sort()
  // The range of starts that belong together: cut at the widest gap while there is one too wide to be a pause.
  let low = 0
  let high = all.length
  while (high - low > 1 && latest - earliest > longPause) {
    let widest = low + 1
    for (let i = low + 1; i < high; i++)
      if (all[i]! - all[i - 1]! > all[widest]! - all[widest - 1]!) widest = i
    const gap = all[widest]! - all[widest - 1]!
    const keepsLeft = widest - low >= high - widest
    const extent = keepsLeft ? all[widest - 1]! - all[low]! : all[high - 1]! - all[widest]!
    if (gap <= longPause || gap <= farther * extent) break
    if (keepsLeft) high = widest
    else low = widest
  }
  const from = latest - earliest > longPause ? all[low]! : earliest
  const to = latest - earliest > longPause ? all[high - 1]! : latest
  const extent = to - from
  const isFar = (start: number, end: number): boolean =>
    start < from || start > to || (end - start > longPause && end - start > farther * extent)
  let far = 0
  const hostMarks = new Uint8Array(host.start.length).fill(1)
  for (let row = 0; row < hostMarks.length; row++) {
    if (!isFar(host.start.values[row]!, host.start.values[row]!)) continue
    hostMarks[row] = 0
    far++
  }
  const deviceMarks = new Uint8Array(device.start.length).fill(1)
  for (let row = 0; row < deviceMarks.length; row++) {
    if (!isFar(device.start.values[row]!, device.end.values[row]!)) continue
    deviceMarks[row] = 0
    far++
  }
  // A call that was open when the recording ended says nothing of its end.
  for (let row = 0; row < host.end.length; row++) {
    if (hostMarks[row] === 1 && host.end.values[row]! - host.start.values[row]! > longPause)
      host.end.values[row] = Math.min(host.end.values[row]!, Math.max(to, host.start.values[row]!) + 1)
  }
  if (far === 0) return trace
  const value = `${far} of ${all.length} events have no time, or one far from all others (they span ${seconds(extent)})`
  if (far > all.length * tooManyFar) {
    throw new TraceError({ file: trace.file, field: "ts", value, accepted: "times of one recording" })
  }
  warnings.push(`${value}: left out`)
  return subset(trace, hostMarks, deviceMarks)
}

const extremes = (times: Float64Array): readonly [number, number] => {
  let least = Infinity
  let most = -Infinity
  for (let i = 0; i < times.length; i++) {
    const time = times[i]!
    if (time < least) least = time
    if (time > most) most = time
  }
  return [least, most]
}

const withoutEffectsBeforeCauses = (trace: KinetoTrace, warnings: Array<string>): KinetoTrace => {
  const { host, device } = trace
  const launched = new ById(device.start.length)
  for (let row = 0; row < host.start.length; row++) {
    const correlation = host.correlation.values[row]!
    if (correlation >= 0 && launched.get(correlation) === undefined) launched.set(correlation, row)
  }
  const marks = new Uint8Array(device.start.length).fill(1)
  const early: Array<number> = []
  let matched = 0
  for (let row = 0; row < device.start.length; row++) {
    const launchRow = launched.get(device.correlation.values[row]!)
    if (launchRow === undefined) continue
    const launch = host.start.values[launchRow]!
    matched++
    if (device.start.values[row]! >= launch - clockSkew) continue
    marks[row] = 0
    early.push(launch - device.start.values[row]!)
  }
  if (early.length === 0) return trace
  if (isTooMuch(early.length, matched)) {
    early.sort((a, b) => a - b)
    const middle = early[early.length >> 1]!
    const isSkew = early.length > matched / 2 && early.at(-1)! - early[0]! < 10 * middle
    if (!isSkew) {
      throw new TraceError({
        file: trace.file,
        field: "ts",
        value: `${early.length} of ${matched} device events begin before they were launched`,
        accepted: "times of one clock, or of two that differ by a constant"
      })
    }
    // Who waited least for the device tells by how much: nothing begins before its launch.
    const offset = early.at(-1)!
    for (const column of [device.start, device.end])
      for (let row = 0; row < column.length; row++) column.values[row]! += offset
    warnings.push(
      `the device's clock is ${seconds(offset)} before the host's, by ${early.length} of ${matched} device events that seem to begin before their launch: the device's times are later by that here`
    )
    return trace
  }
  warnings.push(
    `${counted(early.length, "device event", "begins before it was launched and was", "begin before they were launched and were")} left out`
  )
  return subset(trace, new Uint8Array(host.start.length).fill(1), marks)
}

/** On one stream a kernel ends before the next does; graphs excepted, which run their branches on one. */
const clipOverSuccessors = (trace: KinetoTrace, warnings: Array<string>): void => {
  const { start, end, stream, device, correlation } = trace.device
  const launches = new ById(start.length)
  for (let row = 0; row < start.length; row++) {
    const id = correlation.values[row]!
    if (id >= 0) launches.set(id, (launches.get(id) ?? 0) + 1)
  }
  const order = sortedRows(
    start.length,
    (a, b) =>
      device.values[a]! - device.values[b]! ||
      stream.values[a]! - stream.values[b]! ||
      start.values[a]! - start.values[b]! ||
      end.values[a]! - end.values[b]! ||
      a - b
  )
  let clipped = 0
  for (let i = 0; i + 1 < order.length; i++) {
    const row = order[i]!
    if (stream.values[row]! < 0 || (launches.get(correlation.values[row]!) ?? 1) > 1) continue
    let covered = 0
    for (let j = i + 1; j < order.length && covered < 2; j++) {
      const next = order[j]!
      const follows = stream.values[next] === stream.values[row] && device.values[next] === device.values[row]
      if (!follows || start.values[next] === start.values[row] || end.values[next]! >= end.values[row]!) break
      covered++
    }
    const over = covered === 0 ? 0 : end.values[row]! - end.values[order[i + 1]!]!
    if (covered < 2 && over < clockSkew) continue
    end.values[row] = start.values[order[i + 1]!]!
    clipped++
  }
  if (clipped === 0) return
  if (isTooMuch(clipped, start.length)) {
    throw new TraceError({
      file: trace.file,
      field: "dur",
      value: `${clipped} of ${start.length} device events last longer than those after them on their stream`,
      accepted: "streams on which work follows work"
    })
  }
  warnings.push(
    `${clipped} device events last longer than those after them on their stream: they were clipped where the next begins`
  )
}

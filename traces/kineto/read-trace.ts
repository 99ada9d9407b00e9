// From a file's bytes to a KinetoTrace: what was broken is told, and times get their unit. Knows nothing of layers.
import { counted } from "../../core/units.ts"
import { TraceError } from "../trace-error.ts"
import { decompressed, type ByteSource } from "./bytes.ts"
import { Collector, isObject, number, text } from "./collector.ts"
import { isTooMuch } from "../left-out.ts"
import { JsonEvents } from "./json-events.ts"
import { linkKey, type KinetoTrace } from "./trace.ts"

export interface ReadOptions {
  /** Unit of `ts` and `dur`. Default "auto": microseconds, as the format says, unless all signs point to nanoseconds. */
  readonly timestampUnit?: "auto" | "us" | "ns"
}

/** Reads a whole trace. Throws `TraceError`; what its caller must still read of `source` is read. */
export const readKineto = async (
  file: string,
  source: ByteSource,
  options: ReadOptions = {},
  signal?: AbortSignal
): Promise<KinetoTrace> => {
  const collector = new Collector()
  const scanner = new JsonEvents(file, collector)
  for await (const chunk of decompressed(file, source)) {
    signal?.throwIfAborted()
    scanner.push(chunk)
  }
  scanner.finish()
  const warnings = brokenParts(file, scanner, collector)
  const unit = unitOf(collector, options.timestampUnit ?? "auto", warnings)
  if (unit === "ns") {
    const { host, device, flowStarts, flowEnds } = collector
    for (const column of [host.start, host.end, device.start, device.end]) {
      for (let i = 0; i < column.length; i++) column.values[i]! /= 1000
    }
    for (const flow of [...flowStarts.values(), ...flowEnds.values()]) flow.start /= 1000
  }
  const links = new Map<string, { thread: number; start: number }>()
  for (const [id, end] of collector.flowEnds) {
    const start = collector.flowStarts.get(id)
    if (start !== undefined) links.set(linkKey(end.thread, end.start), start)
  }
  const { members } = collector
  const properties = members.get("deviceProperties")
  const first: unknown = Array.isArray(properties) ? properties[0] : undefined
  const distributed = members.get("distributedInfo")
  const deviceName = isObject(first) ? text(first.name)?.trim() : undefined
  return {
    file,
    names: collector.names,
    processes: collector.processes,
    processOfThread: collector.processOfThread,
    host: collector.host,
    device: collector.device,
    gradients: collector.gradients,
    functionInputs: collector.functionInputs,
    hostCollectives: collector.hostCollectives,
    deviceCollectives: collector.deviceCollectives,
    links,
    deviceName: deviceName === "" ? undefined : deviceName,
    worldSize: isObject(distributed) ? number(distributed.world_size) : undefined,
    rank: isObject(distributed) ? number(distributed.rank) : undefined,
    base: unit === "ns" ? collector.base / 1000 : collector.base,
    isOld: collector.isOld,
    unread: collector.unread,
    warnings
  }
}

/** Says what was left out; refuses a file of which more than one part in ten is. */
const brokenParts = (file: string, scanner: JsonEvents, collector: Collector): Array<string> => {
  const warnings: Array<string> = []
  const { events, first, members, irregular } = scanner.broken
  if (first !== undefined) {
    warnings.push(
      `${counted(events, "event", "is no JSON and was", "are no JSON and were")} left out, the first ${first.field}: ${first.value}`
    )
  }
  if (members.length > 0) warnings.push(`${members.join(", ")} beside the events is no JSON and was left out`)
  if (irregular > 0) {
    warnings.push(
      `${irregular} events hold what JSON does not know (nan, inf, control characters): read without it`
    )
  }
  const { odd, firstOdd, host, device } = collector
  if (firstOdd !== undefined) {
    const { field, value, accepted } = firstOdd
    const all = host.start.length + device.start.length + odd
    if (isTooMuch(odd, all)) {
      const many = odd > 1 ? ` (${odd} of ${all} events have no such value)` : ""
      throw new TraceError({ file, field, value, accepted: `${accepted}${many}` })
    }
    warnings.push(
      `${counted(odd, "event", "has a value that is none and was", "have a value that is none and were")} left out, the first: ${field} is ${value}, not ${accepted}`
    )
  }
  warnings.push(...partsApart(file, collector))
  const timeless = collector.kernelsWithoutTime
  if (timeless > 0) {
    const all = device.start.length + timeless
    if (isTooMuch(timeless, all))
      throw new TraceError({
        file,
        field: "traceEvents",
        value: `${timeless} of ${all} device events without ts or dur`,
        accepted: "a trace whose device events say when they began and how long they took"
      })
    warnings.push(
      `${counted(timeless, "device event", "has no ts or dur and was", "have no ts or dur and were")} left out`
    )
  }
  return warnings
}

/** What of events that are not given as a whole (ph X) was read, and what not; refuses a file of which much is lost so. */
const partsApart = (file: string, collector: Collector): ReadonlyArray<string> => {
  const { begunApart, otherPhases, host, device } = collector
  const { pairs, endsAlone, beginsAlone, problem } = begunApart
  if (problem !== undefined) throw new TraceError({ file, ...problem })
  const warnings: Array<string> = []
  const read = host.start.length + device.start.length
  const lone = endsAlone + beginsAlone
  if (lone > 0) {
    const told = `${counted(beginsAlone, "begin")} without an end and ${counted(endsAlone, "end")} without a begin (ph B and E)`
    if (isTooMuch(lone, read + lone))
      throw new TraceError({
        file,
        field: "traceEvents",
        value: told,
        accepted: "pairs of them, nested on their thread (pid and tid), or whole events (ph X)"
      })
    warnings.push(`${told} were left out`)
  }
  if (pairs > 0)
    warnings.push(
      `${pairs} events are given as a begin and an end (ph B and E), which torch.profiler does not write: each end was taken for that of the last begin on its thread`
    )
  for (const [ph, { count, first }] of otherPhases) {
    if (isTooMuch(count, read + count))
      throw new TraceError({
        file,
        field: `traceEvents[${first}].ph`,
        value: ph,
        accepted: `X, a whole event, or B and E, its begin and end (${count} of ${read + count} events have no such value)`
      })
    warnings.push(
      `${counted(count, "event", "was", "were")} left out, the first traceEvents[${first}]: ph is ${ph}, and only X, or B and E, are read of their categories`
    )
  }
  const { hostWithoutTime, hostWithoutDuration } = collector
  if (hostWithoutTime > 0)
    warnings.push(
      `${counted(hostWithoutTime, "host event", "has no ts and was", "have no ts and were")} left out`
    )
  if (hostWithoutDuration > 0)
    warnings.push(`${hostWithoutDuration} host events have no dur and are taken for moments`)
  return warnings
}

const nanosecondsFrom = 1e17
/** Microseconds that a device takes for an empty kernel are about two. */
const shortestKernel = 0.3
const longestMedian = 500

/**
 * The Chrome format counts in microseconds whatever `displayTimeUnit` says, and so does PyTorch. Some exporters write
 * nanoseconds and say so there; then every time is whole, which microseconds from a GPU's clock never all are.
 */
const unitOf = (collector: Collector, unit: "auto" | "us" | "ns", warnings: Array<string>): "us" | "ns" => {
  if (unit !== "auto") return unit
  // Microseconds since 1970 have 16 digits until the year 2286, nanoseconds 19.
  if (Math.abs(collector.base) >= nanosecondsFrom) {
    warnings.push("times are of the size of nanoseconds since 1970 and are read as such")
    return "ns"
  }
  const { start, end } = collector.device
  const durations = end.values
    .subarray(0, end.length)
    .map((value, i) => value - start.values[i]!)
    .toSorted()
  const middle = durations[durations.length >> 1] ?? 0
  if (middle > 0 && middle < shortestKernel)
    warnings.push(
      `the median device event lasts ${middle.toPrecision(2)} us, less than any kernel does: the file's times are no microseconds, as the format has them, and all times here are too short`
    )
  // A median kernel of 0.5 ms is far longer than any real model's, one of 0.5 microseconds far shorter.
  if (collector.fractions > 0 || middle < longestMedian) return "us"
  if (collector.members.get("displayTimeUnit") !== "ns") {
    warnings.push(
      `the median device event lasts ${(middle / 1000).toPrecision(2)} ms if times are microseconds, as the format has them, longer than any model's; all are whole numbers: where they are nanoseconds, --timestamps ns says so`
    )
    return "us"
  }
  warnings.push(
    'displayTimeUnit is "ns" and all device times are whole numbers: read as nanoseconds (--timestamps us says otherwise)'
  )
  return "ns"
}

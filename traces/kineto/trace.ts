// A profiler trace in memory: what attribution needs of each event and nothing else, in columns. Reads the events of
// json-events.ts; knows nothing of layers.
import { showValue, TraceError } from "../trace-error.ts"
import { decompressed, type ByteSource } from "./bytes.ts"
import { JsonEvents } from "./json-events.ts"

/** What kind of host event a row is. */
export const Host = {
  /** A PyTorch operator or an autograd node. */
  op: 0,
  /** The Python frame of an `nn.Module` call. */
  module: 1,
  /** `record_function` in user code. */
  annotation: 2,
  /** A CUDA runtime or driver call. */
  launch: 3,
  /** The Python frame of `Tensor.backward` or `autograd.backward`. */
  backwardCall: 4
} as const

/** A growable column of float64. */
export class Numbers {
  values = new Float64Array(1024)
  length = 0
  push(value: number): void {
    if (this.length === this.values.length) {
      const grown = new Float64Array(this.length * 2)
      grown.set(this.values)
      this.values = grown
    }
    this.values[this.length++] = value
  }
}

/** Each text once, as a small integer. */
export class Texts {
  readonly texts: Array<string> = []
  readonly #codes = new Map<string, number>()
  code(text: string): number {
    let code = this.#codes.get(text)
    if (code === undefined) {
      code = this.texts.length
      this.#codes.set(text, code)
      this.texts.push(text)
    }
    return code
  }
}

/** Events of the host, one row each. Times in microseconds after the first event of the file. */
export interface HostEvents {
  readonly kind: Numbers
  readonly name: Numbers
  readonly start: Numbers
  readonly end: Numbers
  readonly thread: Numbers
  /** Autograd sequence number, -1 where there is none. */
  readonly sequence: Numbers
  /** -1 where there is none. */
  readonly correlation: Numbers
  /** -1 where there is none. */
  readonly externalId: Numbers
}

/** Kernels, copies and fills of the device, one row each. Times in microseconds after the first event of the file. */
export interface DeviceEvents {
  readonly name: Numbers
  readonly start: Numbers
  readonly end: Numbers
  readonly device: Numbers
  readonly correlation: Numbers
  readonly externalId: Numbers
}

export interface GradientShape {
  readonly shape: ReadonlyArray<number>
  readonly dtype: string
}

/** What PyTorch records of a collective beside its time. */
export interface CollectiveRecord {
  readonly name: string | undefined
  readonly inputElements: number | undefined
  readonly outputElements: number | undefined
  readonly dtype: string | undefined
  readonly ranks: number | undefined
}

export interface KinetoTrace {
  readonly file: string
  readonly names: Texts
  readonly threads: Texts
  readonly host: HostEvents
  readonly device: DeviceEvents
  /** Shape of the gradient an AccumulateGrad op received, by host row. */
  readonly gradients: ReadonlyMap<number, GradientShape>
  /** By host row (`record_param_comms`). */
  readonly hostCollectives: ReadonlyMap<number, CollectiveRecord>
  /** By device row (NCCL kernels of recent PyTorch versions). */
  readonly deviceCollectives: ReadonlyMap<number, CollectiveRecord>
  /** Forward to backward links: thread and start of the forward op, by those of the backward node. */
  readonly links: ReadonlyMap<string, { readonly thread: number; readonly start: number }>
  readonly deviceName: string | undefined
  readonly worldSize: number | undefined
  readonly warnings: ReadonlyArray<string>
}

/** Key of `KinetoTrace.links`. */
export const linkKey = (thread: number, start: number): string => `${thread} ${start}`

export interface ReadOptions {
  /** Unit of `ts` and `dur`. Default "auto": microseconds, as the format says, unless all signs point to nanoseconds. */
  readonly timestampUnit?: "auto" | "us" | "ns"
}

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const text = (value: unknown): string | undefined =>
  typeof value === "string" ? value : typeof value === "number" ? String(value) : undefined

/** A number, also when it was written as a text; undefined for anything else. */
const number = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  if (typeof value === "string" && value.trim() !== "") {
    const parsed = Number(value)
    return Number.isNaN(parsed) ? undefined : parsed
  }
  return undefined
}

const dtypes: Readonly<Record<string, string>> = {
  float: "float32",
  "c10::bfloat16": "bfloat16",
  bfloat16: "bfloat16",
  "c10::half": "float16",
  half: "float16",
  double: "float64",
  "long int": "int64",
  long: "int64",
  int: "int32"
}

const dtypeOf = (name: string): string => dtypes[name.toLowerCase()] ?? name.toLowerCase()

// Above this, a float64 of microseconds no longer holds whole nanoseconds.
const exactBelow = 2 ** 42
// Nanoseconds since 1970 are 2e18; anything larger is no time, and sums of it would lose their meaning.
const largestTime = 1e20
const timestamp = /"ts"\s*:\s*"?(\d+)(\.\d+)?/u

const deviceCategories = new Set(["kernel", "gpu_memcpy", "gpu_memset"])
const launchCategories = new Set(["cuda_runtime", "cuda_driver", "Runtime", "Driver"])
const annotationCategories = new Set(["user_annotation"])
const opCategories = new Set(["cpu_op", "Operator", "operator"])
const pythonCategories = new Set(["python_function", "Python function", "python_func"])
const modulePrefix = "nn.Module: "
const backwardFrame = /(?:autograd\/__init__|_tensor)\.py\(\d+\): backward$/u
const gradientOp = /^(?:struct )?(?:torch::autograd::)?AccumulateGrad$/u

/** Collects the columns while events stream past. */
class Collector {
  readonly names = new Texts()
  readonly threads = new Texts()
  readonly host: HostEvents = {
    kind: new Numbers(),
    name: new Numbers(),
    start: new Numbers(),
    end: new Numbers(),
    thread: new Numbers(),
    sequence: new Numbers(),
    correlation: new Numbers(),
    externalId: new Numbers()
  }
  readonly device: DeviceEvents = {
    name: new Numbers(),
    start: new Numbers(),
    end: new Numbers(),
    device: new Numbers(),
    correlation: new Numbers(),
    externalId: new Numbers()
  }
  readonly gradients = new Map<number, GradientShape>()
  readonly hostCollectives = new Map<number, CollectiveRecord>()
  readonly deviceCollectives = new Map<number, CollectiveRecord>()
  readonly flowStarts = new Map<string, { thread: number; start: number }>()
  readonly flowEnds = new Map<string, { thread: number; start: number }>()
  readonly members = new Map<string, unknown>()
  kernelsWithoutTime = 0
  fractions = 0
  readonly #file: string
  #base: number | undefined

  constructor(file: string) {
    this.#file = file
  }

  event(index: number, value: unknown, source: string): void {
    const bad = (field: string, found: unknown, accepted: string): TraceError => {
      const place = field === "" ? `traceEvents[${index}]` : `traceEvents[${index}].${field}`
      return new TraceError({ file: this.#file, field: place, value: showValue(found), accepted })
    }
    if (!isObject(value)) throw bad("", value, "an object")
    const { ph, cat } = value
    if (cat === "fwdbwd" && (ph === "s" || ph === "f")) {
      const start = this.#time(value.ts, source)
      const id = text(value.id)
      if (id === undefined || start === undefined) return
      const ends = ph === "s" ? this.flowStarts : this.flowEnds
      ends.set(id, { thread: this.#thread(value), start })
      return
    }
    if (ph !== "X" || typeof cat !== "string") return
    const isDevice = deviceCategories.has(cat)
    const kind = isDevice ? undefined : hostKind(cat, value.name)
    if (!isDevice && kind === undefined) return
    if (value.args !== undefined && !isObject(value.args)) throw bad("args", value.args, "an object")
    const args = value.args ?? {}
    const name = text(value.name) ?? "(no name)"
    for (const field of ["ts", "dur"] as const) {
      const given = value[field]
      if (given === undefined) continue
      const parsed = number(given)
      if (parsed === undefined || !(Math.abs(parsed) <= largestTime)) throw bad(field, given, "a number")
      if (field === "dur" && parsed < 0) throw bad(field, given, "a duration of at least 0")
      if (isDevice && !Number.isInteger(parsed)) this.fractions++
    }
    const start = this.#time(value.ts, source)
    const duration = number(value.dur)
    if (start === undefined || (isDevice && duration === undefined)) {
      if (isDevice) this.kernelsWithoutTime++
      return
    }
    const end = start + (duration ?? 0)
    const correlation = number(args.correlation) ?? -1
    const externalId = number(args["External id"]) ?? number(args["external id"]) ?? -1
    if (isDevice) {
      const row = this.device.start.length
      this.device.name.push(this.names.code(name))
      this.device.start.push(start)
      this.device.end.push(end)
      this.device.device.push(number(args.device) ?? number(value.pid) ?? 0)
      // Correlation 0 is CUPTI's "none".
      this.device.correlation.push(correlation === 0 ? -1 : correlation)
      this.device.externalId.push(externalId)
      if (args["Collective name"] !== undefined) this.deviceCollectives.set(row, collectiveRecord(args))
      return
    }
    const row = this.host.start.length
    this.host.kind.push(kind!)
    this.host.name.push(this.names.code(kind === Host.module ? name.slice(modulePrefix.length) : name))
    this.host.start.push(start)
    this.host.end.push(end)
    this.host.thread.push(this.#thread(value))
    this.host.sequence.push(kind === Host.op ? (number(args["Sequence number"]) ?? -1) : -1)
    this.host.correlation.push(kind === Host.launch ? correlation : -1)
    this.host.externalId.push(kind === Host.op ? externalId : -1)
    if (kind === Host.op && gradientOp.test(name)) this.#gradient(row, args)
    if (name === "record_param_comms") this.hostCollectives.set(row, collectiveRecord(args))
  }

  member(name: string, value: unknown): void {
    this.members.set(name, value)
  }

  #thread(value: Json): number {
    return this.threads.code(`${text(value.pid) ?? ""} ${text(value.tid) ?? ""}`)
  }

  /** Microseconds after the first event, to the nanosecond also when counted from 1970. */
  #time(value: unknown, source: string): number | undefined {
    const parsed = number(value)
    if (parsed === undefined) return undefined
    this.#base ??= Math.floor(parsed)
    if (Math.abs(parsed) > exactBelow) {
      const match = timestamp.exec(source)
      if (match !== null && match[2] !== undefined && Number(match[1] + match[2]) === parsed) {
        return Number(match[1]) - this.#base + Number(match[2])
      }
    }
    return parsed - this.#base
  }

  #gradient(row: number, args: Json): void {
    const dims = args["Input Dims"] ?? args["Input dims"]
    const first: unknown = Array.isArray(dims) ? dims[0] : undefined
    if (!Array.isArray(first)) return
    const shape: Array<number> = []
    for (const extent of first) {
      if (typeof extent !== "number" || !Number.isInteger(extent) || extent < 0 || extent >= 2 ** 31) return
      shape.push(extent)
    }
    if (shape.reduce((product, extent) => product * extent, 1) > Number.MAX_SAFE_INTEGER) return
    const types = args["Input type"]
    const type: unknown = Array.isArray(types) ? types[0] : undefined
    // An undefined gradient has neither shape nor type; a scalar has a type.
    if (shape.length === 0 && (type === undefined || type === "")) return
    this.gradients.set(row, {
      shape,
      dtype: typeof type === "string" && type !== "" ? dtypeOf(type) : "float32"
    })
  }
}

const hostKind = (category: string, name: unknown): number | undefined => {
  if (opCategories.has(category)) return Host.op
  if (launchCategories.has(category)) return Host.launch
  if (annotationCategories.has(category)) return Host.annotation
  if (pythonCategories.has(category) && typeof name === "string") {
    // Every Python function is in such a trace; only these two kinds of frame mean anything to a model's layers.
    if (name.startsWith(modulePrefix)) return Host.module
    if (backwardFrame.test(name)) return Host.backwardCall
  }
  return undefined
}

const collectiveRecord = (args: Json): CollectiveRecord => ({
  name: text(args["Collective name"]),
  inputElements: number(args["In msg nelems"]),
  outputElements: number(args["Out msg nelems"]),
  dtype: text(args["dtype"]),
  ranks: number(args["Group size"])
})

/** Reads a whole trace, streaming. Throws `TraceError` (truncated or damaged input, events that are not events). */
export const readKineto = async (
  file: string,
  source: ByteSource,
  options: ReadOptions,
  signal?: AbortSignal
): Promise<KinetoTrace> => {
  const collector = new Collector(file)
  const scanner = new JsonEvents(file, collector)
  for await (const chunk of decompressed(file, source)) {
    signal?.throwIfAborted()
    scanner.push(chunk)
  }
  scanner.finish()
  const warnings: Array<string> = []
  if (collector.kernelsWithoutTime > 0) {
    warnings.push(`${collector.kernelsWithoutTime} device events have no ts or dur and were left out`)
  }
  if (unitOf(collector, options.timestampUnit ?? "auto", warnings) === "ns") {
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
  const { names, threads, host, device, gradients, hostCollectives, deviceCollectives, members } = collector
  const properties = members.get("deviceProperties")
  const first: unknown = Array.isArray(properties) ? properties[0] : undefined
  const distributed = members.get("distributedInfo")
  return {
    file,
    names,
    threads,
    host,
    device,
    gradients,
    hostCollectives,
    deviceCollectives,
    links,
    deviceName: isObject(first) ? text(first.name) : undefined,
    worldSize: isObject(distributed) ? number(distributed.world_size) : undefined,
    warnings
  }
}

/**
 * The Chrome format counts in microseconds whatever `displayTimeUnit` says, and so does PyTorch. Some exporters write
 * nanoseconds and say so there; then every time is whole, which microseconds from a GPU's clock never all are.
 */
const unitOf = (collector: Collector, unit: "auto" | "us" | "ns", warnings: Array<string>): "us" | "ns" => {
  if (unit !== "auto") return unit
  if (collector.members.get("displayTimeUnit") !== "ns" || collector.fractions > 0) return "us"
  const { start, end } = collector.device
  const durations = Array.from(
    end.values.subarray(0, end.length),
    (value, i) => value - start.values[i]!
  ).toSorted((a, b) => a - b)
  // A median kernel of 0.5 ms is far longer than any real model's, one of 0.5 microseconds far shorter.
  if ((durations[durations.length >> 1] ?? 0) < 500) return "us"
  warnings.push(
    'displayTimeUnit is "ns" and all device times are whole numbers: read as nanoseconds (the option timestampUnit says otherwise)'
  )
  return "ns"
}

// Events as they stream past, into the columns of a KinetoTrace. Knows which fields an import needs, and nothing of layers.
import { BegunApart } from "./begun-apart.ts"
import { ByteTexts } from "./byte-texts.ts"
import { EventScanner, Field } from "./event-scanner.ts"
import { dtypeOf, gradientShape, inputShapes } from "./shapes.ts"
import {
  Host,
  Numbers,
  type CollectiveRecord,
  type DeviceEvents,
  type GradientShape,
  type HostEvents
} from "./trace.ts"

type Json = Readonly<Record<string, unknown>>

export const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const text = (value: unknown): string | undefined =>
  typeof value === "string" ? value : typeof value === "number" ? String(value) : undefined

/** A number, also when it was written as a text; undefined for anything else. */
export const number = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  if (typeof value === "string" && value.trim() !== "") {
    const parsed = Number(value)
    return Number.isNaN(parsed) ? undefined : parsed
  }
  return undefined
}

// Above this, a float64 of microseconds no longer holds whole nanoseconds.
const exactBelow = 2 ** 42
// Nanoseconds since 1970 are 2e18; anything larger is no time, and sums of it would lose their meaning.
const largestTime = 1e20

/** What a category's events are here; flow arrows and Python frames have numbers of their own beside `Host`'s. */
const Category = { none: -1, device: 10, python: 11, flow: 12 } as const

const categories: ReadonlyMap<string, number> = new Map([
  ["kernel", Category.device],
  ["gpu_memcpy", Category.device],
  ["gpu_memset", Category.device],
  ["memcpy", Category.device],
  ["memset", Category.device],
  ["user_annotation", Host.annotation],
  ["cpu_op", Host.op],
  ["operator", Host.op],
  ["python_function", Category.python],
  ["python function", Category.python],
  ["python_func", Category.python],
  ["fwdbwd", Category.flow]
])

const categoryOf = (name: string): number => {
  const known = categories.get(name.toLowerCase())
  if (known !== undefined) return known
  // cuda_runtime, cuda_driver, hip_runtime, xpu_driver, privateuse1_runtime, and Runtime of the first versions.
  return /(?:^|_)(?:runtime|driver)$/iu.test(name) ? Host.launch : Category.none
}

/** Categories of which nothing is used, and that are no work of a device. */
const beside =
  /^(?:ac2g|async_cpu_to_gpu|trace|overhead|profileroverhead|cpu_instant_event|gpu_user_annotation|cuda_sync|nccl.*|none)$/iu

const uncategorised = "no category (another program, or PyTorch before 1.8.1)"

const oldCategories = new Set(["Operator", "Kernel", "Memcpy", "Memset", "Runtime"])
const modulePrefix = new TextEncoder().encode("nn.Module: ")
const backwardSuffix = new TextEncoder().encode(": backward")
const backwardFrame = /(?:autograd\/__init__|_tensor)\.py\(\d+\): backward$/u
const gradientOp = /^(?:struct )?(?:torch::autograd::)?AccumulateGrad$/u
const commsAnnotation = /^(?:nccl|rccl|gloo|hccl|xccl|ucc|mpi):/u

/** Phases without a duration: instants, counters, flows, metadata, samples, objects, clocks, memory dumps, marks. */
const momentary = /^[iICnstfMPNODRcvV]$/u

const emptyText = new Uint8Array(0)

/** Collects the columns while events stream past. */
export class Collector {
  readonly names = new ByteTexts()
  readonly processes = new ByteTexts()
  readonly processOfThread: Array<number> = []
  readonly host: HostEvents = {
    kind: new Numbers(Uint8Array),
    name: new Numbers(Int32Array),
    start: new Numbers(),
    end: new Numbers(),
    thread: new Numbers(Int32Array),
    sequence: new Numbers(Int32Array),
    correlation: new Numbers(Int32Array),
    externalId: new Numbers(Int32Array)
  }
  readonly device: DeviceEvents = {
    name: new Numbers(Int32Array),
    start: new Numbers(),
    end: new Numbers(),
    device: new Numbers(Int32Array),
    stream: new Numbers(Int32Array),
    process: new Numbers(Int32Array),
    correlation: new Numbers(Int32Array),
    externalId: new Numbers(Int32Array)
  }
  readonly gradients = {
    row: new Numbers(Int32Array),
    shape: new Numbers(Int32Array),
    shapes: [] as Array<GradientShape>,
    shapeless: 0
  }
  readonly functionInputs = new Map<number, ReadonlyArray<string>>()
  readonly hostCollectives = new Map<number, CollectiveRecord>()
  readonly deviceCollectives = new Map<number, CollectiveRecord>()
  readonly flowStarts = new Map<string, { thread: number; start: number }>()
  readonly flowEnds = new Map<string, { thread: number; start: number }>()
  readonly members = new Map<string, unknown>()
  /** Left out; but host events without a dur are taken for moments. */
  kernelsWithoutTime = 0
  hostWithoutTime = 0
  hostWithoutDuration = 0
  /** Events whose begin and end are two (`B` and `E`). */
  readonly begunApart = new BegunApart()
  /** Events of kinds that are read, by a `ph` that is not: how many, and the place of the first. */
  readonly otherPhases = new Map<string, { count: number; readonly first: number }>()
  fractions = 0
  /** Events with a value that is none: how many, and the first. */
  odd = 0
  firstOdd: { readonly field: string; readonly value: string; readonly accepted: string } | undefined
  isOld = false
  /** Categories of events that are not read and may be a device's. */
  readonly unread: Array<string> = []
  readonly #categories = new ByteTexts()
  readonly #kindOfCategory: Array<number> = []
  readonly #kindOfName: Array<number> = []
  readonly #shapeTexts = new ByteTexts()
  /** Shapes of a function's inputs, by their text. */
  readonly #inputsOf = new Map<number, ReadonlyArray<string>>()
  /** Place in `gradients.shapes`, by the texts of an event's shapes and of its dtypes; -1 where they say none. */
  readonly #shapeOf = new Map<number, number>()
  readonly #threadTexts = new ByteTexts()
  readonly #threads = new Map<number, number>()
  #base: number | undefined

  /** What times count from. */
  get base(): number {
    return this.#base ?? 0
  }

  event(index: number, fields: EventScanner): void {
    if (!fields.isText(Field.ph) && !fields.has(Field.ts) && !fields.has(Field.args)) {
      // Metadata may lack anything, but an element that is no object is no event.
      if (fields.starts.every((start) => start < 0)) this.#noteScalar(index, fields)
      return
    }
    const ph = fields.initial(Field.ph)
    if (ph === 0x45) {
      const whole = this.begunApart.end(index, fields, this.#time(fields))
      if (whole !== undefined) this.event(index, whole)
      return
    }
    if (!fields.isText(Field.cat)) {
      if (ph === 0x42) this.begunApart.begin(index, fields, this.#time(fields), false)
      if (fields.has(Field.dur) && !this.unread.includes(uncategorised)) this.unread.push(uncategorised)
      return
    }
    const category = this.#categories.code(
      fields.bytes,
      fields.starts[Field.cat]! + 1,
      fields.ends[Field.cat]! - 1
    )
    let kind = this.#kindOfCategory[category]
    if (kind === undefined) {
      const name = this.#categories.texts[category]!
      this.#kindOfCategory[category] = kind = categoryOf(name)
      if (kind !== Category.none && oldCategories.has(name)) this.isOld = true
      if (kind === Category.none && !beside.test(name)) this.unread.push(name)
    }
    if (ph === 0x42) {
      this.begunApart.begin(index, fields, this.#time(fields), kind !== Category.none)
      return
    }
    if (kind === Category.none) return
    if (kind === Category.flow) {
      if (ph !== 0x73 && ph !== 0x66) return
      const start = this.#time(fields)
      const id = fields.source(Field.id).replaceAll('"', "")
      if (id !== "" && !Number.isNaN(start)) {
        const ends = ph === 0x73 ? this.flowStarts : this.flowEnds
        ends.set(id, { thread: this.#thread(fields), start })
      }
      return
    }
    if (ph !== 0x58) {
      this.#otherPhase(index, fields)
      return
    }
    if (kind === Category.python) {
      kind = pythonKind(fields)
      if (kind === Category.none) return
    }
    const isDevice = kind === Category.device
    if (fields.has(Field.args) && !fields.isObject(Field.args)) {
      this.#note(`traceEvents[${index}].args`, fields.source(Field.args), "an object")
      return
    }
    let start = Number.NaN
    let duration = Number.NaN
    if (fields.has(Field.ts)) {
      const parsed = fields.number(Field.ts)
      if (!(Math.abs(parsed) <= largestTime)) {
        this.#note(`traceEvents[${index}].ts`, fields.source(Field.ts), "a number")
        return
      }
      start = this.#after(parsed, fields)
      if (isDevice && !Number.isInteger(parsed)) this.fractions++
    }
    if (fields.has(Field.dur)) {
      duration = fields.number(Field.dur)
      if (!(duration >= 0 && duration <= largestTime)) {
        this.#note(`traceEvents[${index}].dur`, fields.source(Field.dur), "a duration of at least 0")
        return
      }
      if (isDevice && !Number.isInteger(duration)) this.fractions++
    }
    if (Number.isNaN(start) || (isDevice && Number.isNaN(duration))) {
      if (isDevice) this.kernelsWithoutTime++
      else this.hostWithoutTime++
      return
    }
    if (Number.isNaN(duration)) this.hostWithoutDuration++
    const end = start + (Number.isNaN(duration) ? 0 : duration)
    if (isDevice) this.#addDevice(fields, start, end)
    else this.#addHost(fields, kind, start, end)
  }

  member(name: string, value: unknown): void {
    this.members.set(name, value)
  }

  #addDevice(fields: EventScanner, start: number, end: number): void {
    const { device } = this
    const row = device.start.length
    device.name.push(this.#name(fields, 0))
    device.start.push(start)
    device.end.push(end)
    device.device.pushId(orElse(fields.number(Field.device), orElse(fields.number(Field.pid), 0)))
    device.stream.pushId(orElse(fields.number(Field.stream), orElse(fields.number(Field.tid), -1)))
    device.process.push(textCode(this.processes, fields, Field.pid))
    // Correlation 0 is CUPTI's "none".
    const correlation = orElse(fields.number(Field.correlation), -1)
    device.correlation.pushId(correlation === 0 ? -1 : correlation)
    device.externalId.pushId(orElse(fields.number(Field.externalId), -1))
    if (fields.has(Field.collective)) this.deviceCollectives.set(row, collectiveRecord(argsOf(fields)))
  }

  #addHost(fields: EventScanner, kind: number, start: number, end: number): void {
    const { host } = this
    const row = host.start.length
    const name = this.#name(fields, kind === Host.module ? modulePrefix.length : 0)
    host.kind.push(kind)
    host.name.push(name)
    host.start.push(start)
    host.end.push(end)
    host.thread.push(this.#thread(fields))
    host.sequence.pushId(kind === Host.op ? orElse(fields.number(Field.sequence), -1) : -1)
    host.correlation.pushId(kind === Host.launch ? orElse(fields.number(Field.correlation), -1) : -1)
    host.externalId.pushId(kind === Host.op ? orElse(fields.number(Field.externalId), -1) : -1)
    let special = this.#kindOfName[name]
    if (special === undefined) this.#kindOfName[name] = special = specialName(this.names.texts[name]!)
    if (special === Special.gradient) {
      if (kind === Host.op) this.#gradient(row, fields)
    } else if (special === Special.function) {
      if (kind === Host.op && fields.has(Field.inputDims)) this.#inputs(row, fields)
    } else if (special === Special.comms) this.hostCollectives.set(row, collectiveRecord(argsOf(fields)))
    else if (special === Special.annotation) {
      this.hostCollectives.set(row, annotationRecord(this.names.texts[name]!, argsOf(fields)))
    }
  }

  /** What lasts and is no whole event, or does not say what it is; moments, counters and the like are none of an import's. */
  #otherPhase(index: number, fields: EventScanner): void {
    const ph = fields.has(Field.ph) ? shown(fields.source(Field.ph)) : "missing"
    if (momentary.test(ph)) return
    const before = this.otherPhases.get(ph)
    if (before === undefined) this.otherPhases.set(ph, { count: 1, first: index })
    else before.count++
  }

  #note(field: string, value: string, accepted: string): void {
    this.odd++
    this.firstOdd ??= { field, value: shown(value), accepted }
  }

  #noteScalar(index: number, fields: EventScanner): void {
    const value = fields.scanned()
    if (!value.startsWith("{")) this.#note(`traceEvents[${index}]`, value, "an object")
  }

  #name(fields: EventScanner, skip: number): number {
    const code = textCode(this.names, fields, Field.name, skip)
    return code >= 0 ? code : textCode(this.names, noName, Field.name)
  }

  #thread(fields: EventScanner): number {
    const process = textCode(this.processes, fields, Field.pid)
    const thread = textCode(this.#threadTexts, fields, Field.tid)
    const key = process * 2 ** 24 + thread
    let code = this.#threads.get(key)
    if (code === undefined) {
      this.#threads.set(key, (code = this.#threads.size))
      this.processOfThread.push(process)
    }
    return code
  }

  #time(fields: EventScanner): number {
    return this.#after(fields.number(Field.ts), fields)
  }

  /** Microseconds (or nanoseconds, where times are such) after the first event, to the nanosecond also when counted from 1970. */
  #after(parsed: number, { whole, rest, billions, belowBillion }: EventScanner): number {
    if (Number.isNaN(parsed)) return parsed
    const base = (this.#base ??= Math.floor(parsed))
    if (billions >= 0) return (billions - Math.floor(base / 1e9)) * 1e9 + (belowBillion - (base % 1e9))
    return parsed > exactBelow && rest > 0 ? whole - base + rest : parsed - base
  }

  #inputs(row: number, fields: EventScanner): void {
    const dims = sourceCode(this.#shapeTexts, fields, Field.inputDims)
    let known = this.#inputsOf.get(dims)
    if (known === undefined)
      this.#inputsOf.set(dims, (known = inputShapes(parsedField(fields, Field.inputDims))))
    if (known.length > 0) this.functionInputs.set(row, known)
  }

  /** Texts of shapes and dtypes are looked at once: every step, and most layers, write the same again. */
  #gradient(row: number, fields: EventScanner): void {
    const dims = sourceCode(this.#shapeTexts, fields, Field.inputDims)
    const key = dims * 2 ** 24 + sourceCode(this.#shapeTexts, fields, Field.inputType)
    let known = this.#shapeOf.get(key)
    if (known === undefined) {
      const found = gradientShape(parsedField(fields, Field.inputDims), parsedField(fields, Field.inputType))
      this.#shapeOf.set(key, (known = found === undefined ? -1 : this.gradients.shapes.push(found) - 1))
    }
    if (known < 0) {
      this.gradients.shapeless++
      return
    }
    this.gradients.row.push(row)
    this.gradients.shape.push(known)
  }
}

/** What a field holds, without its quotes, as short as messages have it. */
const shown = (source: string): string => {
  const text = source.replace(/^"(.*)"$/su, "$1").replace(/\s+/gu, " ")
  return text.length > 120 ? `${text.slice(0, 120)}...` : text
}

const orElse = (value: number, other: number): number => (Number.isNaN(value) ? other : value)

const noName = ((): EventScanner => {
  const scanner = new EventScanner()
  scanner.bytes = new TextEncoder().encode('{"name":"(no name)"}')
  scanner.length = scanner.bytes.length
  scanner.event(0)
  return scanner
})()

/** Code of a field's text (a number counts as its digits), less its first `skip` bytes; -1 where there is none. */
const textCode = (texts: ByteTexts, fields: EventScanner, field: number, skip = 0): number => {
  const start = fields.starts[field]!
  if (start < 0) return field === Field.name ? -1 : texts.code(emptyText, 0, 0)
  const quoted = fields.bytes[start] === 0x22
  if (quoted) return texts.code(fields.bytes, start + 1 + skip, fields.ends[field]! - 1)
  if (field === Field.name && Number.isNaN(fields.number(field))) return -1
  return texts.code(fields.bytes, start, fields.ends[field]!)
}

/** Code of a field as it is written. */
const sourceCode = (texts: ByteTexts, fields: EventScanner, field: number): number =>
  fields.has(field)
    ? texts.code(fields.bytes, fields.starts[field]!, fields.ends[field]!)
    : texts.code(emptyText, 0, 0)

/** An autograd function of Python's has a class's name; PyTorch's own ops have a namespace, their nodes an ending. */
const functionName = /^[A-Za-z_]\w*(?<!Backward\d*)$/u

const Special = { none: 0, gradient: 1, comms: 2, annotation: 3, function: 4 } as const

const specialName = (name: string): number => {
  if (gradientOp.test(name)) return Special.gradient
  if (name === "record_param_comms") return Special.comms
  if (commsAnnotation.test(name)) return Special.annotation
  return functionName.test(name) ? Special.function : Special.none
}

const holds = (bytes: Uint8Array, at: number, part: Uint8Array): boolean => {
  for (let i = 0; i < part.length; i++) if (bytes[at + i] !== part[i]) return false
  return true
}

/** Of the many Python frames, only calls of modules and of the backward pass say anything of layers. */
const pythonKind = (fields: EventScanner): number => {
  if (!fields.isText(Field.name)) return Category.none
  const start = fields.starts[Field.name]! + 1
  const end = fields.ends[Field.name]! - 1
  if (end - start >= modulePrefix.length && holds(fields.bytes, start, modulePrefix)) return Host.module
  if (
    end - start < backwardSuffix.length ||
    !holds(fields.bytes, end - backwardSuffix.length, backwardSuffix)
  )
    return Category.none
  return backwardFrame.test(fields.slice(start, end)) ? Host.backwardCall : Category.none
}

/** The arguments of an event as values; what JSON does not know in them is null. */
const argsOf = (fields: EventScanner): Json => {
  const args = parsedField(fields, Field.args)
  return isObject(args) ? args : {}
}

/** A field as a value; what JSON does not know in it is null. Undefined where there is none. */
const parsedField = (fields: EventScanner, field: number): unknown => {
  const source = fields.source(field)
  return source === "" ? undefined : (parsed(source) ?? parsed(withoutIrregular(source)))
}

const parsed = (source: string): unknown => {
  try {
    return JSON.parse(source)
  } catch {
    return undefined
  }
}

const withoutIrregular = (source: string): string =>
  source
    // eslint-disable-next-line no-control-regex
    .replace(/[\u0000-\u001f]/gu, " ")
    .replace(/([:[,]\s*)[-+]?(?:nan(?:\(ind\))?|inf(?:inity)?)(?=\s*[,\]}])/giu, "$1null")

const collectiveRecord = (args: Json): CollectiveRecord => ({
  name: text(args["Collective name"]),
  group: text(args["Process Group Ranks"]) ?? text(args["Process Group Name"]) ?? "",
  inputElements: number(args["In msg nelems"]),
  outputElements: number(args["Out msg nelems"]),
  dtype: text(args.dtype),
  ranks: number(args["Group size"])
})

/** PyTorch up to 2.2: what was put in is the annotation's input, and everybody of the job takes part. */
const annotationRecord = (name: string, args: Json): CollectiveRecord => {
  const dims = args["Input Dims"] ?? args["Input dims"]
  const types = args["Input type"]
  const type: unknown = Array.isArray(types) ? types[0] : undefined
  return {
    name: name.slice(name.indexOf(":") + 1),
    group: "",
    inputElements: Array.isArray(dims) ? elementsOf(dims[0]) : undefined,
    outputElements: undefined,
    dtype: typeof type === "string" ? dtypeOf(type) : undefined,
    ranks: undefined
  }
}

/** Elements of a shape, or of a list of shapes. */
const elementsOf = (dims: unknown): number | undefined => {
  if (!Array.isArray(dims) || dims.length === 0) return undefined
  if (dims.every(Array.isArray)) {
    const each = dims.map(elementsOf)
    return each.every((elements) => elements !== undefined) ? each.reduce((a, b) => a + b, 0) : undefined
  }
  return dims.every((extent) => typeof extent === "number" && Number.isInteger(extent) && extent >= 0)
    ? (dims as ReadonlyArray<number>).reduce((product, extent) => product * extent, 1)
    : undefined
}

// A Profile as one Arrow file: one long table whose `section` says what a row is, facts about the run in the schema's
// metadata. docs/formats.md describes it column by column. Knows nothing of importers or of how costs are used.
import { elementsOf } from "../core/machine/tensor.ts"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import type { MeasuredHost } from "../core/cost/host.ts"
import {
  timedCollectives,
  type CollectiveCost,
  type LayerCost,
  type OpCost,
  type PhaseCost,
  type Profile,
  type ProfiledParameter
} from "../core/profile.ts"
import {
  column,
  type Batch,
  type Column,
  type ColumnData,
  type Format,
  type ListColumn,
  type Metadata,
  type TextColumn
} from "./column-format.ts"
import { decodeColumns } from "./column-reader.ts"
import { encodeColumns, writeColumnFile } from "./column-writer.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

/** The columns of a profile (docs/formats.md). */
export const profileFormat: Format = {
  name: "profile",
  version: 1,
  columns: [
    column("section", "text", "what the row is: layer, parameter, op or collective"),
    column("index", "int32", "position within its section, from 0; the three phases of a layer share one"),
    column("name", "text", "layer name, op name or collective name; null for a parameter", true),
    column("phase", "text", "layer rows: forward, backward or optimizer", true),
    column("busy_seconds", "float64", "layer rows: union of kernel time per step, s", true),
    column(
      "span_seconds",
      "float64",
      "layer rows: busy time and the gaps after it, s; all spans add up to the step",
      true
    ),
    column(
      "layer",
      "int32",
      "parameter rows: index of the layer whose backward makes the gradient ready",
      true
    ),
    column("shape", "int32-list", "parameter rows: extents; empty otherwise and for a scalar"),
    column("elements", "float64", "parameter rows: product of the extents", true),
    column("dtype", "text", "parameter rows, and op rows where known: float32, bfloat16, ...", true),
    column(
      "attributes",
      "text",
      'JSON object of numbers; op rows: {"m":1,"k":768}; layer rows, where known: {"eager":12,"once":12}, launches of the host; collective rows, where measured: {"beside_seconds":0.0012}, s, of those that begin beside kernels',
      true
    ),
    column("ranks", "int32", "collective rows: ranks that took part", true),
    column("size_bytes", "float64", "collective rows: one rank's input (reduce_scatter: output), B", true),
    column("link", "text", "collective rows: how the links were limited", true),
    column("median_seconds", "float64", "op and collective rows: s", true)
  ]
}

const phases = ["forward", "backward", "optimizer"] as const

/** One growing column of each name; `push` fills what a row does not mention with "no value". */
class Rows {
  readonly #file: string
  readonly #format: Format
  readonly #columns: ReadonlyArray<Array<number>>
  readonly #dictionaries: ReadonlyArray<Map<string, number>>
  readonly #lists: ReadonlyArray<Array<number>>
  #rows = 0

  constructor(file: string, format: Format) {
    this.#file = file
    this.#format = format
    this.#columns = format.columns.map((known) => (known.kind === "int32-list" ? [0] : []))
    this.#dictionaries = format.columns.map(() => new Map())
    this.#lists = format.columns.map(() => [])
  }

  push(row: Readonly<Record<string, string | number | ReadonlyArray<number>>>): void {
    for (const [index, known] of this.#format.columns.entries()) {
      const value = row[known.name]
      const column = this.#columns[index]!
      if (known.kind === "int32-list") {
        const list = this.#lists[index]!
        if (Array.isArray(value))
          for (const item of value as ReadonlyArray<number>) list.push(this.#int(known, item))
        column.push(list.length)
      } else if (known.kind === "text") {
        if (typeof value !== "string") column.push(-1)
        else {
          const dictionary = this.#dictionaries[index]!
          let code = dictionary.get(value)
          if (code === undefined) dictionary.set(value, (code = dictionary.size))
          column.push(code)
        }
      } else if (known.kind === "int32") column.push(typeof value === "number" ? this.#int(known, value) : -1)
      else column.push(typeof value === "number" ? this.#float(known, value) : Number.NaN)
    }
    this.#rows++
  }

  // The marks for "no value" must not pass for values: -1 and NaN are refused here.
  #int(known: Column, value: number): number {
    if (Number.isInteger(value) && value >= 0 && value < 2 ** 31) return value
    throw this.#bad(known, value, "a whole number from 0 to 2147483647")
  }

  #float(known: Column, value: number): number {
    if (value >= 0 && value < Infinity) return value
    throw this.#bad(known, value, "a finite number of at least 0")
  }

  #bad(known: Column, value: number, accepted: string): TraceError {
    const field = `column ${known.name}, row ${this.#rows}`
    return new TraceError({ file: this.#file, field, value: showValue(value), accepted })
  }

  batch(): Batch {
    const columns = this.#format.columns.map((known, index): ColumnData => {
      const numbers = this.#columns[index]!
      if (known.kind === "float64") return Float64Array.from(numbers)
      if (known.kind === "int32") return Int32Array.from(numbers)
      if (known.kind === "text") {
        return { codes: Int32Array.from(numbers), dictionary: [...this.#dictionaries[index]!.keys()] }
      }
      return { offsets: Int32Array.from(numbers), values: Int32Array.from(this.#lists[index]!) }
    })
    return { rows: this.#rows, columns }
  }
}

const batchOf = (file: string, profile: Profile): Batch => {
  const rows = new Rows(file, profileFormat)
  for (const [index, layer] of profile.layers.entries()) {
    for (const phase of phases) {
      const { busySeconds, spanSeconds, launches } = layer[phase]
      const times = { busy_seconds: busySeconds, span_seconds: spanSeconds }
      const counts = launches === undefined ? {} : { attributes: JSON.stringify(launches) }
      rows.push({ section: "layer", index, name: layer.name, phase, ...times, ...counts })
    }
  }
  for (const [index, { layer, shape, dtype }] of profile.parameters.entries()) {
    rows.push({ section: "parameter", index, layer, shape, elements: elementsOf(shape), dtype })
  }
  for (const [index, { op, attributes, medianSeconds, dtype }] of profile.ops.entries()) {
    const json = JSON.stringify(attributes)
    const known = dtype === undefined ? {} : { dtype }
    rows.push({ section: "op", index, name: op, attributes: json, median_seconds: medianSeconds, ...known })
  }
  for (const [index, cost] of profile.collectives.entries()) {
    const { op, ranks, sizeBytes, link, medianSeconds, besideSeconds } = cost
    const sizes = { ranks, size_bytes: sizeBytes, link, median_seconds: medianSeconds }
    const beside =
      besideSeconds === undefined ? {} : { attributes: JSON.stringify({ beside_seconds: besideSeconds }) }
    rows.push({ section: "collective", index, name: op, ...sizes, ...beside })
  }
  return rows.batch()
}

const launchModes = ["eager", "compiled", "graph"] as const
const hostParts = ["launch", "collective", "hook", "read", "replay"] as const

const hostMetadata = (host: MeasuredHost | undefined): Metadata => {
  if (host === undefined) return {}
  const metadata: Record<string, string> = { host_mode: host.mode }
  for (const part of hostParts) {
    const seconds = host[`${part}Seconds`]
    if (seconds !== undefined) metadata[`host_${part}_seconds`] = String(seconds)
  }
  const { launchesPerRead, waitsForCopies } = host
  if (launchesPerRead !== undefined) metadata["host_launches_per_read"] = String(launchesPerRead)
  if (waitsForCopies !== undefined) metadata["host_waits_for_copies"] = String(waitsForCopies)
  return metadata
}

const metadataOf = (profile: Profile): Metadata => ({
  name: profile.name,
  device: profile.device,
  source: profile.source,
  ...((profile.notes ?? []).length === 0 ? {} : { notes: JSON.stringify(profile.notes) }),
  steps: String(profile.steps),
  step_seconds: String(profile.stepSeconds),
  ...(profile.unprofiledStepSeconds === undefined
    ? {}
    : { unprofiled_step_seconds: String(profile.unprofiledStepSeconds) }),
  ...(profile.recordingSeconds === undefined ? {} : { recording_seconds: String(profile.recordingSeconds) }),
  ...hostMetadata(profile.host),
  device_busy_seconds: String(profile.deviceBusySeconds),
  unattributed_share: String(profile.unattributedShare)
})

/** Writes `profile` to `path`, whole or not at all. Errors: values no profile may hold (NaN, negative times), the disk. */
export const writeProfile = (path: string, profile: Profile): Effect.Effect<void, TraceError> =>
  Effect.gen(function* () {
    const batch = yield* attempt(path, "a profile", () => checked(path, profile))
    yield* writeColumnFile(path, profileFormat, metadataOf(profile), (write) => write(batch))
  })

/** The bytes of the file `writeProfile` writes. Throws `TraceError`. */
export const encodeProfile = (file: string, profile: Profile): Uint8Array =>
  encodeColumns(file, profileFormat, metadataOf(profile), [checked(file, profile)])

/** What the reader would refuse, refused before writing. */
const checked = (file: string, profile: Profile): Batch => {
  const facts = readMetadata(file, new Map(Object.entries(metadataOf(profile))))
  const batch = batchOf(file, profile)
  parse(file, facts, [batch])
  return batch
}

/** Reads a profile. Errors: a missing, truncated or foreign file; a missing column; a value out of range; with its place. */
export const readProfile = (path: string): Effect.Effect<Profile, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a profile (.arrow)", () => readFile(path)),
    (bytes) => attempt(path, "a profile (.arrow)", () => decodeProfile(path, bytes))
  )

/** As `readProfile`, at once: for what runs without waiting. */
export const readProfileSync = (path: string): Effect.Effect<Profile, TraceError> =>
  Effect.flatMap(
    attempt(path, "the path of a profile (.arrow)", () => readFileSync(path)),
    (bytes) => attempt(path, "a profile (.arrow)", () => decodeProfile(path, bytes))
  )

/** A profile from the bytes of its file; `file` is for messages. Throws `TraceError`, and only that. */
export const decodeProfile = (file: string, bytes: Uint8Array): Profile => {
  const { metadata, batches } = decodeColumns(file, profileFormat, bytes)
  return parse(file, readMetadata(file, metadata), batches)
}

/** Undefined where it is no JSON list of texts. */
const listIn = (json: string): ReadonlyArray<string> | undefined => {
  try {
    const value: unknown = JSON.parse(json)
    return Array.isArray(value) && value.every((one) => typeof one === "string") ? value : undefined
  } catch {
    return undefined
  }
}

type Facts = Omit<Profile, "layers" | "parameters" | "ops" | "collectives">

const readMetadata = (file: string, metadata: ReadonlyMap<string, string>): Facts => {
  const bad = (key: string, value: unknown, accepted: string): TraceError =>
    new TraceError({ file, field: `metadata ${key}`, value: showValue(value), accepted })
  const text = (key: string): string => {
    const value = metadata.get(key)
    if (value === undefined) throw bad(key, value, "a text")
    return value
  }
  const texts = (key: string): ReadonlyArray<string> => {
    const found = listIn(text(key))
    if (found === undefined) throw bad(key, text(key), "a JSON list of texts")
    return found
  }
  const number = (key: string, max: number, whole: boolean): number => {
    const value = metadata.get(key)
    const parsed = value === undefined || value.trim() === "" ? Number.NaN : Number(value)
    if (!(parsed >= 0 && parsed <= max) || (whole && !Number.isInteger(parsed))) {
      const kind = whole ? "a whole number" : "a number"
      throw bad(key, value, max === 1 ? `${kind} from 0 to 1` : `${kind} of at least 0`)
    }
    return parsed
  }
  const host = (): MeasuredHost | undefined => {
    const said = metadata.get("host_mode")
    if (said === undefined) return undefined
    const mode = launchModes.find((each) => each === said)
    if (mode === undefined) throw bad("host_mode", said, launchModes.join(", "))
    const measured: Record<string, number> = {}
    for (const part of hostParts)
      if (metadata.has(`host_${part}_seconds`))
        measured[`${part}Seconds`] = number(`host_${part}_seconds`, Number.MAX_VALUE, false)
    if (metadata.has("host_launches_per_read"))
      measured["launchesPerRead"] = number("host_launches_per_read", Number.MAX_SAFE_INTEGER, false)
    const waits = metadata.get("host_waits_for_copies")
    if (waits !== undefined && waits !== "true" && waits !== "false")
      throw bad("host_waits_for_copies", waits, "true or false")
    return { mode, ...measured, ...(waits === undefined ? {} : { waitsForCopies: waits === "true" }) }
  }
  const measured = host()
  return {
    ...(measured === undefined ? {} : { host: measured }),
    name: text("name"),
    device: text("device"),
    source: text("source"),
    ...(metadata.has("notes") ? { notes: texts("notes") } : {}),
    steps: number("steps", Number.MAX_SAFE_INTEGER, true),
    stepSeconds: number("step_seconds", Number.MAX_VALUE, false),
    unprofiledStepSeconds: metadata.has("unprofiled_step_seconds")
      ? number("unprofiled_step_seconds", Number.MAX_VALUE, false)
      : undefined,
    ...(metadata.has("recording_seconds")
      ? { recordingSeconds: number("recording_seconds", Number.MAX_VALUE, false) }
      : {}),
    deviceBusySeconds: number("device_busy_seconds", Number.MAX_VALUE, false),
    unattributedShare: number("unattributed_share", 1, false)
  }
}

/** Looks at one row of a batch by column name. */
class Row {
  readonly #file: string
  readonly #batch: Batch
  readonly #first: number
  row = 0
  constructor(file: string, batch: Batch, first: number) {
    this.#file = file
    this.#batch = batch
    this.#first = first
  }
  bad(name: string, value: unknown, accepted: string): TraceError {
    const field = `column ${name}, row ${this.#first + this.row}`
    return new TraceError({ file: this.#file, field, value: showValue(value), accepted })
  }
  #column(name: string): ColumnData {
    return this.#batch.columns[profileFormat.columns.findIndex((known) => known.name === name)]!
  }
  text(name: string): string {
    const { codes, dictionary } = this.#column(name) as TextColumn
    const value = dictionary[codes[this.row]!]
    if (value === undefined) throw this.bad(name, "null", "a text")
    return value
  }
  /** Undefined for null. */
  optionalText(name: string): string | undefined {
    const { codes } = this.#column(name) as TextColumn
    return codes[this.row] === -1 ? undefined : this.text(name)
  }
  oneOf<const A extends string>(name: string, accepted: ReadonlyArray<A>): A {
    const value = this.text(name)
    const found = accepted.find((known) => known === value)
    if (found === undefined) throw this.bad(name, value, accepted.join(", "))
    return found
  }
  number(name: string): number {
    const value = (this.#column(name) as Float64Array)[this.row]!
    if (Number.isNaN(value)) throw this.bad(name, "null", "a number")
    return value
  }
  int(name: string): number {
    const value = (this.#column(name) as Int32Array)[this.row]!
    if (value === -1) throw this.bad(name, "null", "a whole number")
    return value
  }
  list(name: string): ReadonlyArray<number> {
    const { offsets, values } = this.#column(name) as ListColumn
    return Array.from(values.subarray(offsets[this.row]!, offsets[this.row + 1]!))
  }
}

const parseAttributes = (row: Row): Readonly<Record<string, number>> => {
  const text = row.text("attributes")
  const bad = row.bad("attributes", text, 'a JSON object of numbers such as {"m":1,"k":768}')
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw bad
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw bad
  const attributes: Record<string, number> = {}
  for (const [key, value] of Object.entries(parsed)) {
    if (typeof value !== "number") throw bad
    // Defined rather than assigned: a key may be "__proto__".
    Object.defineProperty(attributes, key, { value, enumerable: true, configurable: true, writable: true })
  }
  return attributes
}

/** What the host launches for a layer's phase, where the file says it. */
const parseLaunches = (row: Row): Pick<PhaseCost, "launches"> => {
  const text = row.optionalText("attributes")
  if (text === undefined) return {}
  const { eager, once } = parseAttributes(row)
  if (eager === undefined || once === undefined || !(eager >= 0) || !(once >= 0))
    throw row.bad("attributes", text, 'launches of a layer, {"eager":12,"once":12}')
  return { launches: { eager, once } }
}

/** What a collective takes beside kernels, where the file says it. */
const parseBeside = (row: Row): Pick<CollectiveCost, "besideSeconds"> => {
  const text = row.optionalText("attributes")
  if (text === undefined) return {}
  const { beside_seconds: besideSeconds } = parseAttributes(row)
  if (besideSeconds === undefined || !(besideSeconds >= 0) || besideSeconds === Infinity)
    throw row.bad("attributes", text, 'what a collective takes beside kernels, {"beside_seconds":0.0012}')
  return { besideSeconds }
}

const parse = (file: string, facts: Facts, batches: ReadonlyArray<Batch>): Profile => {
  const layers: Array<{ name: string } & Partial<Record<(typeof phases)[number], PhaseCost>>> = []
  const parameters: Array<ProfiledParameter> = []
  const ops: Array<OpCost> = []
  const collectives: Array<CollectiveCost> = []
  let first = 0
  for (const batch of batches) {
    const row = new Row(file, batch, first)
    const next = (section: ReadonlyArray<unknown>): void => {
      const index = row.int("index")
      if (index !== section.length)
        throw row.bad("index", index, `${section.length}: rows of a section come in order`)
    }
    for (row.row = 0; row.row < batch.rows; row.row++) {
      const section = row.oneOf("section", ["layer", "parameter", "op", "collective"])
      if (section === "layer") {
        const index = row.int("index")
        const name = row.text("name")
        const phase = row.oneOf("phase", phases)
        if (index === layers.length) layers.push({ name })
        const layer = layers[index]
        if (layer === undefined)
          throw row.bad("index", index, `at most ${layers.length}: layers come in order`)
        if (layer.name !== name)
          throw row.bad("name", name, `${JSON.stringify(layer.name)}, as in the layer's other rows`)
        if (layer[phase] !== undefined) throw row.bad("phase", phase, "one row per layer and phase")
        layer[phase] = {
          busySeconds: row.number("busy_seconds"),
          spanSeconds: row.number("span_seconds"),
          ...parseLaunches(row)
        }
      } else if (section === "parameter") {
        next(parameters)
        const shape = row.list("shape")
        const elements = row.number("elements")
        if (elements !== elementsOf(shape))
          throw row.bad("elements", elements, `${elementsOf(shape)}, the product of shape`)
        parameters.push({ layer: row.int("layer"), shape, dtype: row.text("dtype") })
      } else if (section === "op") {
        next(ops)
        const medianSeconds = row.number("median_seconds")
        const dtype = row.optionalText("dtype")
        ops.push({
          op: row.text("name"),
          attributes: parseAttributes(row),
          medianSeconds,
          ...(dtype === undefined ? {} : { dtype })
        })
      } else {
        next(collectives)
        collectives.push({
          op: row.oneOf("name", timedCollectives),
          ranks: row.int("ranks"),
          sizeBytes: row.number("size_bytes"),
          medianSeconds: row.number("median_seconds"),
          link: row.text("link"),
          ...parseBeside(row)
        })
      }
    }
    first += batch.rows
  }
  const complete = layers.map((layer, index): LayerCost => {
    const { name, forward, backward, optimizer } = layer
    if (forward !== undefined && backward !== undefined && optimizer !== undefined) {
      return { name, forward, backward, optimizer }
    }
    const missing = phases.filter((phase) => layer[phase] === undefined).join(", ")
    const field = `layer ${index} (${name})`
    throw new TraceError({
      file,
      field,
      value: `without ${missing}`,
      accepted: "a row for each of forward, backward, optimizer"
    })
  })
  for (const [index, { layer }] of parameters.entries()) {
    if (layer < complete.length) continue
    const accepted = complete.length === 0 ? "no parameters without layers" : `0 to ${complete.length - 1}`
    throw new TraceError({ file, field: `layer of parameter ${index}`, value: String(layer), accepted })
  }
  return { ...facts, layers: complete, parameters, ops, collectives }
}

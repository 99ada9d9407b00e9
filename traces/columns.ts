// Arrow IPC files of plain columns: int32, float64, text by dictionary, lists of int32. One description of a format
// serves writer, reader and checks. Knows nothing of what the columns mean.
import {
  DataType,
  Dictionary,
  Field,
  Float64,
  Int32,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  RecordBatchReader,
  Schema,
  Struct,
  Utf8,
  Vector,
  vectorFromArray,
  type Data
} from "apache-arrow"
import * as Effect from "effect/Effect"
import { open } from "node:fs/promises"
import { writeFileAtomically, type FileSink } from "./atomic-file.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

export interface Column {
  readonly name: string
  readonly kind: "int32" | "float64" | "text" | "int32-list"
  /** A nullable column writes null for: -1 (int32), NaN (float64), code -1 (text). Other columns refuse these. */
  readonly nullable: boolean
  /** Smallest value accepted in an int32 or float64 column; -Infinity for no bound. */
  readonly min: number
  /** Unit and meaning, kept in the file beside the column. */
  readonly description: string
}

/** A column; a number's smallest value is 0 unless said otherwise. */
export const column = (
  name: string,
  kind: Column["kind"],
  description: string,
  nullable = false,
  min = 0
): Column => ({
  name,
  kind,
  nullable,
  min: kind === "text" ? -Infinity : min,
  description
})

export interface Format {
  /** Stored as `tandem.format`; a reader refuses other formats. */
  readonly name: string
  /** Stored as `tandem.version`; a reader refuses other versions. */
  readonly version: number
  readonly columns: ReadonlyArray<Column>
}

/** Codes into a dictionary; -1 is no value. Over the batches of one file a dictionary may grow at its end, never change. */
export interface TextColumn {
  readonly codes: Int32Array
  readonly dictionary: ReadonlyArray<string>
}

/** Row i holds `values[offsets[i] .. offsets[i + 1]]`. */
export interface ListColumn {
  readonly offsets: Int32Array
  readonly values: Int32Array
}

export type ColumnData = Int32Array | Float64Array | TextColumn | ListColumn

/** Rows as columns, in the order of `Format.columns`. */
export interface Batch {
  readonly rows: number
  readonly columns: ReadonlyArray<ColumnData>
}

export type Metadata = Readonly<Record<string, string>>

/** Rows a writer puts into one record batch when it has the choice. */
export const batchRows = 65_536

const typeOf = (column: Column, id: number): DataType => {
  switch (column.kind) {
    case "int32":
      return new Int32()
    case "float64":
      return new Float64()
    case "text":
      // A fixed id: the file writer finds the dictionary of every batch under it.
      return new Dictionary(new Utf8(), new Int32(), id)
    case "int32-list":
      return new List(new Field("item", new Int32(), false))
  }
}

const schemaOf = (format: Format, metadata: Metadata): Schema =>
  new Schema(
    format.columns.map(
      (column, index) =>
        new Field(
          column.name,
          typeOf(column, index),
          column.nullable,
          new Map([["description", column.description]])
        )
    ),
    new Map([
      ["tandem.format", format.name],
      ["tandem.version", String(format.version)],
      ...Object.entries(metadata)
    ])
  )

/** Arrow's bit per row, set where there is a value; undefined when every row has one. */
const validity = (rows: number, isNull: (row: number) => boolean): { bits: Uint8Array; nulls: number } => {
  const bits = new Uint8Array((rows + 7) >> 3)
  let nulls = 0
  for (let row = 0; row < rows; row++) {
    if (isNull(row)) nulls++
    else bits[row >> 3]! |= 1 << (row & 7)
  }
  return { bits, nulls }
}

/** Bytes that would make `file` a legal column, checked before anything is written: a writer refuses what a reader would. */
const checkColumn = (file: string, column: Column, data: ColumnData, rows: number): void => {
  const bad = (row: number, value: unknown, accepted: string): TraceError =>
    new TraceError({ file, field: `column ${column.name}, row ${row}`, value: showValue(value), accepted })
  const number = column.kind === "int32" ? "a whole number" : "a finite number"
  const atLeast = column.min === -Infinity ? number : `${number} of at least ${column.min}`
  if (column.kind === "int32" && data instanceof Int32Array) {
    for (let row = 0; row < rows; row++) {
      const value = data[row]!
      if (value >= column.min || (column.nullable && value === -1)) continue
      throw bad(row, value, atLeast)
    }
  } else if (column.kind === "float64" && data instanceof Float64Array) {
    for (let row = 0; row < rows; row++) {
      const value = data[row]!
      if (Number.isFinite(value) && value >= column.min) continue
      if (column.nullable && Number.isNaN(value)) continue
      throw bad(row, value, atLeast)
    }
  } else if (column.kind === "text" && "codes" in data) {
    for (let row = 0; row < rows; row++) {
      const code = data.codes[row]!
      if (code >= 0 ? code < data.dictionary.length : column.nullable && code === -1) continue
      throw bad(
        row,
        code === -1 ? "null" : `code ${code}`,
        `a text (${data.dictionary.length} in the dictionary)`
      )
    }
  } else if (column.kind === "int32-list" && "offsets" in data) {
    for (let row = 0; row < rows; row++) {
      const from = data.offsets[row]!
      const to = data.offsets[row + 1]!
      if (!(from >= 0 && to >= from && to <= data.values.length)) {
        throw bad(row, `offsets ${from}..${to}`, `offsets that rise, up to ${data.values.length}`)
      }
      for (let i = from; i < to; i++) {
        if (data.values[i]! < column.min) throw bad(row, data.values[i], atLeast)
      }
    }
  } else {
    throw new RangeError(`column ${column.name} was given data of another kind than ${column.kind}`)
  }
}

/** Turns batches into the bytes of one Arrow file, handing every piece on at once: memory is one batch. */
class ColumnFileWriter extends RecordBatchFileWriter {
  readonly #sink: FileSink
  constructor(sink: FileSink) {
    super({ autoDestroy: true })
    this.#sink = sink
  }
  // The library's queue would hold the whole file; `_position` must keep counting, the footer points by it.
  protected override _write(chunk: Parameters<RecordBatchFileWriter["_write"]>[0]): this {
    // oxlint-disable-next-line no-underscore-dangle
    if (this._started) {
      const bytes = bytesOf(chunk)
      if (bytes.byteLength > 0) {
        this.#sink.write(bytes)
        // oxlint-disable-next-line no-underscore-dangle
        this._position += bytes.byteLength
      }
    }
    return this
  }
}

const bytesOf = (chunk: unknown): Uint8Array => {
  if (chunk instanceof Uint8Array) return chunk
  if (ArrayBuffer.isView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
  throw new RangeError("the Arrow writer produced something that is not bytes")
}

/** Encodes batch after batch; dictionaries grow by delta batches, so their earlier codes stay valid. */
class BatchEncoder {
  readonly #file: string
  readonly #format: Format
  readonly #schema: Schema
  readonly #writer: ColumnFileWriter
  readonly #dictionaries = new Map<number, { written: number; vector: Vector }>()
  #any = false

  constructor(file: string, format: Format, metadata: Metadata, sink: FileSink) {
    this.#file = file
    this.#format = format
    this.#schema = schemaOf(format, metadata)
    this.#writer = new ColumnFileWriter(sink)
  }

  write(batch: Batch): void {
    const children = this.#format.columns.map((column, index) => {
      const data = batch.columns[index]
      if (data === undefined) throw new RangeError(`a batch lacks column ${column.name}`)
      checkColumn(this.#file, column, data, batch.rows)
      return this.#data(column, index, data, batch.rows)
    })
    const struct = makeData({
      type: new Struct(this.#schema.fields),
      length: batch.rows,
      nullCount: 0,
      children
    })
    this.#writer.write(new RecordBatch(this.#schema, struct))
    this.#any = true
  }

  finish(): void {
    if (!this.#any) {
      // An empty file still needs its schema: a batch of no rows carries it.
      const empty = this.#format.columns.map((column): ColumnData => {
        if (column.kind === "int32") return new Int32Array(0)
        if (column.kind === "float64") return new Float64Array(0)
        if (column.kind === "text") return { codes: new Int32Array(0), dictionary: [] }
        return { offsets: new Int32Array(1), values: new Int32Array(0) }
      })
      this.write({ rows: 0, columns: empty })
    }
    this.#writer.finish()
  }

  #data(column: Column, index: number, data: ColumnData, rows: number): Data {
    const type = this.#schema.fields[index]!.type
    const nullable = (isNull: (row: number) => boolean) => {
      if (!column.nullable) return { nullCount: 0 }
      const { bits, nulls } = validity(rows, isNull)
      return nulls === 0 ? { nullCount: 0 } : { nullCount: nulls, nullBitmap: bits }
    }
    if (data instanceof Int32Array) {
      const values = data.subarray(0, rows)
      return makeData({
        type: type as Int32,
        length: rows,
        data: values,
        ...nullable((row) => values[row] === -1)
      })
    }
    if (data instanceof Float64Array) {
      const values = data.subarray(0, rows)
      const isNull = (row: number) => Number.isNaN(values[row])
      return makeData({ type: type as Float64, length: rows, data: values, ...nullable(isNull) })
    }
    if ("codes" in data) {
      const codes = data.codes.subarray(0, rows)
      const dictionary = this.#dictionary(index, data.dictionary)
      const nulls = nullable((row) => codes[row] === -1)
      // Some readers look at codes behind a null; 0 is always inside a dictionary that is not empty.
      const safe = nulls.nullCount === 0 ? codes : codes.map((code) => Math.max(code, 0))
      return makeData({
        type: type as Dictionary<Utf8, Int32>,
        length: rows,
        data: safe,
        dictionary,
        ...nulls
      })
    }
    const from = data.offsets[0] ?? 0
    const to = data.offsets[rows] ?? from
    const values = data.values.subarray(from, to)
    const child = makeData({ type: new Int32(), length: values.length, nullCount: 0, data: values })
    const valueOffsets = data.offsets.subarray(0, rows + 1).map((offset) => offset - from)
    return makeData({ type: type as List<Int32>, length: rows, nullCount: 0, valueOffsets, child })
  }

  #dictionary(index: number, words: ReadonlyArray<string>): Vector<Utf8> {
    const known = this.#dictionaries.get(index)
    if (known !== undefined && known.written === words.length) return known.vector as Vector<Utf8>
    const fresh = vectorFromArray(words.slice(known?.written ?? 0), new Utf8())
    const vector = known === undefined || known.written === 0 ? fresh : known.vector.concat(fresh)
    this.#dictionaries.set(index, { written: words.length, vector })
    return vector as Vector<Utf8>
  }
}

/**
 * Writes one Arrow IPC file (uncompressed). `body` calls `write` once per batch, in order; nothing appears at `path`
 * unless it succeeds. Errors: `TraceError` for values the format refuses and for a disk that does.
 */
export const writeColumnFile = <A, E, R>(
  path: string,
  format: Format,
  metadata: Metadata,
  body: (write: (batch: Batch) => Effect.Effect<void, TraceError>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TraceError, R> =>
  writeFileAtomically(path, (sink) =>
    Effect.gen(function* () {
      const encoder = new BatchEncoder(path, format, metadata, sink)
      const accepted = `rows of the ${format.name} format`
      const result = yield* body((batch) => attempt(path, accepted, () => encoder.write(batch)))
      yield* attempt(path, accepted, () => encoder.finish())
      return result
    })
  )

/** The bytes `writeColumnFile` would write, for tests and for sending elsewhere. Throws `TraceError`. */
export const encodeColumns = (
  file: string,
  format: Format,
  metadata: Metadata,
  batches: Iterable<Batch>
): Uint8Array => {
  const chunks: Array<Uint8Array> = []
  let length = 0
  const encoder = new BatchEncoder(file, format, metadata, {
    write: (chunk) => {
      const bytes = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk.slice()
      chunks.push(bytes)
      length += bytes.length
    }
  })
  for (const batch of batches) encoder.write(batch)
  encoder.finish()
  const all = new Uint8Array(length)
  let offset = 0
  for (const chunk of chunks) {
    all.set(chunk, offset)
    offset += chunk.length
  }
  return all
}

const arrowFile = "an uncompressed Arrow IPC file written by tandem (or with the same columns)"

/** Checks that a schema is that of `format` and gives, per column, its position in the file. */
const matchSchema = (file: string, format: Format, schema: Schema): ReadonlyArray<number> => {
  const name = schema.metadata.get("tandem.format")
  if (name !== format.name) {
    const field = "metadata tandem.format"
    throw new TraceError({ file, field, value: showValue(name), accepted: JSON.stringify(format.name) })
  }
  const version = schema.metadata.get("tandem.version")
  if (version !== String(format.version)) {
    const accepted = `version ${format.version}: this file was written by another version of tandem`
    throw new TraceError({ file, field: "metadata tandem.version", value: showValue(version), accepted })
  }
  return format.columns.map((column) => {
    const position = schema.fields.findIndex((field) => field.name === column.name)
    const field = schema.fields[position]
    if (field === undefined) {
      const present = schema.fields.map((known) => known.name).join(", ")
      const accepted = `a ${column.kind} column of this name (the file has ${present})`
      throw new TraceError({ file, field: `column ${column.name}`, value: "missing", accepted })
    }
    if (!isKind(column, field.type)) {
      const value = String(field.type)
      throw new TraceError({ file, field: `column ${column.name}`, value, accepted: column.kind })
    }
    return position
  })
}

const isKind = (column: Column, type: DataType): boolean => {
  switch (column.kind) {
    case "int32":
      return DataType.isInt(type) && type.bitWidth === 32 && type.isSigned
    case "float64":
      return DataType.isFloat(type) && type.precision === 2
    case "text":
      // Other writers may have unpacked the dictionary.
      return DataType.isUtf8(type) || (DataType.isDictionary(type) && DataType.isUtf8(type.dictionary))
    case "int32-list":
      return (
        DataType.isList(type) &&
        DataType.isInt(type.children[0]!.type) &&
        type.children[0]!.type.bitWidth === 32
      )
  }
}

/** Copies out of Arrow, so that a batch outlives the buffer it was read into, and nulls become this module's marks. */
const decodeColumn = (file: string, column: Column, vector: Vector | null, rows: number): ColumnData => {
  const broken = (value: string): TraceError =>
    new TraceError({ file, field: `column ${column.name}`, value, accepted: arrowFile })
  if (vector === null || vector.length !== rows) throw broken(`${vector?.length ?? 0} of ${rows} rows`)
  const nulls = vector.nullCount > 0
  if (nulls && !column.nullable) {
    for (let row = 0; row < rows; row++) {
      if (vector.isValid(row)) continue
      throw new TraceError({
        file,
        field: `column ${column.name}, row ${row}`,
        value: "null",
        accepted: "a value"
      })
    }
  }
  if (column.kind === "int32" || column.kind === "float64") {
    const values = column.kind === "int32" ? new Int32Array(rows) : new Float64Array(rows)
    const absent = column.kind === "int32" ? -1 : Number.NaN
    let row = 0
    for (const data of vector.data) {
      const source: unknown = data.values
      const typed = source instanceof Int32Array || source instanceof Float64Array
      if (!typed || source.length < data.length) throw broken("cut short")
      values.set(source.subarray(0, data.length), row)
      row += data.length
    }
    if (nulls) for (let i = 0; i < rows; i++) if (!vector.isValid(i)) values[i] = absent
    return values
  }
  if (column.kind === "text") {
    const codes = new Int32Array(rows)
    const index = new Map<string, number>()
    const dictionary: Array<string> = []
    for (let row = 0; row < rows; row++) {
      const word: unknown = vector.isValid(row) ? vector.get(row) : null
      if (word === null && column.nullable) {
        codes[row] = -1
        continue
      }
      if (typeof word !== "string") throw broken(`row ${row} outside its dictionary`)
      let code = index.get(word)
      if (code === undefined) {
        code = dictionary.length
        index.set(word, code)
        dictionary.push(word)
      }
      codes[row] = code
    }
    return { codes, dictionary }
  }
  const offsets = new Int32Array(rows + 1)
  const values: Array<number> = []
  for (let row = 0; row < rows; row++) {
    const list: unknown = vector.get(row)
    if (!(list instanceof Vector)) throw broken(`row ${row} is not a list`)
    for (const value of list) {
      if (typeof value !== "number") throw broken(`row ${row} holds ${showValue(value)}`)
      values.push(value)
    }
    offsets[row + 1] = values.length
  }
  return { offsets, values: Int32Array.from(values) }
}

const decodeBatch = (
  file: string,
  format: Format,
  positions: ReadonlyArray<number>,
  batch: RecordBatch
): Batch => {
  const rows = batch.numRows
  const columns = format.columns.map((column, index) =>
    decodeColumn(file, column, batch.getChildAt(positions[index]!), rows)
  )
  for (const [index, column] of format.columns.entries()) checkColumn(file, column, columns[index]!, rows)
  return { rows, columns }
}

const magic = "ARROW1"

const checkMagic = (file: string, head: Uint8Array, tail: Uint8Array): void => {
  const text = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes)
  if (text(head) !== magic) {
    throw new TraceError({
      file,
      field: "content",
      value: `not an Arrow file (begins ${showValue(text(head))})`,
      accepted: arrowFile
    })
  }
  if (text(tail) !== magic) {
    throw new TraceError({ file, field: "content", value: "an Arrow file cut short", accepted: arrowFile })
  }
}

/** All batches of a file in memory. Throws `TraceError`, and only that. */
export const decodeColumns = (
  file: string,
  format: Format,
  bytes: Uint8Array
): { readonly metadata: ReadonlyMap<string, string>; readonly batches: ReadonlyArray<Batch> } => {
  checkMagic(file, bytes.subarray(0, magic.length), bytes.subarray(Math.max(0, bytes.length - magic.length)))
  try {
    const reader = RecordBatchReader.from(bytes)
    reader.open()
    const positions = matchSchema(file, format, reader.schema)
    const metadata = new Map(reader.schema.metadata)
    const batches: Array<Batch> = []
    for (const batch of reader) batches.push(decodeBatch(file, format, positions, batch))
    return { metadata, batches }
  } catch (cause) {
    if (cause instanceof TraceError) throw cause
    throw new TraceError({
      file,
      field: "content",
      value: `damaged (${showValue(cause)})`,
      accepted: arrowFile
    })
  }
}

/**
 * Reads a file batch by batch and folds over them: one batch in memory at a time. `step` may throw `TraceError` for
 * what only it can judge. Errors: `TraceError`, and only that.
 */
export const foldColumnFile = <A>(
  path: string,
  format: Format,
  initial: (metadata: ReadonlyMap<string, string>) => A,
  step: (state: A, batch: Batch) => A
): Effect.Effect<A, TraceError> =>
  attemptAsync(path, arrowFile, async (signal) => {
    const handle = await open(path, "r")
    try {
      const { size } = await handle.stat()
      const head = new Uint8Array(magic.length)
      const tail = new Uint8Array(magic.length)
      await handle.read(head, 0, head.length, 0)
      await handle.read(tail, 0, tail.length, Math.max(0, size - tail.length))
      checkMagic(path, head, tail)
      const reader = await RecordBatchReader.from(handle)
      await reader.open()
      const positions = matchSchema(path, format, reader.schema)
      let state = initial(new Map(reader.schema.metadata))
      for await (const batch of reader) {
        signal.throwIfAborted()
        state = step(state, decodeBatch(path, format, positions, batch))
      }
      return state
    } finally {
      await handle.close().catch(() => undefined)
    }
  })

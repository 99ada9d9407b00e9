// Writes files of columns as Arrow IPC (the file format, uncompressed), one record batch at a time.
import {
  DataType,
  Dictionary,
  Field,
  Float32,
  Float64,
  Int32,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  Utf8,
  Vector,
  vectorFromArray,
  type Data
} from "apache-arrow"
import * as Effect from "effect/Effect"
import { writeFileAtomically, type FileSink } from "./atomic-file.ts"
import {
  checkColumn,
  type Batch,
  type Column,
  type ColumnData,
  type Format,
  type Metadata
} from "./column-format.ts"
import { checkKey, Checking, noDigest } from "./file-check.ts"
import { attempt, type TraceError } from "./trace-error.ts"

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
    case "float32-list":
      return new List(new Field("item", new Float32(), false))
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

/** Turns batches into the bytes of one Arrow file, handing every piece on at once: memory is one batch. */
class ColumnFileWriter extends RecordBatchFileWriter {
  readonly #sink: FileSink
  readonly #checking = new Checking()
  /** The pieces of the file's end, whose schema has the digest of all bytes; the one at its beginning cannot. */
  #end: Array<Uint8Array> | undefined
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
        if (this.#end !== undefined) this.#end.push(bytes.slice())
        else {
          this.#checking.update(bytes)
          this.#sink.write(bytes)
        }
        // oxlint-disable-next-line no-underscore-dangle
        this._position += bytes.byteLength
      }
    }
    return this
  }
  protected override _writeFooter(schema: Schema): this {
    this.#end = []
    const metadata = new Map([...schema.metadata, [checkKey, noDigest]])
    // oxlint-disable-next-line no-underscore-dangle
    super._writeFooter(new Schema(schema.fields, metadata, schema.dictionaries, schema.metadataVersion))
    this.#sink.write(this.#checking.last(Buffer.concat(this.#end)))
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
        const values = column.kind === "int32-list" ? new Int32Array(0) : new Float32Array(0)
        return { offsets: new Int32Array(1), values } as ColumnData
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
    const filled = { length: values.length, nullCount: 0 }
    const child: Data =
      values instanceof Int32Array
        ? makeData({ type: new Int32(), ...filled, data: values })
        : makeData({ type: new Float32(), ...filled, data: values })
    const valueOffsets = data.offsets.subarray(0, rows + 1).map((offset) => offset - from)
    return makeData({ type: type as List, length: rows, nullCount: 0, valueOffsets, child })
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

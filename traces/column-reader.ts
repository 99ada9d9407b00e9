// Reads files of columns from Arrow IPC (the file format), whole or one record batch at a time. Whatever the bytes are,
// the answer is columns that fit their format or a `TraceError`.
import { DataType, RecordBatchReader, Vector, type RecordBatch, type Schema } from "apache-arrow"
import type * as Effect from "effect/Effect"
import { open } from "node:fs/promises"
import { checkColumn, type Batch, type Column, type ColumnData, type Format } from "./column-format.ts"
import { attemptAsync, showValue, TraceError } from "./trace-error.ts"

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

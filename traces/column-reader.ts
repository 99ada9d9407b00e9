// Reads files of columns from Arrow IPC (the file format), whole or one record batch at a time. Whatever the bytes are,
// the answer is columns that fit their format or a `TraceError`.
import {
  DataType,
  RecordBatchReader,
  type Data,
  type RecordBatch,
  type Schema,
  type Vector
} from "apache-arrow"
import type * as Effect from "effect/Effect"
import { open } from "node:fs/promises"
import { arrowFile, checkArrowFile, checkArrowHandle } from "./arrow-check.ts"
import {
  checkColumn,
  type Batch,
  type Column,
  type ColumnData,
  type Format,
  type TextColumn
} from "./column-format.ts"
import { checkBytes, checkHandle, checkKey } from "./file-check.ts"
import { attemptAsync, showValue, TraceError } from "./trace-error.ts"

/** A key or value left out of a file comes as null, whatever the library's types say. */
const metadataOf = (schema: Schema): ReadonlyMap<string, string> =>
  new Map(
    [...schema.metadata].filter(
      ([key, value]) => typeof key === "string" && typeof value === "string" && key !== checkKey
    )
  )

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
      return (
        DataType.isUtf8(type) ||
        (DataType.isDictionary(type) && DataType.isUtf8(type.dictionary) && type.indices.bitWidth <= 32)
      )
    case "int32-list":
      return (
        DataType.isList(type) &&
        DataType.isInt(type.children[0]!.type) &&
        type.children[0]!.type.bitWidth === 32
      )
    case "float32-list":
      return (
        DataType.isList(type) &&
        DataType.isFloat(type.children[0]!.type) &&
        type.children[0]!.type.precision === 1
      )
  }
}

/** Copies out of Arrow, so that a batch outlives the buffer it was read into, and nulls become the marks for "no value". */
const decodeColumn = (file: string, column: Column, vector: Vector | null, rows: number): ColumnData => {
  const broken = (value: string): TraceError =>
    new TraceError({ file, field: `column ${column.name}`, value, accepted: arrowFile })
  const [data] = vector?.data ?? []
  // A column of a record batch is one piece.
  if (vector === null || data === undefined || vector.data.length !== 1 || data.length !== rows) {
    throw broken(`${vector?.length ?? 0} values for ${rows} rows`)
  }
  const isNull = nullsOf(data, rows)
  if (isNull !== undefined && !column.nullable) {
    for (let row = 0; row < rows; row++) {
      if (!isNull(row)) continue
      throw new TraceError({
        file,
        field: `column ${column.name}, row ${row}`,
        value: "null",
        accepted: "a value"
      })
    }
  }
  switch (column.kind) {
    case "int32":
    case "float64": {
      const source: unknown = data.values
      const typed = source instanceof Int32Array || source instanceof Float64Array
      if (!typed || source.length < rows) throw broken("cut short")
      const values = column.kind === "int32" ? new Int32Array(rows) : new Float64Array(rows)
      values.set(source.subarray(0, rows))
      if (isNull !== undefined) {
        const absent = column.kind === "int32" ? -1 : Number.NaN
        for (let row = 0; row < rows; row++) if (isNull(row)) values[row] = absent
      }
      return values
    }
    case "text":
      return data.dictionary === undefined
        ? plainText(vector, isNull, broken)
        : dictionaryText(data, isNull, broken)
    case "int32-list":
    case "float32-list": {
      const child: Data | undefined = data.children[0]
      const offsets: unknown = data.valueOffsets
      const source: unknown = child?.values
      if (!(offsets instanceof Int32Array) || offsets.length < rows + 1) throw broken("cut short")
      const lists = source instanceof Int32Array || source instanceof Float32Array
      if (!lists || child === undefined || child.nullCount > 0) throw broken("lists with nulls")
      const rowOffsets = offsets.slice(0, rows + 1)
      return source instanceof Int32Array
        ? { offsets: rowOffsets, values: source.slice(0, child.length) }
        : { offsets: rowOffsets, values: source.slice(0, child.length) }
    }
  }
}

/** Which rows have no value; undefined when all have one. */
const nullsOf = (data: Data, rows: number): ((row: number) => boolean) | undefined => {
  const bits: unknown = data.nullBitmap
  // Without nulls Arrow may leave the bitmap out.
  if (!(bits instanceof Uint8Array) || bits.length * 8 < rows || data.nullCount === 0) return undefined
  return (row) => (bits[row >> 3]! & (1 << (row & 7))) === 0
}

type Broken = (value: string) => TraceError
type IsNull = ((row: number) => boolean) | undefined

const dictionaryText = (data: Data, isNull: IsNull, broken: Broken): TextColumn => {
  const source: unknown = data.values
  const small =
    source instanceof Int32Array ||
    source instanceof Int16Array ||
    source instanceof Int8Array ||
    source instanceof Uint32Array ||
    source instanceof Uint16Array ||
    source instanceof Uint8Array
  if (!small || source.length < data.length) throw broken("cut short")
  const dictionary: Array<string> = []
  for (const word of data.dictionary ?? []) {
    if (typeof word !== "string") throw broken("a dictionary with nulls")
    dictionary.push(word)
  }
  const codes = Int32Array.from(source.subarray(0, data.length))
  for (let row = 0; row < codes.length; row++) {
    if (isNull?.(row) === true) codes[row] = -1
    // checkColumn takes -1 for "no value"; a damaged code must not pass for that.
    else if (!(codes[row]! >= 0 && codes[row]! < dictionary.length))
      throw broken(`row ${row} outside its dictionary`)
  }
  return { codes, dictionary }
}

/** Text whose dictionary another writer unpacked. */
const plainText = (vector: Vector, isNull: IsNull, broken: Broken): TextColumn => {
  const codes = new Int32Array(vector.length)
  const known = new Map<string, number>()
  for (let row = 0; row < codes.length; row++) {
    const word: unknown = isNull?.(row) === true ? null : vector.get(row)
    if (word === null) {
      codes[row] = -1
      continue
    }
    if (typeof word !== "string") throw broken(`row ${row} is not a text`)
    let code = known.get(word)
    if (code === undefined) known.set(word, (code = known.size))
    codes[row] = code
  }
  return { codes, dictionary: [...known.keys()] }
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

/** All batches of a file in memory. Throws `TraceError`, and only that. */
export const decodeColumns = (
  file: string,
  format: Format,
  bytes: Uint8Array
): { readonly metadata: ReadonlyMap<string, string>; readonly batches: ReadonlyArray<Batch> } => {
  const check = checkArrowFile(file, bytes.length)
  for (let next = check.next(); next.done !== true;) {
    const { offset, length } = next.value
    next = check.next(bytes.subarray(offset, offset + length))
  }
  try {
    const reader = RecordBatchReader.from(bytes)
    reader.open()
    const positions = matchSchema(file, format, reader.schema)
    checkBytes(file, bytes, reader.schema.metadata.get(checkKey))
    const metadata = metadataOf(reader.schema)
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
      await checkArrowHandle(path, handle)
      const reader = await RecordBatchReader.from(handle)
      await reader.open()
      const positions = matchSchema(path, format, reader.schema)
      await checkHandle(path, handle, reader.schema.metadata.get(checkKey), signal)
      let state = initial(metadataOf(reader.schema))
      for await (const batch of reader) {
        signal.throwIfAborted()
        state = step(state, decodeBatch(path, format, positions, batch))
      }
      return state
    } finally {
      await handle.close().catch(() => undefined)
    }
  })

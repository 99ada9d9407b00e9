// What a file of plain columns looks like: int32, float64, text by dictionary, lists of int32 or float32. One description of a
// format serves writer, reader and checks. Knows nothing of Arrow nor of what the columns mean.
import { showValue, TraceError } from "./trace-error.ts"

export interface Column {
  readonly name: string
  readonly kind: "int32" | "float64" | "text" | "int32-list" | "float32-list"
  /** A nullable column writes null for: -1 (int32), NaN (float64), code -1 (text). Other columns refuse these. */
  readonly nullable: boolean
  /** Smallest number accepted, in lists too; -Infinity for no bound. */
  readonly min: number
  /** Whether numbers of a list must be finite, default true: what a run computed may be anything. */
  readonly finite?: boolean
  /** Unit and meaning, kept in the file beside the column. */
  readonly description: string
}

/** A column; a number's smallest value is 0 unless said otherwise. */
export const column = (
  name: string,
  kind: Column["kind"],
  description: string,
  nullable = false,
  min = 0,
  finite = true
): Column => ({
  name,
  kind,
  nullable,
  min: kind === "text" ? -Infinity : min,
  finite,
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
export interface ListColumn<Values extends Int32Array | Float32Array = Int32Array> {
  readonly offsets: Int32Array
  readonly values: Values
}

export type ColumnData = Int32Array | Float64Array | TextColumn | ListColumn | ListColumn<Float32Array>

/** What a column of these lists is called. */
const listKind = ({ values }: ListColumn | ListColumn<Float32Array>): Column["kind"] =>
  values instanceof Int32Array ? "int32-list" : "float32-list"

/** Rows as columns, in the order of `Format.columns`. */
export interface Batch {
  readonly rows: number
  readonly columns: ReadonlyArray<ColumnData>
}

export type Metadata = Readonly<Record<string, string>>

/** Rows a writer puts into one record batch when it has the choice. */
export const batchRows = 65_536

/** Throws `TraceError` at the first value the column does not take; writers refuse what readers would. */
export const checkColumn = (file: string, column: Column, data: ColumnData, rows: number): void => {
  const bad = (row: number, value: unknown, accepted: string): TraceError =>
    new TraceError({ file, field: `column ${column.name}, row ${row}`, value: showValue(value), accepted })
  const number = column.kind.startsWith("int32") ? "a whole number" : "a finite number"
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
  } else if ("offsets" in data && column.kind === listKind(data)) {
    for (let row = 0; row < rows; row++) {
      const from = data.offsets[row]!
      const to = data.offsets[row + 1]!
      if (!(from >= 0 && to >= from && to <= data.values.length)) {
        throw bad(row, `offsets ${from}..${to}`, `offsets that rise, up to ${data.values.length}`)
      }
      for (let i = from; i < to; i++) {
        const value = data.values[i]!
        if (column.finite !== false && !(Number.isFinite(value) && value >= column.min))
          throw bad(row, value, atLeast)
      }
    }
  } else {
    throw new RangeError(`column ${column.name} was given data of another kind than ${column.kind}`)
  }
}

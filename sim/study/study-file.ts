// Studies on disk: study.arrow (and a shard's, which is the same with fewer points) and study.csv. Every file appears
// whole or not at all.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { writeFileAtomically } from "../../traces/atomic-file.ts"
import {
  foldColumnFile,
  writeColumnFile,
  type Batch,
  type Column,
  type ColumnData,
  type Format
} from "../../traces/columns.ts"
import { attempt, type TraceError } from "../../traces/trace-error.ts"
import type { Problem } from "../../scenarios/file/check.ts"
import { csvOf } from "../csv.ts"
import { studyColumns, type StudyColumn } from "./columns.ts"
import type { StudyHeader, StudyResult, StudyRow } from "./result.ts"
import { reasonOf } from "../../scenarios/file/source.ts"
import { whyNotHeader, whyNotRow } from "./saved.ts"

const formatName = "study"
const formatVersion = 1
const headerKey = "tandem.study"

/** The column that holds a row's every field, from which a study is read back. */
const rowColumn: Column = {
  name: "row",
  kind: "text",
  nullable: false,
  min: Number.NEGATIVE_INFINITY,
  description: "the whole row as JSON, fields as sim study --json gives them"
}

const columnOf = ({ name, kind, description }: StudyColumn): Column => ({
  name,
  kind,
  nullable: true,
  min: Number.NEGATIVE_INFINITY,
  description
})

/** Writes rows, all of a study's or some, as one uncompressed Arrow file. */
export const writeStudyArrow = (
  path: string,
  { header, rows }: StudyResult
): Effect.Effect<void, TraceError> => {
  const columns = studyColumns(header, rows)
  const format: Format = {
    name: formatName,
    version: formatVersion,
    columns: [...columns.map(columnOf), rowColumn]
  }
  const batch: Batch = {
    rows: rows.length,
    columns: [
      ...columns.map((column) => dataOf(column, rows)),
      textData(rows.map((row) => JSON.stringify(row)))
    ]
  }
  return writeColumnFile(path, format, { [headerKey]: JSON.stringify(header) }, (write) => write(batch))
}

const dataOf = ({ kind, of }: StudyColumn, rows: ReadonlyArray<StudyRow>): ColumnData => {
  const values = rows.map(of)
  if (kind === "int32") return Int32Array.from(values, (value) => (typeof value === "number" ? value : -1))
  if (kind === "float64") {
    return Float64Array.from(values, (value) => (typeof value === "number" ? value : Number.NaN))
  }
  return textData(values.map((value) => (value === null ? null : String(value))))
}

const textData = (values: ReadonlyArray<string | null>): ColumnData => {
  const codes = new Map<string, number>()
  return {
    codes: Int32Array.from(values, (value) => {
      if (value === null) return -1
      const code = codes.get(value) ?? codes.size
      codes.set(value, code)
      return code
    }),
    dictionary: [...codes.keys()]
  }
}

/** Reads what `writeStudyArrow` wrote. */
export const readStudyArrow = (path: string): Effect.Effect<StudyResult, TraceError | InputError> =>
  Effect.gen(function* () {
    const format: Format = { name: formatName, version: formatVersion, columns: [rowColumn] }
    const read = yield* foldColumnFile(
      path,
      format,
      (metadata): { readonly header: string | undefined; readonly rows: Array<string> } => ({
        header: metadata.get(headerKey),
        rows: []
      }),
      (state, batch) => {
        const data = batch.columns[0]
        if (data !== undefined && "codes" in data)
          for (let i = 0; i < batch.rows; i++) state.rows.push(data.dictionary[data.codes[i]!]!)
        return state
      }
    )
    const broken = (
      field: string,
      value: string | undefined,
      accepted = "a study file as sim study writes it"
    ) => new InputError({ file: path, field, ...(value === undefined ? {} : { value }), accepted })
    const parsed = <A>(
      field: string,
      text: string | undefined,
      whyNot: (value: unknown) => ReadonlyArray<Problem>
    ) =>
      Effect.suspend(() => {
        let value: unknown
        try {
          value = JSON.parse(text ?? "null")
        } catch (cause) {
          return Effect.fail(broken(field, reasonOf(cause)))
        }
        const [wrong] = whyNot(value)
        return wrong === undefined
          ? Effect.succeed(value as A)
          : Effect.fail(broken([field, ...wrong.path].join("."), wrong.value, wrong.accepted))
      })
    const header = yield* parsed<StudyHeader>(`metadata ${headerKey}`, read.header, whyNotHeader)
    const rows = yield* Effect.forEach(read.rows, (text, index) =>
      parsed<StudyRow>(`column ${rowColumn.name}, row ${index}`, text, (row) => whyNotRow(row, header))
    )
    return { header, rows }
  })

export const studyCsv = ({ header, rows }: StudyResult): string => {
  const columns = studyColumns(header, rows)
  return csvOf([columns.map(({ name }) => name), ...rows.map((row) => columns.map(({ of }) => of(row)))])
}

export const writeStudyCsv = (path: string, study: StudyResult): Effect.Effect<void, TraceError> =>
  writeFileAtomically(path, (sink) =>
    attempt(path, "a path in a writable folder with free space", () => sink.write(studyCsv(study)))
  )

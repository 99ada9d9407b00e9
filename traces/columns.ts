// Files of plain columns, in one place for those who define a format of their own: description, writer, reader.
export {
  batchRows,
  column,
  type Batch,
  type Column,
  type ColumnData,
  type Format,
  type ListColumn,
  type Metadata,
  type TextColumn
} from "./column-format.ts"
export { decodeColumns, foldColumnFile } from "./column-reader.ts"
export { encodeColumns, writeColumnFile } from "./column-writer.ts"

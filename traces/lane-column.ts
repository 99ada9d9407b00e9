// Lanes as a column of names. Knows nothing of the files it stands in.
import { laneNames } from "../core/machine/lane.ts"
import type { TextColumn } from "./column-format.ts"
import { showValue, TraceError } from "./trace-error.ts"

/** Dictionary of a lane column: code = lane. */
export const lanes: ReadonlyArray<string> = laneNames

/** The lanes a column read from a file names, row by row; `first` is the file's row of the column's first. */
export const decodeLanes = (file: string, column: TextColumn, first: number): Uint8Array => {
  const codes = column.dictionary.map((name) => lanes.indexOf(name))
  return Uint8Array.from(column.codes, (code, row) => {
    const lane = codes[code] ?? -1
    if (lane >= 0) return lane
    const value = showValue(column.dictionary[code])
    throw new TraceError({
      file,
      field: `column lane, row ${first + row}`,
      value,
      accepted: lanes.join(", ")
    })
  })
}

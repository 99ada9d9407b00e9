// Aligned columns of text.

/** Columns are padded to their widest cell; numbers and their units look best on the right, names on the left. */
export const alignColumns = (
  rows: ReadonlyArray<ReadonlyArray<string>>,
  right: (column: number) => boolean = (column) => column > 0,
  gap = 2
): ReadonlyArray<string> => {
  const widths: Array<number> = []
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows.map((row) =>
    row
      .map((cell, i) => (right(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join(" ".repeat(gap))
      .trimEnd()
  )
}

/** Lines under a title, set off from what comes before; nothing where there are none. */
export const section = (title: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length === 0 ? [] : ["", title, ...lines.map((line) => `  ${line}`)]

// Tables of text and numbers as CSV, for people and spreadsheets. Knows nothing of what is in them.

/** What a cell holds; null and undefined: nothing. */
type Cell = string | number | null | undefined

/** RFC 4180: CRLF line ends, quotes around fields that need them, doubled inside. No cell is a formula. */
export const csvOf = (lines: ReadonlyArray<ReadonlyArray<Cell>>): string =>
  lines.map((line) => `${line.map((cell) => quoted(textOf(cell))).join(",")}\r\n`).join("")

const textOf = (cell: Cell): string => (typeof cell === "string" ? plainText(cell) : String(cell ?? ""))

/** Spreadsheets compute cells that begin so; an apostrophe in front makes them text. Numbers with a sign are left. */
const plainText = (text: string): string =>
  /^[=+\-@\t\r]/u.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text

const quoted = (text: string): string => (/[",\r\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

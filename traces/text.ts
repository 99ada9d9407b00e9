// Text as people's programs write it: UTF-8 or UTF-16, with or without a byte order mark, lines ended in any way, cells apart
// by commas, semicolons, tabs or bars, numbers with a point or a comma. Every reader of text takes it from here.
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs"
import { isZip, unpacked } from "./packed.ts"
import { showValue, TraceError } from "./trace-error.ts"

/** One line of a file: its number from 1, as editors count, and its cells without the spaces around them. */
export interface Line {
  readonly number: number
  readonly cells: ReadonlyArray<string>
}

/** The most characters that an engine holds in one text, and bytes that it reads at once. */
const longestText = 2 ** 29 - 25
const largestFile = 2 ** 31 - 1

const tooLarge = (file: string, bytes: number): TraceError =>
  new TraceError({
    file,
    field: "content",
    value: `${(bytes / 1e6).toFixed(0)} MB of text`,
    accepted: `at most ${(longestText / 1e6).toFixed(0)} MB: a part of it, such as its first million lines`
  })

/** A text's encoding: by its mark, or by the zero bytes that every other character of plain text has in UTF-16. */
export const encodingOf = (bytes: Uint8Array): "utf-8" | "utf-16le" | "utf-16be" => {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le"
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be"
  const looked = Math.min(bytes.length & ~1, 64)
  let even = 0
  let odd = 0
  for (let i = 0; i < looked; i++) {
    if (bytes[i] !== 0) continue
    if (i % 2 === 0) even++
    else odd++
  }
  const half = looked / 2
  if (looked >= 8 && odd === half && even === 0) return "utf-16le"
  return looked >= 8 && even === half && odd === 0 ? "utf-16be" : "utf-8"
}

/** Bytes as text. Throws `TraceError` on what is no text: an archive, or more zero bytes than a broken log has. */
export const decodeText = (file: string, bytes: Uint8Array): string => {
  if (isZip(bytes)) {
    const accepted = "what is in it, unpacked, or compressed by gzip or zstd"
    throw new TraceError({ file, field: "content", value: "a zip archive", accepted })
  }
  if (bytes.length > longestText) throw tooLarge(file, bytes.length)
  const encoding = encodingOf(bytes)
  if (encoding === "utf-8") {
    const head = bytes.subarray(0, 4096)
    if (head.filter((byte) => byte === 0).length > head.length / 16) {
      const accepted = "text in UTF-8 or UTF-16"
      throw new TraceError({ file, field: "content", value: "binary (zero bytes)", accepted })
    }
  }
  return new TextDecoder(encoding).decode(bytes)
}

/** All bytes of a file. A pipe or a device says no size, and may never end. Throws `TraceError` where they are more than a text has. */
const bytesOf = (file: string): Uint8Array => {
  const stat = statSync(file)
  if (stat.size > largestFile) throw tooLarge(file, stat.size)
  if (stat.isFile() || stat.isDirectory()) return readFileSync(file)
  const descriptor = openSync(file, "r")
  try {
    const parts: Array<Uint8Array> = []
    for (let bytes = 0; bytes <= longestText;) {
      const part = Buffer.alloc(2 ** 20)
      const read = readSync(descriptor, part)
      if (read === 0) return Buffer.concat(parts)
      parts.push(part.subarray(0, read))
      bytes += read
    }
    throw tooLarge(file, longestText)
  } finally {
    closeSync(descriptor)
  }
}

/** The text of a file, gzip- or zstd-compressed or not. Throws `TraceError`, or what the system says of a file that cannot be read. */
export const readText = (file: string): string => decodeText(file, unpacked(file, bytesOf(file)))

/** Lines of a text, however they end. */
export const textLines = (text: string): ReadonlyArray<string> =>
  text.replace(/^\uFEFF/u, "").split(/\r\n?|\n/u)

const logFields = ["log", "message", "msg", "line", "MESSAGE"]

const logLine = (line: string): string | undefined => {
  if (!line.startsWith("{")) return undefined
  try {
    const entry = JSON.parse(line) as Readonly<Record<string, unknown>>
    const said = logFields.map((field) => entry[field]).find((each) => typeof each === "string")
    return typeof said === "string" ? said.replace(/\r?\n$/u, "") : undefined
  } catch {
    return undefined
  }
}

/** A text as its program wrote it, where a container's runtime or a journal keeps each line as an object of JSON; else as it is. */
export const loggedText = (text: string): string => {
  const lines = textLines(text).filter((line) => line.trim() !== "")
  if (lines[0] === undefined || logLine(lines[0]) === undefined) return text
  return lines.map((line) => logLine(line) ?? line).join("\n")
}

/** Commas first: where a header has the awaited columns by several, all but one cut nothing. */
const separators = [",", ";", "\t", "|"] as const

/** The first line's cells, by each separator that cuts it and the one after it into as many; none of a text that is no table. */
export const firstCells = (text: string): ReadonlyArray<ReadonlyArray<string>> => {
  const [first = "", second] = textLines(text.slice(0, 1 << 16)).filter((line) => line.trim() !== "")
  const cut = (line: string, separator: string): ReadonlyArray<string> =>
    line.includes('"') ? (quotedLine(line, 0, separator)?.cells ?? []) : line.split(separator)
  return separators
    .map((separator) => [cut(first, separator), second && cut(second, separator)] as const)
    .flatMap(([head, after = head]) => (head.length > 1 && after.length === head.length ? [head] : []))
}

/**
 * The lines of a table, the header first: quotes as in RFC 4180, blank lines and comments before the header skipped. Cells are
 * apart by what cuts the header into columns that `knows` finds what it needs in; by what cuts it most where nothing does. Where
 * cells are not apart by commas, and the numbers of the table leave one reading of a comma in them, the decimal comma, it is
 * made a point; where they leave two, numbers stay as they are (`commaHint` says why such a number is refused).
 */
export const tableLines = (
  file: string,
  text: string,
  knows: (names: ReadonlyArray<string>) => boolean
): ReadonlyArray<Line> => [...eachTableLine(file, text, knows)]

/** The same one after another: a large table need not be held as lines. */
export const eachTableLine = (
  file: string,
  text: string,
  knows: (names: ReadonlyArray<string>) => boolean
): Iterable<Line> => {
  let begin = text.charCodeAt(0) === 0xfeff ? 1 : 0
  let number = 1
  let head = headLine(text, begin)
  // What a spreadsheet puts before the header, and comments.
  let said: string | undefined
  for (;;) {
    const line = text.slice(begin, head.end).trim()
    said = /^"?sep=(.)"?$/u.exec(line)?.[1] ?? said
    const isBeside =
      line === "" || /^"?sep=.?"?$/u.test(line) || (line.startsWith("#") && !cutsKnown(line, knows))
    if (!isBeside || head.next >= text.length) break
    begin = head.next
    number++
    head = headLine(text, begin)
  }
  const line = text.slice(begin, head.end)
  const cut = (separator: string) => [...linesOf(file, line, 0, number, separator)][0]?.cells ?? []
  const separator =
    separators.find((each) => isSafelyCut(line) && knows(cut(each))) ??
    said ??
    separators.reduce((most, each) => (line.split(each).length > line.split(most).length ? each : most), ",")
  if (separator === ",") return linesOf(file, text, begin, number, separator)
  const lines = [...linesOf(file, text, begin, number, separator)]
  return hasDecimalCommas(lines) ? lines.map(withPoints) : lines
}

const headLine = (text: string, from: number): { readonly end: number; readonly next: number } => {
  const match = /\r\n?|\n/gu
  match.lastIndex = from
  const found = match.exec(text)
  return found === null
    ? { end: text.length, next: text.length }
    : { end: found.index, next: found.index + found[0].length }
}

/** Whether every quote of a line closes in it: a header that spans lines is cut as the whole text is. */
const isSafelyCut = (line: string): boolean => (line.match(/"/gu)?.length ?? 0) % 2 === 0

const cutsKnown = (line: string, knows: (names: ReadonlyArray<string>) => boolean): boolean =>
  separators.some((separator) => knows(line.split(separator).map((cell) => cell.trim())))

/** A cell of the line that Markdown has under a header. */
const rule = /^(?::?-+:?)?$/u

const linesOf = function* (
  file: string,
  text: string,
  begin: number,
  firstNumber: number,
  separator: string
): Iterable<Line> {
  let number = firstNumber
  let at = begin
  const isBlank = (cells: ReadonlyArray<string>): boolean =>
    (cells.length === 1 && cells[0] === "") || (separator === "|" && cells.every((cell) => rule.test(cell)))
  while (at < text.length) {
    const { end, next } = headLine(text, at)
    const line = text.slice(at, end)
    const first = number++
    if (!line.includes('"')) {
      const cells = line.split(separator).map((cell) => cell.trim())
      if (!isBlank(cells)) yield { number: first, cells }
      at = next
      continue
    }
    const quoted = quotedLine(text, at, separator)
    if (quoted === undefined) {
      const accepted = "a closing quote"
      throw new TraceError({ file, field: `line ${first}`, value: "a quote that never closes", accepted })
    }
    if (!isBlank(quoted.cells)) yield { number: first, cells: quoted.cells }
    number += quoted.breaks
    at = quoted.next
  }
}

/** The cells of a line with quotes, in which lines may break; undefined where a quote never closes. */
const quotedLine = (text: string, from: number, separator: string) => {
  const cells: Array<string> = []
  let cell = ""
  let quoted = false
  let breaks = 0
  let i = from
  for (; i < text.length; i++) {
    const char = text[i]!
    if (quoted) {
      if (char === "\n" || (char === "\r" && text[i + 1] !== "\n")) breaks++
      if (char !== '"') cell += char
      else if (text[i + 1] === '"') {
        cell += '"'
        i++
      } else quoted = false
    } else if (char === '"' && cell.trim() === "") {
      quoted = true
      cell = ""
    } else if (char === separator) {
      cells.push(cell.trim())
      cell = ""
    } else if (char === "\n" || char === "\r") {
      if (char === "\r" && text[i + 1] === "\n") i++
      i++
      break
    } else cell += char
  }
  cells.push(cell.trim())
  return quoted ? undefined : { cells, next: i, breaks }
}

const withComma = /^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$/u
/** What may be thousands in groups, or a fraction of three digits. */
const eitherWay = /^[+-]?[1-9]\d{0,2},\d{3}$/u
const withPoint = /^[+-]?\d*\.\d+(?:[eE][+-]?\d+)?$/u
const grouped = /^[+-]?\d{1,3}(?:,\d{3}){2,}(?:\.\d+)?$|^[+-]?\d{1,3}(?:,\d{3})+\.\d+$/u

/** Whether commas in a table's numbers are decimal: one can be nothing else, and no number says otherwise. */
const hasDecimalCommas = (lines: ReadonlyArray<Line>): boolean => {
  let isSure = false
  for (const { cells } of lines) {
    for (const cell of cells) {
      if (grouped.test(cell) || withPoint.test(cell)) return false
      isSure ||= withComma.test(cell) && !eitherWay.test(cell)
    }
  }
  return isSure
}

const withPoints = ({ number, cells }: Line): Line => ({
  number,
  cells: cells.map((cell) => (withComma.test(cell) ? cell.replace(",", ".") : cell))
})

/** What to add to the refusal of a number whose comma may be decimal or one of thousands; nothing of any other text. */
export const commaHint = (cell: string): string =>
  withComma.test(cell) || grouped.test(cell)
    ? ` (what the comma in ${showValue(cell)} means, the table leaves open: write numbers with a point)`
    : ""

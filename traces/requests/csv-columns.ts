// Request traces in CSV, told apart by their columns: Azure's (TIMESTAMP "2023-11-16 18:17:03.9799600", ContextTokens,
// GeneratedTokens), BurstGPT's (Timestamp, Request tokens, Response tokens), Vidur's (arrived_at, num_prefill_tokens,
// num_decode_tokens), Splitwise's (arrival_timestamp, prompt_size, token_size), sessions (session, start_s, input_tokens,
// output_tokens). Numbers are seconds unless the column says ms, or they are of the size of milliseconds since 1970. Other columns are left aside.
import { commaHint, type Line } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import {
  arrivalNames,
  cutWarning,
  momentOfNumber,
  namesOfSeconds,
  outputNames,
  perSecondOf,
  plainName,
  positionOf,
  promptNames,
  sessionNames,
  tokenCount,
  unitOf,
  type Timed,
  type TimedTrace
} from "./traced.ts"

/** Whether a first line has the columns. */
export const isColumns = (names: ReadonlyArray<string>): boolean =>
  positionOf(names, promptNames) >= 0 && positionOf(names, outputNames) >= 0

/** What a first line that has some of the columns lacks, in words; undefined where it has none of them, or all. */
export const missingColumn = (names: ReadonlyArray<string>): string | undefined => {
  const there = [arrivalNames, promptNames, outputNames].map((known) => positionOf(names, known) >= 0)
  if (!there.includes(true)) return undefined
  if (!there[1])
    return "a column of prompt tokens as well: input_length, ContextTokens, num_prefill_tokens, ..."
  if (!there[2])
    return "a column of generated tokens as well: output_length, GeneratedTokens, num_decode_tokens, ..."
  return undefined
}

const formatOf = (names: ReadonlyArray<string>): string => {
  const plain = names.map(plainName)
  const has = (name: string) => plain.includes(name)
  if (has("contexttokens")) return "azure"
  if (has("requesttokens")) return "burstgpt"
  if (has("numprefilltokens")) return "vidur"
  if (has("promptsize")) return "splitwise"
  return has("session") || has("sessionid") ? "sessions" : "table"
}

/** All but a last line that has fewer cells where the text ends within it, of which `told` hears. */
const wholeLines = function* (
  rows: Iterable<Line>,
  width: number,
  isCut: boolean,
  told: (line: number) => void
): Iterable<Line> {
  let before: Line | undefined
  let count = 0
  for (const line of rows) {
    if (before !== undefined) yield before
    before = line
    count++
  }
  if (before === undefined) return
  if (isCut && count > 1 && before.cells.length < width) told(before.number)
  else yield before
}

/** `rows`: without the header. `isCut`: whether the text ends within a line. */
export const columnRequests = (
  file: string,
  head: Line,
  rows: Iterable<Line>,
  isCut: boolean
): TimedTrace => {
  const names = head.cells
  const warnings: Array<string> = []
  const lines = wholeLines(rows, names.length, isCut, (line) => warnings.push(cutWarning(file, line)))
  const time = positionOf(names, arrivalNames)
  const prompt = positionOf(names, promptNames)
  const output = positionOf(names, outputNames)
  if (time < 0) {
    throw new TraceError({
      file,
      field: `line ${head.number}`,
      value: showValue(names.join(",")),
      accepted: "a column of arrivals as well: TIMESTAMP, Timestamp, arrived_at, arrival_timestamp or start_s"
    })
  }
  const session = positionOf(names, sessionNames)
  let latest = 0
  const format = formatOf(names)
  const starts = new Map<string, number>()
  const timed: Array<Timed> = []
  for (const line of lines) {
    const place = `line ${line.number}`
    const { cells } = line
    if (cells.length !== names.length) {
      const value = `${cells.length} cells`
      const accepted = `${names.length} cells, as in the header`
      throw new TraceError({ file, field: place, value, accepted })
    }
    const moment = momentOf(file, place, names[time]!, cells[time]!)
    latest = Math.max(latest, moment.whole)
    if (session >= 0 && !starts.has(cells[session]!))
      starts.set(cells[session]!, moment.whole + moment.fraction)
    timed.push({
      ...moment,
      promptTokens: tokenCount(file, place, names[prompt]!, numberOf(cells[prompt]!)),
      outputTokens: tokenCount(file, place, names[output]!, numberOf(cells[output]!))
    })
  }
  const unit = plainName(names[time]!).endsWith("ms") ? "ms" : unitOf(latest, "s")
  if (
    format === "table" &&
    unit === "s" &&
    latest < 1e9 &&
    !namesOfSeconds.includes(plainName(names[time]!))
  ) {
    warnings.push(
      `times of ${file} (${names[time]}) are read as seconds: where they are milliseconds, call the column ${names[time]}_ms`
    )
  }
  if (starts.size > 1 && [...starts.values()].every((start) => start === 0)) {
    warnings.push(`the ${starts.size} sessions of ${file} all begin at 0: they are served side by side`)
  }
  return { format, timed, perSecond: perSecondOf[unit], sharedPrefixes: false, warnings }
}

const numberOf = (text: string): number | string => (/^\d+(?:\.0+)?$/u.test(text) ? Number(text) : text)

const timestamp = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|([+-])(\d\d):?(\d\d))?$/u

/** A number as it is; of a date, whole seconds since 1970 and the fraction of the next. */
const momentOf = (
  file: string,
  place: string,
  name: string,
  text: string
): Pick<Timed, "whole" | "fraction"> => {
  if (/^\d+(?:\.\d*)?(?:e[+-]?\d+)?$/iu.test(text)) {
    const value = Number(text)
    if (value <= Number.MAX_SAFE_INTEGER) return momentOfNumber(value)
  }
  const match = timestamp.exec(text)
  const part = (index: number) => Number(match?.[index] ?? Number.NaN)
  const seconds = Date.UTC(part(1), part(2) - 1, part(3), part(4), part(5), part(6)) / 1000
  if (match === null || !Number.isFinite(seconds)) {
    throw new TraceError({
      file,
      field: `${place}, ${name}`,
      value: showValue(text),
      accepted: `a number of seconds, or a time such as "2023-11-16 18:17:03.9799600"${commaHint(text)}`
    })
  }
  const offset = (match[8] === "-" ? -1 : 1) * (Number(match[9] ?? 0) * 3600 + Number(match[10] ?? 0) * 60)
  return { whole: seconds - offset, fraction: Number(match[7] ?? 0) }
}

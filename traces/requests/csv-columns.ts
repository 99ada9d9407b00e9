// Request traces in CSV, told apart by their columns: Azure's (TIMESTAMP "2023-11-16 18:17:03.9799600", ContextTokens,
// GeneratedTokens), BurstGPT's (Timestamp, Request tokens, Response tokens), Vidur's (arrived_at, num_prefill_tokens,
// num_decode_tokens), Splitwise's (arrival_timestamp, prompt_size, token_size), sessions (session, start_s, input_tokens,
// output_tokens), or session_start_at and think_time; or times between requests. Numbers are seconds unless the column says another
// unit, or they are of the size of one since 1970. Other columns are left aside.
import type { Line } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import {
  betweenOf,
  clockOf,
  isSessionStart,
  later,
  momentOf,
  perSecondOf,
  plainName,
  positionOf,
  thinkOf,
  unitOf,
  Waits,
  type TimeField
} from "./arrivals.ts"
import {
  cutWarning,
  leftOutWarning,
  outputNames,
  promptNames,
  saysNothing,
  sessionNames,
  tokenCount,
  type Timed,
  type TimedTrace
} from "./traced.ts"

/** Whether a first line has the columns. */
export const isColumns = (names: ReadonlyArray<string>): boolean =>
  positionOf(names, promptNames) >= 0 && positionOf(names, outputNames) >= 0

/** What a first line that has some of the columns lacks, in words; undefined where it has none of them, or all. */
export const missingColumn = (names: ReadonlyArray<string>): string | undefined => {
  const prompt = positionOf(names, promptNames) >= 0
  const output = positionOf(names, outputNames) >= 0
  if (!prompt && !output && clockOf(names) === undefined) return undefined
  if (!prompt)
    return "a column of prompt tokens as well: input_length, ContextTokens, num_prefill_tokens, ..."
  if (!output)
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

/** What says when a request of a table came. Throws `TraceError` where nothing does. */
const arrivalColumns = (file: string, head: Line) => {
  const names = head.cells
  const clock = clockOf(names)
  const wait = clock === undefined ? betweenOf(names) : isSessionStart(clock) ? thinkOf(names) : undefined
  if (clock !== undefined || wait !== undefined) return { clock, wait }
  throw new TraceError({
    file,
    field: `line ${head.number}`,
    value: showValue(names.join(",")),
    accepted:
      "a column of arrivals as well: TIMESTAMP, Timestamp, arrived_at, arrival_timestamp, start_s, inter_arrival_time, ..."
  })
}

const acceptedTime = "a number of seconds"

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
  const prompt = positionOf(names, promptNames)
  const output = positionOf(names, outputNames)
  const { clock, wait } = arrivalColumns(file, head)
  const session = positionOf(names, sessionNames)
  let latest = 0
  const format = formatOf(names)
  const starts = new Map<string, number>()
  const waits = new Waits()
  const waited: Array<number> = []
  const timed: Array<Timed> = []
  let leftOut = 0
  for (const line of lines) {
    const place = `line ${line.number}`
    const { cells } = line
    if (cells.length !== names.length) {
      const value = `${cells.length} cells`
      const accepted = `${names.length} cells, as in the header`
      throw new TraceError({ file, field: place, value, accepted })
    }
    const at = ({ at: column, name }: TimeField) =>
      momentOf(file, `${place}, ${name}`, cells[column]!, acceptedTime)
    const moment = clock === undefined ? { whole: 0, fraction: 0 } : at(clock)
    latest = Math.max(latest, moment.whole)
    if (session >= 0 && !starts.has(cells[session]!))
      starts.set(cells[session]!, moment.whole + moment.fraction)
    if (wait !== undefined) {
      const { whole, fraction } = at(wait)
      const whose = clock === undefined ? "" : session < 0 ? place : cells[session]!
      waited.push(waits.after(whose, whole + fraction))
    }
    if (saysNothing(cells[prompt]!) || saysNothing(cells[output]!)) {
      leftOut++
      waited.length = Math.min(waited.length, timed.length)
      continue
    }
    timed.push({
      ...moment,
      promptTokens: tokenCount(file, place, names[prompt]!, cells[prompt]!),
      outputTokens: tokenCount(file, place, names[output]!, cells[output]!)
    })
  }
  warnings.push(...leftOutWarning(file, leftOut, timed.length + leftOut))
  const unit = clock?.unit ?? unitOf(latest, "s")
  if (format === "table" && clock !== undefined && clock.unit === undefined && unit === "s" && latest < 1e9) {
    warnings.push(
      `times of ${file} (${clock.name}) are read as seconds: where they are milliseconds, call the column ${clock.name}_ms`
    )
  }
  if (starts.size > 1 && [...starts.values()].every((start) => start === 0)) {
    warnings.push(`the ${starts.size} sessions of ${file} all begin at 0: they are served side by side`)
  }
  if (wait !== undefined && clock !== undefined && waits.any)
    warnings.push(
      `requests of ${file} follow the answers before them by ${wait.name}: here they come so long after their session began, as if answers took no time`
    )
  const perWait = perSecondOf[unit] / perSecondOf[wait?.unit ?? "s"]
  return {
    format,
    timed:
      wait === undefined
        ? timed
        : timed.map((request, i) => ({ ...request, ...later(request, waited[i]! * perWait) })),
    perSecond: perSecondOf[unit],
    sharedPrefixes: false,
    warnings
  }
}

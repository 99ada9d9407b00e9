// Request traces in JSON, one object a line or a list of them. Mooncake's (FAST'25): {"timestamp": ms, "input_length",
// "output_length", "hash_ids"}, also as input_tokens, output_tokens, created_time; Qwen-Bailian's, the same with chat_id and
// seconds; sessions of agents, {"requests": [{"t", "in", "out"}]}; results of benchmarks and conversations, which have files of their own.
import { textLines } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import {
  clockOf,
  later,
  momentOf,
  perSecondOf,
  positionOf,
  thinkOf,
  unitOf,
  Waits,
  type Moment
} from "./arrivals.ts"
import { benchmarkRequests, isBenchmark } from "./benchmarks.ts"
import { conversations, isPair, questionTokens, tokensToldOf, turnsOf } from "./conversations.ts"
import {
  cutWarning,
  isCutShort,
  leftOutWarning,
  outputNames,
  promptNames,
  saysNothing,
  sessionNames,
  tokenCount,
  type Json,
  type Row,
  type Timed,
  type TimedTrace
} from "./traced.ts"

/** One line of a file that is not empty. */
interface TextLine {
  readonly number: number
  readonly text: string
}

export const jsonRequests = (file: string, text: string): TimedTrace => {
  const warnings: Array<string> = []
  const outer = rowsOf(file, text, warnings)
  if (outer[0] !== undefined && isBenchmark(outer[0].value))
    return benchmarkRequests(
      file,
      outer.map(({ value }) => value)
    )
  const rows = outer.flatMap((row, index) => within(row, String(index)))
  if (rows.some(({ value }) => Array.isArray(turnsOf(value)))) return conversations(file, rows, warnings)
  if (rows.length > 0 && rows.every(({ value }) => !hasTokens(value) && isPair(value)))
    return conversations(file, rows, warnings)
  return countedRequests(file, rows, warnings)
}

const acceptedTime =
  "milliseconds (Mooncake) or seconds (Qwen-Bailian, and wherever times have fractions), at least 0"

/** When a row came: by its own clock, or so long after the answer before it in its session. */
const arrivals = (file: string) => {
  const waits = new Waits()
  const last = new Map<string, Moment>()
  return ({ place, value, session }: Row): { readonly moment: Moment; readonly waited: number } => {
    const keys = Object.keys(value).filter((key) => !saysNothing(value[key]))
    const clock = clockOf(keys)
    const wait = clock === undefined ? thinkOf(keys) : undefined
    const named = positionOf(keys, sessionNames)
    const whose = named >= 0 ? String(value[keys[named]!]) : session
    const before = whose === undefined ? undefined : last.get(whose)
    if (wait !== undefined && whose !== undefined && before !== undefined) {
      const { whole, fraction } = momentOf(file, `${place}, ${wait.name}`, value[wait.name], acceptedTime)
      return {
        moment: before,
        waited: waits.after(whose, (whole + fraction) / perSecondOf[wait.unit ?? "ms"])
      }
    }
    const name = clock?.name ?? "timestamp"
    const moment = momentOf(file, `${place}, ${name}`, value[name], acceptedTime)
    if (whose !== undefined) {
      last.set(whose, moment)
      waits.restart(whose)
    }
    return { moment, waited: 0 }
  }
}

const hasTokens = (value: Json): boolean => positionOf(Object.keys(value), promptNames) >= 0

const countedRequests = (file: string, rows: ReadonlyArray<Row>, warnings: Array<string>): TimedTrace => {
  const arrival = arrivals(file)
  const waitedOf: Array<number> = []
  const timed: Array<Timed> = []
  let sharedPrefixes = false
  let isWhole = true
  let isDated = false
  let [latest, earliest] = [0, Infinity]
  let [leftOut, inWords] = [0, 0]
  for (const row of rows) {
    const { place, value } = row
    const { moment, waited } = arrival(row)
    const [input, inputField] = pick(value, promptNames, "input_length")
    const [output, outputField] = pick(value, outputNames, "output_length")
    if (saysNothing(input) || saysNothing(output)) {
      leftOut++
      continue
    }
    const words = input === undefined ? questionTokens(value) : undefined
    if (words !== undefined) inWords++
    const blocks = value["hash_ids"]
    sharedPrefixes ||= Array.isArray(blocks) && blocks.length > 0
    isWhole &&= moment.fraction === 0
    isDated ||= /\d-\d\d/u.test(String(value[clockOf(Object.keys(value))?.name ?? ""]))
    latest = Math.max(latest, moment.whole + moment.fraction)
    earliest = Math.min(earliest, moment.whole + moment.fraction)
    waitedOf.push(waited)
    timed.push({
      ...moment,
      promptTokens: words ?? tokenCount(file, place, inputField, input),
      outputTokens: tokenCount(file, place, outputField, output)
    })
  }
  warnings.push(...leftOutWarning(file, leftOut, rows.length))
  if (inWords > 0) warnings.push(tokensToldOf(file))
  const [first] = rows
  const isBailian = rows.some(({ value }) => positionOf(Object.keys(value), ["chatid", "parentchatid"]) >= 0)
  const isSession = first !== undefined && positionOf(Object.keys(first.value), sessionNames) >= 0
  const clock = first === undefined ? undefined : clockOf(Object.keys(first.value))
  const saidUnit = isBailian || isDated ? "s" : clock?.unit
  const unit = saidUnit ?? unitOf(latest, isWhole ? "ms" : "s")
  if (saidUnit === undefined && unit === "s") {
    warnings.push(
      `times of ${file} ${isWhole ? "are of the size of seconds since 1970" : "have fractions"}: they are read as seconds, not as Mooncake's milliseconds`
    )
  }
  // Mooncake's has seven requests a second; seconds taken for milliseconds come a thousand times as often as they did.
  const lasts = (latest - earliest) / perSecondOf[unit]
  if (
    unit === "ms" &&
    saidUnit === undefined &&
    latest < 1e11 &&
    rows.length > 1 &&
    rows.length > 20 * lasts &&
    lasts > 0
  ) {
    warnings.push(
      `times of ${file} are read as milliseconds, as Mooncake has them: ${rows.length} requests in ${lasts.toPrecision(3)} s; where they are seconds, call them arrived_at`
    )
  }
  const sessions = new Set(rows.flatMap(({ session }) => session ?? []))
  if (sessions.size > 1)
    warnings.push(
      `times of ${file} count from the beginning of each of ${sessions.size} sessions: they are served side by side`
    )
  const waits = waitedOf.some((waited) => waited > 0)
  if (waits)
    warnings.push(
      `requests of ${file} follow the answers before them: here they come so long after the last time given in their session, as if answers took no time`
    )
  return {
    format: isBailian ? "bailian" : isSession ? "sessions" : sessions.size > 0 ? "agents" : "mooncake",
    timed: waits
      ? timed.map((request, i) => ({ ...request, ...later(request, waitedOf[i]! * perSecondOf[unit]) }))
      : timed,
    perSecond: perSecondOf[unit],
    sharedPrefixes,
    warnings
  }
}

/** Nested deeper than this, requests are not looked for. */
const deepest = 4

/** The requests in a row that is a list of them under some name, as a session is, and what agents below it asked; else the row. */
const within = (row: Row, session: string, depth = 0): ReadonlyArray<Row> => {
  const { place, value } = row
  if (hasTokens(value) || Array.isArray(turnsOf(value)) || isPair(value) || depth > deepest) return [row]
  const lists = Object.entries(value).filter(
    ([, list]) => Array.isArray(list) && list.length > 0 && list.every(isJson)
  )
  if (lists.length !== 1) return [row]
  const [name, list] = lists[0]!
  const inner = list as ReadonlyArray<Json>
  const ofSession = inner.some((each) => each["t"] !== undefined)
  return inner.flatMap((each, index) =>
    within(
      { place: `${place}, ${name}[${index}]`, value: each, session: ofSession ? session : row.session },
      session,
      depth + 1
    )
  )
}

const isJson = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const rowsOf = (file: string, whole: string, warnings: Array<string>): ReadonlyArray<Row> => {
  if (whole.trimStart().startsWith("[")) {
    // A comma after the last, as programs leave that print one after another.
    const list = parsedOf(whole) ?? parsedOf(whole.replace(/,\s*\]\s*$/u, "]"))
    if (list === undefined) {
      throw new TraceError({
        file,
        field: "content",
        value: showValue(whyNoJson(whole)),
        accepted: "a list of requests in JSON"
      })
    }
    return (list as ReadonlyArray<unknown>).map((value, index) => objectOf(file, `[${index}]`, value))
  }
  const lines = textLines(whole)
    .map((line, index): TextLine => ({ number: index + 1, text: line.trim().replace(/,$/u, "") }))
    .filter(({ text }) => text !== "")
  // An object written over several lines is one row.
  const only = lines.length > 1 && parsedOf(lines[0]!.text) === undefined ? parsedOf(whole) : undefined
  if (only !== undefined) return [objectOf(file, "content", only)]
  const last = lines.at(-1)
  if (lines.length > 1 && isCutShort(whole) && parsedOf(last!.text) === undefined) {
    warnings.push(cutWarning(file, last!.number))
    lines.pop()
  }
  return lines.map(({ number, text }) => {
    return objectOf(file, `line ${number}`, parsedOf(text), text)
  })
}

const parsedOf = (text: string): unknown => {
  for (const attempt of [text, pythonValues.test(text) ? withoutPythonValues(text) : undefined]) {
    if (attempt === undefined) continue
    try {
      return JSON.parse(attempt) as unknown
    } catch {
      // The next attempt, or no JSON.
    }
  }
  return undefined
}

/** Python writes them as no JSON is: what is not a number counts as nothing. */
const pythonValues = /(?<=[:[,]\s*)(?:NaN|-?Infinity)(?=\s*[,\]}])/u

const withoutPythonValues = (text: string): string =>
  text.replaceAll(new RegExp(pythonValues, "gu"), (value) =>
    value === "NaN" ? "null" : value.replace("Infinity", "1e999")
  )

const whyNoJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (cause) {
    return cause
  }
}

const objectOf = (file: string, place: string, value: unknown, text: unknown = value): Row => {
  if (isJson(value)) return { place, value }
  throw new TraceError({
    file,
    field: place,
    value: showValue(text),
    accepted: 'a JSON object such as {"timestamp": 0, "input_length": 6755, "output_length": 500}'
  })
}

/** The value under the first of several names that is there, and that name; `usual` where none is. */
const pick = (row: Json, names: ReadonlyArray<string>, usual: string): readonly [unknown, string] => {
  const keys = Object.keys(row)
  const at = positionOf(keys, names)
  return at < 0 ? [row[usual], usual] : [row[keys[at]!], keys[at]!]
}

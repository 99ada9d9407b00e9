// Request traces in JSON, one object a line or a list of them. Mooncake's (FAST'25): {"timestamp": ms, "input_length",
// "output_length", "hash_ids"}, also as input_tokens, output_tokens, created_time; Qwen-Bailian's, the same with chat_id and
// seconds; conversations as ShareGPT has them, which say neither times nor tokens.
import { benchmarkRequests, isBenchmark } from "./benchmarks.ts"
import { textLines } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import {
  arrivalNames,
  cutWarning,
  isCutShort,
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

type Json = Readonly<Record<string, unknown>>

interface Row {
  readonly place: string
  readonly value: Json
}

/** One line of a file that is not empty. */
interface TextLine {
  readonly number: number
  readonly text: string
}

export const jsonRequests = (file: string, text: string): TimedTrace => {
  const warnings: Array<string> = []
  const rows = rowsOf(file, text, warnings)
  const [first] = rows
  if (first !== undefined && isBenchmark(first.value))
    return benchmarkRequests(
      file,
      rows.map(({ value }) => value)
    )
  if (rows.some(({ value }) => Array.isArray(turnsOf(value)))) return conversations(file, rows, warnings)
  let sharedPrefixes = false
  let isWhole = true
  let latest = 0
  let earliest = Infinity
  const timed = rows.map(({ place, value }): Timed => {
    const [time, timeField] = pick(value, arrivalNames, "timestamp")
    if (!(typeof time === "number" && time >= 0 && time <= Number.MAX_SAFE_INTEGER)) {
      throw new TraceError({
        file,
        field: `${place}, ${timeField}`,
        value: showValue(time),
        accepted:
          "milliseconds (Mooncake) or seconds (Qwen-Bailian, and wherever times have fractions), at least 0"
      })
    }
    const [input, inputField] = pick(value, promptNames, "input_length")
    const [output, outputField] = pick(value, outputNames, "output_length")
    const blocks = value["hash_ids"]
    sharedPrefixes ||= Array.isArray(blocks) && blocks.length > 0
    isWhole &&= Number.isInteger(time)
    latest = Math.max(latest, time)
    earliest = Math.min(earliest, time)
    return {
      ...momentOfNumber(time),
      promptTokens: tokenCount(file, place, inputField, input),
      outputTokens: tokenCount(file, place, outputField, output)
    }
  })
  const isBailian = rows.some(({ value }) => positionOf(Object.keys(value), ["chatid", "parentchatid"]) >= 0)
  const isSession = first !== undefined && positionOf(Object.keys(first.value), sessionNames) >= 0
  const named = first === undefined ? "" : pick(first.value, arrivalNames, "timestamp")[1]
  const saysMs = /_?ms$/iu.test(named)
  const saysSeconds = namesOfSeconds.includes(plainName(named))
  const unit = isBailian ? "s" : saysMs ? "ms" : unitOf(latest, isWhole && !saysSeconds ? "ms" : "s")
  if (!isBailian && !saysSeconds && unit === "s") {
    warnings.push(
      `times of ${file} ${isWhole ? "are of the size of seconds since 1970" : "have fractions"}: they are read as seconds, not as Mooncake's milliseconds`
    )
  }
  // Mooncake's has seven requests a second; seconds taken for milliseconds come a thousand times as often as they did.
  const lasts = (latest - earliest) / perSecondOf[unit]
  if (unit === "ms" && !saysMs && latest < 1e11 && rows.length > 1 && rows.length > 20 * lasts && lasts > 0) {
    warnings.push(
      `times of ${file} are read as milliseconds, as Mooncake has them: ${rows.length} requests in ${lasts.toPrecision(3)} s; where they are seconds, call them arrived_at`
    )
  }
  return {
    format: isBailian ? "bailian" : isSession ? "sessions" : "mooncake",
    timed,
    perSecond: perSecondOf[unit],
    sharedPrefixes,
    warnings
  }
}

/** Of text that nobody has counted: English has about four characters a token. */
const charactersOfToken = 4

const turnsOf = (value: Json): unknown => value["conversations"] ?? value["conversation"] ?? value["messages"]

/** Who answers, as exports of conversations call them; people, systems and tools ask. */
const answering: ReadonlySet<string> = new Set([
  "gpt",
  "chatgpt",
  "assistant",
  "model",
  "bing",
  "bard",
  "claude"
])

/** Of a turn: a text, or parts of which some are text. */
const charactersOf = (said: unknown): number => {
  if (typeof said === "string") return said.length
  if (!Array.isArray(said)) return 0
  const parts: ReadonlyArray<unknown> = said
  return parts.reduce<number>((sum, part) => {
    if (typeof part !== "object" || part === null) return sum + charactersOf(part)
    return sum + charactersOf((part as Json)["text"])
  }, 0)
}

/** Each answer is a request, whose prompt is all before it. */
const conversations = (
  file: string,
  rows: ReadonlyArray<Row>,
  warnings: ReadonlyArray<string>
): TimedTrace => {
  const timed: Array<Timed> = []
  for (const { place, value } of rows) {
    const turns = turnsOf(value)
    if (!Array.isArray(turns)) {
      throw new TraceError({
        file,
        field: place,
        value: showValue(value),
        accepted: "an object with conversations (or messages), as the first has"
      })
    }
    let before = 0
    for (const turn of turns as ReadonlyArray<unknown>) {
      if (typeof turn !== "object" || turn === null) continue
      const { from, role, value: said, content } = turn as Json
      const length = charactersOf(said ?? content)
      if (answering.has(String(from ?? role))) {
        timed.push({
          whole: 0,
          fraction: 0,
          promptTokens: Math.ceil(before / charactersOfToken),
          outputTokens: Math.ceil(length / charactersOfToken)
        })
      }
      before += length
    }
  }
  return {
    format: "sharegpt",
    timed,
    perSecond: 1,
    sharedPrefixes: false,
    warnings: [
      ...warnings,
      `${file} holds conversations without times or tokens: all requests come at once, and ${charactersOfToken} characters are taken for a token (an estimate)`
    ]
  }
}

const rowsOf = (file: string, whole: string, warnings: Array<string>): ReadonlyArray<Row> => {
  if (whole.trimStart().startsWith("[")) {
    let list: unknown
    try {
      list = JSON.parse(whole)
    } catch (cause) {
      throw new TraceError({
        file,
        field: "content",
        value: showValue(cause),
        accepted: "a list of requests in JSON"
      })
    }
    return (list as ReadonlyArray<unknown>).map((value, index) => objectOf(file, `[${index}]`, value))
  }
  // An object written over several lines is one row.
  const only = /^\s*\{\s*$/mu.test(whole) ? parsedOf(whole) : undefined
  if (only !== undefined) return [objectOf(file, "content", only)]
  const lines = textLines(whole)
    .map((line, index): TextLine => ({ number: index + 1, text: line.trim() }))
    .filter(({ text }) => text !== "")
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
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const objectOf = (file: string, place: string, value: unknown, text: unknown = value): Row => {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return { place, value: value as Json }
  throw new TraceError({
    file,
    field: place,
    value: showValue(text),
    accepted: 'a JSON object such as {"timestamp": 0, "input_length": 6755, "output_length": 500}'
  })
}

/** The value under the first of several names that is there, and that name; `usual` where none is. */
const pick = (row: Json, names: ReadonlyArray<string>, usual: string): readonly [unknown, string] => {
  const keys = Object.keys(row).filter((key) => row[key] !== undefined && row[key] !== null)
  const at = positionOf(keys, names)
  return at < 0 ? [row[usual], usual] : [row[keys[at]!], keys[at]!]
}

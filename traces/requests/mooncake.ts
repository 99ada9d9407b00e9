// Mooncake's request traces (FAST'25, github.com/kvcache-ai/Mooncake): JSON lines {"timestamp": ms, "input_length": tokens,
// "output_length": tokens, "hash_ids": [blocks of 512 tokens]}. Tools that write such traces also say input_tokens,
// output_tokens and created_time.
import { showValue, TraceError } from "../trace-error.ts"
import { tokenCount, type Line, type RequestTrace, type TracedRequest } from "./traced.ts"

export const mooncakeRequests = (file: string, lines: ReadonlyArray<Line>): RequestTrace => {
  let sharedPrefixes = false
  const timed = lines.map((line) => {
    const row = objectOf(file, line)
    const [time, timeField] = pick(row, ["timestamp", "created_time"])
    if (!(typeof time === "number" && Number.isFinite(time) && time >= 0)) {
      throw new TraceError({
        file,
        field: `line ${line.number}, ${timeField}`,
        value: showValue(time),
        accepted: "milliseconds, at least 0"
      })
    }
    const [input, inputField] = pick(row, ["input_length", "input_tokens"])
    const [output, outputField] = pick(row, ["output_length", "output_tokens"])
    sharedPrefixes ||= Array.isArray(row["hash_ids"]) && row["hash_ids"].length > 0
    return {
      milliseconds: time,
      promptTokens: tokenCount(file, line, inputField, input),
      outputTokens: tokenCount(file, line, outputField, output)
    }
  })
  // Before the division, which would round both.
  const first = timed.reduce((least, { milliseconds }) => Math.min(least, milliseconds), Infinity)
  const requests = timed.map(({ milliseconds, ...tokens }): TracedRequest => ({
    arrivalSeconds: (milliseconds - first) / 1000,
    ...tokens
  }))
  return { format: "mooncake", requests, sharedPrefixes }
}

const objectOf = (file: string, { number, text }: Line): Readonly<Record<string, unknown>> => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Readonly<Record<string, unknown>>
  throw new TraceError({
    file,
    field: `line ${number}`,
    value: showValue(text),
    accepted: 'a JSON object such as {"timestamp": 0, "input_length": 6755, "output_length": 500}'
  })
}

/** The first of several names that is there, and which it was. */
const pick = (
  row: Readonly<Record<string, unknown>>,
  names: readonly [string, ...Array<string>]
): readonly [unknown, string] => {
  const name = names.find((one) => row[one] !== undefined) ?? names[0]
  return [row[name], name]
}

// Conversations and pairs of texts, as ShareGPT, LMSYS-Chat and instruction sets have them: who said what, hardly ever when, and never
// in how many tokens.
import { showValue, TraceError } from "../trace-error.ts"
import { clockOf, momentOf, perSecondOf, unitOf, type Moment } from "./arrivals.ts"
import { saysNothing, type Json, type Row, type Timed, type TimedTrace } from "./traced.ts"

/** Of text that nobody has counted: English has about four characters a token. */
const charactersOfToken = 4

/** Turns of a conversation, where a row is one. */
export const turnsOf = (value: Json): unknown =>
  value["conversations"] ?? value["conversation"] ?? value["messages"]

/** What is asked, and what is answered, of rows that are one question each. */
const asked = ["text_input", "prompt", "instruction", "question", "input"]
const answered = ["completion", "response", "answer", "output"]

const textsOf = (value: Json, names: ReadonlyArray<string>): ReadonlyArray<string> =>
  names.flatMap((name) => (typeof value[name] === "string" ? [value[name]] : []))

/** Whether a row is a question and its answer in words. */
export const isPair = (value: Json): boolean =>
  textsOf(value, asked).length > 0 && textsOf(value, answered).length > 0

/** About how many tokens a row's question has, where it is in words. */
export const questionTokens = (value: Json): number | undefined => {
  const texts = textsOf(value, asked)
  return texts.length === 0 ? undefined : tokensOf(texts.reduce((sum, { length }) => sum + length, 0))
}

export const tokensToldOf = (file: string): string =>
  `${file} has texts in place of numbers of tokens: ${charactersOfToken} characters are taken for one (an estimate)`

const tokensOf = (characters: number): number => Math.ceil(characters / charactersOfToken)

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

const momentIn = (file: string, place: string, value: Json): Moment | undefined => {
  const clock = clockOf(Object.keys(value))
  if (clock === undefined || saysNothing(value[clock.name])) return undefined
  return momentOf(file, `${place}, ${clock.name}`, value[clock.name], "seconds or milliseconds since 1970")
}

/** Each answer is a request, whose prompt is all before it; a pair is one request. */
export const conversations = (
  file: string,
  rows: ReadonlyArray<Row>,
  warnings: ReadonlyArray<string>
): TimedTrace => {
  const timed: Array<Timed> = []
  let isTimed = true
  const add = (when: Moment | undefined, before: number, length: number): void => {
    isTimed &&= when !== undefined
    timed.push({
      whole: when?.whole ?? 0,
      fraction: when?.fraction ?? 0,
      promptTokens: tokensOf(before),
      outputTokens: tokensOf(length)
    })
  }
  for (const { place, value } of rows) {
    const turns = turnsOf(value)
    const begun = momentIn(file, place, value)
    if (!Array.isArray(turns) && isPair(value)) {
      const length = (names: ReadonlyArray<string>) => textsOf(value, names).join("").length
      add(begun, length(asked), length(answered))
      continue
    }
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
      if (answering.has(String(from ?? role)))
        add(momentIn(file, place, turn as Json) ?? begun, before, length)
      before += length
    }
  }
  const told = `${charactersOfToken} characters are taken for a token (an estimate)`
  const latest = timed.reduce((most, { whole }) => Math.max(most, whole), 0)
  return {
    format: "sharegpt",
    timed: isTimed ? timed : timed.map((request) => ({ ...request, whole: 0, fraction: 0 })),
    perSecond: isTimed ? perSecondOf[unitOf(latest, "s")] : 1,
    sharedPrefixes: false,
    warnings: [
      ...warnings,
      isTimed && timed.length > 0
        ? `${file} holds conversations without tokens: ${told}`
        : `${file} holds conversations without times or tokens: all requests come at once, and ${told}`
    ]
  }
}

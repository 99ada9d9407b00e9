// What every format of request traces comes to: when each request came, how long its prompt was, how much was generated.
import { counted } from "../../core/units.ts"
import { isTooMuch } from "../left-out.ts"
import { commaHint } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import type { Moment } from "./arrivals.ts"

/** One request of a trace: when it came, and how many tokens it has. */
export interface TracedRequest {
  /** From the trace's first request, seconds. */
  readonly arrivalSeconds: number
  readonly promptTokens: number
  readonly outputTokens: number
}

/** A recorded load of requests, whoever recorded it. */
export interface RequestTrace {
  /** Whose format it is: "mooncake", "bailian", "azure", "burstgpt", "vidur", "splitwise", "sessions", "sharegpt", "benchmark", "agents" or "table". */
  readonly format: string
  /** In order of arrival. */
  readonly requests: ReadonlyArray<TracedRequest>
  /** Whether the trace says which prompts begin alike (Mooncake's block hashes). */
  readonly sharedPrefixes: boolean
  /** What the user should know of how it was read. */
  readonly warnings: ReadonlyArray<string>
}

/** A request whose moment is not yet counted from the first one's. */
export interface Timed extends Moment {
  readonly promptTokens: number
  readonly outputTokens: number
}

export type Json = Readonly<Record<string, unknown>>

/** A request, or what holds some, in JSON. */
export interface Row {
  readonly place: string
  readonly value: Json
  /** Of requests whose times count from the beginning of their session: which that is. */
  readonly session?: string | undefined
}

/** Requests before they are put in order: moments in units of which `perSecond` are a second. */
export interface TimedTrace extends Omit<RequestTrace, "requests"> {
  readonly timed: ReadonlyArray<Timed>
  readonly perSecond: number
}

/** Tokens as a trace gives them; throws TraceError otherwise. `place`: "line 3". */
export const tokenCount = (file: string, place: string, field: string, value: unknown): number => {
  const count = typeof value === "string" && /^\d+(?:\.0*)?$/u.test(value.trim()) ? Number(value) : value
  if (typeof count === "number" && Number.isInteger(count) && count >= 0 && count <= 100_000_000) return count
  throw new TraceError({
    file,
    field: `${place}, ${field}`,
    value: showValue(value),
    accepted: `a whole number of tokens, from 0 to 100,000,000${typeof value === "string" ? commaHint(value) : ""}`
  })
}

/** Whether a text ends within a line, as one does whose writing or fetching was broken off. */
export const isCutShort = (text: string): boolean => !/[\r\n]\s*$/u.test(text.slice(-1024))

export const cutWarning = (file: string, line: number): string =>
  `line ${line} of ${file}, the last, is cut short and was left out`

/** What tools call what a request has beside its time, compared by `plainName`. */
export const promptNames = ["inputlength", "inputtokens", "contexttokens", "requesttokens", "numprefilltokens", "promptsize", "prompttokens", "numprompttokens", "promptlen", "inputlen", "isl", "in"] // prettier-ignore
export const outputNames = ["outputlength", "outputtokens", "generatedtokens", "responsetokens", "numdecodetokens", "tokensize", "completiontokens", "numgeneratedtokens", "outputlen", "genlen", "osl", "out"] // prettier-ignore
export const sessionNames = ["session", "sessionid"]

/** Whether a cell or a field that is there says nothing, as of requests that failed. */
export const saysNothing = (value: unknown): boolean =>
  value === null || (typeof value === "string" && /^(?:nan|null|none)?$/iu.test(value.trim()))

/** What to say of requests without a number of tokens. Throws `TraceError` where they are more than one in ten. */
export const leftOutWarning = (file: string, leftOut: number, all: number): ReadonlyArray<string> => {
  if (leftOut === 0) return []
  if (isTooMuch(leftOut, all)) {
    const value = `missing of ${leftOut} of ${all} requests`
    throw new TraceError({ file, field: "tokens", value, accepted: "a prompt and an answer of nearly all" })
  }
  return [
    `${counted(leftOut, "request")} of ${file} ${leftOut === 1 ? "says no prompt or no answer and was" : "say no prompt or no answer and were"} left out`
  ]
}

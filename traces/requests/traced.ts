// What every format of request traces comes to: when each request came, how long its prompt was, how much was generated.
import { commaHint } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"

export interface TracedRequest {
  /** From the trace's first request, seconds. */
  readonly arrivalSeconds: number
  readonly promptTokens: number
  readonly outputTokens: number
}

export interface RequestTrace {
  /** Whose format it is: "mooncake", "bailian", "azure", "burstgpt", "vidur", "splitwise", "sessions", "sharegpt", "benchmark" or "table". */
  readonly format: string
  /** In order of arrival. */
  readonly requests: ReadonlyArray<TracedRequest>
  /** Whether the trace says which prompts begin alike (Mooncake's block hashes). */
  readonly sharedPrefixes: boolean
  /** What the user should know of how it was read. */
  readonly warnings: ReadonlyArray<string>
}

/** A request whose moment is not yet counted from the first one's: whole units and the fraction of the next, apart. */
export interface Timed {
  readonly whole: number
  readonly fraction: number
  readonly promptTokens: number
  readonly outputTokens: number
}

/** Requests before they are put in order: moments in units of which `perSecond` are a second. */
export interface TimedTrace extends Omit<RequestTrace, "requests"> {
  readonly timed: ReadonlyArray<Timed>
  readonly perSecond: number
}

/** Tokens as a trace gives them; throws TraceError otherwise. `place`: "line 3". */
export const tokenCount = (file: string, place: string, field: string, value: unknown): number => {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 100_000_000) return value
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

/** What tools call the three things that a request has. Compared without case, spaces, dashes and underscores. */
export const arrivalNames = ["timestamp", "createdtime", "arrivedat", "arrivaltimestamp", "arrivaltime", "arrival", "starts", "startseconds", "timestampms", "arrivaltimems", "arrivalms", "time", "timems"] // prettier-ignore
export const promptNames = ["inputlength", "inputtokens", "contexttokens", "requesttokens", "numprefilltokens", "promptsize", "prompttokens", "promptlen", "inputlen", "isl"] // prettier-ignore
export const outputNames = ["outputlength", "outputtokens", "generatedtokens", "responsetokens", "numdecodetokens", "tokensize", "completiontokens", "outputlen", "osl"] // prettier-ignore

/** Of `arrivalNames`, those that say seconds, or are of tools that count them. */
export const namesOfSeconds: ReadonlyArray<string> = ["arrivedat", "arrivaltimestamp", "starts", "startseconds"] // prettier-ignore
export const sessionNames = ["session", "sessionid"]

type Unit = "s" | "ms" | "us"
export const perSecondOf = { s: 1, ms: 1e3, us: 1e6 } as const satisfies Record<Unit, number>

/** The unit of a trace's times, by the latest of them: counted from 1970, 10 digits are seconds, 13 milliseconds, 16 microseconds. */
export const unitOf = (latest: number, usual: Unit): Unit =>
  latest >= 1e14 ? "us" : latest >= 1e11 ? "ms" : latest >= 1e9 ? "s" : usual

export const plainName = (name: string): string => name.toLowerCase().replaceAll(/[\s_-]/gu, "")

/** The first of `names` that is among `given`: its position; -1 for none. */
export const positionOf = (given: ReadonlyArray<string>, names: ReadonlyArray<string>): number => {
  const plain = given.map(plainName)
  for (const name of names) {
    const at = plain.indexOf(name)
    if (at >= 0) return at
  }
  return -1
}

/** A number of the size that moments have, as whole and fraction. */
export const momentOfNumber = (value: number): Pick<Timed, "whole" | "fraction"> => {
  const whole = Math.floor(value)
  return { whole, fraction: value - whole }
}

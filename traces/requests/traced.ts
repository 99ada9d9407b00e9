// What every format of request traces comes to: when each request came, how long its prompt was, how much was generated.
import { showValue, TraceError } from "../trace-error.ts"

export interface TracedRequest {
  /** From the trace's first request, seconds. */
  readonly arrivalSeconds: number
  readonly promptTokens: number
  readonly outputTokens: number
}

export interface RequestTrace {
  readonly format: "mooncake" | "azure"
  /** In order of arrival. */
  readonly requests: ReadonlyArray<TracedRequest>
  /** Whether the trace says which prompts begin alike (Mooncake's block hashes). */
  readonly sharedPrefixes: boolean
}

/** One line of a file that is not empty. */
export interface Line {
  readonly number: number
  readonly text: string
}

/** Tokens as a trace gives them; throws TraceError otherwise. */
export const tokenCount = (file: string, { number }: Line, field: string, value: unknown): number => {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 100_000_000) return value
  throw new TraceError({
    file,
    field: `line ${number}, ${field}`,
    value: showValue(value),
    accepted: "a whole number of tokens, from 0 to 100,000,000"
  })
}

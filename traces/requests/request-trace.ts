// Recorded arrivals of requests to language models. Which format a file has is told from its first line. Knows nothing of
// who serves the requests.
import { showValue, TraceError } from "../trace-error.ts"
import { azureRequests, isAzure } from "./azure.ts"
import { mooncakeRequests } from "./mooncake.ts"
import type { RequestTrace } from "./traced.ts"

/** Reads a trace from its text. Throws TraceError that names the line. */
export const parseRequestTrace = (file: string, text: string): RequestTrace => {
  const lines = text
    .split(/\r?\n/u)
    .map((line, index) => ({ number: index + 1, text: line.trim() }))
    .filter((line) => line.text !== "")
  const first = lines[0]
  if (first?.text.startsWith("{") === true) return ordered(mooncakeRequests(file, lines))
  if (first !== undefined && isAzure(first.text)) return ordered(azureRequests(file, lines))
  throw new TraceError({
    file,
    field: "line 1",
    value: first === undefined ? "nothing" : showValue(first.text),
    accepted:
      "a Mooncake trace (JSON lines with timestamp, input_length and output_length) or an Azure LLM inference trace (CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens)"
  })
}

/** By arrival, from the first on. */
const ordered = (trace: RequestTrace): RequestTrace => {
  const requests = trace.requests.toSorted((a, b) => a.arrivalSeconds - b.arrivalSeconds)
  const first = requests[0]?.arrivalSeconds ?? 0
  return {
    ...trace,
    requests: requests.map((request) => ({ ...request, arrivalSeconds: request.arrivalSeconds - first }))
  }
}

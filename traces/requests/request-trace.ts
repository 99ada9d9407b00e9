// Recorded arrivals of requests to language models. Which format a file has is told from its first line. Knows nothing of
// who serves the requests.
import { eachTableLine, type Line } from "../text.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { columnRequests, isColumns, missingColumn } from "./csv-columns.ts"
import { jsonRequests } from "./json-requests.ts"
import { isCutShort, type RequestTrace, type TimedTrace } from "./traced.ts"

/** Reads a trace from its text. Throws TraceError that names the line. */
export const parseRequestTrace = (file: string, text: string): RequestTrace =>
  ordered([timedTrace(file, text)])

/** Several files as one trace, on one clock. Throws TraceError that names file and line. */
export const parseRequestTraces = (
  files: ReadonlyArray<{ readonly file: string; readonly text: string }>
): RequestTrace => ordered(files.map(({ file, text }) => timedTrace(file, text)))

const timedTrace = (file: string, given: string): TimedTrace => {
  const text = given.replace(/^\uFEFF/u, "")
  if (/^\s*[[{]/u.test(text)) return jsonRequests(file, text)
  const lines = eachTableLine(file, text, isColumns)[Symbol.iterator]()
  const { value: first }: { readonly value: Line | undefined } = lines.next()
  if (first !== undefined && isColumns(first.cells))
    return columnRequests(file, first, { [Symbol.iterator]: () => lines }, isCutShort(text))
  throw new TraceError({
    file,
    field: "line 1",
    value: first === undefined ? "nothing" : showValue(first.cells.join(",")),
    accepted:
      (first === undefined ? undefined : missingColumn(first.cells)) ??
      "a Mooncake trace (JSON lines with timestamp, input_length and output_length) or a CSV with columns of arrivals, prompt tokens and generated tokens, as the traces of Azure, BurstGPT, Vidur and Splitwise have"
  })
}

/** By arrival, from the first on. */
const ordered = (traces: ReadonlyArray<TimedTrace>): RequestTrace => {
  const warnings = traces.flatMap((trace) => trace.warnings)
  const formats = [...new Set(traces.map(({ format }) => format))]
  if (formats.length > 1) warnings.push(`files of several formats as one trace: ${formats.join(", ")}`)
  const starts = traces.map(({ timed, perSecond }) =>
    timed.reduce((least, { whole, fraction }) => Math.min(least, (whole + fraction) / perSecond), Infinity)
  )
  if (traces.length > 1 && new Set(starts).size === 1)
    warnings.push(`the ${traces.length} files all begin at one time: they are served side by side`)
  // Whole units apart from fractions, and both before the division: the epoch takes digits that they need.
  const units = traces.flatMap(({ timed, perSecond }) => timed.map((request) => ({ ...request, perSecond })))
  const first = units.reduce<(typeof units)[number] | undefined>(
    (least, each) =>
      least === undefined ||
      (each.whole + each.fraction) / each.perSecond < (least.whole + least.fraction) / least.perSecond
        ? each
        : least,
    undefined
  )
  const requests = units.map(({ whole, fraction, perSecond, promptTokens, outputTokens }) => ({
    arrivalSeconds:
      perSecond === first!.perSecond
        ? (whole - first!.whole + (fraction - first!.fraction)) / perSecond
        : (whole + fraction) / perSecond - (first!.whole + first!.fraction) / first!.perSecond,
    promptTokens,
    outputTokens
  }))
  return {
    format: formats.join("+"),
    requests: requests.toSorted((a, b) => a.arrivalSeconds - b.arrivalSeconds),
    sharedPrefixes: traces.some(({ sharedPrefixes }) => sharedPrefixes),
    warnings
  }
}

// Azure's traces of LLM inference (github.com/Azure/AzurePublicDataset, 2023 and 2024): CSV with the columns TIMESTAMP
// ("2023-11-16 18:17:03.9799600"), ContextTokens and GeneratedTokens, in any order; others are left aside.
import { showValue, TraceError } from "../trace-error.ts"
import { tokenCount, type Line, type RequestTrace, type TracedRequest } from "./traced.ts"

const columns = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"] as const

const cellsOf = (text: string): ReadonlyArray<string> =>
  text.split(",").map((cell) => cell.trim().replace(/^"(.*)"$/u, "$1"))

/** Whether a first line has the columns. */
export const isAzure = (head: string): boolean => {
  const names = cellsOf(head.replace(/^\uFEFF/u, ""))
  return columns.every((column) => names.includes(column))
}

export const azureRequests = (file: string, [head, ...lines]: ReadonlyArray<Line>): RequestTrace => {
  const names = cellsOf(head!.text.replace(/^\uFEFF/u, ""))
  const [time, context, generated] = columns.map((column) => names.indexOf(column))
  const moments = lines.map((line) => {
    const cells = cellsOf(line.text)
    if (cells.length !== names.length) {
      throw new TraceError({
        file,
        field: `line ${line.number}`,
        value: `${cells.length} cells`,
        accepted: `${names.length} cells, as in the header`
      })
    }
    return { line, cells, moment: momentOf(file, line, cells[time!]!) }
  })
  const first = moments[0]?.moment
  const requests = moments.map(({ line, cells, moment }): TracedRequest => ({
    // Whole seconds apart from fractions: the epoch takes digits that the fractions need.
    arrivalSeconds: moment.seconds - first!.seconds + (moment.fraction - first!.fraction),
    promptTokens: tokenCount(file, line, columns[1], numberOf(cells[context!]!)),
    outputTokens: tokenCount(file, line, columns[2], numberOf(cells[generated!]!))
  }))
  return { format: "azure", requests, sharedPrefixes: false }
}

const numberOf = (text: string): number | string => (/^\d+(?:\.0+)?$/u.test(text) ? Number(text) : text)

const timestamp = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|([+-])(\d\d):?(\d\d))?$/u

/** Whole seconds since 1970 and the fraction of the next. */
const momentOf = (
  file: string,
  { number }: Line,
  text: string
): { readonly seconds: number; readonly fraction: number } => {
  const match = timestamp.exec(text)
  const seconds =
    match === null
      ? Number.NaN
      : Date.UTC(
          Number(match[1]),
          Number(match[2]) - 1,
          Number(match[3]),
          Number(match[4]),
          Number(match[5]),
          Number(match[6])
        ) / 1000
  if (match === null || !Number.isFinite(seconds)) {
    throw new TraceError({
      file,
      field: `line ${number}, TIMESTAMP`,
      value: showValue(text),
      accepted: 'a time such as "2023-11-16 18:17:03.9799600"'
    })
  }
  const offset = (match[8] === "-" ? -1 : 1) * (Number(match[9] ?? 0) * 3600 + Number(match[10] ?? 0) * 60)
  return { seconds: seconds - offset, fraction: Number(match[7] ?? 0) }
}

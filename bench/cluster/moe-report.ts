// What was predicted of MoE training beside what was measured, as text. Knows nothing of how either was come by.
import type { StepParts } from "./step-parts.ts"

export interface Row {
  readonly variant: string
  /** Pipeline degrees, of the forward and the backward pass. */
  readonly degrees?: readonly [forward: number, backward: number] | undefined
  /** Undefined where there is no profile. */
  readonly predicted?: StepParts | undefined
  /** Undefined where the time that was given did not suffice. */
  readonly measured?: StepParts | { readonly error: string } | undefined
}

interface Compared extends Row {
  readonly predicted: StepParts
  readonly measured: StepParts
}

const isMeasured = (row: Row): row is Row & { readonly measured: StepParts } =>
  row.measured !== undefined && !("error" in row.measured)

const isCompared = (row: Row): row is Compared => isMeasured(row) && row.predicted !== undefined

const errorOf = ({ predicted, measured }: Compared): number =>
  predicted.stepSeconds / measured.stepSeconds - 1

const signed = (share: number): string => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} %`
const ms = (seconds: number): string => (1e3 * seconds).toFixed(1)

/** Share of a lane's communication that has computing beside it. */
const hidden = ({ busySeconds, hiddenSeconds }: StepParts["inter"]): string =>
  busySeconds > 0 ? `${((100 * hiddenSeconds) / busySeconds).toFixed(0)} %` : "-"

const quantities: ReadonlyArray<readonly [string, (parts: StepParts) => string]> = [
  ["step, ms", ({ stepSeconds }) => ms(stepSeconds)],
  ["compute, ms", ({ computeSeconds }) => ms(computeSeconds)],
  ["inter, ms", ({ inter }) => ms(inter.busySeconds)],
  ["inter hidden", ({ inter }) => hidden(inter)],
  ["intra, ms", ({ intra }) => ms(intra.busySeconds)],
  ["intra hidden", ({ intra }) => hidden(intra)],
  ["inter beside intra, ms", ({ bothSeconds }) => ms(bothSeconds)]
]

/** One run, in some lines: everything predicted and measured, and which kernels took how long. */
export const rowLines = ({ variant, degrees, predicted, measured }: Row): ReadonlyArray<string> => {
  const title = `${variant}${degrees === undefined ? "" : `, degrees ${degrees.join(" and ")}`}`
  if (measured === undefined) return [`${title}: not run, the time was over`]
  if ("error" in measured) return [`${title}: failed: ${measured.error}`]
  const pair = (of: (parts: StepParts) => string): string =>
    predicted === undefined ? of(measured) : `${of(predicted)} / ${of(measured)}`
  const names = new Set([
    ...Object.keys(measured.kernelSeconds),
    ...Object.keys(predicted?.kernelSeconds ?? {})
  ])
  const taken = (name: string, parts: StepParts): string => ms(parts.kernelSeconds[name] ?? 0)
  const largest = [...names]
    .toSorted((a, b) => (measured.kernelSeconds[b] ?? 0) - (measured.kernelSeconds[a] ?? 0))
    .slice(0, 12)
  return [
    `${title} (${predicted === undefined ? "measured" : "predicted / measured"})`,
    `  ${quantities.map(([name, of]) => `${name}: ${pair(of)}`).join("; ")}`,
    `  of a step, ms: ${largest.map((name) => `${name} ${pair((parts) => taken(name, parts))}`).join("; ")}`
  ]
}

interface Report {
  readonly text: string
  /** Everything was predicted and measured. */
  readonly complete: boolean
  /** Largest error of a step's time; NaN where there is none. */
  readonly worstError: number
}

/** Steps that differ by less are as fast as each other. */
const tie = 0.01

/** `planned`: the variant whose degrees the planner chose. */
export const reportOf = (rows: ReadonlyArray<Row>, planned: string): Report => {
  const compared = rows.filter(isCompared)
  const worstError = compared.length === 0 ? NaN : Math.max(...compared.map((row) => Math.abs(errorOf(row))))
  const lines = [
    "| variant | degrees | predicted, ms | measured, ms | error | inter hidden | intra hidden |",
    `|${"---|".repeat(7)}`,
    ...rows.map((row) => {
      const { variant, degrees, predicted, measured } = row
      const told = isMeasured(row)
        ? `${ms(row.measured.stepSeconds)} | ${isCompared(row) ? signed(errorOf(row)) : "-"} | ${hidden(row.measured.inter)} | ${hidden(row.measured.intra)}`
        : `${measured === undefined ? "not run" : "failed"} | - | - | -`
      const said = predicted === undefined ? "-" : ms(predicted.stepSeconds)
      return `| ${variant} | ${degrees?.join(", ") ?? "-"} | ${said} | ${told} |`
    }),
    ""
  ]
  const measured = rows.filter(isMeasured)
  const chosen = measured.find(({ variant }) => variant === planned)
  if (chosen !== undefined) {
    const least = Math.min(...measured.map((row) => row.measured.stepSeconds))
    const over = chosen.measured.stepSeconds / least - 1
    lines.push(
      over <= tie
        ? "the planned degrees were the fastest"
        : `the planned degrees took ${signed(over)} against the fastest`
    )
  }
  const complete = rows.length > 0 && compared.length === rows.length
  lines.push(
    `${compared.length} of ${rows.length} predicted and run; worst error ${(100 * worstError).toFixed(1)} %${complete ? "" : "; INCOMPLETE"}`
  )
  return { text: lines.join("\n"), complete, worstError }
}

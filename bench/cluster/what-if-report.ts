// What was foretold beside what was measured: a table, how far off, and whether the order of the algorithms came out. What was
// not measured counts as neither right nor wrong: it makes the report incomplete. Knows nothing of how either was come by.
import type { Answer } from "./what-if-rank.ts"
import { median } from "../../core/median.ts"

export interface Row {
  readonly ranks: number
  readonly point: string
  readonly algorithm: string
  readonly predictedSeconds: number
  /** Of a step, that the compute lane is busy. */
  readonly predictedComputeSeconds: number
  /** Undefined where the time that was given did not suffice. */
  readonly measured: Answer | undefined
  /** How long that took, warm-up and all. */
  readonly ranSeconds?: number
}

interface Measured extends Row {
  readonly measured: Exclude<Answer, { readonly error: string }>
}

const isMeasured = (row: Row): row is Measured => row.measured !== undefined && !("error" in row.measured)

const errorOf = ({ predictedSeconds, measured }: Measured): number =>
  predictedSeconds / measured.stepSeconds - 1

const percent = (share: number): string => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} %`
const milliseconds = (seconds: number): string => (1e3 * seconds).toFixed(1)

/** A line for one run. */
export const rowLine = (row: Row): string => {
  const foretold = `${row.ranks} ranks, ${row.point}, ${row.algorithm}: foretold ${milliseconds(row.predictedSeconds)} ms`
  if (row.measured === undefined) return `${foretold}, not run`
  if ("error" in row.measured) return `${foretold}, failed: ${row.measured.error}`
  const { stepSeconds, computeSeconds, communicationSeconds } = row.measured
  const took = (seconds: number | undefined): string =>
    seconds === undefined ? "" : `, took ${milliseconds(seconds)}`
  return (
    `${foretold}, took ${milliseconds(stepSeconds)}, off by ${percent(row.predictedSeconds / stepSeconds - 1)}; ` +
    `compute ${milliseconds(row.predictedComputeSeconds)}${took(computeSeconds)}` +
    (communicationSeconds === undefined ? "" : `; communication${took(communicationSeconds).slice(1)}`) +
    (row.ranSeconds === undefined ? "" : `; ran for ${row.ranSeconds.toFixed(0)} s`)
  )
}

type Ranking = "right" | "WRONG" | "incomplete"

/** Whether algorithms are in the same order of step time, where they differ by more than `tie`. */
const rankingOf = (rows: ReadonlyArray<Row>, tie: number): Ranking => {
  if (!rows.every(isMeasured)) return "incomplete"
  const same = rows.every((a) =>
    rows.every((b) => {
      const real = a.measured.stepSeconds / b.measured.stepSeconds
      const foretold = a.predictedSeconds / b.predictedSeconds
      return Math.abs(real - 1) <= tie || Math.abs(foretold - 1) <= tie || real > 1 === foretold > 1
    })
  )
  return same ? "right" : "WRONG"
}

/** Whether the one foretold to be fastest is, or is within `tie` of it. */
const firstOf = (rows: ReadonlyArray<Row>, tie: number): Ranking => {
  if (!rows.every(isMeasured) || rows.length === 0) return "incomplete"
  const [best] = rows.toSorted((a, b) => a.predictedSeconds - b.predictedSeconds)
  const least = Math.min(...rows.map(({ measured }) => measured.stepSeconds))
  return best!.measured.stepSeconds <= least * (1 + tie) ? "right" : "WRONG"
}

interface Report {
  readonly text: string
  /** Everything was measured. */
  readonly complete: boolean
  readonly medianError: number
  readonly worstError: number
}

const tie = 0.01

/** `names`: the algorithms, in the order of the table's columns. */
export const reportOf = (rows: ReadonlyArray<Row>, names: ReadonlyArray<string>): Report => {
  const errors = rows.filter(isMeasured).map((row) => Math.abs(errorOf(row)))
  const medianError = median(errors)
  const worstError = errors.length === 0 ? NaN : Math.max(...errors)
  const cell = (list: ReadonlyArray<Row>, name: string): string => {
    const row = list.find(({ algorithm }) => algorithm === name)
    if (row === undefined || row.measured === undefined) return "not run"
    if (!isMeasured(row)) return "failed"
    return `${milliseconds(row.predictedSeconds)} / ${milliseconds(row.measured.stepSeconds)} (${percent(errorOf(row))})`
  }
  const points = [...Map.groupBy(rows, ({ ranks, point }) => `${ranks} | ${point}`)]
  const whole = points.map(([point, list]) => {
    const all = names.every((name) => list.some(({ algorithm }) => algorithm === name))
    return {
      point,
      list,
      first: all ? firstOf(list, tie) : ("incomplete" as const),
      ranking: all ? rankingOf(list, tie) : ("incomplete" as const)
    }
  })
  const complete = rows.length > 0 && whole.every(({ ranking }) => ranking !== "incomplete")
  const lines = [
    `| ranks | link | ${names.join(" | ")} | fastest | order |`,
    `|${"---|".repeat(names.length + 4)}`,
    ...whole.map(
      ({ point, list, first, ranking }) =>
        `| ${point} | ${names.map((name) => cell(list, name)).join(" | ")} | ${first} | ${ranking} |`
    ),
    "",
    `${errors.length} of ${rows.length} runs; error: median ${(100 * medianError).toFixed(1)} %, worst ${(100 * worstError).toFixed(1)} %` +
      (complete ? "" : "; INCOMPLETE")
  ]
  return { text: lines.join("\n"), complete, medianError, worstError }
}

// What was predicted beside what was measured: a table, how far off, and whether the order of the algorithms came out. What was
// not measured counts as neither right nor wrong: it makes the report incomplete. Knows nothing of how either was come by.
import type { Failed } from "./runners.ts"
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

/** What PyTorch has the ranks in: whole models, or a model in parts at each site. */
export type TorchMode = "ddp" | "hsdp"

/** What torch-steps.py answers: steps of the slowest rank. */
export interface TorchSteps {
  /** The median. */
  readonly stepSeconds: number
  readonly meanSeconds: number
  readonly steps: number
  readonly warmupSteps: number
  /** The last steps of the warm-up took as long as those before. */
  readonly steady: boolean
  readonly versions: Readonly<Record<string, string>>
}

/** Beside our own steps, and in none of their errors. */
export interface TorchRow extends Pick<Row, "ranks" | "point" | "ranSeconds"> {
  readonly mode: TorchMode
  /** Undefined where the time that was given did not suffice. */
  readonly outcome: TorchSteps | Failed | undefined
}

const torchNames: Readonly<Record<TorchMode, string>> = { ddp: "PyTorch DDP", hsdp: "PyTorch HSDP" }

/** Of its gradients on GPUs, which decide how long links are taken. */
const torchGradients: Readonly<Record<TorchMode, string>> = {
  ddp: "whole models in bf16 autocast, gradients averaged in --wire (float32 by gloo)",
  hsdp: "gathers parts in bfloat16 and sums gradients in float32, between sites too"
}

const isTimed = (row: TorchRow): row is TorchRow & { readonly outcome: TorchSteps } =>
  row.outcome !== undefined && !("error" in row.outcome)

/** How many times as long our DDP takes at that point, which between sites is HSDP too; undefined where either is not measured. */
const oursOver = (row: TorchRow, rows: ReadonlyArray<Row>): number | undefined => {
  const own = rows.find(
    ({ ranks, point, algorithm }) => ranks === row.ranks && point === row.point && algorithm === "ddp"
  )
  return own !== undefined && isMeasured(own) && isTimed(row)
    ? own.measured.stepSeconds / row.outcome.stepSeconds
    : undefined
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
  const predicted = `${row.ranks} ranks, ${row.point}, ${row.algorithm}: predicted ${milliseconds(row.predictedSeconds)} ms`
  if (row.measured === undefined) return `${predicted}, not run`
  if ("error" in row.measured) return `${predicted}, failed: ${row.measured.error}`
  const { stepSeconds, computeSeconds, communicationSeconds } = row.measured
  const took = (seconds: number | undefined): string =>
    seconds === undefined ? "" : `, took ${milliseconds(seconds)}`
  return (
    `${predicted}, took ${milliseconds(stepSeconds)}, off by ${percent(row.predictedSeconds / stepSeconds - 1)}; ` +
    `compute ${milliseconds(row.predictedComputeSeconds)}${took(computeSeconds)}` +
    (communicationSeconds === undefined ? "" : `; communication${took(communicationSeconds).slice(1)}`) +
    (row.ranSeconds === undefined ? "" : `; ran for ${row.ranSeconds.toFixed(0)} s`)
  )
}

/** A line for one run of PyTorch; `rows` are ours. */
export const torchLine = (row: TorchRow, rows: ReadonlyArray<Row>): string => {
  const { ranks, point, mode, outcome, ranSeconds } = row
  const head = `${ranks} ranks, ${point}, ${torchNames[mode]}:`
  if (outcome === undefined) return `${head} not run, no time was left`
  if ("error" in outcome) return `${head} failed: ${outcome.error}`
  const { stepSeconds, meanSeconds, steps, warmupSteps, steady } = outcome
  const ratio = oursOver(row, rows)
  return (
    `${head} ${milliseconds(stepSeconds)} ms a step, the median of ${steps} (mean ${milliseconds(meanSeconds)}) after ${warmupSteps}` +
    (steady ? "" : ", which were not steady yet") +
    (ratio === undefined ? "" : `; our ddp takes ${ratio.toFixed(2)} times as long`) +
    (ranSeconds === undefined ? "" : `; ran for ${ranSeconds.toFixed(0)} s`)
  )
}

/** What the --out file has of PyTorch: its rows, each with our ddp over it where both are measured, and what ran them. */
export const torchFigures = (mode: TorchMode, torch: ReadonlyArray<TorchRow>, rows: ReadonlyArray<Row>) => ({
  mode,
  versions: torch.find(isTimed)?.outcome.versions,
  rows: torch.map((row) => {
    const { outcome, ...about } = row
    if (!isTimed(row)) return { ...about, outcome }
    const { versions: _, ...steps } = row.outcome
    return { ...about, outcome: steps, oursOver: oursOver(row, rows) }
  })
})

/** Which line of the table it is in. */
const keyOf = ({ ranks, point }: Pick<Row, "ranks" | "point">): string => `${ranks} | ${point}`

type Ranking = "right" | "WRONG" | "incomplete"

/** Whether algorithms are in the same order of step time, where they differ by more than `tie`. */
const rankingOf = (rows: ReadonlyArray<Row>, tie: number): Ranking => {
  if (!rows.every(isMeasured)) return "incomplete"
  const same = rows.every((a) =>
    rows.every((b) => {
      const real = a.measured.stepSeconds / b.measured.stepSeconds
      const predicted = a.predictedSeconds / b.predictedSeconds
      return Math.abs(real - 1) <= tie || Math.abs(predicted - 1) <= tie || real > 1 === predicted > 1
    })
  )
  return same ? "right" : "WRONG"
}

/** Whether the one predicted to be fastest is, or is within `tie` of it. */
const firstOf = (rows: ReadonlyArray<Row>, tie: number): Ranking => {
  if (!rows.every(isMeasured) || rows.length === 0) return "incomplete"
  const [best] = rows.toSorted((a, b) => a.predictedSeconds - b.predictedSeconds)
  const least = Math.min(...rows.map(({ measured }) => measured.stepSeconds))
  return best!.measured.stepSeconds <= least * (1 + tie) ? "right" : "WRONG"
}

interface Report {
  readonly text: string
  /** Everything was measured, PyTorch's steps too where they were asked for. */
  readonly complete: boolean
  /** Of what was predicted of our own steps. */
  readonly medianError: number
  readonly worstError: number
}

const tie = 0.01

/**
 * `names`: the algorithms, in the order of the table's columns. `torch`: where PyTorch was asked for, a column of its steps and one of
 * our ddp's over them; "-" at points at which it was not asked.
 */
export const reportOf = (
  rows: ReadonlyArray<Row>,
  names: ReadonlyArray<string>,
  torch?: { readonly mode: TorchMode; readonly rows: ReadonlyArray<TorchRow> }
): Report => {
  const errors = rows.filter(isMeasured).map((row) => Math.abs(errorOf(row)))
  const medianError = median(errors)
  const worstError = errors.length === 0 ? NaN : Math.max(...errors)
  const cell = (list: ReadonlyArray<Row>, name: string): string => {
    const row = list.find(({ algorithm }) => algorithm === name)
    if (row === undefined || row.measured === undefined) return "not run"
    if (!isMeasured(row)) return "failed"
    return `${milliseconds(row.predictedSeconds)} / ${milliseconds(row.measured.stepSeconds)} (${percent(errorOf(row))})`
  }
  const torchCells = (key: string): ReadonlyArray<string> => {
    if (torch === undefined) return []
    const row = torch.rows.find((one) => keyOf(one) === key)
    if (row === undefined) return ["-", "-"]
    const { outcome } = row
    if (outcome === undefined) return ["not run", "-"]
    if ("error" in outcome) return ["failed", "-"]
    return [milliseconds(outcome.stepSeconds), oursOver(row, rows)?.toFixed(2) ?? "-"]
  }
  const points = [...Map.groupBy(rows, keyOf)]
  const whole = points.map(([point, list]) => {
    const all = names.every((name) => list.some(({ algorithm }) => algorithm === name))
    return {
      point,
      list,
      first: all ? firstOf(list, tie) : ("incomplete" as const),
      ranking: all ? rankingOf(list, tie) : ("incomplete" as const)
    }
  })
  const complete =
    rows.length > 0 &&
    whole.every(({ ranking }) => ranking !== "incomplete") &&
    (torch?.rows.every(isTimed) ?? true)
  const torchColumns = torch === undefined ? [] : [torchNames[torch.mode], "our ddp over it"]
  const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`
  const lines = [
    line(["ranks", "link", ...names, "fastest", "order", ...torchColumns]),
    `|${"---|".repeat(names.length + 4 + torchColumns.length)}`,
    ...whole.map(({ point, list, first, ranking }) =>
      line([point, ...names.map((name) => cell(list, name)), first, ranking, ...torchCells(point)])
    ),
    "",
    `${errors.length} of ${rows.length} runs; error: median ${(100 * medianError).toFixed(1)} %, worst ${(100 * worstError).toFixed(1)} %` +
      (torch === undefined
        ? ""
        : `; ${torch.rows.filter(isTimed).length} of ${torch.rows.length} of PyTorch, in no error`) +
      (complete ? "" : "; INCOMPLETE"),
    ...(torch === undefined
      ? []
      : [
          `${torchNames[torch.mode]}: ${torchGradients[torch.mode]}; eager, float32 masters, AdamW; median steps`
        ])
  ]
  return { text: lines.join("\n"), complete, medianError, worstError }
}

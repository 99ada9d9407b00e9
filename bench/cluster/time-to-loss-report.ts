// When runs come to equal held-out losses: a table for each link, with ratios to DDP. Between two evaluations a loss is taken to fall
// along a straight line over time. Knows nothing of how runs are made.
import { drawCurves } from "../learning/curves.ts"
import { mean } from "../learning/results.ts"
import { alignColumns } from "../../scenarios/table.ts"
import type { Failed } from "./runners.ts"

/** Held-out loss, nats per token, after so many steps and seconds of training. */
interface LossPoint {
  readonly step: number
  /** From the end of the first step on. */
  readonly seconds: number
  readonly loss: number
}

/** What one rank says, of its own parameters; all ranks evaluate after the same steps. */
export interface LearntBy {
  readonly initialLoss: number
  readonly points: ReadonlyArray<LossPoint>
}

export interface Answer {
  readonly ranks: ReadonlyArray<LearntBy>
}

export interface Row {
  readonly point: string
  readonly variant: string
  readonly steps: number
  /** Of a step, by the simulator; undefined where it does not know the variant. */
  readonly predictedSeconds: number | undefined
  /** Undefined where no time was left to run it. */
  readonly outcome: LearntBy | Failed | undefined
}

/** The mean of the ranks' losses, when the last of them was there. */
export const together = ({ ranks }: Answer): LearntBy => ({
  initialLoss: mean(ranks.map(({ initialLoss }) => initialLoss)),
  points: ranks[0]!.points.map(({ step }, index) => {
    const own = ranks.map(({ points }) => points[index]!)
    return {
      step,
      seconds: Math.max(...own.map(({ seconds }) => seconds)),
      loss: mean(own.map(({ loss }) => loss))
    }
  })
})

/** When a loss was reached. */
interface Reached {
  readonly seconds: number
  /** It was there at the first evaluation already. */
  readonly atMost: boolean
}

/** Undefined where no evaluation is as low as `loss`. */
export const whenReached = (points: ReadonlyArray<LossPoint>, loss: number): Reached | undefined => {
  const index = points.findIndex((point) => point.loss <= loss)
  if (index < 0) return undefined
  const [before, there] = [points[index - 1], points[index]!]
  if (before === undefined) return { seconds: there.seconds, atMost: true }
  const share = (before.loss - loss) / (before.loss - there.loss)
  return { seconds: before.seconds + share * (there.seconds - before.seconds), atMost: false }
}

const lowest = ({ points }: LearntBy): number => Math.min(...points.map(({ loss }) => loss))

/** The lowest loss that all come to. */
const commonLoss = (runs: ReadonlyArray<LearntBy>): number => Math.max(...runs.map(lowest))

interface Learnt extends Row {
  readonly outcome: LearntBy
}

const isLearnt = (row: Row): row is Learnt =>
  row.outcome !== undefined && !("error" in row.outcome) && row.outcome.points.length > 0

/** Mean time of a step, the first left out, which the clock does not see. */
const stepSecondsOf = ({ points }: LearntBy): number => {
  const last = points.at(-1)!
  return last.seconds / (last.step - 1)
}

const secondsOf = (reached: Reached | undefined): string =>
  reached === undefined ? "never" : `${reached.atMost ? "<= " : ""}${reached.seconds.toFixed(2)} s`

/** How many times sooner than `base`; at least so many where the first evaluation was low enough. */
const times = (own: Reached | undefined, base: Reached | undefined): string => {
  if (own === undefined || base === undefined) return "-"
  const bound = base.atMost ? (own.atMost ? "~" : "<= ") : own.atMost ? ">= " : ""
  return `${bound}${(base.seconds / own.seconds).toFixed(2)}`
}

/** A line for one run. */
export const rowLine = ({ point, variant, steps, predictedSeconds, outcome }: Row): string => {
  const head = `${point}, ${variant}, ${steps} steps`
  if (outcome === undefined) return `${head}: not run, no time was left`
  if ("error" in outcome) return `${head}: failed: ${outcome.error}`
  const predicted =
    predictedSeconds === undefined ? "" : ` (predicted ${(1e3 * predictedSeconds).toFixed(1)})`
  const curve = outcome.points.map(
    ({ step, seconds, loss }) => `${step}: ${loss.toFixed(3)} at ${seconds.toFixed(2)} s`
  )
  return `${head}: ${(1e3 * stepSecondsOf(outcome)).toFixed(1)} ms a step${predicted}; held-out loss 0: ${outcome.initialLoss.toFixed(3)}, ${curve.join(", ")}`
}

/** The runs over links of one kind. */
const tableOf = (point: string, rows: ReadonlyArray<Row>, base: string): ReadonlyArray<string> => {
  const learnt = rows.filter(isLearnt)
  if (learnt.length === 0) return [`${point}: nothing was learnt`]
  const common = commonLoss(learnt.map(({ outcome }) => outcome))
  const ddp = learnt.find(({ variant }) => variant === base)?.outcome
  const atCommon = ddp && whenReached(ddp.points, common)
  const lines = rows.map((row) => {
    if (!isLearnt(row)) return [row.variant, row.outcome === undefined ? "not run" : "failed"]
    const { variant, steps, outcome } = row
    const reached = whenReached(outcome.points, common)
    const both = ddp === undefined ? NaN : commonLoss([ddp, outcome])
    const pair = ddp && ([whenReached(outcome.points, both), whenReached(ddp.points, both)] as const)
    return [
      variant,
      String(steps),
      (1e3 * stepSecondsOf(outcome)).toFixed(1),
      lowest(outcome).toFixed(3),
      secondsOf(reached),
      times(reached, atCommon),
      ...(pair === undefined ? [] : [both.toFixed(3), secondsOf(pair[0]), secondsOf(pair[1]), times(...pair)])
    ]
  })
  const head = ["", "steps", "ms a step", "lowest loss", `to ${common.toFixed(3)}`, `${base} / it`]
  const paired = [`with ${base} to`, "it", base, `${base} / it`]
  return [`${point}:`, ...alignColumns([ddp === undefined ? head : [...head, ...paired], ...lines])]
}

interface Report {
  readonly text: string
  /** Everything was run. */
  readonly complete: boolean
}

/** `base`: the variant that ratios are to. */
export const reportOf = (rows: ReadonlyArray<Row>, base: string): Report => {
  const tables = [...Map.groupBy(rows, ({ point }) => point)].map(([point, own]) =>
    tableOf(point, own, base).join("\n")
  )
  const done = rows.filter(isLearnt).length
  const complete = rows.length > 0 && done === rows.length
  return {
    text: `${tables.join("\n\n")}\n\n${done} of ${rows.length} runs; losses between evaluations are interpolated${complete ? "" : "; INCOMPLETE"}`,
    complete
  }
}

const labels: Readonly<Record<string, string>> = {
  ddp: "DDP",
  "torch-ddp": "PyTorch DDP",
  "local-sgd": "Local SGD",
  dreamddp: "DreamDDP",
  "streaming-diloco": "Streaming DiLoCo"
}

/** Loss over seconds of the runs over links of one kind; undefined where nothing was learnt. */
export const chartOf = (rows: ReadonlyArray<Row>): string | undefined => {
  const learnt = rows.filter(isLearnt)
  const seconds = learnt.flatMap(({ outcome }) => outcome.points.map((point) => point.seconds))
  if (seconds.length === 0) return undefined
  const [from, last] = [Math.min(...seconds), Math.max(...seconds)]
  const ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500].filter((s) => s >= from && s <= last)
  return drawCurves({
    title: `Held-out loss (nats per character) over seconds of training, links of ${rows[0]!.point}`,
    description: `Held-out loss over time for ${learnt.length} ways to train over links of ${rows[0]!.point}`,
    curves: learnt.map(({ variant, outcome }) => ({
      label: labels[variant] ?? variant,
      band: outcome.points.map(({ seconds: x, loss }) => ({ x, mean: loss, low: loss, high: loss }))
    })),
    axis: { title: "seconds", ticks, from },
    lossStep: 0.2
  })
}

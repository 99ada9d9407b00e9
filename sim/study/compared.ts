// What the rows of a study are compared by, and which of them is the fastest that fits. Knows nothing of how it is shown.
import { familyOf } from "../../scenarios/families.ts"
import type { Metric } from "../../scenarios/family.ts"
import { metricOf, type RunResult } from "../../scenarios/result.ts"
import type { StudyHeader, StudyRow } from "./result.ts"

/** The metrics of the rows' task, the one that they are compared by first: of steps that do unlike work, work in a second. */
export const metricsOf = (
  rows: ReadonlyArray<RunResult & Pick<StudyRow, "failure">>
): ReadonlyArray<Metric> => {
  const [first] = rows
  if (first === undefined) return []
  const { metrics, throughput } = familyOf(first)
  if (throughput === undefined) return metrics
  const work = new Set(
    rows.flatMap((row) => (row.failure === undefined ? [metricOf(row, throughput.work)] : []))
  )
  const unlike = work.size > 1 && [...work].every((one) => one > 0)
  return unlike ? [throughput.metric, ...metrics] : metrics
}

export const headlineOf = (rows: ReadonlyArray<StudyRow>): Metric => {
  const [headline] = metricsOf(rows)
  if (headline === undefined) throw new RangeError("a family has at least one metric")
  return headline
}

/** Of points under the same conditions, the best whose memory suffices. */
interface FastestThatFits {
  /** Axes that nobody chooses for speed, with their values. */
  readonly conditions: Readonly<Record<string, unknown>>
  /** The others. */
  readonly choices: Readonly<Record<string, unknown>>
  /** Undefined where no point fits. */
  readonly row: StudyRow | undefined
  readonly heldBytes: number
  readonly capacityBytes: number
  readonly fit: number
  readonly points: number
}

/** The world and devices are given; algorithms learn unlike things in a step, so that the fastest need not be the best. */
const isCondition = (path: string): boolean =>
  ["world", "device", "memory", "algorithm", "network", "collectives", "host", "costs", "faults"].includes(
    path.split(".", 1)[0]!
  )

/** Nearer than this to the best is as good: of those the one that holds least. */
const same = 0.001

/**
 * For each combination of conditions. Empty where no point has a limit of memory, or nothing is chosen. What is compared is `metricsOf`
 * of all rows.
 */
export const fastestThatFit = (
  { axes, search }: StudyHeader,
  rows: ReadonlyArray<StudyRow>
): ReadonlyArray<FastestThatFits> => {
  const paths = axes.map(({ path }) => path)
  const chosen = paths.filter((path) => !isCondition(path))
  if (search !== null || chosen.length === 0 || rows.length === 0) return []
  const limited = rows.filter((row) => memoryOf(row) !== undefined || row.failure?.kind === "OutOfMemory")
  if (limited.length === 0) return []
  const { name, better } = headlineOf(rows)
  const cost = (row: StudyRow): number => (better === "lower" ? metricOf(row, name) : 1 / metricOf(row, name))
  const pick = (row: StudyRow, wanted: (path: string) => boolean) =>
    Object.fromEntries(paths.filter(wanted).map((path) => [path, row.axes[path]]))
  const groups = Map.groupBy(limited, (row) => JSON.stringify(pick(row, isCondition)))
  return [...groups.values()].map((group): FastestThatFits => {
    const fitting = group.flatMap((row) => {
      const memory = row.failure === undefined ? memoryOf(row) : undefined
      return memory === undefined ? [] : [{ row, ...memory, cost: cost(row) }]
    })
    const least = Math.min(...fitting.map((one) => one.cost))
    const best = fitting
      .filter((one) => one.cost <= least * (1 + same))
      .toSorted((a, b) => a.heldBytes - b.heldBytes)[0]
    return {
      conditions: pick(group[0]!, isCondition),
      choices: best === undefined ? {} : pick(best.row, (path) => !isCondition(path)),
      row: best?.row,
      heldBytes: best?.heldBytes ?? Number.NaN,
      capacityBytes: best?.capacityBytes ?? Number.NaN,
      fit: fitting.length,
      points: group.length
    }
  })
}

/** What its fullest rank holds, of how much; undefined where there is no limit. */
const memoryOf = ({ details }: StudyRow): { heldBytes: number; capacityBytes: number } | undefined => {
  const memory = details?.["memory"]
  if (typeof memory !== "object" || memory === null) return undefined
  const heldBytes: unknown = Reflect.get(memory, "heldBytes")
  const capacityBytes: unknown = Reflect.get(memory, "capacityBytes")
  return typeof heldBytes === "number" && typeof capacityBytes === "number"
    ? { heldBytes, capacityBytes }
    : undefined
}

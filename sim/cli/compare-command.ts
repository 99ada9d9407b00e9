// sim compare: results side by side, with ratios to the first: scenarios, saved results, studies, or one scenario changed.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { defaultTask, familyOf, isTask, withIgnoredFields } from "../../scenarios/families.ts"
import type { Family, Metric } from "../../scenarios/family.ts"
import { Loader } from "../../scenarios/load.ts"
import { formatMetric } from "../../scenarios/metric.ts"
import { metricsOf } from "../study/compared.ts"
import { metricOf, type RunResult } from "../../scenarios/result.ts"
import { linkBytesLabel, linkBytesPerStep } from "../link-traffic.ts"
import { runScenario } from "../run.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { inputErrors } from "../../scenarios/file/input-errors.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { readSource } from "../../scenarios/file/source.ts"
import { labelOf, lastName } from "../study/label.ts"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { alignColumns } from "../../scenarios/table.ts"

export interface CompareCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
}

interface Compared {
  readonly label: string
  readonly result: RunResult
}

/** Why a point of a study has no numbers; undefined where it has. */
const failureOf = (result: RunResult): string | undefined => {
  const failure: unknown = Reflect.get(result, "failure")
  return isRecord(failure) ? String(failure["reason"]) : undefined
}

export const compareCommand = (
  files: ReadonlyArray<string>,
  options: CompareCommandOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const compared = yield* files.length === 1 && options.set.length > 0
        ? alternatives(files[0]!, options.set)
        : Effect.map(
            Effect.forEach(files, (file) => load(file, options.set)),
            (each) => each.flat()
          )
      if (compared.length < 2) {
        const accepted =
          "two files to compare, or one scenario and --set alternatives, such as --set algorithm=dreamddp"
        return yield* inputErrors(new InputError({ file: files.join(" "), field: "", accepted }))
      }
      const other = compared.find(
        ({ result }) => familyOfResult(result) !== familyOfResult(compared[0]!.result)
      )
      if (other !== undefined) {
        return yield* inputErrors(
          new InputError({
            file: other.label,
            field: "task",
            value: other.result.task,
            accepted: `${familyOfResult(compared[0]!.result).task}, as ${compared[0]!.label}: results of different tasks have nothing to compare`
          })
        )
      }
      return said(options.json === true ? json(asJson(compared)) : print(compared))
    })
  )

/** The scenario as it is, and changed by each `--set`; several fields of one alternative are joined by ";". */
const alternatives = (file: string, sets: ReadonlyArray<string>) =>
  Effect.forEach([[], ...sets.map((set) => set.split(";").map((part) => part.trim()))], (set) =>
    Effect.map(runFile(file, set), (result): Compared => ({
      label: set.length === 0 ? file : set.join("; "),
      result
    }))
  )

const runFile = (file: string, sets: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { scenario, locate } = yield* loadLocatedScenario(file, sets)
    const { result } = yield* runScenario(scenario, file, { loader: new Loader() }).pipe(
      Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
    )
    return withIgnoredFields(result, scenario)
  })

/** What a file has to compare: a scenario is run; a saved result or study is read. */
const load = (file: string, sets: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    if (file.endsWith(".arrow")) {
      const { readStudyArrow } = yield* Effect.promise(() => import("../study/study-file.ts"))
      const { rows } = yield* readStudyArrow(file)
      return rows.map((row): Compared => ({ label: rowLabel(row), result: row }))
    }
    const { value } = yield* readSource(file)
    if (isResult(value)) return [{ label: file, result: whole(value) }]
    if (isRecord(value) && Array.isArray(value["rows"])) {
      const rows: ReadonlyArray<unknown> = value["rows"]
      const known = rows.filter(isResult)
      if (known.length > 0 && known.length === rows.length) {
        return known.map((result): Compared => ({ label: rowLabel(result), result: whole(result) }))
      }
    }
    return [{ label: file, result: yield* runFile(file, sets) }]
  })

/** A point's values of the axes, and of a search the value that it is of and the target that it was found for. */
const rowLabel = (row: object): string => {
  const axes = "axes" in row && isRecord(row.axes) ? row.axes : {}
  const found = "find" in row && isRecord(row.find) ? row.find : undefined
  const search =
    found === undefined
      ? []
      : [
          `${lastName(String(found["vary"]))} ${labelOf(found["value"])} for ${String(found["metric"])} ${labelOf(found["target"])}`
        ]
  return [...Object.values(axes).map(labelOf), ...search].join(", ")
}

/** What results of other versions, or made by hand, may lack. */
type SavedResult = Omit<RunResult, "warnings"> & Partial<Pick<RunResult, "warnings">>

const whole = (saved: SavedResult): RunResult => ({ ...saved, warnings: saved.warnings ?? [] })

const isCount = (value: unknown): boolean => typeof value === "number" && value >= 0

/** A result saved before results said their task is one of the usual task. */
const isResult = (value: unknown): value is SavedResult => {
  if (!isRecord(value)) return false
  const task = value["task"] ?? defaultTask
  if (typeof task !== "string" || !isTask(task) || typeof value["algorithm"] !== "string") return false
  // A point that cannot run has its reason in place of numbers.
  if (isRecord(value["failure"])) return typeof value["failure"]["reason"] === "string"
  return (
    typeof value["digest"] === "string" &&
    isCount(value["ranks"]) &&
    ["steps", "warmupSteps"].every((name) => value[name] === undefined || isCount(value[name])) &&
    (value["warnings"] === undefined || isListOf(value["warnings"], (each) => typeof each === "string")) &&
    familyOf({ task }).metrics.every(({ name }) => typeof value[name] === "number" || value[name] === null) &&
    isListOf(value["links"], (link) => isRecord(link) && isCount(link["bytes"]) && isCount(link["count"]))
  )
}

const isListOf = (value: unknown, isEach: (each: unknown) => boolean): boolean =>
  Array.isArray(value) && value.every(isEach)

const familyOfResult = (result: RunResult): Family => familyOf({ task: result.task ?? defaultTask })

const ratio = (value: number, to: number): number | null => {
  if (Number.isNaN(value) || Number.isNaN(to)) return null
  return to === 0 ? (value === 0 ? 1 : null) : value / to
}

/** Steps that do unlike work are compared by work in a second, as a study's are. */
const metricsOfAll = (compared: ReadonlyArray<Compared>): ReadonlyArray<Metric> =>
  metricsOf(compared.map(({ result }) => ({ ...result, task: result.task ?? defaultTask })))

const asJson = (compared: ReadonlyArray<Compared>) => {
  const first = compared[0]!.result
  const metrics = metricsOfAll(compared)
  return {
    results: compared.map(({ label, result }) => {
      const sent = linkBytesPerStep(result)
      return {
        label,
        ratio: {
          ...Object.fromEntries(
            metrics.map(({ name }) => [name, ratio(metricOf(result, name), metricOf(first, name))])
          ),
          ...(sent === undefined
            ? {}
            : { linkBytesPerStep: ratio(sent, linkBytesPerStep(first) ?? Number.NaN) })
        },
        ...(sent === undefined ? {} : { linkBytesPerStep: sent }),
        result
      }
    })
  }
}

const print = (compared: ReadonlyArray<Compared>): string => {
  const first = compared[0]!.result
  const metrics = metricsOfAll(compared)
  const times = (value: number, to: number): string => {
    const quotient = ratio(value, to)
    return quotient === null ? "" : `${quotient.toPrecision(3)} x`
  }
  const sent = linkBytesPerStep(first)
  const sends = compared.some(({ result }) => linkBytesPerStep(result) !== undefined)
  const lines = alignColumns([
    [
      "",
      "algorithm",
      "ranks",
      ...metrics.flatMap(({ label }, index) => (index === 0 ? [label, ""] : [label])),
      ...(sends ? [linkBytesLabel(compared.map(({ result }) => result)), ""] : [])
    ],
    ...compared.map(({ label, result }) => [
      label,
      result.algorithm,
      failureOf(result) === undefined ? String(result.ranks) : "-",
      ...metrics.flatMap(({ name, unit }, index) => {
        const text = formatMetric(metricOf(result, name), unit)
        return index === 0 ? [text, times(metricOf(result, name), metricOf(first, name))] : [text]
      }),
      ...(sends
        ? [
            formatMetric(linkBytesPerStep(result) ?? Number.NaN, "bytes"),
            times(linkBytesPerStep(result) ?? Number.NaN, sent ?? Number.NaN)
          ]
        : [])
    ])
  ])
  const failures = compared.flatMap(({ label, result }) => {
    const reason = failureOf(result)
    return reason === undefined ? [] : [`  ${label}: ${reason}`]
  })
  const warnings = new Set(
    compared.flatMap(({ label, result }) => result.warnings.map((text) => `${label}: ${text}`))
  )
  return [
    ...lines,
    ...(failures.length === 0 ? [] : ["", "points that cannot run", ...failures]),
    ...(warnings.size === 0 ? [] : ["", "warnings", ...[...warnings].map((text) => `  ${text}`)]),
    ""
  ].join("\n")
}

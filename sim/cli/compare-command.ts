// sim compare: results side by side, with ratios to the first: scenarios, saved results, studies, or one scenario changed.
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { printEstimates } from "../../core/cost/provenance.ts"
import { InputError } from "../../core/input-error.ts"
import { defaultTask, withIgnoredFields } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { formatMetric } from "../../scenarios/metric.ts"
import { metricsOf } from "../study/compared.ts"
import { metricOf, type RunResult } from "../../scenarios/result.ts"
import { linkBytesLabel, linkBytesPerStep } from "../link-traffic.ts"
import { runScenario } from "../run.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import type { FieldPath } from "../../scenarios/file/check.ts"
import { inputErrors, type InputErrors } from "../../scenarios/file/input-errors.ts"
import { pathText } from "../../scenarios/file/override.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { readSource, type Source } from "../../scenarios/file/source.ts"
import { failedResult, shortFailure, withoutNumbers } from "../study/failure.ts"
import { labelOf, lastName } from "../study/label.ts"
import type { StudyRow } from "../study/result.ts"
import { saysResult, whyNotResult, type SavedResult } from "../study/saved.ts"
import { execute, json, toldThough, type Outcome } from "../../scenarios/cli/execute.ts"
import { simulating } from "./simulating.ts"
import { alignColumns, section } from "../../scenarios/table.ts"

export interface CompareCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
}

interface Compared {
  readonly label: string
  readonly result: RunResult & Pick<StudyRow, "failure">
  /** What was given cannot be run. */
  readonly refused?: InputError
}

/** What is to be compared, known by its label and task before any of it runs. */
interface Candidate {
  readonly label: string
  readonly task: string
  readonly compared: Effect.Effect<Compared>
}

export const compareCommand = (
  files: ReadonlyArray<string>,
  options: CompareCommandOptions
): Promise<number> =>
  execute(
    Effect.gen(function* () {
      const candidates = yield* files.length === 1 && options.set.length > 0
        ? alternatives(files[0]!, options.set)
        : Effect.map(
            Effect.forEach(files, (file) => candidatesOf(file, options.set)),
            (each) => each.flat()
          )
      const [first] = candidates
      if (first === undefined || candidates.length < 2) {
        const accepted =
          "two files to compare, or one scenario and --set alternatives, such as --set algorithm=dreamddp"
        return yield* inputErrors(new InputError({ file: files.join(" "), field: "", accepted }))
      }
      const other = candidates.find(({ task }) => task !== first.task)
      if (other !== undefined) {
        return yield* inputErrors(
          new InputError({
            file: other.label,
            field: "task",
            value: other.task,
            accepted: `${first.task}, as ${first.label}: results of different tasks have nothing to compare`
          })
        )
      }
      const compared = yield* Effect.forEach(candidates, (candidate) => candidate.compared)
      const outcome: Outcome = {
        // As of a study: some of it can run.
        ok: compared.some(({ result }) => result.failure === undefined),
        text: options.json === true ? json(asJson(compared)) : print(compared)
      }
      const [refused, ...rest] = compared.flatMap((one) => (one.refused === undefined ? [] : [one.refused]))
      return refused === undefined
        ? outcome
        : yield* toldThough(outcome, Effect.fail(inputErrors(refused, ...rest)))
    })
  )

/** The scenario as it is, and changed by each `--set`; several fields of one alternative are joined by ";". */
const alternatives = (file: string, sets: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const saved = yield* savedIn(file)
    if (saved !== undefined) return yield* notChanged(file, sets)
    return yield* Effect.forEach(
      [[], ...sets.map((set) => set.split(";").map((part) => part.trim()))],
      (set) => runOf(set.length === 0 ? file : set.join("; "), file, set)
    )
  })

/** The refusal of `--set` beside what has been run already. */
const notChanged = (file: string, sets: ReadonlyArray<string>) =>
  Effect.fail(
    inputErrors(
      new InputError({
        file: `--set ${sets.join(" --set ")}`,
        field: "",
        value: `${file}, results that were saved,`,
        accepted: "scenario files beside it, whose runs it changes"
      })
    )
  )

/** A scenario; one whose run comes to no end, or is refused, takes no other's numbers away. */
const runOf = (label: string, file: string, sets: ReadonlyArray<string>) =>
  Effect.map(loadLocatedScenario(file, sets), ({ scenario, locate }): Candidate => {
    const compared = simulating((onSteps) =>
      runScenario(scenario, file, { loader: new Loader(), onSteps })
    ).pipe(
      Effect.map(({ result }): Compared => ({ label, result: withIgnoredFields(result, scenario) })),
      Effect.catch((error) => {
        const refused = error instanceof InputError ? locate(error) : undefined
        const result = failedResult(scenario, refused ?? error)
        return Effect.succeed<Compared>({
          label,
          result,
          ...(refused === undefined ? {} : { refused })
        })
      })
    )
    return { label, task: scenario.task, compared }
  })

/** A result that is there already. */
const known = (label: string, saved: SavedResult): Candidate => {
  const result = whole(saved)
  return { label, task: result.task, compared: Effect.succeed({ label, result }) }
}

/** What a file has to compare: a scenario is run; a saved result or study is read. */
const candidatesOf = (file: string, sets: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const saved = yield* savedIn(file)
    if (saved === undefined) return [yield* runOf(file, file, sets)]
    return sets.length === 0 ? saved : yield* notChanged(file, sets)
  })

/** The results that a file has; undefined of one that has none, as a scenario. */
const savedIn = (file: string) =>
  Effect.gen(function* () {
    const inside = join(file, "study.arrow")
    if (existsSync(inside)) {
      const [value, accepted] = ["a study's folder", `its table, ${inside}`]
      return yield* inputErrors(new InputError({ file, field: "", value, accepted }))
    }
    if (file.endsWith(".arrow")) {
      const { readStudyArrow } = yield* Effect.promise(() => import("../study/study-file.ts"))
      const { rows } = yield* readStudyArrow(file)
      return rows.map((row) => known(rowLabel(row), row))
    }
    const source = yield* readSource(file)
    const { value } = source
    if (isRecord(value) && Array.isArray(value["rows"])) {
      const rows: ReadonlyArray<unknown> = value["rows"]
      const results = yield* Effect.forEach(rows, (row, index) => resultIn(source, row, ["rows", index]))
      if (results.length > 0) return results.map((result) => known(rowLabel(result), result))
    } else if (saysResult(value)) return [known(file, yield* resultIn(source, value, []))]
    return undefined
  })

/** Fails with all that is wrong with it. */
const resultIn = (
  source: Source,
  value: unknown,
  path: FieldPath
): Effect.Effect<SavedResult, InputErrors> => {
  const [first, ...rest] = whyNotResult(value).map((problem) => {
    const whole = [...path, ...problem.path]
    return new InputError({
      file: source.where(whole, problem.atKey),
      field: pathText(whole),
      ...(problem.value === undefined ? {} : { value: problem.value }),
      accepted: problem.accepted
    })
  })
  return first === undefined ? Effect.succeed(value as SavedResult) : Effect.fail(inputErrors(first, ...rest))
}

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

/** A result saved before results said their task is one of the usual task. */
const whole = (saved: SavedResult): Compared["result"] => {
  const { scenario = "", task = defaultTask, algorithm, failure, ...rest } = saved
  return {
    ...withoutNumbers({ scenario, task, algorithm }),
    ...rest,
    ...(failure === undefined ? {} : { failure: { kind: "unknown", ...failure } })
  }
}

const ratio = (value: number, to: number): number | null => {
  if (Number.isNaN(value) || Number.isNaN(to)) return null
  return to === 0 ? (value === 0 ? 1 : null) : value / to
}

/** What others are told as so many times of: the first that came to an end. */
const reference = (compared: ReadonlyArray<Compared>): RunResult =>
  (compared.find(({ result }) => result.failure === undefined) ?? compared[0]!).result

/** Steps that do unlike work are compared by work in a second, as a study's are. */
const metricsOfAll = (compared: ReadonlyArray<Compared>) => metricsOf(compared.map(({ result }) => result))

const asJson = (compared: ReadonlyArray<Compared>) => {
  const first = reference(compared)
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
  const first = reference(compared)
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
      result.failure === undefined ? String(result.ranks) : "-",
      ...metrics.flatMap(({ name, unit }, index) => {
        const text =
          index === 0 && result.failure !== undefined
            ? shortFailure(result.failure)
            : formatMetric(metricOf(result, name), unit)
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
  const failures = compared.flatMap(({ label, result: { failure } }) =>
    failure === undefined ? [] : [`  ${label}: ${failure.reason}`]
  )
  const estimates = Map.groupBy(
    compared.flatMap(({ label, result }) =>
      printEstimates(result.estimates).map((text) => ({ label, text }))
    ),
    ({ text }) => text
  )
  const ran = compared.filter(({ result }) => result.failure === undefined)
  const unmeasured = [...estimates].map(([text, all]) => {
    const labels = new Set(all.map(({ label }) => label))
    return labels.size === ran.length ? text : `${[...labels].join(", ")}: ${text}`
  })
  const warnings = new Set(
    compared.flatMap(({ label, result }) => result.warnings.map((text) => `${label}: ${text}`))
  )
  return [
    ...lines,
    ...(failures.length === 0 ? [] : ["", "what cannot run", ...failures]),
    ...section("not measured", unmeasured),
    ...(warnings.size === 0 ? [] : ["", "warnings", ...[...warnings].map((text) => `  ${text}`)]),
    ""
  ].join("\n")
}

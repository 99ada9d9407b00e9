// sim compare: results side by side, with ratios to the first: scenarios, saved results, studies, or one scenario changed.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { formatBytes, formatSeconds, formatShare } from "../../core/units.ts"
import { Loader } from "../load.ts"
import type { RunResult } from "../result.ts"
import { runScenario } from "../run.ts"
import { loadLocatedScenario } from "../scenario-file.ts"
import { withIgnoredFields } from "../scenario/ignored.ts"
import { inputErrors } from "../scenario/input-errors.ts"
import { isRecord } from "../scenario/shape.ts"
import { readSource } from "../scenario/source.ts"
import { labelOf } from "../study/label.ts"
import { execute, json, said } from "./execute.ts"
import { alignColumns } from "./table.ts"

export interface CompareCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly json?: boolean
}

interface Compared {
  readonly label: string
  readonly result: RunResult
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
      return rows.map((row): Compared => ({ label: rowLabel(row.axes), result: row }))
    }
    const { value } = yield* readSource(file)
    if (isResult(value)) return [{ label: file, result: value }]
    if (isRecord(value) && Array.isArray(value["rows"])) {
      const rows: ReadonlyArray<unknown> = value["rows"]
      const known = rows.filter(isResult)
      if (known.length > 0 && known.length === rows.length) {
        return known.map((result): Compared => {
          const axes = "axes" in result && isRecord(result.axes) ? result.axes : {}
          return { label: rowLabel(axes), result }
        })
      }
    }
    return [{ label: file, result: yield* runFile(file, sets) }]
  })

const rowLabel = (axes: Readonly<Record<string, unknown>>): string =>
  Object.values(axes).map(labelOf).join(", ")

const numbers = [
  "stepSeconds",
  "computeSeconds",
  "computeUtilisation",
  "exposedCommunicationSeconds"
] as const

const isResult = (value: unknown): value is RunResult =>
  isRecord(value) &&
  typeof value["digest"] === "string" &&
  typeof value["algorithm"] === "string" &&
  numbers.every((field) => typeof value[field] === "number") &&
  Array.isArray(value["links"]) &&
  value["links"].every((link: unknown) => isRecord(link) && typeof link["bytes"] === "number")

const bytesOf = ({ links }: RunResult): number => links.reduce((sum, { bytes }) => sum + bytes, 0)

/** Bytes over all links for each step of the run. */
const bytesPerStep = (result: RunResult): number => bytesOf(result) / (result.steps + result.warmupSteps)

const ratio = (value: number, to: number): number | null => (to === 0 ? (value === 0 ? 1 : null) : value / to)

const asJson = (compared: ReadonlyArray<Compared>) => ({
  results: compared.map(({ label, result }) => ({
    label,
    ratio: {
      stepSeconds: ratio(result.stepSeconds, compared[0]!.result.stepSeconds),
      computeSeconds: ratio(result.computeSeconds, compared[0]!.result.computeSeconds),
      exposedCommunicationSeconds: ratio(
        result.exposedCommunicationSeconds,
        compared[0]!.result.exposedCommunicationSeconds
      ),
      linkBytesPerStep: ratio(bytesPerStep(result), bytesPerStep(compared[0]!.result))
    },
    linkBytesPerStep: bytesPerStep(result),
    result
  }))
})

const print = (compared: ReadonlyArray<Compared>): string => {
  const first = compared[0]!.result
  const times = (value: number, to: number): string => {
    const quotient = ratio(value, to)
    return quotient === null ? "" : `${quotient.toPrecision(3)} x`
  }
  const lines = alignColumns([
    ["", "algorithm", "ranks", "step", "", "compute", "utilisation", "waiting", "link bytes a step", ""],
    ...compared.map(({ label, result }) => [
      label,
      result.algorithm,
      String(result.ranks),
      formatSeconds(result.stepSeconds),
      times(result.stepSeconds, first.stepSeconds),
      formatSeconds(result.computeSeconds),
      formatShare(result.computeUtilisation),
      formatSeconds(result.exposedCommunicationSeconds),
      formatBytes(bytesPerStep(result)),
      times(bytesPerStep(result), bytesPerStep(first))
    ])
  ])
  const warnings = new Set(
    compared.flatMap(({ label, result }) => result.warnings.map((text) => `${label}: ${text}`))
  )
  return [
    ...lines,
    ...(warnings.size === 0 ? [] : ["", "warnings", ...[...warnings].map((text) => `  ${text}`)]),
    ""
  ].join("\n")
}

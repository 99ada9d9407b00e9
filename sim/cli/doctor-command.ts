// sim doctor: what a file is, what is in it, what can be done with it, and what it lacks.
import * as Effect from "effect/Effect"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { diagnose, type Diagnosis } from "../../traces/doctor.ts"

export interface DoctorCommandOptions {
  readonly json?: boolean
}

export const doctorCommand = (file: string, options: DoctorCommandOptions): Promise<number> =>
  execute(
    Effect.map(diagnose(file), (diagnosis) => ({
      ...said(options.json === true ? json(diagnosis) : print(diagnosis)),
      ok: diagnosis.readable
    }))
  )

const print = ({ file, title, readable, contents, uses, missing, warnings }: Diagnosis): string =>
  [
    `${file}: ${title}`,
    ...(readable ? [] : ["nothing here can use it as it is"]),
    ...contents.map((line) => `  ${line}`),
    ...(uses.length === 0
      ? []
      : ["what can be done with it", ...uses.map(({ what, how }) => `  ${what}: ${how}`)]),
    ...(missing.length === 0
      ? []
      : ["what is missing, and how to record it", ...missing.map(({ what, how }) => `  ${what}: ${how}`)]),
    ...warnings.map((warning) => `warning: ${warning}`),
    ""
  ].join("\n")

// sim doctor: what a file is, what is in it, what can be done with it, and what it lacks.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { execute, json, said } from "../../scenarios/cli/execute.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { diagnose, type Diagnosis } from "../../traces/doctor.ts"
import { heldToOwn } from "./doctor-own.ts"

export interface DoctorCommandOptions {
  readonly json?: boolean
}

export const doctorCommand = (file: string, options: DoctorCommandOptions): Promise<number> =>
  execute(
    Effect.map(Effect.flatMap(diagnose(file), checked), (diagnosis) => ({
      ...said(options.json === true ? json(diagnosis) : print(diagnosis)),
      ok: diagnosis.readable
    }))
  )

/** What looks like a scenario, held to what scenarios must have; what our commands wrote, to what reads it. */
const checked = (diagnosis: Diagnosis): Effect.Effect<Diagnosis> =>
  diagnosis.kind !== "scenario"
    ? heldToOwn(diagnosis)
    : Effect.map(Effect.result(loadScenario(diagnosis.file, [])), (loaded) =>
        Result.isSuccess(loaded)
          ? diagnosis
          : {
              ...diagnosis,
              readable: false,
              title: "YAML that is no scenario as it is",
              uses: [],
              warnings: [loaded.failure.message]
            }
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

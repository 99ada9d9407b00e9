// exec generate: generates for real, whatever the scenario's family generates: with experts in host memory under any cache
// policy, or serving requests with any key/value cache method. Weights are random, or those that `exec train` saved.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { json } from "../../scenarios/cli/execute.ts"
import { families, familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { executeThen } from "../execute.ts"
import { requireDevice, runCommand, warn } from "./command.ts"
import { emulatedLinks } from "./links.ts"

export interface GenerateCommandOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly verify?: boolean
  readonly weights?: string
  readonly text?: string
  readonly json?: boolean
}

export const generateCommand = (file: string, options: GenerateCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      if (options.text !== undefined && options.weights === undefined) {
        const accepted = "a text together with --weights: random weights continue random tokens"
        return yield* new InputError({ file: "--text", field: "", value: options.text, accepted })
      }
      yield* requireDevice
      const family = familyOf(scenario)
      if (family.generate === undefined) {
        const able = families.filter((one) => "generate" in one).map(({ task }) => task)
        const accepted = `a task that generates: ${able.join(" or ")}`
        return yield* locate(new InputError({ file, field: "task", value: scenario.task, accepted }))
      }
      const warnings = yield* warn(scenario)
      const { runnable, keep, tell } = yield* family
        .generate(scenario, file, { loader: new Loader() }, options)
        .pipe(Effect.mapError(locate))
      const run = ({ world, program, collectives, capacityBytes, initial, h2d, d2h }: Runnable) =>
        executeThen(
          {
            world,
            program: program(),
            capacityBytes,
            initial,
            h2d,
            d2h,
            ...emulatedLinks(world, collectives)
          },
          (ended) => ({ kept: keep(ended), outcomes: ended.ranks.map(({ value }) => value) })
        )
      const rehearsal = "rehearsal" in runnable ? yield* run(runnable.rehearsal) : undefined
      const { kept } = yield* run(
        "rehearsal" in runnable ? runnable.performance(rehearsal!.outcomes) : runnable
      )
      const told = tell(kept, rehearsal?.kept)
      return {
        text:
          options.json === true ? json({ ...(told.json as object), warnings }) : `${told.lines.join("\n")}\n`,
        ok: told.ok
      }
    }),
    options.backend
  )

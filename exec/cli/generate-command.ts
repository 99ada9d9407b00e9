// exec generate: generates for real, whatever the scenario's family generates: with experts in host memory under any cache
// policy, or serving requests with any key/value cache method. Weights are random, or those that `exec train` saved.
import * as Effect from "effect/Effect"
import { InputError } from "../../core/input-error.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { families, familyOf, type Scenario } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import type { Rehearsed, Runnable } from "../../scenarios/runnable.ts"
import { filesNamedIn } from "../../scenarios/named-files.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { executeThen } from "../execute.ts"
import type { Generating } from "../../scenarios/generating.ts"
import type { ProcessJob } from "../job/processes.ts"
import { CurrentWarnings, requireDevice, warn } from "./command.ts"
import { filesOfOptions, perhapsInJob, runAsJob, warnOfLinks, type JobOptions } from "./job.ts"
import { emulatedLinks } from "./links.ts"

export interface GenerateCommandOptions extends JobOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly verify?: boolean
  readonly weights?: string
  readonly text?: string
  readonly json?: boolean
}

export const generateCommand = (file: string, options: GenerateCommandOptions): Promise<number> =>
  runAsJob(file, options, generatedFrom(file, options))

const generatedFrom = (file: string, options: GenerateCommandOptions) =>
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
    const generating = yield* family
      .generate(scenario, file, { loader: new Loader() }, options)
      .pipe(Effect.mapError(locate))
    const { runnable } = generating
    const { world } = "rehearsal" in runnable ? runnable.rehearsal : runnable
    const files = [
      ...filesNamedIn(scenario, file),
      ...filesOfOptions({ "--weights": options.weights, "--text": options.text })
    ]
    const together = { ranks: world.size, file, plan: { scenario }, files }
    return yield* perhapsInJob(options, together, (job) => generated(scenario, generating, options, job))
  })

/** Generates, and tells the result; in a job of processes, that is rank 0's to do. */
const generated = (
  scenario: Scenario,
  { runnable, keep, tell }: Generating,
  options: GenerateCommandOptions,
  job: ProcessJob | undefined
) =>
  Effect.gen(function* () {
    const isFirst = job === undefined || job.rank === 0
    const warnings = yield* CurrentWarnings
    if (isFirst) yield* warn(scenario)
    const run = ({ world, program, collectives, capacityBytes, initial, h2d, d2h }: Runnable) => {
      const warned = job !== undefined && isFirst ? warnOfLinks(world, job) : Effect.void
      const ran = executeThen(
        {
          world,
          program: program(),
          capacityBytes,
          initial,
          h2d,
          d2h,
          ...(job === undefined ? emulatedLinks(world, collectives) : { job: () => job.run() })
        },
        (ended) => ({
          outcomes: ended.ranks.map(({ value }) => value),
          kept: isFirst ? keep(ended) : undefined
        })
      )
      return Effect.andThen(warned, ran)
    }
    const rehearsed = function* (of: Rehearsed) {
      const { kept, outcomes } = yield* run(of.rehearsal)
      return { kept, performance: of.performance(outcomes) }
    }
    const { kept: rehearsal, performance } =
      "rehearsal" in runnable ? yield* rehearsed(runnable) : { kept: undefined, performance: runnable }
    const { kept } = yield* run(performance)
    if (!isFirst) return said("")
    const told = tell(kept, rehearsal)
    return {
      text:
        options.json === true
          ? json({ ...(told.json as object), warnings: warnings.told })
          : `${told.lines.join("\n")}\n`,
      ok: told.ok
    }
  })

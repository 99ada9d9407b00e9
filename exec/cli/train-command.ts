// exec train: trains a scenario's model for real, with any data-parallel algorithm, on ranks that are threads of this process.
import * as Effect from "effect/Effect"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import { InputError } from "../../core/input-error.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import { formatBytes, formatSeconds } from "../../core/units.ts"
import { json, said } from "../../sim/cli/execute.ts"
import { writeError } from "../../sim/cli/output.ts"
import { terminalProgress } from "../../sim/cli/progress.ts"
import { writeTextFile } from "../../sim/cli/text-file.ts"
import { Loader } from "../../sim/load.ts"
import { chromeTrace } from "../../sim/perfetto.ts"
import { loadLocatedScenario } from "../../sim/scenario-file.ts"
import { execute } from "../execute.ts"
import { dataParallelOnly, requireDevice, runCommand } from "./command.ts"
import { Curve } from "./curve.ts"
import { emulatedLinks } from "./links.ts"
import { prepareTraining } from "./prepare.ts"

export interface TrainCommandOptions {
  readonly set: ReadonlyArray<string>
  readonly steps?: number
  readonly text?: string
  readonly evaluateEvery?: number
  readonly planFrom?: string
  readonly timeline?: string
  readonly json?: boolean
}

/** `exec train --json`. */
export interface TrainResult {
  readonly scenario: string
  readonly algorithm: string
  readonly ranks: number
  readonly parameters: number
  readonly steps: number
  readonly tokens: number
  readonly makespanSeconds: number
  readonly tokensPerSecond: number
  readonly peakBytes: { readonly device: number; readonly host: number }
  /** Mean over ranks of the training loss of each step, by number of steps taken. */
  readonly losses: ReadonlyArray<{ readonly step: number; readonly loss: number }>
  /** Mean over ranks of the loss on held-out text, each rank with its own parameters. */
  readonly heldOutLosses: ReadonlyArray<{ readonly step: number; readonly loss: number }>
}

/** Held-out batches in an evaluation. */
const heldOutBatches = 8

export const trainCommand = (file: string, options: TrainCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const sets =
        options.text === undefined
          ? options.set
          : [...options.set, `training.text=${JSON.stringify(options.text)}`]
      const loaded = yield* loadLocatedScenario(file, sets)
      const scenario = yield* dataParallelOnly(loaded.scenario, file)
      const prepared = yield* prepareTraining(scenario, file, new Loader(), options.planFrom).pipe(
        Effect.mapError(loaded.locate)
      )
      yield* requireDevice
      const { world, planned, corpus, graph } = prepared
      const steps = options.steps ?? prepared.steps
      const context = graph.inputs[0]!.shape[1]!
      const evaluated = corpus.heldOut.length > context
      if (options.evaluateEvery !== undefined && !evaluated) {
        return yield* new InputError({
          file,
          field: "training.heldOut",
          value: `${corpus.heldOut.length} characters held out`,
          accepted: `a share that leaves more than the ${context} characters of a window`
        })
      }
      const progress = terminalProgress("train")
      const losses = new Curve(world.size)
      const heldOut = new Curve(world.size)
      const result = yield* execute({
        world,
        program: observed(prepared.build, (build) => planned.program(build, steps), {
          everySteps: 1,
          onLoss: (rank, step, loss) => {
            losses.add(rank, step, loss)
            if (rank === 0) progress.update(step, steps, `loss ${loss.toFixed(3)}`)
          },
          ...(evaluated
            ? {
                evaluation: {
                  everySteps: Math.min(options.evaluateEvery ?? steps, steps),
                  batches: heldOutBatches,
                  onLoss: (rank, step, loss) => heldOut.add(rank, step, loss)
                }
              }
            : {})
        }),
        capacityBytes: scenario.memory,
        record: options.timeline !== undefined,
        ...emulatedLinks(world, scenario.collectives.algorithm)
      }).pipe(Effect.ensuring(Effect.sync(progress.end)))
      if (options.timeline !== undefined && result.timeline !== undefined) {
        yield* writeTextFile(options.timeline, chromeTrace(result.timeline))
        writeError(`exec: wrote ${options.timeline}; open it in https://ui.perfetto.dev\n`)
      }
      const tokens = prepared.batchTokens * world.size * steps
      const most = (place: "device" | "host") =>
        Math.max(...result.ranks.map(({ peakBytes }) => peakBytes[place]))
      const told: TrainResult = {
        scenario: scenario.name,
        algorithm: scenario.algorithm.name,
        ranks: world.size,
        parameters: parameterCount(graph),
        steps,
        tokens,
        makespanSeconds: result.makespanSeconds,
        tokensPerSecond: tokens / result.makespanSeconds,
        peakBytes: { device: most("device"), host: most("host") },
        losses: losses.means,
        heldOutLosses: heldOut.means
      }
      return said(options.json === true ? json(told) : print(told))
    })
  )

const print = (result: TrainResult): string => {
  const { losses, heldOutLosses, makespanSeconds, steps } = result
  const [first, last] = [losses[0], losses.at(-1)]
  const lines = [
    `${result.scenario}: ${result.algorithm} on ${result.ranks} ranks, ${result.parameters} parameters`,
    `${steps} steps in ${formatSeconds(makespanSeconds)}, ${formatSeconds(makespanSeconds / steps)} each; ${Math.round(result.tokensPerSecond)} tokens/s`,
    `training loss ${first?.loss.toFixed(3)} to ${last?.loss.toFixed(3)}`
  ]
  for (const { step, loss } of heldOutLosses)
    lines.push(`held-out loss ${loss.toFixed(3)} after ${step} steps`)
  lines.push(`at most ${formatBytes(result.peakBytes.device)} of device memory on a rank`)
  return `${lines.join("\n")}\n`
}

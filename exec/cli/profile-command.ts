// exec profile: what a scenario takes on this machine, as the profile that `sim` reads. Of data-parallel training its layers,
// kernels and collectives: all ranks compute at the same time, as they would in training, and none communicates, so layers are
// slowed down by the other ranks of this machine as in a real run, and by nothing else. Of other tasks the kernels and collectives
// of one run.
import { availableParallelism } from "node:os"
import * as Effect from "effect/Effect"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import { sizeBytesOf } from "../../core/machine/tensor.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import type { Profile } from "../../core/profile.ts"
import { formatSeconds, formatShare } from "../../core/units.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { filesOf, requireApart } from "../../scenarios/cli/outputs.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { tableProfile } from "../../traces/table-profile.ts"
import { InputError } from "../../core/input-error.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { rowOf, thisDevice, timeCollectives, timeCopies } from "../bench.ts"
import { execute } from "../execute.ts"
import { layerTimes } from "../layer-times.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { forBenchmark, recordedCollectives, recordedOps } from "../recorded.ts"
import { requireDevice, runCommand, warn } from "./command.ts"
import { runnableOf } from "./runnable.ts"

export interface ProfileCommandOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly out: string
  readonly steps: number
  readonly json?: boolean
}

const warmupSteps = 2

/** No step averages anything. */
const alone = {
  sets: [[]],
  order: "step-then-average",
  deadline: "end-of-backward",
  overlap: true
} as const

export const profileCommand = (file: string, options: ProfileCommandOptions): Promise<number> =>
  runCommand(
    Effect.gen(function* () {
      const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
      yield* requireApart([["--out", options.out]], filesOf(scenario, file))
      if (scenario.task !== "data-parallel") return yield* profileRun(scenario, file, locate, options)
      const { world, graph, build } = yield* prepareTraining(scenario, file, new Loader()).pipe(
        Effect.mapError(locate)
      )
      yield* requireDevice
      yield* warn(scenario)
      const { steps } = options
      const journals: Array<Journal> = []
      const program = journaled(partialLocalSgd(build, alone, warmupSteps + steps), journals)
      const { timeline, opLogs } = yield* execute({ world, program, record: true })
      const names = graph.layers.map(({ name }) => name)
      const { layers, busySeconds, unattributedShare } = layerTimes(timeline!, names, warmupSteps, steps)
      const span = layers.reduce(
        (sum, { forward, backward, optimizer }) =>
          sum + forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds,
        0
      )
      const bytes = sizeBytesOf(parameterCount(graph), "float32")
      const sizes = [...new Set([1 << 10, 1 << 14, 1 << 18, 1 << 22, bytes])].toSorted((a, b) => a - b)
      const collectives = world.size < 2 ? [] : yield* timeCollectives(world.size, sizes)
      const cores = availableParallelism()
      const profile: Profile = {
        name: graph.name,
        device: thisDevice(),
        source: `exec profile: ${world.size} ranks computing at the same time on ${cores} cores`,
        steps,
        stepSeconds: span,
        unprofiledStepSeconds: span,
        deviceBusySeconds: busySeconds,
        unattributedShare,
        layers,
        parameters: graph.layers
          .flatMap(({ parameters }, layer) =>
            parameters.map(({ shape, dtype }) => ({ layer, shape, dtype: String(dtype) }))
          )
          .toReversed(),
        ops: [
          ...recordedOps({ timeline: timeline!, opLogs, journals }, forBenchmark),
          ...(yield* timeCopies).map(rowOf)
        ],
        collectives
      }
      yield* writeProfile(options.out, profile)
      const told = {
        profile: options.out,
        model: graph.name,
        ranks: world.size,
        cores,
        steps,
        stepSeconds: span,
        busySeconds,
        unattributedShare,
        layers: layers.length,
        ops: profile.ops.length,
        collectives: collectives.length
      }
      if (options.json === true) return said(json(told))
      return said(
        `${options.out}: ${layers.length} layers of ${graph.name}, ${formatSeconds(span)} a step with ${world.size} ranks on ${cores} cores ` +
          `(${formatShare(busySeconds / span)} busy), ${profile.ops.length} kinds of kernels and ${collectives.length} collectives\n`
      )
    }),
    options.backend
  )

/** The kernels and collectives of one run of a scenario, as its program submits them. */
const profileRun = (
  scenario: Scenario,
  file: string,
  locate: (error: InputError) => InputError,
  options: ProfileCommandOptions
) =>
  Effect.gen(function* () {
    const { world, program, capacityBytes, initial, h2d, d2h } = yield* runnableOf(scenario, file, {
      loader: new Loader()
    }).pipe(Effect.mapError((error) => (error instanceof InputError ? locate(error) : error)))
    yield* requireDevice
    yield* warn(scenario)
    const journals: Array<Journal> = []
    const { timeline, opLogs } = yield* execute({
      world,
      program: journaled(program(), journals),
      capacityBytes,
      initial,
      h2d,
      d2h,
      record: true
    })
    const recorded = { timeline: timeline!, opLogs, journals }
    const ops = [...recordedOps(recorded, forBenchmark), ...(yield* timeCopies).map(rowOf)]
    const collectives = recordedCollectives(recorded, forBenchmark)
    yield* writeProfile(
      options.out,
      tableProfile("exec profile", { name: scenario.name, device: thisDevice(), file }, { ops, collectives })
    )
    const told = {
      profile: options.out,
      task: scenario.task,
      ranks: world.size,
      cores: availableParallelism(),
      ops: ops.length,
      collectives: collectives.length
    }
    if (options.json === true) return said(json(told))
    return said(
      `${options.out}: ${ops.length} kinds of kernels and ${collectives.length} collectives of ${scenario.name}\n`
    )
  })

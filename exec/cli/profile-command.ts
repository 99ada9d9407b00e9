// exec profile: what a scenario's layers and collectives take on this machine, as the profile that `sim` reads. All ranks
// compute at the same time, as they would in training, and none communicates: layers are slowed down by the other ranks of
// this machine as in a real run, and by nothing else.
import { availableParallelism, cpus } from "node:os"
import * as Effect from "effect/Effect"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import { sizeBytesOf } from "../../core/machine/tensor.ts"
import { parameterCount } from "../../core/models/layer-graph.ts"
import type { Profile } from "../../core/profile.ts"
import { formatSeconds, formatShare } from "../../core/units.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { timeCollectives } from "../bench.ts"
import { execute } from "../execute.ts"
import { layerTimes } from "../layer-times.ts"
import { dataParallelOnly, requireDevice, runCommand } from "./command.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"

export interface ProfileCommandOptions {
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
      const { scenario: loaded, locate } = yield* loadLocatedScenario(file, options.set)
      const scenario = yield* dataParallelOnly(loaded, file)
      const { world, graph, build } = yield* prepareTraining(scenario, file, new Loader()).pipe(
        Effect.mapError(locate)
      )
      yield* requireDevice
      const { steps } = options
      const run = (record: boolean, count: number) =>
        execute({ world, program: partialLocalSgd(build, alone, count), record })
      const recorded = yield* run(true, warmupSteps + steps)
      const names = graph.layers.map(({ name }) => name)
      const { layers, busySeconds, unattributedShare } = layerTimes(
        recorded.timeline!,
        names,
        warmupSteps,
        steps
      )
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
        device: `${cpus()[0]?.model ?? "processor"}, ${cores} cores`,
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
        ops: [],
        collectives: collectives.map((row) =>
          row.op === "reduce_scatter" ? { ...row, sizeBytes: row.sizeBytes / row.ranks } : row
        )
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
        collectives: collectives.length
      }
      if (options.json === true) return said(json(told))
      return said(
        `${options.out}: ${layers.length} layers of ${graph.name}, ${formatSeconds(span)} a step with ${world.size} ranks on ${cores} cores ` +
          `(${formatShare(busySeconds / span)} busy), and ${collectives.length} collectives\n`
      )
    })
  )

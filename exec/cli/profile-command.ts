// exec profile: what a scenario takes on this machine, as the profile that `sim` reads. Of data-parallel training its layers,
// kernels and collectives: all ranks compute at the same time, as they would in training, and none communicates, so layers are
// slowed down by the other ranks of this machine as in a real run, and by nothing else. Of other tasks the kernels and collectives
// of one run. In a job of processes the ranks are those, and rank 0 writes.
import { availableParallelism } from "node:os"
import * as Effect from "effect/Effect"
import { partialLocalSgd } from "../../core/algorithms/data-parallel/partial-local-sgd/program.ts"
import { sizeBytesOf, type Dtype } from "../../core/machine/tensor.ts"
import { parameterCount, type LayerGraph } from "../../core/models/layer-graph.ts"
import type { Profile } from "../../core/profile.ts"
import type { World } from "../../core/world.ts"
import { formatSeconds, formatShare, counted } from "../../core/units.ts"
import { json, said } from "../../scenarios/cli/execute.ts"
import { requireApart } from "../../scenarios/cli/outputs.ts"
import { filesNamedIn, filesOf } from "../../scenarios/named-files.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadLocatedScenario } from "../../scenarios/scenario-file.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { tableProfile } from "../../traces/table-profile.ts"
import type { Device } from "../../core/cost/devices.ts"
import { InputError } from "../../core/input-error.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { timedInParts, timedRepeatedly, watchingCores, type Timed } from "../core-waits.ts"
import { rowOf, thisDevice, timeCollectives, timeCopies } from "../bench.ts"
import type { Execution } from "../execute.ts"
import { nodeWarnings, unlikeHosts } from "../job/hosts.ts"
import type { ProcessJob } from "../job/processes.ts"
import { costOfCompany, withWaits } from "../in-company.ts"
import { messageKindOf } from "../training-in-company.ts"
import { unitMessages } from "../unit-messages.ts"
import { layerTimes, type LayerTimes } from "../layer-times.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import {
  collectiveSamples,
  forBenchmark,
  forSimulation,
  mediansAndLeast,
  recordedCollectives,
  without
} from "../recorded.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { collectiveWarnings, companyWarnings, readWarnings, stepWarnings } from "../profile-warnings.ts"
import type { RunRecord } from "../record-run.ts"
import { leastCost, mostRecordingSeconds, type Recording } from "../recording-cost.ts"
import { leastShare } from "../replayed-run.ts"
import { costsOfRun } from "../run-costs.ts"
import { timedAndPlain, type Watched } from "../timed-and-plain.ts"
import { companiesOf, type Cost } from "./company.ts"
import { CurrentWarnings, requireDevice, sharedCores, warn, warnOf } from "./command.ts"
import { emulatedDevice, leastSecondsOn, onDevice } from "./emulated-device.ts"
import { perhapsInJob, runAsJob, type JobOptions } from "./job.ts"
import { runnableOf } from "./runnable.ts"

export interface ProfileCommandOptions extends JobOptions {
  readonly backend?: string
  readonly set: ReadonlyArray<string>
  readonly out: string
  readonly steps: number
  readonly emulateDevice?: boolean
  readonly json?: boolean
}

const warmupSteps = 2

/** No step averages anything; the optimizer takes all layers at once, as most algorithms have it. */
const alone = {
  sets: [[]],
  order: "step-then-average",
  deadline: "end-of-backward",
  overlap: false
} as const

export const profileCommand = (file: string, options: ProfileCommandOptions): Promise<number> =>
  runAsJob(file, options, profiled(file, options))

const profiled = (file: string, options: ProfileCommandOptions) =>
  Effect.gen(function* () {
    const { scenario, locate } = yield* loadLocatedScenario(file, options.set)
    yield* requireApart([["--out", options.out]], filesOf(scenario, file))
    const plan = { scenario, steps: options.steps, emulateDevice: options.emulateDevice }
    const files = filesNamedIn(scenario, file)
    const emulated =
      options.emulateDevice === true
        ? yield* Effect.mapError(emulatedDevice(scenario, file), locate)
        : undefined
    if (scenario.task !== "data-parallel") {
      const runnable = yield* runnableOf(scenario, file, { loader: new Loader() }).pipe(
        Effect.mapError((error) => (error instanceof InputError ? locate(error) : error))
      )
      const together = { ranks: runnable.world.size, file, plan, files }
      return yield* perhapsInJob(options, together, (job) =>
        profileRun(scenario, file, runnable, options, { emulated, job })
      )
    }
    // A profile is of one pass of the whole model, however many a step of the scenario has, in whatever parts, and whatever it
    // computes again; parts say what travels beside it.
    const { shard, activations: _, ...whole } = scenario
    const once =
      whole.training === undefined ? whole : { ...whole, training: { ...whole.training, accumulate: 1 } }
    const prepared = (one: Parameters<typeof prepareTraining>[0]) =>
      prepareTraining(one, file, new Loader()).pipe(Effect.mapError(locate))
    const training = {
      ...(yield* prepared(once)),
      shard: shard === undefined ? undefined : (yield* prepared({ ...once, shard })).shard
    }
    const together = { ranks: training.world.size, file, plan, files }
    return yield* perhapsInJob(options, together, (job) =>
      profileTraining(scenario, training, options, { emulated, job })
    )
  })

/** Copies are this machine's, of whatever device: where one is emulated, its own rates say what they take. */
const copiesOf = ({ emulateDevice }: ProfileCommandOptions) =>
  emulateDevice === true ? Effect.succeed([]) : Effect.map(timeCopies, (times) => times.map(rowOf))

/** Where a profile is taken. */
interface On {
  /** The device that this one stands for. */
  readonly emulated: Device | undefined
  /** The job of which this process is one rank. */
  readonly job: ProcessJob | undefined
}

const preparing = (emulated: Device | undefined): Execution<unknown>["prepare"] =>
  emulated === undefined ? undefined : onDevice(leastSecondsOn(emulated))

/** Whose times these are: of an emulated device they are that one's, whatever they were taken on. */
const measuredOn = (
  emulated: Device | undefined
): Effect.Effect<{ readonly device: string; readonly conditions?: string }> =>
  Effect.map(thisDevice, (here) =>
    emulated === undefined
      ? { device: here }
      : { device: emulated.name, conditions: `--emulate-device on ${here}` }
  )

/**
 * What cores and hosts were like meanwhile. Kernels of an emulated device mostly sleep: what they wait for a core is none of their time.
 * Of processes on hosts that are no world's nodes, that too.
 */
const placeNotes = ({ emulated, job }: On, world: World, all: ReadonlyArray<Timed>) =>
  Effect.map(
    emulated === undefined
      ? sharedCores(all, { ranks: world.size, apart: job !== undefined })
      : Effect.succeed([]),
    (shared) =>
      job === undefined
        ? shared
        : [...shared, ...nodeWarnings(world, job.hosts), ...unlikeHosts(world, job.hosts)]
  )

/** What each rank has of it; of all ranks, as the profile has it, at rank 0. */
const timesWithout = (
  recording: Recording | undefined,
  record: RunRecord,
  { layers }: LayerGraph,
  steps: number
): LayerTimes => {
  const timesLess = (busySeconds: number, spanSeconds: number) =>
    layerTimes(record, layers, warmupSteps, steps, { busySeconds, spanSeconds })
  if (recording === undefined) return timesLess(0, 0)
  const { plainSeconds, recordingSeconds } = recording
  return timesLess(
    recordingSeconds,
    leastCost(plainSeconds, (cost) => spanOf(timesLess(recordingSeconds, cost)))
  )
}

/** Seconds of a step in each of up to five parts of a run's steps, in their order. */
const stepsInParts = (record: RunRecord, { layers }: LayerGraph, steps: number): ReadonlyArray<number> => {
  const parts = Math.min(5, steps)
  const begin = (part: number): number => Math.floor((part * steps) / parts)
  return Array.from({ length: parts }, (_, part) =>
    spanOf(layerTimes(record, layers, warmupSteps + begin(part), begin(part + 1) - begin(part)))
  )
}

const gradientDtypeOf = ({ layers }: LayerGraph): Dtype =>
  layers.flatMap(({ parameters }) => parameters)[0]?.dtype ?? "float32"

/** As gradients become ready. */
const parametersOf = ({ layers }: LayerGraph): Profile["parameters"] =>
  layers
    .flatMap(({ parameters }, layer) =>
      parameters.map(({ shape, dtype }) => ({ layer, shape, dtype: String(dtype) }))
    )
    .toReversed()

/** Of collectives that are timed, bytes: from those that cost latency alone to the whole model, or so much as makes a rate. */
const messageSizesOf = (graph: LayerGraph): ReadonlyArray<number> => {
  const bytes = sizeBytesOf(parameterCount(graph), "float32")
  const sizes = [...[10, 14, 18, 20, 22, 24, 26].map((bits) => 2 ** bits), bytes]
    .filter((size) => size <= Math.max(2 ** 22, bytes))
    .toSorted((a, b) => a - b)
  return [...new Set(sizes)]
}

const isOther = (job: ProcessJob | undefined): boolean => job !== undefined && job.rank !== 0

type Training = Effect.Success<ReturnType<typeof prepareTraining>>

/** A run of the steps, timed and not. */
const timedSteps = ({ world, build, graph }: Training, steps: number, { emulated, job }: On) => {
  const stepsOf = (before: number) => ({
    program: partialLocalSgd(build, alone, before + steps),
    drainAfter: before
  })
  // Steps plain come after as many more, in which a backend finds out what comes again. Of a few runs, one of which may be held up.
  const plain = () => stepsOf(warmupSteps + steps)
  return timedAndPlain(
    { world, prepare: preparing(emulated) },
    { timed: stepsOf(warmupSteps), plain: [plain, plain, plain], counted: 3 },
    job,
    emulated === undefined ? undefined : false
  ).pipe(Effect.tap(({ record }) => timedInParts(isOther(job) ? [] : stepsInParts(record, graph, steps))))
}

const profileTraining = (
  scenario: Scenario,
  training: Training,
  options: ProfileCommandOptions,
  { emulated, job }: On
) =>
  Effect.gen(function* () {
    yield* requireDevice
    if (!isOther(job)) yield* warn(scenario)
    const { steps } = options
    const { world, graph, build, planned, shard } = training
    const watched: Array<Timed> = []
    const ran = yield* watchingCores("layers", watched, timedSteps(training, steps, { emulated, job }))
    const collectives = yield* watchingCores(
      "collectives",
      watched,
      world.size < 2
        ? Effect.succeed([])
        : timeCollectives(world.size, messageSizesOf(graph), { processes: job })
    )
    const costs = isOther(job) ? undefined : yield* costsOfRun(ran, { hosted: false })
    const recording = ofSteps(costs?.recording, steps)
    const times = timesWithout(recording, ran.record, graph, steps)
    const [{ layers, busySeconds, unattributedShare }, span] = [times, spanOf(times)]
    const { between, inside, rows } = yield* companiesOf(
      {
        world,
        stepsOf: (count) => partialLocalSgd(build, alone, count),
        steps,
        stepSeconds: span,
        prepare: preparing(emulated),
        job
      },
      {
        collectives,
        message: messageKindOf(planned.wire, gradientDtypeOf(graph)),
        units: shard && { shard, messages: unitMessages(shard, graph) }
      },
      watched
    )
    if (costs === undefined) return said("")
    const notes = [
      ...(yield* placeNotes({ emulated, job }, world, watched)),
      ...stepWarnings(stepsInParts(ran.record, graph, steps)),
      ...companyWarnings(between, "collectives.slowdown"),
      ...companyWarnings(inside, "collectives.slowdownInside")
    ]
    yield* warnOf(notes)
    const { device, conditions } = yield* measuredOn(emulated)
    const cores = availableParallelism()
    const profile: Profile = {
      name: graph.name,
      device,
      source: `exec profile: ${world.size} ${job === undefined ? "ranks" : "processes"} computing at the same time on ${counted(cores, "core")}${conditions === undefined ? "" : `; ${conditions}`}`,
      notes,
      steps,
      stepSeconds: span,
      unprofiledStepSeconds: recording?.plainSeconds ?? span,
      ...(recording === undefined ? {} : { recordingSeconds: recording.recordingSeconds }),
      deviceBusySeconds: busySeconds,
      unattributedShare,
      layers,
      parameters: parametersOf(graph),
      ops: [...costs.ops, ...(yield* copiesOf(options))],
      // Kernels of an emulated device mostly sleep: messages wait for nothing beside them.
      collectives: emulated === undefined ? rows : collectives
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
      collectives: collectives.length,
      ...toldOf(recording),
      ...slowdowns(between),
      ...slowdowns(inside, "Inside"),
      warnings: (yield* CurrentWarnings).told
    }
    if (options.json === true) return said(json(told))
    return said(
      `${options.out}: ${counted(layers.length, "layer")} of ${graph.name}, ${formatSeconds(span)} a step with ${counted(world.size, "rank")} on ${counted(cores, "core")} ` +
        `(${formatShare(busySeconds / span)} busy), ${profile.ops.length} kinds of kernels and ${counted(collectives.length, "collective")}\n` +
        recordingLine(recording) +
        companyLine(between, "collectives.slowdown") +
        companyLine(inside, "collectives.slowdownInside")
    )
  })

const spanOf = ({ layers }: Pick<Profile, "layers">): number =>
  layers.reduce(
    (sum, { forward, backward, optimizer }) =>
      sum + forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds,
    0
  )

/** Of a step: `steps` of them are a stretch. */
const ofSteps = (found: Recording | undefined, steps: number): Recording | undefined =>
  found === undefined
    ? undefined
    : {
        ...found,
        timedSeconds: found.timedSeconds / steps,
        plainSeconds: found.plainSeconds / steps,
        ops: found.ops / steps
      }

const toldOf = (recording: Recording | undefined) =>
  recording === undefined
    ? {}
    : {
        recordingSeconds: recording.recordingSeconds,
        recordingMostReached: recording.mostReached,
        recordingFlooredShare: recording.flooredShare,
        timedStepSeconds: recording.timedSeconds,
        plainStepSeconds: recording.plainSeconds,
        ...(recording.kinds.length < 2 ? {} : { stepKinds: recording.kinds })
      }

const recordingLine = (recording: Recording | undefined): string =>
  recording === undefined
    ? ""
    : `recording an op costs ${formatSeconds(recording.recordingSeconds)}, taken off; a step of ${counted(recording.ops, "op")} takes ` +
      `${formatSeconds(recording.plainSeconds)} when nobody times it, ${formatSeconds(recording.timedSeconds)} timed\n` +
      (recording.mostReached
        ? `that is the most that is taken off an op (${formatSeconds(mostRecordingSeconds)}): what else timed steps are longer by stays in the ops' times\n`
        : "") +
      (recording.flooredShare > 0
        ? `of ${formatShare(recording.flooredShare)} of the timed ops no more than ${formatShare(leastShare)} of their time is left, which is the least: they are shorter than their recording, and may be predicted too long\n`
        : "")

/** In JSON, of collectives and in `collectives` of a scenario: `slowdown`, or `slowdownInside` beside it. */
const slowdowns = (company: Cost, inside = "") =>
  company === undefined
    ? {}
    : {
        ...(company.kernels === undefined ? {} : { [`slowdown${inside}`]: company.kernels }),
        ...(company.collectives === undefined ? {} : { [`collectiveSlowdown${inside}`]: company.collectives })
      }

/** `field`: of a scenario that reckons with it. */
const companyLine = (company: Cost, field: string): string => {
  const { kernels, collectives } = company ?? {}
  const parts = [
    ...(kernels === undefined
      ? []
      : [`beside collectives kernels take ${kernels.toFixed(2)} times as long (${field})`]),
    ...(collectives === undefined ? [] : [`collectives beside kernels ${collectives.toFixed(2)} times`])
  ]
  return parts.length === 0 ? "" : `${parts.join(", ")}\n`
}

/** The kernels and collectives of one run of a scenario, as its program submits them, or one after another where it has them so. */
const profileRun = (
  scenario: Scenario,
  file: string,
  { world, program, alone, capacityBytes, initial, h2d, d2h }: Runnable,
  options: ProfileCommandOptions,
  { emulated, job }: On
) =>
  Effect.gen(function* () {
    yield* requireDevice
    if (!isOther(job)) yield* warn(scenario)
    const parts = alone?.(options.steps)
    // The first is for what comes once in a process.
    const plain = (): Watched => ({ program: alone?.(options.steps).program ?? program() })
    const watched: Array<Timed> = []
    const ran = yield* watchingCores(
      "ops",
      watched,
      timedAndPlain(
        { world, capacityBytes, initial, h2d, d2h, prepare: preparing(emulated) },
        { timed: { program: parts?.program ?? program() }, plain: [plain, plain] },
        job,
        emulated === undefined ? undefined : false
      ).pipe(Effect.tap(({ record }) => timedRepeatedly(isOther(job) ? [] : mediansAndLeast(record))))
    )
    if (isOther(job)) return said("")
    // Parts are what a schedule will be made of, so means of them after their warm-up, with what the host made them wait.
    const reckoning = parts === undefined ? forBenchmark : forSimulation
    const kept =
      parts === undefined ? ran.record : without(ran.record, (step) => parts.kindOf(step) !== "alone")
    // An emulated device's host is not this one.
    const hosted = emulated === undefined && parts === undefined
    const { ops: timed, host, recording } = yield* costsOfRun(ran, { reckoning, kept, hosted })
    const ops = [...timed, ...(yield* copiesOf(options))]
    const company =
      parts === undefined ? undefined : costOfCompany(ran.record, (step) => parts.kindOf(step), true)
    const rows = recordedCollectives(kept, reckoning)
    const collectives = emulated === undefined ? withWaits(rows, company) : rows
    const measured = yield* measuredOn(emulated)
    const notes = [
      ...(yield* placeNotes({ emulated, job }, world, watched)),
      ...(parts === undefined ? [] : collectiveWarnings(collectiveSamples(kept, reckoning.of))),
      ...companyWarnings(company, "costs.slowdown"),
      ...readWarnings(host, recording)
    ]
    yield* warnOf(notes)
    yield* writeProfile(
      options.out,
      tableProfile(
        "exec profile",
        {
          name: scenario.name,
          file,
          ...measured,
          notes,
          unprofiledStepSeconds: recording?.plainSeconds,
          recordingSeconds: recording?.recordingSeconds
        },
        { ops, collectives, ...(host === undefined ? {} : { host }) }
      )
    )
    const told = {
      profile: options.out,
      task: scenario.task,
      ranks: world.size,
      cores: availableParallelism(),
      ops: ops.length,
      collectives: collectives.length,
      ...toldOf(recording),
      ...slowdowns(company),
      warnings: (yield* CurrentWarnings).told
    }
    if (options.json === true) return said(json(told))
    return said(
      `${options.out}: ${ops.length} kinds of kernels and ${counted(collectives.length, "collective")} of ${scenario.name}\n${recordingLine(recording)}${companyLine(company, "costs.slowdown")}`
    )
  })

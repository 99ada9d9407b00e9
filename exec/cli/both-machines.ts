// Runs one program on both machines: for real first, then simulated with the costs that the real run recorded, with values
// on both sides; and hands the two to the agreement checker.
import * as Effect from "effect/Effect"
import { agree, type Agreement } from "../../core/agreement/agree.ts"
import { ChosenValues } from "../../core/agreement/chosen.ts"
import { replaying } from "../../core/agreement/replay.ts"
import { TurnedValues } from "../../core/agreement/turned.ts"
import { UpdatedValues } from "../../core/agreement/updated.ts"
import { defaultTolerance, type Tolerance } from "../../core/agreement/values.ts"
import type { Execution as Judged } from "../../core/laws/execution.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { interposing } from "../../core/machine/interpose.ts"
import type { MachineError, Program } from "../../core/machine/machine.ts"
import type { Op } from "../../core/machine/op.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import type { Scenario } from "../../scenarios/families.ts"
import type { Loader } from "../../scenarios/load.ts"
import { hostOf } from "../../sim/run.ts"
import type { InputError } from "../../core/input-error.ts"
import { unlimited, type World } from "../../core/world.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { simulate, type SimulationResult } from "../../sim/simulate.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import type { Execution, ExecutionResult } from "../execute.ts"
import type { ProcessJob } from "../job/processes.ts"
import { recordRun, type Ran, type RunRecord } from "../record-run.ts"
import { forSimulation, opKey, recordedCollectives, recordedSeconds, type RecordedRun } from "../recorded.ts"
import type { NoDevice } from "./command.ts"
import { onDevice } from "./emulated-device.ts"
import { emulatedLinks } from "./links.ts"
import { runnableOf } from "./runnable.ts"

/** What both machines run, and with which times the simulation reckons. */
export interface BothOptions<A>
  extends
    Omit<Runnable<A>, "network" | "collectives">,
    Partial<Pick<Runnable<A>, "network" | "collectives">> {
  /** Least time of an op in the real run, seconds: to emulate a device. */
  readonly leastSeconds?: ((op: Op) => number) | undefined
  /** Costs for the simulation from another run, of another world perhaps. Default: this run's own. */
  readonly costsFrom?: Recording | undefined
  /** Told of each step that rank 0 has simulated, and of how many: values that references compute take their time. */
  readonly onSimulated?: ((steps: number, of: number) => void) | undefined
  /** More for the real run: tests open sessions that break things. */
  readonly execution?: Partial<Execution<A>>
}

/** What a run took, and the world it took it in. */
interface Recording extends RecordedRun {
  readonly world: World
  readonly collectives: CollectiveAlgorithm
}

/** A simulated run, and how a real one compares with it. */
interface Held<A> {
  readonly agreement: Agreement
  readonly tolerance: Tolerance
  readonly simulated: SimulationResult<A>
  readonly recording: Recording
  readonly simulatedRun: Judged
  readonly executedRun: Judged
}

/** A program's real run, and the simulation that it was held to. */
export interface Both<A> extends Held<A> {
  readonly executed: ExecutionResult<A>
}

const lookAhead = 2
const usual = "ring"

/**
 * Runs a program for real, then simulates it with the times that were measured, and says whether the two
 * agree.
 */
export const runOnBoth = <A>(options: BothOptions<A>): Effect.Effect<Both<A>, MachineError> =>
  Effect.gen(function* () {
    const { executed, record } = yield* runForReal(options)
    return { ...(yield* holdToSimulation(options, record)), executed }
  })

/** The real half. In a job of processes, which have real links of their own, all of it is at rank 0. */
export const runForReal = <A>(
  options: BothOptions<A>,
  processes?: ProcessJob
): Effect.Effect<Ran<A>, MachineError> => {
  const { world, program, collectives = usual, capacityBytes, initial, h2d, d2h } = options
  return recordRun(
    {
      world,
      program: program(),
      capacityBytes,
      lookAhead,
      initial,
      h2d,
      d2h,
      ...emulated(world, processes === undefined ? collectives : undefined, options.leastSeconds),
      ...options.execution
    },
    processes
  )
}

/** The simulated half: the same program with the costs that a real run of it has recorded, and the two compared. */
export const holdToSimulation = <A>(
  options: BothOptions<A>,
  record: RunRecord
): Effect.Effect<Held<A>, MachineError> =>
  Effect.gen(function* () {
    const { program, collectives = usual, network = "fluid", capacityBytes } = options
    // What real links took is in what was recorded.
    const world = record.realLinks ? withoutLimits(options.world) : options.world
    const { timeline, opLogs, journals, finals, makespanSeconds, peakBytes, clockErrorSeconds, sums } = record
    const recording: Recording = { timeline, opLogs, journals, world, collectives }
    const costsFrom = options.costsFrom ?? recording
    const virtual: Array<Journal> = []
    const told = counted(program(), journals, options.onSimulated)
    const tolerance = { ...(options.tolerance ?? defaultTolerance), sums }
    const turned = new TurnedValues(journals, tolerance)
    const updated = new UpdatedValues(journals, tolerance)
    const chosen = new ChosenValues(journals, tolerance)
    const simulated = yield* simulate({
      world,
      program: journaled(replaying(told, journals), virtual),
      costs: recordedCosts(costsFrom),
      network,
      collectives: {
        algorithm: collectives,
        table: new CollectiveTable(beyondLatency(costsFrom))
      },
      // The same memories, so that a program that asks for what is free hears the same.
      capacityBytes: record.capacityBytes,
      lookAhead,
      record: true,
      values: options.initial ?? (() => undefined),
      onCollective: turned.onCollective,
      onOp: (computed) => updated.onOp(computed) ?? chosen.onOp(computed)
    })
    const simulatedRun: Judged = {
      timeline: simulated.timeline!,
      opLogs: simulated.opLogs,
      journals: virtual.map((journal) =>
        chosen.withResults(updated.withResults(turned.withResults(journal)))
      ),
      makespanSeconds: simulated.makespanSeconds,
      stepEnds: simulated.ranks.map(({ rank, stepEndSeconds }) => ({ rank, seconds: stepEndSeconds })),
      peakBytes: simulated.ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes })),
      capacityBytes,
      lookAheadSteps: lookAhead
    }
    const executedRun: Judged = {
      timeline,
      opLogs,
      journals,
      makespanSeconds,
      peakBytes,
      capacityBytes,
      lookAheadSteps: lookAhead,
      toleranceSeconds: clockErrorSeconds,
      leaveApart: true
    }
    const agreement = agree(
      { execution: simulatedRun, valuesOf: (rank, tensor) => simulated.values?.of(rank, tensor) },
      { execution: executedRun, valuesOf: (rank, { id }) => finals.get(rank)?.get(id) },
      tolerance,
      turned.found,
      updated.found,
      chosen.found
    )
    return { agreement, tolerance, simulated, recording, simulatedRun, executedRun }
  })

/** Steps that rank 0 has ended. */
export const stepsOf = (journals: ReadonlyArray<Journal>): number => {
  const { entries } = journals.find(({ rank }) => rank === 0)!
  return entries.reduce((count, { kind }) => count + (kind === "endStep" ? 1 : 0), 0)
}

/** The same program, which tells how many steps of all that the real run took its rank 0 has ended. */
const counted = <A>(
  program: Program<A>,
  journals: ReadonlyArray<Journal>,
  tell: BothOptions<A>["onSimulated"]
): Program<A> => {
  if (tell === undefined) return program
  const of = stepsOf(journals)
  let steps = 0
  return interposing(program, (machine) =>
    machine.rank !== 0
      ? {}
      : { endStep: Effect.tap(machine.endStep, () => Effect.sync(() => tell(++steps, of))) }
  )
}

const withoutLimits = (world: World): World => ({
  ...world,
  links: { intra: unlimited, inter: unlimited, wan: world.links.wan === undefined ? undefined : unlimited }
})

/** What a scenario comes to on both machines; planners that simulate may do so. */
export const runnableOn = (
  scenario: Scenario,
  file: string,
  loader: Loader
): Effect.Effect<Runnable, InputError | NoDevice | MachineError> => runnableOf(scenario, file, hostOf(loader))

/** The world's links, where an algorithm crosses any, and a device that is not faster than it should be. */
const emulated = (
  world: World,
  algorithm: CollectiveAlgorithm | undefined,
  leastSeconds: BothOptions<unknown>["leastSeconds"]
): Pick<Execution<unknown>, "linkBytesPerSecond" | "prepare"> => {
  const links: Pick<Execution<unknown>, "linkBytesPerSecond" | "prepare"> = algorithm === undefined
    ? {}
    : emulatedLinks(world, algorithm)
  if (leastSeconds === undefined) return links
  return {
    ...links,
    prepare: (rank, op) => onDevice(leastSeconds)(rank, op) ?? links.prepare?.(rank, op)
  }
}

/**
 * What collectives took beyond the latency of the emulated links, which the simulation counts itself. Their bytes it counts too,
 * beside this: a collective takes the longer of what was recorded and its time on the wire.
 */
const beyondLatency = (recording: Recording): ReadonlyArray<CollectiveCost> => {
  const { world, collectives: algorithm } = recording
  const rows = recordedCollectives(recording, forSimulation)
  const network = new Network(world, distinct(world))
  return rows.map((row) => {
    const ranks = world.all.ranks.slice(0, row.ranks)
    const latency = aloneSeconds(network, row.op, { name: row.op, ranks }, { algorithm })(0)
    return { ...row, medianSeconds: Math.max(0, row.medianSeconds - latency) }
  })
}

/** Each op at its recorded mean; what was never run is free, and noted. */
const recordedCosts = (run: RecordedRun): CostModel => {
  const seconds = recordedSeconds(run, forSimulation)
  const unknown = new Set<string>()
  return {
    seconds: (op) => {
      const known = seconds.get(opKey(op))
      if (known === undefined) unknown.add(op.kernel.name)
      return known ?? 0
    },
    get estimates() {
      return [...unknown].map((kernel) => ({
        kernel,
        source: "free" as const,
        detail: "the real run did not run this op"
      }))
    }
  }
}

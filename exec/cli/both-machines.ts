// Runs one program on both machines: for real first, then simulated with the costs that the real run recorded, with values
// on both sides; and hands the two to the agreement checker.
import * as Effect from "effect/Effect"
import { agree, type Agreement } from "../../core/agreement/agree.ts"
import { replaying } from "../../core/agreement/replay.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import type { Execution as Judged } from "../../core/laws/execution.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import type { MachineError } from "../../core/machine/machine.ts"
import type { Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import type { Scenario } from "../../scenarios/families.ts"
import type { Loader } from "../../scenarios/load.ts"
import { hostOf } from "../../sim/run.ts"
import type { InputError } from "../../core/input-error.ts"
import type { World } from "../../core/world.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import type { Runnable } from "../../scenarios/runnable.ts"
import { simulate, type SimulationResult } from "../../sim/simulate.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import { executeThen, type Execution, type ExecutionResult } from "../execute.ts"
import { forSimulation, opKey, recordedCollectives, recordedSeconds, type RecordedRun } from "../recorded.ts"
import { emulatedLinks } from "./links.ts"
import { runnableOf } from "./runnable.ts"

export interface BothOptions<A>
  extends
    Omit<Runnable<A>, "network" | "collectives">,
    Partial<Pick<Runnable<A>, "network" | "collectives">> {
  /** Least time of an op in the real run, seconds: to emulate a device. */
  readonly leastSeconds?: ((op: Op) => number) | undefined
  /** Costs for the simulation from another run, of another world perhaps. Default: this run's own. */
  readonly costsFrom?: Recording | undefined
  /** More for the real run: tests open sessions that break things. */
  readonly execution?: Partial<Execution<A>>
}

/** What a run took, and the world it took it in. */
interface Recording extends RecordedRun {
  readonly world: World
  readonly collectives: CollectiveAlgorithm
}

export interface Both<A> {
  readonly agreement: Agreement
  readonly simulated: SimulationResult<A>
  readonly executed: ExecutionResult<A>
  readonly recording: Recording
  readonly simulatedRun: Judged
  readonly executedRun: Judged
}

const lookAhead = 2

export const runOnBoth = <A>(options: BothOptions<A>): Effect.Effect<Both<A>, MachineError> =>
  Effect.gen(function* () {
    const { world, program, collectives = "ring", network = "fluid", capacityBytes } = options
    const real: Array<Journal> = []
    const { executed, valuesOf } = yield* executeThen(
      {
        world,
        program: journaled(program(), real),
        capacityBytes,
        lookAhead,
        record: true,
        initial: options.initial,
        h2d: options.h2d,
        d2h: options.d2h,
        ...emulated(world, collectives, options.leastSeconds),
        ...options.execution
      },
      ({ valuesOf, ...executed }) => ({ executed, valuesOf: keepFinal(real, valuesOf) })
    )
    const timeline = executed.timeline!
    const recording: Recording = { timeline, opLogs: executed.opLogs, journals: real, world, collectives }
    const costsFrom = options.costsFrom ?? recording
    const virtual: Array<Journal> = []
    const simulated = yield* simulate({
      world,
      program: journaled(replaying(program(), real), virtual),
      costs: recordedCosts(costsFrom),
      network,
      collectives: {
        algorithm: collectives,
        table: new CollectiveTable(beyondLatency(costsFrom))
      },
      // The same memories, so that a program that asks for what is free hears the same.
      capacityBytes: executed.capacityBytes,
      lookAhead,
      record: true,
      values: options.initial ?? (() => undefined)
    })
    const simulatedRun: Judged = {
      timeline: simulated.timeline!,
      opLogs: simulated.opLogs,
      journals: virtual,
      makespanSeconds: simulated.makespanSeconds,
      stepEnds: simulated.ranks.map(({ rank, stepEndSeconds }) => ({ rank, seconds: stepEndSeconds })),
      peakBytes: simulated.ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes })),
      capacityBytes,
      lookAheadSteps: lookAhead
    }
    const executedRun: Judged = {
      timeline,
      opLogs: executed.opLogs,
      journals: real,
      makespanSeconds: executed.makespanSeconds,
      peakBytes: executed.ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes })),
      capacityBytes,
      lookAheadSteps: lookAhead,
      leaveApart: true
    }
    const agreement = agree(
      { execution: simulatedRun, valuesOf: (rank, tensor) => simulated.values?.of(rank, tensor) },
      { execution: executedRun, valuesOf },
      options.tolerance ?? defaultTolerance
    )
    return { agreement, simulated, executed, recording, simulatedRun, executedRun }
  })

/** What a scenario comes to on both machines; planners that simulate may do so. */
export const runnableOn = (
  scenario: Scenario,
  file: string,
  loader: Loader
): Effect.Effect<Runnable, InputError | MachineError> => runnableOf(scenario, file, hostOf(loader))

/** The world's links, and a device that is not faster than it should be. */
const emulated = (
  world: World,
  algorithm: CollectiveAlgorithm,
  leastSeconds: BothOptions<unknown>["leastSeconds"]
): Pick<Execution<unknown>, "linkBytesPerSecond" | "prepare"> => {
  const links = emulatedLinks(world, algorithm)
  if (leastSeconds === undefined) return links
  return {
    ...links,
    prepare: (rank, op) =>
      op.group === undefined ? { seconds: leastSeconds(op) } : links.prepare?.(rank, op)
  }
}

/** What live tensors hold when a run has ended: later there is no session to ask. */
const keepFinal = (
  journals: ReadonlyArray<Journal>,
  valuesOf: (rank: number, tensor: Tensor) => TensorData
): ((rank: number, tensor: Tensor) => TensorData | undefined) => {
  const kept = new Map<number, Map<number, TensorData>>()
  for (const { rank, entries } of journals) {
    const live = new Set<Tensor>()
    for (const entry of entries) {
      if (entry.kind === "alloc") live.add(entry.tensor)
      if (entry.kind === "free") live.delete(entry.tensor)
    }
    kept.set(rank, new Map([...live].map((tensor) => [tensor.id, valuesOf(rank, tensor)])))
  }
  return (rank, { id }) => kept.get(rank)?.get(id)
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

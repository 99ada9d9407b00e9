// One scenario, from its settings to its result, whatever its task: prepared by its family, simulated, summed up.
import { greatest } from "../core/extremes.ts"
import * as Effect from "effect/Effect"
import type { InputError } from "../core/input-error.ts"
import { OutOfMemory, type MachineError } from "../core/machine/machine.ts"
import type { Timeline } from "../core/machine/timeline.ts"
import { familyOf, type Scenario } from "../scenarios/families.ts"
import { textsAt } from "../scenarios/file/override.ts"
import type { AnyScenario, Family, Host, Prepared } from "../scenarios/family.ts"
import type { Loader } from "../scenarios/load.ts"
import type { RunResult } from "../scenarios/result.ts"
import type { Simulable } from "../scenarios/runnable.ts"
import { Faults } from "./faults.ts"
import { simulate, type SimulationResult } from "./simulate.ts"

/** How a scenario is run. */
export interface RunOptions {
  readonly loader: Loader
  /** Keep the timeline and op logs. */
  readonly record?: boolean
  /** Told now and then how many of its steps a run has ended, where it has steps. */
  readonly onSteps?: OnSteps
}

type OnSteps = (ended: number, of: number) => void

/** A scenario that has been run: its result with the family's figures, and what they were made of. */
export interface Run<P extends Prepared = Prepared> {
  readonly result: RunResult & FiguresOf<P>
  readonly prepared: P
  readonly timeline: Timeline | undefined
  /** The stretch of the timeline that the metrics are of. */
  readonly fromSeconds: number
  readonly toSeconds: number
  readonly simulated: SimulationResult<ValueOf<P>>
}

type FiguresOf<P extends Prepared> = Effect.Success<ReturnType<P["summarise"]>>["figures"]
type ValueOf<P> = P extends { readonly simulable: Simulable<infer A> } ? A : unknown

/** Runs what a family has prepared. */
export const simulator = <A>({
  faults = [],
  capacityBytes = {},
  steps,
  onSteps,
  ...simulable
}: Simulable<A> & { readonly onSteps?: OnSteps | undefined }): Effect.Effect<
  SimulationResult<A>,
  MachineError
> =>
  simulate({
    ...simulable,
    symmetric: simulable.symmetric ?? true,
    record: simulable.record ?? false,
    jitter: simulable.jitter ?? 0,
    seed: simulable.seed ?? 0,
    capacityBytes,
    faults: faults.length === 0 ? undefined : new Faults(faults),
    onSteps: steps === undefined || onSteps === undefined ? undefined : (ended) => onSteps(ended, steps)
  })

/** What a host with the simulator gives to families. */
export const hostOf = (loader: Loader): Host => ({ loader, simulator })

/** Simulates a prepared scenario and sums it up. */
export const runPrepared = <A, F extends object, P extends Prepared<A, F>>(
  { task, name, algorithm }: AnyScenario,
  prepared: P & Prepared<A, F>,
  record = false,
  onSteps?: OnSteps
): Effect.Effect<Run<P>, MachineError> =>
  Effect.gen(function* () {
    const { simulable } = prepared
    const simulated = yield* simulator({
      ...simulable,
      record: record || simulable.record === true,
      onSteps
    })
    const summary = yield* prepared.summarise(simulated, simulator)
    const { figures, fromSeconds, toSeconds, steps, warmupSteps, network, collectives } = summary
    const { ranks } = simulated
    const most = (place: "device" | "host") => greatest(ranks.map(({ peakBytes }) => peakBytes[place]))
    const result: RunResult = {
      digest: simulated.digest,
      scenario: name,
      task,
      algorithm: algorithm.name,
      ranks: simulable.world.size,
      ...(network === undefined ? {} : { network }),
      ...(collectives === undefined ? {} : { collectives }),
      ...(steps === undefined ? {} : { steps }),
      ...(warmupSteps === undefined ? {} : { warmupSteps }),
      ...figures,
      makespanSeconds: simulated.makespanSeconds,
      peakBytes: { device: most("device"), host: most("host") },
      ops: ranks.reduce((sum, { ops, count }) => sum + ops * count, 0),
      links: network === undefined ? [] : simulated.links,
      estimates: [...(summary.estimates ?? []), ...simulated.estimates],
      warnings: summary.warnings,
      ...(summary.details === undefined ? {} : { details: summary.details })
    }
    return {
      // The family's figures are among its fields.
      result: result as Run<P>["result"],
      prepared,
      timeline: record ? simulated.timeline : undefined,
      fromSeconds,
      toSeconds,
      simulated: simulated as Run<P>["simulated"]
    }
  })

/**
 * Simulates a scenario of a family. `file` is the scenario's path: files it names are relative to its folder. One whose memory does not
 * suffice fails with what it would hold, where the family can tell.
 */
export const runFamily = <S extends AnyScenario, P extends Prepared>(
  family: Family<S, P>,
  scenario: S,
  file: string,
  { loader, record, onSteps }: RunOptions
): Effect.Effect<Run<P>, InputError | MachineError> =>
  Effect.gen(function* () {
    const run = (one: S, recorded: boolean | undefined) =>
      Effect.gen(function* () {
        const prepared = yield* family.prepare(one, file, hostOf(loader))
        const ran = yield* runPrepared(one, prepared, recorded, onSteps)
        const notes = family.fileFields.flatMap((field) =>
          textsAt(one, field).flatMap((named) => loader.notes(file, named))
        )
        const warnings = [...new Set([...ran.result.warnings, ...notes])]
        return { ...ran, result: { ...ran.result, warnings } }
      })
    return yield* Effect.catchTag(run(scenario, record), "OutOfMemory", (error) => {
      const unlimited = family.unlimited?.(scenario)
      return unlimited === undefined
        ? Effect.fail(error)
        : Effect.matchEffect(run(unlimited, false), {
            // Nothing more is known: what was asked is answered as it was.
            onFailure: () => Effect.fail(error),
            onSuccess: ({ result }) =>
              Effect.fail(new OutOfMemory({ ...error, heldBytes: result.peakBytes[error.place] }))
          })
    })
  })

/** Simulates a scenario of any task. */
export const runScenario = (
  scenario: Scenario,
  file: string,
  options: RunOptions
): Effect.Effect<Run, InputError | MachineError> => runFamily(familyOf(scenario), scenario, file, options)

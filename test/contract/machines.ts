// The machines that the contract holds for, each behind one function: run a program on every rank, and say what came of it.
// Another machine is one more entry; TANDEM_BACKEND adds a backend of the executor.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { describe } from "vitest"
import type { InitialValues, MachineError, Program, RankOutcome } from "../../core/machine/machine.ts"
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"
import type { Place } from "../../core/machine/tensor.ts"
import type { World } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { simulate } from "../../sim/simulate.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld } from "../simulate/simulated.ts"

interface RunOptions {
  readonly capacityBytes?: Partial<Readonly<Record<Place, number>>>
  readonly lookAhead?: number
  readonly initial?: InitialValues
  /** Places in each rank's ring of ops under way, at first. */
  readonly ring?: number
  /** Seconds that an op takes, at least, by its label. Default 0. */
  readonly seconds?: (label: string) => number
}

/** What is the same on every machine when a run has ended. */
interface Ran<A> {
  readonly ranks: ReadonlyArray<RankOutcome<A>>
  readonly timeline: Timeline | undefined
  readonly opLogs: ReadonlyArray<OpLog>
}

export interface ContractMachine {
  readonly name: string
  readonly run: <A>(
    ranks: number | World,
    program: Program<A>,
    options?: RunOptions
  ) => Effect.Effect<Ran<A>, MachineError>
  readonly describe: (name: string, body: () => void) => void
  /** Promises and timers of the host pass while a program waits for them; where not, waiting for a promise is refused. */
  readonly hostTime: boolean
}

const none = (): undefined => undefined
const worldOf = (ranks: number | World): World => (typeof ranks === "number" ? flatWorld(ranks) : ranks)

const simulator: ContractMachine = {
  name: "the simulator",
  run: (ranks, program, { seconds = () => 0, initial = none, ...options } = {}) =>
    simulate({
      world: worldOf(ranks),
      program,
      costs: { seconds: ({ label }) => seconds(label), estimates: [] },
      network: "fluid",
      collectives: { algorithm: "ring" },
      values: initial,
      record: true,
      ...options
    }),
  describe,
  hostTime: false
}

const executor = (backend: string): ContractMachine => ({
  name: `the executor's ${backend} backend`,
  run: (ranks, program, { seconds, ...options } = {}) =>
    execute({
      world: worldOf(ranks),
      program,
      backend,
      record: true,
      ...(seconds === undefined ? {} : { prepare: (_, { label }) => ({ seconds: seconds(label) }) }),
      ...options
    }),
  describe: describeNative,
  hostTime: true
})

const added = process.env["TANDEM_BACKEND"] ?? ""
const backends = ["cpu", "deferred", ...(added === "" ? [] : [added])]

const machines: ReadonlyArray<ContractMachine> = [simulator, ...backends.map(executor)]

/** One part of the contract, on every machine. */
export const describeContract = (name: string, body: (machine: ContractMachine) => void): void => {
  for (const machine of machines) machine.describe(`${machine.name}: ${name}`, () => body(machine))
}

/** What the run gave; throws what it failed with. */
export const runOn = <A>(
  machine: ContractMachine,
  ranks: number | World,
  program: Program<A>,
  options?: RunOptions
): Promise<Ran<A>> => Effect.runPromise(machine.run(ranks, program, options))

/** What the run failed with, a typed error or a defect; throws when it succeeded. */
export const failureOn = async <A>(
  machine: ContractMachine,
  ranks: number,
  program: Program<A>,
  options?: RunOptions
): Promise<unknown> => {
  const exit = await Effect.runPromiseExit(machine.run(ranks, program, options))
  if (Exit.isSuccess(exit)) throw new Error(`${machine.name} accepted it`)
  return Cause.squash(exit.cause)
}

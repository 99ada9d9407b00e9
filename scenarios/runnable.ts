// A scenario made ready to run: a program and all that a machine needs for it. Families prepare these; `sim` runs the one with
// costs, `exec` the one with real kernels, and `exec agree` that one on both. Knows neither machine.
import type * as Effect from "effect/Effect"
import type { Tolerance } from "../core/agreement/values.ts"
import type { CostModel, Estimate } from "../core/cost/cost-model.ts"
import type { Fault } from "../core/fault.ts"
import type { InitialValues, MachineError, Program, ReadSource } from "../core/machine/machine.ts"
import type { Place } from "../core/machine/tensor.ts"
import type { OpLog, Timeline } from "../core/machine/timeline.ts"
import type { CollectiveOptions } from "../core/wire/legs.ts"
import type { CollectiveOption } from "../core/wire/idle.ts"
import type { CollectiveAlgorithm, LinkResult } from "../core/wire/network.ts"
import type { Group, LinkSpec, World } from "../core/world.ts"
import type { ProfiledStep } from "../core/profile.ts"

/** Bytes that each rank's memories hold; unbounded where not given. */
export type Capacity = Partial<Readonly<Record<Place, number>>>

/** A program of real kernels, for either machine. */
export interface Runnable<A = unknown> {
  readonly world: World
  /** Made anew for each machine, so that nothing the program keeps is shared. */
  program(): Program<A>
  /** The same for so many steps in all, where a program has steps: to hold a long run to a horizon. */
  upTo?(steps: number): Program<A>
  /** What it is made of, one op after another, so many times: for a profile that is to predict other schedules of the same. */
  alone?(steps: number): PartsAlone
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: CollectiveAlgorithm
  readonly capacityBytes?: Capacity | undefined
  /** How far values of two machines may be apart; the default of the agreement checker where it does not say. */
  readonly tolerance?: Tolerance | undefined
  /** What tensors hold at first. */
  readonly initial?: InitialValues | undefined
  /** Copies between host and device go at most so fast. */
  readonly h2d?: LinkSpec | undefined
  readonly d2h?: LinkSpec | undefined
}

/** A program whose ops do not overlap, but in steps that are to show what company costs them. */
interface PartsAlone {
  readonly program: Program<unknown>
  /** Warm-up: the first of a kind, whose times say little. `beside`: kernels run while collectives are under way. */
  kindOf(step: number): ProfiledStep
}

/** A program that is made of how another one went: one that must know the future. */
export interface Rehearsed<A = unknown> {
  readonly rehearsal: Runnable<A>
  /** `outcomes`: of the rehearsal's ranks. */
  performance(outcomes: ReadonlyArray<A>): Runnable<A>
}

/** A program on the simulator's clock. */
export interface Simulable<A = unknown> {
  readonly world: World
  readonly program: Program<A>
  readonly costs: CostModel
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: CollectiveOptions
  readonly faults?: ReadonlyArray<Fault> | undefined
  /** Relative standard deviation of every kernel's time. */
  readonly jitter?: number | undefined
  readonly seed?: number | undefined
  readonly capacityBytes?: Capacity | undefined
  /** False when ranks behave differently for reasons the program knows: then each is simulated by itself. */
  readonly symmetric?: boolean | undefined
  /** Groups that its ranks meet in: where those alike are not composed alike, every rank is simulated by itself. */
  readonly groups?: ReadonlyArray<Group> | undefined
  /** Keep the timeline and the op logs. */
  readonly record?: boolean | undefined
  /** What reads give, where no values are calculated. */
  readonly source?: ReadSource | undefined
  /** Steps that each rank takes in all, where the program has steps: by them is told how far a run is. */
  readonly steps?: number | undefined
}

/** A simulated rank that has finished, and how many ranks it stands for. */
export interface RankEnd<A> {
  readonly rank: number
  readonly count: number
  readonly value: A
  readonly ops: number
  /** When the compute lane finished each step. */
  readonly stepEndSeconds: ReadonlyArray<number>
  /** Compute-lane busy time up to each step's end. */
  readonly stepBusySeconds: ReadonlyArray<number>
  readonly laneBusySeconds: ReadonlyArray<number>
  readonly peakBytes: Readonly<Record<Place, number>>
}

/** A simulated run that has finished. */
export interface SimulatedEnd<A = unknown> {
  readonly makespanSeconds: number
  readonly ranks: ReadonlyArray<RankEnd<A>>
  readonly links: ReadonlyArray<LinkResult>
  readonly estimates: ReadonlyArray<Estimate>
  /** What was said of collectives, and has changed none of them. */
  readonly idle: ReadonlySet<CollectiveOption>
  /** Equal for equal runs, to the last bit of every time. */
  readonly digest: string
  readonly timeline: Timeline | undefined
  readonly opLogs: ReadonlyArray<OpLog>
}

/** The simulator, for planners and figures that ask it; whoever prepares a scenario hands it in, where there is one. */
export type Simulator = <A>(simulable: Simulable<A>) => Effect.Effect<SimulatedEnd<A>, MachineError>

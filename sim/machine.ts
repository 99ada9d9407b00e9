// One rank's machine in the simulator: gives ops their cost and hands them to the engine with their predecessors. The virtual
// clock moves only between the program's suspensions, never inside a launch. What a program may do is core/machine/rank.ts's.
import * as Effect from "effect/Effect"
import type { Scalars } from "../core/kernels/scalars.ts"
import type { Meeting } from "../core/machine/collective-order.ts"
import type { Driver, Predecessors } from "../core/machine/driver.ts"
import { Lane, laneCount } from "../core/machine/lane.ts"
import type { MachineError, ReadSource } from "../core/machine/machine.ts"
import { launchedWith, type Op, type OpId } from "../core/machine/op.ts"
import type { Token } from "../core/machine/pending.ts"
import { Rank, type RankOptions } from "../core/machine/rank.ts"
import type { Drawn, Tensor, TensorData } from "../core/machine/tensor.ts"
import { onOneNode } from "../core/world.ts"
import type { Random } from "../core/random.ts"
import type { ActivityTimes } from "./activity-times.ts"
import type { BesideCompute } from "./beside-compute.ts"
import type { Collectives } from "./collectives.ts"
import type { CostModel, HostLane } from "../core/cost/cost-model.ts"
import type { Activity, Engine, SpeedProfileId } from "./engine/engine.ts"
import type { SlowedCompute, Slowdowns } from "./slowed-compute.ts"
import type { Values } from "./values.ts"

/** What all simulated ranks share. */
interface Shared {
  readonly engine: Engine
  readonly collectives: Collectives
  readonly times: ActivityTimes | undefined
  readonly values: Values | undefined
  /** Calls `then` when the activity ends; at once when it has. */
  readonly whenEnded: (activity: Activity, then: () => void) => void
  /** Calls `then` at that moment, not before now. */
  readonly at: (seconds: number, then: () => void) => void
  /** Calls `task` at the same virtual time, when all that happens at this moment has happened. */
  readonly later: (task: () => void) => void
  /** A rank's program begins to wait for its machine, or goes on. */
  readonly onWaiting: (waiting: boolean) => void
}

interface SimulatedRankOptions extends RankOptions {
  /** Position among the simulated ranks: its meters in the engine are `index * laneCount + lane`. */
  readonly index: number
  readonly costs: CostModel
  /** Slowdowns and pauses of this rank's compute lane, where collectives do not slow it. */
  readonly speed: SpeedProfileId | undefined
  /** The compute lane with its slowdowns and pauses, where collectives slow it. */
  readonly slowed: SlowedCompute | undefined
  /** What collectives wait for beside the compute lane, where they wait at all. */
  readonly beside: BesideCompute | undefined
  /** Relative standard deviation of each kernel's time, and where it is drawn from. */
  readonly jitter: { readonly deviation: number; readonly random: Random } | undefined
  /** Values of tensors that only a trace or a generator can give (routing decisions, say), without `values`. */
  readonly source: ReadSource | undefined
}

/** What an op's turn is told to, and of a collective how long it waits beside kernels. */
interface Turn {
  readonly slowed: SlowedCompute | undefined
  readonly where: keyof Slowdowns
  readonly beside: BesideCompute | undefined
  readonly waitSeconds: (() => number) | undefined
}

/** Launches a rank's ops as activities of the engine: an op's token is its last activity; what is kept of an op, its seconds. */
export class SimulatedRank implements Driver<number> {
  readonly rank: Rank<number>
  readonly #shared: Shared
  readonly #options: SimulatedRankOptions
  // What `launch` needs of them, at hand.
  readonly #engine: Engine
  readonly #firstMeter: number
  readonly #observed: boolean
  readonly #speed: SpeedProfileId | undefined
  readonly #jitter: SimulatedRankOptions["jitter"]
  readonly #host: HostLane | undefined
  readonly #slowed: SlowedCompute | undefined
  readonly #beside: BesideCompute | undefined
  /** Whether the host replays a graph with the next launch. */
  #replays = true
  /** The end of what the host's thread has been given so far; -1 while that is nothing. */
  #hostTail: Activity = -1
  readonly #readsOf = new WeakMap<Tensor, number>()
  readonly onWaiting: (waiting: boolean) => void
  /** When the compute lane finished each step, seconds. */
  readonly stepEndSeconds: Array<number> = []
  /** Compute busy time up to each step's end, seconds. */
  readonly stepBusySeconds: Array<number> = []

  constructor(shared: Shared, options: SimulatedRankOptions) {
    this.#shared = shared
    this.#options = options
    this.#engine = shared.engine
    this.#firstMeter = options.index * laneCount
    this.#speed = options.speed
    this.#jitter = options.jitter
    this.#host = options.costs.host
    this.#slowed = options.slowed
    this.#beside = options.beside
    this.#observed = shared.times !== undefined || shared.values !== undefined
    this.onWaiting = shared.onWaiting
    this.rank = new Rank(options, this)
  }

  /** Its seconds, where every launch has the same. */
  prepare(op: Op): number {
    return op.group !== undefined || op.kernel.costFollowsScalars ? NaN : this.#options.costs.seconds(op)
  }

  launch(
    id: OpId,
    op: Op,
    prepared: number,
    scalars: Scalars | undefined,
    meeting: Meeting | undefined,
    before: Predecessors
  ): Token {
    const engine = this.#engine
    const lane = op.lane
    let first: Activity
    let last: Activity
    let waitSeconds: Turn["waitSeconds"]
    if (meeting === undefined) {
      const seconds =
        this.#jitter === undefined && prepared >= 0 ? prepared : this.#seconds(op, prepared, scalars)
      first = last =
        lane === Lane.compute && this.#slowed !== undefined
          ? this.#slowed.work(seconds)
          : engine.work(seconds, this.#firstMeter + lane, lane === Lane.compute ? this.#speed : undefined)
    } else {
      const met = this.#shared.collectives.join(meeting)
      first = met.first
      last = met.last
      waitSeconds = met.waitSeconds
    }
    // Its own turn: from then on its kernel is there, though other members may not have come.
    const together = meeting !== undefined && meeting.communicator.group.ranks.length > 1
    const slowed = together ? this.#slowed : undefined
    const where =
      slowed !== undefined && onOneNode(this.#options.world, meeting!.communicator.group.ranks)
        ? "inside"
        : "between"
    const beside =
      (together && waitSeconds !== undefined) || (meeting === undefined && lane === Lane.compute)
        ? this.#beside
        : undefined
    const turn = slowed === undefined && beside === undefined ? first : engine.work(0)
    const tail = before.tailOf(lane)
    if (tail >= 0) engine.after(turn, tail)
    for (let i = 0; i < before.edgeCount; i++) {
      const predecessor = before.tokenOf(before.edges[i]!)
      if (predecessor >= 0) engine.after(turn, predecessor)
    }
    if (this.#host !== undefined) {
      const replay = this.#replays ? this.#host.replaySeconds : 0
      this.#replays = false
      engine.after(turn, this.#busyHost(this.#host.seconds(op) + replay))
    }
    if (this.#observed) this.#observe(id, op, scalars, turn, first, last)
    if (turn !== first) this.#inTurn(turn, first, last, { slowed, where, beside, waitSeconds })
    engine.release(first)
    if (this.#host?.waitsFor(op) === true) this.#hostWaits(last)
    return last
  }

  /** `first` begins when `turn` has ended; a collective beside the compute lane when its kernels have got multiprocessors too. */
  #inTurn(
    turn: Activity,
    first: Activity,
    last: Activity,
    { slowed, where, beside, waitSeconds }: Turn
  ): void {
    const engine = this.#engine
    let placed = turn
    if (beside !== undefined && waitSeconds !== undefined) {
      placed = beside.placed(turn, waitSeconds)
      this.#shared.times?.placed(placed, turn)
    } else beside?.runs(turn, last)
    engine.after(first, placed)
    if (slowed !== undefined) {
      this.#shared.whenEnded(placed, () => slowed.begin(where))
      this.#shared.whenEnded(last, () => slowed.end(where))
    }
    engine.release(turn)
  }

  /** The host does nothing more until the activity has ended. */
  #hostWaits(activity: Activity): void {
    const engine = this.#engine
    const until = engine.work(0)
    engine.after(until, activity)
    if (this.#hostTail >= 0) engine.after(until, this.#hostTail)
    this.#shared.times?.host(this.#options.rank, until)
    engine.release(until)
    this.#hostTail = until
  }

  /** The host's thread spends so long, after all else it was given and not before now. */
  #busyHost(seconds: number): Activity {
    const engine = this.#engine
    const busy = engine.work(seconds)
    if (this.#hostTail >= 0) engine.after(busy, this.#hostTail)
    this.#shared.times?.host(this.#options.rank, busy)
    engine.release(busy)
    this.#hostTail = busy
    return busy
  }

  #observe(
    id: OpId,
    op: Op,
    scalars: Scalars | undefined,
    turn: Activity,
    first: Activity,
    last: Activity
  ): void {
    const { times, values, whenEnded } = this.#shared
    const { rank } = this.#options
    times?.belongs(rank, id, turn, first, last)
    if (values === undefined || op.group !== undefined) return
    const launched = launchedWith(op, scalars)
    whenEnded(last, () => values.run(rank, id, launched))
  }

  #seconds(op: Op, prepared: number, scalars: Scalars | undefined): number {
    const { costs } = this.#options
    const jitter = this.#jitter
    const seconds = op.kernel.costFollowsScalars ? costs.seconds(launchedWith(op, scalars)) : prepared
    return jitter === undefined ? seconds : seconds * jitter.random.positive(jitter.deviation)
  }

  /** Whether its kernels have run beside collectives, and whether any of these has waited for that. */
  get besides(): { readonly between: boolean; readonly inside: boolean; readonly waited: boolean } {
    const { between, inside } = this.#slowed?.ran ?? { between: false, inside: false }
    return { between, inside, waited: this.#beside?.hasWaited === true }
  }

  /** That the compute lane has worked so far. */
  get computeSeconds(): number {
    return this.#slowed?.busySeconds ?? this.#engine.meters[this.#firstMeter + Lane.compute] ?? 0
  }

  ended(_: Lane, token: Token): boolean {
    return this.#engine.ended(token)
  }

  whenEnded(_: Lane, token: Token, then: () => void): void {
    // Not at once: other watchers of this end, such as those that compute values, may come after this one.
    this.#shared.whenEnded(token, () => this.#shared.later(then))
  }

  endStep(step: number, computeTail: Token): Token {
    const engine = this.#engine
    this.#replays = true
    const mark = engine.work(0)
    if (computeTail >= 0) engine.after(mark, computeTail)
    this.#shared.times?.stands(mark)
    this.#shared.whenEnded(mark, () => {
      this.stepEndSeconds[step] = engine.now
      this.stepBusySeconds[step] = this.computeSeconds
    })
    engine.release(mark)
    if (this.#host?.readsEachStep === true) {
      this.#hostWaits(mark)
      this.#busyHost(this.#host.readSeconds)
    }
    return mark
  }

  readonly all = (tails: Float64Array): Token => {
    const engine = this.#engine
    const all = engine.work(0)
    for (const tail of tails) if (tail >= 0) engine.after(all, tail)
    engine.release(all)
    return all
  }

  allocate(tensor: Tensor, values: TensorData | undefined): boolean {
    this.#shared.values?.alloc(this.#options.rank, tensor, values)
    return true
  }

  draw(tensor: Tensor, drawn: Drawn): void {
    this.#shared.values?.draw(this.#options.rank, tensor, drawn)
  }

  free(tensor: Tensor): void {
    // Ops that name it may not have run yet, so its values stay until they have.
    void tensor
  }

  read(tensor: Tensor): Effect.Effect<TensorData | undefined, MachineError> {
    const { values } = this.#shared
    const { rank, source } = this.#options
    const data = values?.of(rank, tensor) ?? source?.(rank, tensor, this.#reads(tensor))
    const seconds = this.#host?.readSeconds ?? 0
    this.#replays = true
    if (seconds === 0) return Effect.succeed(data?.slice())
    return Effect.as(this.rank.wait("the host", [Lane.compute], [this.#busyHost(seconds)]), data?.slice())
  }

  /** Counts a read of the tensor; how many there were before. */
  #reads(tensor: Tensor): number {
    const before = this.#readsOf.get(tensor) ?? 0
    this.#readsOf.set(tensor, before + 1)
    return before
  }

  nowSeconds(): number {
    return this.#engine.now
  }

  sleepUntil(seconds: number): Effect.Effect<void, MachineError> {
    return Effect.suspend(() => {
      const engine = this.#engine
      if (!(seconds > engine.now)) return Effect.void
      const alarm = engine.work(0)
      this.#shared.at(seconds, () => {
        engine.release(alarm)
      })
      const since = engine.now
      return Effect.andThen(
        this.rank.wait(`${seconds} s`, [Lane.compute], [alarm]),
        Effect.sync(() => this.#shared.times?.slept(this.#options.rank, since, engine.now))
      )
    })
  }

  fault(): MachineError | undefined {
    return undefined
  }
}

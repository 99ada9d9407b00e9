// One rank's machine in the simulator: gives ops their cost and hands them to the engine with their edges. The virtual
// clock moves only between the program's suspensions, never inside `submit`.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Dependencies } from "../core/machine/dependencies.ts"
import { Lane, laneCount } from "../core/machine/lane.ts"
import {
  type CollectiveMismatch,
  type Machine,
  type MachineError,
  NoValues,
  OutOfMemory
} from "../core/machine/machine.ts"
import { checkScalars, launchedWith, type Op, type OpId } from "../core/machine/op.ts"
import {
  elementsOf,
  sizeBytesOf,
  type Place,
  type Tensor,
  type TensorData,
  type TensorSpec
} from "../core/machine/tensor.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import type { Random } from "../core/random.ts"
import type { World } from "../core/world.ts"
import type { Collectives } from "./collectives.ts"
import type { CostModel } from "../core/cost/cost-model.ts"
import type { Activity, Engine, SpeedProfileId } from "./engine/engine.ts"
import type { Recorder } from "./recorder.ts"
import type { Values } from "./values.ts"

/** What all simulated ranks share. */
export interface Shared {
  readonly world: World
  readonly engine: Engine
  readonly collectives: Collectives
  readonly recorder: Recorder | undefined
  readonly values: Values | undefined
  /** Steps a program may be ahead of its compute lane. */
  readonly lookAhead: number
  /** Calls `then` when the activity ends; at once when it has. */
  readonly whenEnded: (activity: Activity, then: () => void) => void
  /** Calls `task` at the same virtual time, when all that happens at this moment has happened. */
  readonly later: (task: () => void) => void
}

export interface RankOptions {
  readonly rank: number
  /** Position among the simulated ranks: its meters in the engine are `index * laneCount + lane`. */
  readonly index: number
  readonly costs: CostModel
  /** Slowdowns and pauses of this rank's compute lane. */
  readonly speed: SpeedProfileId | undefined
  /** Relative standard deviation of each kernel's time, and where it is drawn from. */
  readonly jitter: { readonly deviation: number; readonly random: Random } | undefined
  readonly capacityBytes: Readonly<Record<Place, number>>
  /** Values of tensors that only a trace or a generator can give (routing decisions, say), without `values`. */
  readonly source: ((tensor: Tensor) => TensorData | undefined) | undefined
}

/** A program waiting, and what it waits for. */
interface Waiting {
  readonly what: string
  readonly resume: (exit: Exit.Exit<void, MachineError>) => void
}

export class RankMachine {
  readonly #shared: Shared
  readonly #options: RankOptions
  // What `submit` needs of them, at hand.
  readonly #engine: Engine
  readonly #firstMeter: number
  readonly #observed: boolean
  readonly #dependencies = new Dependencies()
  readonly #costs = new Map<Op, number>()
  // The activity at the end of each lane; -1 while nothing was submitted.
  readonly #tails = new Float64Array(laneCount).fill(-1)
  // Activities of recent ops, by op id modulo the length; older ones have all ended.
  #activities = new Float64Array(1024).fill(-1)
  #nextOp = 0
  #nextTensor = 0
  #step = 0
  readonly #usedBytes: Record<Place, number> = { device: 0, host: 0 }
  readonly #peakBytes: Record<Place, number> = { device: 0, host: 0 }
  #fault: CollectiveMismatch | undefined
  #waiting: Waiting | undefined
  // Ends of steps, by step modulo look-ahead.
  readonly #marks: Float64Array
  /** When the compute lane finished each step, seconds. */
  readonly stepEndSeconds: Array<number> = []
  /** Compute busy time up to each step's end, seconds. */
  readonly stepBusySeconds: Array<number> = []

  constructor(shared: Shared, options: RankOptions) {
    this.#shared = shared
    this.#options = options
    this.#engine = shared.engine
    this.#firstMeter = options.index * laneCount
    this.#observed = shared.recorder !== undefined || shared.values !== undefined
    this.#marks = new Float64Array(shared.lookAhead).fill(-1)
  }

  get submitted(): number {
    return this.#nextOp
  }

  get peakBytes(): Readonly<Record<Place, number>> {
    return this.#peakBytes
  }

  /** What the program waits for, if it does. */
  get waitingFor(): string | undefined {
    return this.#waiting === undefined
      ? undefined
      : `rank ${this.#options.rank} waits for ${this.#waiting.what}`
  }

  /** Fails the program at the place where it waits. */
  interruptWith(error: MachineError): void {
    this.#waiting?.resume(Exit.fail(error))
  }

  /** The service, as programs see it. */
  get service(): Machine["Service"] {
    const { rank, capacityBytes } = this.#options
    return {
      rank,
      world: this.#shared.world,
      alloc: (spec) => Effect.suspend(() => this.#alloc(spec)),
      free: (tensor) => {
        this.#usedBytes[tensor.place] -= tensor.sizeBytes
      },
      freeBytes: (place) => capacityBytes[place] - this.#usedBytes[place],
      submit: (op, scalars) => this.#submit(op, scalars),
      read: (tensor) =>
        Effect.flatMap(
          this.#wait(`tensor "${tensor.name}"`, () => this.#activityOf(this.#dependencies.writerOf(tensor))),
          () => this.#valuesOf(tensor)
        ),
      endStep: Effect.suspend(() => this.#endStep()),
      drain: this.#drain(),
      ready: (tensor) => {
        const activity = this.#activityOf(this.#dependencies.writerOf(tensor))
        return activity < 0 || this.#engine.ended(activity)
      },
      now: Effect.sync(() => this.#engine.now),
      sleepUntil: (seconds) => this.#sleepUntil(seconds)
    }
  }

  #alloc(spec: TensorSpec): Effect.Effect<Tensor, OutOfMemory> {
    const { rank, capacityBytes } = this.#options
    const place = spec.place ?? "device"
    const elements = elementsOf(spec.shape)
    const sizeBytes = sizeBytesOf(elements, spec.dtype)
    const freeBytes = capacityBytes[place] - this.#usedBytes[place]
    if (sizeBytes > freeBytes) {
      return Effect.fail(
        new OutOfMemory({
          rank,
          place,
          tensor: spec.name,
          neededBytes: sizeBytes,
          freeBytes,
          capacityBytes: capacityBytes[place]
        })
      )
    }
    this.#usedBytes[place] += sizeBytes
    this.#peakBytes[place] = Math.max(this.#peakBytes[place], this.#usedBytes[place])
    const { name, shape, dtype } = spec
    const tensor: Tensor = { id: this.#nextTensor++, name, shape, dtype, place, elements, sizeBytes }
    this.#dependencies.allocated(tensor)
    this.#shared.values?.alloc(rank, tensor, spec.initial)
    return Effect.succeed(tensor)
  }

  #submit(op: Op, scalars: Scalars | undefined): OpId {
    if (scalars !== undefined || op.kernel.scalars.length > 0) checkScalars(op, scalars)
    const engine = this.#engine
    const id = this.#nextOp++
    const lane = op.lane
    const dependencies = this.#dependencies
    dependencies.derive(id, lane, op.reads, op.writes)

    let first: Activity
    let last: Activity
    if (op.group === undefined) {
      first = last = engine.work(
        this.#seconds(op, scalars),
        this.#firstMeter + lane,
        lane === Lane.compute ? this.#options.speed : undefined
      )
    } else {
      const joined = this.#shared.collectives.join(this.#options.rank, op)
      if ("_tag" in joined) {
        this.#fault ??= joined
        return id
      }
      first = joined.first
      last = joined.last
    }
    const tail = this.#tails[lane]!
    if (tail >= 0) engine.after(first, tail)
    for (let i = 0; i < dependencies.edgeCount; i++) {
      const predecessor = this.#activityOf(dependencies.edges[i]!)
      if (predecessor >= 0) engine.after(first, predecessor)
    }
    this.#tails[lane] = last
    this.#remember(id, last)
    if (this.#observed) this.#observe(id, op, scalars, first, last)
    engine.release(first)
    return id
  }

  #observe(id: OpId, op: Op, scalars: Scalars | undefined, first: Activity, last: Activity): void {
    const { recorder, values, whenEnded } = this.#shared
    const rank = this.#options.rank
    recorder?.submitted(rank, id, this.#step, op, scalars, this.#dependencies, first, last)
    if (values === undefined || op.group !== undefined) return
    const launched = launchedWith(op, scalars)
    whenEnded(last, () => values.run(rank, launched))
  }

  #seconds(op: Op, scalars: Scalars | undefined): number {
    const { costs } = this.#options
    let seconds = this.#costs.get(op)
    if (op.kernel.costFollowsScalars) seconds = costs.seconds(launchedWith(op, scalars))
    else if (seconds === undefined) {
      seconds = costs.seconds(op)
      this.#costs.set(op, seconds)
    }
    const jitter = this.#options.jitter
    if (jitter === undefined) return seconds
    return seconds * jitter.random.positive(jitter.deviation)
  }

  /** The activity of an op, or -1 when it ended so long ago that its place was reused. */
  #activityOf(op: OpId): Activity {
    if (op < 0 || op < this.#nextOp - this.#activities.length) return -1
    return this.#activities[op & (this.#activities.length - 1)]!
  }

  #remember(op: OpId, activity: Activity): void {
    let slot = op & (this.#activities.length - 1)
    const before = this.#activities[slot]!
    if (before >= 0 && !this.#shared.engine.ended(before)) {
      const old = this.#activities
      this.#activities = new Float64Array(old.length * 2).fill(-1)
      for (let i = Math.max(0, op - old.length); i < op; i++) {
        this.#activities[i & (this.#activities.length - 1)] = old[i & (old.length - 1)]!
      }
      slot = op & (this.#activities.length - 1)
    }
    this.#activities[slot] = activity
  }

  #endStep(): Effect.Effect<void, MachineError> {
    const { engine, lookAhead, whenEnded } = this.#shared
    const mark = engine.work(0)
    const tail = this.#tails[Lane.compute]!
    if (tail >= 0) engine.after(mark, tail)
    const step = this.#step++
    whenEnded(mark, () => {
      this.stepEndSeconds[step] = engine.now
      this.stepBusySeconds[step] = engine.meters[this.#firstMeter + Lane.compute] ?? 0
    })
    engine.release(mark)
    const slot = step % lookAhead
    const earlier = this.#marks[slot]!
    this.#marks[slot] = mark
    return this.#wait(`step ${step - lookAhead}`, () => earlier)
  }

  #drain(): Effect.Effect<void, MachineError> {
    return Effect.suspend(() => {
      const { engine } = this.#shared
      const all = engine.work(0)
      for (const tail of this.#tails) if (tail >= 0) engine.after(all, tail)
      engine.release(all)
      return this.#wait("everything submitted", () => all)
    })
  }

  #sleepUntil(seconds: number): Effect.Effect<void, MachineError> {
    return Effect.suspend(() => {
      const engine = this.#engine
      if (!(seconds > engine.now)) return Effect.void
      const alarm = engine.work(seconds - engine.now)
      engine.release(alarm)
      // Once more, if the sum fell short of the moment by a rounding.
      return Effect.andThen(
        this.#wait(`${seconds} s`, () => alarm),
        this.#sleepUntil(seconds)
      )
    })
  }

  /** Suspends the program until the activity ends; fails with the fault found meanwhile, if any. */
  #wait(what: string, activity: () => Activity): Effect.Effect<void, MachineError> {
    return Effect.suspend(() => {
      if (this.#fault !== undefined) return Effect.fail(this.#fault)
      const handle = activity()
      if (handle < 0 || this.#shared.engine.ended(handle)) return Effect.void
      return Effect.callback<void, MachineError>((resume) => {
        this.#waiting = { what, resume }
        // Not at once: other watchers of this end, such as those that compute values, may come after this one.
        this.#shared.whenEnded(handle, () =>
          this.#shared.later(() => {
            this.#waiting = undefined
            resume(Exit.void)
          })
        )
      })
    })
  }

  #valuesOf(tensor: Tensor): Effect.Effect<TensorData, NoValues> {
    const { values } = this.#shared
    const data = values?.of(this.#options.rank, tensor) ?? this.#options.source?.(tensor)
    return data === undefined
      ? Effect.fail(new NoValues({ rank: this.#options.rank, tensor: tensor.name }))
      : Effect.succeed(data.slice())
  }
}

// Runs a program on simulated ranks: the virtual clock, the ranks' fibers and the engine in one synchronous loop.
// Knows nothing of scenarios, files or which algorithm it runs.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import { Digest } from "../core/digest.ts"
import { Lane, laneCount } from "../core/machine/lane.ts"
import { CollectiveOrder, describeUnmet, type OnCollective } from "../core/machine/collective-order.ts"
import type { OnOp } from "../core/machine/op.ts"
import {
  Deadlock,
  defaultLookAhead,
  drained,
  Machine,
  Misuse,
  type InitialValues,
  type MachineError,
  type Program,
  type RankOutcome,
  type ReadSource
} from "../core/machine/machine.ts"
import type { PendingOptions } from "../core/machine/pending.ts"
import { Recorder } from "../core/machine/recorder.ts"
import type { OpLog, Timeline } from "../core/machine/timeline.ts"
import type { Place } from "../core/machine/tensor.ts"
import { Random } from "../core/random.ts"
import type { Group, World } from "../core/world.ts"
import { hasWaits, type CollectiveOptions } from "../core/wire/legs.ts"
import { BesideCompute } from "./beside-compute.ts"
import { ActivityTimes } from "./activity-times.ts"
import { Collectives } from "./collectives.ts"
import type { CostModel, Estimate } from "../core/cost/cost-model.ts"
import { Engine, type Activity, type Link } from "./engine/engine.ts"
import type { Faults } from "./faults.ts"
import { FiberQueue, type Pick } from "./fibers.ts"
import { SimulatedRank } from "./machine.ts"
import type { CollectiveOption } from "../core/wire/idle.ts"
import { SlowedCompute, slowdownsOf } from "./slowed-compute.ts"
import { processFull } from "./process-memory.ts"
import { Network, type LinkResult } from "../core/wire/network.ts"
import { composedAlike, distinct, interchangeable, siteKey } from "../core/wire/symmetry.ts"
import { withVirtualClock } from "./virtual-clock.ts"
import { Values } from "./values.ts"

/** What is simulated: a program on the ranks of a world, with costs for its ops and a model of its links. */
export interface Simulation<A> {
  readonly world: World
  /** Run once for each simulated rank. */
  readonly program: Program<A>
  readonly costs: CostModel
  readonly network: "fluid" | "alpha-beta"
  readonly collectives: CollectiveOptions
  readonly faults?: Faults | undefined
  /** Relative standard deviation of every kernel's time. */
  readonly jitter?: number
  readonly seed?: number
  /** Bytes of each rank's memories; unbounded where not given. */
  readonly capacityBytes?: Partial<Readonly<Record<Place, number>>>
  readonly lookAhead?: number
  /** False when ranks behave differently for reasons the program knows: then each is simulated by itself. */
  readonly symmetric?: boolean
  /** Groups that the program's ranks meet in: where those alike are not composed alike, every rank is simulated by itself. */
  readonly groups?: ReadonlyArray<Group> | undefined
  readonly record?: boolean
  /** Told now and then how many steps all ranks have ended. */
  readonly onSteps?: ((ended: number) => void) | undefined
  /** Carry tensor values: every op's reference implementation runs. */
  readonly values?: InitialValues | undefined
  /** With `values`: stands beside every collective, and may replace its results. */
  readonly onCollective?: OnCollective | undefined
  /** With `values`: stands beside every other op, and may replace its results. */
  readonly onOp?: OnOp | undefined
  /** What reads give, without `values`. */
  readonly source?: ReadSource | undefined
  /** Which of the programs that can go on at the same virtual time does; first come first served by default. For tests. */
  readonly pick?: Pick | undefined
  /** Places in each rank's ring of ops under way, at first. For tests. */
  readonly ring?: PendingOptions["capacity"]
}

/** A simulated rank and how many ranks it stands for. */
export interface RankResult<A> extends RankOutcome<A> {
  readonly count: number
  /** When the compute lane finished each step. */
  readonly stepEndSeconds: ReadonlyArray<number>
  /** Compute-lane busy time up to each step's end. */
  readonly stepBusySeconds: ReadonlyArray<number>
  readonly laneBusySeconds: ReadonlyArray<number>
}

/** What a simulation comes to; times in seconds from its start. */
export interface SimulationResult<A> {
  readonly makespanSeconds: number
  readonly ranks: ReadonlyArray<RankResult<A>>
  readonly links: ReadonlyArray<LinkResult>
  readonly estimates: ReadonlyArray<Estimate>
  /** What was said of collectives, and has changed none of them. */
  readonly idle: ReadonlySet<CollectiveOption>
  /** Equal for equal runs, to the last bit of every time. */
  readonly digest: string
  readonly timeline: Timeline | undefined
  readonly opLogs: ReadonlyArray<OpLog>
  readonly values: Values | undefined
}

/** Simulates the program on every rank until all have finished. */
export const simulate = <A>(simulation: Simulation<A>): Effect.Effect<SimulationResult<A>, MachineError> =>
  Effect.suspend(() => {
    const run = new Run(simulation)
    return run.toEnd()
  })

class Run<A> {
  readonly #simulation: Simulation<A>
  readonly #engine: Engine
  readonly #network: Network
  readonly #collectives: Collectives
  readonly #recorder: Recorder | undefined
  readonly #values: Values | undefined
  readonly #queue: FiberQueue
  readonly #order: CollectiveOrder
  readonly #machines: Array<SimulatedRank> = []
  // Programs that wait for nothing of their machine, and have not ended.
  #running = 0
  readonly #counts: Array<number> = []
  readonly #ranks: Array<number> = []
  /** Of ends and of moments, by the tag that the engine reports. */
  readonly #callbacks: Array<(() => void) | undefined> = []
  readonly #freeCallbacks: Array<number> = []

  constructor(simulation: Simulation<A>) {
    this.#simulation = simulation
    this.#queue = new FiberQueue(simulation.pick)
    const { world, faults } = simulation
    const jitter = simulation.jitter ?? 0
    const alone = simulation.symmetric === false || simulation.values !== undefined || jitter > 0
    const kinds = alone
      ? undefined
      : interchangeable(world, {
          rank: (rank) => faults?.rankKey(rank) ?? "",
          node: (node) => faults?.nodeKey(node) ?? "",
          site: (site) => siteKey(world, site) + (faults?.siteKey(site) ?? "")
        })
    const meet = simulation.groups ?? []
    const symmetry =
      kinds !== undefined &&
      meet.every(({ alike }) => alike === undefined || composedAlike(kinds.ranks, alike))
        ? kinds
        : distinct(world)
    this.#network = new Network(world, symmetry)
    const { portShare } = simulation.collectives
    const slowdowns = slowdownsOf(simulation.collectives)
    this.#engine = new Engine({
      network: simulation.network,
      links: engineLinks(this.#network, symmetry.ranks.representatives, simulation.collectives)
    })
    const collectives = { ...simulation.collectives, linksVary: faults?.changeLinks ?? false }
    this.#collectives = new Collectives(this.#engine, this.#network, world, symmetry, collectives)
    const { representatives } = symmetry.ranks
    const firstDevice = this.#network.links.length + (portShare === undefined ? 0 : representatives.length)
    const present = new Set(representatives)
    this.#order = new CollectiveOrder({
      present: (rank) => present.has(rank),
      keepsOps: simulation.values !== undefined
    })
    this.#recorder = simulation.record === true ? new Recorder(representatives) : undefined
    this.#values =
      simulation.values === undefined ? undefined : new Values(simulation.onCollective, simulation.onOp)
    const times = this.#recorder === undefined ? undefined : new ActivityTimes(this.#recorder)
    if (times !== undefined) this.#engine.recorder = times
    const values = this.#values
    if (values !== undefined) {
      this.#collectives.onMet = (meeting, ranks, ops, last) =>
        this.#whenEnded(last, () => values.runCollective(meeting, ranks, ops))
    }
    this.#engine.onEnd = this.#callBack
    this.#engine.onTimer = this.#callBack
    faults?.install(this.#engine, this.#network, this.#at)

    const random = new Random(simulation.seed ?? 0).split("kernel time")
    const { capacityBytes, source } = simulation
    const waits = hasWaits(simulation.collectives)
    const later = (task: () => void): void => this.#queue.add(task)
    representatives.forEach((rank, index) => {
      const speed = faults?.speedOf(rank)
      this.#ranks.push(rank)
      this.#counts.push(symmetry.ranks.sizes[index]!)
      this.#machines.push(
        new SimulatedRank(
          {
            engine: this.#engine,
            collectives: this.#collectives,
            times,
            values,
            whenEnded: this.#whenEnded,
            at: this.#at,
            later,
            onWaiting: (waiting) => (this.#running += waiting ? -1 : 1)
          },
          {
            rank,
            index,
            world,
            order: this.#order,
            recorder: this.#recorder,
            lookAhead: simulation.lookAhead ?? defaultLookAhead,
            initial: simulation.values,
            pending: { capacity: simulation.ring },
            costs: simulation.costs,
            speed:
              speed === undefined || slowdowns !== undefined ? undefined : this.#engine.speedProfile(speed),
            slowed:
              slowdowns === undefined
                ? undefined
                : new SlowedCompute(this.#engine, firstDevice + index, slowdowns, speed ?? [], this.#at),
            beside: waits ? new BesideCompute(this.#engine, this.#whenEnded, later) : undefined,
            jitter: jitter > 0 ? { deviation: jitter, random: random.split(String(rank)) } : undefined,
            capacityBytes: {
              device: capacityBytes?.device ?? Infinity,
              host: capacityBytes?.host ?? Infinity
            },
            source
          }
        )
      )
    })
  }

  toEnd(): Effect.Effect<SimulationResult<A>, MachineError> {
    const engine = this.#engine
    const queue = this.#queue
    let unfinished = this.#machines.length
    this.#running = unfinished
    let failure: Exit.Exit<A, MachineError> | undefined
    const fibers: Array<Fiber.Fiber<A, MachineError>> = []
    for (const { rank } of this.#machines) {
      const context = Context.make(Machine, rank.service).pipe(
        Context.add(Scheduler.Scheduler, queue),
        Context.add(Scheduler.PreventSchedulerYield, true),
        withVirtualClock(rank.service, () => engine.now)
      )
      const fiber = Effect.runForkWith(context)(drained(this.#simulation.program))
      fiber.addObserver((exit) => {
        unfinished--
        rank.finish()
        if (Exit.isFailure(exit)) failure ??= exit
      })
      fibers.push(fiber)
    }
    queue.drain()
    const steps = this.#values === undefined ? stepsUnheard : stepsUnheardWithValues
    /** Steps for a while; false when the run is over. */
    const goOn = (): boolean => {
      for (let left = steps; left > 0;) {
        if (unfinished === 0 || failure !== undefined || this.#running > 0) return false
        if (left === steps || left % stepsUnmeasured === 0) {
          const full = processFull()
          if (full !== undefined) {
            failure = Exit.fail(full)
            return false
          }
        }
        // Only where something is runnable can any of this change.
        do {
          if (!engine.step()) {
            this.#failWith(this.#deadlock())
            queue.drain()
            return false
          }
        } while (--left % stepsUnmeasured !== 0 && queue.idle)
        if (!queue.idle) queue.drain()
      }
      return true
    }
    return Effect.gen({ self: this }, function* () {
      // Between two stretches, and nowhere else, whoever runs the simulation is heard: an interruption ends it there.
      while (goOn()) {
        this.#simulation.onSteps?.(this.#stepsEnded())
        yield* Effect.yieldNow
      }
      if (unfinished > 0 && failure === undefined && this.#running > 0)
        return yield* Effect.die(this.#suspendedElsewhere())
      if (failure !== undefined) return yield* failure as Exit.Exit<never, MachineError>
      return this.#result(fibers.map((fiber) => valueOf(fiber)))
    }).pipe(Effect.ensuring(Effect.sync(() => this.#interrupt(fibers))))
  }

  #stepsEnded(): number {
    return this.#machines.reduce(
      (least, { stepEndSeconds }) => Math.min(least, stepEndSeconds.length),
      Infinity
    )
  }

  /** Programs that a run leaves behind that has failed, or is interrupted, give back what they hold: no time passes for them. */
  #interrupt(fibers: ReadonlyArray<Fiber.Fiber<A, MachineError>>): void {
    for (const fiber of fibers) fiber.interruptUnsafe()
    this.#queue.drain()
  }

  readonly #whenEnded = (activity: Activity, then: () => void): void => {
    if (this.#engine.ended(activity)) {
      then()
      return
    }
    this.#engine.watch(activity, this.#tagOf(then))
  }

  readonly #at = (seconds: number, then: () => void): void => {
    this.#engine.at(seconds, this.#tagOf(then))
  }

  /** By which the engine reports what `then` waits for, once. */
  #tagOf(then: () => void): number {
    const tag = this.#freeCallbacks.pop() ?? this.#callbacks.length
    this.#callbacks[tag] = then
    return tag
  }

  readonly #callBack = (tag: number): void => {
    const then = this.#callbacks[tag]!
    this.#callbacks[tag] = undefined
    this.#freeCallbacks.push(tag)
    then()
  }

  #deadlock(): Deadlock {
    const programs = this.#machines.flatMap(({ rank }) => rank.waitingFor)
    return new Deadlock({
      atSeconds: this.#engine.now,
      waiting: [...this.#order.unmet.map(describeUnmet), ...this.#stalled(), ...programs]
    })
  }

  /** A program that waits, but for nothing of its machine: virtual time cannot pass meanwhile. */
  #suspendedElsewhere(): Misuse {
    const index = this.#machines.findIndex(({ rank }) => !rank.finished && rank.waitingFor.length === 0)
    return new Misuse({
      rank: this.#ranks[index]!,
      call: "suspend",
      subject: "program",
      reason:
        "waits for something outside of the simulation (a promise, a callback), for which virtual time cannot pass"
    })
  }

  /** Ops that nothing can move any more, for reasons other than a missing member. */
  #stalled(): ReadonlyArray<string> {
    const stalled = this.#engine.waiting()
    const devices = new Set(this.#ranks.map(deviceOf))
    return stalled.flatMap(({ kind, waitsFor, links }) => {
      if (waitsFor === "links" && links.some((link) => devices.has(link)))
        return ["a kernel waits for a rank that does not return"]
      if (waitsFor === "links") return [`a transfer waits for ${links.join(", ")}: no bandwidth`]
      if (waitsFor === "speed")
        return [`a ${kind === "work" ? "kernel" : kind} waits for a rank that does not return`]
      return []
    })
  }

  #failWith(error: MachineError): void {
    for (const { rank } of this.#machines) rank.interruptWith(error)
  }

  #idle(): ReadonlySet<CollectiveOption> {
    const { slowdown = 1, slowdownInside, waitSeconds = 0 } = this.#simulation.collectives
    const idle = new Set(this.#collectives.idle)
    const ran = (where: "between" | "inside") => this.#machines.some(({ besides }) => besides[where])
    if (slowdown > 1 && !ran("between") && (slowdownInside !== undefined || !ran("inside")))
      idle.add("slowdown")
    if (slowdownInside !== undefined && slowdownInside !== slowdown && !ran("inside"))
      idle.add("slowdownInside")
    if (waitSeconds > 0 && !this.#machines.some(({ besides }) => besides.waited)) idle.add("waitSeconds")
    return idle
  }

  #result(values: ReadonlyArray<A>): SimulationResult<A> {
    const engine = this.#engine
    const digest = new Digest()
    const ranks = this.#machines.map((machine, index): RankResult<A> => {
      const laneBusySeconds = Array.from({ length: laneCount }, (_, lane) =>
        lane === Lane.compute ? machine.computeSeconds : (engine.meters[index * laneCount + lane] ?? 0)
      )
      const result = {
        rank: this.#ranks[index]!,
        count: this.#counts[index]!,
        value: values[index]!,
        ops: machine.rank.submitted,
        stepEndSeconds: machine.stepEndSeconds,
        stepBusySeconds: machine.stepBusySeconds,
        laneBusySeconds,
        peakBytes: machine.rank.peakBytes
      }
      digest.number(result.rank)
      digest.number(result.ops)
      for (const seconds of result.stepEndSeconds) digest.number(seconds)
      for (const seconds of result.stepBusySeconds) digest.number(seconds)
      for (const seconds of laneBusySeconds) digest.number(seconds)
      return result
    })
    const links = this.#network.links.map(({ name, tier, count }, id): LinkResult => ({
      name,
      tier,
      count,
      bytes: this.#collectives.linkBytes[id]!,
      busySeconds: engine.linkBusySeconds(id)
    }))
    for (const link of links) {
      digest.text(link.name)
      digest.number(link.bytes)
      digest.number(link.busySeconds)
    }
    digest.number(engine.endedCount)
    digest.number(engine.now)
    const timeline = this.#recorder?.timeline("told")
    return {
      makespanSeconds: engine.now,
      ranks,
      links,
      estimates: [...this.#simulation.costs.estimates, ...this.#collectives.estimates],
      idle: this.#idle(),
      digest: digest.hex,
      timeline,
      opLogs: this.#recorder?.opLogs() ?? [],
      values: this.#values
    }
  }
}

/** Name of the link that a rank's compute is a flow over, where collectives slow it. */
const deviceOf = (rank: number): string => `device of rank ${rank}`

/** Links of the engine: the network's, then a port of each rank and a device of each, where collectives take of them. */
const engineLinks = (
  network: Network,
  ranks: ReadonlyArray<number>,
  collectives: CollectiveOptions
): ReadonlyArray<Link> => {
  const { portShare } = collectives
  // A whole of 1: what a collective takes of a port depends on its full speed.
  const whole = (name: string): Link => ({ name, bytesPerSecond: 1, latencySeconds: 0 })
  return [
    ...network.links.map(({ name, spec }) => ({ name, ...spec })),
    ...(portShare === undefined ? [] : ranks).map((rank) => whole(`port of rank ${rank}`)),
    ...(slowdownsOf(collectives) === undefined ? [] : ranks).map((rank) => whole(deviceOf(rank)))
  ]
}

/** Steps of the engine between two moments at which an interruption is heard: some tens of milliseconds. */
const stepsUnheard = 2 ** 15
/** With values, a step may compute a kernel. */
const stepsUnheardWithValues = 16

/** Steps of the engine between two looks at the memory of this process, at most. */
const stepsUnmeasured = 2 ** 12

const valueOf = <A>(fiber: Fiber.Fiber<A, MachineError>): A => {
  const exit = fiber.pollUnsafe()
  if (exit === undefined || !Exit.isSuccess(exit)) throw new Error("a finished program has no value")
  return exit.value
}

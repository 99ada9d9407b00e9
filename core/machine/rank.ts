// One rank in program order: ids, liveness of tensors, the memory ledger, what an op must be, dependencies, the order of
// collectives, look-ahead, and what the program waits for. The same on every machine, so what one refuses all refuse.
// Knows nothing of time or devices: a Driver launches, tells what has ended, and holds values.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { checkCall } from "../kernels/kernel.ts"
import { scalarsMisfit, type Scalars } from "../kernels/scalars.ts"
import type { World } from "../world.ts"
import { termsOf, type CollectiveOrder, type Meeting, type Seat } from "./collective-order.ts"
import { Dependencies, touchedBy, type Touched } from "./dependencies.ts"
import { firstMisfit, firstOf } from "./initial.ts"
import type { Driver, Predecessors } from "./driver.ts"
import { Lane, laneCount } from "./lane.ts"
import {
  Misuse,
  NoValues,
  OutOfMemory,
  type InitialValues,
  type Machine,
  type MachineError
} from "./machine.ts"
import type { Op, OpId } from "./op.ts"
import { membershipOf } from "./membership.ts"
import { Pending, type PendingOp, type PendingOptions, type Token } from "./pending.ts"
import type { Recorder } from "./recorder.ts"
import { ownBytes, tensorOf, type Place, type Tensor, type TensorData, type TensorSpec } from "./tensor.ts"
import { viewMisfit } from "./views.ts"

export interface RankOptions {
  readonly rank: number
  readonly world: World
  readonly order: CollectiveOrder
  readonly recorder: Recorder | undefined
  /** Steps that a program may be ahead of its compute lane, from 0. */
  readonly lookAhead: number
  readonly capacityBytes: Readonly<Record<Place, number>>
  /** First values of tensors, before their own; undefined where the machine carries none, and asks for none. */
  readonly initial: InitialValues | undefined
  readonly pending?: PendingOptions | undefined
}

/** What is known of an op that was submitted before. */
interface Known<Prepared> {
  readonly op: Op
  readonly prepared: Prepared
  /** The tensors that it names were live when so many had been freed. */
  freed: number
  readonly seat: Seat | undefined
  readonly terms: string
  /** Its kernel has scalars, which each launch is checked for. */
  readonly scalars: boolean
  readonly touched: Touched
  /** What was submitted after it, the last time. */
  next: Known<Prepared> | undefined
}

interface Wait {
  readonly what: string
  /** Ops that must end, where the wait is for ops. */
  readonly lanes: ReadonlyArray<Lane>
  readonly tokens: ReadonlyArray<Token>
  readonly resume: (exit: Exit.Exit<void, MachineError>) => void
}

export class Rank<Prepared> implements Predecessors {
  readonly #driver: Driver<Prepared>
  readonly #options: RankOptions
  readonly #recorder: Recorder | undefined
  readonly #order: CollectiveOrder
  readonly #dependencies = new Dependencies()
  readonly #pending: Pending
  readonly #known = new WeakMap<Op, Known<Prepared>>()
  /** Of the op last submitted. */
  #last: Known<Prepared> | undefined
  readonly #tails = new Float64Array(laneCount).fill(-1)
  // By id; undefined once freed.
  readonly #tensors: Array<Tensor | undefined> = []
  #freed = 0
  /** How many live tensors lie in an arena. */
  readonly #views = new Map<Tensor, number>()
  readonly #usedBytes: Record<Place, number> = { device: 0, host: 0 }
  readonly #peakBytes: Record<Place, number> = { device: 0, host: 0 }
  // Ends of steps, by step modulo the length.
  readonly #marks: Float64Array
  #step = 0
  #fault: MachineError | undefined
  readonly #waits = new Set<Wait>()
  #finished = false
  /** The machine, as the rank's program sees it. */
  readonly service: Machine["Service"]

  /** Throws `Misuse` for a look-ahead that is no whole number from 0. */
  constructor(options: RankOptions, driver: Driver<Prepared>) {
    const { rank, world, lookAhead, capacityBytes } = options
    this.#options = options
    this.#driver = driver
    this.#recorder = options.recorder
    this.#order = options.order
    this.#pending = new Pending((lane, token) => driver.ended(lane, token), options.pending)
    if (!(Number.isInteger(lookAhead) && lookAhead >= 0 && lookAhead <= lookAheadMax))
      throw this.#misuse(
        "lookAhead",
        String(lookAhead),
        `expected a whole number of steps, 0 to ${lookAheadMax}`
      )
    this.#marks = new Float64Array(lookAhead + 1).fill(-1)
    this.service = {
      rank,
      world,
      alloc: (spec) => Effect.suspend(() => this.#alloc(spec)),
      free: (tensor) => this.#free(tensor),
      freeBytes: (place) => capacityBytes[place] - this.#usedBytes[place],
      submit: (op, scalars) => this.#submit(op, scalars),
      read: (tensor) => this.#read(tensor),
      endStep: Effect.suspend(() => this.#endStep()),
      drain: Effect.suspend(() => this.#drain()),
      ready: (tensor, after = "write") => {
        this.#requireLive("ready", tensor.name, tensor)
        const writer = this.#dependencies.writerOf(tensor)
        if (writer >= 0 && !this.#pending.hasEnded(writer)) return false
        return (
          after === "write" || this.#dependencies.readersOf(tensor).every((op) => this.#pending.hasEnded(op))
        )
      },
      now: Effect.sync(() => driver.nowSeconds()),
      sleepUntil: (seconds) => driver.sleepUntil(seconds)
    }
  }

  /** The program has ended: it submits nothing more. */
  finish(): void {
    this.#finished = true
    if (this.#waits.size === 0) this.#driver.onWaiting?.(true)
  }

  get finished(): boolean {
    return this.#finished
  }

  get submitted(): number {
    return this.#pending.next
  }

  get steps(): number {
    return this.#step
  }

  get peakBytes(): Readonly<Record<Place, number>> {
    return this.#peakBytes
  }

  get edges(): Int32Array {
    return this.#dependencies.edges
  }

  get edgeCount(): number {
    return this.#dependencies.edgeCount
  }

  tailOf(lane: Lane): Token {
    return this.#tails[lane]!
  }

  tokenOf(op: OpId): Token {
    return this.#pending.tokenOf(op)
  }

  /** What the program waits for, all of it at once. */
  get waitingFor(): ReadonlyArray<string> {
    return [...this.#waits].map(({ what }) => `rank ${this.#options.rank} waits for ${what}`)
  }

  /** Ends of ops that the program waits for, wait by wait. */
  get waits(): ReadonlyArray<Pick<Wait, "lanes" | "tokens">> {
    return [...this.#waits]
  }

  /** Ops that have not ended. */
  get open(): Iterable<PendingOp> {
    return this.#pending.open()
  }

  /** Fails the program wherever it waits. */
  interruptWith(error: MachineError): void {
    for (const wait of this.#waits) this.#end(wait, Exit.fail(error))
  }

  /** Suspends the program until these have ended; fails with the fault found meanwhile, if any. */
  wait(
    what: string,
    lanes: ReadonlyArray<Lane>,
    tokens: ReadonlyArray<Token>
  ): Effect.Effect<void, MachineError> {
    const driver = this.#driver
    const found = this.#faultSoFar()
    if (found !== undefined) return Effect.fail(found)
    if (tokens.every((token, i) => token < 0 || driver.ended(lanes[i]!, token))) return Effect.void
    return Effect.callback<void, MachineError>((resume) => {
      const wait: Wait = { what, lanes, tokens, resume }
      this.#waits.add(wait)
      if (this.#waits.size === 1 && !this.#finished) driver.onWaiting?.(true)
      // Asked for one after another, what was launched last first: when that has ended the others mostly have, where each would
      // wake the program's thread on its own.
      const order = [...tokens.keys()].toSorted((a, b) => tokens[a]! - tokens[b]!)
      const next = (): void => {
        if (!this.#waits.has(wait)) return
        const i = order.pop()
        if (i !== undefined) {
          if (tokens[i]! < 0) next()
          else driver.whenEnded(lanes[i]!, tokens[i]!, next)
          return
        }
        const fault = this.#faultSoFar()
        this.#end(wait, fault === undefined ? Exit.void : Exit.fail(fault))
      }
      next()
      // A fiber that is interrupted waits no more.
      return Effect.sync(() => this.#forget(wait))
    })
  }

  #end(wait: Wait, exit: Exit.Exit<void, MachineError>): void {
    this.#forget(wait)
    wait.resume(exit)
  }

  #forget(wait: Wait): void {
    if (this.#waits.delete(wait) && this.#waits.size === 0 && !this.#finished) this.#driver.onWaiting?.(false)
  }

  #faultSoFar(): MachineError | undefined {
    return (this.#fault ??= this.#driver.fault())
  }

  #misuse(call: Misuse["call"], subject: string, reason: string): Misuse {
    return new Misuse({ rank: this.#options.rank, call, subject, reason })
  }

  #alloc(spec: TensorSpec): Effect.Effect<Tensor, OutOfMemory> {
    const { rank, capacityBytes, initial } = this.#options
    const tensor = tensorOf(this.#tensors.length, spec)
    const { name, shape, within, place, elements, sizeBytes } = tensor
    if (!shape.every((extent) => Number.isInteger(extent) && extent >= 0)) {
      const reason = `shape [${shape.join(", ")}]; expected whole numbers from 0`
      return Effect.die(this.#misuse("alloc", name, reason))
    }
    if (within !== undefined) {
      this.#requireLive("alloc", within.arena.name, within.arena)
      const misfit = viewMisfit(tensor, within, spec)
      if (misfit !== undefined) return Effect.die(this.#misuse("alloc", name, misfit))
    }
    const freeBytes = capacityBytes[place] - this.#usedBytes[place]
    const tooLarge = (): Effect.Effect<never, OutOfMemory> =>
      Effect.fail(
        new OutOfMemory({
          rank,
          place,
          tensor: name,
          neededBytes: sizeBytes,
          freeBytes,
          capacityBytes: capacityBytes[place]
        })
      )
    if (elements > elementsMax || ownBytes(tensor) > freeBytes) return tooLarge()
    const first = firstOf(
      initial === undefined || within !== undefined ? undefined : (initial(rank, tensor) ?? spec.initial)
    )
    const misfit = firstMisfit(tensor, first)
    if (misfit !== undefined) return Effect.die(this.#misuse("alloc", name, misfit))
    if (!this.#driver.allocate(tensor, first.values)) return tooLarge()
    for (const drawn of first.drawn) this.#driver.draw(tensor, drawn)
    this.#tensors.push(tensor)
    this.#usedBytes[place] += ownBytes(tensor)
    if (within !== undefined) this.#views.set(within.arena, (this.#views.get(within.arena) ?? 0) + 1)
    this.#peakBytes[place] = Math.max(this.#peakBytes[place], this.#usedBytes[place])
    this.#dependencies.allocated(tensor)
    return Effect.succeed(tensor)
  }

  #free(tensor: Tensor): void {
    this.#requireLive("free", tensor.name, tensor)
    const views = this.#views.get(tensor) ?? 0
    if (views > 0)
      throw this.#misuse("free", tensor.name, `${views} tensors still lie in it; free them first`)
    const { within } = tensor
    if (within !== undefined) this.#views.set(within.arena, this.#views.get(within.arena)! - 1)
    this.#tensors[tensor.id] = undefined
    this.#freed++
    this.#usedBytes[tensor.place] -= ownBytes(tensor)
    this.#driver.free(tensor)
  }

  #requireLive(call: Misuse["call"], subject: string, tensor: Tensor): void {
    if (this.#tensors[tensor.id] === tensor) return
    const freed = tensor.id < this.#tensors.length && this.#tensors[tensor.id] === undefined
    const reason = freed ? "was freed" : `is not of rank ${this.#options.rank}`
    throw this.#misuse(call, subject, `tensor "${tensor.name}" ${reason}`)
  }

  #submit(op: Op, scalars: Scalars | undefined): OpId {
    const known = this.#recall(op)
    if (scalars !== undefined || known.scalars) {
      const misfit = scalarsMisfit(op.kernel, op.attributes, scalars)
      if (misfit !== undefined) throw this.#misuse("submit", op.label, `${op.kernel.name} ${misfit}`)
    }
    const id = this.#pending.next
    // After a fault nothing runs any more; the program hears of it where it next waits.
    if (this.#fault !== undefined) return id
    let meeting: Meeting | undefined
    if (known.seat !== undefined) {
      const joined = this.#order.join(known.seat, op, known.terms)
      if ("_tag" in joined) {
        this.#fault = joined
        return id
      }
      meeting = joined
    }
    const lane = op.lane
    const dependencies = this.#dependencies
    dependencies.derive(id, lane, known.touched)
    const { edges, edgeCount } = dependencies
    this.#recorder?.submitted(this.#options.rank, this.#step, op, scalars, edges, edgeCount)
    const token = this.#driver.launch(id, op, known.prepared, scalars, meeting, this)
    this.#tails[lane] = token
    this.#pending.add(lane, token, edges, edgeCount, meeting)
    return id
  }

  /** What is known of an op, or comes to be. A step repeats the one before: what followed then is looked at first. */
  #recall(op: Op): Known<Prepared> {
    const last = this.#last
    let known = last?.next
    if (known?.op !== op || known.freed !== this.#freed) {
      known = this.#known.get(op)
      if (known === undefined || known.freed !== this.#freed) known = this.#admit(op, known)
      if (last !== undefined) last.next = known
    }
    this.#last = known
    return known
  }

  /** Whatever is wrong with an op is a defect of the program, found before any queue sees it. Once per op, and after frees. */
  #admit(op: Op, before: Known<Prepared> | undefined): Known<Prepared> {
    for (const tensor of op.reads) this.#requireLive("submit", op.label, tensor)
    for (const tensor of op.writes) this.#requireLive("submit", op.label, tensor)
    if (before !== undefined) {
      before.freed = this.#freed
      return before
    }
    const { kernel, reads, writes, attributes } = op
    try {
      checkCall(kernel, reads, writes, attributes)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      throw this.#misuse("submit", op.label, error.message)
    }
    this.#requirePlace(op, reads, kernel.name === "h2d" ? "host" : "device")
    this.#requirePlace(op, writes, kernel.name === "d2h" ? "host" : "device")
    const seat = this.#seat(op)
    const known: Known<Prepared> = {
      op,
      prepared: this.#driver.prepare(op),
      freed: this.#freed,
      seat,
      terms: seat === undefined ? "" : termsOf(op),
      scalars: kernel.scalars.length > 0,
      touched: touchedBy(op),
      next: undefined
    }
    this.#known.set(op, known)
    return known
  }

  #requirePlace(op: Op, tensors: ReadonlyArray<Tensor>, place: Place): void {
    const wrong = tensors.find((tensor) => tensor.place !== place)
    if (wrong === undefined) return
    const reason = `${op.kernel.name}: tensor "${wrong.name}" lies in ${wrong.place} memory; expected ${place}`
    throw this.#misuse("submit", op.label, reason)
  }

  #seat(op: Op): Seat | undefined {
    const { group } = op
    if (group === undefined) {
      if (op.kernel.kind !== "collective") return undefined
      throw this.#misuse("submit", op.label, `${op.kernel.name} is a collective and has no group`)
    }
    const { rank, world } = this.#options
    const refused = (reason: string): Misuse =>
      this.#misuse("submit", op.label, `group "${group.name}" of ranks ${group.ranks.join(", ")} ${reason}`)
    if (op.kernel.kind !== "collective") throw refused(`for ${op.kernel.name}, which is no collective`)
    const { has, wrong } = membershipOf(group.ranks, world)
    if (!has.has(rank)) throw refused(`has not rank ${rank}`)
    if (wrong !== undefined) throw refused(wrong)
    const seat = this.#order.seat(rank, group)
    if (!("_tag" in seat)) return seat
    this.#fault ??= seat
    return undefined
  }

  #read(tensor: Tensor): Effect.Effect<TensorData, MachineError> {
    return Effect.suspend(() => {
      this.#requireLive("read", tensor.name, tensor)
      const writer = this.#dependencies.writerOf(tensor)
      const token = writer < 0 ? -1 : this.#pending.tokenOf(writer)
      const lanes = token < 0 ? [] : [this.#pending.laneOf(writer)]
      const written = this.wait(`tensor "${tensor.name}"`, lanes, token < 0 ? [] : [token])
      const values = Effect.flatMap(written, () => {
        this.#requireLive("read", tensor.name, tensor)
        return this.#driver.read(tensor)
      })
      return Effect.flatMap(values, (data) =>
        data === undefined
          ? Effect.fail(new NoValues({ rank: this.#options.rank, tensor: tensor.name }))
          : Effect.succeed(data)
      )
    })
  }

  #endStep(): Effect.Effect<void, MachineError> {
    const step = this.#step++
    const marks = this.#marks
    marks[step % marks.length] = this.#driver.endStep(step, this.#tails[Lane.compute]!)
    const { lookAhead } = this.#options
    const earlier = step < lookAhead ? -1 : marks[(step - lookAhead) % marks.length]!
    return this.wait(`step ${step - lookAhead}`, [Lane.compute], [earlier])
  }

  #drain(): Effect.Effect<void, MachineError> {
    const all = this.#driver.all?.(this.#tails)
    const what = "everything submitted"
    if (all !== undefined) return this.wait(what, [Lane.compute], [all])
    return this.wait(what, everyLane, [...this.#tails])
  }
}

const everyLane: ReadonlyArray<Lane> = Array.from({ length: laneCount }, (_, lane) => lane as Lane)

/** Beyond it a number of elements is not exact, and no memory holds them. */
const elementsMax = Number.MAX_SAFE_INTEGER

/** Most steps of look-ahead: beyond it a program is not held back at all. */
const lookAheadMax = 2 ** 20

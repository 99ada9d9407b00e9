// The typed binding of the native layer: sessions, ranks, prepared ops, completion. It speaks the words of core (Tensor, Op,
// Lane) and adds no policy: who derives edges, waits, or turns a fault into a typed error is the executor's machine.
import { scalarsMisfit, type Scalars } from "../core/kernels/scalars.ts"
import { launchedWith, type Op, type OpId } from "../core/machine/op.ts"
import { laneCount, type Lane } from "../core/machine/lane.ts"
import type { Dtype, Place, Tensor, TensorData } from "../core/machine/tensor.ts"
import {
  loadAddon,
  type Addon,
  type AddonInfo,
  type AddonRank,
  type AddonSession,
  type NoAddon
} from "./native-addon.ts"

const placeCodes: Readonly<Record<Place, number>> = { device: 0, host: 1 }
const dtypeCodes: Readonly<Record<Dtype, number>> = {
  float32: 0,
  bfloat16: 1,
  float16: 2,
  float8: 3,
  float4: 4,
  int8: 5,
  int32: 6
}

/** What is built in, or why the addon is missing and how to get it. Never throws. */
export const nativeInfo = (): AddonInfo | NoAddon => {
  const addon = loadAddon()
  return "missing" in addon ? addon : addon.info()
}

const requireAddon = (): Addon => {
  const addon = loadAddon()
  if ("missing" in addon) throw new Error(addon.missing)
  return addon
}

/**
 * Chooses who multiplies matrices, for the whole process: "own", "openblas" (searched where the system keeps libraries) or
 * the path of a library with the CBLAS interface. Returns what is in force. Default: the environment variable TANDEM_BLAS,
 * else OpenBLAS where found, else own.
 * Throws RangeError when the library cannot be loaded; what was in force stays.
 */
export const useBlas = (name: string): string => requireAddon().useBlas(name)

/** A way that bytes take, emulated: a transfer of n bytes takes at least latencySeconds + n / bytesPerSecond. */
export interface Bus {
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}

export interface SessionOptions {
  readonly ranks: number
  /** Memory of each rank; default unbounded. */
  readonly deviceBytes?: number
  readonly hostBytes?: number
  /** Default: as fast as memory is. */
  readonly h2d?: Bus
  readonly d2h?: Bus
  /**
   * Links that collectives may be told to cross (`PrepareOptions.transport`), each FIFO: bytes of one collective follow
   * those of another. Default none: collectives go as fast as memory is.
   */
  readonly linkBytesPerSecond?: ReadonlyArray<number>
  /** Record when each op started and ended; take it with `NativeRank.takeTimes`. Default false. */
  readonly timed?: boolean
}

/** What a collective costs on emulated links; every member must say the same. */
export interface Transport {
  readonly latencySeconds: number
  readonly loads: ReadonlyArray<{ readonly link: number; readonly bytes: number }>
}

export interface PrepareOptions {
  readonly transport?: Transport
  /**
   * The op takes at least this long, asleep. For ops of the kernel `profiled`, which have no values, it is how long they
   * take. Default 0.
   */
  readonly seconds?: number
}

/** When an op ran, in seconds since the session was opened; one clock for all ranks. */
export interface OpTime {
  readonly op: OpId
  readonly lane: Lane
  readonly startSeconds: number
  readonly endSeconds: number
}

interface Watch {
  readonly rank: AddonRank
  readonly lane: number
  readonly op: number
  readonly due: () => void
}

/**
 * All ranks of one process, with their worker threads: one per rank and lane, started when the lane is first used.
 *
 * The first fault of any op (a token outside its vocabulary, collectives that contradict each other) is kept in `fault`.
 * From then on queued ops end without computing anything, so that nobody waits for ever.
 */
export class NativeSession {
  readonly ranks: ReadonlyArray<NativeRank>
  readonly #session: AddonSession
  #watches: Array<Watch> = []

  constructor(session: (onProgress: () => void) => AddonSession, ranks: number) {
    this.#session = session(() => this.#progress())
    this.ranks = Array.from(
      { length: ranks },
      (_, rank) => new NativeRank(this.#session, rank, (watch) => this.#watch(watch))
    )
  }

  /** Opens a session. Throws Error with the reason and the remedy when the addon is missing, RangeError for bad options. */
  static open(options: SessionOptions): NativeSession {
    const { ranks, deviceBytes = Infinity, hostBytes = Infinity, h2d, d2h } = options
    const addon = requireAddon()
    const bus = ({ bytesPerSecond, latencySeconds }: Bus = { bytesPerSecond: Infinity, latencySeconds: 0 }) =>
      [bytesPerSecond, latencySeconds] as const
    return new NativeSession(
      (onProgress) =>
        addon.openSession({
          ranks,
          deviceBytes,
          hostBytes,
          h2d: bus(h2d),
          d2h: bus(d2h),
          linkBytesPerSecond: options.linkBytesPerSecond ?? [],
          timed: options.timed ?? false,
          onProgress
        }),
      ranks
    )
  }

  /** The first fault of any op, as one line that names rank, op and reason. */
  get fault(): string | undefined {
    return this.#session.fault()
  }

  /** Seconds since the session was opened, on the clock of `OpTime`. */
  get nowSeconds(): number {
    return this.#session.nowNanoseconds() * 1e-9
  }

  /**
   * Ends all threads: an op that is running ends first, queued ops do not run. Frees all memory. Watches are dropped without
   * a call. Any later use of the session or its ranks throws Error; closing again does nothing.
   */
  close(): void {
    this.#watches = []
    this.#session.close()
  }

  #watch(watch: Watch): void {
    if (this.#watches.length === 0) this.#session.hold(true)
    this.#watches.push(watch)
  }

  #progress(): void {
    const watches = this.#watches
    this.#watches = []
    const due: Array<() => void> = []
    for (const watch of watches) {
      // `watch` arms the notification again where the op has not ended
      if (watch.rank.watch(watch.lane, watch.op)) due.push(watch.due)
      else this.#watches.push(watch)
    }
    if (this.#watches.length === 0) this.#session.hold(false)
    for (const then of due) then()
  }
}

/** One rank: its memory, its lanes, its program order. Not a Machine: it derives nothing and waits for nothing. */
export class NativeRank {
  #rank: AddonRank
  readonly #session: AddonSession
  readonly #index: number
  readonly #watch: (watch: Watch) => void
  readonly #handles = new WeakMap<Op, number>()
  // Of ops that leave their scalars to each launch: each launch is prepared.
  readonly #launchOptions = new WeakMap<Op, PrepareOptions>()
  readonly #released: FinalizationRegistry<number>

  constructor(session: AddonSession, rank: number, watch: (watch: Watch) => void) {
    this.#session = session
    this.#index = rank
    this.#watch = watch
    this.#rank = session.rank(rank, new Int32Array(laneCount))
    // Garbage may outlive its session, which has let go of everything.
    const released = (handle: number): void => {
      if (session.open()) this.#rank.release(handle)
    }
    this.#released = new FinalizationRegistry(released)
  }

  /** From now on `submit` reads its edges from this array: pass `dependencies.edges` once. */
  takeEdgesFrom(edges: Int32Array): void {
    this.#rank = this.#session.rank(this.#index, edges)
  }

  /**
   * Gives a tensor memory under its id, all zeros. False when it does not fit into what is left of its place; nothing
   * is then allocated. Accounted in program order by the tensor's `sizeBytes`; the real bytes of a freed tensor return once
   * the last op that names it has ended.
   */
  alloc(tensor: Tensor): boolean {
    return this.#rank.alloc(tensor.id, placeCodes[tensor.place], dtypeCodes[tensor.dtype], tensor.shape)
  }

  /** Gives the memory back. Submitting an op that names the tensor afterwards throws RangeError. */
  free(tensor: Tensor): void {
    this.#rank.free(tensor.id)
  }

  /** Bytes left in a memory of this rank; Infinity where it is unbounded. */
  freeBytes(place: Place): number {
    return this.#rank.freeBytes(placeCodes[place])
  }

  /**
   * Overwrites a tensor's values at once, from the program's thread, rounded to its dtype. Only while no op that names it is
   * queued (initial values): otherwise throws RangeError.
   */
  write(tensor: Tensor, data: TensorData): void {
    this.#rank.write(tensor.id, data)
  }

  /**
   * The values as they are now. The op that last wrote the tensor must have ended (`whenWritten`): otherwise throws
   * RangeError.
   */
  read(tensor: Tensor): TensorData {
    const { dtype, elements } = tensor
    const data = dtype === "int8" || dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
    this.#rank.read(tensor.id, data)
    return data
  }

  /**
   * Makes an op ready to be submitted any number of times: checks that its kernel is there and its operands are allocated
   * and lie in the right memory. The op must already have passed `checkCall`. Called by `submit` when need be; call it
   * yourself for ops that need options. What was prepared is let go when the op is garbage, or by `release`.
   * Throws RangeError that names op and reason.
   */
  prepare(op: Op, options: PrepareOptions = {}): void {
    if (scalarsMisfit(op.kernel, op.attributes, undefined) !== undefined) {
      this.#launchOptions.set(op, options)
      return
    }
    const { transport, seconds = 0 } = options
    const handle = this.#rank.prepare({
      kernel: op.kernel.name,
      lane: op.lane,
      attributes: withFallbacks(op),
      reads: op.reads.map(({ id }) => id),
      writes: op.writes.map(({ id }) => id),
      group: op.group?.name,
      members: op.group?.ranks,
      seconds,
      loads: transport?.loads.flatMap(({ link, bytes }) => [link, bytes]) ?? [],
      latencySeconds: transport?.latencySeconds ?? 0
    })
    this.#handles.set(op, handle)
    this.#released.register(op, handle, op)
  }

  /** Lets go of what `prepare` made, before the op is garbage. */
  release(op: Op): void {
    const handle = this.#handles.get(op)
    if (handle === undefined) return
    this.#handles.delete(op)
    this.#released.unregister(op)
    if (this.#session.open()) this.#rank.release(handle)
  }

  /**
   * Puts an op into its lane and returns at once: its position in this rank's program order. It starts when everything
   * before it in its lane and the ops `edges[0 .. edgeCount)` have ended. `scalars` are this launch's, copied.
   */
  submit(op: Op, edgeCount: number, scalars?: Scalars): OpId {
    if (scalars !== undefined) {
      const launched = launchedWith(op, scalars)
      this.prepare(launched, this.#launchOptions.get(op))
      return this.submit(launched, edgeCount)
    }
    let handle = this.#handles.get(op)
    if (handle === undefined) {
      this.prepare(op)
      handle = this.#handles.get(op)!
    }
    return this.#rank.submit(handle, edgeCount)
  }

  /** The op of that lane that ended last; -1 while none has. */
  ended(lane: Lane): OpId {
    return this.#rank.ended(lane)
  }

  /** The op of that lane that was submitted last; -1 while none was. */
  submitted(lane: Lane): OpId {
    return this.#rank.submitted(lane)
  }

  /**
   * Calls `then` when the lane has ended `op`; from within this call when it already has. The process stays alive while
   * watches are pending; no thread spins. After a fault, `then` is called as the lane drains: look at `session.fault`.
   */
  whenEnded(lane: Lane, op: OpId, then: () => void): void {
    if (this.#rank.watch(lane, op)) then()
    else this.#watch({ rank: this.#rank, lane, op, due: then })
  }

  /** Calls `then` when the op that last wrote the tensor has ended; from within this call when it already has. */
  whenWritten(tensor: Tensor, then: () => void): void {
    const writer = this.#rank.writerOf(tensor.id)
    if (writer < 0) then()
    else this.whenEnded((writer % laneCount) as Lane, Math.floor(writer / laneCount), then)
  }

  /** Calls `then` when everything submitted so far has ended; from within this call when it already has. */
  whenDrained(then: () => void): void {
    let pending = 1
    const one = (): void => {
      pending--
      if (pending === 0) then()
    }
    for (let lane = 0; lane < laneCount; lane++) {
      pending++
      this.whenEnded(lane as Lane, this.#rank.submitted(lane), one)
    }
    one()
  }

  /** Times of all ops that have ended since the last call, in order of lane and end. Empty unless the session is `timed`. */
  takeTimes(): ReadonlyArray<OpTime> {
    const columns = this.#rank.takeTimes()
    const times: Array<OpTime> = []
    for (let i = 0; i < columns.length; i += 4) {
      times.push({
        op: columns[i]!,
        lane: columns[i + 1]! as Lane,
        startSeconds: columns[i + 2]! * 1e-9,
        endSeconds: columns[i + 3]! * 1e-9
      })
    }
    return times
  }
}

/** The op's attributes with the kernel's fallbacks filled in: C++ has no second copy of them. */
const withFallbacks = ({ kernel, attributes }: Op): AddonAttributes => {
  const values: Record<string, number | string | boolean> = {}
  for (const [name, { fallback }] of Object.entries(kernel.attributes)) {
    const value = attributes[name] ?? fallback
    if (value !== undefined) values[name] = value
  }
  return values
}

type AddonAttributes = Readonly<Record<string, number | string | boolean>>

// The typed binding of the native layer: sessions, ranks, prepared ops, completion. It speaks the words of core (Tensor, Op,
// Lane) and adds no policy: who derives edges, waits, or turns a fault into a typed error is the executor's machine.
import type { Attributes, AttributeValue, Kernel } from "../core/kernels/kernel.ts"
import type { Scalars } from "../core/kernels/scalars.ts"
import type { Op, OpId } from "../core/machine/op.ts"
import { laneCount, type Lane } from "../core/machine/lane.ts"
import type { Dtype, Place, Tensor, TensorData } from "../core/machine/tensor.ts"
import {
  loadAddon,
  type Addon,
  type AddonFault,
  type AddonInfo,
  type AddonOp,
  type AddonRank,
  type AddonSession,
  type AddonUcx,
  type NoAddon,
  type Replays
} from "./native-addon.ts"

const placeCodes: Readonly<Record<Place, number>> = { device: 0, host: 1 }
const dtypeCodes: Readonly<Record<Dtype, number>> = {
  float32: 0,
  bfloat16: 1,
  float16: 2,
  float8: 3,
  float4: 4,
  int8: 5,
  int32: 6,
  // A size for simulations; the native layer knows no such code and refuses it.
  mxfp4: 7
}

/** What is built in, or why the addon is missing and how to get it. Never throws. */
export const nativeInfo = (): AddonInfo | NoAddon => {
  const addon = loadAddon()
  return "missing" in addon ? addon : addon.info()
}

/** UCX as it was found, or why it, or the addon, is missing. Never throws. */
export const ucxInfo = (): AddonUcx => {
  const addon = loadAddon()
  return "missing" in addon ? addon : addon.ucx()
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

type NativeFault = AddonFault

export interface SessionOptions {
  readonly ranks: number
  /** "cpu" by default; `nativeInfo` lists those of this build. */
  readonly backend?: string
  /** Settings of that backend alone: `seed` of "deferred". */
  readonly settings?: Readonly<Record<string, number>>
  /** Memory of each rank; default, and at most, what the device has for it. */
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
  /** Connections to ranks of other processes: the session is of the mesh's rank alone. */
  readonly mesh?: { readonly handle: unknown } | undefined
  /** Position among the processes of this host: where it has several devices, this one's turn. Default 0. */
  readonly localRank?: number | undefined
  /** Record when each op started and ended; take it with `NativeRank.takeTimes`. Default false. */
  readonly timed?: boolean
}

/** What a collective costs on emulated links; every member must say the same. */
export interface Transport {
  readonly latencySeconds: number
  readonly loads: ReadonlyArray<{ readonly link: number; readonly bytes: number }>
}

/** How an op is prepared for its lane, once for all its launches. */
export interface PrepareOptions {
  readonly transport?: Transport
  /**
   * The op takes at least this long, asleep. For ops of the kernel `profiled`, which have no values, it is how long they
   * take. Default 0.
   */
  readonly seconds?: number
}

/** When an op ran, in seconds since the session was opened; one clock for all ranks. */
interface OpTime {
  readonly op: OpId
  readonly lane: Lane
  readonly startSeconds: number
  readonly endSeconds: number
}

interface Watch {
  /** Whether it is due; if not, there will be another call once it is. */
  readonly reached: () => boolean
  readonly due: () => void
}

/**
 * All ranks of one process on one backend.
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

  /**
   * Opens a session. Throws Error with the reason and the remedy when the addon is missing or the backend is not available,
   * RangeError for bad options.
   */
  static open(options: SessionOptions): NativeSession {
    const { ranks, backend = "cpu", settings = {}, deviceBytes = Infinity, hostBytes = Infinity } = options
    const addon = requireAddon()
    const bus = ({ bytesPerSecond, latencySeconds }: Bus = { bytesPerSecond: Infinity, latencySeconds: 0 }) =>
      [bytesPerSecond, latencySeconds] as const
    return new NativeSession(
      (onProgress) =>
        addon.openSession({
          backend,
          settings,
          ranks,
          deviceBytes,
          hostBytes,
          h2d: bus(options.h2d),
          d2h: bus(options.d2h),
          linkBytesPerSecond: options.linkBytesPerSecond ?? [],
          timed: options.timed ?? false,
          mesh: options.mesh?.handle,
          firstDevice: options.localRank ?? 0,
          onProgress
        }),
      ranks
    )
  }

  /** The first fault of any op: what happened, to which rank and op, and whose fault it was where that is another rank's. */
  get fault(): NativeFault | undefined {
    return this.#session.fault()
  }

  /** Ops that came again and were launched as a whole, so far; undefined where the backend has no such thing. */
  get replays(): Replays | undefined {
    return this.#session.replays()
  }

  /** Gives up: everything ends as after a fault, with this message, unless there was one before. */
  abort(message: string): void {
    this.#session.abort(message)
  }

  /** Seconds since the session was opened, on the clock of `OpTime`. */
  get nowSeconds(): number {
    return this.#session.nowNanoseconds() * 1e-9
  }

  /**
   * Ends all lanes: an op that is running ends first, queued ops do not run. Frees all memory. Watches are dropped without
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
      // asking arms the notification again where it is not due
      if (watch.reached()) due.push(watch.due)
      else this.#watches.push(watch)
    }
    if (this.#watches.length === 0) this.#session.hold(false)
    for (const then of due) {
      // One of them may have ended the run, and what is closed has no values to give.
      if (!this.#session.open()) return
      then()
    }
  }
}

/** One rank: its memory, its lanes, its program order. Not a Machine: it derives nothing and waits for nothing. */
export class NativeRank {
  readonly #rank: AddonRank
  readonly #session: AddonSession
  readonly #watch: (watch: Watch) => void
  #edges: Int32Array = new Int32Array(laneCount)
  readonly #handles = new WeakMap<Op, number>()
  readonly #released: FinalizationRegistry<number>

  constructor(session: AddonSession, rank: number, watch: (watch: Watch) => void) {
    this.#session = session
    this.#watch = watch
    this.#rank = session.rank(rank)
    // Garbage may outlive its session, which has let go of everything.
    const released = (handle: number): void => {
      if (session.open()) this.#rank.release(handle)
    }
    this.#released = new FinalizationRegistry(released)
  }

  /** From now on `submit` reads its edges from this array: pass `dependencies.edges` once. */
  takeEdgesFrom(edges: Int32Array): void {
    this.#edges = edges
  }

  /**
   * Gives a tensor memory under its id, all zeros; with `zeros: false`, any content. False when it does not fit into what is
   * left of its place; nothing is then allocated. Accounted in program order by the tensor's `sizeBytes`; the real bytes of
   * a freed tensor return once the last op that names it has ended. Throws RangeError for a shape that cannot be.
   */
  alloc(tensor: Tensor, { zeros = true }: { readonly zeros?: boolean } = {}): boolean {
    return this.#rank.alloc(
      tensor.id,
      placeCodes[tensor.place],
      dtypeCodes[tensor.dtype],
      tensor.shape,
      zeros
    )
  }

  /**
   * Puts a tensor inside another one, its arena, so many bytes into it as `sizeBytes` counts them (a multiple of 256). It
   * counts for nothing itself, has the content that lies there, and waits for earlier views that it overlaps. Its dtype must
   * not be narrower than the arena's. Throws RangeError.
   */
  view(tensor: Tensor, arena: Tensor, offsetBytes: number): void {
    this.#rank.view(tensor.id, arena.id, offsetBytes, dtypeCodes[tensor.dtype], tensor.shape)
  }

  /**
   * Gives the memory back; an arena's after those of its views. Submitting an op that names the tensor afterwards throws
   * RangeError.
   */
  free(tensor: Tensor): void {
    this.#rank.free(tensor.id)
  }

  /** Bytes of a memory of this rank: what the session was given, or what the device has for it. */
  capacityBytes(place: Place): number {
    return this.#rank.capacityBytes(placeCodes[place])
  }

  /** Bytes left in a memory of this rank. */
  freeBytes(place: Place): number {
    return this.#rank.freeBytes(placeCodes[place])
  }

  /** Scratch that the device keeps for prepared ops, beside what tensors count for. */
  get workspaceBytes(): number {
    return this.#rank.workspaceBytes()
  }

  /**
   * Overwrites a tensor's values, rounded to its dtype, after every op submitted before that names it and before every later
   * one. The values are copied before the call returns.
   */
  write(tensor: Tensor, data: TensorData): void {
    this.#rank.upload(tensor.id, data)
  }

  /**
   * Runs a kernel of one tensor in place, as `write` puts values there: no op of the program's. It takes no scalars, and the
   * tensor may lie in either memory.
   */
  draw(tensor: Tensor, kernel: Kernel, attributes: Attributes): void {
    this.#rank.draw(tensor.id, { kernel: kernel.name, attributes: withFallbacks(kernel, attributes) })
  }

  /** Calls `then` when all that was written and drawn so far is there; from within this call when it already is. */
  whenSettled(then: () => void): void {
    if (this.#rank.settled()) then()
    else this.#watch({ reached: () => this.#rank.settled(), due: then })
  }

  /**
   * The values as they are now. The op that last wrote the tensor must have ended (`whenWritten`): otherwise throws
   * RangeError.
   */
  read(tensor: Tensor): TensorData {
    const data = storageOf(tensor)
    this.#rank.read(tensor.id, data)
    return data
  }

  /**
   * Calls `then` with the values once the op that last wrote the tensor has ended; from within this call when it already has
   * and the device's memory can be read at once. Later ops that overwrite the tensor wait for the values to be out. After a
   * fault `then` is called with whatever there is: look at `session.fault`.
   */
  whenRead(tensor: Tensor, then: (data: TensorData) => void): void {
    this.#whenArrived(tensor, this.#rank.download(tensor.id), then)
  }

  /** As `whenRead`, of what an op finds there that is submitted next, with these edges: by whatever name it was written. */
  whenFound(tensor: Tensor, { lane }: Op, edgeCount: number, then: (data: TensorData) => void): void {
    const edges = this.#edges.subarray(0, edgeCount)
    this.#whenArrived(tensor, this.#rank.downloadFor(tensor.id, lane, ...edges), then)
  }

  #whenArrived(tensor: Tensor, download: number, then: (data: TensorData) => void): void {
    const taken = (): void => {
      const data = storageOf(tensor)
      this.#rank.take(download, data)
      then(data)
    }
    if (this.#rank.arrived(download)) taken()
    else this.#watch({ reached: () => this.#rank.arrived(download), due: taken })
  }

  /**
   * Makes an op ready to be submitted any number of times: checks that its kernel is there and its operands are allocated
   * and lie in the right memory. The op must already have passed `checkCall`. Called by `submit` when need be; call it
   * yourself for ops that need options. What was prepared is let go when the op is garbage, or by `release`.
   * Throws RangeError that names op and reason.
   */
  prepare(op: Op, options: PrepareOptions = {}): void {
    const { transport, seconds = 0 } = options
    const handle = this.#rank.prepare({
      kernel: op.kernel.name,
      lane: op.lane,
      attributes: withFallbacks(op.kernel, op.attributes),
      scalars: op.kernel.scalars,
      reads: op.reads.map(({ id }) => id),
      writes: op.writes.map(({ id }) => id),
      ...partsOf(op),
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
   * before it in its lane and the first `edgeCount` of its edges (`takeEdgesFrom`) have ended. `scalars` are the values of
   * the kernel's scalars for this launch, copied.
   */
  submit(op: Op, edgeCount: number, scalars?: Scalars): OpId {
    let handle = this.#handles.get(op)
    if (handle === undefined) {
      this.prepare(op)
      handle = this.#handles.get(op)!
    }
    const rank = this.#rank
    const edges = this.#edges
    if (scalars === undefined || scalars.length === 0) {
      return rank.submit(handle, edgeCount, edges[0], edges[1], edges[2], edges[3], edges[4])
    }
    return rank.submit(handle, edgeCount, edges[0], edges[1], edges[2], edges[3], edges[4], ...scalars)
  }

  /** A step is submitted: where a backend may end a captured graph, and tidy its memory. */
  endStep(): void {
    this.#rank.endStep()
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
    else this.#watch({ reached: () => this.#rank.watch(lane, op), due: then })
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

const storageOf = ({ dtype, elements }: Tensor): TensorData =>
  dtype === "int8" || dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)

/** Attributes with the kernel's fallbacks filled in: C++ has no second copy of them. */
const withFallbacks = (kernel: Kernel, attributes: Attributes): Attributes => {
  const values: Record<string, AttributeValue> = {}
  for (const [name, { fallback }] of Object.entries(kernel.attributes)) {
    const value = attributes[name] ?? fallback
    if (value !== undefined) values[name] = value
  }
  return values
}

/** What a composite kernel is made of, and one over a list of more than one tensor; nothing of any other. */
const partsOf = ({ kernel, reads, writes, attributes }: Op): Pick<AddonOp, "parts" | "inner"> => {
  const expansion = kernel.expand?.(reads, writes, attributes)
  if (
    expansion === undefined ||
    (expansion.calls.length === 1 && expansion.calls[0]!.kernel.name === kernel.name)
  )
    return { parts: [], inner: [] }
  return {
    parts: expansion.calls.map((call) => ({
      kernel: call.kernel.name,
      attributes: withFallbacks(call.kernel, call.attributes),
      inputs: call.inputs,
      outputs: call.outputs
    })),
    inner: expansion.inner.map(({ dtype, shape }) => ({ dtype: dtypeCodes[dtype], shape }))
  }
}

// Which expert lies in which slot, call by call: turns what a layer needs into loads and uses in the order they must be
// submitted. The trace-driven counter and the program on a machine run the same one. Knows nothing of tensors or time.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/** How an expert that a layer needs was found when the layer's choices became known. */
type Found = "resident" | "missing"

/** Who carries the decisions out, in order. */
export interface CacheSink {
  /** Copy the expert into the slot, which `evicted` leaves. `ahead`: before its layer asked for it. */
  load(id: ExpertId, slot: number, evicted: ExpertId | undefined, ahead: boolean): void
  /** Compute the expert from the slot. */
  use(id: ExpertId, slot: number, found: Found): void
}

/** Slots that one policy manages, for the experts of some layers. */
export interface Pool {
  readonly slots: number
  readonly policy: ReplacementPolicy
}

/** Slots of an expert cache, and whose policy decides in them. */
export interface CacheOptions {
  readonly shape: ExpertShape
  /** One pool for all layers, or one for each layer. */
  readonly pools: ReadonlyArray<Pool>
  /** Slots for experts that are used once and forgotten, shared by all layers. */
  readonly stagingSlots: number
  /** False: nothing outlives its layer call. Default true. */
  readonly retain?: boolean
}

const nowhere = -1

/** Bounded slots of experts. A strategy has one, which remembers: a fresh one for each run. */
export class ExpertCache {
  readonly shape: ExpertShape
  /** Slots of all pools, then the staging slots. */
  readonly slots: number
  readonly #pools: ReadonlyArray<Pool>
  readonly #free: ReadonlyArray<Array<number>>
  readonly #retain: boolean
  readonly #slotOf: Int32Array
  /** Loads in order: a resident's number says how old its copy is. */
  readonly #loadedAt: Float64Array
  #loads = 0
  readonly #firstStaging: number
  readonly #stagingSlots: number
  #staged = 0
  // The call in progress: 1 for experts it needs and has not computed.
  readonly #pending: Uint8Array
  // Prefetched and not used since; with the layer's call to come, also kept from other prefetches.
  readonly #unused: Uint8Array
  readonly #awaited: Uint8Array
  #useless = 0

  constructor({ shape, pools, stagingSlots, retain = true }: CacheOptions) {
    if (pools.length !== 1 && pools.length !== shape.layers) {
      throw new RangeError(`${pools.length} pools for ${shape.layers} layers: one, or one for each layer`)
    }
    const ids = shape.layers * shape.experts
    this.shape = shape
    this.#pools = pools
    let first = 0
    this.#free = pools.map(({ slots }) => {
      if (slots < 1 && stagingSlots < 1) throw new RangeError("a pool without slots needs a staging slot")
      const own = Array.from({ length: slots }, (_, i) => first + slots - 1 - i)
      first += slots
      return own
    })
    this.#firstStaging = first
    this.#stagingSlots = stagingSlots
    this.slots = first + stagingSlots
    this.#retain = retain
    this.#slotOf = new Int32Array(ids).fill(nowhere)
    this.#loadedAt = new Float64Array(ids)
    this.#pending = new Uint8Array(ids)
    this.#unused = new Uint8Array(ids)
    this.#awaited = new Uint8Array(ids)
  }

  resident(id: ExpertId): boolean {
    return this.#slotOf[id] !== nowhere
  }

  /** Prefetched experts that left unused so far, or, at the end, lie there unused. */
  uselessPrefetches(): number {
    let useless = this.#useless
    for (const unused of this.#unused) useless += unused
    return useless
  }

  /**
   * Serves one layer's call: residents first, the oldest copy first (copies still under way come last), then what must be
   * loaded. Loads are decided as early as a slot is sure to be free of experts the call still has to compute.
   */
  request(call: LayerCall, sink: CacheSink): void {
    const { needed, layer } = call
    const pool = this.#poolOfLayer(layer)
    const { policy } = this.#pools[pool]!
    policy.called?.(call)
    const uses: Array<ExpertId> = []
    const missing: Array<ExpertId> = []
    for (const id of needed) {
      this.#pending[id] = 1
      if (this.resident(id)) {
        this.#unused[id] = 0
        policy.hit(id)
        uses.push(id)
      } else missing.push(id)
    }
    this.#forgetAwaited(layer)
    uses.sort((a, b) => this.#loadedAt[a]! - this.#loadedAt[b]!)
    const hits = uses.length
    const misses = policy.order?.(missing) ?? missing
    const staged: Array<number> = []
    let next = 0
    for (let used = 0; ; used++) {
      // As many as have a slot now; the others after the next use.
      for (; next < misses.length; next++) {
        const slot = this.#bring(misses[next]!, pool, false, this.#computed, sink, staged)
        if (slot === nowhere) break
        uses.push(misses[next]!)
      }
      const id = uses[used]
      if (id === undefined) {
        if (next < misses.length)
          throw new Error(
            `no slot for expert ${misses[next]} of layer ${layer}: its policy waits, though all that the call needs and has was computed`
          )
        break
      }
      const found = used < hits ? "resident" : "missing"
      const slot = this.#slotOf[id]!
      if (slot !== nowhere) sink.use(id, slot, found)
      else sink.use(id, staged.shift()!, found)
      this.#pending[id] = 0
    }
    if (!this.#retain) for (const id of needed) if (this.resident(id)) this.#evict(id, pool)
  }

  /**
   * Loads an expert ahead of its use, if it is not there and a slot may be taken: not from experts of which `keep` says
   * that they are wanted sooner, nor from prefetched ones whose layer is still to come.
   */
  prefetch(id: ExpertId, keep: MayLeave, sink: CacheSink): boolean {
    if (this.resident(id)) return false
    const pool = this.poolOf(id)
    const slot = this.#bring(
      id,
      pool,
      true,
      (other) => this.#pending[other] === 0 && this.#awaited[other] === 0 && !keep(other),
      sink,
      undefined
    )
    return slot !== nowhere
  }

  readonly #computed: MayLeave = (id) => this.#pending[id] === 0

  /** Which slots an expert may lie in: the same number for those that share them. */
  poolOf(id: ExpertId): number {
    return this.#poolOfLayer(Math.floor(id / this.shape.experts))
  }

  #poolOfLayer(layer: number): number {
    return this.#pools.length === 1 ? 0 : layer
  }

  /** Finds a slot and loads; -1 where none can be had now. */
  #bring(
    id: ExpertId,
    pool: number,
    ahead: boolean,
    mayLeave: MayLeave,
    sink: CacheSink,
    staged: Array<number> | undefined
  ): number {
    const { policy } = this.#pools[pool]!
    let slot = this.#free[pool]!.pop()
    let evicted: ExpertId | undefined
    if (slot === undefined) {
      const decision = policy.replace(id, mayLeave)
      if (decision === "wait") return nowhere
      if (decision === "bypass") {
        if (staged === undefined) return nowhere
        return this.#stage(id, sink, staged)
      }
      this.#checkDecision(decision, id, pool, mayLeave)
      evicted = decision
      slot = this.#slotOf[evicted]!
      this.#leave(evicted)
      policy.evicted(evicted)
    }
    this.#slotOf[id] = slot
    this.#loadedAt[id] = this.#loads++
    if (ahead) this.#unused[id] = this.#awaited[id] = 1
    policy.loaded(id, ahead)
    sink.load(id, slot, evicted, ahead)
    return slot
  }

  /** A policy of somebody's own may be wrong: it is told where it decides, not where the expert is missed. */
  #checkDecision(decision: ExpertId, incoming: ExpertId, pool: number, mayLeave: MayLeave): void {
    const refuse = (why: string): RangeError =>
      new RangeError(`the policy lets expert ${decision} leave for expert ${incoming}: ${why}`)
    const known = Number.isInteger(decision) && decision >= 0 && decision < this.#slotOf.length
    if (!known || !this.resident(decision) || this.poolOf(decision) !== pool)
      throw refuse("it lies in none of the policy's slots (replace answers with a resident, wait or bypass)")
    if (!mayLeave(decision))
      throw refuse(
        this.#pending[decision] === 1
          ? "the present call has still to compute it (mayLeave says so)"
          : "it is wanted sooner than what would come (mayLeave says so)"
      )
  }

  #stage(id: ExpertId, sink: CacheSink, staged: Array<number>): number {
    if (this.#stagingSlots === 0) throw new Error(`expert ${id} is to bypass the cache: no staging slot`)
    // Not before the expert that lies there has been computed.
    if (staged.length >= this.#stagingSlots) return nowhere
    const slot = this.#firstStaging + (this.#staged++ % this.#stagingSlots)
    staged.push(slot)
    sink.load(id, slot, undefined, false)
    return slot
  }

  #evict(id: ExpertId, pool: number): void {
    this.#free[pool]!.push(this.#slotOf[id]!)
    this.#leave(id)
    this.#pools[pool]!.policy.evicted(id)
  }

  #leave(id: ExpertId): void {
    this.#slotOf[id] = nowhere
    this.#useless += this.#unused[id]!
    this.#unused[id] = this.#awaited[id] = 0
  }

  /** The layer has said what it needs: what else was prefetched for it may leave. */
  #forgetAwaited(layer: number): void {
    this.#awaited.fill(0, layer * this.shape.experts, (layer + 1) * this.shape.experts)
  }
}

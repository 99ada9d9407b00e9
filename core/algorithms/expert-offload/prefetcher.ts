// What is loaded ahead of its use, and when: after a layer's own loads are submitted, up to a window of copies for layers to
// come. The window is what keeps a later load on demand from queueing behind a long line of guesses.
import type { ActivationMatrices } from "./cache/activation-matrix.ts"
import type { CacheSink, ExpertCache } from "./cache/expert-cache.ts"
import type { FixedQuota, Outlook } from "./cache/predicted-use.ts"
import type { ExpertId, LayerCall } from "./demand.ts"
import type { Predictor } from "./predictor/predictor.ts"

export interface Prefetcher {
  /** A step begins; its first layer's needs are not known yet. */
  begin?(step: number, cache: ExpertCache, sink: CacheSink): void
  /** A layer's call has been served. */
  after(call: LayerCall, cache: ExpertCache, sink: CacheSink): void
}

/** Prefetches what the next `reach` layer calls are predicted to need, the nearest first, over the end of the step too. */
export class LayersAhead implements Prefetcher {
  readonly #predictor: Predictor
  readonly #reach: number
  readonly #window: number

  constructor(predictor: Predictor, reach: number, window: number) {
    this.#predictor = predictor
    this.#reach = reach
    this.#window = window
  }

  after(call: LayerCall, cache: ExpertCache, sink: CacheSink): void {
    this.#predictor.observe(call)
    const { layers } = cache.shape
    const nearer = new Set<ExpertId>()
    const keep = (id: ExpertId) => nearer.has(id)
    let left = this.#window
    for (let ahead = 1; ahead <= this.#reach && left > 0; ahead++) {
      const layer = call.layer + ahead
      const predicted = this.#predictor.predict(call.step + Math.floor(layer / layers), layer % layers)
      for (const id of predicted) nearer.add(id)
      for (const id of predicted) {
        if (left === 0) break
        if (cache.prefetch(id, keep, sink)) left--
      }
    }
  }
}

/** ExpertFlow: all layers are predicted before the first; whatever slot a layer leaves goes to the next expert predicted. */
export class WholeStep implements Prefetcher {
  readonly #predictor: Predictor
  readonly #outlook: Outlook
  readonly #window: number
  #predicted: Array<ReadonlyArray<ExpertId>> = []

  constructor(predictor: Predictor, outlook: Outlook, window: number) {
    this.#predictor = predictor
    this.#outlook = outlook
    this.#window = window
  }

  begin(step: number, cache: ExpertCache, sink: CacheSink): void {
    this.#outlook.begin()
    this.#predicted = []
    for (let layer = 0; layer < cache.shape.layers; layer++) {
      this.#predicted[layer] = this.#predictor.predict(step, layer)
      this.#outlook.expect(layer, this.#predicted[layer]!)
    }
    this.#fill(0, cache, sink)
  }

  after(call: LayerCall, cache: ExpertCache, sink: CacheSink): void {
    this.#predictor.observe(call)
    const next = call.layer + 1
    if (next >= cache.shape.layers) return
    // What this layer really needed may say more about the next.
    this.#predicted[next] = this.#predictor.predict(call.step, next)
    this.#outlook.expect(next, this.#predicted[next])
    this.#fill(next, cache, sink)
  }

  #fill(from: number, cache: ExpertCache, sink: CacheSink): void {
    let left = this.#window
    for (let layer = from; layer < cache.shape.layers; layer++) {
      for (const id of this.#predicted[layer]!) {
        if (left === 0) return
        if (cache.resident(id)) continue
        const distance = this.#outlook.distance(id)
        // Nobody is expected later than this one: nor will anybody be for those after it.
        if (!cache.prefetch(id, (other) => this.#outlook.distance(other) <= distance, sink)) return
        left--
      }
    }
  }
}

/** The released ExpertFlow code: within each layer's quota, highest expert first, in place of who is not predicted. */
export class WithinQuota implements Prefetcher {
  readonly #predictor: Predictor
  readonly #quotas: ReadonlyArray<FixedQuota>
  readonly #window: number
  #predicted: Array<ReadonlyArray<ExpertId>> = []

  constructor(predictor: Predictor, quotas: ReadonlyArray<FixedQuota>, window: number) {
    this.#predictor = predictor
    this.#quotas = quotas
    this.#window = window
  }

  begin(step: number, cache: ExpertCache, sink: CacheSink): void {
    this.#predicted = []
    for (let layer = 0; layer < cache.shape.layers; layer++) {
      this.#predicted[layer] = this.#predictor.predict(step, layer).toSorted((a, b) => b - a)
    }
    this.#fill(0, cache, sink)
  }

  after(call: LayerCall, cache: ExpertCache, sink: CacheSink): void {
    this.#predictor.observe(call)
    this.#fill(call.layer + 1, cache, sink)
  }

  #fill(from: number, cache: ExpertCache, sink: CacheSink): void {
    let left = this.#window
    for (let layer = from; layer < cache.shape.layers; layer++) {
      const wanted = new Set(this.#predicted[layer])
      const quota = this.#quotas[layer]!
      quota.prefetching = true
      for (const id of wanted) {
        if (left === 0) break
        if (cache.prefetch(id, (other) => wanted.has(other), sink)) left--
      }
      quota.prefetching = false
      if (left === 0) return
    }
  }
}

/** MoE-Infinity: what the most similar step so far used in later layers, the highest score first. */
export class SimilarStep implements Prefetcher {
  readonly #matrices: ActivationMatrices
  readonly #window: number

  constructor(matrices: ActivationMatrices, window: number) {
    this.#matrices = matrices
    this.#window = window
  }

  after(_: LayerCall, cache: ExpertCache, sink: CacheSink): void {
    let left = this.#window
    const full = new Set<number>()
    for (const id of this.#matrices.expected()) {
      if (left === 0) return
      const pool = cache.poolOf(id)
      if (full.has(pool) || cache.resident(id)) continue
      const score = this.#matrices.score(id)
      // Whom nobody makes room for has a higher score than those after it: nor will anybody for them, of the same slots.
      if (cache.prefetch(id, (other) => this.#matrices.score(other) >= score, sink)) left--
      else full.add(pool)
    }
  }
}

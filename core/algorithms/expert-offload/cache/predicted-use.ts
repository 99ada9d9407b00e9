// ExpertFlow's cache across layers: slots belong to no layer; the predicted experts of the layers to come are kept and
// loaded in the order of layers, and what a finished layer leaves behind is the first to make room.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import { Lru } from "./lru.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/** What is predicted of the rest of the present step, and how far the step has come. Shared by policy and prefetcher. */
export class Outlook {
  readonly #shape: ExpertShape
  readonly #wanted: Uint8Array
  /** The layer whose call is being served; -1 before the first. */
  #layer = -1

  constructor(shape: ExpertShape) {
    this.#shape = shape
    this.#wanted = new Uint8Array(shape.layers * shape.experts)
  }

  begin(): void {
    this.#layer = -1
    this.#wanted.fill(0)
  }

  reached(layer: number): void {
    this.#layer = layer
  }

  expect(layer: number, predicted: ReadonlyArray<ExpertId>): void {
    const { experts } = this.#shape
    this.#wanted.fill(0, layer * experts, (layer + 1) * experts)
    for (const id of predicted) this.#wanted[id] = 1
  }

  /**
   * Layer calls until the expert may be used, as far as is known: those predicted come in this step, all others in the
   * next at the earliest.
   */
  distance(id: ExpertId): number {
    const { layers, experts } = this.#shape
    const ahead = Math.floor(id / experts) - this.#layer
    return ahead > 0 && this.#wanted[id] === 1 ? ahead : layers + ahead
  }
}

/**
 * Evicts whoever is expected to be used last. Residents that a layer to come does not want (mispredictions, or leftovers)
 * go first, then those of layers just passed, then those wanted latest; the least recently used among equals.
 */
export class PredictedUse implements ReplacementPolicy {
  readonly #outlook: Outlook
  readonly #lru = new Lru()

  constructor(outlook: Outlook) {
    this.#outlook = outlook
  }

  called({ layer }: LayerCall): void {
    this.#outlook.reached(layer)
  }

  hit(id: ExpertId): void {
    this.#lru.hit(id)
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    let victim: ExpertId | "wait" = "wait"
    let furthest = -1
    for (const id of this.#lru.residents) {
      const distance = this.#outlook.distance(id)
      if (distance > furthest && mayLeave(id)) {
        victim = id
        furthest = distance
      }
    }
    return victim
  }

  loaded(id: ExpertId): void {
    this.#lru.loaded(id)
  }

  evicted(id: ExpertId): void {
    this.#lru.evicted(id)
  }
}

/**
 * The released code's cache: a fixed quota for each layer. On demand it evicts the least recently used; a prefetch evicts
 * the most recently used resident that the prediction does not want.
 */
export class FixedQuota extends Lru {
  #prefetching = false

  set prefetching(on: boolean) {
    this.#prefetching = on
  }

  override replace(incoming: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    if (!this.#prefetching) return super.replace(incoming, mayLeave)
    let latest: ExpertId | "wait" = "wait"
    for (const id of this.residents) if (mayLeave(id)) latest = id
    return latest
  }
}

// ExpertFlow's cache across layers: slots belong to no layer; the predicted experts of the layers to come are kept and
// loaded in the order of layers, and what a finished layer leaves behind is the first to make room.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import { Lru } from "./lru.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

/** What is predicted of the rest of the present step, and how far the step has come. Shared by policy and prefetcher. */
export class Outlook {
  readonly shape: ExpertShape
  readonly #wanted: Uint8Array
  /** The layer whose call is being served; -1 before the first. */
  #layer = -1
  #version = 0

  constructor(shape: ExpertShape) {
    this.shape = shape
    this.#wanted = new Uint8Array(shape.layers * shape.experts)
  }

  begin(): void {
    this.#layer = -1
    this.#version++
    this.#wanted.fill(0)
  }

  get layer(): number {
    return this.#layer
  }

  /** Another number whenever what is predicted has changed. */
  get version(): number {
    return this.#version
  }

  wants(id: ExpertId): boolean {
    return this.#wanted[id] === 1
  }

  reached(layer: number): void {
    this.#layer = layer
  }

  expect(layer: number, predicted: ReadonlyArray<ExpertId>): void {
    const { experts } = this.shape
    this.#version++
    this.#wanted.fill(0, layer * experts, (layer + 1) * experts)
    for (const id of predicted) this.#wanted[id] = 1
  }

  /**
   * Layer calls until the expert may be used, as far as is known: those predicted come in this step, all others in the
   * next at the earliest.
   */
  distance(id: ExpertId): number {
    const { layers, experts } = this.shape
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
  /** Residents of each layer, least recently used first: all of a layer are as far away, but for what is wanted. */
  readonly #residents: ReadonlyArray<Lru>
  /** Of each layer's residents, how many are not wanted; as of `#version`. */
  readonly #unwanted: Int32Array
  #version = -1

  constructor(outlook: Outlook) {
    this.#outlook = outlook
    this.#residents = Array.from({ length: outlook.shape.layers }, () => new Lru())
    this.#unwanted = new Int32Array(outlook.shape.layers)
  }

  called({ layer }: LayerCall): void {
    this.#outlook.reached(layer)
  }

  hit(id: ExpertId): void {
    this.#of(id).hit(id)
  }

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    const { layer: present, shape } = this.#outlook
    this.#count()
    // The last layer first: whoever is not wanted there comes in the next step, and that last of all.
    for (let layer = shape.layers - 1; layer >= 0; layer--) {
      if (layer > present && this.#unwanted[layer] === 0) continue
      for (const id of this.#residents[layer]!.residents) {
        if ((layer <= present || !this.#outlook.wants(id)) && mayLeave(id)) return id
      }
    }
    for (let layer = shape.layers - 1; layer > present; layer--) {
      for (const id of this.#residents[layer]!.residents) {
        if (this.#outlook.wants(id) && mayLeave(id)) return id
      }
    }
    return "wait"
  }

  loaded(id: ExpertId): void {
    this.#of(id).loaded(id)
    if (!this.#outlook.wants(id)) this.#unwanted[this.#layerOf(id)]!++
  }

  evicted(id: ExpertId): void {
    this.#of(id).evicted(id)
    if (!this.#outlook.wants(id)) this.#unwanted[this.#layerOf(id)]!--
  }

  #layerOf(id: ExpertId): number {
    return Math.floor(id / this.#outlook.shape.experts)
  }

  #of(id: ExpertId): Lru {
    return this.#residents[this.#layerOf(id)]!
  }

  /** Counts anew where what is wanted has changed. */
  #count(): void {
    if (this.#version === this.#outlook.version) return
    this.#version = this.#outlook.version
    for (const [layer, own] of this.#residents.entries()) {
      let unwanted = 0
      for (const id of own.residents) if (!this.#outlook.wants(id)) unwanted++
      this.#unwanted[layer] = unwanted
    }
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

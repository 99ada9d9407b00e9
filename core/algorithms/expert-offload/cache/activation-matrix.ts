// MoE-Infinity's idea (Xue et al. 2024): how often each expert was used in a sequence so far, as a matrix [layers, experts],
// says what comes next, because sequences of a kind use the same experts. Simplified: every step's matrix is remembered,
// the nearest remembered one to the step in progress is what is expected of its later layers.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

const remembered = 64
/** Share of its counts that a matrix of past use keeps from step to step. */
const memory = 0.9

export class ActivationMatrices {
  readonly shape: ExpertShape
  /** Use in recent steps, decaying. */
  readonly #recent: Float64Array
  readonly #store: Array<Uint8Array> = []
  #present: Uint8Array
  #next = 0
  #step: number | undefined
  #layer = -1
  #nearest: Uint8Array | undefined

  constructor(shape: ExpertShape) {
    this.shape = shape
    this.#recent = new Float64Array(shape.layers * shape.experts)
    this.#present = new Uint8Array(shape.layers * shape.experts)
  }

  observe({ step, layer, needed }: LayerCall): void {
    if (this.#step !== undefined && step !== this.#step) this.#remember()
    this.#step = step
    this.#layer = layer
    for (const id of needed) this.#present[id] = 1
    this.#nearest = this.#match()
  }

  /**
   * Expected use of an expert: of the layers to come in this step by the nearest remembered step, otherwise by recent use;
   * less the further its layer is ahead: 1 - (ahead / (layers + 1)).
   */
  score(id: ExpertId): number {
    const { layers, experts } = this.shape
    const ahead = Math.floor(id / experts) - this.#layer
    const use =
      ahead > 0 && this.#nearest !== undefined
        ? (this.#nearest[id]! + this.#recent[id]! * (1 - memory)) / 2
        : this.#recent[id]! * (1 - memory)
    const distance = ahead > 0 ? ahead : layers + ahead
    return use * (1 - distance / (layers + 1))
  }

  /** Experts that the nearest remembered step used in layers to come, the highest score first. */
  expected(): ReadonlyArray<ExpertId> {
    const nearest = this.#nearest
    if (nearest === undefined) return []
    const ids: Array<ExpertId> = []
    for (let id = (this.#layer + 1) * this.shape.experts; id < nearest.length; id++) {
      if (nearest[id] === 1) ids.push(id)
    }
    return ids.toSorted((a, b) => this.score(b) - this.score(a) || a - b)
  }

  #remember(): void {
    for (let id = 0; id < this.#recent.length; id++) {
      this.#recent[id] = this.#recent[id]! * memory + this.#present[id]!
    }
    if (this.#store.length < remembered) this.#store.push(this.#present)
    else this.#store[this.#next++ % remembered] = this.#present
    this.#present = new Uint8Array(this.#present.length)
  }

  /** By mean cosine over the layers known so far; the earlier remembered among equals. */
  #match(): Uint8Array | undefined {
    const { experts } = this.shape
    let best: Uint8Array | undefined
    let nearness = -1
    for (const matrix of this.#store) {
      let sum = 0
      for (let layer = 0; layer <= this.#layer; layer++) {
        let [common, mine, theirs] = [0, 0, 0]
        for (let id = layer * experts; id < (layer + 1) * experts; id++) {
          common += matrix[id]! & this.#present[id]!
          mine += this.#present[id]!
          theirs += matrix[id]!
        }
        if (common > 0) sum += common / Math.sqrt(mine * theirs)
      }
      if (sum > nearness) {
        nearness = sum
        best = matrix
      }
    }
    return best
  }
}

/** Evicts the resident with the lowest score; the least recently loaded among equals. */
export class LowestScore implements ReplacementPolicy {
  readonly #matrices: ActivationMatrices
  readonly #residents = new Set<ExpertId>()

  constructor(matrices: ActivationMatrices) {
    this.#matrices = matrices
  }

  called(call: LayerCall): void {
    this.#matrices.observe(call)
  }

  hit(): void {}

  replace(_: ExpertId, mayLeave: MayLeave): ExpertId | "wait" {
    let victim: ExpertId | "wait" = "wait"
    let lowest = Infinity
    for (const id of this.#residents) {
      const score = this.#matrices.score(id)
      if (score < lowest && mayLeave(id)) {
        victim = id
        lowest = score
      }
    }
    return victim
  }

  loaded(id: ExpertId): void {
    this.#residents.add(id)
  }

  evicted(id: ExpertId): void {
    this.#residents.delete(id)
  }
}

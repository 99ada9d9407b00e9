// MoE-Infinity's idea (Xue et al. 2024): how often each expert was used in a sequence so far, as a matrix [layers, experts],
// says what comes next, because sequences of a kind use the same experts. Simplified: every step's matrix is remembered,
// the nearest remembered one to the step in progress is what is expected of its later layers.
import type { ExpertId, ExpertShape, LayerCall } from "../demand.ts"
import type { MayLeave, ReplacementPolicy } from "./policy.ts"

const remembered = 64
/** Share of its counts that a matrix of past use keeps from step to step. */
const memory = 0.9

/** A step's use of experts, and how many of each layer. */
interface Matrix {
  readonly used: Uint8Array
  readonly counts: Float64Array
}

const matrixOf = ({ layers, experts }: ExpertShape): Matrix => ({
  used: new Uint8Array(layers * experts),
  counts: new Float64Array(layers)
})

export class ActivationMatrices {
  readonly shape: ExpertShape
  /** Use in recent steps, decaying. */
  readonly #recent: Float64Array
  readonly #store: Array<Matrix> = []
  /** Of each remembered step: the sum of cosines over the layers known so far. */
  readonly #nearness = new Float64Array(remembered)
  #present: Matrix
  #next = 0
  #step: number | undefined
  #layer = -1
  #nearest: Uint8Array | undefined
  /** What a score is multiplied by, by layer. */
  readonly #weights: Float64Array

  constructor(shape: ExpertShape) {
    this.shape = shape
    this.#recent = new Float64Array(shape.layers * shape.experts)
    this.#present = matrixOf(shape)
    this.#weights = new Float64Array(shape.layers)
  }

  /** Calls of a step come layer by layer. */
  observe({ step, layer, needed }: LayerCall): void {
    if (this.#step !== undefined && step !== this.#step) this.#remember()
    const again = step === this.#step && layer <= this.#layer
    this.#step = step
    this.#layer = layer
    for (const id of needed) {
      if (this.#present.used[id] === 1) continue
      this.#present.used[id] = 1
      this.#present.counts[layer]!++
    }
    // A layer that is called again changes what was summed up: from the first layer on.
    if (again) this.#nearness.fill(0)
    for (let from = again ? 0 : layer; from <= layer; from++) this.#compare(from)
    this.#nearest = this.#match()
    const { layers } = this.shape
    for (let other = 0; other < layers; other++) {
      const ahead = other - layer
      const distance = ahead > 0 ? ahead : layers + ahead
      this.#weights[other] = 1 - distance / (layers + 1)
    }
  }

  /**
   * Expected use of an expert: of the layers to come in this step by the nearest remembered step, otherwise by recent use;
   * less the further its layer is ahead: 1 - (ahead / (layers + 1)).
   */
  score(id: ExpertId): number {
    const layer = Math.floor(id / this.shape.experts)
    const recent = this.#recent[id]! * (1 - memory)
    const use =
      layer > this.#layer && this.#nearest !== undefined ? (this.#nearest[id]! + recent) / 2 : recent
    return use * this.#weights[layer]!
  }

  /** Experts that the nearest remembered step used in layers to come, the highest score first. */
  expected(): ReadonlyArray<ExpertId> {
    const nearest = this.#nearest
    if (nearest === undefined) return []
    const found: Array<{ readonly id: ExpertId; readonly score: number }> = []
    for (let id = (this.#layer + 1) * this.shape.experts; id < nearest.length; id++) {
      if (nearest[id] === 1) found.push({ id, score: this.score(id) })
    }
    return found.toSorted((a, b) => b.score - a.score || a.id - b.id).map(({ id }) => id)
  }

  #remember(): void {
    for (let id = 0; id < this.#recent.length; id++) {
      this.#recent[id] = this.#recent[id]! * memory + this.#present.used[id]!
    }
    if (this.#store.length < remembered) this.#store.push(this.#present)
    else this.#store[this.#next++ % remembered] = this.#present
    this.#present = matrixOf(this.shape)
    this.#nearness.fill(0)
  }

  /** Adds a layer's cosine to the nearness of every remembered step. */
  #compare(layer: number): void {
    const { experts } = this.shape
    const { used, counts } = this.#present
    const mine = counts[layer]!
    if (mine === 0) return
    const chosen: Array<ExpertId> = []
    for (let id = layer * experts; id < (layer + 1) * experts; id++) if (used[id] === 1) chosen.push(id)
    for (const [index, matrix] of this.#store.entries()) {
      let common = 0
      for (const id of chosen) common += matrix.used[id]!
      if (common > 0) this.#nearness[index]! += common / Math.sqrt(mine * matrix.counts[layer]!)
    }
  }

  /** By mean cosine over the layers known so far; the earlier remembered among equals. */
  #match(): Uint8Array | undefined {
    let best: Uint8Array | undefined
    let nearness = -1
    for (const [index, { used }] of this.#store.entries()) {
      if (this.#nearness[index]! > nearness) {
        nearness = this.#nearness[index]!
        best = used
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

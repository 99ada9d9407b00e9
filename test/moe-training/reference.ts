// The same training step in one process, with no schedule, no messages and no kernels of the catalogue: loops over tokens in
// float64. Gradients are central differences of its loss. The loss jumps where the gate of some token changes its mind, and what
// is trained by is the derivative of the piece that the parameters are on: differences keep every choice of the last pass.
import { Random } from "../../core/random.ts"
import { noiseSeed, type MoeModel } from "../../core/algorithms/moe-training/model.ts"
import { matrixValues, scaleValues } from "../../core/algorithms/moe-training/tensors.ts"
import { initialValues } from "../../core/machine/initial.ts"

/** Values of whole, undivided parameters by name; the input is one of them. */
type Whole = Map<string, Float64Array>

type Vector = ReadonlyArray<number>

const dot = (a: ArrayLike<number>, aAt: number, b: Vector): number => {
  let sum = 0
  for (let i = 0; i < b.length; i++) sum += a[aAt + i]! * b[i]!
  return sum
}
const times = (matrix: Float64Array, x: Vector): ReadonlyArray<number> =>
  Array.from({ length: matrix.length / x.length }, (_, row) => dot(matrix, row * x.length, x))
const rms = (x: Vector, weight: Float64Array): ReadonlyArray<number> => {
  const scale = 1 / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + 1e-5)
  return x.map((value, i) => value * scale * weight[i]!)
}
const softmax = (x: Vector): ReadonlyArray<number> => {
  const largest = Math.max(...x)
  const exps = x.map((value) => Math.exp(value - largest))
  const sum = exps.reduce((total, value) => total + value, 0)
  return exps.map((value) => value / sum)
}
/** Indices of the largest values, largest first, ties to the lower index. */
const largest = (x: Vector, count: number): ReadonlyArray<number> =>
  x
    .map((_, i) => i)
    .toSorted((a, b) => x[b]! - x[a]! || a - b)
    .slice(0, count)
const plus = (a: Vector, b: Vector): ReadonlyArray<number> => a.map((value, i) => value + b[i]!)

export class Reference {
  readonly model: MoeModel
  readonly nodes: number
  readonly perNode: number
  /** T; 0: none dropped. */
  readonly capacity: number
  readonly whole: Whole = new Map()
  /** Choices that found no room in the last pass. */
  dropped = 0
  /**
   * Smallest difference, in the last pass, of a chosen score and the one next in order. Where it is within the error of the
   * arithmetic, either order is right, and so are two outputs that have little to do with each other.
   */
  closest = Infinity
  /** Orders of choice, in differences so far, that were kept though the moved parameter would have changed them. */
  kept = 0
  /** What was chosen in the last pass, by gate and by who chose. */
  readonly #chosen = new Map<string, ReadonlyArray<number>>()

  constructor(model: MoeModel, nodes: number, perNode: number, capacity: number) {
    this.model = model
    this.nodes = nodes
    this.perNode = perNode
    this.capacity = capacity
  }

  #matrix(name: string, rows: number, columns: number): Float64Array {
    let known = this.whole.get(name)
    if (known === undefined) {
      const whole = { rows: [[0, rows]], columns: [0, columns] } as const
      const initial = matrixValues(this.model.seed, name, columns, whole)
      known = Float64Array.from(initialValues({ shape: [rows, columns], dtype: "float32", initial }))
      this.whole.set(name, known)
    }
    return known
  }

  #scale(name: string): Float64Array {
    let known = this.whole.get(name)
    if (known === undefined) {
      const initial = scaleValues(this.model.seed, name)
      known = Float64Array.from(initialValues({ shape: [this.model.width], dtype: "float32", initial }))
      this.whole.set(name, known)
    }
    return known
  }

  /** Outputs by node, token and column. Gates choose anew. */
  forward(): ReadonlyArray<ReadonlyArray<Vector>> {
    this.#chosen.clear()
    this.closest = Infinity
    return this.#pass()
  }

  /** The same, with what gates have chosen before where they have. */
  #pass(): ReadonlyArray<ReadonlyArray<Vector>> {
    const { model, nodes } = this
    const nodeTokens = model.batch * model.sequence
    const input = this.#matrix("input", nodes * nodeTokens, model.width)
    this.dropped = 0
    return Array.from({ length: nodes }, (_, node) => {
      let x: ReadonlyArray<Vector> = Array.from({ length: nodeTokens }, (_unused, t) =>
        Array.from(
          input.subarray((node * nodeTokens + t) * model.width, (node * nodeTokens + t + 1) * model.width)
        )
      )
      for (let layer = 0; layer < model.layers; layer++) x = this.#moe(node, layer, this.#attention(layer, x))
      return x
    })
  }

  #loss(): number {
    const outputs = this.#pass()
    let sum = 0
    for (const tokens of outputs) for (const token of tokens) for (const value of token) sum += value * value
    return sum / 2 / (this.nodes * this.model.batch * this.model.sequence)
  }

  /**
   * Indices of the `count` largest scores, largest first, ties to the lower index; of the pass that is differenced, if any.
   * `by` says who chooses.
   */
  #choose(by: string, scores: Vector, count: number): ReadonlyArray<number> {
    const order = largest(scores, count + 1)
    const chosen = order.slice(0, count)
    const before = this.#chosen.get(by)
    if (before !== undefined) {
      if (before.some((index, i) => index !== chosen[i])) this.kept++
      return before
    }
    for (let i = 1; i < order.length; i++)
      this.closest = Math.min(this.closest, scores[order[i - 1]!]! - scores[order[i]!]!)
    this.#chosen.set(by, chosen)
    return chosen
  }

  /** d loss / d element of a whole parameter, about the last forward pass. */
  gradient(name: string, index: number, step = 1e-5): number {
    const data = this.whole.get(name)
    if (data === undefined) {
      // No token chose this expert, or none found room: the loss does not depend on it.
      if (/^layer \d+ expert \d+ (up|gate|down)$/u.test(name)) return 0
      throw new RangeError(`${name} is no parameter of the last pass`)
    }
    const value = data[index]!
    data[index] = value + step
    const above = this.#loss()
    data[index] = value - step
    const below = this.#loss()
    data[index] = value
    return (above - below) / (2 * step)
  }

  #attention(layer: number, x: ReadonlyArray<Vector>): ReadonlyArray<Vector> {
    const { width, heads, kvHeads, sequence, headWidth = width / heads } = this.model
    const queryWidth = heads * headWidth
    const kvWidth = kvHeads * headWidth
    const norm = this.#scale(`layer ${layer} norm`)
    const qkv = this.#matrix(`layer ${layer} qkv`, queryWidth + 2 * kvWidth, width)
    const projection = this.#matrix(`layer ${layer} projection`, width, queryWidth)
    const all = x.map((token) => times(qkv, rms(token, norm)))
    return x.map((token, t) => {
      const start = t - (t % sequence)
      const attended: Array<number> = []
      for (let head = 0; head < heads; head++) {
        const at = head * headWidth
        const kvAt = queryWidth + Math.floor((head * kvHeads) / heads) * headWidth
        const query = all[t]!.slice(at, at + headWidth)
        const keys = all.slice(start, t + 1)
        const weights = softmax(keys.map((key) => dot(key, kvAt, query) / Math.sqrt(headWidth)))
        for (let i = 0; i < headWidth; i++) {
          attended.push(keys.reduce((sum, key, s) => sum + weights[s]! * key[kvAt + kvWidth + i]!, 0))
        }
      }
      return plus(token, times(projection, attended))
    })
  }

  #moe(node: number, layer: number, x: ReadonlyArray<Vector>): ReadonlyArray<Vector> {
    const norm = this.#scale(`layer ${layer} MoE norm`)
    const normed = x.map((token) => rms(token, norm))
    const share = x.length / this.perNode
    return Array.from({ length: this.perNode }, (_, position) => {
      const own = normed.slice(position * share, (position + 1) * share)
      return this.#route({ node, position }, layer, own).map((out, t) => plus(x[position * share + t]!, out))
    }).flat()
  }

  /** One rank's tokens through gate and experts. */
  #route(
    rank: { readonly node: number; readonly position: number },
    layer: number,
    tokens: ReadonlyArray<Vector>
  ): ReadonlyArray<Vector> {
    const gate = `node ${rank.node} layer ${layer} position ${rank.position}`
    const { model } = this
    const { experts, topK, width } = model
    const name = `layer ${layer} gate`
    const out = tokens.map(() => Array.from({ length: width }, () => 0))
    const give = (token: number, weight: number, result: Vector): void =>
      result.forEach((value, i) => (out[token]![i]! += weight * value))

    if (model.gate === "soft-moe") {
      const slots = experts * this.capacity
      const weight = this.#matrix(`${name} weight`, slots, width)
      const logits = tokens.map((token) => times(weight, token))
      const combine = logits.map(softmax)
      for (let slot = 0; slot < slots; slot++) {
        const dispatch = softmax(logits.map((row) => row[slot]!))
        const mix = Array.from({ length: width }, (_, i) =>
          tokens.reduce((sum, token, t) => sum + dispatch[t]! * token[i]!, 0)
        )
        const result = this.#expert(layer, Math.floor(slot / this.capacity), mix)
        tokens.forEach((_, t) => give(t, combine[t]![slot]!, result))
      }
      return out
    }
    const scores = this.#scores(name, tokens, rank)
    if (model.gate === "expert-choice") {
      for (let e = 0; e < experts; e++) {
        const column = scores.map((row) => row[e]!)
        const taken = this.#choose(`${gate} expert ${e}`, column, this.capacity)
        const weights = softmax(taken.map((t) => column[t]!))
        taken.forEach((t, i) => give(t, weights[i]!, this.#expert(layer, e, tokens[t]!)))
      }
      return out
    }
    const room = new Int32Array(experts).fill(this.capacity === 0 ? 2 ** 30 : this.capacity)
    const choices = scores.map((row, t) => this.#choose(`${gate} token ${t}`, row, topK))
    const weights = scores.map((row, t) => {
      const kept = choices[t]!.map((e) => row[e]!)
      return model.gate === "sigmoid" ? kept.map((value) => 1 / (1 + Math.exp(-value))) : softmax(kept)
    })
    for (let k = 0; k < topK; k++) {
      tokens.forEach((token, t) => {
        const e = choices[t]![k]!
        if (!(room[e]! > 0)) {
          this.dropped++
          return
        }
        room[e]!--
        give(t, weights[t]![k]!, this.#expert(layer, e, token))
      })
    }
    return out
  }

  #scores(
    name: string,
    tokens: ReadonlyArray<Vector>,
    rank: { readonly node: number; readonly position: number }
  ): ReadonlyArray<Vector> {
    const { experts, width, gate, gateWidth, seed } = this.model
    if (gate === "x-moe") {
      const projection = this.#matrix(`${name} projection`, gateWidth, width)
      const directions = this.#matrix(`${name} directions`, experts, gateWidth)
      const size = (vector: Vector): number =>
        Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0))
      return tokens.map((token) => {
        const low = times(projection, token)
        return Array.from({ length: experts }, (_, e) => {
          const direction = Array.from(directions.subarray(e * gateWidth, (e + 1) * gateWidth))
          return dot(low, 0, direction) / (size(low) * size(direction) * 0.3)
        })
      })
    }
    const weight = this.#matrix(`${name} weight`, experts, width)
    const clean = tokens.map((token) => times(weight, token))
    if (gate !== "gshard") return clean
    const spreadWeight = this.#matrix(`${name} noise weight`, experts, width)
    const random = new Random(noiseSeed(seed, name, rank))
    return clean.map((row, t) => {
      const spread = times(spreadWeight, tokens[t]!)
      return row.map((value, e) => value + random.normal() * Math.log(1 + Math.exp(spread[e]!)))
    })
  }

  #expert(layer: number, expert: number, x: Vector): ReadonlyArray<number> {
    const { width, hidden, ffn } = this.model
    const name = `layer ${layer} expert ${expert}`
    const up = times(this.#matrix(`${name} up`, hidden, width), x)
    const down = this.#matrix(`${name} down`, width, hidden)
    if (ffn === "gpt") {
      const root = Math.sqrt(2 / Math.PI)
      return times(
        down,
        up.map((u) => 0.5 * u * (1 + Math.tanh(root * (u + 0.044715 * u ** 3))))
      )
    }
    const gate = times(this.#matrix(`${name} gate`, hidden, width), x)
    return times(
      down,
      gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!)
    )
  }
}

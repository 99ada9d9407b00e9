// Allocation of a rank's tensors, parameters with their gradients and initial values among them. A parameter's values are
// those of the same places of the whole, undivided parameter, whoever holds which part of it.
import * as Effect from "effect/Effect"
import type { Machine, OutOfMemory } from "../../machine/machine.ts"
import type { Drawn, Dtype, Tensor, TensorSpec } from "../../machine/tensor.ts"
import { uniform } from "../../models/initial-values.ts"
import { splitSeed } from "../../random.ts"

export interface Parameter {
  readonly name: string
  readonly tensor: Tensor
  readonly gradient: Tensor
}

/** Rows and columns of a whole matrix that a rank holds; rows may be several stretches. */
export interface Part {
  readonly rows: ReadonlyArray<readonly [from: number, to: number]>
  readonly columns: readonly [from: number, to: number]
}

/** What a part of a matrix [rows, columns] begins with: uniform, with the usual scale of 1/sqrt(columns). */
export const matrixValues = (
  seed: number,
  name: string,
  columns: number,
  { rows, columns: [from, to] }: Part
): ReadonlyArray<Drawn> => {
  const scale = Math.sqrt(3 / columns)
  let at = 0
  return rows.map(([first, end]) => {
    const count = (end - first) * (to - from)
    const window = { first: first * columns + from, at, count, columns: to - from, stride: columns }
    at += count
    return uniform(splitSeed(seed, name), -scale, scale, window)
  })
}

/** Weights of a normalisation: near 1. */
export const scaleValues = (seed: number, name: string): ReadonlyArray<Drawn> => [
  uniform(splitSeed(seed, name), 0.75, 1.25)
]

/** One rank's tensors of one dtype; what was made for one step only is freed together. */
export class Tensors {
  readonly #machine: Machine["Service"]
  readonly #dtype: Dtype
  readonly #seed: number
  #made: Array<Tensor> = []

  constructor(machine: Machine["Service"], dtype: Dtype, seed: number) {
    this.#machine = machine
    this.#dtype = dtype
    this.#seed = seed
  }

  make(
    name: string,
    shape: ReadonlyArray<number>,
    dtype: Dtype = this.#dtype,
    more: Pick<TensorSpec, "initial" | "persistent" | "role"> = {}
  ): Effect.Effect<Tensor, OutOfMemory> {
    return Effect.map(this.#machine.alloc({ name, shape, dtype, ...more }), (tensor) => {
      this.#made.push(tensor)
      return tensor
    })
  }

  /** A tensor for each shape. */
  several(
    name: string,
    shapes: ReadonlyArray<ReadonlyArray<number>>
  ): Effect.Effect<ReadonlyArray<Tensor>, OutOfMemory> {
    return Effect.forEach(shapes, (shape, i) => this.make(`${name} ${i}`, shape))
  }

  /** A part of a matrix [rows, columns]. */
  matrix(
    name: string,
    rows: number,
    columns: number,
    part: Part = { rows: [[0, rows]], columns: [0, columns] }
  ): Effect.Effect<Parameter, OutOfMemory> {
    const held = part.rows.reduce((sum, [from, to]) => sum + to - from, 0)
    const shape = [held, part.columns[1] - part.columns[0]]
    return this.#parameter(name, shape, matrixValues(this.#seed, name, columns, part))
  }

  scale(name: string, width: number): Effect.Effect<Parameter, OutOfMemory> {
    return this.#parameter(name, [width], scaleValues(this.#seed, name))
  }

  #parameter(
    name: string,
    shape: ReadonlyArray<number>,
    initial: ReadonlyArray<Drawn>
  ): Effect.Effect<Parameter, OutOfMemory> {
    return Effect.map(
      Effect.all([
        this.make(name, shape, this.#dtype, { initial, persistent: true }),
        this.make(`${name} gradient`, shape, this.#dtype)
      ]),
      ([tensor, gradient]) => ({ name, tensor, gradient })
    )
  }

  /** Gives back everything made so far. */
  freeAll(): void {
    for (const tensor of this.#made) this.#machine.free(tensor)
    this.#made = []
  }
}

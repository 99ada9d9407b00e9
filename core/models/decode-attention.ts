// Attention of one new token for each sequence of a batch, as ops that are built once for the batch and submitted for every token:
// positions and rows are counted on the device, and only what a launch costs is told with it. Knows no requests, methods or
// experts, and nothing of what fills the caches first.
import * as Effect from "effect/Effect"
import { shareOf } from "../kernels/kv-cache.ts"
import type { Scalars } from "../kernels/scalars.ts"
import type { Machine, OutOfMemory } from "../machine/machine.ts"
import type { Op } from "../machine/op.ts"
import type { Tensor, TensorSpec } from "../machine/tensor.ts"
import { attentionShape, type DecoderSizes } from "./decoder-layer.ts"
import { allocAll, compute } from "./decoder-ops.ts"

/** One sequence of a batch, before its next token. */
interface Standing {
  /** Tokens of its prompt: where the first generated one stands. */
  readonly promptTokens: number
  /** Rows of the prompt in the caches, one for each list. */
  readonly promptRows: ReadonlyArray<number>
  /** Generated tokens that were appended to the caches. */
  readonly appended: number
}

/** Tensors of the places of `batch` sequences in the caches of so many lists. */
export const placeSpecs = (name: string, batch: number, lists: number) => {
  const spec = (part: string, shape: ReadonlyArray<number>): TensorSpec => ({
    name: `${name} ${part}`,
    shape,
    dtype: "int32"
  })
  return {
    generated: spec("generated", [batch]),
    prompt: spec("prompt", [batch]),
    first: spec("first", [lists, batch]),
    positions: spec("positions", [batch]),
    rows: spec("rows", [lists, batch])
  }
}

type PlaceTensors = Readonly<Record<keyof ReturnType<typeof placeSpecs>, Tensor>>

/** What attention of a batch is made of. */
interface DecodeAttentionOptions {
  readonly name: string
  /** Sequences there is room for. */
  readonly batch: number
  /** Lists of rows: caches of one list have as many rows of each prompt. */
  readonly lists: number
  readonly standings: ReadonlyArray<Standing>
  readonly sizes: DecoderSizes
  readonly ropeBase: number
  /** Share of the generated tokens that stays. */
  readonly keep: number
}

interface LayerSpace {
  readonly q: Tensor
  readonly k: Tensor
  readonly v: Tensor
  readonly mixed: Tensor
}

/** The attention ops of one layer. */
interface LayerAttention {
  readonly list: number
  /** Queries and keys turned to their positions, and the new row of each cache. */
  readonly append: ReadonlyArray<Op>
  readonly attend: Op
  readonly evict: Op | undefined
}

/** What the launches of a step are told, by list. */
interface StepScalars {
  readonly attend: ReadonlyArray<Scalars>
  /** Undefined where no sequence gives a token up. */
  readonly evict: ReadonlyArray<Scalars> | undefined
}

export class DecodeAttention {
  readonly #machine: Machine["Service"]
  readonly #options: DecodeAttentionOptions
  readonly #places: PlaceTensors
  readonly #appended: Array<number>
  #step: StepScalars = { attend: [], evict: undefined }
  /** Where the batch's next token stands: once in each step, before any layer. */
  readonly #advance: Op

  private constructor(machine: Machine["Service"], options: DecodeAttentionOptions, places: PlaceTensors) {
    this.#machine = machine
    this.#options = options
    this.#places = places
    this.#appended = options.standings.map(({ appended }) => appended)
    const { generated, prompt, first, positions, rows } = places
    const { keep } = options
    this.#advance = compute(
      "advance",
      "kv.advance",
      [generated, prompt, first],
      [generated, positions, rows],
      { keep }
    )
  }

  static make(
    machine: Machine["Service"],
    options: DecodeAttentionOptions
  ): Effect.Effect<DecodeAttention, OutOfMemory> {
    const { name, batch, lists, standings } = options
    const specs = placeSpecs(name, batch, lists)
    const filled = (spec: TensorSpec, valueOf: (standing: Standing, list: number) => number): TensorSpec => ({
      ...spec,
      initial: () => {
        const values = new Int32Array(spec.shape.reduce((product, extent) => product * extent, 1))
        for (let list = 0; list < values.length / batch; list++)
          for (const [i, standing] of standings.entries()) values[list * batch + i] = valueOf(standing, list)
        return values
      }
    })
    return Effect.map(
      allocAll(machine, {
        ...specs,
        generated: filled(specs.generated, ({ appended }) => appended),
        prompt: filled(specs.prompt, ({ promptTokens }) => promptTokens),
        first: filled(specs.first, ({ promptRows }, list) => promptRows[list]!)
      }),
      (places) => new DecodeAttention(machine, options, places)
    )
  }

  /** The ops of a layer: its `caches` are those of the batch's sequences, of that list. */
  layer(
    at: string,
    list: number,
    { q, k, v, mixed }: LayerSpace,
    caches: ReadonlyArray<Tensor>
  ): LayerAttention {
    const { positions, rows, first, generated } = this.#places
    const { sizes, ropeBase, keep } = this.#options
    const shape = attentionShape(sizes)
    const rope = { headWidth: shape.headWidth, base: ropeBase }
    return {
      list,
      append: [
        compute(`${at} turn q`, "rope.rows", [q, positions], [q], rope),
        compute(`${at} turn k`, "rope.rows", [k, positions], [k], rope),
        compute(`${at} append`, "kv.append", [k, v, rows, ...caches], caches, { list })
      ],
      attend: compute(`${at} attention`, "kv.attention", [q, rows, ...caches], [mixed], { ...shape, list }),
      evict:
        keep === 1
          ? undefined
          : compute(`${at} evict`, "kv.evict", [q, rows, first, generated, ...caches], caches, {
              ...shape,
              list,
              keep
            })
    }
  }

  /** Begins the step of the next token. */
  begin(): void {
    this.#machine.submit(this.#advance)
    const { standings, lists, keep } = this.#options
    const kept = this.#appended.map((appended) => shareOf(keep, appended))
    const evicting = this.#appended.map((appended, i) => kept[i]! + 1 > shareOf(keep, appended + 1))
    const evicts = evicting.includes(true)
    const attend: Array<Scalars> = []
    const evict: Array<Scalars> = []
    for (let list = 0; list < lists; list++) {
      let [cached, longest, given, looked] = [0, 0, 0, 0]
      for (const [i, { promptRows }] of standings.entries()) {
        const length = promptRows[list]! + kept[i]! + 1
        cached += length
        if (length > longest) longest = length
        if (!evicting[i]!) continue
        given++
        looked += length
      }
      attend.push([cached, longest])
      if (evicts) evict.push([given, looked, longest])
    }
    this.#step = { attend, evict: evicts ? evict : undefined }
    for (let i = 0; i < this.#appended.length; i++) this.#appended[i]!++
  }

  /** Attention of one layer in this step, queries, keys and values being there. */
  submit({ list, append, attend, evict }: LayerAttention): void {
    const machine = this.#machine
    for (const op of append) machine.submit(op)
    machine.submit(attend, this.#step.attend[list])
    const evicting = this.#step.evict?.[list]
    if (evict !== undefined && evicting !== undefined) machine.submit(evict, evicting)
  }

  /** Gives its tensors back. */
  free(): void {
    for (const tensor of Object.values(this.#places)) this.#machine.free(tensor)
  }
}

// Times of kernels from a table of measured ones (traces/profiles/h200-ops.arrow, or your own of the same form), for shapes
// that lie between those measured. Each way of reckoning says so: what is not exactly a measured row is an estimate.
import type { OpCost } from "../../../core/profile.ts"
import { interpolate } from "../../../core/cost/cost-model.ts"

/** A time, and how it was come by: undefined for a row of the table as it is. */
export interface Reckoned {
  readonly seconds: number
  readonly how: string | undefined
}

interface Points {
  readonly at: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

const attribute = ({ attributes }: OpCost, name: string): number => attributes[name] ?? Number.NaN

const pointsOf = (rows: ReadonlyArray<OpCost>, by: string): Points => {
  const sorted = rows.toSorted((a, b) => attribute(a, by) - attribute(b, by))
  return {
    at: sorted.map((row) => attribute(row, by)),
    seconds: sorted.map(({ medianSeconds }) => medianSeconds)
  }
}

const exactAt = ({ at, seconds }: Points, x: number): number | undefined => {
  const index = at.indexOf(x)
  return index < 0 ? undefined : seconds[index]
}

const between = (points: Points, x: number): number => interpolate(points.at, points.seconds, x).value

const groupBy = (
  rows: ReadonlyArray<OpCost>,
  key: (row: OpCost) => string
): ReadonlyMap<string, ReadonlyArray<OpCost>> => Map.groupBy(rows, key)

/** Heads of one attention kernel. */
export interface AttentionHeads {
  readonly heads: number
  readonly kvHeads: number
  readonly headWidth: number
}

const sameHeads = (row: OpCost, { heads, kvHeads, headWidth }: AttentionHeads): boolean =>
  attribute(row, "q_heads") === heads &&
  attribute(row, "kv_heads") === kvHeads &&
  attribute(row, "d") === headWidth

export class MeasuredOps {
  readonly #gemms: ReadonlyArray<{ readonly k: number; readonly n: number; readonly points: Points }>
  readonly #copies: ReadonlyMap<string, Points>
  readonly #decode: ReadonlyArray<OpCost>
  readonly #prefill: ReadonlyArray<OpCost>
  readonly #shortestSeconds: number

  constructor(rows: ReadonlyArray<OpCost>) {
    const named = (op: string) => rows.filter((row) => row.op === op)
    this.#gemms = [...groupBy(named("gemm_bf16"), ({ attributes: { k, n } }) => `${k} ${n}`).values()].map(
      (group) => ({
        k: attribute(group[0]!, "k"),
        n: attribute(group[0]!, "n"),
        points: pointsOf(group, "m")
      })
    )
    const copies = rows.filter(({ attributes }) => Object.keys(attributes).join() === "bytes")
    this.#copies = new Map(
      [...groupBy(copies, ({ op }) => op)].map(([op, group]) => [op, pointsOf(group, "bytes")])
    )
    this.#decode = named("attention_decode_bf16")
    this.#prefill = named("attention_prefill_bf16")
    this.#shortestSeconds = Math.min(...(this.#copies.get("d2d")?.seconds ?? [0]))
  }

  /** The shortest time that a kernel was measured to take, launch included: that of the smallest copy. 0 without copies. */
  get launchSeconds(): number {
    return this.#shortestSeconds
  }

  /**
   * [m, k] times [k, n]: between measured m by straight lines; a weight of another shape takes what the measured weight
   * nearest in size takes, by the ratio of their sizes, and no less than the shortest measured product.
   */
  gemm(m: number, k: number, n: number): Reckoned | undefined {
    const [first, ...others] = this.#gemms
    if (first === undefined) return undefined
    const ratio = (gemm: { readonly k: number; readonly n: number }): number => {
      const share = (k * n) / (gemm.k * gemm.n)
      return Math.max(share, 1 / share)
    }
    const own = this.#gemms.find((gemm) => gemm.k === k && gemm.n === n)
    if (own !== undefined) {
      const exact = exactAt(own.points, m)
      if (exact !== undefined) return { seconds: exact, how: undefined }
      return { seconds: between(own.points, m), how: "between measured numbers of rows" }
    }
    const nearest = others.reduce((best, gemm) => (ratio(gemm) < ratio(best) ? gemm : best), first)
    const least = Math.min(...this.#gemms.flatMap(({ points }) => points.seconds))
    const scaled = (between(nearest.points, m) * k * n) / (nearest.k * nearest.n)
    return {
      seconds: Math.max(least, scaled),
      how: `weights of other shapes by their size from ${nearest.k} x ${nearest.n}, at least the shortest measured product`
    }
  }

  /** A copy by bytes between places ("h2d_pinned") or within the device ("d2d"). */
  copy(op: string, sizeBytes: number): Reckoned | undefined {
    const points = this.#copies.get(op)
    if (points === undefined) return undefined
    const exact = exactAt(points, sizeBytes)
    if (exact !== undefined) return { seconds: exact, how: undefined }
    // Below the smallest copy measured it is the launch that takes the time.
    const seconds = sizeBytes < points.at[0]! ? points.seconds[0]! : between(points, sizeBytes)
    return { seconds, how: "between measured sizes" }
  }

  /**
   * One token of each of `batch` sequences over `tokens` cached ones in all: straight lines between measured lengths (the
   * mean of the batch) and batches. Other heads by the bytes of their keys and values.
   */
  decodeAttention(batch: number, tokens: number, heads: AttentionHeads): Reckoned | undefined {
    const own = this.#decode.filter((row) => sameHeads(row, heads))
    const rows = own.length > 0 ? own : this.#decode
    if (rows.length === 0) return undefined
    const mean = tokens / batch
    const batches = [...groupBy(rows, (row) => String(attribute(row, "batch"))).values()].map((group) => ({
      batch: attribute(group[0]!, "batch"),
      points: pointsOf(group, "kv")
    }))
    const exact = batches.find((one) => one.batch === batch)
    const known = exact === undefined ? undefined : exactAt(exact.points, mean)
    if (known !== undefined && own.length > 0) return { seconds: known, how: undefined }
    const sorted = batches.toSorted((a, b) => a.batch - b.batch)
    const across: Points = {
      at: sorted.map((one) => one.batch),
      seconds: sorted.map(({ points }) => (mean < points.at[0]! ? points.seconds[0]! : between(points, mean)))
    }
    const scale = own.length > 0 ? 1 : keyBytes(heads) / keyBytes(headsOf(rows[0]!))
    return {
      seconds: between(across, batch) * scale,
      how:
        own.length > 0
          ? "between measured lengths and batches, by the batch's mean length"
          : "from other heads, by the size of keys and values"
    }
  }

  /** Causal attention of a whole prompt: time per pair of tokens by straight lines between measured lengths. */
  prefillAttention(tokens: number, heads: AttentionHeads): Reckoned | undefined {
    const own = this.#prefill.filter((row) => sameHeads(row, heads))
    const rows = own.length > 0 ? own : this.#prefill
    if (rows.length === 0) return undefined
    const points = pointsOf(rows, "tokens")
    const known = exactAt(points, tokens)
    if (known !== undefined && own.length > 0) return { seconds: known, how: undefined }
    const perPair = {
      at: points.at,
      seconds: points.seconds.map((seconds, index) => seconds / points.at[index]! ** 2)
    }
    // Beyond the measured lengths the rate of the last one.
    const inside = Math.min(Math.max(tokens, points.at[0]!), points.at.at(-1)!)
    const scale =
      own.length > 0
        ? 1
        : (heads.heads * heads.headWidth) / (attribute(rows[0]!, "q_heads") * attribute(rows[0]!, "d"))
    return {
      seconds: Math.max(points.seconds[0]!, between(perPair, inside) * tokens ** 2) * scale,
      how:
        own.length > 0
          ? "between measured lengths, by pairs of tokens"
          : "from other heads, by their number and width"
    }
  }
}

const headsOf = (row: OpCost): AttentionHeads => ({
  heads: attribute(row, "q_heads"),
  kvHeads: attribute(row, "kv_heads"),
  headWidth: attribute(row, "d")
})

const keyBytes = ({ kvHeads, headWidth }: AttentionHeads): number => kvHeads * headWidth

// Measured collectives as a ceiling: what the software and hardware of the machine they were measured on can do when no
// link is in the way. Links of the scenario may slow a collective down further, never speed it up.
import { wireUnits } from "../wire/network.ts"
import type { CollectiveCost } from "../profile.ts"
import { interpolate, interpolateMessage } from "./curve.ts"

interface CollectiveCeiling {
  /** What a message of any size takes at least: the shortest time measured, seconds. */
  readonly latencySeconds: number
  /** Time of the whole collective on unlimited links, seconds; at least `latencySeconds`. */
  readonly seconds: number
  /** False where the message or the number of ranks lies outside what was measured. */
  readonly inside: boolean
}

interface Curve {
  readonly ranks: number
  readonly sizes: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

/** Bytes that one rank puts in, which is how ops count; a reduce-scatter is measured by what a rank gets. */
const inputBytes = ({ op, ranks, sizeBytes }: CollectiveCost): number =>
  op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes

/** How much longer messages of one kind take that begin beside kernels, by bytes that one rank puts in. */
interface Waits {
  readonly sizes: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** Times of one kind of collective over message sizes and ranks. */
export class CollectiveTable {
  readonly #curves = new Map<string, ReadonlyArray<Curve>>()
  readonly #waits = new Map<string, Waits>()

  /** How the links were limited where its rows were measured. */
  readonly link: string

  /** Rows measured on links of another kind are left out. */
  constructor(rows: ReadonlyArray<CollectiveCost>, link = "unshaped") {
    this.link = link
    const byOp = Map.groupBy(
      rows.filter((row) => row.link === link),
      (row) => row.op
    )
    for (const [op, all] of byOp) {
      const byRanks = Map.groupBy(all, (row) => row.ranks)
      const curves = [...byRanks].map(([ranks, points]) => {
        // Rows that tables of several sessions have of one message count at their mean.
        const bySize = [...Map.groupBy(points, inputBytes)].toSorted(([a], [b]) => a - b)
        return {
          ranks,
          sizes: bySize.map(([bytes]) => bytes),
          seconds: bySize.map(([, same]) => mean(same.map(({ medianSeconds }) => medianSeconds)))
        }
      })
      const beside = all.filter(({ besideSeconds }) => besideSeconds !== undefined)
      if (beside.length > 0) {
        const bySize = [...Map.groupBy(beside, inputBytes)].toSorted(([a], [b]) => a - b)
        this.#waits.set(op, {
          sizes: bySize.map(([bytes]) => bytes),
          seconds: bySize.map(([, same]) =>
            mean(same.map((row) => Math.max(0, row.besideSeconds! - row.medianSeconds)))
          )
        })
      }
      this.#curves.set(
        op,
        curves.toSorted((a, b) => a.ranks - b.ranks)
      )
    }
  }

  /** Kinds of collectives that were measured, on links that were no limit. */
  get ops(): ReadonlyArray<string> {
    return [...this.#curves.keys()]
  }

  /** Whether anything was measured beside kernels. */
  get hasWaits(): boolean {
    return this.#waits.size > 0
  }

  /**
   * How much longer a message takes that begins while kernels of its ranks run: on straight lines between the messages measured so, as
   * the nearest beyond them, whatever the ranks. 0 where nothing was.
   */
  waitSeconds(op: string, sizeBytes: number): number {
    const waits = this.#waits.get(op)
    if (waits === undefined) return 0
    const { sizes, seconds } = waits
    return interpolate(sizes, seconds, Math.min(sizes.at(-1)!, Math.max(sizes[0]!, sizeBytes))).value
  }

  /**
   * Between the messages measured (`interpolateMessage`) at each measured number of ranks; between those, linear in ranks after dividing by the
   * bytes that a ring puts on each link, so that 2(n-1)/n is not interpolated. Undefined when the op was not measured.
   */
  ceiling(op: string, ranks: number, sizeBytes: number): CollectiveCeiling | undefined {
    const curves = this.#curves.get(op)
    if (curves === undefined || curves.length === 0) return undefined
    let inside = true
    const at: Array<number> = []
    const perUnit: Array<number> = []
    const latencies: Array<number> = []
    // Other numbers of ranks matter only where this one was not measured.
    const own = curves.filter((curve) => curve.ranks === ranks)
    for (const curve of own.length > 0 ? own : curves) {
      const { value, inside: sizeInside } = interpolateMessage(curve.sizes, curve.seconds, sizeBytes)
      // Beyond the largest message the last piece's slope holds; below the smallest, its time.
      inside &&= sizeInside
      at.push(curve.ranks)
      perUnit.push(value / wireUnits(op, curve.ranks))
      latencies.push(Math.min(...curve.seconds))
    }
    const units = interpolate(at, perUnit, ranks)
    const latency = interpolate(at, latencies, ranks)
    const latencySeconds = latency.value
    const seconds = Math.max(latencySeconds, units.value * wireUnits(op, ranks))
    return { latencySeconds, seconds, inside: inside && units.inside }
  }
}

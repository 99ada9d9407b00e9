// Measured collectives as a ceiling: what the software and hardware of the machine they were measured on can do when no
// link is in the way. Links of the scenario may slow a collective down further, never speed it up.
import { wireUnits } from "../wire/hops.ts"
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

/** What messages of one kind take that begin beside kernels, against what they take alone. */
interface Beside {
  /** Until the collective's own kernels run: of messages of any size. */
  readonly waitSeconds: number
  /** Bytes that one rank puts in, from none on. */
  readonly sizes: ReadonlyArray<number>
  /** How much longer each takes from then on, where no link is in the way. */
  readonly moreSeconds: ReadonlyArray<number>
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/** Undefined where no row was measured beside kernels. */
const besideOf = (rows: ReadonlyArray<CollectiveCost>): Beside | undefined => {
  const measured = rows.filter(({ besideSeconds }) => besideSeconds !== undefined)
  if (measured.length === 0) return undefined
  const longer = [...Map.groupBy(measured, inputBytes)]
    .toSorted(([a], [b]) => a - b)
    .map(([bytes, same]) => ({
      bytes,
      seconds: mean(same.map(({ medianSeconds, besideSeconds }) => besideSeconds! - medianSeconds))
    }))
  // What a running kernel's blocks have left does not depend on the message, and whatever else costs time beside kernels adds to it.
  const waitSeconds = Math.max(0, Math.min(...longer.map(({ seconds }) => seconds)))
  const sized = longer.filter(({ bytes }) => bytes > 0)
  return {
    waitSeconds,
    sizes: [0, ...sized.map(({ bytes }) => bytes)],
    moreSeconds: [0, ...sized.map(({ seconds }) => Math.max(0, seconds - waitSeconds))]
  }
}

/** Times of one kind of collective over message sizes and ranks. */
export class CollectiveTable {
  readonly #curves = new Map<string, ReadonlyArray<Curve>>()
  readonly #beside = new Map<string, Beside>()

  /** How the links were limited where its rows were measured. */
  readonly link: string

  /**
   * Rows measured on links of another kind are left out, and those of one rank, who sends nobody anything: what that takes says nothing
   * of others, and its share of a ring's bytes is none.
   */
  constructor(rows: ReadonlyArray<CollectiveCost>, link = "unshaped") {
    this.link = link
    const byOp = Map.groupBy(
      rows.filter((row) => row.link === link && row.ranks > 1),
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
      const beside = besideOf(all)
      if (beside !== undefined) this.#beside.set(op, beside)
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
    return this.#beside.size > 0
  }

  /**
   * Of a message that begins while kernels of its ranks run, whatever the ranks: the seconds until it is under way, and how much longer it
   * then takes where no link is in the way, as a rate has it: on straight lines between no bytes and the messages measured so, beyond the
   * largest in proportion. Undefined where nothing was.
   */
  besideKernels(
    op: string,
    sizeBytes: number
  ): { readonly waitSeconds: number; readonly moreSeconds: number } | undefined {
    const beside = this.#beside.get(op)
    if (beside === undefined) return undefined
    const { waitSeconds, sizes, moreSeconds } = beside
    const size = Math.min(sizes.at(-1)!, sizeBytes)
    const more = interpolate(sizes, moreSeconds, size).value
    return { waitSeconds, moreSeconds: size > 0 ? more * (sizeBytes / size) : more }
  }

  /**
   * Between the messages measured (`interpolateMessage`) at each measured number of ranks. Of another number, what the nearest measured ones take
   * of the message whose ring puts as many bytes on each link, so that 2(n-1)/n is not interpolated: on a straight line between two of them,
   * and beyond all of them as the nearest, whose latency is not multiplied by what more ranks have to send. Undefined when the op was not measured.
   */
  ceiling(op: string, ranks: number, sizeBytes: number): CollectiveCeiling | undefined {
    const curves = this.#curves.get(op)
    if (curves === undefined || curves.length === 0) return undefined
    const [fewest, most] = [curves[0]!, curves.at(-1)!]
    const asMany = Math.min(Math.max(ranks, fewest.ranks), most.ranks)
    const below = curves.findLast((curve) => curve.ranks <= asMany)!
    const above = curves.find((curve) => curve.ranks >= asMany)!
    const [one, other] = [below, above].map((curve) => {
      const share = curve.ranks === ranks ? 1 : wireUnits(op, ranks) / wireUnits(op, curve.ranks)
      const { value, inside } = interpolateMessage(curve.sizes, curve.seconds, share * sizeBytes)
      return { seconds: value, inside, latencySeconds: Math.min(...curve.seconds) }
    }) as [CollectiveCeiling, CollectiveCeiling]
    const share = above === below ? 0 : (asMany - below.ranks) / (above.ranks - below.ranks)
    const latencySeconds = one.latencySeconds + share * (other.latencySeconds - one.latencySeconds)
    const seconds = Math.max(latencySeconds, one.seconds + share * (other.seconds - one.seconds))
    return { latencySeconds, seconds, inside: one.inside && other.inside && asMany === ranks }
  }
}

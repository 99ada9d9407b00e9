// What may go wrong in a world, or change during a run: ranks that are slow or away, links that change speed or drop.
import type { LinkSpec } from "./world.ts"

/** A rank whose kernels run at `factor` of full speed for a while. Factor 0 is an outage: the rank is away. */
export interface RankFault {
  readonly kind: "rank"
  readonly rank: number
  readonly fromSeconds: number
  /** Infinity: for good. */
  readonly untilSeconds: number
  readonly factor: number
}

/** Links of a tier that have another bandwidth or latency for a while. Bandwidth 0: they are down. */
export interface LinkFault {
  readonly kind: "link"
  readonly tier: "intra" | "inter" | "wan"
  /** Rank, node or site whose links these are, both directions; all of the tier when undefined. */
  readonly owner: number | undefined
  readonly fromSeconds: number
  readonly untilSeconds: number
  readonly change: Partial<LinkSpec>
}

/** Whatever may go wrong. */
export type Fault = RankFault | LinkFault

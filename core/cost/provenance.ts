// Where a cost comes from, said of every cost that is not a measurement of exactly that op, so that a report can say so.
// Knows nothing of tables or devices.

/**
 * - `exact`: a measured row of this kernel, these sizes, this dtype and device.
 * - `interpolated`: between measured rows of the same shape, or by a line that the scenario names.
 * - `extrapolated`: beyond everything measured of its kind.
 * - `scaled`: from rows of another shape, kernel, dtype or device, by the work they have in common.
 * - `roofline`: from peak rates of a device; a lower bound.
 * - `free`: nothing is known; counted as 0 s.
 */
export type Provenance = "exact" | "interpolated" | "extrapolated" | "scaled" | "roofline" | "free"

/** Seconds of a launch, and how they were come by. */
export interface Cost {
  readonly seconds: number
  readonly provenance: Provenance
  /** What stands for the measurement, as a phrase; "" for `exact`. */
  readonly detail: string
  /** Rows of another device stand for it, carried over by the peak rates of both. */
  readonly carriedOver?: true
}

/** A kind of op whose cost was not measured, and what stands for it. */
export interface Estimate {
  readonly kernel: string
  readonly source: Exclude<Provenance, "exact">
  readonly detail: string
  /** Some of it was measured on another device, and carried over by the peak rates of both. */
  readonly carriedOver?: true
}

/** So many names stand in a line, or one more: "and 1 more" is no shorter. */
const namedMost = 4

/**
 * A line for each way in which costs were come by: "copy, adamw: scaled (between rows of d2d, ...)". Of more than five that are alike
 * four are named.
 */
export const printEstimates = (estimates: ReadonlyArray<Estimate>): ReadonlyArray<string> => {
  const alike = Map.groupBy(estimates, ({ source, detail }) => `${source} (${detail})`)
  return [...alike].map(([how, all]) => {
    const names = [...new Set(all.map(({ kernel }) => kernel))]
    const more = names.length - namedMost
    const told = more > 1 ? `${names.slice(0, namedMost).join(", ")} and ${more} more` : names.join(", ")
    return `${told}: ${how}`
  })
}

/** What was not measured so far: one entry for each kernel and provenance, with the first detail and how many others. */
export class Estimates {
  readonly #notes = new Map<string, { estimate: Estimate; readonly details: Set<string> }>()

  note(kernel: string, { provenance, detail, carriedOver }: Omit<Cost, "seconds">): void {
    if (provenance === "exact") return
    const key = `${kernel} ${provenance}`
    const moved = carriedOver === true ? { carriedOver } : {}
    const known = this.#notes.get(key)
    if (known === undefined) {
      const estimate = { kernel, source: provenance, detail, ...moved }
      this.#notes.set(key, { estimate, details: new Set([detail]) })
    } else {
      known.details.add(detail)
      if (carriedOver === true && known.estimate.carriedOver !== true)
        known.estimate = { ...known.estimate, ...moved }
    }
  }

  get list(): ReadonlyArray<Estimate> {
    return [...this.#notes.values()].map(({ estimate, details }) =>
      details.size === 1
        ? estimate
        : { ...estimate, detail: `${estimate.detail}; and ${details.size - 1} more like it` }
    )
  }
}

// Whether what two ranks submitted can be parts of one collective: what both machines check when a rank joins one.
import { memberRows } from "../kernels/collectives.ts"
import type { Op } from "./op.ts"

/** The same kernel and size, or the same rows of an uneven one. */
export const fitsCollective = (one: Op, other: Op): boolean => {
  if (one.kernel.name !== other.kernel.name) return false
  const [a, b] = [memberRows(one.attributes), memberRows(other.attributes)]
  return a === b && (a !== "" || one.sizeBytes === other.sizeBytes)
}

// Whether this process still has memory to go on with: a simulation that outgrows it would end the process without a word.
import { getHeapStatistics } from "node:v8"
import { DeviceFault } from "../core/machine/machine.ts"
import { formatBytes } from "../core/units.ts"

/** Of what the process may have; garbage counts until it is collected, which happens well before. */
const fullShare = 0.85

/** The error to end with where the process's memory is nearly full. */
export const processFull = (): DeviceFault | undefined => {
  const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics()
  if (used < fullShare * limit) return undefined
  return new DeviceFault({
    kind: "memory",
    rank: -1,
    op: -1,
    peer: -1,
    fault: `this process may have ${formatBytes(limit)} of memory, and the simulation needs more: fewer ranks, layers or requests would do, ranks that are alike (no jitter), or NODE_OPTIONS=--max-old-space-size=MEGABYTES`
  })
}

// Laws of memory, accounted in program order as a stream-ordered caching allocator does.
import { ownBytes, type Place, type Tensor } from "../machine/tensor.ts"
import type { Execution, Violation } from "./execution.ts"

/** No rank holds more than its memories do, and the machine's own count of the most it held is right. */
export const memoryBounded = (execution: Execution): Violation | undefined => {
  const law = "memoryBounded"
  const { journals = [], capacityBytes = {}, peakBytes = [] } = execution
  for (const { rank, entries } of journals) {
    const used: Record<Place, number> = { device: 0, host: 0 }
    const peak: Record<Place, number> = { device: 0, host: 0 }
    for (const entry of entries) {
      if (entry.kind === "free") used[entry.tensor.place] -= ownBytes(entry.tensor)
      if (entry.kind !== "alloc") continue
      const { place, name } = entry.tensor
      used[place] += ownBytes(entry.tensor)
      peak[place] = Math.max(peak[place], used[place])
      const capacity = capacityBytes[place] ?? Infinity
      if (used[place] > capacity) {
        const message = `rank ${rank}: with "${name}" ${used[place]} B of ${place} memory are in use; it has ${capacity} B`
        return { law, rank, message }
      }
    }
    const counted = peakBytes.find((one) => one.rank === rank)?.bytes
    for (const place of ["device", "host"] as const) {
      if (counted === undefined || counted[place] === peak[place]) continue
      const message = `rank ${rank}: the machine counted at most ${counted[place]} B of ${place} memory in use; it was ${peak[place]} B`
      return { law, rank, message }
    }
  }
  return undefined
}

/** Ops, reads and frees name tensors that are allocated and not yet freed. */
export const onlyLiveTensors = ({ journals = [] }: Execution): Violation | undefined => {
  for (const { rank, entries } of journals) {
    const live = new Set<Tensor>()
    for (const entry of entries) {
      if (entry.kind === "alloc") live.add(entry.tensor)
      const named =
        entry.kind === "op"
          ? [...entry.op.reads, ...entry.op.writes]
          : entry.kind === "read" || entry.kind === "free"
            ? [entry.tensor]
            : []
      const what =
        entry.kind === "op" ? `op ${entry.id} "${entry.op.label}" names` : `the program ${entry.kind}s`
      const dead = named.find((tensor) => !live.has(tensor))
      if (dead !== undefined) {
        const message = `rank ${rank}: ${what} "${dead.name}", which is not allocated at that point`
        return { law: "onlyLiveTensors", rank, ...(entry.kind === "op" ? { ops: [entry.id] } : {}), message }
      }
      if (entry.kind === "free") live.delete(entry.tensor)
    }
  }
  return undefined
}

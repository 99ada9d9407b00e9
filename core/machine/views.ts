// Tensors that lie in another one's memory: which places in an arena there can be, and which tensors an op touches through
// them. Knows nothing of liveness, ledgers or values.
import { dtypeBits, viewAlignment, type Tensor, type TensorSpec, type Within } from "./tensor.ts"

/** What is wrong with a tensor's place in a live arena, as a phrase. */
export const viewMisfit = (
  { dtype, sizeBytes, place }: Tensor,
  { arena, offsetBytes }: Within,
  { initial }: TensorSpec
): string | undefined => {
  if (arena.within !== undefined) return `its arena "${arena.name}" lies in another tensor itself`
  if (initial !== undefined) return "has initial values, and lies in an arena"
  if (place !== arena.place) return `is for ${place} memory; its arena lies in ${arena.place} memory`
  if (dtypeBits[dtype] < dtypeBits[arena.dtype])
    return `is ${dtype}, narrower than its arena's ${arena.dtype}`
  if (!(Number.isInteger(offsetBytes) && offsetBytes >= 0 && offsetBytes % viewAlignment === 0))
    return `has an offset of ${offsetBytes} B; expected a multiple of ${viewAlignment}`
  return offsetBytes + sizeBytes > arena.sizeBytes
    ? `has ${sizeBytes} B at ${offsetBytes} of an arena of ${arena.sizeBytes} B`
    : undefined
}

/** Tensors and the arenas they lie in; the list itself where none does. */
export const withArenas = (tensors: ReadonlyArray<Tensor>): ReadonlyArray<Tensor> => {
  if (tensors.every(({ within }) => within === undefined)) return tensors
  const arenas = new Set(tensors.flatMap(({ within }) => (within === undefined ? [] : [within.arena])))
  return [...tensors, ...arenas]
}

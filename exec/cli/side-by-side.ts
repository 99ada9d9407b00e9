// Two timelines of the same ranks as one, for a viewer: the simulated ranks first, then the real ones.
import type { Timeline } from "../../core/machine/timeline.ts"

const numbers = <T extends Int32Array | Float64Array | Uint8Array>(
  make: (length: number) => T,
  one: T,
  other: T
) => {
  const both = make(one.length + other.length)
  both.set(one)
  both.set(other, one.length)
  return both
}
const ints = (length: number): Int32Array => new Int32Array(length)
const floats = (length: number): Float64Array => new Float64Array(length)
const bytes = (length: number): Uint8Array => new Uint8Array(length)

/** `ranks` simulated ranks keep their numbers; the real ones follow. */
export const sideBySide = (
  simulated: Timeline,
  executed: Timeline,
  ranks: number
): { readonly timeline: Timeline; readonly nameOf: (rank: number) => string } => {
  const rows = simulated.rank.length
  return {
    timeline: {
      rank: numbers(
        ints,
        simulated.rank,
        executed.rank.map((rank) => rank + ranks)
      ),
      op: numbers(ints, simulated.op, executed.op),
      lane: numbers(bytes, simulated.lane, executed.lane),
      step: numbers(ints, simulated.step, executed.step),
      label: numbers(
        ints,
        simulated.label,
        executed.label.map((code) => code + simulated.labels.length)
      ),
      labels: [...simulated.labels, ...executed.labels],
      kernel: numbers(
        ints,
        simulated.kernel,
        executed.kernel.map((code) => code + simulated.kernels.length)
      ),
      kernels: [...simulated.kernels, ...executed.kernels],
      startSeconds: numbers(floats, simulated.startSeconds, executed.startSeconds),
      endSeconds: numbers(floats, simulated.endSeconds, executed.endSeconds),
      sizeBytes: numbers(floats, simulated.sizeBytes, executed.sizeBytes),
      cause: numbers(
        ints,
        simulated.cause,
        executed.cause.map((row) => (row < 0 ? row : row + rows))
      )
    },
    nameOf: (rank) => (rank < ranks ? `simulated rank ${rank}` : `executed rank ${rank - ranks}`)
  }
}

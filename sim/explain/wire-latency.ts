// Which part of a collective's time in a recorded run is latency: of the links it crosses, and of the software where that was
// measured. Knows the network's model and no time of the run.
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { Network } from "../../core/wire/network.ts"
import { asStated } from "../../core/wire/symmetry.ts"
import type { Simulable } from "../../scenarios/runnable.ts"
import type { WireLatency } from "./critical-path.ts"

/** Of rows of the timeline; 0 where the op logs do not say whose collective it is. */
export const wireLatency = (
  { world, collectives }: Simulable,
  timeline: Timeline,
  opLogs: ReadonlyArray<OpLog>
): WireLatency => {
  const network = new Network(world, asStated(world))
  const groupOf = new Map(
    opLogs.map(({ rank, entries }) => [
      rank,
      new Map(
        entries.flatMap(({ op, group, members }) =>
          group === undefined || members === undefined ? [] : [[op, { name: group, ranks: members }] as const]
        )
      )
    ])
  )
  const known = new Map<string, number>()
  return (row) => {
    const group = groupOf.get(timeline.rank[row]!)?.get(timeline.op[row]!)
    if (group === undefined) return 0
    const kernel = timeline.kernels[timeline.kernel[row]!]!
    const key = `${kernel} ${group.name}`
    let seconds = known.get(key)
    if (seconds === undefined)
      known.set(key, (seconds = aloneSeconds(network, kernel, group, collectives)(0)))
    return seconds
  }
}

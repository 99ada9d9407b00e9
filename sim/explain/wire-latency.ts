// Which part of a collective's time in a recorded run is latency: of the links it crosses, and of the software where that was
// measured. Knows the network's model and no time of the run.
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"
import { aloneSeconds } from "../../core/wire/alone.ts"
import { Network } from "../../core/wire/network.ts"
import { asStated } from "../../core/wire/symmetry.ts"
import type { Simulable } from "../../scenarios/runnable.ts"
import type { WireLatency } from "./critical-path.ts"

/** Of rows of the timeline; 0 for groups that the run's description does not list. */
export const wireLatency = (
  { world, collectives, groups = [] }: Simulable,
  timeline: Timeline,
  opLogs: ReadonlyArray<OpLog>
): WireLatency => {
  const network = new Network(world, asStated(world))
  const named = new Map([world.all, ...groups].map((group) => [group.name, group]))
  const groupOf = new Map(
    opLogs.map(({ rank, entries }) => [rank, new Map(entries.map(({ op, group }) => [op, group]))])
  )
  const known = new Map<string, number>()
  return (row) => {
    const name = groupOf.get(timeline.rank[row]!)?.get(timeline.op[row]!)
    const group = name === undefined ? undefined : named.get(name)
    if (group === undefined) return 0
    const kernel = timeline.kernels[timeline.kernel[row]!]!
    const key = `${kernel} ${group.name}`
    let seconds = known.get(key)
    if (seconds === undefined)
      known.set(key, (seconds = aloneSeconds(network, kernel, group, collectives)(0)))
    return seconds
  }
}

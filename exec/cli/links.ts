// The links of a scenario's world, emulated for a real run: what each collective puts on each link, and the latency it pays,
// as the simulator's network model has it. Without links that limit anything, collectives go as fast as memory is.
import type { Op } from "../../core/machine/op.ts"
import type { World } from "../../core/world.ts"
import { legsOf, linkRate, messageOf } from "../../core/wire/legs.ts"
import { Network, type CollectiveAlgorithm } from "../../core/wire/network.ts"
import { distinct } from "../../core/wire/symmetry.ts"
import type { Execution } from "../execute.ts"
import type { Transport } from "../native.ts"

/** Options of `execute` that make collectives cross the world's links. */
export const emulatedLinks = (
  world: World,
  algorithm: CollectiveAlgorithm
): Pick<Execution<unknown>, "linkBytesPerSecond" | "prepare"> => {
  const network = new Network(world, distinct(world))
  // Links without a limit are not emulated: they would only cost time.
  const number = new Map<number, number>()
  const rates: Array<number> = []
  for (const [id, { spec }] of network.links.entries()) {
    if (spec.bytesPerSecond === Infinity) continue
    number.set(id, rates.length)
    rates.push(spec.bytesPerSecond)
  }
  const transportOf = (op: Op, rank: number): Transport | undefined => {
    const groups = [op.group!.ranks]
    const { legs } = legsOf(network, messageOf(op, rank), groups, groups, { algorithm })
    const bytesOn = new Map<number, number>()
    let latencySeconds = 0
    for (const { phase, bytes } of legs) {
      const rate = linkRate(phase, (id) => network.links[id]!.spec.bytesPerSecond)
      // What windows hold back is waited for ahead, as if nothing else were on the links.
      latencySeconds += phase.latencySeconds + phase.held(bytes, rate)
      phase.links.forEach((id, i) => {
        const link = number.get(id)
        if (link !== undefined) bytesOn.set(link, (bytesOn.get(link) ?? 0) + phase.weights[i]! * bytes)
      })
    }
    if (latencySeconds === 0 && bytesOn.size === 0) return undefined
    return { latencySeconds, loads: [...bytesOn].map(([link, bytes]) => ({ link, bytes })) }
  }
  return {
    linkBytesPerSecond: rates,
    prepare: (rank, op) => {
      if (op.group === undefined) return undefined
      const transport = transportOf(op, rank)
      return transport === undefined ? undefined : { transport }
    }
  }
}

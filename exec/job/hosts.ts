// Whether the hosts that a launcher has put ranks on are a world's nodes. Real messages take the way that there is, whatever the world says of
// it: a rank whose node-mates are elsewhere works all the same, and is slower. Knows no launcher.
import { counted } from "../../core/units.ts"
import type { World } from "../../core/world.ts"

/** `hosts`: of each rank, who has the same as another is on one host with it. */
export const nodeWarnings = (world: World, hosts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const hostsOf = new Map<number, Array<number>>()
  for (const rank of world.all.ranks) {
    const members = hostsOf.get(world.nodeOf[rank]!)
    if (members === undefined) hostsOf.set(world.nodeOf[rank]!, [rank])
    else members.push(rank)
  }
  const apart = [...hostsOf.values()].filter((ranks) =>
    ranks.some((rank) => hosts[rank] !== hosts[ranks[0]!])
  )
  if (apart.length === 0) return []
  const [first] = apart
  const other = first!.find((rank) => hosts[rank] !== hosts[first![0]!])
  return [
    `ranks ${first![0]} and ${other} are on one node of the scenario (world.ranksPerNode), and on two hosts here, so ${counted(apart.length, "node")} of ${hostsOf.size}: what stays inside a node there goes between hosts`
  ]
}

/** Of what is measured where hosts have unlike numbers of ranks. */
export const unlikeHosts = (hosts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const counts = new Map<string, number>()
  for (const host of hosts) counts.set(host, (counts.get(host) ?? 0) + 1)
  return new Set(counts.values()).size < 2
    ? []
    : [
        `hosts have ${[...counts.values()].join(", ")} ranks, and a world's nodes are alike (world.ranksPerNode): collectives that were measured among these are of no world that a scenario can say`
      ]
}

// Whether the hosts that a launcher has put ranks on are a world's nodes. Real messages take the way that there is, whatever the world says of
// it: a rank whose node-mates are elsewhere works all the same, and is slower. Knows no launcher.
import { counted } from "../../core/units.ts"
import type { World } from "../../core/world.ts"

/** `hosts`: of each rank, who has the same as another is on one host with it. */
export const nodeWarnings = (world: World, hosts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const nodes = Map.groupBy(world.all.ranks, (rank) => world.nodeOf[rank]!)
  // Of each node, its first rank and one that is elsewhere.
  const apart = [...nodes.values()].flatMap(([first, ...others]) => {
    const other = others.find((rank) => hosts[rank] !== hosts[first!])
    return other === undefined ? [] : [[first, other]]
  })
  return apart.length === 0
    ? []
    : [
        `ranks ${apart[0]!.join(" and ")} are on one node of the scenario (world.ranksPerNode), and on two hosts here, so ${counted(apart.length, "node")} of ${nodes.size}: what stays inside a node there goes between hosts`
      ]
}

/** Of what is measured where hosts have unlike numbers of ranks. */
export const unlikeHosts = (hosts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const counts = [...Map.groupBy(hosts, (host) => host).values()].map(({ length }) => length)
  return new Set(counts).size < 2
    ? []
    : [
        `hosts have ${counts.join(", ")} ranks, and a world's nodes are alike (world.ranksPerNode): collectives that were measured among these are of no world that a scenario can say`
      ]
}

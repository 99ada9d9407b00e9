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

/** Of what is measured where hosts have unlike numbers of ranks, and are not the scenario's nodes. */
export const unlikeHosts = (world: World, hosts: ReadonlyArray<string>): ReadonlyArray<string> => {
  const here = [...Map.groupBy(world.all.ranks, (rank) => hosts[rank]!).values()]
  const counts = here.map(({ length }) => length).join(", ")
  if (here.every(({ length }) => length === here[0]!.length)) return []
  const nodes = world.sites.flatMap((site) => site.nodes)
  const inOrder = here.every((ranks) => ranks.at(-1) === ranks[0]! + ranks.length - 1)
  if (inOrder && nodes.join(", ") === counts) return []
  return [
    `hosts have ${counts} ranks, and the scenario's nodes ${[...new Set(nodes)].join(", ")}: collectives that were measured among these are of ${
      inOrder
        ? `a world with ranksPerNode: [${counts}]`
        : "no world that a scenario can say, in which ranks of a node are one after another"
    }`
  ]
}

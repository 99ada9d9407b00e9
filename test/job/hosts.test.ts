// Whether hosts that ranks were put on are a world's nodes, as Slurm and others distribute tasks.
import { expect, it } from "vitest"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { nodeWarnings, unlikeHosts } from "../../exec/job/hosts.ts"

const worldOf = (...nodes: ReadonlyArray<number>) => makeWorld([{ name: "here", nodes }], unlimitedLinks)

const world = (ranks: number, ranksPerNode: number) =>
  worldOf(...Array.from({ length: ranks / ranksPerNode }, () => ranksPerNode))

it.each([
  ["one host", ["a", "a", "a", "a"]],
  ["a host for each node", ["a", "a", "b", "b"]]
])("tells nothing of %s", (_, hosts) => {
  expect([nodeWarnings(world(4, 2), hosts), unlikeHosts(world(4, 2), hosts)]).toEqual([[], []])
})

it("tells nothing of nodes of one rank, wherever they are", () => {
  expect(nodeWarnings(world(4, 1), ["a", "b", "a", "b"])).toEqual([])
})

it("tells of tasks that go round the hosts", () => {
  const hosts = ["a", "b", "a", "b"]
  expect(nodeWarnings(world(4, 2), hosts)).toEqual([
    "ranks 0 and 1 are on one node of the scenario (world.ranksPerNode), and on two hosts here, so 2 nodes of 2: what stays inside a node there goes between hosts"
  ])
  expect(unlikeHosts(world(4, 2), hosts)).toEqual([])
})

it("tells of hosts of unlike numbers of ranks that are not the scenario's nodes", () => {
  const hosts = ["a", "a", "a", "b"]
  expect(nodeWarnings(world(4, 2), hosts)[0]).toContain("ranks 2 and 3 are on one node of the scenario")
  expect(nodeWarnings(world(4, 2), hosts)[0]).toContain("so 1 node of 2")
  expect(unlikeHosts(world(4, 2), hosts)).toEqual([
    "hosts have 3, 1 ranks, and the scenario's nodes 2: collectives that were measured among these are of a world with ranksPerNode: [3, 1]"
  ])
  expect(unlikeHosts(world(4, 1), ["a", "b", "a", "a"])[0]).toMatch(
    /^hosts have 3, 1 ranks, and the scenario's nodes 1: .* no world that a scenario can say/u
  )
})

it("tells nothing of hosts of unlike numbers of ranks that are its nodes, or its sites' nodes", () => {
  const hosts = ["a", "a", "a", "b"]
  const sites = [
    { name: "near", nodes: [3] },
    { name: "far", nodes: [1] }
  ]
  for (const same of [worldOf(3, 1), makeWorld(sites, unlimitedLinks)])
    expect([nodeWarnings(same, hosts), unlikeHosts(same, hosts)]).toEqual([[], []])
  // The same numbers the other way round.
  expect(nodeWarnings(worldOf(1, 3), hosts)[0]).toContain("ranks 1 and 3 are on one node of the scenario")
  expect(unlikeHosts(worldOf(1, 3), hosts)).toHaveLength(1)
})

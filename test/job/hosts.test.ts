// Whether hosts that ranks were put on are a world's nodes, as Slurm and others distribute tasks.
import { expect, it } from "vitest"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { nodeWarnings, unlikeHosts } from "../../exec/job/hosts.ts"

const world = (ranks: number, ranksPerNode: number) =>
  makeWorld(
    [{ name: "here", nodes: Array.from({ length: ranks / ranksPerNode }, () => ranksPerNode) }],
    unlimitedLinks
  )

it.each([
  ["one host", ["a", "a", "a", "a"]],
  ["a host for each node", ["a", "a", "b", "b"]]
])("tells nothing of %s", (_, hosts) => {
  expect([nodeWarnings(world(4, 2), hosts), unlikeHosts(hosts)]).toEqual([[], []])
})

it("tells nothing of nodes of one rank, wherever they are", () => {
  expect(nodeWarnings(world(4, 1), ["a", "b", "a", "b"])).toEqual([])
})

it("tells of tasks that go round the hosts", () => {
  const hosts = ["a", "b", "a", "b"]
  expect(nodeWarnings(world(4, 2), hosts)).toEqual([
    "ranks 0 and 1 are on one node of the scenario (world.ranksPerNode), and on two hosts here, so 2 nodes of 2: what stays inside a node there goes between hosts"
  ])
  expect(unlikeHosts(hosts)).toEqual([])
})

it("tells of hosts of unlike numbers of ranks", () => {
  const hosts = ["a", "a", "a", "b"]
  expect(nodeWarnings(world(4, 2), hosts)[0]).toContain("ranks 2 and 3 are on one node of the scenario")
  expect(nodeWarnings(world(4, 2), hosts)[0]).toContain("so 1 node of 2")
  expect(unlikeHosts(hosts)[0]).toContain("hosts have 3, 1 ranks")
})

import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { scenarioFile, small } from "./files.ts"

const facts = { estimates: [], makespanSeconds: 10 }

const warningsOf = (...sets: ReadonlyArray<string>): ReadonlyArray<string> => {
  const scenario = Effect.runSync(loadScenario(scenarioFile(small), sets))
  return familyOf(scenario).ignored(scenario, facts)
}

describe("fields without effect", () => {
  it("are none in a plain scenario", () => expect(warningsOf()).toEqual([]))

  it.each([
    [["intra.bandwidth=1GB/s"], /^world\.links\.intra has no effect/u],
    [["wan.bandwidth=1GB/s"], /^world\.links\.wan has no effect: there is one site/u],
    [["ranksPerNode=2"], /^world\.links\.inter has no effect: all ranks are on one node/u],
    [["ranks=1"], /^world\.links\.inter has no effect: there is one rank/u],
    [["collectives.algorithm=hierarchical"], /"hierarchical" is "ring" here/u],
    [["device=NVIDIA H200"], /^device has no effect/u],
    [["seed=3"], /^seed has no effect/u],
    [["kernels=eager"], /^kernels has no effect: the model's times are measured/u],
    [["buckets=single", "bucketBytes=1MiB"], /^algorithm\.bucketBytes has no effect: buckets is single/u],
    [
      ["algorithm={name: streaming-diloco, localShare: 0.1}"],
      /^algorithm\.localShare changes what is learnt/u
    ],
    [["training={optimizer: sgd}"], /^training says what is learnt/u],
    [["faults=[{link: inter}]"], /^faults\[0\] has no effect: it changes neither/u],
    [["faults=[{link: wan, latency: 1s}]"], /^faults\[0\] has no effect: there is one site/u],
    [["faults=[{outage: 1, from: 11s}]"], /^faults\[0\] has no effect: it begins after the run/u]
  ])("%j", (sets, message) => {
    const warnings = warningsOf(...sets)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(message)
  })

  it("are what clipping by the norm of all gradients takes from an algorithm that overlaps its steps", () => {
    const clipped = (algorithm: string) =>
      warningsOf(`algorithm=${algorithm}`, "training={clipNorm: 1}").filter((one) =>
        one.includes("with training.clipNorm")
      )
    const lost = [
      ["{name: diloco, overlap: true}", /^algorithm\.overlap has no effect: with training\.clipNorm a/u],
      ["{name: streaming-diloco}", /^fragments are sent after the backward pass and not within it: with/u],
      ["{name: dreamddp, order: step-then-average}", /^averages begin after the backward pass and not/u],
      ["{name: partial-local-sgd, order: step-then-average}", /^averages begin after the backward pass/u]
    ] as const
    for (const [algorithm, message] of lost) {
      expect(clipped(algorithm), algorithm).toHaveLength(1)
      expect(clipped(algorithm)[0]).toMatch(message)
    }
    for (const algorithm of ["{name: diloco}", "{name: dreamddp}", "ddp", "s-sgd", "local-sgd"])
      expect(clipped(algorithm), algorithm).toEqual([])
  })

  const twoSites = (ranksPerNode: number) => `world={ranks: 4, sites: 2, ranksPerNode: ${ranksPerNode}}`
  it.each([
    [[twoSites(1), "shard={within: node}"], /^shard divides nothing: there is one rank in each node,/u],
    [["ranks=1", "shard={within: world}"], /^shard divides nothing: there is one rank,/u],
    [[twoSites(2), "shard={within: node}"], /^shard\.within "node" is "site" here/u],
    [["ranks=4", "shard={}"], /^shard\.within leaves the algorithm nothing to average/u],
    [
      ["ranks=4", "shard={}", "algorithm.wire=bfloat16"],
      /^algorithm\.wire has no effect: all ranks hold one/u
    ],
    [[twoSites(1), "shard={within: world}", "algorithm.wire=bfloat16"], /^algorithm\.wire has no effect/u]
  ])("of a model in parts: %j", (sets, message) => {
    expect(warningsOf(...sets).filter((warning) => message.test(warning))).toHaveLength(1)
  })

  it("are not sites that hold a model in parts, though crossing them is free", () => {
    const sites = (...sets: ReadonlyArray<string>) =>
      warningsOf(...sets).filter((warning) => warning.startsWith("world.sites has no effect"))
    expect(sites(twoSites(1), "shard={}")).toEqual([])
    expect(sites(twoSites(1))).toHaveLength(1)
  })

  it("are none of a model in parts whose sites are of several nodes", () => {
    const world = "world={ranks: 8, sites: 2, ranksPerNode: 2, links: {wan: {bandwidth: 1GB/s}}}"
    for (const shard of ["shard={}", "shard={within: node}", "shard={prefetch: 0}"])
      expect(warningsOf(world, shard, "algorithm.wire=bfloat16")).toEqual([])
  })

  it("are not what the scenario turns on elsewhere", () => {
    expect(warningsOf("seed=3", "jitter=0.1")).toEqual([])
    expect(warningsOf("ranks=4", "ranksPerNode=2", "intra.bandwidth=1GB/s")).toEqual([])
    const sites = ["ranks=4", "sites=2", "wan.bandwidth=1GB/s"]
    expect(warningsOf(...sites, "collectives.algorithm=hierarchical")).toEqual([])
  })
})

import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile, small } from "./files.ts"
import { bases } from "./knob-bases.ts"

const facts = { estimates: [], makespanSeconds: 10 }

const warningsOf = (...sets: ReadonlyArray<string>): ReadonlyArray<string> => {
  const scenario = Effect.runSync(loadScenario(scenarioFile(small), sets))
  return familyOf(scenario).ignored(scenario, facts)
}

describe("fields without effect", () => {
  it("are none in a plain scenario", () => expect(warningsOf()).toEqual([]))

  it("are not what a host reads that does so at the end of each step", () =>
    expect(warningsOf("host={launch: 1us, read: 1ms, readEachStep: true}")).toEqual([]))

  it.each([
    [["intra.bandwidth=1GB/s"], /^world\.links\.intra has no effect/u],
    [["wan.bandwidth=1GB/s"], /^world\.links\.wan has no effect: there is one site/u],
    [["inter.latency=10"], /^world\.links\.inter\.latency is 10\.0 s one way, longer than any link's/u],
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
    [
      ["activations={gradientAsBucketView: true}", "algorithm=s-sgd"],
      /^activations\.gradientAsBucketView has no effect: no memory of DDP's buckets is counted/u
    ],
    [["training={optimizer: sgd}"], /^training says what is learnt/u],
    [["host={launch: 1us, read: 1ms}"], /^host\.read has no effect: there is no read/u],
    [["faults=[{link: inter}]"], /^faults\[0\] has no effect: it changes neither/u],
    [["precision=float32"], /^precision has no effect: the times of the model's layers are stated/u],
    [["faults=[{link: wan, latency: 1s}]"], /^faults\[0\] has no effect: there is one site/u],
    [["faults=[{outage: 1, from: 11s}]"], /^faults\[0\] has no effect: it begins after the run/u]
  ])("%j", (sets, message) => {
    const warnings = warningsOf(...sets)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(message)
  })

  it.each([
    ["data-parallel", "host={launch: 25}", "host.launch is 25.0 s, longer than it takes any host"],
    ["data-parallel", "collectives.wait=2", "collectives.wait is 2.00 s, longer than any waits for"],
    [
      "data-parallel",
      "checkpoint={every: 2, hostLink: {bandwidth: 1GB/s, latency: 10}}",
      "checkpoint.hostLink.latency is 10.0 s one way"
    ],
    ["moe-training", "world.links.intra.latency=5", "world.links.intra.latency is 5.00 s one way"],
    ["moe-training", "costs.wait=2", "costs.wait is 2.00 s, longer than any waits for"],
    ["expert-offload", "hostLink.latency=10", "hostLink.latency is 10.0 s one way, longer than any link's"],
    ["expert-offload", "host={read: 20}", "host.read is 20.0 s, longer than it takes any host"],
    ["kv-serving", "transfer={to: node, latency: 5}", "transfer.latency is 5.00 s one way, longer than any"]
  ])("of %s, beside times that were meant in another unit: %s", (task, set, message) => {
    const told = (...sets: ReadonlyArray<string>) => {
      const scenario = Effect.runSync(loadScenario(scenarioFile(bases[task] ?? expect.fail()), sets))
      return familyOf(scenario)
        .ignored(scenario, facts)
        .filter((warning) => warning.includes("a number without a unit is seconds"))
    }
    expect(told(set)).toEqual([expect.stringContaining(message)])
    expect(told(set.replace(/\d+(?=\}*$)/u, "900ms"))).toEqual([])
  })

  it("are not a device for which costs of another are carried over, or whose name chooses the costs", () => {
    const told = (estimate: object, ...sets: ReadonlyArray<string>) => {
      const scenario = Effect.runSync(loadScenario(scenarioFile(small), sets))
      const estimates = [{ kernel: "copy", source: "extrapolated" as const, detail: "", ...estimate }]
      return familyOf(scenario).ignored(scenario, { ...facts, estimates })
    }
    const efficient = "device={flops: 1e12, memoryBandwidth: 1GB/s, efficiency: 0.5}"
    const profile = "model={profile: p.arrow}"
    expect(told({ carriedOver: true }, "device=NVIDIA A100", "costs=p.arrow")).toEqual([])
    expect(told({}, "device=NVIDIA H200")).toEqual([])
    expect(told({}, "device=NVIDIA H200", "costs=p.arrow")).toEqual([
      "device has no effect: every cost that this scenario needs is stated"
    ])
    expect(told({ source: "scaled", kernel: "host" }, "device=NVIDIA H200")).toHaveLength(1)
    expect(told({ carriedOver: true }, efficient, "costs=p.arrow")).toEqual([
      "device.efficiency has no effect: no cost is an estimate from peak rates"
    ])
    expect(told({}, "device=NVIDIA H200", profile)).toEqual([
      "device has no effect: every cost that this scenario needs is measured"
    ])
    expect(told({ carriedOver: true }, "device=NVIDIA V100", profile)).toEqual([
      expect.stringMatching(/^device has no effect on the model's layers, whose times are measured/u)
    ])
  })

  const uneven = "sites=[{name: a, ranks: 4}, {name: b, ranks: 2}]"
  const ofTheirOwn = "world={sites: [{name: a, ranks: 4, ranksPerNode: 2}, {name: b, ranks: 1}]}"
  const wan = "wan.bandwidth=1GB/s"
  it.each([
    [[uneven, "world.ranks=6"], "hierarchical", undefined],
    [[uneven, "world.ranks=6", "ranksPerNode=2"], "hierarchical", undefined],
    [["world.ranks=5", "ranksPerNode=[3, 2]"], "hierarchical", undefined],
    [[ofTheirOwn], "hierarchical", undefined],
    [["ranks=4", "sites=4"], "hierarchical", /is "ring" here: one rank on each node, one node at each site/u],
    [[uneven, "world.ranks=6", "ranksPerNode=2", "shard={within: node}"], "hierarchical", undefined],
    [[uneven, "world.ranks=6", "shard={within: world}"], "hierarchical", /is "ring" here: gathers and/u],
    [["shard={}"], "tree", /^collectives\.algorithm "tree" is "ring" here: gathers and scatters/u],
    [["ranks=4", "sites=2", "shard={within: site}"], "hierarchical", /on no common level/u],
    [["ranks=8", "sites=2", "ranksPerNode=2", "shard={within: node}"], "hierarchical", undefined],
    [["ranks=4", "sites=2", "shard={within: site}"], "tree", undefined],
    [["shard={gradients: false, parameters: false}"], "tree", undefined]
  ])("of collectives that go around a ring after all: %j %s", (sets, algorithm, message) => {
    const warnings = warningsOf(...sets, wan, `collectives.algorithm=${algorithm}`)
    const told = warnings.filter((warning) => warning.startsWith("collectives."))
    expect(told).toEqual(message === undefined ? [] : [expect.stringMatching(message)])
  })

  it("are numbers of ranks that no site goes by, and links of a rank that is alone on its node", () => {
    const own = "sites=[{name: a, ranks: 4, ranksPerNode: 2}, {name: b, ranks: 2, ranksPerNode: 1}]"
    const shared = "sites=[{name: a, ranks: 4}, {name: b, ranks: 2, ranksPerNode: 1}]"
    const told = (sites: string, ...sets: ReadonlyArray<string>) =>
      warningsOf("world.ranks=6", sites, wan, ...sets)
    expect(told(own, "world.ranksPerNode=2")).toEqual([
      "world.ranksPerNode has no effect: every site has its own (world.sites)"
    ])
    expect(told(own)).toEqual([])
    expect(told(shared, "world.ranksPerNode=2")).toEqual([])
    const fault = (of: number) => `faults=[{link: intra, of: ${of}, bandwidth: 1Mbit/s}]`
    expect(told(own, fault(5))).toEqual([
      "faults[0] has no effect: rank 5 is alone on its node, so no traffic inside it"
    ])
    expect(told(own, fault(3))).toEqual([])
  })

  it("are faults of links between sites that are none", () => {
    const fault = ["ranks=4", "sites=2", "shard={within: site}", "faults=[{link: wan, bandwidth: 1Mbit/s}]"]
    expect(warningsOf(...fault)).toEqual([
      "faults[0] has no effect: crossing sites is free where world.links.wan is not given"
    ])
    expect(warningsOf(...fault, wan)).toEqual([])
  })

  it.each([
    ["{link: inter, bandwidth: 1Gbit/s}", "faults[0] has no effect: world.links.inter have that already"],
    ["{link: inter, of: 1, bandwidth: 1Gbit/s, latency: 0s}", /^faults\[0\].*the links of node 1 have that/u],
    ["{link: inter, bandwidth: 1Gbit/s, latency: 1ms}", undefined],
    ["{link: inter, bandwidth: 2Gbit/s}", undefined],
    // It ends another one early, or comes when that is over.
    ["{link: inter, bandwidth: 1Mbit/s, for: 1s}, {link: inter, bandwidth: 1Gbit/s, from: 5ms}", undefined],
    [
      "{link: inter, bandwidth: 1Mbit/s, for: 5ms}, {link: inter, bandwidth: 1Gbit/s, from: 5ms}",
      /^faults\[1\]/u
    ]
  ])("are faults that leave links as they are: %s", (faults, told) => {
    const warnings = warningsOf("inter.bandwidth=1Gbit/s", `faults=[${faults}]`)
    const expected = typeof told === "string" ? told : told && expect.stringMatching(told)
    expect(warnings.filter((one) => one.startsWith("faults"))).toEqual(told === undefined ? [] : [expected])
  })

  it("are not headers of packets: during a fault a link has as many as before", async () => {
    const step = async (...sets: ReadonlyArray<string>) => {
      const file = scenarioFile(small)
      const scenario = await Effect.runPromise(loadScenario(file, sets))
      const { result } = await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))
      return metricOf(result, "stepSeconds")
    }
    const mtu = "inter.mtu=576"
    const faulty = await step("inter.bandwidth=1Gbit/s", mtu, "faults=[{link: inter, bandwidth: 1Mbit/s}]")
    expect(faulty).toBeCloseTo(await step("inter.bandwidth=1Mbit/s", mtu), 9)
    expect(faulty).toBeGreaterThan(1.05 * (await step("inter.bandwidth=1Mbit/s")))
  })

  it("are faults that are over when measuring begins, and costs of kernels that nothing runs", async () => {
    const told = async (...sets: ReadonlyArray<string>) => {
      const file = scenarioFile(small)
      const scenario = await Effect.runPromise(loadScenario(file, sets))
      return (await Effect.runPromise(runScenario(scenario, file, { loader: new Loader() }))).result.warnings
    }
    const costs = `costs=${path.resolve("traces/profiles/h200-ops.arrow")}`
    expect(
      await told("faults=[{outage: 1, from: 1ms, for: 2ms}, {straggler: 1, speed: 0.5, from: 1ms}]")
    ).toEqual([
      expect.stringMatching(/^faults\[0\] is in no figure: it is over at 3\.00 ms, within the warm-up/u)
    ])
    expect(await told(costs, "algorithm=s-sgd")).toEqual([expect.stringMatching(/^costs have no effect:/u)])
    expect(await told(costs, "algorithm={name: diloco, period: 2}")).toEqual([])
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

// MoE training as scenarios run it: every rank or one for all, hooks, routings, planners, what is said of it, bad input.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { describe, expect, it } from "vitest"
import { moeTrainingNames } from "../../core/algorithms/moe-training/algorithms.ts"
import {
  hookPoints,
  moeTraining,
  type HookContext,
  type MoeHooks
} from "../../core/algorithms/moe-training/program.ts"
import { kvHeadsOf } from "../../core/algorithms/moe-training/model.ts"
import { countChoices, drawChoices, expertImbalance } from "../../core/algorithms/moe-training/routing.ts"
import type { MoeTrainingScenario } from "../../scenarios/families/moe-training/scenario.ts"
import type { OpLog } from "../../core/machine/timeline.ts"
import { moeTrainingFamily } from "../../scenarios/families/moe-training/family.ts"
import { runFamily } from "../../sim/run.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { makeWorld } from "../../core/world.ts"
import { moeCase, pipelineOrder } from "../../testing/moe-training.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { close, flatWorld, run, unlimited } from "../simulate/simulated.ts"

const file = "scenarios/moe-training.yaml"
const loader = new Loader()

/** The shipped scenario, smaller, with fields changed. */
const scenarioWith = (overrides: ReadonlyArray<string>): MoeTrainingScenario => {
  const small = ["model.layers=2", "model.sequence=512", "world.ranks=16", "world.ranksPerNode=4"]
  return Effect.runSync(loadScenario(file, [...small, ...overrides])) as MoeTrainingScenario
}
const simulate = (overrides: ReadonlyArray<string>) =>
  Effect.runPromise(runFamily(moeTrainingFamily, scenarioWith(overrides), file, { loader, record: true }))
const failure = async (overrides: ReadonlyArray<string>): Promise<string> =>
  String(
    await Effect.runPromise(
      Effect.flip(runFamily(moeTrainingFamily, scenarioWith(overrides), file, { loader }))
    )
  )

describe("simulated training", () => {
  it.each([
    ["forwardDegrees", [], /plan\.forwardDegrees has 0 numbers for 1 layers: one for each/u],
    ["forwardDegrees", [0], /plan\.forwardDegrees has 0: a whole number of at least 1/u],
    ["backwardDegrees", [1.5], /plan\.backwardDegrees has 1\.5/u],
    ["gradients", { moe: [0], dense: [], rest: 0 }, /plan\.gradients\.dense has 0 numbers for 1 layers/u],
    ["gradients", { moe: [-1], dense: [0], rest: 1 }, /plan\.gradients\.moe has -1: elements, 0 or more/u]
  ])("refuses a plan whose %s are %j", (field, value, told) => {
    const { model, plan, nodes } = fc
      .sample(moeCase(), { numRuns: 50, seed: 1 })
      .find(({ model, perNode }) => model.layers === 1 && perNode === 1)!
    const program = moeTraining({ model, plan: { ...plan, [field]: value }, steps: 1 })
    expect(() => run({ world: flatWorld(nodes), program })).toThrow(told)
  })

  it("is the same for one rank that stands for all and for every rank", () => {
    let shared = 0
    fc.assert(
      fc.property(moeCase(), ({ model, plan, nodes, perNode }) => {
        fc.pre(model.capacityFactor !== "dropless")
        const world = makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
          intra: { bytesPerSecond: 1e6, latencySeconds: 1e-6 },
          inter: { bytesPerSecond: 1e5, latencySeconds: 1e-5 },
          wan: undefined
        })
        const [once, each] = [true, false].map((symmetric) =>
          run({
            world,
            program: moeTraining({ model, plan, steps: 2 }),
            costs: { seconds: (op) => 1e-4 * (1 + (op.label.length % 7)), estimates: [] },
            collectives: { algorithm: "ring", portShare: 0.7 },
            symmetric
          })
        )
        expect(once!.ranks).toHaveLength(1)
        expect(close(once!.makespanSeconds, each!.makespanSeconds)).toBe(true)
        const bytes = [once!, each!].map(({ links }) => links.reduce((sum, link) => sum + link.bytes, 0))
        expect(close(bytes[0]!, bytes[1]!)).toBe(true)
        if (nodes > 1 && perNode > 1) shared++
      }),
      { numRuns: 40 }
    )
    expect(shared).toBeGreaterThan(5)
  })

  it("orders lanes as FSMoE does, and the law notices when not", async () => {
    const { simulated } = await simulate(["algorithm.degrees=[4]"])
    expect(pipelineOrder(simulated.opLogs)).toBeUndefined()
    const untold = simulated.opLogs.map((log): OpLog => ({
      ...log,
      entries: log.entries.map((entry) => ({ ...entry, role: undefined }))
    }))
    expect(pipelineOrder(untold)?.message).toMatch(/no op says/u)
    const broken = simulated.opLogs.map((log): OpLog => {
      const entries = [...log.entries]
      const at = (label: string) => entries.findIndex((entry) => entry.label === label)
      const [dispatch, combine] = [at("forward layer 0 dispatch 3"), at("forward layer 0 combine 0")]
      expect(dispatch).toBeGreaterThanOrEqual(0)
      ;[entries[dispatch], entries[combine]] = [entries[combine]!, entries[dispatch]!]
      return { ...log, entries }
    })
    expect(pipelineOrder(broken)?.message).toMatch(
      /"forward layer 0 .*" (comes after a later stage|begins its stage|follows chunk)/u
    )
  })

  it("calls the six hooks in order, in every layer and pass", () => {
    const called: Array<string> = []
    const hooks: MoeHooks = Object.fromEntries(
      hookPoints.map((point) => [
        point,
        ({ layer, pass }: HookContext) => {
          called.push(`${pass} ${layer} ${point}`)
        }
      ])
    )
    const [one] = fc.sample(
      moeCase().filter(({ model }) => model.layers === 2),
      { numRuns: 1, seed: 3 }
    )
    const { model, plan, nodes, perNode } = one!
    run({
      world: makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
        intra: unlimited,
        inter: unlimited,
        wan: undefined
      }),
      program: moeTraining({ model: { ...model, capacityFactor: 1, gate: "softmax" }, plan, steps: 1, hooks })
    })
    const expected = ["forward 0", "forward 1", "backward 1", "backward 0"].flatMap((pass) =>
      hookPoints.map((point) => `${pass} ${point}`)
    )
    expect(called).toEqual(expected)
  })

  it("takes what the planner reckoned where nothing else shares its lanes", async () => {
    for (const algorithm of moeTrainingNames) {
      const { result } = await simulate([`algorithm=${algorithm}`, "model.layers=4"])
      const ratio = result.predictedSeconds / result.stepSeconds
      expect(ratio, algorithm).toBeGreaterThan(0.9)
      expect(ratio, algorithm).toBeLessThan(1.02)
    }
  })

  it("takes longer by the waits of messages that begin beside experts, and the planner reckons with them", async () => {
    const degrees = "algorithm={name: fsmoe, forwardDegree: 4, backwardDegree: 4}"
    const at = async (wait: string) => (await simulate([degrees, `costs.wait=${wait}`])).result
    const [free, held] = [await at("0s"), await at("100us")]
    expect(held.stepSeconds).toBeGreaterThan(1.01 * free.stepSeconds)
    expect(held.predictedSeconds).toBeGreaterThan(1.01 * free.predictedSeconds)
    expect(Math.abs(held.predictedSeconds / held.stepSeconds - 1)).toBeLessThan(0.05)
    // Without chunks only what gradients of weights are computed beside.
    const alone = async (wait: string) =>
      (await simulate(["algorithm=deepspeed-moe", `costs.wait=${wait}`])).result.stepSeconds
    const added = (await alone("100us")) - (await alone("0s"))
    expect(added).toBeLessThan((held.stepSeconds - free.stepSeconds) / 3)
  })

  it("runs where nobody is dropped and each node has one rank, which no line of what stays inside nodes is of", async () => {
    const one = await simulate(["model.capacityFactor=dropless", "world.ranks=4", "world.ranksPerNode=1"])
    expect(one.result.stepSeconds).toBeGreaterThan(0)
    expect(one.result.estimates.map(({ detail }) => detail).join()).toContain("all_gather not in the table")
  })

  it.each(moeTrainingNames)(
    "runs over sites of unlike sizes, and over a link for each pair: %s",
    async (name) => {
      const links = { inter: { bandwidth: "10Gbit/s" }, wan: { bandwidth: "1Gbit/s" } }
      const over = (ranks: Readonly<Record<string, number>>, more = {}) => {
        const sites = Object.entries(ranks).map(([site, own]) => ({ name: site, ranks: own }))
        const world = JSON.stringify({ ranksPerNode: 2, sites, links: { ...links, ...more } })
        const scenario = Effect.runSync(
          loadScenario(file, ["model.layers=2", "model.sequence=512", `world=${world}`, `algorithm=${name}`])
        ) as MoeTrainingScenario
        return Effect.runPromise(runFamily(moeTrainingFamily, scenario, file, { loader }))
      }
      const bytesOf = async (run: ReturnType<typeof over>, link: RegExp) =>
        (await run).result.links.filter((one) => link.test(one.name)).map(({ bytes, count }) => bytes / count)
      // To and from the node that is a site of its own go as many bytes, whether the other two share a site or not.
      const apart = await bytesOf(over({ a: 2, b: 2, c: 2 }), /^wan out/u)
      const unlike = await bytesOf(over({ a: 4, b: 2 }), /^wan out/u)
      expect(unlike).toHaveLength(2)
      for (const bytes of unlike) expect(Math.abs(bytes / apart[0]! - 1)).toBeLessThan(1e-9)
      const pairs = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "moe-pairs-")), "pairs.json")
      fs.writeFileSync(pairs, JSON.stringify({ pairs: { "a-b": [0, 1], "a-c": [0, 1], "b-c": [0, 1] } }))
      const { result } = await over({ a: 2, b: 2, c: 2 }, { wan: { pairs } })
      expect(result.stepSeconds).toBeGreaterThan(0)
      fs.rmSync(path.dirname(pairs), { recursive: true })
    }
  )

  it("takes the all-reduce of norms' and gates' gradients with it, and beside it what a host is late, as its words say", async () => {
    const agree = "scenarios/agree/moe-training.yaml"
    const stepOf = async (host: string) => {
      const sets = ["model.capacityFactor=1", `host=${host}`]
      const scenario = Effect.runSync(loadScenario(agree, sets)) as MoeTrainingScenario
      const options = { loader, record: true }
      const { result, timeline } = await Effect.runPromise(
        runFamily(moeTrainingFamily, scenario, agree, options)
      )
      const label = timeline!.labels.indexOf("all-reduce of norms and gates")
      const row = timeline!.label.lastIndexOf(label)
      expect(moeTrainingFamily.print(result).join("\n")).toContain(
        "what the planner reckoned: no host, no optimizer"
      )
      return {
        ...result,
        alikeSeconds: timeline!.endSeconds[row]! - timeline!.startSeconds[row]!
      }
    }
    const never = await stepOf("none")
    const ratio = never.predictedSeconds / never.stepSeconds
    expect(ratio).toBeGreaterThan(0.95)
    // as it would not be without it
    expect(ratio - never.alikeSeconds / never.stepSeconds).toBeLessThan(0.95)
    expect(ratio).toBeLessThan(1.05)
    const late = await stepOf("compiled")
    expect(late.predictedSeconds).toBe(never.predictedSeconds)
    expect(late.stepSeconds).toBeGreaterThan(1.2 * never.stepSeconds)
  })

  it("plans alike by lanes and by simulation, where the lanes are all there is", async () => {
    const degrees = async (planner: string) => {
      const { planned } = (await simulate([`algorithm.planner=${planner}`])).prepared.planned
      return [planned.plan.forwardDegrees, planned.plan.backwardDegrees, planned.predicted]
    }
    const [lanes, simulation] = [await degrees("lanes"), await degrees("simulation")] as const
    expect(simulation[0]).toEqual(lanes[0])
    expect(simulation[1]).toEqual(lanes[1])
    const [a, b] = [lanes[2], simulation[2]] as ReadonlyArray<{ readonly backwardSeconds: number }>
    expect(Math.abs(a!.backwardSeconds / b!.backwardSeconds - 1)).toBeLessThan(1e-6)
  })

  it("is slower where ports are shared, and FSMoE most of all", async () => {
    const slowdown = async (algorithm: string): Promise<number> => {
      const [shared, free] = [
        await simulate([`algorithm=${algorithm}`, "costs.portShare=0.9"]),
        await simulate([`algorithm=${algorithm}`])
      ]
      return shared.result.stepSeconds / free.result.stepSeconds
    }
    expect(await slowdown("tutel")).toBeCloseTo(1, 9)
    expect(await slowdown("fsmoe")).toBeGreaterThan(1.01)
  })
})

const dropless = ["model.capacityFactor=dropless", "model.experts=8", "model.sequence=256"]

describe("routing", () => {
  const sizes = { ranks: 4, tokens: 48, experts: 8, topK: 2 }
  it("counts every choice once; skew makes some experts hot, the same ones in every step", () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.constantFrom(0, 0.5, 3), (seed, skew) => {
        const [one, two] = [0, 1].map((step) => drawChoices(sizes, skew, seed, 1, step))
        for (let rank = 0; rank < 4; rank++) {
          expect(one!.slice(rank * 8, rank * 8 + 8).reduce((sum, count) => sum + count, 0)).toBe(96)
        }
        expect(Array.from(one!)).toEqual(Array.from(drawChoices(sizes, skew, seed, 1, 0)))
        if (skew === 0) expect(expertImbalance(one!, 8)).toBe(1)
        if (skew < 3) return
        expect(expertImbalance(one!, 8)).toBeGreaterThan(1.5)
        const hottest = (counts: Int32Array): number => {
          const loads = Array.from({ length: 8 }, (_, e) =>
            [0, 1, 2, 3].reduce((sum, rank) => sum + counts[rank * 8 + e]!, 0)
          )
          return loads.indexOf(Math.max(...loads))
        }
        expect(hottest(one!)).toBe(hottest(two!))
      })
    )
    expect(Array.from(countChoices({ ranks: 2, tokens: 2, experts: 3, topK: 1 }, [[0], [2], [1]]))).toEqual([
      1, 0, 1, 1, 1, 0
    ])
    expect(() => countChoices(sizes, [])).toThrow(/without tokens/)
  })

  it("slows training the more it is skewed, and says by how much", async () => {
    const results = await Promise.all(
      [0, 1, 10].map(async (skew) => (await simulate([...dropless, `routing.skew=${skew}`])).result)
    )
    expect(results[0]!.expertImbalance).toBe(1)
    expect(results[1]!.expertImbalance).toBeGreaterThan(1.3)
    expect(results[2]!.expertImbalance).toBeGreaterThan(results[1]!.expertImbalance)
    expect(results[1]!.stepSeconds).toBeGreaterThan(results[0]!.stepSeconds)
    expect(results[2]!.stepSeconds).toBeGreaterThan(results[1]!.stepSeconds)
  })

  it("comes from a file where one is named", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-routing-"))
    const trace = path.join(folder, "hot.arrow")
    // Every token chooses experts 0 and 1.
    const tokens = 16
    const each = <T>(make: (token: number, choice: number) => T): ReadonlyArray<T> =>
      Array.from({ length: tokens }, (_, token) => [make(token, 0), make(token, 1)]).flat()
    await Effect.runPromise(
      writeRouting(trace, {
        step: new Int32Array(2 * tokens),
        layer: new Int32Array(2 * tokens),
        token: Int32Array.from(each((token) => token)),
        choice: Int32Array.from(each((_, choice) => choice)),
        expert: Int32Array.from(each((_, choice) => choice)),
        weight: new Float64Array(2 * tokens).fill(0.5)
      })
    )
    const read = (overrides: ReadonlyArray<string>) =>
      Effect.runPromise(
        runFamily(
          moeTrainingFamily,
          scenarioWith([...dropless, `routing.trace=${trace}`, ...overrides]),
          file,
          { loader }
        )
      )
    const { result } = await read([])
    expect(result.expertImbalance).toBe(4)
    await expect(read(["model.topK=1"])).rejects.toThrow(/model.topK/)
    await expect(
      Effect.runPromise(
        runFamily(moeTrainingFamily, scenarioWith([...dropless, "routing.trace=nowhere.arrow"]), file, {
          loader
        })
      )
    ).rejects.toThrow(/routing.trace/)
    fs.rmSync(folder, { recursive: true })
  })
})

describe("what is said", () => {
  it("tells why communication is not hidden", async () => {
    const told = async (overrides: ReadonlyArray<string>): Promise<string> => {
      const scenario = scenarioWith(overrides)
      const ran = await Effect.runPromise(
        runFamily(moeTrainingFamily, scenario, file, { loader, record: true })
      )
      return ran.prepared.explain!().lines.join("\n")
    }
    expect(await told(["algorithm=deepspeed-moe"])).toMatch(
      /one chunk: nothing can overlap; this algorithm does not pipeline/
    )
    expect(await told(["algorithm={name: tutel, degrees: [4]}"])).toMatch(/all communication shares one lane/)
    expect(await told(["algorithm.degrees=[4]", "world.links.inter.bandwidth=10Gbit/s"])).toMatch(
      /bound by (all-to-all|inter-node)[\s\S]*experts r e = .* <= .* = 2 \(r - 1\) a of all-to-alls/
    )
    expect(await told(["algorithm.degrees=[4]", "world.links.inter.bandwidth=100000Gbit/s"])).toMatch(
      /bound by (expert|intra-node)/
    )
  })

  it("warns of fields without effect", () => {
    const warnings = (overrides: ReadonlyArray<string>) => moeTrainingFamily.ignored(scenarioWith(overrides))
    expect(warnings([])).toEqual([])
    expect(warnings(["routing.skew=1"])[0]).toMatch(/routing has no effect/)
    expect(warnings(["model.gateWidth=8"])[0]).toMatch(/gateWidth has no effect: the gate is softmax/)
    expect(warnings(["seed=3"])[0]).toMatch(/seed has no effect/)
    expect(warnings(["costs.portShare=0.7"])).toEqual([])
    expect(warnings(["costs.slowdown=1.1"])).toEqual([])
    expect(warnings(["costs.wait=1ms"])).toEqual([])
    expect(warnings(["costs.wait=1ms", "world={ranks: 1}"])).toContainEqual(
      expect.stringMatching(/wait has no effect: there is one rank/)
    )
    expect(warnings(["costs.slowdown=1.1", "world={ranks: 1}"])).toContainEqual(
      expect.stringMatching(/slowdown has no effect: there is one rank/)
    )
    expect(warnings(["costs.portShare=0.5"])[0]).toMatch(/portShare has no effect: two collectives at once/)
    expect(warnings(["costs.portShare=0.7", "algorithm=tutel"])[0]).toMatch(/tutel collectives take turns/)
  })

  it("tells of a product's line that it is of another dtype, and carries a fitted one to another device", async () => {
    const line = "costs.products={fixed: 0s, perUnit: 1e-14, unit: MAC, dtype: float32}"
    const products = async (...overrides: ReadonlyArray<string>) => {
      const { result } = await simulate(overrides)
      const told = result.estimates.find(({ detail }) => detail.startsWith("by the line of"))!
      return { ...told, computeSeconds: Number(result["computeSeconds"]) }
    }
    const half = await products(line, "model.dtype=bfloat16")
    expect(half.source).toBe("scaled")
    expect(half.detail).toContain("from float32 to bfloat16 by bits")
    const same = await products(line, "model.dtype=float32")
    expect(same.source).toBe("interpolated")
    expect(same.detail).not.toContain("by bits")

    const fitted = "costs.products={profile: traces/profiles/h200-ops.arrow, method: line}"
    const here = await products(fitted)
    expect(here.detail).toContain("the line of gemm_bf16 over")
    expect(await products(fitted, "device=NVIDIA H200")).toEqual(here)
    const there = await products(fitted, "device=NVIDIA V100")
    expect(there.detail).toContain("gemm_bf16 carried over to NVIDIA V100")
    expect(there.computeSeconds).toBeGreaterThan(2 * here.computeSeconds)
  })

  it("takes heads of keys and values that do not go evenly over the ranks of a node", async () => {
    let uneven = 0
    for (let perNode = 1; perNode <= 8; perNode++) {
      for (let heads = perNode; heads <= 48; heads += perNode) {
        for (let kvHeads = 1; kvHeads <= heads; kvHeads++) {
          if (heads % kvHeads !== 0) continue
          const own = heads / perNode
          // What each query head reads, one by one.
          const read = Array.from(
            { length: perNode },
            (_, rank) =>
              new Set(
                Array.from({ length: own }, (__, i) => Math.floor(((rank * own + i) * kvHeads) / heads))
              ).size
          )
          const held = kvHeadsOf({ heads, kvHeads }, perNode)
          expect(held).toBeGreaterThanOrEqual(Math.max(...read))
          expect(own % held).toBe(0)
          if (kvHeads % perNode === 0) expect(held).toBe(kvHeads / perNode)
          else if (perNode % kvHeads === 0) expect(held).toBe(1)
          else uneven++
        }
      }
    }
    expect(uneven).toBeGreaterThan(50)
    const step = async (kvHeads: number) =>
      (await simulate(["model.heads=24", "model.width=1536", `model.kvHeads=${kvHeads}`])).result
    // Six over four ranks: each reads two.
    const [fewer, six, eight] = [await step(4), await step(6), await step(8)]
    expect(six.makespanSeconds).toBeGreaterThan(fewer.makespanSeconds)
    expect(six.makespanSeconds).toBeLessThanOrEqual(eight.makespanSeconds)
  })

  it("sends gradients of heads as wide as they are, copies of keys and values included", async () => {
    const gradients = async (...set: ReadonlyArray<string>) => {
      const { result } = await simulate(["model.heads=16", "model.width=1024", ...set])
      const between = result.links.filter(({ name }) => name === "inter out")
      const bytes = between.reduce((sum, link) => sum + link.bytes, 0)
      return { bytes, steps: result.steps! + result.warmupSteps!, warnings: result.warnings.join() }
    }
    const usual = await gradients("model.kvHeads=4")
    expect((await gradients("model.kvHeads=4", "model.headWidth=64")).bytes).toBe(usual.bytes)
    expect(usual.warnings).not.toContain("heads of keys")
    // Four ranks each hold one head, whether there are four of them or two.
    const copies = await gradients("model.kvHeads=2")
    expect(copies.bytes).toBe(usual.bytes)
    expect(copies.warnings).toContain(
      "the 2 heads of keys and values are held as 1 on each of a node's 4 ranks"
    )
    // By hand: a rank's queries, keys, values and projection are 2 M W (4 + 1) numbers; twice as wide, as many more again.
    // In each of 2 layers each of 16 ranks sends them in a ring of 4: 2 * 3/4 times two bytes.
    const more = usual.steps * 2 * 16 * 1.5 * 2 * (2 * 1024 * 64 * 5)
    const wide = await gradients("model.kvHeads=4", "model.headWidth=128")
    expect(wide.bytes - usual.bytes).toBe(more)
  })

  it("refuses sizes that do not divide, ops that are not there and what gates cannot do, by field", async () => {
    for (const [override, expected] of [
      ["model.experts=5", /model.experts.*multiple of the 4 nodes/],
      ["model.heads=6", /model.heads.*multiple of the 4 ranks/],
      ["model.kvHeads=3", /model.kvHeads/],
      ["model.topK=9", /model.topK.*at most the 4 experts/],
      ["costs.products={profile: traces/profiles/h200-ops.arrow, op: nope}", /costs.products.op.*gemm_bf16/],
      ["costs.inside.all_to_all={fixed: 1us, perUnit: 1e-9, unit: bytes}", /costs.inside.all_to_all/],
      [
        "costs.between.all_to_all={fixed: 1us, perUnit: 1e-9, unit: bytes, scope: gathered}",
        /all_to_all.scope/
      ],
      [
        "costs.inside.all_reduce={fixed: 1us, perUnit: 1e-9, unit: bytes, scope: gathered}",
        /costs.inside.all_reduce.scope: gathered .*input or node: nothing is gathered/
      ]
    ] as const) {
      expect(await failure([override]), override).toMatch(expected)
    }
    // A size is of what the op has: a product's no bytes, a collective's no multiply-accumulates.
    for (const [override, expected] of [
      ["costs.inside.all_gather={fixed: 1us, perUnit: 1e-9, unit: MAC}", /costs.inside.all_gather.unit/],
      [
        "costs.products={fixed: 1us, perUnit: 1e-12, unit: bytes}",
        /costs.products.unit: "bytes" .*expected MAC/
      ],
      ["costs.products={fixed: 1us, perUnit: 1e-12, unit: MAC, scope: input}", /costs.products.scope/]
    ] as const) {
      expect(() => scenarioWith([override]), override).toThrow(expected)
    }
    expect(await failure(["model.gate=soft-moe", "model.capacityFactor=dropless"])).toMatch(
      /model.capacityFactor/
    )
    expect(await failure(["model.gate=expert-choice", "model.experts=4", "model.capacityFactor=4"])).toMatch(
      /cannot choose more/
    )
  })
})

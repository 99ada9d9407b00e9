// A step of MoE training whose kernels take no time, against a calculation of its own: bytes on links from the sizes of the model
// alone, and the time that one lane of messages takes for them. Knows nothing of how the program or its planners are written.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { moeTrainingNames } from "../../core/algorithms/moe-training/algorithms.ts"
import type { MoeTrainingScenario } from "../../scenarios/families/moe-training/scenario.ts"
import { moeTrainingFamily } from "../../scenarios/families/moe-training/family.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runFamily } from "../../sim/run.ts"
import { scenarioFile } from "../scenario/files.ts"

const loader = new Loader()

const run = (scenario: object) => {
  const file = scenarioFile(JSON.stringify(scenario))
  const loaded = Effect.runSync(loadScenario(file, [])) as MoeTrainingScenario
  return Effect.runPromise(runFamily(moeTrainingFamily, loaded, file, { loader }))
}

const gates = ["softmax", "gshard", "sigmoid", "x-moe", "soft-moe"] as const

const degree = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined })

const cases = fc.record({
  name: fc.constantFrom(...moeTrainingNames),
  nodes: fc.integer({ min: 1, max: 4 }),
  perNode: fc.integer({ min: 1, max: 4 }),
  layers: fc.integer({ min: 1, max: 3 }),
  // Of a rank.
  heads: fc.integer({ min: 1, max: 3 }),
  shared: fc.boolean(),
  headWidth: fc.constantFrom(2, 6, 16),
  width: fc.constantFrom(8, 24, 64),
  tokens: fc.constantFrom<number>(1, 3, 8, 16),
  batch: fc.integer({ min: 1, max: 3 }),
  // Of a node.
  experts: fc.integer({ min: 1, max: 3 }),
  topK: fc.integer({ min: 1, max: 3 }),
  capacityFactor: fc.constantFrom<number>(0.3, 1, 1.2, 3),
  gate: fc.constantFrom(...gates),
  bytes: fc.constantFrom(2, 4),
  forward: degree,
  backward: degree,
  inside: fc.constantFrom(1e8, 1e9),
  between: fc.constantFrom(1e6, 1e7),
  network: fc.constantFrom("fluid", "alpha-beta")
})
type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never

const gateWidth = 4

const scenarioOf = (one: Case) => {
  const { name, nodes, perNode, bytes, forward, backward, inside, between } = one
  const experts = one.experts * nodes
  return {
    task: "moe-training",
    name: "links",
    model: {
      layers: one.layers,
      width: one.width,
      hidden: 4 * perNode,
      heads: one.heads * perNode,
      // All query heads of a rank share one, or none does.
      kvHeads: one.shared ? perNode : one.heads * perNode,
      headWidth: one.headWidth,
      sequence: one.tokens * perNode,
      batch: one.batch,
      experts,
      topK: Math.min(one.topK, experts),
      capacityFactor: one.capacityFactor,
      gate: one.gate,
      gateWidth,
      dtype: bytes === 2 ? "bfloat16" : "float32"
    },
    world: {
      ranks: nodes * perNode,
      ranksPerNode: perNode,
      links: { intra: { bandwidth: `${inside}B/s` }, inter: { bandwidth: `${between}B/s` } }
    },
    network: one.network,
    costs: { products: { fixed: 0, perUnit: 0, unit: "MAC" }, between: {}, inside: {} },
    device: { flops: "1e30FLOP/s", memoryBandwidth: "1e30B/s" },
    steps: 1,
    algorithm: {
      name,
      ...(name === "deepspeed-moe" || forward === undefined ? {} : { forwardDegree: forward }),
      ...(name === "deepspeed-moe" || backward === undefined ? {} : { backwardDegree: backward })
    }
  }
}

/** The least multiple of both that holds so many. */
const padded = (rows: number, a: number, b: number): number => {
  let size = Math.ceil(rows)
  while (size % a !== 0 || size % b !== 0) size++
  return size
}

/** Bytes of one step at the degrees that were chosen, over a node's interface and a rank's port, of each kind of message. */
const messages = (one: Case, forward: ReadonlyArray<number>, backward: ReadonlyArray<number>) => {
  const { nodes, perNode, layers, width, headWidth, bytes, gate } = one
  const experts = one.experts * nodes
  const tokens = one.batch * one.tokens
  const topK = Math.min(one.topK, experts)
  const wanted = (topK * one.capacityFactor * tokens) / experts
  // Rounded down by no more than a number's last digits.
  const rows = forward.map((degree, layer) => padded(wanted - 1e-9, degree, backward[layer]!))
  const all = rows.reduce((sum, own) => sum + own, 0)
  const round = (ranks: number): number => (2 * (ranks - 1)) / ranks
  const gateElements = {
    softmax: width * experts * layers,
    sigmoid: width * experts * layers,
    gshard: 2 * width * experts * layers,
    "x-moe": (width * gateWidth + gateWidth * experts) * layers,
    // A slot for each row.
    "soft-moe": width * experts * all
  }[gate]
  const kvHeads = one.shared ? 1 : one.heads
  const dense = 2 * width * headWidth * (one.heads + kvHeads) * layers
  const alike = 2 * width * layers + gateElements
  return {
    // To the experts and back, in both passes: all but what stays on the node.
    allToAll: 4 * perNode * experts * all * width * bytes * ((nodes - 1) / nodes),
    gradients: perNode * dense * bytes * round(nodes),
    // Once around all ranks: into and out of each node over one link.
    alike: alike * bytes * round(nodes * perNode),
    // Around attention, a gather and a scatter in each pass, of the node's tokens.
    attention: 4 * layers * ((perNode - 1) / perNode) * tokens * perNode * width * bytes,
    // Of what a node's ranks have of each expert.
    experts: 4 * (perNode - 1) * experts * all * width * bytes
  }
}

describe("messages between nodes where there is one node", () => {
  it("take no time, whether all ranks send as much or what tokens choose", async () => {
    const one = fc.sample(cases, { numRuns: 1, seed: 1 })[0]!
    const { costs, model, algorithm, ...rest } = scenarioOf({
      ...one,
      name: "deepspeed-moe",
      nodes: 1,
      perNode: 2,
      experts: 3,
      topK: 2,
      tokens: 8,
      gate: "softmax"
    })
    const stepSeconds = async (capacityFactor: unknown, between: object) => {
      const own = { ...rest, algorithm, model: { ...model, capacityFactor }, costs: { ...costs, ...between } }
      return (await run(own)).result.stepSeconds
    }
    // By the profile that costs come from by default, and by lines that say what each message takes at least.
    const line = { fixed: "1ms", perUnit: 0, unit: "bytes" }
    const profile = { profile: "traces/profiles/nccl-h200-sockets.arrow" }
    for (const capacityFactor of [1, "dropless"]) {
      const links = await stepSeconds(capacityFactor, { between: {} })
      for (const between of [profile, { all_to_all: line, all_reduce: line }])
        expect(await stepSeconds(capacityFactor, { between })).toBe(links)
      // Norms' and gates' gradients are summed inside the node: one message.
      const summed = await stepSeconds(capacityFactor, { between: {}, inside: { all_reduce: line } })
      expect(summed - links).toBeCloseTo(1e-3, 5)
    }
  })
})

describe("an expert that chooses", () => {
  it("may take all tokens of a rank, and no more", async () => {
    const one = fc.sample(cases, { numRuns: 1, seed: 1 })[0]!
    const at = (tokens: number, forward: number, capacityFactor: number) => {
      const own = { ...one, nodes: 1, perNode: 1, experts: 1, topK: 1, batch: 1, tokens, capacityFactor }
      const { model, ...rest } = scenarioOf({ ...own, name: "tutel", forward, backward: 1 })
      return run({ ...rest, model: { ...model, gate: "expert-choice" } })
    }
    expect((await at(8, 2, 1)).result.stepSeconds).toBeGreaterThan(0)
    // Five are padded to six, and all of six and one more are too many.
    for (const refused of [() => at(5, 2, 1), () => at(6, 1, 1.01)])
      await expect(refused()).rejects.toThrow(/cannot choose more/u)
  })
})

describe("a step over links alone", () => {
  it("carries the bytes that the model's sizes say, and takes as long, as its planner reckons", async () => {
    const seen = { padded: 0, hidden: 0, "two lanes": 0 }
    await fc.assert(
      fc.asyncProperty(cases, async (one) => {
        const { result } = await run(scenarioOf(one))
        const { nodes, perNode, inside, between } = one
        const { forwardDegrees, backwardDegrees } = result.details as unknown as Readonly<
          Record<"forwardDegrees" | "backwardDegrees", ReadonlyArray<number>>
        >
        const sizes = messages(one, forwardDegrees, backwardDegrees)
        const { allToAll, gradients, alike, attention, experts } = sizes
        const bytesOf = (tier: string) =>
          result.links
            .filter((link) => link.tier === tier && link.name.startsWith(`${tier} out`))
            .reduce((sum, { bytes }) => sum + bytes, 0) / 2
        // Of two steps, the first to warm up.
        if (nodes > 1) expect(bytesOf("inter")).toBeCloseTo(nodes * (allToAll + gradients + alike), 3)
        // A ring of all ranks leaves each node over one link, so one port less than there are carries it inside.
        const ports = nodes === 1 ? perNode : nodes * (perNode - 1)
        if (perNode > 1)
          expect(bytesOf("intra")).toBeCloseTo(nodes * perNode * (attention + experts) + ports * alike, 3)
        const acrossSeconds = nodes === 1 ? 0 : (allToAll + gradients) / between
        const insideSeconds = (attention + experts) / inside
        const alikeSeconds = Math.max(nodes === 1 ? 0 : alike / between, perNode === 1 ? 0 : alike / inside)
        const near = (seconds: number, expected: number) =>
          expect(Math.abs(seconds - expected)).toBeLessThan(1e-9 + 1e-6 * expected)
        const whole = acrossSeconds + insideSeconds + alikeSeconds
        if (one.name === "fsmoe") {
          seen["two lanes"]++
          expect(result.stepSeconds).toBeLessThan(whole * (1 + 1e-6) + 1e-9)
          expect(result.stepSeconds).toBeGreaterThan(Math.max(acrossSeconds, insideSeconds) * (1 - 1e-6))
          return
        }
        near(result.stepSeconds, whole)
        near(result.predictedSeconds, whole)
        if (forwardDegrees[0] !== backwardDegrees[0]) seen.padded++
        if (one.name !== "tutel" && one.name !== "deepspeed-moe" && perNode > 1 && nodes > 1) seen.hidden++
      }),
      { numRuns: 150 }
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(10)
  })
})

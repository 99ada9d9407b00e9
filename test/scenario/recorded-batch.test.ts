// A profile of one batch, run with another: `model.recorded` and `activations.of`.
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import { deviceNamed } from "../../core/cost/devices.ts"
import type { Profile } from "../../core/profile.ts"
import { estimateProfile } from "../../scenarios/estimated-profile.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { onBatch } from "../../scenarios/families/data-parallel/recorded-batch.ts"
import { Loader } from "../../scenarios/load.ts"
import { modelGraph } from "../../scenarios/model-graph.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"

const root = path.resolve(import.meta.dirname, "../..")
const file = path.join(root, "scenarios/measured/sharded-h100.yaml")
const loader = new Loader()
const alone = ["world={ranks: 1}", "collectives={}", "model.recorded={}"]

const scenarioOf = (sets: ReadonlyArray<string>) =>
  Effect.map(loadScenario(file, sets), (scenario) => scenario as DataParallelScenario)
const run = (sets: ReadonlyArray<string>) =>
  Effect.runPromise(
    Effect.flatMap(loadScenario(file, sets), (scenario) =>
      Effect.map(runScenario(scenario, file, { loader }), ({ result }) => result)
    )
  )
const stepOf = async (sets: ReadonlyArray<string>): Promise<number> =>
  Number(Reflect.get(await run(sets), "stepSeconds"))

const gpt2 = (batch: number, context = 1024): string =>
  `activations.of={gpt2: {layers: 12, width: 768, heads: 12, vocabulary: 50257, context: ${context}, batch: ${batch}}}`

const device = deviceNamed("NVIDIA H100")!
const costs = () => makeCostModel({ sources: [], device, computeDtype: "bfloat16" })

describe("a profile of another batch", () => {
  it("comes to what the architecture is estimated at, where the profile is an estimate itself", async () => {
    const sizes = { layers: 3, width: 512, heads: 8, ffnWidth: 1024, vocabulary: 5000, tied: false }
    const estimated = (batch: number, context: number): Profile => {
      const graph = modelGraph(
        { llama: { ...sizes, batch, context, vocabularyMultiple: 1 } },
        "bfloat16",
        "float32"
      )
      return estimateProfile(graph, graph, costs(), "autocast", "")
    }
    const sum = ({ layers }: Profile, pass: "forward" | "backward" | "optimizer") =>
      layers.reduce((seconds, layer) => seconds + layer[pass].busySeconds, 0)
    for (const [batch, context] of [
      [8, 256],
      [1, 256],
      [2, 1024]
    ] as const) {
      const scenario = await Effect.runPromise(
        scenarioOf([
          "activations.by=autocast",
          "model.recorded={batch: 2, context: 256}",
          `activations.of={llama: {layers: 3, width: 512, heads: 8, ffnWidth: 1024, vocabulary: 5000, batch: ${batch}, context: ${context}}}`
        ])
      )
      const recorded = estimated(2, 256)
      const { profile, estimates } = await Effect.runPromise(
        onBatch(scenario, recorded, { device, ops: undefined }, file)
      )
      const wanted = estimated(batch, context)
      for (const pass of ["forward", "backward"] as const) {
        expect(sum(profile, pass) / sum(wanted, pass)).toBeCloseTo(1, 9)
        expect(sum(recorded, pass) / sum(wanted, pass)).not.toBeCloseTo(1, 1)
      }
      // The optimizer sees parameters, not tokens.
      expect(sum(profile, "optimizer")).toBe(sum(recorded, "optimizer"))
      expect(estimates[0]!.detail).toContain(
        `from the 2 x 256 tokens of the profile to ${batch} x ${context}`
      )
    }
  })

  it("takes GPT-2 on an H200 from 4 x 1024 to the 153 ms that eager PyTorch takes for 32 x 1024, within 15 %", async () => {
    const sets = [...alone, "model.profile=../../traces/profiles/gpt2-h200.arrow", "host=none"]
    const seconds = await stepOf([...sets, gpt2(32), "model.recorded.batch=4"])
    expect(Math.abs(seconds / 0.153 - 1)).toBeLessThan(0.15)
  })

  it("is the profile as it is, where nothing differs or nothing is said", async () => {
    const plain = await run(alone)
    const same = await run([...alone, "model.recorded={batch: 4, context: 2048}"])
    expect(same.digest).toBe(plain.digest)
    expect(same.estimates).toEqual(plain.estimates)
  })

  it("changes time and memory together, in parts and under recomputation, from either kind of trace", async () => {
    const fsdp = ["shard={within: world, parameterDtype: bfloat16}", "activations.by=eager"]
    for (const profile of ["llama1b-h100", "llama1b-fsdp-h100"]) {
      for (const recompute of ["none", "block"]) {
        const sets = [
          ...fsdp,
          `model.profile=../../traces/profiles/${profile}.arrow`,
          "host=none",
          "world.links.inter.bandwidth=10TB/s",
          "collectives={}",
          `activations.recompute=${recompute}`,
          "model.recorded={batch: 4, context: 2048}"
        ]
        const small = await run([...sets, "activations.of.llama.batch=4"])
        const large = await run([...sets, "activations.of.llama.batch=8"])
        const grown = Number(Reflect.get(large, "stepSeconds")) / Number(Reflect.get(small, "stepSeconds"))
        expect(grown).toBeGreaterThan(1.5)
        expect(grown).toBeLessThan(2.05)
        expect(large.peakBytes.device).toBeGreaterThan(small.peakBytes.device)
        expect(Reflect.get(large, "tokensPerStep")).toBe(8 * 2048)
      }
    }
  })

  it("is refused where nothing says what runs", async () => {
    const message = (sets: ReadonlyArray<string>) =>
      Effect.runPromise(
        Effect.flip(
          Effect.flatMap(loadScenario(file, sets), (scenario) => runScenario(scenario, file, { loader }))
        )
      ).then((error) => error.message)
    expect(
      await message(["model={profile: ../../traces/profiles/gpt2-h100.arrow, recorded: {batch: 2}}"])
    ).toMatch(/activations\.of/u)
    const without = await Effect.runPromise(scenarioOf(["model.recorded={batch: 2}"]))
    const { activations: _, ...bare } = without
    const refused = await Effect.runPromise(
      Effect.flip(onBatch(bare, {} as Profile, { device, ops: undefined }, file))
    )
    expect(refused.message).toMatch(/model\.recorded.*without activations\.of/u)
  })
})

// One measured step makes a described model's estimates fit: by how much, on which batch, and which steps cannot be.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { metricOf } from "../../scenarios/result.ts"
import { runScenario } from "../../sim/run.ts"

const file = new URL("../../scenarios/gpt2-described.yaml", import.meta.url).pathname
const loader = new Loader()
const sizes = {
  gpt2: "gpt2: {layers: 4, width: 768, heads: 12, batch: 4}",
  llama:
    "llama: {layers: 4, width: 1024, heads: 16, kvHeads: 4, headWidth: 128, ffnWidth: 2816, vocabulary: 32000}",
  mixtral:
    "mixtral: {layers: 2, width: 1024, heads: 16, kvHeads: 4, ffnWidth: 1792, experts: 8, topK: 2, vocabulary: 32000}"
} as const
const prepared = (model: string, ...set: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const world = "world={ranks: 1, ranksPerNode: 1}"
    const scenario = yield* loadScenario(file, [
      world,
      "algorithm=ddp",
      "precision=bfloat16",
      `model={${model}}`,
      ...set
    ])
    const { result } = yield* runScenario(scenario, file, { loader })
    return {
      stepSeconds: metricOf(result, "stepSeconds"),
      estimates: result.estimates,
      warnings: result.warnings
    }
  })
const run = (model: string, ...set: ReadonlyArray<string>) => Effect.runPromise(prepared(model, ...set))
const refusal = async (model: string): Promise<string> =>
  String(await Effect.runPromise(Effect.flip(prepared(model))))

describe("a described model calibrated by one measured step", () => {
  for (const [name, described] of Object.entries(sizes)) {
    it(`takes that step, and is told to be calibrated: ${name}`, async () => {
      const plain = (await run(described)).stepSeconds
      const result = await run(`${described}, measured: {stepSeconds: ${1.5 * plain}}`)
      expect(result.stepSeconds / plain).toBeCloseTo(1.5, 9)
      expect(result.estimates[0]!.detail).toMatch(/^calibrated: 1\.500 times its estimate/)
      expect(result.warnings.join()).not.toContain("the measured step is")
    })
  }

  it("is scaled alike on another batch and context than were measured", async () => {
    const of = (batch: number, context: number): string =>
      sizes.gpt2.replace("batch: 4", `batch: ${batch}, context: ${context}`)
    const [small, large] = [await run(of(4, 512)), await run(of(16, 1024))]
    const measured = `measured: {stepSeconds: ${2 * small.stepSeconds}, batch: 4, context: 512}`
    expect((await run(`${of(16, 1024)}, ${measured}`)).stepSeconds / large.stepSeconds).toBeCloseTo(2, 9)
  })

  it("refuses a step that is shorter than its products at peak rate, and warns of one far from its estimate", async () => {
    // By hand: 6 FLOP for each token and weight of a product: 12 width^2 a layer, and the logits of 50,257 tokens.
    const weights = 4 * 12 * 768 ** 2 + 50_257 * 768
    const least = (6 * weights * 4 * 1024) / 989e12
    const step = (seconds: number): string => `${sizes.gpt2}, measured: {stepSeconds: ${seconds}}`
    expect(await refusal(step(0.99 * least))).toMatch(
      /model\.measured\.stepSeconds.*expected at least .*peak rate of NVIDIA H100/u
    )
    const short = await run(step(1.01 * least))
    expect(short.warnings.join()).toMatch(/the measured step is 0\.\d+ times its estimate/)
    expect(await refusal(`${sizes.gpt2}, measured: {stepSeconds: 10ms, batch: 4000}`)).toContain(
      "measured.batch"
    )
    expect((await run(step(1))).warnings.join()).toMatch(/the measured step is \d+\.?\d* times/)
  })
})

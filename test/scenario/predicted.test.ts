// What `sim run` predicts of a described model is what the same model of real kernels then does: every byte on every tier of
// links, and every byte of a rank's memory but for its text, whatever is divided, accumulated or computed again and in which precision.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { layerDtypeOf } from "../../scenarios/families/data-parallel/training-settings.ts"
import { prepareTraining } from "../../scenarios/families/data-parallel/kernels.ts"
import { prepare } from "../../scenarios/families/data-parallel/prepare.ts"
import { Loader } from "../../scenarios/load.ts"
import { hostOf } from "../../sim/run.ts"
import { agreementScenario } from "../../testing/check-agreement.ts"
import { decodeScenario } from "../../testing/scenario.ts"
import { run } from "../simulate/simulated.ts"

const file = "predicted.yaml"

interface Ended {
  readonly ranks: ReadonlyArray<{ readonly peakBytes: { readonly device: number } }>
  readonly links: ReadonlyArray<{ readonly tier: string; readonly bytes: number }>
}

const heldIn = ({ ranks }: Ended): number => Math.max(...ranks.map(({ peakBytes }) => peakBytes.device))

const sentIn = ({ links }: Ended) =>
  Object.fromEntries(
    ["intra", "inter", "wan"].map((tier) => [
      tier,
      links.filter((link) => link.tier === tier).reduce((sum, { bytes }) => sum + bytes, 0)
    ])
  )

it("predicts bytes on links and in memory to the last one", () => {
  const seen = { parts: 0, narrow: 0, sent: 0 }
  fc.assert(
    fc.property(
      agreementScenario({ maxSteps: 1 }),
      fc.constantFrom("float32" as const, "bfloat16" as const),
      fc.constantFrom("last" as const, "each" as const),
      (drawn, precision, synchronize) => {
        const training = { ...drawn.training, precision, synchronize }
        const scenario = decodeScenario({ ...drawn, precision, training })
        const prepared = Effect.runSync(prepare(scenario, file, hostOf(new Loader())))
        const { world, planned, build, graph, corpus } = Effect.runSync(
          prepareTraining(scenario, file, new Loader())
        )
        const { simulable, totalSteps, shard } = prepared
        const { groups = [], costs } = simulable
        const predicted = run({ world, groups, costs, program: simulable.program })
        const real = run({ world, groups, program: planned.program(build, totalSteps) })
        expect(sentIn(real)).toEqual(sentIn(predicted))
        // Real kernels have a text, batches and a loss; those of a profile a token of order for each layer.
        const numbers = corpus.train.chunkTokens + corpus.heldOut.length + 2 * graph.inputs[0]!.elements
        const losses = drawn.training?.accumulate === undefined ? 1 : 2
        expect(heldIn(real) - heldIn(predicted)).toBe(4 * (numbers + losses - graph.layers.length - 2))
        if (shard !== undefined && shard.ranks > 1) seen.parts++
        if (layerDtypeOf(scenario.training!) !== "float32") seen.narrow++
        if (Math.max(...Object.values(sentIn(real))) > 0) seen.sent++
      }
    ),
    { numRuns: 16 }
  )
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(2)
})

it.each([
  ["float32", "bfloat16", undefined],
  ["bfloat16", "bfloat16", undefined],
  ["bfloat16", "float16", "bfloat16"],
  ["float16", "float32", "float16"]
] as const)("layers that read %s are gathered in %s, or not", (precision, parameterDtype, accepted) => {
  const scenario = decodeScenario({
    name: "gathered",
    model: { gpt2: { layers: 2, width: 8, heads: 2, vocabulary: 64, context: 4, batch: 1 } },
    world: { ranks: 2 },
    algorithm: { name: "s-sgd" },
    shard: { within: "world", parameterDtype },
    training: { precision }
  })
  const prepared = Effect.runSync(Effect.result(prepareTraining(scenario, file, new Loader())))
  expect(Result.isFailure(prepared) ? prepared.failure.message : undefined).toEqual(
    accepted &&
      `${file}: shard.parameterDtype: ${parameterDtype} is not accepted; expected ${accepted}, in which layers read parameters (training.precision)`
  )
})

// A decoded token is made by ops that were prepared before it: so many tokens more prepare none, in serving and with experts in
// host memory, on the executor's machine.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { expertOffload } from "../../core/algorithms/expert-offload/program.ts"
import type { CacheSettings } from "../../core/algorithms/kv-serving/methods.ts"
import { serve } from "../../core/algorithms/kv-serving/serve.ts"
import type { Program } from "../../core/machine/machine.ts"
import { oneRank } from "../../core/world.ts"
import { execute } from "../../exec/execute.ts"
import { strategyOf } from "../expert-offload/facts.ts"
import { tinyModel } from "../kv-serving/tiny-llama.ts"
import { describeNative } from "../native/addon.ts"

/** Kernels of the ops that a run prepares, and how often it submits. */
const opsOf = async (program: Program<unknown>) => {
  const prepared: Array<string> = []
  const { ranks } = await Effect.runPromise(
    execute({
      world: oneRank,
      program,
      prepare: (_, { kernel }) => {
        prepared.push(kernel.name)
        return undefined
      }
    })
  )
  return { prepared, submitted: ranks[0]!.ops }
}

const serving =
  (settings: CacheSettings) =>
  (tokens: number): Program<unknown> =>
    serve({
      model: tinyModel(),
      settings,
      requests: [0, 1, 2].map((id) => ({ id, arrivalSeconds: 0, promptTokens: 6, outputTokens: tokens })),
      maxBatch: 3
    })

const offloading = (tokens: number): Program<unknown> => {
  const { ffnWidth, width, heads, kvHeads, vocabulary } = tinyModel()
  const model = { layers: 2, experts: 3, topK: 2, gated: true, normalize: true, dtype: "float32" as const }
  return expertOffload({
    model: { ...model, ffnWidth, width, heads, kvHeads, vocabulary },
    workload: { batch: 2, promptTokens: 4, prefill: true, decodeTokens: tokens },
    strategy: () => strategyOf({ name: "lru" }, { shape: model, calls: [] }, { slots: 3 }),
    writeBack: "none",
    seed: 1
  })
}

const shot = { name: "shotkv", keep: 0.5, window: 2, shot: 2 } as const

describeNative("a decoded token", () => {
  for (const [what, program, least] of [
    ["of a full cache", serving({ name: "full" }), 40],
    [
      "of a cache whose layers keep different numbers",
      serving({ name: "pyramidkv", budget: 3, window: 1, kernel: 1, pooling: "avg", beta: 2 }),
      40
    ],
    ["of a cache that gives tokens up", serving({ ...shot, decodeKeep: 0.5 }), 40],
    ["of a model with offloaded experts", offloading, 40]
  ] as const) {
    it(`${what} prepares no op`, async () => {
      const few = await opsOf(program(12))
      const many = await opsOf(program(60))
      expect(many.submitted - few.submitted).toBeGreaterThanOrEqual(48 * least)
      expect(many.prepared.toSorted()).toEqual(few.prepared.toSorted())
    })
  }
})

// What a scenario computes again: the simulator predicts by how many bytes real kernels then hold less, and what would read
// parameters that are given back is refused by both.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { recordRun } from "../../exec/record-run.ts"
import { prepareTraining, runnableOf } from "../../scenarios/families/data-parallel/kernels.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { describeNative } from "../native/addon.ts"

const file = fileURLToPath(new URL("../../scenarios/agree/recompute.yaml", import.meta.url))

const loaded = (...sets: ReadonlyArray<string>) =>
  Effect.map(loadScenario(file, sets), (scenario) => scenario as DataParallelScenario)

const simulated = (...sets: ReadonlyArray<string>) =>
  Effect.flatMap(loaded(...sets), (scenario) =>
    Effect.map(runScenario(scenario, file, { loader: new Loader() }), ({ result }) => result)
  )

const real = (...sets: ReadonlyArray<string>) =>
  Effect.flatMap(loaded(...sets), (scenario) =>
    Effect.map(prepareTraining(scenario, file, new Loader()), runnableOf)
  )

const choices = ["none", "attention", "block"] as const

/** What `sim run` says that a rank holds, and what the fullest rank of real kernels held. */
const heldBytes = async (...sets: ReadonlyArray<string>) => {
  const { details } = await Effect.runPromise(simulated(...sets))
  const { memory } = details as { memory: { heldBytes: number; parts: { activations: number } } }
  const { executed } = await Effect.runPromise(
    Effect.flatMap(real(...sets), ({ world, program }) =>
      recordRun({ world, program: program(), backend: "cpu" })
    )
  )
  const peak = Math.max(...executed.ranks.map(({ peakBytes }) => peakBytes.device))
  return { predicted: memory.parts.activations, all: memory.heldBytes, peak }
}

describeNative("memory of real kernels", () => {
  it("is what is predicted, beside the text: in parts, of several micro-batches, computed again", async () => {
    const beside = new Set<number>()
    for (const shard of ["{within: world}", "{within: world, parameters: false}", "{within: node}"])
      // All of these with each other, without a device: predicted.test.ts.
      for (const [accumulate, synchronize, recompute] of [
        [1, "last", "none"],
        [2, "each", "block"]
      ] as const) {
        const { all, peak } = await heldBytes(
          `shard=${shard}`,
          // Each rank holds a whole model in a node of its own.
          ...(shard === "{within: node}" ? ["world.ranksPerNode=1"] : []),
          `training.accumulate=${accumulate}`,
          `training.synchronize=${synchronize}`,
          `activations.recompute=${recompute}`,
          "training.optimizer=adamw",
          "precision=float32"
        )
        // The loss of a step, where each pass has its own.
        beside.add(peak - all - (accumulate === 1 ? 0 : 4))
      }
    expect(beside.size).toBe(1)
  })

  it("has what the optimizer keeps: two numbers of each parameter, one or none", async () => {
    const beside = new Set<number>()
    const kept: Array<number> = []
    for (const optimizer of ["adamw", "{name: sgd, momentum: 0.9}", "sgd"]) {
      const { all, peak } = await heldBytes(
        `training.optimizer=${optimizer}`,
        "training.accumulate=1",
        "precision=float32"
      )
      beside.add(peak - all)
      kept.push(all)
    }
    expect(beside.size).toBe(1)
    expect(kept[0]! - kept[1]!).toBe(kept[1]! - kept[2]!)
    expect(kept[1]!).toBeGreaterThan(kept[2]!)
  })
})

describeNative("what is computed again, on the simulator and for real", () => {
  it.each(["float32", "bfloat16"])("is as many bytes less: %s", async (dtype) => {
    const held: Array<Awaited<ReturnType<typeof heldBytes>>> = []
    for (const recompute of choices) {
      const sets = [
        `activations.recompute=${recompute}`,
        `precision=${dtype}`,
        `training.precision=${dtype}`,
        "training.accumulate=1"
      ]
      held.push(await heldBytes(...sets))
    }
    const [none, ...less] = held
    for (const { predicted, peak } of less) {
      expect(predicted).toBeLessThan(none!.predicted)
      expect(none!.peak - peak).toBe(none!.predicted - predicted)
    }
  })
})

describe("blocks that are computed again", () => {
  const refusals = async (...sets: ReadonlyArray<string>) => {
    const told: Array<string> = []
    for (const run of [simulated(...sets), real(...sets)]) {
      const result = await Effect.runPromise(Effect.result(run as Effect.Effect<unknown, unknown>))
      told.push(Result.isFailure(result) ? String(result.failure) : "ran")
    }
    return told
  }
  const refused = expect.stringContaining("activations.recompute: block is not accepted")

  it("must have all their parameters at once", async () => {
    expect(await refusals("shard.units=layer")).toEqual([refused, refused])
    // One block has no siblings, so that its layers are gathered one by one.
    expect(await refusals("model.llama.layers=1")).toEqual([refused, refused])
    for (const enough of [
      ["activations.recompute=attention"],
      ["shard.reshardAfterForward=false"],
      ["shard.parameters=false"]
    ])
      expect(await refusals("shard.units=layer", ...enough)).toEqual(["ran", "ran"])
    expect(await refusals("shard.units=model")).toEqual(["ran", "ran"])
  })
})

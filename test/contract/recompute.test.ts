// Activation recomputation with real kernels, on every machine: what is computed again is what was dropped, so that what is learnt
// is the same to the bit, whole or in parts, with several micro-batches; in fewer bytes, as many as the simulator counts.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import type { Accumulation } from "../../core/algorithms/data-parallel/accumulation.ts"
import type { ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import type { LayerGraph } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { mixtral } from "../../core/models/mixtral.ts"
import type { Recompute } from "../../core/models/recompute.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { fsdp, shardStages } from "../training/shard-stages.ts"
import { tinyModel } from "../training/tiny.ts"
import { assembled, trained, simulatedPeaks } from "./learnt.ts"
import { describeContract, runOn } from "./machines.ts"
import { plannedInParts } from "../training/in-parts.ts"

// Long enough for activations to be most of what is held.
const sizes = { layers: 3, width: 8, heads: 2, vocabulary: 11, context: 48, batch: 2 }
const steps = 2

type Dtype = "float32" | "bfloat16"

const graphs: Readonly<Record<string, (dtype: Dtype) => LayerGraph>> = {
  gpt2: (dtype) => gpt2({ ...sizes, activationDtype: dtype, parameterDtype: dtype }),
  llama: (dtype) =>
    llama({
      ...sizes,
      kvHeads: 1,
      ffnWidth: 12,
      tied: false,
      activationDtype: dtype,
      parameterDtype: dtype
    }),
  mixtral: (dtype) =>
    mixtral({
      ...sizes,
      kvHeads: 1,
      ffnWidth: 6,
      experts: 3,
      topK: 2,
      tied: false,
      activationDtype: dtype,
      parameterDtype: dtype
    })
}

const world = makeWorld([{ name: "site", nodes: [2] }], unlimitedLinks)

interface Choice {
  readonly graph: LayerGraph
  readonly choices?: ShardChoices | undefined
  readonly accumulation?: Accumulation | undefined
}

const programOf = ({ graph, choices, accumulation }: Choice, recompute: Recompute) => {
  const { shard, planned } = plannedInParts({ name: "ddp" }, graph, world, choices)
  return trained(tinyModel(graph, { shard, accumulation, recompute }), steps, (build) =>
    planned.program(build, steps)
  )
}

describeContract("activation recomputation", (machine) => {
  /** What is learnt and the most bytes of a rank, which are held to the simulator's. */
  const learnt = async (choice: Choice, recompute: Recompute) => {
    const program = programOf(choice, recompute)
    const { ranks } = await runOn(machine, world, program)
    const peaks = ranks.map(({ peakBytes }) => peakBytes)
    expect(peaks).toEqual(simulatedPeaks(world, program))
    const { losses, heldOut } = ranks[0]!.value
    return { values: { losses, heldOut, parameters: assembled(ranks) }, bytes: peaks[0]!.device }
  }

  it.each(Object.entries(graphs))(
    "learns the same to the bit in fewer bytes: %s",
    async (_, graphOf) => {
      for (const dtype of ["float32", "bfloat16"] as const) {
        const choice = { graph: graphOf(dtype) }
        const none = await learnt(choice, "none")
        const attention = await learnt(choice, "attention")
        const block = await learnt(choice, "block")
        const whole = await learnt(choice, "whole-block")
        expect(attention.values).toEqual(none.values)
        expect(block.values).toEqual(none.values)
        expect(whole.values).toEqual(none.values)
        expect(attention.bytes).toBeLessThan(none.bytes)
        expect(block.bytes).toBeLessThan(attention.bytes)
        expect(whole.bytes).toBeGreaterThanOrEqual(block.bytes)
        expect(whole.bytes).toBeLessThan(attention.bytes)
        expect(new Set(none.values.losses).size).toBe(steps)
      }
    },
    60_000
  )

  it("in parts and with several micro-batches, too", async () => {
    const stages = [...shardStages.map(([, choices]) => choices), { ...fsdp, prefetch: 0 }]
    const seen = new Set<string>()
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          model: fc.constantFrom(...Object.keys(graphs)),
          dtype: fc.constantFrom("float32" as const, "bfloat16" as const),
          stage: fc.option(fc.nat({ max: stages.length - 1 }), { nil: undefined }),
          synchronize: fc.option(fc.constantFrom("last" as const, "each" as const), { nil: undefined }),
          recompute: fc.constantFrom("attention" as const, "block" as const, "whole-block" as const)
        }),
        async ({ model, dtype, stage, synchronize, recompute }) => {
          const choice = {
            graph: graphs[model]!(dtype),
            choices: stage === undefined ? undefined : stages[stage],
            accumulation: synchronize && { microBatches: 2, synchronize }
          }
          const without = await learnt(choice, "none")
          const again = await learnt(choice, recompute)
          expect(again.values).toEqual(without.values)
          expect(again.bytes).toBeLessThan(without.bytes)
          seen.add(`stage ${stage}`).add(`synchronize ${synchronize}`).add(recompute)
        }
      ),
      { numRuns: 24 }
    )
    expect([...seen].filter((one) => one.startsWith("stage")).length).toBeGreaterThan(3)
    expect([...seen].filter((one) => one.startsWith("synchronize")).length).toBe(3)
  })
})

// Ways to divide a model, at random, and a profile of blocks to divide.
import * as fc from "fast-check"
import type { ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import type { Profile } from "../../core/profile.ts"

const stages: fc.Arbitrary<Pick<ShardChoices, "parameters" | "gradients">> = fc.constantFrom(
  { parameters: true, gradients: true },
  { parameters: false, gradients: true },
  { parameters: false, gradients: false }
)

export const choices: fc.Arbitrary<ShardChoices> = fc
  .record({
    stage: stages,
    units: fc.constantFrom("block", "layer", "model"),
    reshardAfterForward: fc.boolean(),
    prefetch: fc.integer({ min: 0, max: 3 }),
    copies: fc.boolean()
  })
  .map(({ stage, ...more }) => ({ ...stage, ...more, reduceDtype: "float32" as const }))

/** A transformer-like profile: embedding, blocks of two layers, a head. */
export const profileOf = (blocks: number, width: number): Profile => {
  const phase = { busySeconds: 1e-3, spanSeconds: 1e-3 }
  const names = [
    "m.embed",
    ...Array.from({ length: blocks }, (_, b) => [`m.h.${b}.attn`, `m.h.${b}.mlp`]).flat(),
    "m.head"
  ]
  return {
    name: "profile",
    device: "",
    source: "",
    steps: 1,
    stepSeconds: 1,
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: 1,
    unattributedShare: 0,
    layers: names.map((name) => ({ name, forward: phase, backward: phase, optimizer: phase })),
    parameters: names
      .flatMap((_, layer) => [
        { layer, shape: [width, width + layer], dtype: "float32" },
        { layer, shape: [width], dtype: "float32" }
      ])
      .toReversed(),
    ops: [],
    collectives: []
  }
}

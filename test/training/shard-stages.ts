// What of a model is divided, by the names that people know.
import type { ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"

export const fsdp: ShardChoices = {
  units: "block",
  parameters: true,
  gradients: true,
  reshardAfterForward: true,
  prefetch: 1,
  reduceDtype: "float32",
  copies: false
}

export const shardStages: ReadonlyArray<readonly [string, ShardChoices]> = [
  ["FSDP", fsdp],
  ["FSDP2, which copies", { ...fsdp, copies: true }],
  ["FSDP that keeps parameters", { ...fsdp, reshardAfterForward: false }],
  ["ZeRO-2", { ...fsdp, parameters: false }],
  ["ZeRO-1", { ...fsdp, parameters: false, gradients: false }]
]

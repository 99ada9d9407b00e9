// Knobs of what a rank holds: activations, models in parts, and what is saved.
import type { Knob } from "./shared-knobs.ts"

const whole = "layers: 12, width: 768, heads: 12"

/** `described` is a model by its architecture, which needs a `device`; `profile` one that was measured. */
export const memoryKnobs = (described: string, device: string, profile: string): ReadonlyArray<Knob> => [
  ["activations.by", "eager", "autocast", described, device],
  ["activations.recompute", "none", "block", described, device, "activations={by: eager}"],
  ["activations.recompute", "none", "attention", described, device, "activations={by: eager}"],
  ["activations.recompute", "none", "block", described, device, "activations={by: fused}"],
  ["activations.recompute", "attention", "block", described, device, "activations={by: fused}"],
  ["activations.recompute", "block", "whole-block", described, device, "activations={by: eager}"],
  ["activations.by", "fused", "eager", described, device, "activations={recompute: block}"],
  ["model.recorded.batch", "4", "8", profile, `activations={of: {gpt2: {${whole}, batch: 4}}}`],
  ["model.recorded.context", "1024", "512", profile, `activations={of: {gpt2: {${whole}, batch: 4}}}`],
  ["activations.of", `{gpt2: {${whole}, batch: 4}}`, `{gpt2: {${whole}, batch: 8}}`, profile],
  [
    "activations.gradientAsBucketView",
    "false",
    "true",
    profile,
    "algorithm=ddp",
    `activations={of: {gpt2: {${whole}, batch: 4}}}`
  ],
  ["activations.output", "held", "dropped", profile, `activations={of: {gpt2: {${whole}, batch: 4}}}`],
  ["activations.output", "held", "dropped", described, device, "activations={by: eager}"],
  ["activations.output", "held", "dropped", described, device, "activations={by: fused}"],
  ["shard.within", "node", "site", "shard={}"],
  ["shard.parameters", "true", "false", "shard={}"],
  ["shard.gradients", "true", "false", "shard={parameters: false}"],
  ["shard.optimizer", "true", "false", "shard={}"],
  ["shard.reshardAfterForward", "true", "false", "shard={}"],
  ["shard.reshardAfterForward", "true", "false", "shard={parameters: false}"],
  ["shard.prefetch", "0", "1", "shard={}", "world.links.intra.bandwidth=1GB/s"],
  ["shard.prefetch", "0", "1", "shard={reshardAfterForward: false}"],
  ["shard.units", "block", "model", "shard={}"],
  ["shard.parameterDtype", "float32", "bfloat16", "shard={}"],
  ["shard.reduceDtype", "float32", "bfloat16", "shard={}"],
  ["shard.copies", "false", "true", "shard={}"],
  ["shard.copies", "false", "true", "shard={parameters: false}"],
  ["shard.within", "site", "world", "shard={}", "world.sites=1"],
  ["shard.within", "node", "site", "shard={}", "world.ranksPerNode=4"],
  ["shard.units", "block", "layer", "shard={}"],
  ["shard.units", "block", "layer", described, device, "shard={}"],
  ["shard.prefetch", "5", "9", "shard={}"],
  ["shard.prefetch", "0", "2", "shard={}", "model={layers: 1, parameters: 1e6, stepSeconds: 10ms}"],
  ["shard.prefetch", "0", "1", "shard={}", "model={layers: 1, parameters: 1e6, stepSeconds: 10ms}"],
  ["shard.reduceDtype", "float32", "bfloat16", "shard={within: node}", "world.ranksPerNode=1"],
  ["algorithm.wire", "float32", "bfloat16", "shard={within: world}"],
  ["algorithm.wire", "float32", "bfloat16", "shard={}", "world.sites=1"],
  ["checkpoint.every", "2", "4", "checkpoint={every: 2}"],
  ["checkpoint.hostLink.bandwidth", "1GB/s", "2GB/s", "checkpoint={every: 2}"],
  ["checkpoint.hostLink.latency", "1ms", "2ms", "checkpoint={every: 2, hostLink: {bandwidth: 1GB/s}}"],
  ["checkpoint.storage.bandwidth", "1GB/s", "2GB/s", "checkpoint={every: 2}"],
  ["checkpoint.storage.sharedBy", "node", "job", "checkpoint={every: 2, storage: {bandwidth: 1GB/s}}"],
  ...["rank", "node", "site"].map((by): Knob => [
    "checkpoint.storage.sharedBy",
    by,
    "job",
    `world={ranks: ${by === "rank" ? 1 : 2}, ranksPerNode: ${by === "node" ? 2 : 1}}`,
    "checkpoint={every: 2, storage: {bandwidth: 1GB/s}}"
  ])
]

// What a scenario of data-parallel training says: the task every scenario has that names no other.
import * as Schema from "effect/Schema"
import type { HostWork } from "../../host.ts"
import { Positive, withDefault } from "../../../core/fields.ts"
import {
  CollectiveSettings,
  commonFields,
  DeviceSettings,
  FaultSettings,
  HostSettings,
  Jitter,
  MemorySettings,
  ModelSettings,
  NetworkModel,
  Path,
  WorldSettings
} from "../../sections.ts"
import { DataParallelSettings } from "../../../core/algorithms/data-parallel/algorithms.ts"
import { ActivationSettings } from "./activation-settings.ts"
import { CheckpointSettings } from "./checkpoint-settings.ts"
import { ShardSettings } from "./shard-settings.ts"
import { TrainingSettings } from "./training-settings.ts"

/** A scenario of data-parallel training; docs/scenarios.md has its fields. */
export const DataParallelScenario = Schema.Struct({
  task: withDefault(Schema.Literal("data-parallel"), "data-parallel"),
  ...commonFields,
  model: ModelSettings,
  world: WorldSettings,
  /** `algorithm: ddp` is short for `algorithm: {name: ddp}`. */
  algorithm: DataParallelSettings,
  /** What a step keeps for its backward pass; default: as a described model's kernels do. */
  activations: Schema.optionalKey(ActivationSettings),
  /** The model in parts over the ranks of a node, a site or the world; the algorithm is then between those who hold the same part. */
  shard: Schema.optionalKey(ShardSettings),
  network: NetworkModel,
  collectives: withDefault(CollectiveSettings, {}),
  device: Schema.optionalKey(DeviceSettings),
  /** What launches, collectives and hooks cost the host, beside what a profile's spans hold. Default: nothing. */
  host: Schema.optionalKey(HostSettings),
  /** What products and attention of a described model are computed in (autocast); all else counts four bytes a number. */
  precision: withDefault(Schema.Literals(["bfloat16", "float16", "float32"]), "bfloat16"),
  /**
   * Whose kernels a described model runs: this project's, fused; or those of PyTorch in eager mode, in 16 bits throughout (as under
   * FSDP with a 16-bit `param_dtype`) or under autocast, which read and write memory one after another.
   */
  kernels: withDefault(Schema.Literals(["fused", "eager", "autocast"]), "fused"),
  /**
   * A profile with timed kernels, for a described model and for what is no layer of a profile. Default: those of the model's
   * profile; otherwise, for a device that has a name, the shipped ones of an H200, carried over by peak rates.
   */
  costs: Schema.optionalKey(Path),
  /** Parameters, gradients and optimizer state count, and activations of a model described by its architecture. */
  memory: Schema.optionalKey(MemorySettings),
  /** Steps measured after the warm-up; rounded up to whole periods of the algorithm. Default: one period, at least 8. */
  steps: Schema.optionalKey(Positive),
  /** All ranks save what they must find again, every so many steps. Default: never. */
  checkpoint: Schema.optionalKey(CheckpointSettings),
  faults: withDefault(Schema.Array(FaultSettings), []),
  jitter: Jitter,
  /** What is learnt and how, when the model is really trained. */
  training: Schema.optionalKey(TrainingSettings)
})
export type DataParallelScenario = typeof DataParallelScenario.Type

/** What the host has not to do: no program of this task reads. */
export const hostNever = ["read", "copy"] as const satisfies ReadonlyArray<HostWork>

// What a scenario says of a model divided among ranks: ZeRO's stages, FSDP, HSDP.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { divide } from "../../../core/algorithms/data-parallel/shard/groups.ts"
import { planShards, type ShardPlan } from "../../../core/algorithms/data-parallel/shard/plan.ts"
import { withDefault } from "../../../core/fields.ts"
import { InputError } from "../../../core/input-error.ts"
import type { World } from "../../../core/world.ts"

const ShardDtype = Schema.Literals(["float32", "bfloat16", "float16"])

export const ShardSettings = Schema.Struct({
  /** Who holds the model together: the ranks of each node, of each site, or all. */
  within: withDefault(Schema.Literals(["node", "site", "world"]), "site"),
  /** ZeRO-3, FSDP. Only with gradients. */
  parameters: withDefault(Schema.Boolean, true),
  /** ZeRO-2. Only with the optimizer's state. */
  gradients: withDefault(Schema.Boolean, true),
  /** ZeRO-1: whatever is divided, the optimizer's state is. */
  optimizer: withDefault(Schema.Literal(true), true),
  /** A block's parameters are given back after its forward pass and gathered again for its backward pass. */
  reshardAfterForward: withDefault(Schema.Boolean, true),
  /** Units that are gathered ahead of the one that computes. */
  prefetch: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 64 })), 1),
  /** What is gathered at once: each block, and the root for all else; each layer; or the whole model. */
  units: withDefault(Schema.Literals(["block", "layer", "model"]), "block"),
  /** Dtype that parameters are gathered and kept gathered in. Default: the dtype that layers read them in. */
  parameterDtype: Schema.optionalKey(ShardDtype),
  /** Dtype that gradients are summed in. */
  reduceDtype: withDefault(ShardDtype, "float32")
})
export type ShardSettings = typeof ShardSettings.Type

/** The plan for a model of layers with these module paths. `file` is the scenario's path. */
export const resolveShards = (
  settings: ShardSettings,
  world: World,
  names: ReadonlyArray<string>,
  file: string
): Result.Result<ShardPlan, InputError> => {
  const { within, optimizer: _, ...choices } = settings
  const refuse = (field: string, value: unknown, accepted: string) =>
    Result.fail(new InputError({ file, field: `shard.${field}`, value: String(value), accepted }))
  if (choices.parameters && !choices.gradients)
    return refuse("gradients", choices.gradients, "true where parameters are divided, or parameters: false")
  const division = divide(world, within)
  if ("sizes" in division)
    return refuse(
      "within",
      `${within} (${[...new Set(division.sizes)].join(", ")} ranks)`,
      `${within}s of equally many ranks`
    )
  return Result.succeed(planShards(names, division, choices))
}

// What a scenario says of a model divided among ranks: ZeRO's stages, FSDP, HSDP.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { divide } from "../../../core/algorithms/data-parallel/shard/groups.ts"
import { planShards, type ShardPlan } from "../../../core/algorithms/data-parallel/shard/plan.ts"
import { blocksOf } from "../../../core/algorithms/data-parallel/blocks.ts"
import { withDefault } from "../../../core/fields.ts"
import { InputError } from "../../../core/input-error.ts"
import type { Estimate } from "../../../core/cost/provenance.ts"
import type { World } from "../../../core/world.ts"
import type { ModelSettings } from "../../sections.ts"

const ShardDtype = Schema.Literals(["float32", "bfloat16", "float16"])

const usualPrefetch = 1

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
  prefetch: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 64 })), usualPrefetch),
  /** What is gathered at once: each block, and the root for all else; each layer; or the whole model. */
  units: withDefault(Schema.Literals(["block", "layer", "model"]), "block"),
  /** Dtype that parameters are gathered and kept gathered in. Default: the dtype that layers read them in. */
  parameterDtype: Schema.optionalKey(ShardDtype),
  /** Dtype that gradients are summed in. */
  reduceDtype: withDefault(ShardDtype, "float32"),
  /** What is gathered and what is summed is copied out of one buffer and into one, as FSDP2 does. */
  copies: withDefault(Schema.Boolean, false)
})
export type ShardSettings = typeof ShardSettings.Type

/** What changes nothing for this model, whose layers have these module paths. */
export const shardPlanWarnings = (
  { units, prefetch, parameters, reshardAfterForward, division }: ShardPlan,
  names: ReadonlyArray<string>
): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  if (units === "layer" && blocksOf(names).every((block) => block === undefined))
    warnings.push('shard.units "layer" is "block" here: the model\'s layers are in no blocks')
  const passing = division.filter(({ root }) => !root).length
  const most = Math.max(passing - 1, 0)
  // Units that stay gathered, and one unit, are a matter of the scenario alone.
  if (
    parameters &&
    reshardAfterForward &&
    units !== "model" &&
    prefetch !== usualPrefetch &&
    (prefetch > most || most === 0)
  )
    warnings.push(
      `shard.prefetch has no effect beyond ${most}: ${passing === 1 ? "one unit is" : `${passing} units are`} gathered and given back`
    )
  return warnings
}

/** What a profile has of whole layers, and nobody measured of a part of them. */
export const partEstimates = (
  { model }: { readonly model: ModelSettings },
  shard: ShardPlan | undefined
): ReadonlyArray<Estimate> =>
  shard === undefined || shard.ranks === 1 || !("profile" in model)
    ? []
    : [
        {
          kernel: "optimizer's step",
          source: "scaled",
          detail: `a rank's part takes the device 1/${shard.ranks} of the profile's time for the whole model`
        }
      ]

/** What a world allows that cannot be divided within its nodes, or its sites. */
const otherDivisions = (world: World, within: ShardSettings["within"]): string =>
  [
    ...(within === "node" && world.sites.length > 1 && !("sizes" in divide(world, "site"))
      ? ["within: site"]
      : []),
    "within: world",
    "no shard, for whole models"
  ].join(", or ")

/** The plan for a model of layers with these module paths, of which some may share a weight. `file` is the scenario's path. */
export const resolveShards = (
  settings: ShardSettings,
  world: World,
  names: ReadonlyArray<string>,
  sharing: ReadonlyArray<ReadonlyArray<number>>,
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
      `${within}s of equally many ranks, since a part is averaged with the same part of every other ${within}; or ${otherDivisions(world, within)}`
    )
  return Result.succeed(planShards(names, division, choices, sharing))
}

// Tiny models divided over ranks: how they are divided, and what an algorithm plans for them.
import { divide, type Division } from "../../core/algorithms/data-parallel/shard/groups.ts"
import {
  dividedProfile,
  planShards,
  type ShardChoices
} from "../../core/algorithms/data-parallel/shard/plan.ts"
import { sharingLayers, type LayerGraph } from "../../core/models/layer-graph.ts"
import type { World } from "../../core/world.ts"
import type { AlgorithmInput } from "../../testing/algorithm.ts"
import { plan } from "../simulate/simulated.ts"
import { tinyProfile } from "./tiny.ts"

export const divided = (world: World, within: "node" | "site" | "world"): Division => {
  const division = divide(world, within)
  if ("sizes" in division) throw new Error("uneven")
  return division
}

/** The algorithm's plan for a model of real kernels; without `choices` the model is whole. */
export const plannedInParts = (
  algorithm: AlgorithmInput,
  graph: LayerGraph,
  world: World,
  choices: ShardChoices | undefined,
  within: "site" | "world" = "world"
) => {
  const names = graph.layers.map(({ name }) => name)
  const shard = choices && planShards(names, divided(world, within), choices, sharingLayers(graph))
  const profile = tinyProfile(graph)
  return { shard, planned: plan(algorithm, shard ? dividedProfile(profile, shard) : profile, world).planned }
}

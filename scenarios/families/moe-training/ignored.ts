// Fields of a scenario of MoE training that change nothing for the layers, world and algorithm it chooses.
import { moeAlgorithmNamed } from "../../../core/algorithms/moe-training/algorithms.ts"
import type { RunFacts } from "../../family.ts"
import {
  efficiencyWarnings,
  faultWarnings,
  hostMemoryWarnings,
  hostWarnings,
  seedWarnings,
  slipWarnings,
  worldWarnings
} from "../../ignored.ts"
import { nodesOf } from "../../world.ts"
import { hostNever, shippedBetween, type MoeTrainingScenario } from "./scenario.ts"

/** Whether it is what a scenario has that says nothing of it, or nothing. */
export const isUsual = (between: MoeTrainingScenario["costs"]["between"]): boolean =>
  "profile" in between ? between.profile === shippedBetween : Object.keys(between).length === 0

const costWarnings = (
  { between, inside, portShare, slowdown, wait }: MoeTrainingScenario["costs"],
  nodes: number,
  perNode: number,
  algorithm: MoeTrainingScenario["algorithm"]["name"]
): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  if (portShare !== undefined) {
    if (perNode === 1)
      warnings.push(
        "costs.portShare has no effect: there is one rank on each node, so no collective inside it"
      )
    else if (moeAlgorithmNamed(algorithm).lanes === "two")
      warnings.push(`costs.portShare has no effect: with ${algorithm} collectives take turns`)
    else if (portShare <= 0.5)
      warnings.push("costs.portShare has no effect: two collectives at once need no more than the port has")
  }
  if (slowdown !== undefined && nodes * perNode === 1)
    warnings.push("costs.slowdown has no effect: there is one rank")
  if (wait !== undefined && nodes * perNode === 1)
    warnings.push("costs.wait has no effect: there is one rank")
  if (nodes === 1 && !isUsual(between)) warnings.push("costs.between has no effect: there is one node")
  if (perNode === 1 && Object.keys(inside).length > 0)
    warnings.push("costs.inside has no effect: there is one rank on each node")
  else if (nodes > 1 && "all_reduce" in inside)
    warnings.push("costs.inside.all_reduce has no effect: gradients are summed between nodes")
  for (const [tier, settings] of Object.entries({ between, inside })) {
    if ("profile" in settings) continue
    for (const [op, line] of Object.entries(settings)) {
      if (line.unit === "bytes" && line.dtype !== "float32")
        warnings.push(`costs.${tier}.${op}.dtype has no effect: bytes are bytes in any`)
      if (line.scope === "node" && perNode === 1)
        warnings.push(`costs.${tier}.${op}.scope has no effect: there is one rank on each node`)
    }
  }
  return warnings
}

export const ignored = (scenario: MoeTrainingScenario, facts?: RunFacts): ReadonlyArray<string> => {
  const { model, routing, seed, jitter, world } = scenario
  const dropless = model.capacityFactor === "dropless"
  const drawn = dropless && routing !== undefined && "skew" in routing && routing.skew > 0
  const warnings: Array<string> = [
    ...worldWarnings(world, { algorithm: "ring" }),
    ...faultWarnings(scenario.faults, world, facts)
  ]
  if (routing !== undefined && !dropless) {
    warnings.push(
      "routing has no effect: every expert has a capacity, and rows are padded to it (model.capacityFactor)"
    )
  }
  if (model.gate !== "x-moe" && model.gateWidth !== 16) {
    warnings.push(`model.gateWidth has no effect: the gate is ${model.gate}`)
  }
  const { costs, algorithm, learningRate } = scenario
  const nodes = nodesOf(world).flat()
  // Those of unlike numbers of ranks are refused.
  warnings.push(...costWarnings(costs, nodes.length, nodes[0]!, algorithm.name))
  if (
    "degrees" in algorithm &&
    algorithm.forwardDegree !== undefined &&
    algorithm.backwardDegree !== undefined
  ) {
    if (algorithm.degrees.join() !== "1,2,4,8")
      warnings.push("algorithm.degrees has no effect: both degrees are given")
    if (algorithm.planner !== "cases")
      warnings.push("algorithm.planner has no effect: both degrees are given")
  }
  if (learningRate !== undefined)
    warnings.push(
      "learningRate changes what is learnt, not how long it takes: with any, a step has an update"
    )
  warnings.push(
    ...slipWarnings("costs.wait", costs.wait, ", longer than any waits for multiprocessors"),
    ...hostMemoryWarnings(scenario.memory),
    ...hostWarnings(scenario.host, hostNever(scenario)),
    ...efficiencyWarnings(scenario.device, facts)
  )
  warnings.push(
    ...seedWarnings(seed, drawn || jitter > 0, "nothing is random while jitter is 0 and no routing is drawn")
  )
  return warnings
}

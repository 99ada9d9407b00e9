// Serving simulated with values for tests: weights and prompts behind the tensors' names.
import { disaggregated } from "../../core/algorithms/kv-serving/disaggregated.ts"
import { serve, serveThroughHost } from "../../core/algorithms/kv-serving/serve.ts"
import type { Finished, ServingOutcome, ServingPlan } from "../../core/algorithms/kv-serving/server.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import type { Simulation, SimulationResult } from "../../sim/simulate.ts"
import { flatWorld, run } from "../simulate/simulated.ts"
import type { Weights } from "./tiny-llama.ts"

export const places = ["here", "host", "node"] as const
export type Place = (typeof places)[number]

export const programs = { here: serve, host: serveThroughHost, node: disaggregated } as const

/** Initial values of weights and prompts. */
export const valuesOf =
  (weights: Weights, prompts: ReadonlyArray<ReadonlyArray<number>>) =>
  (_rank: number, { name }: { readonly name: string }): TensorData | undefined => {
    const id = /^request (\d+) prompt$/.exec(name)?.[1]
    return id === undefined ? weights.get(name) : Int32Array.from(prompts[Number(id)]!)
  }

export const simulated = (
  plan: ServingPlan,
  place: Place,
  options: Partial<Simulation<ServingOutcome>> = {}
): SimulationResult<ServingOutcome> =>
  run({
    world: flatWorld(place === "node" ? 2 : 1),
    program: programs[place](plan),
    symmetric: false,
    ...options
  })

/** All requests that were finished, by id. */
export const finishedOf = (result: SimulationResult<ServingOutcome>): ReadonlyArray<Finished> =>
  result.ranks.flatMap(({ value }) => value.finished).toSorted((a, b) => a.request.id - b.request.id)

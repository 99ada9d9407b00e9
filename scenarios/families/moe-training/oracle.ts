// The simulator as a planner's oracle: the pipelined part of one layer, simulated for a degree and a gradient's time, links,
// ports and all.
import * as Effect from "effect/Effect"
import type { PipelineOracle } from "../../../core/algorithms/moe-training/planning.ts"
import { makeDensePart } from "../../../core/algorithms/moe-training/attention.ts"
import { moeGroups } from "../../../core/algorithms/moe-training/groups.ts"
import {
  capacityOf,
  sharesOf,
  type MoeModel,
  type MoeRole
} from "../../../core/algorithms/moe-training/model.ts"
import { makeMoePart } from "../../../core/algorithms/moe-training/moe-part.ts"
import { submitPipelined } from "../../../core/algorithms/moe-training/pipelined.ts"
import type { LaneUse } from "../../../core/algorithms/moe-training/plan/pipeline.ts"
import { Tensors } from "../../../core/algorithms/moe-training/tensors.ts"
import { repack } from "../../../core/kernels/moe-order.ts"
import { Lane } from "../../../core/machine/lane.ts"
import { Machine, type Program } from "../../../core/machine/machine.ts"
import { launch } from "../../../core/machine/op.ts"
import type { CostModel } from "../../../core/cost/cost-model.ts"
import type { CollectiveOptions } from "../../../core/wire/legs.ts"
import type { World } from "../../../core/world.ts"
import type { Simulator } from "../../runnable.ts"

/** What `planner: simulation` simulates with. */
interface OracleOptions {
  readonly model: MoeModel
  readonly world: World
  readonly costs: CostModel
  readonly collectives: CollectiveOptions
  readonly network: "fluid" | "alpha-beta"
}

const gradientRole = { kind: "gradient" } satisfies MoeRole

/** The pipelined part alone, with an op of its own where the gradient would be; experts are chosen equally often. */
const pipelinePart = (
  model: MoeModel,
  degree: number,
  other: number,
  pass: "forward" | "backward",
  lanes: LaneUse,
  withGradient: boolean
): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const groups = moeGroups(machine.world, machine.rank)
    const shares = sharesOf(model, groups.nodes, groups.perNode)
    const tensors = new Tensors(machine, model.dtype, model.seed)
    const intra = lanes === "three" ? Lane.intra : Lane.inter
    const input = yield* tensors.make("input", [shares.tokens, model.width])
    const doutput = yield* tensors.make("output gradient", [shares.tokens, model.width])
    const common = { tensors, model, shares, groups, intra }
    const dense = yield* makeDensePart({ ...common, label: "layer 0", input })
    const degrees = { forward: degree, backward: degree }
    const moe = yield* makeMoePart({ ...common, layer: 0, inter: Lane.inter, degrees, input: dense.output })
    const capacity = capacityOf(model, shares, degree, other)
    const rows = capacity > 0 ? capacity : Math.ceil((shares.tokens * model.topK) / model.experts)
    const passes = yield* moe.passes(tensors, () => rows, doutput)
    const gradient = yield* tensors.make("gradient", [])
    submitPipelined(machine, passes[pass].chunks, lanes, {
      afterDispatch: () => {
        if (withGradient)
          machine.submit(launch("gradient", repack, Lane.inter, [gradient], [gradient], {}, gradientRole))
      },
      beforeCombine: () => undefined
    })
    yield* machine.drain
  })

export const pipelineOracle = (
  simulator: Simulator,
  { model, world, costs, collectives, network }: OracleOptions
): PipelineOracle => {
  const known = new Map<string, number>()
  return (pass, lanes, otherDegree) => (degree, gradientSeconds) => {
    const other = otherDegree ?? degree
    const key = `${pass} ${lanes} ${degree} ${other} ${gradientSeconds}`
    let seconds = known.get(key)
    if (seconds === undefined) {
      const even: MoeModel = model.capacityFactor === "dropless" ? { ...model, capacityFactor: 1 } : model
      const run = simulator({
        world,
        program: pipelinePart(even, degree, other, pass, lanes, gradientSeconds > 0),
        costs: {
          seconds: (op) => (op.role === gradientRole ? gradientSeconds : costs.seconds(op)),
          estimates: []
        },
        network,
        collectives
      })
      known.set(key, (seconds = Effect.runSync(run).makespanSeconds))
    }
    return seconds
  }
}

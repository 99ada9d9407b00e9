// Ops are built once and submitted every step: a longer run has no more of them, with any algorithm and optimizer.
import { expect, it } from "vitest"
import { kernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import type { Optimizer } from "../../core/algorithms/data-parallel/optimizer.ts"
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"
import type { AlgorithmInput } from "../../testing/algorithm.ts"
import { distinctOps } from "../simulate/distinct-ops.ts"
import { flatWorld, plan } from "../simulate/simulated.ts"
import { tinyGraphs, tinyModel, tinyProfile } from "./tiny.ts"

const optimizers: ReadonlyArray<Optimizer> = [
  { name: "adamw", learningRate: 0.01, schedule: { warmupSteps: 3, decayUntilStep: 9, finalShare: 0.1 } },
  { name: "sgd", learningRate: 0.01, momentum: 0.9 }
]
const variants: ReadonlyArray<AlgorithmInput> = [
  ...dataParallelNames.map((name): AlgorithmInput => ({ name })),
  { name: "ddp", deadline: "next-use" },
  { name: "dreamddp", deadline: "next-use", order: "step-then-average" },
  { name: "diloco", overlap: true }
]

it("no algorithm builds more ops for more steps", () => {
  const graph = tinyGraphs.gpt2
  const world = flatWorld(2)
  for (const optimizer of optimizers) {
    for (const variant of variants) {
      const short = { fragments: 2, period: 4 }
      const { name } = variant
      const settings =
        name === "streaming-diloco"
          ? { ...variant, ...short }
          : name === "s-sgd" || name === "ddp"
            ? variant
            : { ...variant, period: short.period }
      const { planned } = plan(settings as AlgorithmInput, tinyProfile(graph), world)
      const count = (steps: number) =>
        distinctOps({ world, program: planned.program(kernelModel(tinyModel(graph, { optimizer })), steps) })
      const [some, more] = [count(8), count(24)]
      expect(more.submitted).toBeGreaterThan(2.5 * some.submitted)
      expect(more.ops, `${name} with ${optimizer.name}`).toBe(some.ops)
    }
  }
})

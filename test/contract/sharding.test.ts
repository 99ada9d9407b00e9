// A model of real kernels in parts, on every machine: what it learns is what the whole model learns there, bit for bit where its
// sums keep their order, and the memory it takes is what the simulator says, to the byte.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernelModel, type KernelModel } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import type { ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { llama } from "../../core/models/llama.ts"
import { makeWorld, unlimitedLinks, type World } from "../../core/world.ts"
import type { AlgorithmInput } from "../../testing/algorithm.ts"
import { fsdp, shardStages } from "../training/shard-stages.ts"
import { tinyModel } from "../training/tiny.ts"
import { simulatedPeaks } from "./learnt.ts"
import { describeContract, runOn } from "./machines.ts"
import { plannedInParts } from "../training/in-parts.ts"

const sizes = {
  layers: 3,
  width: 8,
  heads: 2,
  kvHeads: 1,
  ffnWidth: 12,
  vocabulary: 11,
  context: 5,
  batch: 2,
  tied: false
}

const graphOf = (dtype: "float32" | "bfloat16") =>
  llama({ ...sizes, activationDtype: dtype, parameterDtype: dtype })

interface Learnt {
  readonly losses: ReadonlyArray<number>
  /** What the rank has of each place, by name. */
  readonly parts: ReadonlyArray<readonly [name: string, offset: number, elements: number, part: TensorData]>
}

const steps = 4

/** The algorithm on that model, and what each rank has learnt. */
const programOf = (
  world: World,
  algorithm: AlgorithmInput,
  dtype: "float32" | "bfloat16",
  choices: ShardChoices | undefined,
  within: "site" | "world"
): Program<Learnt> => {
  const graph = graphOf(dtype)
  const { shard, planned } = plannedInParts(algorithm, graph, world, choices, within)
  return Effect.gen(function* () {
    const machine = yield* Machine
    let model: KernelModel | undefined
    const losses: Array<number> = []
    const build = Effect.tap(kernelModel(tinyModel(graph, { shard, optimizer })), (built) =>
      Effect.sync(() => (model = built))
    )
    yield* observed(build, (watched) => planned.program(watched, steps), {
      everySteps: 1,
      onLoss: (_, __, loss) => losses.push(loss)
    })
    const parts: Array<Learnt["parts"][number]> = []
    for (const { name, shape, layer, learnt, offset } of model!.places) {
      const elements = shape.reduce((product, extent) => product * extent, 1)
      parts.push([name, offset, elements, yield* machine.read(model!.layers[layer]!.parameters[learnt]!)])
    }
    return { losses, parts }
  })
}

const optimizer = { name: "adamw", learningRate: 0.02, decays: "matrices", weightDecay: 0.1 } as const

/** Every parameter, of the parts that these ranks hold. */
const assembled = (ranks: ReadonlyArray<{ readonly value: Learnt }>) =>
  ranks[0]!.value.parts.map(([name, offset, elements], place) => {
    const whole = ranks.flatMap(({ value }) => [...value.parts[place]![3]])
    return [name, whole.slice(offset, offset + elements)] as const
  })

describeContract("a model in parts", (machine) => {
  const one = makeWorld([{ name: "site", nodes: [3] }], unlimitedLinks)

  it.each(shardStages)("learns what the whole model learns, bit for bit: %s", async (_, choices) => {
    const whole = await runOn(machine, one, programOf(one, { name: "s-sgd" }, "float32", undefined, "world"))
    const program = programOf(one, { name: "s-sgd" }, "float32", choices, "world")
    const { ranks } = await runOn(machine, one, program)
    expect(ranks.map(({ value }) => value.losses)).toEqual(whole.ranks.map(({ value }) => value.losses))
    expect(assembled(ranks)).toEqual(assembled([whole.ranks[0]!]))
    // In as many bytes as the simulator counts.
    expect(ranks.map(({ peakBytes }) => peakBytes)).toEqual(simulatedPeaks(one, program))
  })

  it("learns the same in two sites, whose replicas are averaged now and then", async () => {
    const two = makeWorld(
      [
        { name: "a", nodes: [2] },
        { name: "b", nodes: [2] }
      ],
      unlimitedLinks
    )
    const algorithm: AlgorithmInput = { name: "diloco", period: 2 }
    const inParts = async (choices: ShardChoices) =>
      (await runOn(machine, two, programOf(two, algorithm, "float32", choices, "site"))).ranks
    const first = await inParts(fsdp)
    // Both sites hold the same after an outer step, and whatever is divided they hold the same.
    expect(assembled(first.slice(2))).toEqual(assembled(first.slice(0, 2)))
    for (const [, choices] of shardStages.slice(2)) {
      const ranks = await inParts(choices)
      expect(assembled(ranks.slice(0, 2))).toEqual(assembled(first.slice(0, 2)))
    }
  })

  it("gathers narrow copies of what is learnt in float32", async () => {
    const whole = await runOn(machine, one, programOf(one, { name: "s-sgd" }, "bfloat16", undefined, "world"))
    const { ranks } = await runOn(machine, one, programOf(one, { name: "s-sgd" }, "bfloat16", fsdp, "world"))
    // The whole model sums gradients in bfloat16, the one in parts in float32: near, and not the same.
    const [mine, theirs] = [ranks[0]!.value.losses, whole.ranks[0]!.value.losses]
    expect(mine[0]).toBe(theirs[0])
    for (const [step, loss] of mine.entries()) expect(Math.abs(loss - theirs[step]!)).toBeLessThan(0.03)
  })
})

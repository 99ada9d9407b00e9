// Models of real kernels in parts, at random: shared weights, layers of unlike sizes, one block. What they learn is what the whole
// model learns: bit for bit, or, where gradients are clipped, as near as the rounding of each part's norm.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { requireOwn } from "../../core/algorithms/data-parallel/shard/places.ts"
import { planShards, type ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { unitsOf } from "../../core/algorithms/data-parallel/shard/units.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { launch } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import { sharingLayers, type LayerGraph } from "../../core/models/layer-graph.ts"
import { llama } from "../../core/models/llama.ts"
import { mixtral } from "../../core/models/mixtral.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { assembled, trained } from "../contract/learnt.ts"
import { execute, run } from "../simulate/simulated.ts"
import { divided, plannedInParts } from "./in-parts.ts"
import { accumulations } from "./rule-instances.ts"
import { choices } from "./shard-choices.ts"
import { fsdp, shardStages } from "./shard-stages.ts"
import { tinyModel } from "./tiny.ts"

const world = makeWorld([{ name: "site", nodes: [2] }], unlimitedLinks)

const models = fc.record({
  architecture: fc.constantFrom("gpt2", "llama", "mixtral"),
  layers: fc.integer({ min: 1, max: 2 }),
  headWidth: fc.constantFrom(4, 6),
  ffnWidth: fc.integer({ min: 2, max: 12 }),
  tied: fc.boolean()
})

const graphOf = ({
  architecture,
  headWidth,
  ...more
}: typeof models extends fc.Arbitrary<infer M> ? M : never): LayerGraph => {
  const sizes = { layers: more.layers, width: 2 * headWidth, heads: 2, vocabulary: 11, context: 5, batch: 2 }
  const decoder = { ...sizes, ...more, kvHeads: 1, activationDtype: "float32" as const }
  if (architecture === "llama") return llama(decoder)
  return architecture === "gpt2" ? gpt2(decoder) : mixtral({ ...decoder, experts: 3, topK: 2 })
}

const steps = 2
const floats = ["float32", "bfloat16", "float16"] as const

describe("a model of real kernels in parts", () => {
  it("learns what the whole model learns, whatever is divided", () => {
    const seen = { shared: 0, layers: 0, clipped: 0 }
    fc.assert(
      fc.property(
        fc.record({
          model: models,
          choices,
          clipNorm: fc.constantFrom(undefined, 0.05),
          accumulation: accumulations.filter((one) => one?.synchronize !== "each")
        }),
        ({ model, choices, ...more }) => {
          const graph = graphOf(model)
          const learnt = (divided: ShardChoices | undefined) => {
            const { shard, planned } = plannedInParts({ name: "s-sgd" }, graph, world, divided)
            const optimizer = { name: "sgd", learningRate: 0.3, momentum: 0.9 } as const
            const options = tinyModel(graph, { shard, optimizer, ...more })
            const program = trained(options, steps, (build) => planned.program(build, steps))
            const { ranks } = run({ world, program, values: () => undefined })
            const { losses, heldOut } = ranks[0]!.value
            return { losses, heldOut, parameters: assembled(shard === undefined ? [ranks[0]!] : ranks) }
          }
          const near = (values: ReadonlyArray<number>) => values.map((x) => expect.closeTo(x, 5) as number)
          const { losses, heldOut, parameters } = learnt(undefined)
          expect(learnt(choices)).toEqual(
            more.clipNorm === undefined
              ? { losses, heldOut, parameters }
              : {
                  losses: near(losses),
                  heldOut: near([heldOut])[0],
                  parameters: parameters.map(([name, values]) => [name, near(values)])
                }
          )
          const names = graph.layers.map(({ name }) => name)
          const byLayer = unitsOf(names, choices.units).every(({ layers }) => layers.length === 1)
          if (byLayer && sharingLayers(graph).length > 0) seen.shared++
          if (byLayer) seen.layers++
          if (more.clipNorm !== undefined) seen.clipped++
        }
      ),
      { numRuns: 20 }
    )
    expect(seen.shared).toBeGreaterThan(2)
    expect(seen.layers).toBeGreaterThan(4)
    expect(seen.clipped).toBeGreaterThan(4)
  })

  it("learns float32 numbers whatever they are gathered in, the same in every stage", () => {
    const sizes = { layers: 2, width: 8, heads: 2, vocabulary: 11, context: 5, batch: 2 }
    const graph = gpt2({ ...sizes, activationDtype: "float32" })
    const learnt = (choices: ShardChoices, learningRate: number) => {
      const { shard, planned } = plannedInParts({ name: "s-sgd" }, graph, world, choices)
      const options = tinyModel(graph, { shard, optimizer: { name: "sgd", learningRate } })
      const program = trained(options, steps, (build) => planned.program(build, steps))
      const { ranks } = run({ world, program, values: () => undefined })
      return { losses: ranks[0]!.value.losses, parameters: assembled(ranks) }
    }
    const begun = learnt(fsdp, 0).parameters
    for (const parameterDtype of ["bfloat16", "float16"] as const) {
      const { losses, parameters } = learnt({ ...fsdp, parameterDtype }, 0.3)
      for (const [stage, choices] of shardStages) {
        const told = `${stage}, gathered in ${parameterDtype}`
        expect(learnt({ ...choices, parameterDtype }, 0.3), told).toEqual({ losses, parameters })
        expect(learnt({ ...choices, parameterDtype }, 0).parameters, told).toEqual(begun)
      }
    }
  })

  it.each(floats.flatMap((dtype) => floats.map((reduceDtype) => [dtype, reduceDtype] as const)))(
    "sums gradients of %s in %s",
    (dtype, reduceDtype) => {
      const sizes = { layers: 1, width: 8, heads: 2, vocabulary: 11, context: 5, batch: 2 }
      const graph = gpt2({ ...sizes, activationDtype: dtype, parameterDtype: dtype })
      const { shard, planned } = plannedInParts({ name: "s-sgd" }, graph, world, { ...fsdp, reduceDtype })
      const program = trained(tinyModel(graph, { shard }), 1, (build) => planned.program(build, 1))
      const { journals } = execute({ world, program, values: () => undefined }).execution
      const sums = journals![0]!.entries.flatMap((entry) =>
        entry.kind === "op" && entry.op.kernel.name === "reduce_scatter" ? [entry.op] : []
      )
      expect(sums.length).toBeGreaterThan(4)
      for (const { attributes, reads } of sums)
        expect(attributes["wire"] ?? reads[0]!.dtype).toBe(reduceDtype)
    }
  )

  it("has layers that share a weight in one unit, and refuses them in two", () => {
    const names = ["m.embed", "m.h.0.a", "m.h.1.a", "m.head"]
    const plan = (...sharing: ReadonlyArray<ReadonlyArray<number>>) =>
      planShards(names, divided(world, "world"), { ...fsdp, units: "layer" }, sharing)
    expect(plan([0, 3]).division.map(({ name, layers, root }) => [name, layers, root])).toEqual([
      ["root", [0, 3], true],
      ["m.h.0.a", [1], false],
      ["m.h.1.a", [2], false]
    ])
    const tensor = (name: string) => ({ name }) as unknown as Tensor
    const whole = names.map((name) => ({ parameters: [tensor(name)], gradients: [tensor(`${name} grad`)] }))
    const use = (read: Tensor, write: Tensor) =>
      launch("use", kernels.barrier, Lane.compute, [read, write], [])
    const opsOf = (forward: number, backward: number) =>
      names.map((_, layer) => ({
        forward: layer === 3 ? [use(whole[forward]!.parameters[0]!, whole[forward]!.parameters[0]!)] : [],
        backward: layer === 3 ? [use(whole[backward]!.parameters[0]!, whole[backward]!.gradients[0]!)] : []
      }))
    const refusal = /use uses m\.embed(?: grad)? of another unit, m\.embed: layers that share a weight/u
    expect(() => requireOwn(plan(), whole, opsOf(0, 3))).toThrow(refusal)
    expect(() => requireOwn(plan(), whole, opsOf(3, 0))).toThrow(refusal)
    expect(() => requireOwn(plan([0, 3]), whole, opsOf(0, 0))).not.toThrow()
  })
})

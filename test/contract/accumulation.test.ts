// Gradient accumulation of real kernels, on every machine: several micro-batches learn what one batch of all of them learns, a
// model in parts what the whole model learns, in as many bytes as the simulator counts.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import type { Accumulation } from "../../core/algorithms/data-parallel/accumulation.ts"
import type { Optimizer } from "../../core/algorithms/data-parallel/optimizer.ts"
import type { ShardChoices } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { interpose } from "../../core/machine/interpose.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { llama } from "../../core/models/llama.ts"
import { makeWorld, unlimitedLinks } from "../../core/world.ts"
import { flatWorld, plan } from "../simulate/simulated.ts"
import { fsdp, shardStages } from "../training/shard-stages.ts"
import { tinyModel, tinyProfile } from "../training/tiny.ts"
import { assembled, trained, type Learnt, simulatedPeaks } from "./learnt.ts"
import { describeContract, runOn } from "./machines.ts"
import { plannedInParts } from "../training/in-parts.ts"

// Batches of as many tokens as views in an arena are aligned to.
const [batch, context, microBatches, steps] = [2, 32, 3, 3]

const graphOf = (rows: number, length: number, dtype: "float32" | "bfloat16" = "float32") =>
  llama({
    layers: 2,
    width: 8,
    heads: 2,
    kvHeads: 1,
    ffnWidth: 12,
    vocabulary: 11,
    context: length,
    batch: rows,
    tied: true,
    activationDtype: dtype,
    parameterDtype: dtype
  })

/** Micro-batches are the rows of the larger batch, in order, that one step would draw. */
const drawnTogether = (program: Program<Learnt>): Program<Learnt> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const parts = (name: string) =>
      Effect.gen(function* () {
        const shape = [microBatches * batch, context]
        const arena = yield* machine.alloc({ name, shape, dtype: "int32" })
        const parts = yield* Effect.forEach(Array.from({ length: microBatches }).keys(), (index) => {
          const within = { arena, offsetBytes: 4 * index * batch * context }
          return machine.alloc({ name: `${name} ${index}`, shape: [batch, context], dtype: "int32", within })
        })
        return { arena, parts }
      })
    const drawn = [yield* parts("all tokens"), yield* parts("all targets")] as const
    const arenas = drawn.map(({ arena }) => arena)
    const together = interpose(machine, {
      submit: (op, scalars) => {
        if (op.label !== "batch") return machine.submit(op, scalars)
        const index = scalars![0]!
        const attributes = { ...op.attributes, batch: microBatches * batch }
        if (index % microBatches === 0)
          machine.submit(launch("draw", kernels.token_windows, Lane.compute, op.reads, arenas, attributes), [
            index / microBatches
          ])
        const take = (i: 0 | 1) =>
          machine.submit(
            launch(
              "take",
              kernels.copy,
              Lane.compute,
              [drawn[i].parts[index % microBatches]!],
              [op.writes[i]!]
            )
          )
        take(0)
        return take(1)
      }
    })
    return yield* Effect.provideService(program, Machine, together)
  })

const optimizers: ReadonlyArray<Optimizer> = [
  { name: "sgd", learningRate: 0.1, momentum: 0.9 },
  // Differences of rounding in a gradient near 0 stay as small in the step that it makes.
  { name: "adamw", learningRate: 0.02, epsilon: 1e-3 }
]

/** Float32 sums in another order, over a few steps. Set before anything was run. */
const tolerance = 1e-5

const expectNear = (one: ReadonlyArray<number>, other: ReadonlyArray<number>): void => {
  expect(one.length).toBe(other.length)
  for (const [i, value] of one.entries()) expect(Math.abs(value - other[i]!)).toBeLessThan(tolerance)
}

const valuesOf = (ranks: ReadonlyArray<{ readonly value: Learnt }>) =>
  assembled(ranks).flatMap(([, values]) => values)

describeContract("gradient accumulation", (machine) => {
  it.each(optimizers)("learns what one step of all batches learns: $name", async (optimizer) => {
    const one = flatWorld(1)
    const learnt = async (rows: number, accumulation: Accumulation | undefined) => {
      const graph = graphOf(rows, context)
      const { planned } = plan({ name: "ddp" }, tinyProfile(graph), one)
      const program = trained(tinyModel(graph, { optimizer, accumulation }), steps, (build) =>
        planned.program(build, steps)
      )
      return (await runOn(machine, one, accumulation === undefined ? program : drawnTogether(program))).ranks
    }
    const whole = await learnt(microBatches * batch, undefined)
    const summed = await learnt(batch, { microBatches, synchronize: "last" })
    expectNear(valuesOf(summed), valuesOf(whole))
    expectNear(summed[0]!.value.losses, whole[0]!.value.losses)
    // It has learnt something.
    expect(new Set(whole[0]!.value.losses).size).toBe(steps)
  })

  const world = makeWorld([{ name: "site", nodes: [2] }], unlimitedLinks)

  /** DDP's run, in parts or whole, and what the simulator says that it takes. */
  const inParts = async (
    choices: ShardChoices | undefined,
    synchronize: Accumulation["synchronize"],
    dtype: "float32" | "bfloat16" = "float32"
  ) => {
    const graph = graphOf(batch, 5, dtype)
    const { shard, planned } = plannedInParts({ name: "ddp" }, graph, world, choices)
    const accumulation = { microBatches, synchronize }
    const program = trained(
      tinyModel(graph, { shard, accumulation, optimizer: optimizers[0]! }),
      steps,
      (build) => planned.program(build, steps)
    )
    const { ranks } = await runOn(machine, world, program)
    expect(ranks.map(({ peakBytes }) => peakBytes)).toEqual(simulatedPeaks(world, program))
    return ranks
  }

  it("of a model in parts is that of the whole model, whenever gradients travel", async () => {
    const whole = await inParts(undefined, "last")
    const each = await inParts(undefined, "each")
    expectNear(valuesOf([each[0]!]), valuesOf([whole[0]!]))
    for (const [, choices] of shardStages) {
      const last = await inParts(choices, "last")
      expect(assembled(last)).toEqual(assembled([whole[0]!]))
      expect(last.map(({ value }) => value.losses)).toEqual(whole.map(({ value }) => value.losses))
      expect(last[0]!.value.heldOut).toBe(whole[0]!.value.heldOut)
      expectNear(valuesOf(await inParts(choices, "each")), valuesOf([whole[0]!]))
    }
  })

  it("sums narrower gradients in float32, in parts or not", async () => {
    const whole = await inParts(undefined, "last", "bfloat16")
    // Local means are of the same numbers, so that parts lose nothing.
    expect(assembled(await inParts(fsdp, "last", "bfloat16"))).toEqual(assembled([whole[0]!]))
  })
})

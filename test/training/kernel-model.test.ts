// Models of real kernels in a simulation that carries values: their gradients are those of their loss, and every
// data-parallel algorithm trains them.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { wholeCorpus } from "../../core/algorithms/data-parallel/corpus.ts"
import { dataParallelNames } from "../../core/algorithms/data-parallel/algorithms.ts"
import {
  kernelModel,
  type KernelModel,
  type KernelModelOptions
} from "../../core/algorithms/data-parallel/kernel-model.ts"
import { observed } from "../../core/algorithms/data-parallel/observe.ts"
import { submitAll } from "../../core/algorithms/data-parallel/training-model.ts"
import { learningRateAt } from "../../core/algorithms/data-parallel/optimizer.ts"
import { assertLaws } from "../../core/laws/laws.ts"
import { Machine } from "../../core/machine/machine.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import type { LayerGraph } from "../../core/models/layer-graph.ts"
import type { AlgorithmInput } from "../../testing/algorithm.ts"
import { numbers } from "../kernels/run.ts"
import { execute, flatWorld, plan, run } from "../simulate/simulated.ts"
import { learnable, narrowGraph, tinyGraphs, tinyModel, tinyProfile } from "./tiny.ts"

/** Loss and gradients of one forward and backward pass, by parameter. */
const gradientsOf = (options: KernelModelOptions, values: ReadonlyMap<string, TensorData>) => {
  const gradients = new Map<string, TensorData>()
  const simulated = run({
    world: flatWorld(1),
    values: (_, tensor) => values.get(tensor.name),
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const model = yield* kernelModel(options)
      submitAll(machine, model.begin(0))
      for (const { forward } of model.layers) for (const op of forward) machine.submit(op)
      for (const { backward } of model.layers.toReversed()) for (const op of backward) machine.submit(op)
      for (const { parameters, gradients: own } of model.layers) {
        for (const [index, { name }] of parameters.entries())
          gradients.set(name, yield* machine.read(own[index]!))
      }
      return (yield* machine.read(model.loss))[0]!
    })
  })
  return { loss: simulated.ranks[0]!.value, gradients }
}

describe("the gradients of a model are those of its loss", () => {
  for (const [name, graph] of Object.entries(tinyGraphs)) {
    it(name, () => {
      const options = tinyModel(graph)
      const next = numbers(5)
      const values = new Map<string, TensorData>()
      for (const { parameters } of graph.layers) {
        for (const parameter of parameters) {
          values.set(
            parameter.name,
            Float32Array.from({ length: parameter.elements }, () => 0.7 * next())
          )
        }
      }
      const { loss, gradients } = gradientsOf(options, values)
      expect(loss).toBeGreaterThan(1)
      const step = 4e-3
      let moved = 0
      for (const [parameter, value] of values) {
        const gradient = gradients.get(parameter)!
        // The gradient's own direction finds what is missing from it, another one what it has too little of.
        const random = Float64Array.from(gradient, () => next())
        for (const direction of [Float64Array.from(gradient), random]) {
          const length = Math.hypot(...direction)
          if (length < 1e-6) continue
          const at = (sign: number) =>
            gradientsOf(
              options,
              new Map(values).set(
                parameter,
                value.map((x, i) => x + (sign * step * direction[i]!) / length)
              )
            ).loss
          const slope = (at(1) - at(-1)) / (2 * step)
          let expected = 0
          for (let i = 0; i < direction.length; i++) expected += (gradient[i]! * direction[i]!) / length
          // float32 rounds a loss of about 3 by 1e-7 in several places: 1e-4 of slope; curvature gives as much
          expect(Math.abs(slope - expected), parameter).toBeLessThan(1e-3 + 0.01 * Math.abs(expected))
          if (Math.abs(expected) > 0.02) moved++
        }
      }
      expect(moved).toBeGreaterThan(values.size)
    })
  }
})

/** Trains a tiny model; training losses and held-out losses by rank and step, and the parameters at the end. */
const train = (
  graph: LayerGraph,
  name: (typeof dataParallelNames)[number],
  settings: object,
  steps: number,
  options: Partial<KernelModelOptions> = {}
) => {
  const ranks = 2
  const world = flatWorld(ranks, { bytesPerSecond: 1e6, latencySeconds: 1e-4 })
  const { planned } = plan({ name, ...settings }, tinyProfile(graph), world)
  const losses: Array<{ rank: number; step: number; loss: number }> = []
  const evaluated: typeof losses = []
  let model: KernelModel | undefined
  const { simulated, execution } = execute({
    world,
    values: () => undefined,
    program: observed(
      Effect.tap(kernelModel(tinyModel(graph, options)), (built) => Effect.sync(() => (model = built))),
      (build) => planned.program(build, steps),
      {
        everySteps: 1,
        onLoss: (rank, step, loss) => losses.push({ rank, step, loss }),
        evaluation: {
          everySteps: steps,
          lastStep: steps,
          batches: 3,
          onLoss: (rank, step, loss) => evaluated.push({ rank, step, loss })
        }
      }
    )
  })
  assertLaws(execution)
  const parameters = Array.from({ length: ranks }, (_, rank) =>
    model!.layers.flatMap((layer) =>
      layer.parameters.map((parameter) => [...simulated.values!.of(rank, parameter)])
    )
  )
  return { losses, evaluated, parameters }
}

describe("every data-parallel algorithm trains a tiny GPT-2", () => {
  const settings: Partial<Record<(typeof dataParallelNames)[number], object>> = {
    "local-sgd": { period: 4 },
    "partial-local-sgd": { period: 4 },
    dreamddp: { period: 4 },
    diloco: { period: 4, outerLearningRate: 0.7, outerMomentum: 0.5 },
    "streaming-diloco": { period: 4, fragments: 4, delaySteps: 0, wire: "float32" }
  }
  for (const name of dataParallelNames) {
    it(name, () => {
      const steps = 32
      const { losses, evaluated, parameters } = train(tinyGraphs.gpt2, name, settings[name] ?? {}, steps)
      expect(losses.length).toBe(2 * steps)
      const mean = (from: number, to: number) => {
        const some = losses.filter(({ step }) => step >= from && step <= to)
        return some.reduce((sum, { loss }) => sum + loss, 0) / some.length
      }
      // log 11 = 2.40 at first
      expect(Math.abs(mean(1, 1) - Math.log(11))).toBeLessThan(0.1)
      expect(mean(29, 32)).toBeLessThan(1.6)
      expect(evaluated.length).toBe(2)
      expect(evaluated[0]!.loss).toBeLessThan(1.6)
      // These end with the same parameters on every rank, to the last bit.
      if (name === "s-sgd" || name === "ddp" || name === "local-sgd" || name === "diloco")
        expect(parameters[1]).toEqual(parameters[0])
    })
  }

  it("and is evaluated at last on what it has learnt, updates that wait for a next step included", () => {
    const lossesOf = (name: (typeof dataParallelNames)[number], settings: object) =>
      train(tinyGraphs.gpt2, name, settings, 3).evaluated.map(({ loss }) => loss)
    expect(lossesOf("ddp", { deadline: "next-use" })).toEqual(lossesOf("ddp", {}))
    const [one, other] = lossesOf("diloco", { period: 3 })
    expect(one).toBe(other)
  })

  it("and draws the same batches whatever the algorithm", () => {
    const first = (name: (typeof dataParallelNames)[number]) => train(tinyGraphs.gpt2, name, {}, 1).losses
    expect(first("ddp")).toEqual(first("s-sgd"))
    expect(first("s-sgd").map(({ rank }) => rank)).toEqual([0, 1])
    expect(new Set(first("s-sgd").map(({ loss }) => loss)).size).toBe(2)
  })
})

describe("a model of real kernels", () => {
  it("trains with a Mixtral-style graph and SGD with momentum", () => {
    const { losses } = train(tinyGraphs.mixtral, "ddp", {}, 32, {
      optimizer: { name: "sgd", learningRate: 0.3, momentum: 0.9, weightDecay: 1e-3 }
    })
    expect(losses.at(-1)!.loss).toBeLessThan(2)
  })

  it.each([1, 300, 2000])("sends as many bytes in each of DDP's buckets as is planned: %d", (bucketBytes) => {
    const graph = tinyGraphs.gpt2
    const world = flatWorld(2)
    const settings = { name: "ddp", bucketBytes, firstBucketBytes: bucketBytes } as const
    const { planned } = plan(settings, tinyProfile(graph), world)
    const program = planned.program(kernelModel(tinyModel(graph)), 1)
    const { journals } = execute({ world, program }).execution
    const sent = journals![0]!.entries.flatMap((entry) =>
      entry.kind === "op" && entry.op.label.startsWith("all-reduce")
        ? [entry.op.reads.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)]
        : []
    )
    expect(sent).toEqual(planned.describe().buckets!.map(({ sizeBytes }) => sizeBytes))
    expect(new Set(sent).size).toBeGreaterThan(1)
  })

  it("refuses to evaluate without held-out tokens", () => {
    expect(() =>
      run({
        world: flatWorld(1),
        program: Effect.map(kernelModel(tinyModel(tinyGraphs.gpt2, { heldOut: undefined })), (model) =>
          model.evaluate(0)
        )
      })
    ).toThrow(/no held-out tokens/)
  })

  it("begins with the loss of a uniform guess", () => {
    const { loss } = gradientsOf(
      tinyModel(tinyGraphs.llama, { corpus: wholeCorpus(learnable(50, 11, 3)) }),
      new Map()
    )
    expect(Math.abs(loss - Math.log(11))).toBeLessThan(0.05)
  })
})

describe("the learning rate", () => {
  it("rises to its peak and falls to its final share in straight lines", () => {
    const schedule = { warmupSteps: 4, decayUntilStep: 12, finalShare: 0.1 }
    const rate = (step: number) => learningRateAt({ name: "sgd", learningRate: 2, schedule }, step)
    expect([0, 1, 3, 4, 8, 12, 99].map(rate)).toEqual([0.5, 1, 2, 2, 2 * (0.1 + 0.9 * 0.5), 0.2, 0.2])
    expect(learningRateAt({ name: "sgd", learningRate: 2 }, 7)).toBe(2)
  })

  it("or falls as half a cosine", () => {
    const schedule = { warmupSteps: 4, decayUntilStep: 12, finalShare: 0.1, decay: "cosine" } as const
    const rate = (step: number) => learningRateAt({ name: "sgd", learningRate: 2, schedule }, step)
    // lr = min + (max - min) (1 + cos(pi t)) / 2, at t = 0, 1/4, 1/2 and 1 of the way down
    const at = (cosine: number) => expect.closeTo(0.2 + 1.8 * ((1 + cosine) / 2), 12) as number
    expect([3, 4, 6, 8, 12, 99].map(rate)).toEqual([2, at(1), at(Math.SQRT1_2), at(0), at(-1), at(-1)])
  })
})

describe("parameters narrower than float32", () => {
  const variants = [
    { name: "s-sgd" },
    { name: "local-sgd", period: 2 },
    { name: "dreamddp", period: 2, order: "step-then-average", deadline: "next-use" },
    { name: "dreamddp", period: 2 },
    { name: "diloco", period: 2 },
    { name: "streaming-diloco", period: 4, fragments: 2, delaySteps: 1, wire: "float32" }
  ] as const

  for (const { name, ...settings } of variants) {
    it(`are copies of what is learnt, in every forward pass: ${name} ${JSON.stringify(settings)}`, () => {
      const world = flatWorld(2)
      const { planned } = plan({ name, ...settings } as AlgorithmInput, tinyProfile(narrowGraph), world)
      const { simulated, execution } = execute({
        world,
        values: () => undefined,
        program: planned.program(kernelModel(tinyModel(narrowGraph)), 8)
      })
      assertLaws(execution)
      let [copies, moved] = [0, 0]
      for (const { rank, entries } of execution.journals ?? []) {
        const tensors = new Map(
          entries.flatMap((entry) =>
            entry.kind === "alloc" ? [[entry.tensor.name, entry.tensor] as const] : []
          )
        )
        for (const [own, shadow] of tensors) {
          if (!own.endsWith(" bfloat16")) continue
          const master = tensors.get(own.slice(0, -" bfloat16".length))!
          expect(master.dtype).toBe("float32")
          const values = simulated.values!.of(rank, master).slice()
          if (values.some((value, i) => value !== simulated.values!.of(rank, shadow)[i])) moved++
          roundInPlace(values, "bfloat16")
          expect([...simulated.values!.of(rank, shadow)], own).toEqual([...values])
          copies++
        }
      }
      expect(copies).toBe(2 * narrowGraph.layers.flatMap(({ parameters }) => parameters).length)
      // Masters hold what bfloat16 cannot: small steps do not get lost.
      expect(moved).toBeGreaterThan(copies / 2)
    })
  }
})

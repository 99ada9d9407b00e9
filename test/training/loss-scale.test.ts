// A scaled loss: what is learnt is what an unscaled one teaches, whatever trains; steps whose gradients overflow leave everything as it
// was and do not count; the scale falls and grows as torch.amp.GradScaler has it.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernelModel, type KernelModelOptions } from "../../core/algorithms/data-parallel/kernel-model.ts"
import { gpt2 } from "../../core/models/gpt2.ts"
import type { LayerGraph } from "../../core/models/layer-graph.ts"
import { lossScaling } from "../../core/models/loss-scale.ts"
import { algorithmChoice, type AlgorithmInput } from "../../testing/algorithm.ts"
import { execute, flatWorld, plan } from "../simulate/simulated.ts"
import { accumulations } from "./rule-instances.ts"
import { tinyGraphs, tinyModel, tinyProfile } from "./tiny.ts"

const usual = { initial: 1024, growthInterval: 2000, growthFactor: 2, backoffFactor: 0.5 }

/** What every rank's parameters, and what optimizers keep beside them, hold after so many steps, by name; and the scale. */
const taught = (
  graph: LayerGraph,
  options: Partial<KernelModelOptions>,
  steps: number,
  choice: AlgorithmInput = { name: "s-sgd" }
): ReadonlyArray<ReadonlyMap<string, ReadonlyArray<number>>> => {
  const world = flatWorld(2)
  const parameters = graph.layers.flatMap((layer) => layer.parameters.map(({ name }) => name))
  const kept = (name: string) =>
    name === lossScaling.name || parameters.some((own) => name === own || name.startsWith(`${own} `))
  const { planned } = plan(choice, tinyProfile(graph), world)
  const { simulated, execution } = execute({
    world,
    values: () => undefined,
    program: planned.program(kernelModel(tinyModel(graph, options)), steps)
  })
  return execution.journals!.map(
    ({ rank, entries }) =>
      new Map(
        entries.flatMap((entry) =>
          entry.kind === "alloc" && kept(entry.tensor.name)
            ? [[entry.tensor.name, [...simulated.values!.of(rank, entry.tensor)]] as const]
            : []
        )
      )
  )
}

const without = (name: string, values: ReadonlyMap<string, ReadonlyArray<number>>) =>
  new Map([...values].filter(([own]) => own !== name))

/** Scale, factor, steps since it changed, skipped steps. */
const stateOf = (values: ReadonlyMap<string, ReadonlyArray<number>>) => values.get(lossScaling.name)!

const halves = gpt2({
  layers: 1,
  width: 8,
  heads: 2,
  vocabulary: 11,
  context: 5,
  batch: 2,
  activationDtype: "float16",
  parameterDtype: "float16"
})

describe("a scaled loss", () => {
  it("teaches to the bit what an unscaled one does, in float32 and by powers of two", () => {
    const seen = new Set<string>()
    fc.assert(
      fc.property(
        fc.constantFrom("gpt2", "llama", "llamaTied", "mixtral"),
        algorithmChoice({ maxPeriod: 3 }),
        fc.constantFrom(
          { name: "adamw", learningRate: 0.02 } as const,
          { name: "sgd", learningRate: 0.1, momentum: 0.9 } as const,
          { name: "sgd", learningRate: 0.1 } as const
        ),
        accumulations,
        fc.integer({ min: -8, max: 40 }),
        (name, choice, optimizer, accumulation, power) => {
          const graph = tinyGraphs[name]
          const algorithm = choice(graph.layers.length)
          // other wires have a smallest or a largest number, or steps that are no powers of two
          fc.pre(!("wire" in algorithm) || algorithm.wire === "float32" || algorithm.wire === "bfloat16")
          seen.add(algorithm.name)
          const scaling = { ...usual, initial: 2 ** power, growthInterval: 2 }
          // a limit that no norm reaches, so that both wait for all gradients
          const plain = taught(graph, { optimizer, accumulation, clipNorm: 1e15 }, 4, algorithm)
          const scaled = taught(graph, { optimizer, accumulation, lossScaling: scaling }, 4, algorithm)
          for (const [rank, values] of scaled.entries()) {
            const [scale, , since, skipped] = stateOf(values)
            expect([scale, since, skipped]).toEqual([2 ** (power + 2), 0, 0])
            expect(without(lossScaling.name, values), algorithm.name).toEqual(plain[rank])
          }
        }
      ),
      { numRuns: 30 }
    )
    expect(seen.size).toBeGreaterThan(3)
  })

  for (const name of ["adamw", "sgd"] as const) {
    it(`skips steps that overflow, and counts on from those before: ${name}`, () => {
      const optimizer = { name, learningRate: 0.05, ...(name === "sgd" ? { momentum: 0.9 } : {}) }
      const at = (steps: number) =>
        taught(halves, { optimizer, lossScaling: { ...usual, initial: 2 ** 30 } }, steps)[0]!
      const beginning = at(0)
      const states = [1, 2, 3, 4, 24].map(at)
      for (const [index, values] of states.slice(0, 4).entries()) {
        expect(stateOf(values)).toEqual([2 ** (29 - index), 0, 0, index + 1])
        expect(without(lossScaling.name, values)).toEqual(without(lossScaling.name, beginning))
      }
      const [scale, factor, taken, skipped] = stateOf(states[4]!)
      expect(skipped).toBeLessThan(20)
      // since the last skipped one
      expect(taken! + skipped!).toBeLessThanOrEqual(24)
      expect(scale).toBe(2 ** (30 - skipped!))
      expect(factor).toBe(1 / scale!)
      expect(without(lossScaling.name, states[4]!)).not.toEqual(without(lossScaling.name, beginning))
    })
  }
})

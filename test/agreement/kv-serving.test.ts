// Serving on both machines: the same programs for real, on the native kernels. On one rank with everything there from the
// start no decision depends on time, and the two agree op by op; where caches travel, the batches depend on when they come,
// and what must be the same is what was generated.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { cacheMethods } from "../../core/algorithms/kv-serving/methods.ts"
import { interposing } from "../../core/machine/interpose.ts"
import type { Program } from "../../core/machine/machine.ts"
import { checkServing } from "../../core/laws/serving.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import { Random } from "../../core/random.ts"
import { runOnBoth } from "../../exec/cli/both-machines.ts"
import { execute } from "../../exec/execute.ts"
import { cacheSettings } from "../../testing/cache-settings.ts"
import { tinyModel, weightsOf } from "../kv-serving/tiny-llama.ts"
import { finishedOf, places, programs, simulated, valuesOf } from "../kv-serving/served.ts"
import { describeNative } from "../native/addon.ts"
import { flatWorld } from "../simulate/simulated.ts"

const model = tinyModel()
const weights = weightsOf(model, 7)

const drawn = (seed: number, count: number) => {
  const random = new Random(seed)
  const requests = Array.from({ length: count }, (_, id) => ({
    id,
    arrivalSeconds: 0,
    promptTokens: 4 + random.below(24),
    outputTokens: 1 + random.below(6)
  }))
  const prompts = requests.map(({ promptTokens }) =>
    Array.from({ length: promptTokens }, () => random.below(model.vocabulary))
  )
  return { requests, prompts }
}

/** The same program; what it allocates holds weights and prompts at first, on either machine. */
const holding = <A>(program: Program<A>, values: ReturnType<typeof valuesOf>): Program<A> =>
  interposing(program, (machine) => ({
    alloc: (spec) => {
      const data = values(machine.rank, spec)
      return machine.alloc(data === undefined ? spec : { ...spec, initial: () => data })
    }
  }))

describeNative("serving", () => {
  it("is the same on both machines, op by op, where no decision depends on time", async () => {
    const seen = { tensors: 0, choices: 0, turned: 0, methods: new Set<string>() }
    await fc.assert(
      fc.asyncProperty(
        cacheSettings(),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 3 }),
        fc.nat(),
        async (settings, count, maxBatch, seed) => {
          const { requests, prompts } = drawn(seed, count)
          const values = valuesOf(weights, prompts)
          const plan = { model, settings, requests, maxBatch }
          const { agreement, executed, simulatedRun } = await Effect.runPromise(
            runOnBoth({ world: flatWorld(1), program: () => holding(programs.here(plan), values) })
          )
          expect(agreement.firstDisagreement).toBeUndefined()
          expect(agreement).toMatchObject({ decisions: true, values: true, order: true })
          expect(checkLaws(simulatedRun)).toBeUndefined()
          expect(checkServing(plan, [executed.ranks[0]!.value])).toBeUndefined()
          // A score or a logit in its last digit may decide which of two equals is taken: then both go on with the same.
          seen.choices += agreement.ties!.choices
          seen.turned += agreement.ties!.turned
          seen.tensors += agreement.comparedTensors
          seen.methods.add(settings.name)
        }
      ),
      { numRuns: 60 }
    )
    expect(seen.tensors).toBeGreaterThan(1000)
    expect(seen.choices).toBeGreaterThan(500)
    expect(seen.turned).toBeLessThan(seen.choices / 50)
    expect([...seen.methods].toSorted()).toEqual([...cacheMethods].toSorted())
  })

  it("generates the same tokens for real, wherever caches go and whenever requests come", async () => {
    const seen = { compared: 0, different: 0, places: new Set<string>() }
    await fc.assert(
      fc.asyncProperty(
        cacheSettings(),
        fc.constantFrom(...places),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 3 }),
        fc.nat(),
        async (settings, place, count, maxBatch, gapMilliseconds, seed) => {
          const { requests: together, prompts } = drawn(seed, count)
          const requests = together.map((request, i) => ({
            ...request,
            arrivalSeconds: (i * gapMilliseconds) / 1000
          }))
          const plan = { model, settings, requests, maxBatch }
          const values = valuesOf(weights, prompts)
          const { ranks } = await Effect.runPromise(
            execute({
              world: flatWorld(place === "node" ? 2 : 1),
              program: programs[place](plan),
              initial: values
            })
          )
          expect(
            checkServing(
              plan,
              ranks.map(({ value }) => value)
            )
          ).toBeUndefined()
          const real = ranks
            .flatMap(({ value }) => value.finished)
            .toSorted((a, b) => a.request.id - b.request.id)
            .map(({ tokens }) => tokens)
          const expected = finishedOf(simulated(plan, place, { values })).map(({ tokens }) => tokens)
          for (const [id, tokens] of real.entries()) {
            if (tokens.join() === expected[id]!.join()) seen.compared++
            else seen.different++
          }
          seen.places.add(place)
        }
      ),
      { numRuns: 60 }
    )
    expect([...seen.places].toSorted()).toEqual([...places].toSorted())
    expect(seen.compared).toBeGreaterThan(100)
    // Two tokens as good as each other to the last digit: one in hundreds.
    expect(seen.different).toBeLessThan(seen.compared / 50)
  })
})

// One op for all steps: values given at each launch compute what the same values among the attributes would, are in the op
// log, and are refused where they do not fit.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { compareJournals, compareOpLogs } from "../../core/agreement/decisions.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { describeContract, failureOn, runOn } from "./machines.ts"

type Launches = ReadonlyArray<readonly [learningRate: number, step: number]>

const state = Effect.gen(function* () {
  const machine = yield* Machine
  const vector = (name: string, values: ReadonlyArray<number>) =>
    machine.alloc({ name, shape: [3], dtype: "float32", initial: () => Float32Array.from(values) })
  return [
    yield* vector("params", [1, -2, 3]),
    yield* vector("grads", [0.5, 0.25, -4]),
    yield* vector("m", [0, 0, 0]),
    yield* vector("v", [0, 0, 0])
  ] as const
})

const adamw = (tensors: readonly [Tensor, Tensor, Tensor, Tensor], attributes: Record<string, number>) => {
  const [params, grads, m, v] = tensors
  return launch("adamw", kernels.adamw, Lane.compute, [params, grads, m, v], [params, m, v], attributes)
}

const built = (launches: Launches, once: boolean): Program<ReadonlyArray<number>> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const tensors = yield* state
    const op = adamw(tensors, { weightDecay: 0.1 })
    // The machine may keep what it is given no longer than the call.
    const given = [0, 0]
    for (const [learningRate, step] of launches) {
      if (once) {
        given[0] = learningRate
        given[1] = step
        machine.submit(op, given)
      } else machine.submit(adamw(tensors, { weightDecay: 0.1, learningRate, step }))
    }
    given.fill(1e9)
    yield* machine.drain
    const values: Array<number> = []
    for (const tensor of tensors) values.push(...(yield* machine.read(tensor)))
    return values
  })

describeContract("scalars of a launch", (machine) => {
  it("compute what the same values among the attributes would, and are in the op log", async () => {
    let several = 0
    const launch = fc.tuple(fc.double({ min: 1e-4, max: 1, noNaN: true }), fc.integer({ min: 1, max: 1000 }))
    await fc.assert(
      fc.asyncProperty(fc.array(launch, { minLength: 1, maxLength: 6 }), async (launches) => {
        const once = await runOn(machine, 1, built(launches, true))
        const fresh = await runOn(machine, 1, built(launches, false))
        if (launches.length > 1) several++
        expect(once.ranks[0]!.value).toEqual(fresh.ranks[0]!.value)
        expect(once.opLogs[0]!.entries.map(({ scalars }) => scalars)).toEqual(launches)
        expect(fresh.opLogs[0]!.entries.some(({ scalars }) => scalars !== undefined)).toBe(false)
      }),
      { numRuns: 20 }
    )
    expect(several).toBeGreaterThan(5)
  })

  it("are part of what two runs must agree on", async () => {
    const journalOf = async (step: number) => {
      const journals: Array<Journal> = []
      const { opLogs } = await runOn(machine, 1, journaled(built([[0.1, step]], true), journals))
      return { journals, opLogs }
    }
    const [one, same, other] = [await journalOf(3), await journalOf(3), await journalOf(4)]
    expect(compareOpLogs(one.opLogs, same.opLogs)).toBeUndefined()
    expect(compareJournals(one.journals, same.journals)).toBeUndefined()
    expect(compareOpLogs(one.opLogs, other.opLogs)?.message).toContain("with 0.1, 4")
    expect(compareJournals(one.journals, other.journals)?.message).toContain('"step":4')
  })

  const submitting = (attributes: Record<string, number>, scalars?: ReadonlyArray<number>) =>
    Effect.gen(function* () {
      const service = yield* Machine
      service.submit(adamw(yield* state, attributes), scalars)
      yield* service.drain
    })

  it.each([
    ["none, where the op leaves some out", {}, undefined, 'has no value for "learningRate" and "step"'],
    ["one of two", {}, [1], "was given 1 scalars; expected 2: learningRate, step"],
    ["one that is an attribute too", { step: 1 }, [1, 2], 'has "step" as an attribute'],
    ["one that is no number", {}, [0.1, NaN], 'was given "step" as NaN'],
    ["one without bound", {}, [Infinity, 1], 'was given "learningRate" as Infinity']
  ])("are refused: %s", async (_, attributes, scalars, message) => {
    expect(String(await failureOn(machine, 1, submitting(attributes, scalars)))).toContain(message)
  })

  it("are refused where the kernel has none", async () => {
    const program = Effect.gen(function* () {
      const service = yield* Machine
      const [a] = yield* state
      service.submit(launch("copy", kernels.copy, Lane.compute, [a], [a]), [1])
      yield* service.drain
    })
    expect(String(await failureOn(machine, 1, program))).toContain("was given 1 scalars; expected 0")
  })
})

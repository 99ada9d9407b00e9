// What a real run chose by scores: another of a tie is counted and goes on in the simulated run; what no scores within reach choose is
// told, by every kernel that chooses.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { nothing } from "../../core/agreement/narrow.ts"
import { defaultTolerance, mayBeOff } from "../../core/agreement/values.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../core/kernels/kernel.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { describeNative } from "../native/addon.ts"
import { agreedOn } from "./broken-machine.ts"
import { held, machined, type Machined } from "./machined.ts"

interface Choice {
  readonly kernel: Kernel
  readonly shape: ReadonlyArray<number>
  readonly attributes: Attributes
}

const score = { shape: [12], time: 12 }
const choices: Readonly<Record<string, Choice>> = {
  argmax: { kernel: kernels.argmax, shape: [3, 4], attributes: {} },
  "kv.top_tokens": { kernel: kernels["kv.top_tokens"], shape: [2, 6], attributes: { count: 3 } },
  "kv.top_chunks": {
    kernel: kernels["kv.top_chunks"],
    shape: score.shape,
    attributes: { time: 35, chunk: 3, count: 5, limit: 11, window: 7 }
  },
  "kv.top_chunks, all of each": {
    kernel: kernels["kv.top_chunks"],
    shape: score.shape,
    attributes: { time: 36, chunk: 3, count: 5, limit: 15 }
  },
  "kv.top_shots": {
    kernel: kernels["kv.top_shots"],
    shape: score.shape,
    attributes: { time: 40, starts: "0,2,5,6,11,13,17,20,22,29,31,36", budget: 14 }
  }
}

/** These choose in order, and weigh what they choose: by a softmax, of which a tolerance of its own lets only so much pass. */
const gates: typeof choices = {
  "topk_gate.forward": { kernel: kernels["topk_gate.forward"], shape: [3, 4], attributes: { topK: 2 } },
  "sigmoid_gate.forward": { kernel: kernels["sigmoid_gate.forward"], shape: [2, 6], attributes: { topK: 3 } },
  "expert_choice.forward": {
    kernel: kernels["expert_choice.forward"],
    shape: [4, 3],
    attributes: { capacity: 2 }
  }
}
const gateShare = 0.1

/** Chooses by these scores, and tells of the choice. */
const choosing = ({ kernel, shape, attributes }: Choice, scores: ReadonlyArray<number>): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const of = yield* machine.alloc({
      name: "scores",
      shape,
      dtype: "float32",
      initial: () => Float32Array.from(scores)
    })
    const writes: Array<Tensor> = []
    for (const [i, result] of kernel.shapes([of], attributes)!.entries()) {
      const dtype = kernel.outputDtypes[i] === "int32" ? "int32" : "float32"
      writes.push(
        yield* machine.alloc({ name: dtype === "int32" ? "choice" : `weights ${i}`, shape: result, dtype })
      )
    }
    machine.submit(launch("choose", kernel, Lane.compute, [of], writes, attributes))
    for (const one of writes) yield* machine.read(one)
    yield* machine.drain
  })

/** What a run chose. */
const choiceOf = ({ journals }: Machined): ReadonlyArray<number> => {
  const read = journals[0]!.entries.find((one) => one.kind === "read" && one.tensor.name === "choice")
  return [...(read?.kind === "read" ? read.values : expect.fail())]
}

/** A run that chose so, with the scores of another. */
const havingChosen = (run: Machined, choice: ReadonlyArray<number>): Machined => {
  const chosen = Int32Array.from(choice)
  return {
    ...run,
    journals: run.journals.map(({ rank, entries }) => ({
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op"
          ? {
              ...entry,
              ...(entry.results && {
                results: entry.results.map((one) => (one instanceof Int32Array ? chosen : one))
              })
            }
          : entry.kind === "read" && entry.tensor.name === "choice"
            ? { ...entry, values: chosen }
            : entry
      )
    })),
    valuesOf: (rank, tensor) => (tensor.name === "choice" ? chosen : run.valuesOf(rank, tensor))
  }
}

/** How far each score may be off. */
const reachOf = ({ shape }: Choice, scores: TensorData) =>
  mayBeOff({ dtype: "float32", shape }, scores, defaultTolerance, nothing)

/** Scores among which many are near to each other: at most twice so far. */
const within = (spread: number) =>
  fc.array(
    fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.double({ min: -1, max: 1, noNaN: true }))
      .map(([size, near]) => size + spread * near),
    { minLength: 12, maxLength: 12 }
  )
const crowded = within(2e-3)
/** Some of them in reach of each other, some just not. */
const bordering = within(1e-2)
const shifts = fc.array(fc.double({ min: -0.99, max: 0.99, noNaN: true }), { minLength: 12, maxLength: 12 })

describe("what a real run chose by scores", () => {
  for (const [name, choice] of Object.entries({ ...choices, ...gates })) {
    it(`agrees where its scores are off as far as they may be: ${name}`, () => {
      let ties = 0
      const share = name in gates ? gateShare : 1
      fc.assert(
        fc.property(crowded, shifts, (scores, off) => {
          const reach = reachOf(choice, Float32Array.from(scores))
          const other = scores.map((x, i) => x + share * off[i]! * reach(i))
          const ours = choiceOf(machined(choosing(choice, scores)))
          const real = machined(choosing(choice, other))
          const { agreement, simulated } = held(choosing(choice, scores), real)
          expect(agreement.firstDisagreement).toBeUndefined()
          expect(choiceOf(simulated)).toEqual(choiceOf(real))
          const apart = ours.join() !== choiceOf(real).join()
          expect(agreement.ties!.turned > 0).toBe(apart)
          if (apart) ties++
        }),
        { numRuns: 150 }
      )
      expect(ties).toBeGreaterThan(10)
    })
  }

  for (const [name, choice] of Object.entries(choices)) {
    it(`is told where no scores that near choose it: ${name}`, () => {
      let told = 0
      fc.assert(
        fc.property(crowded, fc.nat(11), fc.boolean(), (scores, at, up) => {
          // Beyond all of the others, or below.
          const other = scores.map((x, i) => (i === at ? (up ? 9 : -9) : x))
          const ours = machined(choosing(choice, scores))
          const theirs = choiceOf(machined(choosing(choice, other)))
          const { agreement, simulated } = held(choosing(choice, scores), havingChosen(ours, theirs))
          if (choiceOf(ours).join() === theirs.join()) {
            expect(agreement.firstDisagreement).toBeUndefined()
            return
          }
          // It was near the others already: a tie.
          const found = agreement.firstDisagreement
          if (found === undefined) {
            expect(choiceOf(simulated)).toEqual(theirs)
            return
          }
          told++
          expect(found.message).toMatch(
            /tensor \d+ "choice" \(int32\), after op 0 "choose": simulated element \d+ is -?\d+; executed/u
          )
          expect(choiceOf(simulated)).toEqual(choiceOf(ours))
        }),
        { numRuns: 150 }
      )
      expect(told).toBeGreaterThan(30)
    })

    it(`is told where it is no choice at all: ${name}`, () => {
      const scores = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
      const ours = machined(choosing(choice, scores))
      for (const wrong of [-7, 1e9, choiceOf(ours)[1]!]) {
        const { agreement } = held(
          choosing(
            choice,
            scores.map(() => 1)
          ),
          havingChosen(
            machined(
              choosing(
                choice,
                scores.map(() => 1)
              )
            ),
            choiceOf(ours).map((one, i) => (i === 0 ? wrong : one))
          )
        )
        // Of equal scores any may be taken, but no other than there are; and none twice, of a list.
        if (choice.kernel === kernels.argmax && wrong >= 0 && wrong < 4)
          expect(agreement.firstDisagreement).toBeUndefined()
        else expect(agreement.values, String(wrong)).toBe(false)
      }
    })
  }

  it("is allowed exactly where each that it took may be as good as each that it left", () => {
    const seen = { ties: 0, told: 0 }
    fc.assert(
      fc.property(bordering, fc.uniqueArray(fc.nat(5), { minLength: 3, maxLength: 3 }), (scores, some) => {
        const choice = { kernel: kernels["kv.top_tokens"], shape: [1, 6], attributes: { count: 3 } }
        const six = scores.slice(0, 6)
        const data = Float32Array.from(six)
        const reach = reachOf(choice, data)
        const taken = some.toSorted((a, b) => a - b)
        const least = Math.min(...taken.map((i) => data[i]! + reach(i)))
        const most = Math.max(
          ...[0, 1, 2, 3, 4, 5].flatMap((i) => (taken.includes(i) ? [] : [data[i]! - reach(i)]))
        )
        if (Math.abs(least - most) < 1e-6) return
        const ours = machined(choosing(choice, six))
        const { agreement } = held(choosing(choice, six), havingChosen(ours, taken))
        expect(agreement.firstDisagreement === undefined).toBe(least > most)
        const apart = choiceOf(ours).filter((one) => !taken.includes(one)).length
        if (least > most) expect(agreement.ties).toEqual({ choices: 3, turned: apart })
        if (least < most) seen.told++
        else if (apart > 0) seen.ties++
      }),
      { numRuns: 600 }
    )
    expect(seen.told).toBeGreaterThan(100)
    expect(seen.ties).toBeGreaterThan(20)
  })

  it("of a gate is allowed exactly where it may be in that order, too", () => {
    const seen = { ties: 0, told: 0 }
    fc.assert(
      fc.property(bordering, fc.uniqueArray(fc.nat(5), { minLength: 3, maxLength: 3 }), (scores, taken) => {
        const choice = { kernel: kernels["topk_gate.forward"], shape: [1, 6], attributes: { topK: 3 } }
        const six = scores.slice(0, 6)
        const data = Float32Array.from(six)
        const reach = reachOf(choice, data)
        const rest = [0, 1, 2, 3, 4, 5].filter((i) => !taken.includes(i))
        /** Of two that stand in this order: by how much the first may be more. */
        const more = (one: number, other: number) => data[one]! + reach(one) - data[other]! + reach(other)
        const least = Math.min(
          ...taken.flatMap((one, at) => [...taken.slice(at + 1), ...rest].map((other) => more(one, other)))
        )
        if (Math.abs(least) < 1e-5) return
        const ours = machined(choosing(choice, six))
        const { agreement } = held(choosing(choice, six), havingChosen(ours, taken))
        const message = agreement.firstDisagreement?.message ?? ""
        expect(message.includes('"choice" (int32), after op 0')).toBe(least < 0)
        if (least < 0) seen.told++
        else if (taken.join() !== choiceOf(ours).join()) seen.ties++
      }),
      { numRuns: 600 }
    )
    expect(seen.told).toBeGreaterThan(100)
    expect(seen.ties).toBeGreaterThan(5)
  })

  it("is a tie as far as both may be off, and no further", () => {
    for (const [kernel, attributes] of [
      [kernels.argmax, {}],
      [kernels["kv.top_tokens"], { count: 1 }],
      [kernels["topk_gate.forward"], { topK: 1 }]
    ] as const) {
      const choice: Choice = { kernel, shape: [1, 2], attributes }
      const reach = reachOf(choice, Float32Array.of(2, 2))
      const apart = (share: number) => {
        const scores = [2, 2 - share * (reach(0) + reach(1))]
        return held(choosing(choice, scores), havingChosen(machined(choosing(choice, scores)), [1])).agreement
      }
      expect(apart(0.98).firstDisagreement?.message ?? "", kernel.name).not.toMatch(/"choice"/u)
      expect(apart(0.98).ties, kernel.name).toEqual({ choices: 1, turned: 1 })
      expect(apart(1.02).firstDisagreement?.message, kernel.name).toMatch(/"choice" \(int32\), after op 0/u)
    }
  })

  it("counts of a gate each place that another one has", () => {
    const choice = { kernel: kernels["topk_gate.forward"], shape: [1, 6], attributes: { topK: 3 } }
    const scores = [5, 4, 3, 3, 3, 3]
    const ours = machined(choosing(choice, scores))
    for (const [taken, turned] of [
      [[0, 1, 2], 0],
      [[0, 1, 5], 1],
      [[1, 0, 2], 2]
    ] as const)
      expect(held(choosing(choice, scores), havingChosen(ours, taken)).agreement.ties).toEqual({
        choices: 3,
        turned
      })
  })

  it("of scores that came of a narrow tensor is a tie as far as its steps go", () => {
    const choice = { kernel: kernels["kv.top_tokens"], shape: [1, 4], attributes: { count: 1 } }
    const step = 2 ** -7
    /** A step of bfloat16, which float32 may not be off. */
    const program = (dtype: "float32" | "bfloat16"): Program<void> =>
      Effect.gen(function* () {
        const machine = yield* Machine
        const given = yield* machine.alloc({
          name: "given",
          shape: choice.shape,
          dtype,
          initial: () => Float32Array.of(1, 1 + step, 0.5, 0.5)
        })
        const narrow = yield* machine.alloc({ name: "narrow", shape: choice.shape, dtype })
        const scores = yield* machine.alloc({ name: "scores", shape: choice.shape, dtype: "float32" })
        const chosen = yield* machine.alloc({ name: "choice", shape: [1, 1], dtype: "int32" })
        machine.submit(launch("narrow", kernels.copy, Lane.compute, [given], [narrow]))
        machine.submit(launch("widen", kernels.copy, Lane.compute, [narrow], [scores]))
        machine.submit(launch("choose", choice.kernel, Lane.compute, [scores], [chosen], choice.attributes))
        yield* machine.read(chosen)
        yield* machine.drain
      })
    const told = (dtype: "float32" | "bfloat16") =>
      held(program(dtype), havingChosen(machined(program(dtype)), [0])).agreement.firstDisagreement?.message
    expect(told("bfloat16")).toBeUndefined()
    expect(told("float32")).toMatch(/"choice" \(int32\), after op 2/u)
  })

  it("leaves the weights of what was chosen to the simulated run's own scores", () => {
    for (const choice of Object.values(gates)) {
      const scores = [1, 2, 2.0001, 0.5, 1.5, 1.4, 2, 1, 1.7, 2.2, 0.1, 0.3]
      const other = scores.map((x, i) => (i === 2 ? x - 2e-4 : x))
      const real = machined(choosing(choice, other))
      const off = {
        ...real,
        journals: real.journals.map(({ rank, entries }) => ({
          rank,
          entries: entries.map((entry) =>
            entry.kind === "read" && entry.tensor.name === "weights 0"
              ? { ...entry, values: entry.values.map((x, i) => (i === 0 ? 1.01 * x : x)) }
              : entry
          )
        }))
      }
      expect(held(choosing(choice, scores), real).agreement.firstDisagreement).toBeUndefined()
      expect(held(choosing(choice, scores), off).agreement.firstDisagreement?.message).toMatch(/"weights 0"/u)
    }
  })

  it("is nothing to hold where the runs have parted", () => {
    for (const choice of Object.values(choices)) {
      const scores = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
      const ours = machined(choosing(choice, scores))
      const other = havingChosen(ours, choiceOf(ours).toReversed())
      const journals = other.journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" ? { ...entry, op: { ...entry.op, label: "another" } } : entry
        )
      }))
      const { agreement, simulated } = held(choosing(choice, scores), { ...other, journals })
      expect(agreement).toMatchObject({ decisions: false, ties: { choices: 0, turned: 0 } })
      expect(agreement.firstDisagreement?.kind).toBe("decisions")
      expect(choiceOf(simulated)).toEqual(choiceOf(ours))
    }
  })

  it("holds what is left out by an infinity to be nowhere near", () => {
    const choice = { kernel: kernels["kv.top_tokens"], shape: [1, 4], attributes: { count: 2 } }
    const scores = [-Infinity, -Infinity, 1, 2]
    const ours = machined(choosing(choice, scores))
    expect(
      held(choosing(choice, scores), havingChosen(ours, [2, 3])).agreement.firstDisagreement
    ).toBeUndefined()
    expect(held(choosing(choice, scores), havingChosen(ours, [0, 3])).agreement.values).toBe(false)
    // Nor may one be left that is beyond all.
    const beyond = [Infinity, 1, 2, 0]
    const right = machined(choosing(choice, beyond))
    expect(choiceOf(right)).toEqual([0, 2])
    expect(held(choosing(choice, beyond), havingChosen(right, [1, 2])).agreement.values).toBe(false)
  })
})

describeNative("choices of a decoder", () => {
  it("that fall between tokens as good as each other are counted, and what follows agrees", async () => {
    let turned = 0
    for (const seed of [0, 1, 2, 3]) {
      const agreement = await agreedOn("kv-serving", ["model.dtype=float16", `seed=${seed}`])
      expect(agreement.firstDisagreement, `seed ${seed}`).toBeUndefined()
      expect(agreement.ties!.choices).toBeGreaterThan(30)
      turned += agreement.ties!.turned
    }
    // Of some two hundred.
    expect(turned).toBeLessThan(10)
  })

  it("are the same in float32", async () => {
    for (const scenario of ["kv-serving", "expert-offload", "moe-training"]) {
      const agreement = await agreedOn(scenario, [])
      expect(agreement.firstDisagreement, scenario).toBeUndefined()
      expect(agreement.ties!.turned, scenario).toBe(0)
    }
  })
})

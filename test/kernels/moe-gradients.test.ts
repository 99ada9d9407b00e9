// Gates and orders of expert-parallel layers: values against what they are defined as, backward kernels against central
// finite differences.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../core/kernels/kernel.ts"
import { apart, expertParallel, layoutOf, rowsOf, type Layout } from "./moe-values.ts"
import {
  differences,
  expectClose,
  floats,
  integers,
  numbers,
  random,
  randomIntegers,
  run,
  type Value
} from "./run.ts"

const tolerance = 1e-7
const covered = new Set<string>()

const backward = (kernel: Kernel, inputs: ReadonlyArray<Value>, attributes: Attributes = {}) => {
  covered.add(kernel.name)
  return run(kernel, inputs, attributes)
}

const joined = (values: ReadonlyArray<Value>): Value => {
  const data = Float64Array.from(values.flatMap((value) => Array.from(value.data)))
  return { shape: [data.length], data }
}

/** Gradient of inputs[index] when all outputs, one after the other, are weighted by `douts`. */
const numeric = (
  kernel: Kernel,
  inputs: ReadonlyArray<Value>,
  index: number,
  douts: ReadonlyArray<Value>,
  attributes: Attributes = {},
  outputs: ReadonlyArray<number> = douts.map((_, i) => i)
) =>
  differences(
    inputs[index]!.data,
    () => {
      const results = run(kernel, inputs, attributes)
      return joined(outputs.map((output) => results[output]!)).data
    },
    joined(douts).data
  )

const forSizes = (body: (next: () => number, a: number, b: number, c: number) => void) =>
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      (seed, a, b, c) => body(numbers(seed), a, b, c)
    ),
    { numRuns: 15 }
  )

describe("gates", () => {
  it("noisy logits: zero spread is log 2 of the noise; gradients", () => {
    forSizes((next, a, b, experts) => {
      const [clean, spread, noise] = [
        random(next, [a, b, experts]),
        random(next, [a, b, experts], 3),
        random(next, [a, b, experts])
      ] as const
      const flat = run(kernels["noisy_logits.forward"], [
        clean,
        floats(
          spread.shape,
          Array.from(spread.data, () => 0)
        ),
        noise
      ])
      expectClose(
        flat[0]!.data,
        Array.from(clean.data, (value, i) => value + noise.data[i]! * Math.LN2),
        1e-12
      )
      const dout = random(next, clean.shape)
      const inputs = [clean, spread, noise]
      expectClose(dout.data, numeric(kernels["noisy_logits.forward"], inputs, 0, [dout]), tolerance)
      const [dspread] = backward(kernels["noisy_logits.backward"], [dout, spread, noise])
      expectClose(dspread!.data, numeric(kernels["noisy_logits.forward"], inputs, 1, [dout]), tolerance)
    })
  })

  it("normal noise repeats by seed, has mean 0 and deviation 1", () => {
    const sample = (seed: number) => run(kernels.random_normal, [], { rows: 100, width: 100, seed })[0]!.data
    const data = Array.from(sample(5))
    expect(data).toEqual(Array.from(sample(5)))
    expect(data).not.toEqual(Array.from(sample(6)))
    const mean = data.reduce((sum, value) => sum + value, 0) / data.length
    const variance = data.reduce((sum, value) => sum + (value - mean) ** 2, 0) / data.length
    expect(Math.abs(mean)).toBeLessThan(0.03)
    expect(Math.abs(variance - 1)).toBeLessThan(0.05)
  })

  it("sigmoid: the largest logits, by their own sigmoid; gradients", () => {
    forSizes((next, rows, more, topK) => {
      const logits = apart(next, rows, topK + more)
      const [weights, chosen] = run(kernels["sigmoid_gate.forward"], [logits], { topK }) as [Value, Value]
      for (let row = 0; row < rows; row++) {
        const own = Array.from(logits.data.subarray(row * (topK + more), (row + 1) * (topK + more)))
        const largest = own.toSorted((x, y) => y - x).slice(0, topK)
        const at = (k: number) => row * topK + k
        expect(largest.map((_, k) => own[chosen.data[at(k)]!])).toEqual(largest)
        expectClose(
          weights.data.slice(row * topK, (row + 1) * topK),
          largest.map((value) => 1 / (1 + Math.exp(-value))),
          1e-12
        )
      }
      const dweights = random(next, [rows, topK])
      const [dlogits] = backward(kernels["sigmoid_gate.backward"], [dweights, weights, chosen, logits], {
        topK
      })
      const expected = numeric(kernels["sigmoid_gate.forward"], [logits], 0, [dweights], { topK })
      expectClose(dlogits!.data, expected, tolerance)
    })
    expect(() => run(kernels["sigmoid_gate.forward"], [floats([1, 2], [0, 0])], { topK: 3 })).toThrow(
      /top 3 of 2/
    )
    // Ties go to the lower index.
    expect(
      Array.from(run(kernels["sigmoid_gate.forward"], [floats([1, 3], [1, 1, 1])], { topK: 2 })[1]!.data)
    ).toEqual([0, 1])
  })

  it("cosine scores: 1 along a weight, 0 across it, free of scale; gradients", () => {
    const scores = run(
      kernels["cosine_scores.forward"],
      [floats([2, 2], [3, 0, 0, 0]), floats([2, 2], [0.5, 0, 0, 7])],
      { temperature: 0.5 }
    )[0]!
    expect(Array.from(scores.data)).toEqual([2, 0, 0, 0])
    forSizes((next, rows, experts, width) => {
      const attributes = { temperature: 0.7 }
      const inp = random(next, [rows, width])
      const weight = random(next, [experts, width])
      // Away from zero vectors, where the cosine has no derivative.
      for (const { data } of [inp, weight])
        for (let i = 0; i < data.length; i++) data[i]! += data[i]! < 0 ? -0.5 : 0.5
      const [forward] = run(kernels["cosine_scores.forward"], [inp, weight], attributes) as [Value]
      const dout = random(next, [rows, experts])
      const inputs = [dout, inp, weight, forward]
      expectClose(
        backward(kernels["cosine_scores.backward_input"], inputs, attributes)[0]!.data,
        numeric(kernels["cosine_scores.forward"], [inp, weight], 0, [dout], attributes),
        tolerance
      )
      expectClose(
        backward(kernels["cosine_scores.backward_weight"], inputs, attributes)[0]!.data,
        numeric(kernels["cosine_scores.forward"], [inp, weight], 1, [dout], attributes),
        tolerance
      )
    })
  })

  it("expert choice: every expert its own best tokens, weights that sum to 1; gradients", () => {
    forSizes((next, more, experts, capacity) => {
      const logits = apart(next, capacity + more, experts)
      const [weights, chosen] = run(kernels["expert_choice.forward"], [logits], { capacity }) as [
        Value,
        Value
      ]
      for (let e = 0; e < experts; e++) {
        const own = Array.from({ length: capacity + more }, (_, token) => logits.data[token * experts + e]!)
        const best = own.toSorted((x, y) => y - x).slice(0, capacity)
        expect(best.map((_, c) => own[chosen.data[e * capacity + c]!])).toEqual(best)
        let sum = 0
        for (let c = 0; c < capacity; c++) sum += weights.data[e * capacity + c]!
        expect(sum).toBeCloseTo(1, 12)
      }
      const dweights = random(next, [experts, capacity])
      const [dlogits] = backward(kernels["expert_choice.backward"], [dweights, weights, chosen, logits], {
        capacity
      })
      const expected = numeric(kernels["expert_choice.forward"], [logits], 0, [dweights], { capacity })
      expectClose(dlogits!.data, expected, tolerance)
    })
    expect(() => run(kernels["expert_choice.forward"], [floats([1, 1], [0])], { capacity: 2 })).toThrow(
      /2 of only 1/
    )
  })

  it("soft gate: columns of dispatch and rows of combine sum to 1; gradients", () => {
    forSizes((next, tokens, slots) => {
      const logits = random(next, [tokens, slots], 2)
      const [dispatch, combine] = run(kernels["soft_gate.forward"], [logits]) as [Value, Value]
      for (let slot = 0; slot < slots; slot++) {
        let sum = 0
        for (let token = 0; token < tokens; token++) sum += dispatch.data[token * slots + slot]!
        expect(sum).toBeCloseTo(1, 12)
      }
      for (let token = 0; token < tokens; token++) {
        const row = Array.from(combine.data.slice(token * slots, (token + 1) * slots))
        expect(row.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 12)
      }
      const douts = [random(next, [tokens, slots]), random(next, [tokens, slots])] as const
      const [dlogits] = backward(kernels["soft_gate.backward"], [...douts, dispatch, combine])
      expectClose(dlogits!.data, numeric(kernels["soft_gate.forward"], [logits], 0, douts), tolerance)
    })
  })
})

const layouts = fc
  .record({
    ranks: fc.integer({ min: 1, max: 3 }),
    local: fc.integer({ min: 1, max: 2 }),
    chunks: fc.integer({ min: 1, max: 3 }),
    share: fc.integer({ min: 0, max: 3 })
  })
  .map(({ ranks, local, chunks, share }): Layout => ({
    experts: ranks * local,
    ranks,
    chunks,
    capacity: share * chunks
  }))

describe("orders", () => {
  it("a layout holds every choice once, in its expert's rows, first choices first; it drops what exceeds capacity", () => {
    const seen = { dropped: 0, padded: 0, dropless: 0, several: 0 }
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e6 }),
        layouts,
        fc.integer({ min: 1, max: 8 }),
        (seed, layout, tokens) => {
          const topK = Math.min(2, layout.experts)
          const chosen = randomIntegers(numbers(seed), [tokens, topK], layout.experts)
          const { tokens: rows, assignments, counts, rows: parts } = layoutOf(chosen, layout)
          expect(parts.reduce((sum, part) => sum + part, 0)).toBe(rows.data.length)
          const wanted = Array.from({ length: layout.experts }, (_, e) =>
            Array.from({ length: topK }, (_unused, k) => k).flatMap((k) =>
              Array.from({ length: tokens }, (_unused, token) => token * topK + k).filter(
                (at) => chosen.data[at] === e
              )
            )
          )
          expect(Array.from(counts.data)).toEqual(wanted.map((own) => own.length))
          // Walk the rows by the documented order and take them back to their experts.
          const found: Array<Array<number>> = wanted.map(() => [])
          const local = layout.experts / layout.ranks
          let row = 0
          for (let chunk = 0; chunk < layout.chunks; chunk++) {
            for (let j = 0; j < local; j++) {
              for (let rank = 0; rank < layout.ranks; rank++) {
                const expert = rank * local + j
                const size = layout.capacity === 0 ? wanted[expert]!.length : layout.capacity
                const share = rowsOf({ experts: 1, ranks: 1, chunks: layout.chunks, capacity: size }, [size])[
                  chunk
                ]!
                for (let i = 0; i < share; i++, row++) {
                  const assignment = assignments.data[row]!
                  expect(rows.data[row]).toBe(assignment < 0 ? -1 : Math.floor(assignment / topK))
                  found[expert]!.push(assignment)
                }
              }
            }
          }
          wanted.forEach((own, expert) => {
            const capacity = layout.capacity === 0 ? own.length : layout.capacity
            const padding = Math.max(0, capacity - own.length)
            expect(found[expert]).toEqual([
              ...own.slice(0, capacity),
              ...Array.from({ length: padding }, () => -1)
            ])
            if (own.length > capacity) seen.dropped++
            if (padding > 0) seen.padded++
          })
          if (layout.capacity === 0) seen.dropless++
          if (layout.chunks > 1 && local > 1) seen.several++
        }
      ),
      { numRuns: 200 }
    )
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThan(10)
  })

  it("order and I-Order: identity for one choice of weight 1; gradients, with drops and padding", () => {
    let dropped = 0
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e6 }),
        layouts,
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 3 }),
        (seed, layout, tokens, width) => {
          const next = numbers(seed)
          const chosen = randomIntegers(next, [tokens, 2], layout.experts)
          const { tokens: rows, assignments, rows: parts } = layoutOf(chosen, layout)
          if (Array.from(rows.data).filter((token) => token >= 0).length < 2 * tokens) dropped++
          const attribute = { rows: parts.join(",") }
          const inp = random(next, [tokens, width])
          const messages = run(kernels["moe_order.forward"], [inp, rows], attribute)
          const douts = messages.map(({ shape }) => random(next, shape))
          expectClose(
            backward(kernels["moe_order.backward"], [rows, ...douts], { inputs: tokens })[0]!.data,
            numeric(kernels["moe_order.forward"], [inp, rows], 0, douts, attribute),
            tolerance
          )
          const weights = random(next, [tokens, 2])
          const outputs = messages.map(({ shape }) => random(next, shape))
          const dout = random(next, [tokens, width])
          const inverse = kernels["moe_inverse_order.forward"]
          const inputs = [weights, rows, assignments, ...outputs]
          const gate = backward(kernels["moe_inverse_order.backward_gate"], [
            dout,
            weights,
            rows,
            assignments,
            ...outputs
          ])
          expectClose(gate[0]!.data, numeric(inverse, inputs, 0, [dout], { outputs: tokens }), tolerance)
          const toRows = backward(
            kernels["moe_inverse_order.backward_input"],
            [dout, weights, rows, assignments],
            attribute
          )
          toRows.forEach((actual, i) => {
            expectClose(actual.data, numeric(inverse, inputs, 3 + i, [dout], { outputs: tokens }), tolerance)
          })
          if (layout.capacity === 0) {
            const ones = floats(
              [tokens, 2],
              Array.from({ length: 2 * tokens }, (_, i) => (i % 2 === 0 ? 1 : 0))
            )
            const back = run(inverse, [ones, rows, assignments, ...messages], { outputs: tokens })[0]!
            expectClose(back.data, inp.data, 1e-12)
          }
        }
      ),
      { numRuns: 40 }
    )
    expect(dropped).toBeGreaterThan(5)
  })

  it("soft order and I-Order are products with the mix; their gradients are each other", () => {
    forSizes((next, tokens, width, experts) => {
      const layout = { experts, ranks: 1, chunks: 2, capacity: 2 }
      const [columns] = run(kernels.soft_layout, [], layout) as [Value]
      expect(Array.from(columns.data).toSorted((x, y) => x - y)).toEqual(
        Array.from({ length: 2 * experts }, (_, i) => i)
      )
      const parts = rowsOf(layout, [])
      const attribute = { rows: parts.join(",") }
      const [inp, mix] = [random(next, [tokens, width]), random(next, [tokens, 2 * experts])]
      const rows = run(kernels["soft_order.forward"], [inp, mix, columns], attribute)
      const douts = rows.map(({ shape }) => random(next, shape))
      const forward = [inp, mix, columns]
      expectClose(
        run(kernels["soft_inverse_order.forward"], [mix, columns, ...douts])[0]!.data,
        numeric(kernels["soft_order.forward"], forward, 0, douts, attribute),
        tolerance
      )
      expectClose(
        backward(kernels["soft_order.backward_mix"], [inp, mix, columns, ...douts])[0]!.data,
        numeric(kernels["soft_order.forward"], forward, 1, douts, attribute),
        tolerance
      )
      const dout = random(next, [tokens, width])
      expectClose(
        backward(kernels["soft_order.backward_mix"], [dout, mix, columns, ...rows])[0]!.data,
        numeric(kernels["soft_inverse_order.forward"], [mix, columns, ...rows], 0, [dout]),
        tolerance
      )
      const toRows = run(kernels["soft_order.forward"], [dout, mix, columns], attribute)
      toRows.forEach((actual, i) => {
        const expected = numeric(kernels["soft_inverse_order.forward"], [mix, columns, ...rows], 2 + i, [
          dout
        ])
        expectClose(actual.data, expected, tolerance)
      })
    })
  })

  it("expert choice lays out each expert's own tokens", () => {
    const chosen = integers([2, 2], [4, 1, 0, 3])
    const [tokens, assignments] = run(kernels.expert_choice_layout, [chosen], {
      experts: 2,
      ranks: 2,
      chunks: 2,
      capacity: 2
    }) as [Value, Value]
    expect(Array.from(tokens.data)).toEqual([4, 0, 1, 3])
    expect(Array.from(assignments.data)).toEqual([0, 2, 1, 3])
  })

  it("rechunking there and back changes nothing, and equals a layout of that many chunks", () => {
    let uneven = 0
    fc.assert(
      fc.property(
        fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        (blocks, from, to) => {
          const total = blocks.reduce((sum, count) => sum + count, 0)
          if (blocks.some((count) => count % from !== 0 || count % to !== 0)) uneven++
          // One expert on as many ranks as blocks: block b has the choices of "expert" b.
          const chosen = integers(
            [total, 1],
            blocks.flatMap((count, block) => Array.from({ length: count }, () => block))
          )
          const inp = random(numbers(total + 1), [total, 2])
          const messages = (chunks: number) => {
            const layout = { experts: blocks.length, ranks: blocks.length, chunks, capacity: 0 }
            const { tokens, rows } = layoutOf(chosen, layout)
            return run(kernels["moe_order.forward"], [inp, tokens], { rows: rows.join(",") })
          }
          const attributes = { blocks: blocks.join(","), chunks: to }
          const cut = run(kernels.moe_rechunk, messages(from), attributes)
          const expected = messages(to)
          cut.forEach(({ data, shape }, i) => {
            expect(shape).toEqual(expected[i]!.shape)
            expect(Array.from(data)).toEqual(Array.from(expected[i]!.data))
          })
        }
      ),
      { numRuns: 100 }
    )
    expect(uneven).toBeGreaterThan(20)
  })

  it("repack keeps values in order and refuses to lose any", () => {
    const outputs = [new Float64Array(3), new Float64Array(2)]
    const shapes = { inputs: [[1], [4]], outputs: [[3], [2]] }
    kernels.repack.reference!([Float64Array.of(1), Float64Array.of(2, 3, 4, 5)], outputs, {}, shapes)
    expect(outputs.map((data) => Array.from(data))).toEqual([
      [1, 2, 3],
      [4, 5]
    ])
    expect(() => kernels.repack.reference!([Float64Array.of(1)], outputs, {}, shapes)).toThrow(
      /1 values into 5/
    )
    expect(kernels.repack.shapes([], {})).toBeUndefined()
  })

  it("leaves no backward kernel of these families out", () => {
    const all = Object.keys(kernels).filter((name) => name.includes(".backward") && expertParallel.test(name))
    expect([...covered].toSorted()).toEqual(all.toSorted())
  })
})

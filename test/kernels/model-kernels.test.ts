// Properties of the forward kernels that follow from what they are, not from how they are written.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { expectClose, floats, integers, numbers, random, randomIntegers, run, type Value } from "./run.ts"

const seed = fc.integer({ min: 1, max: 1e6 })
const extent = fc.integer({ min: 1, max: 5 })

describe("embedding and positions", () => {
  it("looks rows up and adds positions from the offset on", () => {
    const weight = floats([3, 2], [1, 2, 3, 4, 5, 6])
    const out = run(kernels["embedding.forward"], [integers([2, 2], [2, 0, 1, 1]), weight])[0]!
    expect(out.shape).toEqual([2, 2, 2])
    expect([...out.data]).toEqual([5, 6, 1, 2, 3, 4, 3, 4])
    const placed = run(kernels["position_add.forward"], [out, weight], { offset: 1 })[0]!
    expect([...placed.data]).toEqual([8, 10, 6, 8, 6, 8, 8, 10])
    expect(() => run(kernels["position_add.forward"], [out, weight], { offset: 2 })).toThrow(
      /4 positions of 3/
    )
    expect(() => run(kernels["embedding.forward"], [integers([1], [3]), weight])).toThrow(
      /token 3 outside the vocabulary of 3/
    )
  })
})

describe("normalisation", () => {
  it("layer_norm gives rows of mean 0 and variance 1, rms_norm rows of mean square 1", () => {
    fc.assert(
      fc.property(seed, extent, fc.integer({ min: 2, max: 8 }), (seed, rows, width) => {
        const next = numbers(seed)
        const inp = random(next, [rows, width], 10)
        const [one, none] = [Array.from({ length: width }, () => 1), Array.from({ length: width }, () => 0)]
        const weight = floats([width], one)
        const layer = run(kernels["layer_norm.forward"], [inp, weight, floats([width], none)], {
          epsilon: 0
        })[0]!
        const rms = run(kernels["rms_norm.forward"], [inp, weight], { epsilon: 0 })[0]!
        for (let row = 0; row < rows; row++) {
          const mean = (values: ReadonlyArray<number>) => values.reduce((a, b) => a + b, 0) / width
          const of = ({ data }: Value) => Array.from(data.subarray(row * width, (row + 1) * width))
          expect(mean(of(layer))).toBeCloseTo(0, 9)
          expect(mean(of(layer).map((x) => x * x))).toBeCloseTo(1, 9)
          expect(mean(of(rms).map((x) => x * x))).toBeCloseTo(1, 9)
        }
      })
    )
  })
})

describe("activations", () => {
  it("gelu equals GPT-2's values", () => {
    // torch.nn.functional.gelu(x, approximate="tanh") of -1, 0, 1, 3, as PyTorch prints them
    const out = run(kernels["gelu.forward"], [floats([4], [-1, 0, 1, 3])])[0]!
    expectClose(out.data, [-0.1588, 0, 0.8412, 2.9964], 5e-5)
  })

  it("swiglu is silu(gate) * up", () => {
    // silu(1) = 1 / (1 + e^-1) = 0.7310585786, silu(-2) = -2 / (1 + e^2) = -0.2384058440
    const out = run(kernels["swiglu.forward"], [floats([2], [1, -2]), floats([2], [2, 10])])[0]!
    expectClose(out.data, [1.4621171573, -2.38405844], 1e-9)
    const packed = run(kernels["swiglu.forward"], [floats([4], [1, -2, 2, 10])], { packed: true })[0]!
    expect([...packed.data]).toEqual([...out.data])
  })
})

describe("softmax and cross-entropy", () => {
  it("rows sum to one, are not negative and do not change with a shift, however large the inputs", () => {
    let large = 0
    fc.assert(
      fc.property(seed, extent, extent, fc.constantFrom(1, 30, 1e4), (seed, rows, width, size) => {
        if (size === 1e4) large++
        const inp = random(numbers(seed), [rows, width], size)
        const probs = run(kernels["softmax.forward"], [inp])[0]!.data
        for (let row = 0; row < rows; row++) {
          let sum = 0
          for (let c = 0; c < width; c++) {
            expect(probs[row * width + c]).toBeGreaterThanOrEqual(0)
            sum += probs[row * width + c]!
          }
          expect(sum).toBeCloseTo(1, 12)
        }
        const shifted = { shape: inp.shape, data: Float64Array.from(inp.data, (x) => x + 1024) }
        expectClose(run(kernels["softmax.forward"], [shifted])[0]!.data, probs, 1e-9)
      })
    )
    expect(large).toBeGreaterThan(10)
  })

  it("the loss of uniform logits is log(vocabulary), and of ignored rows only NaN", () => {
    const logits = floats(
      [2, 5],
      Array.from({ length: 10 }, () => 3)
    )
    const loss = (targets: ReadonlyArray<number>) =>
      run(kernels["softmax_cross_entropy.forward"], [logits, integers([2], targets)])[0]!.data[0]!
    expect(loss([0, 4])).toBeCloseTo(Math.log(5), 12)
    expect(loss([-100, -100])).toBeNaN()
    expect(() => loss([0, 5])).toThrow(/target 5 outside the vocabulary of 5/)
  })
})

describe("rope", () => {
  const headWidth = 6

  it("preserves the norm of every head, and is the identity at position 0", () => {
    fc.assert(
      fc.property(seed, extent, extent, fc.integer({ min: 0, max: 1000 }), (seed, time, heads, offset) => {
        const inp = random(numbers(seed), [1, time, heads * headWidth])
        const out = run(kernels["rope.forward"], [inp], { headWidth, offset })[0]!
        for (let head = 0; head < time * heads; head++) {
          const norm = ({ data }: Value) =>
            Array.from(data.subarray(head * headWidth, (head + 1) * headWidth)).reduce(
              (sum, x) => sum + x * x,
              0
            )
          expect(norm(out)).toBeCloseTo(norm(inp), 12)
        }
        if (offset === 0) {
          expect([...out.data.subarray(0, heads * headWidth)]).toEqual([
            ...inp.data.subarray(0, heads * headWidth)
          ])
        }
        const back = run(kernels["rope.backward"], [out], { headWidth, offset })[0]!
        expectClose(back.data, inp.data, 1e-12)
      })
    )
  })

  it("makes q . k depend on the distance alone", () => {
    const position = fc.integer({ min: 0, max: 50 })
    fc.assert(
      fc.property(seed, position, position, position, (seed, query, key, shift) => {
        const next = numbers(seed)
        const [q, k] = [random(next, [1, 1, headWidth]), random(next, [1, 1, headWidth])]
        const score = (at: number, other: number): number => {
          const a = run(kernels["rope.forward"], [q], { headWidth, offset: at })[0]!.data
          const b = run(kernels["rope.forward"], [k], { headWidth, offset: other })[0]!.data
          let sum = 0
          for (let i = 0; i < headWidth; i++) sum += a[i]! * b[i]!
          return sum
        }
        expect(score(query + shift, key + shift)).toBeCloseTo(score(query, key), 10)
      })
    )
  })

  it("pairs element i with i + half, at the angle position * base^(-2i / width)", () => {
    // position 1, headWidth 4, base 100: angles 1 and 1/10; x = e0 + e3 -> [cos 1, -sin .1, sin 1, cos .1]
    const out = run(kernels["rope.forward"], [floats([1, 1, 4], [1, 0, 0, 1])], {
      headWidth: 4,
      base: 100,
      offset: 1
    })[0]!
    expectClose(out.data, [0.5403023059, -0.0998334166, 0.8414709848, 0.9950041653], 1e-9)
    expect(() => run(kernels["rope.forward"], [floats([1, 1, 3], [1, 2, 3])], { headWidth: 3 })).toThrow(
      /even/
    )
  })
})

describe("attention", () => {
  const cases = fc.record({
    seed,
    batch: fc.integer({ min: 1, max: 2 }),
    time: fc.integer({ min: 1, max: 6 }),
    kvHeads: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 3 })
  })
  const headWidth = 4

  it("does not let later tokens change earlier outputs", () => {
    let looked = 0
    fc.assert(
      fc.property(cases, fc.nat(5), ({ seed, batch, time, kvHeads, group }, at) => {
        const next = numbers(seed)
        const attributes = { heads: kvHeads * group, kvHeads, headWidth, packed: true }
        const width = kvHeads * group * headWidth
        const rowWidth = (kvHeads * group + 2 * kvHeads) * headWidth
        const qkv = random(next, [batch, time, rowWidth])
        const cut = Math.min(at, time - 1)
        const changed = { shape: qkv.shape, data: qkv.data.slice() }
        for (let b = 0; b < batch; b++) {
          for (let i = (b * time + cut) * rowWidth; i < (b + 1) * time * rowWidth; i++)
            changed.data[i] = 9 * next()
        }
        const [before] = run(kernels["attention.forward"], [qkv], attributes)
        const [after] = run(kernels["attention.forward"], [changed], attributes)
        for (let b = 0; b < batch; b++) {
          const rows = ({ data }: Value) => [...data.subarray(b * time * width, (b * time + cut) * width)]
          expect(rows(after!)).toEqual(rows(before!))
        }
        if (cut > 0) looked++
      })
    )
    expect(looked).toBeGreaterThan(40)
  })

  it("with grouped heads equals multi-head attention over repeated keys and values", () => {
    let grouped = 0
    fc.assert(
      fc.property(cases, fc.boolean(), ({ seed, batch, time, kvHeads, group }, causal) => {
        const next = numbers(seed)
        const heads = kvHeads * group
        const q = random(next, [batch, time, heads * headWidth])
        const [k, v] = [0, 1].map(() => random(next, [batch, time, kvHeads * headWidth])) as [Value, Value]
        const repeated = ({ data }: Value): Value => {
          const all = new Float64Array(batch * time * heads * headWidth)
          for (let row = 0; row < batch * time; row++) {
            for (let h = 0; h < heads; h++) {
              const from = (row * kvHeads + Math.floor(h / group)) * headWidth
              all.set(data.subarray(from, from + headWidth), (row * heads + h) * headWidth)
            }
          }
          return { shape: q.shape, data: all }
        }
        const one = run(kernels["attention.forward"], [q, k, v], { heads, kvHeads, headWidth, causal })
        const other = run(kernels["attention.forward"], [q, repeated(k), repeated(v)], {
          heads,
          kvHeads: heads,
          headWidth,
          causal
        })
        expect([...one[0]!.data]).toEqual([...other[0]!.data])
        if (group > 1) grouped++
      })
    )
    expect(grouped).toBeGreaterThan(30)
  })

  it("packed equals apart, and decoding with earlier keys equals the last row of the whole", () => {
    fc.assert(
      fc.property(cases, ({ seed, batch, time, kvHeads, group }) => {
        const next = numbers(seed)
        const heads = kvHeads * group
        const attributes = { heads, kvHeads, headWidth }
        const [width, kvWidth] = [heads * headWidth, kvHeads * headWidth]
        const [q, k, v] = [
          random(next, [batch, time, width]),
          random(next, [batch, time, kvWidth]),
          random(next, [batch, time, kvWidth])
        ] as const
        const qkv = random(next, [batch, time, width + 2 * kvWidth])
        for (let row = 0; row < batch * time; row++) {
          const at = row * (width + 2 * kvWidth)
          qkv.data.set(q.data.subarray(row * width, (row + 1) * width), at)
          qkv.data.set(k.data.subarray(row * kvWidth, (row + 1) * kvWidth), at + width)
          qkv.data.set(v.data.subarray(row * kvWidth, (row + 1) * kvWidth), at + width + kvWidth)
        }
        const whole = run(kernels["attention.forward"], [q, k, v], attributes)
        const packed = run(kernels["attention.forward"], [qkv], { ...attributes, packed: true })
        expect([...packed[0]!.data]).toEqual([...whole[0]!.data])
        for (let b = 0; b < batch; b++) {
          const last = (b + 1) * time - 1
          const one = (x: Value, from: number, rows: number, w: number): Value => ({
            shape: [1, rows, w],
            data: x.data.slice(from * w, (from + rows) * w)
          })
          const decoded = run(
            kernels["attention.forward"],
            [one(q, last, 1, width), one(k, b * time, time, kvWidth), one(v, b * time, time, kvWidth)],
            attributes
          )
          expect([...decoded[0]!.data]).toEqual([
            ...whole[0]!.data.subarray(last * width, (last + 1) * width)
          ])
        }
      })
    )
  })

  it("of equal scores is the mean of the values", () => {
    const zeros = floats([1, 2, 2], [0, 0, 0, 0])
    const out = run(kernels["attention.forward"], [zeros, zeros, floats([1, 2, 2], [2, 4, 6, 8])], {
      heads: 1,
      kvHeads: 1,
      headWidth: 2
    })
    expect([...out[0]!.data]).toEqual([2, 4, 4, 6])
    expectClose(out[1]!.data, [0, Math.log(2)], 1e-15)
  })
})

describe("mixture of experts", () => {
  it("the gate chooses the largest logits, ties to the lower index", () => {
    const logits = floats([3, 4], [1, 3, 3, 0, 2, 2, 2, 2, -1, 0, 5, 6])
    const [weights, chosen, probs] = run(kernels["topk_gate.forward"], [logits], { topK: 2 }) as [
      Value,
      Value,
      Value
    ]
    expect([...chosen.data]).toEqual([1, 2, 0, 1, 3, 2])
    // normalised weights of the last row: 1 / (1 + e^-1) and its complement
    expectClose(weights.data, [0.5, 0.5, 0.5, 0.5, 0.7310585786, 0.2689414214], 1e-9)
    for (let row = 0; row < 3; row++) {
      expect(Array.from(probs.data.subarray(4 * row, 4 * row + 4)).reduce((a, b) => a + b, 0)).toBeCloseTo(
        1,
        12
      )
    }
    expect(() => run(kernels["topk_gate.forward"], [logits], { topK: 5 })).toThrow(/top 5 of 4/)
  })

  it("breaks generated ties to the lower index", () => {
    let tied = 0
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 3, maxLength: 8 }), (logits) => {
        const topK = 3
        const chosen = run(kernels["topk_gate.forward"], [floats([logits.length], logits)], { topK })[1]!
        const order = [...logits.keys()].toSorted((a, b) => logits[b]! - logits[a]! || a - b)
        expect([...chosen.data]).toEqual(order.slice(0, topK))
        if (new Set(logits).size < logits.length) tied++
      })
    )
    expect(tied).toBeGreaterThan(30)
  })

  it("the permutation is stable, sorted by expert, and complete", () => {
    fc.assert(
      fc.property(seed, extent, fc.integer({ min: 1, max: 3 }), (seed, tokens, topK) => {
        const chosen = randomIntegers(numbers(seed), [tokens, topK], 4)
        const [slots, counts] = run(kernels.moe_permutation, [chosen], { experts: 4 }) as [Value, Value]
        const order = [...chosen.data.keys()].toSorted((a, b) => chosen.data[a]! - chosen.data[b]! || a - b)
        expect(order.map((assignment) => slots.data[assignment])).toEqual([...order.keys()])
        expect([...counts.data]).toEqual([0, 1, 2, 3].map((e) => chosen.data.filter((x) => x === e).length))
      })
    )
  })

  it("dispatch, grouped experts and combine equal running every token's experts one by one", () => {
    fc.assert(
      fc.property(seed, extent, extent, (seed, tokens, width) => {
        const next = numbers(seed)
        const [experts, topK, outWidth] = [3, 2, 4]
        const inp = random(next, [tokens, width])
        const weight = random(next, [experts, outWidth, width])
        const gate = run(kernels["topk_gate.forward"], [random(next, [tokens, experts])], { topK })
        const [weights, chosen] = gate as [Value, Value, Value]
        const [slots, counts] = run(kernels.moe_permutation, [chosen], { experts }) as [Value, Value]
        const rows = run(kernels["moe_dispatch.forward"], [inp, slots], { topK })[0]!
        const outputs = run(kernels["grouped_linear.forward"], [rows, weight, counts])[0]!
        const out = run(kernels["moe_combine.forward"], [outputs, weights, slots], { topK })[0]!
        for (let token = 0; token < tokens; token++) {
          const one = { shape: [1, width], data: inp.data.slice(token * width, (token + 1) * width) }
          const expected = new Float64Array(outWidth)
          for (let k = 0; k < topK; k++) {
            const expert = chosen.data[token * topK + k]!
            const at = expert * outWidth * width
            const own = { shape: [outWidth, width], data: weight.data.slice(at, at + outWidth * width) }
            const y = run(kernels["linear.forward"], [one, own])[0]!
            for (let o = 0; o < outWidth; o++) expected[o]! += weights.data[token * topK + k]! * y.data[o]!
          }
          expectClose(out.data.slice(token * outWidth, (token + 1) * outWidth), expected, 1e-12)
        }
      })
    )
  })

  it("rejects counts that do not add up", () => {
    const call = (counts: ReadonlyArray<number>) =>
      run(kernels["grouped_linear.forward"], [
        floats([2, 1], [1, 2]),
        floats([2, 1, 1], [1, 2]),
        integers([2], counts)
      ])
    expect([...call([1, 1])[0]!.data]).toEqual([1, 4])
    for (const counts of [
      [1, 0],
      [2, 1],
      [3, -1]
    ]) {
      expect(() => call(counts)).toThrow(/counts .* for 2 rows/)
    }
  })
})

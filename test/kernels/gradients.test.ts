// Every backward kernel against central finite differences of its forward kernel, in float64.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Attributes, Kernel } from "../../core/kernels/kernel.ts"
import {
  differences,
  expectClose,
  integers,
  numbers,
  random,
  randomIntegers,
  run,
  type Value
} from "./run.ts"
import { expertParallel } from "./moe-values.ts"

const tolerance = 1e-7
const covered = new Set<string>()

const backward = (kernel: Kernel, inputs: ReadonlyArray<Value>, attributes: Attributes = {}) => {
  covered.add(kernel.name)
  return run(kernel, inputs, attributes).map(({ data }) => data)
}

/** Gradients with respect to chosen inputs of the forward kernel's first output, weighted by `dout`. */
const numeric = (
  kernel: Kernel,
  inputs: ReadonlyArray<Value>,
  wanted: ReadonlyArray<number>,
  dout: Value,
  attributes: Attributes = {}
) =>
  wanted.map((index) =>
    differences(inputs[index]!.data, () => run(kernel, inputs, attributes)[0]!.data, dout.data)
  )

const extent = fc.integer({ min: 1, max: 4 })
const seed = fc.integer({ min: 1, max: 1e6 })
/** Runs `body` for generated seeds and three small extents. */
const forSizes = (body: (next: () => number, a: number, b: number, c: number) => void) =>
  fc.assert(
    fc.property(seed, extent, extent, extent, (seed, a, b, c) => body(numbers(seed), a, b, c)),
    { numRuns: 15 }
  )

/** Same call with `accumulate`: the result must be the plain gradient plus what was there. */
const expectAccumulates = (kernel: Kernel, inputs: ReadonlyArray<Value>, attributes: Attributes = {}) => {
  const plain = run(kernel, inputs, { ...attributes, accumulate: false })
  const before = plain.map(({ shape }) => random(numbers(7), shape))
  const sums = run(kernel, [...inputs, ...before], { ...attributes, accumulate: true })
  for (const [i, { data }] of sums.entries()) {
    expectClose(
      data,
      plain[i]!.data.map((value: number, j: number) => value + before[i]!.data[j]!),
      1e-12
    )
  }
}

// In order: the last test looks at what those before it have covered.
describe("backward kernels equal finite differences of forward kernels", { shuffle: false }, () => {
  it("embedding", () => {
    let repeated = 0
    forSizes((next, batch, time, width) => {
      const tokens = randomIntegers(next, [batch, time], 3)
      if (new Set(tokens.data).size < tokens.data.length) repeated++
      const inputs = [tokens, random(next, [3, width])]
      const dout = random(next, [batch, time, width])
      const [expected] = numeric(kernels["embedding.forward"], inputs, [1], dout)
      const attributes = { vocabulary: 3 }
      const [dweight] = backward(kernels["embedding.backward_weight"], [dout, tokens], attributes)
      expectClose(dweight!, expected!, tolerance)
      expectAccumulates(kernels["embedding.backward_weight"], [dout, tokens], attributes)
    })
    expect(repeated).toBeGreaterThan(3)
  })

  it("position_add", () => {
    forSizes((next, batch, time, width) => {
      const attributes = { offset: 1 }
      const inputs = [random(next, [batch, time, width]), random(next, [time + 2, width])]
      const dout = random(next, [batch, time, width])
      const [dinp, dweight] = numeric(kernels["position_add.forward"], inputs, [0, 1], dout, attributes)
      expectClose(dinp!, dout.data, tolerance)
      const all = { ...attributes, positions: time + 2 }
      const [actual] = backward(kernels["position_add.backward_weight"], [dout], all)
      expectClose(actual!, dweight!, tolerance)
      expectAccumulates(kernels["position_add.backward_weight"], [dout], all)
    })
  })

  it("layer_norm", () => {
    forSizes((next, rows, more, width) => {
      const [inp, weight, bias] = [
        random(next, [rows, more, width], 2),
        random(next, [width]),
        random(next, [width])
      ]
      const dout = random(next, inp.shape)
      // a large epsilon keeps rows of one or two nearly equal elements smooth enough for differences
      const attributes = { epsilon: 0.1 }
      const kernel = kernels["layer_norm.forward"]
      const [dinp, dweight, dbias] = numeric(kernel, [inp, weight, bias], [0, 1, 2], dout, attributes)
      const [, mean, rstd] = run(kernel, [inp, weight, bias], attributes) as [Value, Value, Value]
      const [actual] = backward(kernels["layer_norm.backward_input"], [dout, inp, weight, mean, rstd])
      expectClose(actual!, dinp!, tolerance)
      const parameters = backward(kernels["layer_norm.backward_weight"], [dout, inp, mean, rstd])
      expectClose(parameters[0]!, dweight!, tolerance)
      expectClose(parameters[1]!, dbias!, tolerance)
      expectAccumulates(kernels["layer_norm.backward_weight"], [dout, inp, mean, rstd])
    })
  })

  it("rms_norm", () => {
    forSizes((next, rows, more, width) => {
      const [inp, weight] = [random(next, [rows, more, width], 2), random(next, [width])]
      const dout = random(next, inp.shape)
      const attributes = { epsilon: 0.1 }
      const [dinp, dweight] = numeric(kernels["rms_norm.forward"], [inp, weight], [0, 1], dout, attributes)
      const rstd = run(kernels["rms_norm.forward"], [inp, weight], attributes)[1]!
      expectClose(
        backward(kernels["rms_norm.backward_input"], [dout, inp, weight, rstd])[0]!,
        dinp!,
        tolerance
      )
      expectClose(backward(kernels["rms_norm.backward_weight"], [dout, inp, rstd])[0]!, dweight!, tolerance)
      expectAccumulates(kernels["rms_norm.backward_weight"], [dout, inp, rstd])
    })
  })

  it("linear, with and without bias", () => {
    forSizes((next, rows, width, outWidth) => {
      const inputs = [
        random(next, [2, rows, width]),
        random(next, [outWidth, width]),
        random(next, [outWidth])
      ]
      const dout = random(next, [2, rows, outWidth])
      for (const bias of [false, true]) {
        const given = bias ? inputs : inputs.slice(0, 2)
        const expected = numeric(kernels["linear.forward"], given, bias ? [0, 1, 2] : [0, 1], dout)
        const [dinp] = backward(kernels["linear.backward_input"], [dout, inputs[1]!])
        expectClose(dinp!, expected[0]!, tolerance)
        const parameters = backward(kernels["linear.backward_weight"], [dout, inputs[0]!], { bias })
        expect(parameters.length).toBe(bias ? 2 : 1)
        for (const [i, actual] of parameters.entries()) expectClose(actual, expected[1 + i]!, tolerance)
        expectAccumulates(kernels["linear.backward_weight"], [dout, inputs[0]!], { bias })
      }
    })
  })

  it("rope", () => {
    forSizes((next, batch, time, heads) => {
      const attributes = { headWidth: 4, base: 100, offset: 3 }
      const inp = random(next, [batch, time, heads * 4])
      const dout = random(next, inp.shape)
      const [dinp] = numeric(kernels["rope.forward"], [inp], [0], dout, attributes)
      expectClose(backward(kernels["rope.backward"], [dout], attributes)[0]!, dinp!, tolerance)
    })
  })

  it("attention: grouped, packed, causal or not, with earlier keys", () => {
    const seen = { grouped: 0, packed: 0, full: 0, cached: 0 }
    const cases = fc.record({
      seed,
      batch: fc.integer({ min: 1, max: 2 }),
      time: extent,
      earlier: fc.integer({ min: 0, max: 2 }),
      kvHeads: fc.integer({ min: 1, max: 2 }),
      group: fc.integer({ min: 1, max: 2 }),
      packed: fc.boolean(),
      causal: fc.boolean()
    })
    fc.assert(
      fc.property(cases, ({ seed, batch, time, earlier, kvHeads, group, packed, causal }) => {
        const next = numbers(seed)
        const attributes = { heads: kvHeads * group, kvHeads, headWidth: 3, packed, causal }
        const [width, kvWidth] = [3 * kvHeads * group, 3 * kvHeads]
        const context = packed ? time : time + earlier
        const operands = packed
          ? [random(next, [batch, time, width + 2 * kvWidth], 2)]
          : [
              random(next, [batch, time, width], 2),
              random(next, [batch, context, kvWidth], 2),
              random(next, [batch, context, kvWidth], 2)
            ]
        if (group > 1) seen.grouped++
        if (packed) seen.packed++
        if (!causal) seen.full++
        if (context > time) seen.cached++
        const dout = random(next, [batch, time, width])
        const forward = kernels["attention.forward"]
        const expected = numeric(forward, operands, [...operands.keys()], dout, attributes)
        const [out, lse] = run(forward, operands, attributes) as [Value, Value]
        const actual = backward(kernels["attention.backward"], [dout, ...operands, out, lse], attributes)
        expect(actual.length).toBe(operands.length)
        for (const [i, gradient] of actual.entries()) expectClose(gradient, expected[i]!, tolerance)
      }),
      { numRuns: 60 }
    )
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(5)
  })

  it("gelu", () => {
    forSizes((next, a, b) => {
      const inp = random(next, [a, b], 4)
      const dout = random(next, [a, b])
      const [dinp] = numeric(kernels["gelu.forward"], [inp], [0], dout)
      expectClose(backward(kernels["gelu.backward"], [inp, dout])[0]!, dinp!, tolerance)
    })
  })

  it("swiglu, packed and apart", () => {
    forSizes((next, a, b, width) => {
      const dout = random(next, [a, b, width])
      const apart = [random(next, [a, b, width], 4), random(next, [a, b, width], 4)]
      const expected = numeric(kernels["swiglu.forward"], apart, [0, 1], dout)
      const actual = backward(kernels["swiglu.backward"], [...apart, dout])
      for (const i of [0, 1]) expectClose(actual[i]!, expected[i]!, tolerance)
      const packed = [random(next, [a, b, 2 * width], 4)]
      const [dpacked] = numeric(kernels["swiglu.forward"], packed, [0], dout, { packed: true })
      expectClose(
        backward(kernels["swiglu.backward"], [...packed, dout], { packed: true })[0]!,
        dpacked!,
        tolerance
      )
    })
  })

  it("residual", () => {
    forSizes((next, a, b) => {
      const inputs = [random(next, [a, b]), random(next, [a, b])]
      const dout = random(next, [a, b])
      const expected = numeric(kernels["residual.forward"], inputs, [0, 1], dout)
      const actual = backward(kernels["residual.backward"], [dout])
      for (const i of [0, 1]) expectClose(actual[i]!, expected[i]!, tolerance)
    })
  })

  it("softmax", () => {
    forSizes((next, a, b, width) => {
      const inp = random(next, [a, b, width], 3)
      const dout = random(next, inp.shape)
      const [dinp] = numeric(kernels["softmax.forward"], [inp], [0], dout)
      const probs = run(kernels["softmax.forward"], [inp])[0]!
      expectClose(backward(kernels["softmax.backward"], [dout, probs])[0]!, dinp!, tolerance)
    })
  })

  it("softmax_cross_entropy, with ignored targets, fused and apart", () => {
    let ignored = 0
    forSizes((next, batch, time, more) => {
      const vocabulary = more + 1
      const logits = random(next, [batch, time, vocabulary], 3)
      const targets = randomIntegers(next, [batch, time], vocabulary)
      if (batch * time > 2) {
        targets.data[1] = -100
        ignored++
      }
      const scale = 3
      const one = { shape: [], data: Float64Array.of(scale) }
      const [dlogits] = numeric(kernels["softmax_cross_entropy.forward"], [logits, targets], [0], one)
      const apart = backward(kernels["softmax_cross_entropy.backward"], [logits, targets], { scale })
      expectClose(apart[0]!, dlogits!, tolerance)
      const fused = run(kernels["softmax_cross_entropy.fused"], [logits, targets], { scale })
      expectClose(fused[1]!.data, dlogits!, tolerance)
      const [loss] = run(kernels["softmax_cross_entropy.forward"], [logits, targets])
      expect(fused[0]!.data[0]).toBe(loss!.data[0])
      // in place, as the fused classifier is used
      const inPlace = logits.data.slice()
      kernels["softmax_cross_entropy.fused"].reference!(
        [inPlace, targets.data],
        [new Float64Array(1), inPlace],
        { scale },
        { inputs: [logits.shape, targets.shape], outputs: [[], logits.shape] }
      )
      expect([...inPlace]).toEqual([...fused[1]!.data])
    })
    expect(ignored).toBeGreaterThan(2)
  })

  it("topk_gate, normalised or not", () => {
    forSizes((next, a, b, topK) => {
      // distinct logits with gaps far above the difference step, so that no choice flips
      const experts = topK + 2
      const logits = random(next, [a, b, experts], 0.01)
      for (let i = 0; i < logits.data.length; i++) logits.data[i]! += ((i * 7) % experts) * 0.5
      const dweights = random(next, [a, b, topK])
      for (const normalize of [true, false]) {
        const attributes = { topK, normalize }
        const [dlogits] = numeric(kernels["topk_gate.forward"], [logits], [0], dweights, attributes)
        const [, chosen, probs] = run(kernels["topk_gate.forward"], [logits], attributes) as [
          Value,
          Value,
          Value
        ]
        const [actual] = backward(kernels["topk_gate.backward"], [dweights, probs, chosen], attributes)
        expectClose(actual!, dlogits!, tolerance)
      }
    })
  })

  it("moe_dispatch and moe_combine", () => {
    forSizes((next, a, b, width) => {
      const topK = 2
      const chosen = randomIntegers(next, [a, b, topK], 3)
      const slots = run(kernels.moe_permutation, [chosen], { experts: 3 })[0]!
      const inp = random(next, [a, b, width])
      const rows = [topK * a * b, width]
      const attributes = { topK }
      const drows = random(next, rows)
      const [dinp] = numeric(kernels["moe_dispatch.forward"], [inp, slots], [0], drows, attributes)
      expectClose(
        backward(kernels["moe_dispatch.backward"], [drows, slots], attributes)[0]!,
        dinp!,
        tolerance
      )

      const [outputs, weights] = [random(next, rows), random(next, [a, b, topK])]
      const dout = random(next, [a, b, width])
      const combine = [outputs, weights, slots]
      const expected = numeric(kernels["moe_combine.forward"], combine, [0, 1], dout, attributes)
      const toInput = backward(kernels["moe_combine.backward_input"], [dout, weights, slots], attributes)
      expectClose(toInput[0]!, expected[0]!, tolerance)
      const toGate = backward(kernels["moe_combine.backward_gate"], [dout, outputs, slots], attributes)
      expectClose(toGate[0]!, expected[1]!, tolerance)
    })
  })

  it("grouped_linear, with experts that get nothing", () => {
    let idle = 0
    forSizes((next, assignments, width, outWidth) => {
      const counts = [0, 0, 0]
      for (let i = 0; i < assignments; i++) counts[Math.floor(((next() + 1) / 2) * 3) % 3]!++
      if (counts.includes(0)) idle++
      const inputs = [
        random(next, [assignments, width]),
        random(next, [3, outWidth, width]),
        integers([3], counts)
      ] as const
      const dout = random(next, [assignments, outWidth])
      const [dinp, dweight] = numeric(kernels["grouped_linear.forward"], inputs, [0, 1], dout)
      const toInput = backward(kernels["grouped_linear.backward_input"], [dout, inputs[1], inputs[2]])
      expectClose(toInput[0]!, dinp!, tolerance)
      const weightInputs = [dout, inputs[0], inputs[2]]
      expectClose(backward(kernels["grouped_linear.backward_weight"], weightInputs)[0]!, dweight!, tolerance)
      expectAccumulates(kernels["grouped_linear.backward_weight"], weightInputs)
    })
    expect(idle).toBeGreaterThan(3)
  })

  it("leaves no backward kernel of the catalogue out", () => {
    // Gates and orders of expert-parallel layers have a file of their own: moe-gradients.test.ts.
    // Composites are their parts: test/models/fuse.test.ts.
    const all = Object.values<Kernel>(kernels)
      .filter(({ expand }) => expand === undefined)
      .map(({ name }) => name)
      .filter((name) => name.includes(".backward") && !expertParallel.test(name))
    expect([...covered].toSorted()).toEqual(all.toSorted())
  })
})

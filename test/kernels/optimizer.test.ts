// Optimizer kernels against PyTorch's documented update rules, written out again here as plain scalar code, and against
// numbers worked out by hand.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { expectClose, floats, numbers, random, run, type Value } from "./run.ts"

const scalar = (x: number): Value => floats([1], [x])
const seed = fc.integer({ min: 1, max: 1e6 })
const rate = fc.double({ min: 1e-4, max: 1, noNaN: true })
const share = fc.double({ min: 0.05, max: 0.99, noNaN: true })

describe("adamw", () => {
  it("gives the numbers worked out by hand", () => {
    // param 1, grad 0.5, lr 0.1, betas 0.9 0.999, eps 0, weight decay 0.01:
    // step 1: param 1 * (1 - 0.001) = 0.999; m = 0.05, m^ = 0.5; v = 0.00025, v^ = 0.25; 0.999 - 0.1 * 0.5 / 0.5 = 0.899
    const attributes = { learningRate: 0.1, epsilon: 0, weightDecay: 0.01 }
    const [param, m, v] = run(kernels.adamw, [scalar(1), scalar(0.5), scalar(0), scalar(0)], {
      ...attributes,
      step: 1
    }) as [Value, Value, Value]
    expectClose(param.data, [0.899], 1e-14)
    expectClose(m.data, [0.05], 1e-16)
    expectClose(v.data, [0.00025], 1e-16)
    // step 2, grad -1: param 0.899 * 0.999 = 0.898101; m = 0.045 - 0.1 = -0.055, m^ = -0.055 / 0.19;
    // v = 0.00024975 + 0.001 = 0.00124975, v^ = v / 0.001999 = 0.625187593797; 0.1 * m^ / sqrt(v^) = -0.036610352704
    const second = run(kernels.adamw, [param, scalar(-1), m, v], { ...attributes, step: 2 })
    expectClose(second[0]!.data, [0.934711352704], 1e-11)
  })

  it("equals torch.optim.AdamW's documented algorithm over many steps", () => {
    fc.assert(
      fc.property(
        seed,
        rate,
        share,
        share,
        fc.constantFrom(0, 0.01, 0.1),
        (seed, learningRate, beta1, beta2, weightDecay) => {
          const next = numbers(seed)
          const epsilon = 1e-8
          let theta = next()
          let [m, v] = [0, 0]
          let state = [scalar(theta), scalar(0), scalar(0)]
          for (let step = 1; step <= 5; step++) {
            const g = next()
            // the documented algorithm, line by line, without amsgrad and maximize
            theta = theta - learningRate * weightDecay * theta
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g ** 2
            const mHat = m / (1 - beta1 ** step)
            const vHat = v / (1 - beta2 ** step)
            theta = theta - (learningRate * mHat) / (Math.sqrt(vHat) + epsilon)
            state = [
              ...run(kernels.adamw, [state[0]!, scalar(g), state[1]!, state[2]!], {
                learningRate,
                beta1,
                beta2,
                epsilon,
                weightDecay,
                step
              })
            ]
            expectClose(state[0]!.data, [theta], 1e-10)
          }
        }
      )
    )
  })

  it("works in place, and refuses step 0", () => {
    const next = numbers(5)
    const inputs = [random(next, [4]), random(next, [4]), random(next, [4]), floats([4], [1, 2, 3, 4])]
    const attributes = { learningRate: 0.1, step: 3 }
    const apart = run(kernels.adamw, inputs, attributes)
    const [params, , m, v] = inputs.map(({ data }) => data) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array
    ]
    const shapes = { inputs: inputs.map(({ shape }) => shape), outputs: [[4], [4], [4]] }
    kernels.adamw.reference!([params, inputs[1]!.data, m, v], [params, m, v], attributes, shapes)
    expect([[...params], [...m], [...v]]).toEqual(apart.map(({ data }) => [...data]))
    expect(() => run(kernels.adamw, inputs, { learningRate: 0.1, step: 0 })).toThrow(/first step is 1/)
  })
})

/** torch.optim.SGD's documented algorithm for one scalar. */
const torchSgd = (
  gradients: ReadonlyArray<number>,
  start: number,
  o: { lr: number; momentum: number; dampening: number; weightDecay: number; nesterov: boolean }
): ReadonlyArray<number> => {
  let theta = start
  let b = 0
  return gradients.map((gradient, index) => {
    let g = gradient
    if (o.weightDecay !== 0) g = g + o.weightDecay * theta
    if (o.momentum !== 0) {
      b = index > 0 ? o.momentum * b + (1 - o.dampening) * g : g
      g = o.nesterov ? g + o.momentum * b : b
    }
    theta = theta - o.lr * g
    return theta
  })
}

describe("sgd", () => {
  it("equals torch.optim.SGD's documented algorithm", () => {
    const seen = { plain: 0, nesterov: 0, dampened: 0, decayed: 0 }
    fc.assert(
      fc.property(
        seed,
        rate,
        fc.constantFrom(0, 0.5, 0.9),
        fc.constantFrom(0, 0.3),
        fc.constantFrom(0, 0.1),
        fc.boolean(),
        (seed, lr, momentum, wantedDampening, weightDecay, wanted) => {
          const nesterov = wanted && momentum !== 0
          const dampening = nesterov ? 0 : wantedDampening
          if (momentum === 0) seen.plain++
          if (nesterov) seen.nesterov++
          if (dampening !== 0 && momentum !== 0) seen.dampened++
          if (weightDecay !== 0) seen.decayed++
          const next = numbers(seed)
          const start = next()
          const gradients = [next(), next(), next(), next()]
          const expected = torchSgd(gradients, start, { lr, momentum, dampening, weightDecay, nesterov })
          let [param, buffer] = [scalar(start), scalar(0)]
          for (const [index, gradient] of gradients.entries()) {
            const attributes = {
              learningRate: lr,
              momentum,
              dampening,
              weightDecay,
              nesterov,
              step: index + 1
            }
            const state = momentum === 0 ? [param, scalar(gradient)] : [param, scalar(gradient), buffer]
            const out = run(kernels.sgd, state, attributes)
            param = out[0]!
            if (momentum !== 0) buffer = out[1]!
            expectClose(param.data, [expected[index]!], 1e-12)
          }
        }
      )
    )
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(10)
    expect(() => run(kernels.sgd, [scalar(1), scalar(1)], { learningRate: 1, nesterov: true })).toThrow(
      /nesterov/
    )
  })
})

describe("outer_nesterov", () => {
  it("is torch.optim.SGD(nesterov=True) on delta = outer - inner", () => {
    // lr 0.7, momentum 0.9, outer 1, inner 0.8: delta 0.2, buffer 0.2, 1 - 0.7 * (0.2 + 0.18) = 0.734;
    // then inner 0.7: delta 0.034, buffer 0.214, 0.734 - 0.7 * (0.034 + 0.1926) = 0.57538
    const attributes = { learningRate: 0.7, momentum: 0.9 }
    let [outer, buffer] = [scalar(1), scalar(0)]
    for (const [inner, expected] of [
      [0.8, 0.734],
      [0.7, 0.57538]
    ] as const) {
      const delta = run(kernels.subtract, [outer, scalar(inner)])[0]!
      ;[outer, buffer] = run(kernels.outer_nesterov, [outer, buffer, delta], attributes) as [Value, Value]
      expectClose(outer.data, [expected], 1e-14)
    }
  })

  it("equals the documented algorithm over generated deltas", () => {
    fc.assert(
      fc.property(seed, rate, share, (seed, lr, momentum) => {
        const next = numbers(seed)
        const start = next()
        const deltas = [next(), next(), next()]
        const expected = torchSgd(deltas, start, {
          lr,
          momentum,
          dampening: 0,
          weightDecay: 0,
          nesterov: true
        })
        let [outer, buffer] = [scalar(start), scalar(0)]
        for (const [index, delta] of deltas.entries()) {
          ;[outer, buffer] = run(kernels.outer_nesterov, [outer, buffer, scalar(delta)], {
            learningRate: lr,
            momentum
          }) as [Value, Value]
          expectClose(outer.data, [expected[index]!], 1e-12)
        }
      })
    )
  })
})

describe("gradient clipping", () => {
  it("scales all gradients to the norm as torch.nn.utils.clip_grad_norm_, and leaves small ones alone", () => {
    const gradients = [floats([2], [3, 0]), floats([1, 1], [4])]
    const norm = run(kernels.squared_norm, gradients)[0]!
    expect(norm.data[0]).toBe(25)
    const clipped = run(kernels.clip_by_norm, [norm, ...gradients], { maxNorm: 1 })
    // 1 / (5 + 1e-6)
    expectClose(clipped[0]!.data, [3 / 5.000001, 0], 1e-15)
    expectClose(clipped[1]!.data, [4 / 5.000001], 1e-15)
    expect(clipped[1]!.shape).toEqual([1, 1])
    const kept = run(kernels.clip_by_norm, [norm, ...gradients], { maxNorm: 6 })
    expect([...kept[0]!.data, ...kept[1]!.data]).toEqual([3, 0, 4])
    expect(() => run(kernels.clip_by_norm, gradients, { maxNorm: 1 })).toThrow(/not a scalar/)
  })
})

describe("loss scaling", () => {
  const next = (sum: number, state: ReadonlyArray<number>, attributes = {}): ReadonlyArray<number> => [
    ...run(kernels.loss_scale, [floats([], [sum]), floats([4], state)], attributes)[0]!.data
  ]

  it("falls and skips where a gradient is not finite, and grows after as many steps as it says", () => {
    expect(next(Infinity, [1024, 1, 7, 2])).toEqual([512, 0, 0, 3])
    expect(next(NaN, [1024, 1, 7, 2], { backoffFactor: 0.25 })).toEqual([256, 0, 0, 3])
    expect(next(Infinity, [2 ** -24, 1, 7, 2])).toEqual([2 ** -24, 0, 0, 3])
    expect(next(4, [1024, 0, 7, 2])).toEqual([1024, 1 / 1024, 8, 2])
    expect(next(4, [1024, 0, 7, 2], { growthInterval: 8 })).toEqual([2048, 1 / 1024, 0, 2])
    // no further than float32 goes
    expect(next(4, [2 ** 127, 0, 7, 2], { growthInterval: 8 })).toEqual([2 ** 127, 2 ** -127, 0, 2])
  })

  it("clips by the norm that gradients have without it", () => {
    // a norm of 5 times 1024: 2 / (5 + 1e-6), and once more over 1024
    const [, factor] = next(25 * 1024 ** 2, [1024, 0, 0, 0], { maxNorm: 2 })
    expect(factor).toBeCloseTo(2 / 5.000001 / 1024, 12)
    expect(next(25 * 1024 ** 2, [1024, 0, 0, 0], { maxNorm: 6 })[1]).toBe(1 / 1024)
  })

  it("leaves an optimizer's state as it is in a skipped step, and the step uncounted", () => {
    const state = [scalar(1), scalar(0.25), scalar(0.5)] as const
    const [param, m, v] = state
    const attributes = { learningRate: 0.1, weightDecay: 0.1 }
    const scaling = (factor: number, skipped: number) => floats([4], [1024, factor, 0, skipped])
    const stepped = (gradient: number, factor: number, step: number, skipped: number) =>
      run(kernels.adamw, [param, scalar(gradient), m, v, scaling(factor, skipped)], {
        ...attributes,
        step,
        scaled: true
      }).map(({ data }) => data[0])
    expect(stepped(Infinity, 0, 5, 3)).toEqual([1, 0.25, 0.5])
    const usual = run(kernels.adamw, [param, scalar(0.5), m, v], { ...attributes, step: 2 })
    expect(stepped(512, 1 / 1024, 5, 3)).toEqual(usual.map(({ data }) => data[0]))
    // the first step that is taken begins the momentum
    const sgd = { ...attributes, momentum: 0.9, dampening: 0.5, scaled: true }
    const first = run(kernels.sgd, [param, scalar(512), scalar(9), scaling(1 / 1024, 3)], { ...sgd, step: 4 })
    expect(first[1]!.data[0]).toBe(0.5 + 0.1)
  })
})

describe("elementwise", () => {
  it("does the arithmetic its names say", () => {
    const [a, b] = [floats([3], [1, 2, 3]), floats([3], [10, 20, 40])]
    const value = (outputs: ReadonlyArray<Value>) => [...outputs[0]!.data]
    expect(value(run(kernels.add, [a, b]))).toEqual([11, 22, 43])
    expect(value(run(kernels.subtract, [b, a]))).toEqual([9, 18, 37])
    expect(value(run(kernels.scale, [a], { factor: -2 }))).toEqual([-2, -4, -6])
    expect(value(run(kernels.copy, [a]))).toEqual([1, 2, 3])
    expect(value(run(kernels.zero, [a]))).toEqual([0, 0, 0])
    expect(value(run(kernels.average, [a, b, b]))).toEqual([7, 14, 83 / 3])
    // Streaming DiLoCo's mixing with alpha = 0.25: 0.25 * local + 0.75 * global
    expect(value(run(kernels.lerp, [b, a], { weight: 0.25 }))).toEqual([7.75, 15.5, 30.75])
    for (const [weight, expected] of [
      [0, b],
      [1, a]
    ] as const) {
      expect(value(run(kernels.lerp, [b, a], { weight }))).toEqual([...expected.data])
    }
    for (const name of ["h2d", "d2h", "d2d"] as const) {
      expect(kernels[name].kind).toBe("copy")
      expect(value(run(kernels[name], [b]))).toEqual([10, 20, 40])
    }
  })
})

// Optimizer steps with PyTorch's semantics, in place: every state operand stands among the inputs and the outputs.
// Hyper-parameters are attributes, as is the number of the step (1 for the first); what changes from step to step may be given
// at each launch. SGD and AdamW step on any number of parameters in one launch. With `shadow` they also write the new parameters
// in a narrower dtype, which products read while the optimizer keeps the float32 ones. With `scaled` they read what `loss_scale` has
// made of the gradients' norm: by what gradients are to be multiplied, and how many steps were skipped so far; a step whose factor is
// 0 leaves everything as it is, and does not count.
import { overLists } from "./composite.ts"
import type { TensorData } from "../machine/tensor.ts"
import { defineKernel, flag, number } from "./kernel.ts"

/**
 * torch.optim.SGD. g = grad + weightDecay * param; with momentum: buffer = momentum * buffer + (1 - dampening) * g, except
 * buffer = g at step 1, and g = g + momentum * buffer (nesterov) or buffer; param -= learningRate * g.
 * The buffer operand is there exactly when momentum is not 0.
 */
const sgdOne = defineKernel({
  name: "sgd",
  signature:
    "params[...], grads[...], buffer[...]?momentum, scaling[4]?scaled" +
    " -> params[...], buffer[...]?momentum, shadow[...]?shadow",
  attributes: {
    learningRate: number(),
    momentum: number(0),
    dampening: number(0),
    weightDecay: number(0),
    nesterov: flag(false),
    shadow: flag(false),
    scaled: flag(false),
    /** Only tells the first step from the others; a buffer that starts at zero makes it matter for dampening alone. */
    step: number(2)
  },
  scalars: ["learningRate", "step"],
  swing: ({ momentum, shadow }) => [0, ...(momentum === 0 ? [] : [undefined]), ...(shadow ? [0] : [])],
  flops: ({ rows, a }) =>
    rows * (2 + (a.weightDecay === 0 ? 0 : 2) + (a.momentum === 0 ? 0 : 3 + (a.nesterov ? 2 : 0))),
  reference: (inputs, outputs, { rows, a }) => {
    const [params, grads, buffer] = inputs
    const [newParams, newBuffer] = outputs
    const shadow = a.shadow ? outputs[a.momentum === 0 ? 1 : 2] : undefined
    const { factor, skipped } = scalingOf(a.scaled ? inputs[a.momentum === 0 ? 2 : 3] : undefined)
    if (a.nesterov && (a.momentum === 0 || a.dampening !== 0)) {
      throw new RangeError("sgd: nesterov needs a momentum and zero dampening")
    }
    if (factor === 0) {
      newParams.set(params)
      if (a.momentum !== 0) newBuffer.set(buffer)
      shadow?.set(params)
      return
    }
    for (let i = 0; i < rows; i++) {
      let gradient = grads[i]! * factor + a.weightDecay * params[i]!
      if (a.momentum !== 0) {
        const moment =
          a.step - skipped === 1 ? gradient : a.momentum * buffer[i]! + (1 - a.dampening) * gradient
        newBuffer[i] = moment
        gradient = a.nesterov ? gradient + a.momentum * moment : moment
      }
      const param = params[i]! - a.learningRate * gradient
      newParams[i] = param
      if (shadow !== undefined) shadow[i] = param
    }
  }
})

export const sgd = overLists(sgdOne, ({ momentum = 0, scaled = false }) => ({
  inputs: (momentum === 0 ? 2 : 3) + (scaled === true ? 1 : 0)
}))

/**
 * torch.optim.AdamW (decoupled weight decay, arXiv:1711.05101): param *= 1 - learningRate * weightDecay;
 * m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g^2;
 * param -= learningRate * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + epsilon).
 */
const adamwOne = defineKernel({
  name: "adamw",
  signature:
    "params[...], grads[...], m[...], v[...], scaling[4]?scaled -> params[...], m[...], v[...], shadow[...]?shadow",
  attributes: {
    learningRate: number(),
    beta1: number(0.9),
    beta2: number(0.999),
    epsilon: number(1e-8),
    weightDecay: number(0.01),
    shadow: flag(false),
    scaled: flag(false),
    step: number()
  },
  scalars: ["learningRate", "step"],
  // Kingma and Ba (arXiv:1412.6980), section 2.1: what bounds a step whatever the gradient's size.
  swing: ({ learningRate, beta1, beta2, shadow }) => {
    const step = learningRate * Math.max(1, (1 - beta1) / Math.sqrt(1 - beta2))
    return [step, undefined, undefined, ...(shadow ? [step] : [])]
  },
  flops: ({ rows }) => 15 * rows,
  reference: ([params, grads, m, v, scaling], [newParams, newM, newV, shadow], { rows, a }) => {
    const { learningRate, beta1, beta2, epsilon, weightDecay, step } = a
    if (!(step >= 1)) throw new RangeError(`adamw: step is ${step}; the first step is 1`)
    const { factor, skipped } = scalingOf(a.scaled ? scaling : undefined)
    if (factor === 0) {
      newParams.set(params)
      newM.set(m)
      newV.set(v)
      if (a.shadow) shadow.set(params)
      return
    }
    const correction1 = 1 - beta1 ** (step - skipped)
    const correction2 = 1 - beta2 ** (step - skipped)
    for (let i = 0; i < rows; i++) {
      const gradient = grads[i]! * factor
      const first = beta1 * m[i]! + (1 - beta1) * gradient
      const second = beta2 * v[i]! + (1 - beta2) * gradient * gradient
      const decayed = params[i]! * (1 - learningRate * weightDecay)
      const denominator = Math.sqrt(second / correction2) + epsilon
      newM[i] = first
      newV[i] = second
      const param = decayed - (learningRate * (first / correction1)) / denominator
      newParams[i] = param
      if (a.shadow) shadow[i] = param
    }
  }
})

export const adamw = overLists(adamwOne, ({ scaled = false }) => ({ inputs: scaled === true ? 5 : 4 }))

/** What an update reads of `scaling`; nothing is scaled where there is none. */
const scalingOf = (scaling: TensorData | undefined): { readonly factor: number; readonly skipped: number } =>
  scaling === undefined ? { factor: 1, skipped: 0 } : { factor: scaling[1]!, skipped: scaling[3]! }

/**
 * The outer step of DiLoCo (arXiv:2311.08105, algorithm 1): torch.optim.SGD with nesterov=True on the averaged
 * pseudo-gradient delta = outer - inner. buffer = momentum * buffer + delta, from zero;
 * params -= learningRate * (delta + momentum * buffer).
 */
export const outerNesterov = defineKernel({
  name: "outer_nesterov",
  signature: "params[...], buffer[...], delta[...] -> params[...], buffer[...]",
  attributes: { learningRate: number(), momentum: number(0.9) },
  scalars: ["learningRate"],
  flops: ({ rows }) => 6 * rows,
  reference: ([params, buffer, delta], [newParams, newBuffer], { rows, a }) => {
    for (let i = 0; i < rows; i++) {
      const change = delta[i]!
      const moment = a.momentum * buffer[i]! + change
      newParams[i] = params[i]! - a.learningRate * (change + a.momentum * moment)
      newBuffer[i] = moment
    }
  }
})

/** sum = sum of squares over all inputs, however many: the square of a global gradient norm. */
export const squaredNorm = defineKernel({
  name: "squared_norm",
  signature: "grads[...] (one or more, any shapes) -> sum[]",
  shapes: () => [[]],
  outputDtypes: ["float32"],
  flops: (_, inputs) => inputs.reduce((elements, { elements: more }) => elements + 2 * more, 0),
  reference: (inputs, [sum]) => {
    let total = 0
    for (const inp of inputs) for (let i = 0; i < inp.length; i++) total += inp[i]! * inp[i]!
    sum[0] = total
  }
})

/**
 * The state of dynamic loss scaling (arXiv:1710.03740, section 3.2; torch.amp.GradScaler), on the device alone: `scaling` is the scale
 * of the next backward pass; what this step's gradients are to be multiplied by, 0 to skip the step; how many steps were taken since
 * the scale has changed; how many were skipped in all. `sum` is the squared norm of the gradients as they are, of a loss that was
 * scaled: it is finite just where all of them are, if they are float16. Where it is not, the scale falls by `backoffFactor` and the step
 * is skipped; after `growthInterval` steps it grows by `growthFactor`. `maxNorm` above 0 clips as `clip_by_norm` does, by the norm of
 * the unscaled gradients.
 */
export const lossScale = defineKernel({
  name: "loss_scale",
  signature: "sum[], scaling[4] -> scaling[4]",
  attributes: {
    maxNorm: number(0),
    growthInterval: number(2000),
    growthFactor: number(2),
    backoffFactor: number(0.5),
    /** Below it a scale does not fall, however many steps have no finite gradients. */
    leastScale: number(2 ** -24)
  },
  inputDtypes: ["float32", "float32"],
  outputDtypes: ["float32"],
  flops: () => 8,
  reference: ([sum, scaling], [next], { a }) => {
    const scale = scaling[0]!
    const [taken, skipped] = [scaling[2]! + 1, scaling[3]!]
    if (!Number.isFinite(sum[0])) {
      next.set([Math.max(a.leastScale, scale * a.backoffFactor), 0, 0, skipped + 1])
      return
    }
    const clip = a.maxNorm > 0 ? Math.min(1, a.maxNorm / (Math.sqrt(sum[0]!) / scale + 1e-6)) : 1
    const grown = Math.fround(scale * a.growthFactor)
    const grows = taken >= a.growthInterval
    next.set([grows && Number.isFinite(grown) ? grown : scale, clip / scale, grows ? 0 : taken, skipped])
  }
})

/**
 * torch.nn.utils.clip_grad_norm_: every gradient times min(1, maxNorm / (norm + 1e-6)), norm = sqrt(sum). Unlike an `if`
 * on the norm, this needs no `read` of it.
 */
export const clipByNorm = defineKernel({
  name: "clip_by_norm",
  signature: "sum[], grads[...] (one or more, any shapes) -> grads[...] (as many)",
  attributes: { maxNorm: number() },
  shapes: (inputs) => {
    if (inputs[0]?.length !== 0) throw new RangeError("clip_by_norm: input 0 (sum) is not a scalar")
    return inputs.slice(1)
  },
  inputDtypes: ["float32"],
  flops: (_, inputs) => inputs.slice(1).reduce((elements, { elements: more }) => elements + more, 0),
  reference: ([sum, ...grads], outputs, { a }) => {
    const factor = Math.min(1, a.maxNorm / (Math.sqrt(sum[0]!) + 1e-6))
    for (const [index, out] of outputs.entries()) {
      const gradient = grads[index]!
      for (let i = 0; i < out.length; i++) out[i] = factor * gradient[i]!
    }
  }
})

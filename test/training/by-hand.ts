// The update rules of data-parallel training as their papers state them, in plain loops over numbers: no ops, lanes, edges or
// collectives, and none of the product's kernels. Numbers are float32 where a device would store them.
import {
  batchOf,
  firstParameters,
  microBatchesOf,
  weightOfActivation,
  weightOfInput,
  weightOfParameter
} from "./toy-model.ts"
import type { Toy } from "./toy-model.ts"

/** [layer][parameter][element]. */
type Parameters = ReadonlyArray<ReadonlyArray<Float32Array>>

export interface Replica {
  readonly parameters: Parameters
  /** SGD's momentum, or AdamW's first moment. */
  readonly momenta: Parameters
  /** AdamW's. */
  readonly secondMoments: Parameters
  /** How many local steps the moments have seen. */
  updates: number
}

const each = (parameters: Parameters, make: (value: Float32Array) => Float32Array): Parameters =>
  parameters.map((layer) => layer.map(make))

const zeros = (like: Parameters): Parameters => each(like, ({ length }) => new Float32Array(length))

const replicasOf = (toy: Toy, ranks: number): ReadonlyArray<Replica> =>
  Array.from({ length: ranks }, () => {
    const parameters = firstParameters(toy)
    return { parameters, momenta: zeros(parameters), secondMoments: zeros(parameters), updates: 0 }
  })

/** Gradients of the toy's loss, as toy-model.ts defines them. */
const gradientsOf = (parameters: Parameters, batch: Float32Array): Parameters => {
  const gradients = zeros(parameters)
  for (let i = 0; i < batch.length; i++) {
    const inputs: Array<number> = []
    let x = batch[i]!
    for (const layer of parameters) {
      inputs.push(x)
      const [head, ...more] = layer
      if (head === undefined) x = Math.fround(-0.5 * x)
      else {
        x = Math.fround((1 - weightOfActivation) * x + weightOfActivation * head[i]!)
        for (const one of more) x = Math.fround(x + one[i]!)
      }
    }
    let flow = Math.fround(x - batch[i]!)
    for (let l = parameters.length - 1; l >= 0; l--) {
      for (const [p, parameter] of parameters[l]!.entries()) {
        const c = weightOfParameter(p)
        const own = Math.fround((1 - c) * flow + c * parameter[i]!)
        gradients[l]![p]![i] = own + inputs[l]!
      }
      flow = Math.fround((1 - weightOfInput) * flow + weightOfInput * inputs[l]!)
    }
  }
  return gradients
}

/** The mean of so many things less one, and one more, as a float32. */
const meanWith = (mean: Parameters, one: Parameters, count: number): Parameters =>
  mean.map((layer, l) =>
    layer.map((values, p) => values.map((x, i) => (1 - 1 / count) * x + (1 / count) * one[l]![p]![i]!))
  )

/** What a step makes of each replica's micro-batches; `travel` is what becomes of all replicas' gradients where they travel. */
const stepGradients = (
  toy: Toy,
  replicas: ReadonlyArray<Replica>,
  step: number,
  travel: (all: ReadonlyArray<Parameters>) => ReadonlyArray<Parameters> = (all) => all
): ReadonlyArray<Parameters> => {
  const count = microBatchesOf(toy)
  let all: ReadonlyArray<Parameters> = []
  for (let index = 0; index < count; index++) {
    const own = replicas.map(({ parameters }, rank) =>
      gradientsOf(parameters, batchOf(toy, rank, step * count + index))
    )
    all = index === 0 ? own : own.map((one, rank) => meanWith(all[rank]!, one, index + 1))
    if (toy.accumulation?.synchronize === "each" || index === count - 1) all = travel(all)
  }
  return all
}

/** Scaled to a norm of at most `clipNorm` over all parameters together (Pascanu et al., arXiv:1211.5063, algorithm 1). */
const clipped = (gradients: Parameters, clipNorm: number | undefined): Parameters => {
  if (clipNorm === undefined) return gradients
  const squares = gradients.flat().reduce((sum, one) => one.reduce((all, x) => all + x * x, sum), 0)
  // PyTorch's guard against a norm of zero
  const factor = Math.min(1, clipNorm / (Math.sqrt(Math.fround(squares)) + 1e-6))
  return each(gradients, (one) => one.map((x) => factor * x))
}

const localStep = ({ optimizer, clipNorm }: Toy, replica: Replica, raw: Parameters): void => {
  const gradients = clipped(raw, clipNorm)
  replica.updates++
  for (const [l, layer] of replica.parameters.entries()) {
    for (const [p, parameter] of layer.entries()) {
      const own = [parameter, gradients[l]![p]!, replica.momenta[l]![p]!] as const
      if (optimizer.name === "sgd") momentumStep(optimizer, replica.updates, ...own)
      else adamwStep(optimizer, replica.updates, ...own, replica.secondMoments[l]![p]!)
    }
  }
}

/** PyTorch's SGD with momentum: the buffer begins as the first gradient. */
const momentumStep = (
  { learningRate, momentum = 0 }: Extract<Toy["optimizer"], { name: "sgd" }>,
  step: number,
  parameter: Float32Array,
  gradients: Float32Array,
  buffer: Float32Array
): void => {
  for (let i = 0; i < parameter.length; i++) {
    const gradient = gradients[i]!
    const moment = momentum === 0 || step === 1 ? gradient : momentum * buffer[i]! + gradient
    buffer[i] = moment
    parameter[i] = parameter[i]! - learningRate * moment
  }
}

/** AdamW (arXiv:1711.05101, algorithm 2, with the learning rate as PyTorch has it in the decay). */
const adamwStep = (
  optimizer: Extract<Toy["optimizer"], { name: "adamw" }>,
  step: number,
  parameter: Float32Array,
  gradients: Float32Array,
  firstMoments: Float32Array,
  secondMoments: Float32Array
): void => {
  const { learningRate, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01 } = optimizer
  for (let i = 0; i < parameter.length; i++) {
    const gradient = gradients[i]!
    const m = beta1 * firstMoments[i]! + (1 - beta1) * gradient
    const v = beta2 * secondMoments[i]! + (1 - beta2) * gradient * gradient
    firstMoments[i] = m
    secondMoments[i] = v
    const corrected = m / (1 - beta1 ** step)
    const spread = Math.sqrt(v / (1 - beta2 ** step))
    parameter[i] =
      parameter[i]! * (1 - learningRate * weightDecay) - (learningRate * corrected) / (spread + epsilon)
  }
}

/** The numbers that a floating-point format without infinities can hold, from 0 up: code to value. */
const floats = (mantissaBits: number, minExponent: number, most: number): ReadonlyArray<number> => {
  const values: Array<number> = []
  for (let code = 0; ; code++) {
    const exponent = Math.max(1, Math.floor(code / 2 ** mantissaBits))
    const fraction = code - (code < 2 ** mantissaBits ? 0 : exponent * 2 ** mantissaBits)
    const whole = code < 2 ** mantissaBits ? 0 : 1
    const value = (whole + fraction / 2 ** mantissaBits) * 2 ** (minExponent + exponent - 1)
    if (value > most) return values
    values.push(value)
  }
}

const grids: Readonly<Record<string, ReadonlyArray<number>>> = {
  // E3M0 with its subnormals' exponent: 0, 1/4, 1/2, ..., 16.
  float4: floats(0, -2, 16),
  // E4M3, up to 448.
  float8: floats(3, -6, 448),
  int8: Array.from({ length: 128 }, (_, code) => code),
  float16: floats(10, -14, 65504)
}

/** Nearest number of the grid, ties to the even code; beyond the last one, that. */
const nearest = (grid: ReadonlyArray<number>, x: number): number => {
  let best = 0
  for (let code = 1; code < grid.length; code++) {
    const gain = Math.abs(x - grid[best]!) - Math.abs(x - grid[code]!)
    if (gain < 0) break
    if (gain > 0 || code % 2 === 0) best = code
  }
  return grid[best]!
}

const word = new Float32Array(1)
const bits = new Uint32Array(word.buffer)

/** float32 with its lower 16 bits rounded away, half to even. */
const toBfloat16 = (x: number): number => {
  word[0] = x
  bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000
  return word[0]
}

/** What others receive of a tensor: each format's rounding; 4- and 8-bit ones with one scale for the tensor. */
const received = (values: Float32Array, wire: string): ReadonlyArray<number> => {
  if (wire === "float32") return [...values]
  if (wire === "bfloat16") return Array.from(values, toBfloat16)
  const grid = grids[wire]!
  const signed = (x: number): number => Math.sign(x) * nearest(grid, Math.abs(x))
  if (wire === "float16") return Array.from(values, signed)
  const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
  const scale = Math.fround(largest / grid.at(-1)!)
  return Array.from(values, (x) => (scale === 0 ? 0 : Math.fround(signed(x / scale) * scale)))
}

/** Mean of one tensor over the ranks, as sent. */
const mean = (tensors: ReadonlyArray<Float32Array>, wire: string): Float32Array => {
  const all = tensors.map((tensor) => received(tensor, wire))
  return Float32Array.from(tensors[0]!, (_, i) => all.reduce((sum, one) => sum + one[i]!, 0) / all.length)
}

const averageLayer = (replicas: ReadonlyArray<Replica>, layer: number, wire: string): void => {
  for (const p of replicas[0]!.parameters[layer]!.keys()) {
    const average = mean(
      replicas.map(({ parameters }) => parameters[layer]![p]!),
      wire
    )
    for (const { parameters } of replicas) parameters[layer]![p]!.set(average)
  }
}

const learnAlone = (toy: Toy, replicas: ReadonlyArray<Replica>, step: number): void => {
  const all = stepGradients(toy, replicas, step)
  for (const [rank, replica] of replicas.entries()) localStep(toy, replica, all[rank]!)
}

/** S-SGD, with or without buckets: every rank steps with the mean of all gradients. */
export const synchronousSgd = (toy: Toy, ranks: number, steps: number, wire: string) => {
  const replicas = replicasOf(toy, ranks)
  for (let step = 0; step < steps; step++) {
    const averaged = stepGradients(toy, replicas, step, (all) => {
      const one = all[0]!.map((layer, l) =>
        layer.map((_, p) =>
          mean(
            all.map((gradients) => gradients[l]![p]!),
            wire
          )
        )
      )
      return all.map(() => one)
    })
    for (const [rank, replica] of replicas.entries()) localStep(toy, replica, averaged[rank]!)
  }
  return replicas
}

/** Local SGD, partial or not (DreamDDP, arXiv:2502.11058): in step h of a period the layers of `sets[h]` are averaged. */
export const partialLocalSgd = (
  toy: Toy,
  ranks: number,
  steps: number,
  wire: string,
  sets: ReadonlyArray<ReadonlyArray<number>>,
  order: "average-then-step" | "step-then-average"
) => {
  const replicas = replicasOf(toy, ranks)
  for (let step = 0; step < steps; step++) {
    const set = sets[step % sets.length]!
    if (order === "step-then-average") {
      learnAlone(toy, replicas, step)
      for (const layer of set) averageLayer(replicas, layer, wire)
    } else {
      // Gradients are of the parameters before they are averaged.
      const all = stepGradients(toy, replicas, step)
      for (const layer of set) averageLayer(replicas, layer, wire)
      for (const [rank, replica] of replicas.entries()) localStep(toy, replica, all[rank]!)
    }
  }
  return replicas
}

interface StreamingRules {
  /** H. */
  readonly period: number
  readonly fragments: ReadonlyArray<ReadonlyArray<number>>
  /** t_p: each fragment is sent when so many steps of a period are done. */
  readonly sentAfter: ReadonlyArray<number>
  /** tau. */
  readonly delaySteps: number
  /** alpha. */
  readonly localShare: number
  readonly outerLearningRate: number
  readonly outerMomentum: number
}

/**
 * DiLoCo (arXiv:2311.08105, algorithm 1) and Streaming DiLoCo (arXiv:2501.18512, algorithm 2). What is still on its way
 * when training ends is applied then.
 */
export const streamingDiloco = (
  toy: Toy,
  ranks: number,
  steps: number,
  wire: string,
  rules: StreamingRules
) => {
  const replicas = replicasOf(toy, ranks)
  const { period, fragments, sentAfter, delaySteps, localShare, outerLearningRate, outerMomentum } = rules
  const outer = firstParameters(toy)
  const momenta = zeros(outer)
  const underway = new Map<number, { readonly atStep: number; readonly deltas: Parameters }>()
  const apply = (fragment: number): void => {
    const { deltas } = underway.get(fragment)!
    underway.delete(fragment)
    for (const [k, l] of fragments[fragment]!.entries()) {
      for (const [p, theta] of outer[l]!.entries()) {
        const momentum = momenta[l]![p]!
        for (let i = 0; i < theta.length; i++) {
          const delta = deltas[k]![p]![i]!
          const moment = outerMomentum * momentum[i]! + delta
          momentum[i] = moment
          theta[i] = theta[i]! - outerLearningRate * (delta + outerMomentum * moment)
        }
        for (const { parameters } of replicas) {
          const local = parameters[l]![p]!
          for (let i = 0; i < theta.length; i++)
            local[i] = localShare * local[i]! + (1 - localShare) * theta[i]!
        }
      }
    }
  }
  for (let done = 1; done <= steps; done++) {
    learnAlone(toy, replicas, done - 1)
    for (const fragment of fragments.keys()) {
      if ((done - sentAfter[fragment]!) % period === 0) {
        const deltas = fragments[fragment]!.map((l) =>
          outer[l]!.map((theta, p) =>
            mean(
              replicas.map(({ parameters }) => theta.map((value, i) => value - parameters[l]![p]![i]!)),
              wire
            )
          )
        )
        underway.set(fragment, { atStep: done + delaySteps, deltas })
      }
      if (underway.get(fragment)?.atStep === done) apply(fragment)
    }
  }
  for (const fragment of underway.keys()) apply(fragment)
  return replicas
}

// Schedules must not change values: every baseline, degree, gate and way to cut gradients, run on several ranks with values,
// equals one process without a schedule, forward and backward.
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { capacityOf, gateNames, sharesOf, type MoeModel } from "../../core/algorithms/moe-training/model.ts"
import { moeTraining, type MoePlan } from "../../core/algorithms/moe-training/program.ts"
import { interposing } from "../../core/machine/interpose.ts"
import { makeWorld } from "../../core/world.ts"
import { checkLaws } from "../../core/laws/laws.ts"
import { execute, run } from "../simulate/simulated.ts"
import { moeCase, pipelineOrder, type MoeCase } from "../../testing/moe-training.ts"
import { Reference } from "./reference.ts"

const worldOf = ({ nodes, perNode }: MoeCase) =>
  makeWorld([{ name: "site", nodes: Array.from({ length: nodes }, () => perNode) }], {
    intra: { bytesPerSecond: 1e6, latencySeconds: 1e-6 },
    inter: { bytesPerSecond: 1e5, latencySeconds: 1e-5 },
    wan: undefined
  })

/** Place in the whole parameter of element `index` of the part that a rank at `position` of its node holds. */
const placeOf = (
  name: string,
  index: number,
  columns: number,
  position: number,
  { model, perNode }: MoeCase
): number => {
  const [row, column] = [Math.floor(index / columns), index % columns]
  const { headWidth = model.width / model.heads } = model
  const part = (model.heads * headWidth) / perNode
  const hidden = model.hidden / perNode
  if (name.endsWith("qkv")) {
    const kvPart = (part / model.heads) * model.kvHeads
    const place =
      row < part
        ? position * part + row
        : part * perNode +
          Math.floor((row - part) / kvPart) * kvPart * perNode +
          position * kvPart +
          ((row - part) % kvPart)
    return place * model.width + column
  }
  if (name.endsWith("gate projection") || name.endsWith("gate weight")) return index
  if (name.endsWith("projection")) return row * part * perNode + position * part + column
  if (/expert \d+ (up|gate)$/u.test(name)) return (position * hidden + row) * model.width + column
  if (name.endsWith("down")) return row * model.hidden + position * hidden + column
  return index
}

const near = (actual: number, expected: number, scale: number): boolean =>
  Math.abs(actual - expected) <= 2e-4 * Math.max(scale, 1e-2)

/**
 * Scores closer than this may come in either order. They are of order one, and float32 rounds by 6e-8 in each of the some hundred
 * operations from the input to the last gate.
 */
const tie = 1e-5

/** Capacity of every layer; undefined where layers differ, because their degrees pad differently: the reference has one. */
const oneCapacity = ({ model, plan, nodes, perNode }: MoeCase): number | undefined => {
  const shares = sharesOf(model, nodes, perNode)
  const [first, ...others] = plan.forwardDegrees.map((degree, i) =>
    capacityOf(model, shares, degree, plan.backwardDegrees[i]!)
  )
  return others.every((one) => one === first) ? first : undefined
}

/** Runs a case and holds its output and gradients to the reference, which it returns; undefined where scores tie. */
const compare = (input: MoeCase, capacity: number, apart = tie): Reference | undefined => {
  const { model, plan, nodes, perNode } = input
  const shares = sharesOf(model, nodes, perNode)
  const world = worldOf(input)
  const { simulated, execution } = execute({
    world,
    program: moeTraining({ model, plan, steps: 1 }),
    costs: { seconds: (op) => 1e-4 * (1 + (op.label.length % 7)), estimates: [] },
    values: () => undefined
  })
  expect(checkLaws(execution)).toBeUndefined()
  if (plan.lanes === "three") expect(pipelineOrder(execution.opLogs)).toBeUndefined()
  const reference = new Reference(model, nodes, perNode, capacity)
  const outputs = reference.forward()
  if (reference.closest < apart) return undefined
  const values = simulated.values!
  for (const { rank, value } of simulated.ranks) {
    const node = world.nodeOf[rank]!
    const position = rank % perNode
    const mine = outputs[node]!.slice(position * shares.tokens, (position + 1) * shares.tokens).flat()
    const got = values.of(rank, value.output)
    mine.forEach((expected, i) => expect(near(got[i]!, expected, 1), `${got[i]} for ${expected}`).toBe(true))
    // A few elements of every gradient, differenced.
    for (const { name, gradient } of value.parameters) {
      const data = values.of(rank, gradient)
      const columns = gradient.shape.at(-1)!
      const scale = Math.max(...Array.from(data, Math.abs))
      const index = (model.seed * 7 + rank * 3) % data.length
      const place = placeOf(name, index, columns, position, input)
      const expected = reference.gradient(name, place)
      expect(near(data[index]!, expected, scale), `${name}[${index}]: ${data[index]} for ${expected}`).toBe(
        true
      )
    }
    const dinput = values.of(rank, value.inputGradient)
    const index = (model.seed * 5) % dinput.length
    const place = (node * shares.nodeTokens + position * shares.tokens) * model.width + index
    const expected = reference.gradient("input", place)
    expect(near(dinput[index]!, expected, Math.max(...Array.from(dinput, Math.abs)))).toBe(true)
  }
  return reference
}

const tinyModel = {
  layers: 1,
  width: 8,
  hidden: 4,
  heads: 4,
  kvHeads: 2,
  sequence: 4,
  batch: 2,
  topK: 2,
  capacityFactor: 0.5,
  ffn: "gpt",
  gateWidth: 3,
  dtype: "float32",
  learningRate: undefined
} as const

const onePiece: MoePlan = {
  lanes: "two",
  forwardDegrees: [1],
  backwardDegrees: [1],
  gradients: { moe: [0], dense: [0], rest: 192, messageElements: undefined }
}

describe("a training step over ranks", () => {
  it("computes what one process computes, whatever the schedule, and obeys the laws", () => {
    const seen: Record<string, number> = {
      uneven: 0,
      recut: 0,
      pieces: 0,
      dropped: 0,
      dropless: 0,
      wideHeads: 0
    }
    for (const gate of gateNames) seen[gate] = 0
    let [runs, ties] = [0, 0]
    fc.assert(
      fc.property(moeCase(), (input) => {
        const { model, plan, nodes, perNode } = input
        const capacity = oneCapacity(input)
        fc.pre(capacity !== undefined)
        fc.pre(model.gate !== "expert-choice" || capacity <= sharesOf(model, nodes, perNode).tokens)
        runs++
        const reference = compare(input, capacity)
        if (reference === undefined) {
          ties++
          return
        }
        if (reference.dropped > 0) seen["dropped"]!++
        seen[model.gate]!++
        if (model.headWidth !== undefined) seen["wideHeads"]!++
        if (plan.forwardDegrees.some((degree, i) => degree !== plan.backwardDegrees[i])) seen["recut"]!++
        if (model.capacityFactor === "dropless") seen["dropless"]!++
        if (model.capacityFactor === "dropless" && nodes * perNode > 1) seen["uneven"]!++
        if (plan.gradients.messageElements !== undefined || plan.gradients.moe.some((sent) => sent > 0))
          seen["pieces"]!++
      }),
      { numRuns: 60 }
    )
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThan(2)
    expect(ties).toBeLessThanOrEqual(1 + 0.02 * runs)
  })

  it("has the gradient of the choices made, however near a token is to another expert", () => {
    // A step of the difference takes one token of node 0 to another expert: 5,737 instead of 0.03, were its choice not kept.
    const model: MoeModel = { ...tinyModel, experts: 3, gate: "softmax", seed: 207 }
    const input = { model, plan: onePiece, nodes: 3, perNode: 1 }
    const reference = compare(input, oneCapacity(input)!, 0)!
    expect(reference.dropped).toBeGreaterThan(0)
    // Where initial values are drawn otherwise, another seed is needed.
    expect(reference.closest).toBeLessThan(tie)
    expect(reference.kept).toBeGreaterThan(0)

    // The same of steps so long that choices change often, for every gate that chooses.
    for (const gate of gateNames) {
      if (gate === "soft-moe") continue
      let kept = 0
      for (let seed = 0; seed < 20; seed++) {
        const one = new Reference({ ...model, gate, layers: 2, seed }, 3, 1, 3)
        one.forward()
        for (const name of ["input", "layer 0 qkv", "layer 1 projection"]) {
          const [short, long] = [one.gradient(name, seed), one.gradient(name, seed, 1e-2)]
          expect(Math.abs(long - short), `${gate} ${seed} ${name}`).toBeLessThan(
            1e-2 * Math.max(1, Math.abs(short))
          )
        }
        kept += one.kept
      }
      expect(kept, gate).toBeGreaterThan(2)
    }
  })

  it("draws a gate's noise anew for every layer and rank", () => {
    const model: MoeModel = { ...tinyModel, layers: 2, experts: 4, gate: "gshard", seed: 1 }
    const twice: MoePlan = {
      lanes: "two",
      forwardDegrees: [1, 1],
      backwardDegrees: [1, 1],
      gradients: { moe: [0, 0], dense: [0, 0], rest: 192, messageElements: undefined }
    }
    const seeds: ReadonlyArray<Array<unknown>> = [[], [], [], []]
    const program = interposing(moeTraining({ model, plan: twice, steps: 2 }), ({ rank, submit }) => ({
      submit: (op, scalars) => {
        if (op.kernel.name === "random_normal") seeds[rank]!.push(op.attributes.seed)
        return submit(op, scalars)
      }
    }))
    run({ world: worldOf({ model, plan: twice, nodes: 2, perNode: 2 }), program, symmetric: false })
    // The same again in the second step.
    expect(seeds.map((own) => own.length)).toEqual([4, 4, 4, 4])
    for (const [a, b, c, d] of seeds) expect([c, d]).toEqual([a, b])
    expect(new Set(seeds.flat()).size).toBe(8)
  })

  it("leaves an expert that no token chose a gradient of zero", () => {
    const input: MoeCase = {
      model: { ...tinyModel, experts: 4, gate: "gshard", seed: 244 },
      plan: onePiece,
      nodes: 2,
      perNode: 1
    }
    const reference = compare(input, oneCapacity(input)!)!
    const unused = [0, 1, 2, 3].filter((e) => !reference.whole.has(`layer 0 expert ${e} up`))
    expect(unused).not.toEqual([])
    for (const e of unused) expect(reference.gradient(`layer 0 expert ${e} up`, 0)).toBe(0)
    expect(() => reference.gradient("layer 0 nothing", 0)).toThrow(/no parameter/)
  })
})

// Steps that a scaled loss skips, in two runs: to skip one is a decision, and what overflowed for it holds nothing that could be
// compared. So a run that ends just after one agrees, whatever is left of its gradients, and nothing else passes with them.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import type { TensorData } from "../../core/machine/tensor.ts"
import { machined, held, type Machined } from "./machined.ts"

/** Steps of a loss whose gradients in float16 overflow from a scale of 2^17 on; the scale halves until they do not. */
const training = (initial: number, steps: number): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const made = (
      name: string,
      dtype: "float32" | "float16" | "int32",
      shape: ReadonlyArray<number>,
      values: TensorData
    ) => machine.alloc({ name, shape, dtype, persistent: true, initial: () => values })
    const logits = yield* made("logits", "float16", [2, 3], Float32Array.of(1, 2, 3, 0.5, -1, 0.25))
    const targets = yield* made("targets", "int32", [2], Int32Array.of(0, 2))
    const none = yield* made("no targets", "int32", [2], Int32Array.of(-100, -100))
    const scale = yield* made("loss scale", "float32", [4], Float32Array.of(initial, 0, 0, 0))
    const gradient = yield* made("gradient", "float16", [2, 3], new Float32Array(6))
    const sum = yield* made("sum", "float32", [], new Float32Array(1))
    const weights = yield* made("weights", "float32", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6))
    // of a gradient that is zero, where only the absolute part of a tolerance is left
    const padding = yield* made("padded", "float32", [2, 3], new Float32Array(6))
    const settings = { growthInterval: 2000, growthFactor: 2, backoffFactor: 0.5 }
    for (let step = 1; step <= steps; step++) {
      // made anew in each step, as most of what a step computes is
      const tiny = yield* made("tiny", "float32", [2, 3], new Float32Array(6))
      machine.submit(
        launch(
          "loss",
          kernels["softmax_cross_entropy.backward"],
          Lane.compute,
          [logits, targets, scale],
          [gradient],
          {
            scaled: true
          }
        )
      )
      machine.submit(
        launch(
          "loss of padding",
          kernels["softmax_cross_entropy.backward"],
          Lane.compute,
          [padding, none, scale],
          [tiny],
          {
            scaled: true
          }
        )
      )
      machine.submit(launch("norm", kernels.squared_norm, Lane.compute, [gradient], [sum]))
      machine.submit(launch("loss scale", kernels.loss_scale, Lane.compute, [sum, scale], [scale], settings))
      machine.submit(
        launch("update", kernels.sgd, Lane.compute, [weights, gradient, scale], [weights], {
          learningRate: 0.1,
          scaled: true,
          step
        })
      )
      if (step < steps) machine.free(tiny)
      yield* machine.endStep
    }
    yield* machine.drain
  })

/** The same run, in which a tensor has other values at the end. */
const leaving = (real: Machined, name: string, change: (values: TensorData) => TensorData): Machined => ({
  ...real,
  valuesOf: (rank, tensor) =>
    tensor.name === name ? change(real.valuesOf(rank, tensor)) : real.valuesOf(rank, tensor)
})

const told = (program: Program<void>, real: Machined): string | undefined =>
  held(program, real).agreement.firstDisagreement?.message

const overflowing = 2 ** 30

describe("steps that a scaled loss skips", () => {
  const program = training(overflowing, 3)
  const real = machined(program)
  /** As another order of sums has it: infinity less infinity. */
  const unlike = (values: TensorData) => values.map((value) => (Number.isFinite(value) ? value : NaN))

  it("leave nothing to compare of what overflowed, at the end of a run too", () => {
    const [at] = ["gradient", "sum"].map((name) => valuesOf(real, name))
    expect(at!.some((value) => !Number.isFinite(value))).toBe(true)
    for (const name of ["gradient", "sum"])
      expect(told(program, leaving(real, name, unlike)), name).toBeUndefined()
  })

  it("leave all else to compare", () => {
    const off = (values: TensorData) => values.map((value) => value * 1.01)
    for (const change of [off, (values: TensorData) => values.map(() => NaN)])
      for (const name of ["weights", "logits"])
        expect(told(program, leaving(real, name, change)), name).toMatch(
          new RegExp(`"${name}" .* at the end`, "u")
        )
    // where the last step was taken its gradients are what they were
    const taken = training(2 ** 10, 3)
    expect(told(taken, machined(taken))).toBeUndefined()
    for (const change of [off, (values: TensorData) => values.map(() => NaN)])
      expect(told(taken, leaving(machined(taken), "gradient", change))).toMatch(/"gradient" .* at the end/u)
  })

  it("are decisions, which no tolerance covers", () => {
    // one step more of a thousand
    const counted = (values: TensorData) =>
      Float32Array.of(values[0]!, values[1]!, values[2]!, values[3]! + 1)
    expect(told(program, leaving(real, "loss scale", counted))).toMatch(
      /"loss scale" .* at the end: simulated skips the step, .* 3 skipped\); executed skips the step, .* 4 skipped\)$/u
    )
    // the real run takes a step that the simulated one skips
    const other = machined(training(2 ** 10, 3))
    expect(told(program, other)).toMatch(
      /^rank 0, before op 4 "update": simulated skips the step, .* executed takes the step/u
    )
  })

  it("leave parameters to compare with which they began, which nothing changes in them", () => {
    const off = (values: TensorData) => values.map((value) => value * 1.01)
    const other = {
      ...leaving(real, "weights", off),
      journals: real.journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" && entry.op.label === "update"
            ? {
                ...entry,
                inputs: entry.inputs!.map((values, i) => (i === 0 ? off(values) : values)),
                results: entry.results!.map(off)
              }
            : entry
        )
      }))
    }
    expect(told(program, other)).toMatch(/"weights" \(float32\), before op \d+ "update": simulated/u)
  })

  it("keep no bound of gradients from the scale, step after step", () => {
    // 1e-8 of an unscaled gradient, in the second step as in the first
    for (const steps of [1, 2]) {
      const scaled = training(2 ** 10, steps)
      const run = machined(scaled)
      const little = (by: number) => (values: TensorData) => values.map((value) => value + by)
      expect(told(scaled, leaving(run, "tiny", little(0.5e-8 * 2 ** 10))), `${steps}`).toBeUndefined()
      expect(told(scaled, leaving(run, "tiny", little(2e-8 * 2 ** 10))), `${steps}`).toMatch(/"tiny"/u)
    }
  })
})

const valuesOf = (machine: Machined, name: string): TensorData => {
  const entry = machine.journals[0]!.entries.find((one) => one.kind === "alloc" && one.tensor.name === name)
  return machine.valuesOf(0, entry?.kind === "alloc" ? entry.tensor : expect.fail())
}

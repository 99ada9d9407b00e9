// Updates of parameters in a real run: what rounding turned round goes on in the simulated run and is counted; an update that is wrong
// by whatever its optimizer can be wrong by is told at its op, on tensors that a tolerance of the end would let through.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { agrees } from "../../core/agreement/agree.ts"
import { updates } from "../../core/agreement/narrow.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import type { NativeRank } from "../../exec/native.ts"
import { describeNative } from "../native/addon.ts"
import { intact, trainedOn } from "./broken-machine.ts"
import { held, machined, type Machined } from "./machined.ts"

const learningRate = 0.01
const steps = 5

/** AdamW on a parameter and its copy in float16, from gradients of which those of the last two elements are all rounding. */
const stepping = (rounding: number, largest = 0.3): Program<ReadonlyArray<Tensor>> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const vector = (name: string, dtype: "float32" | "float16", values: ReadonlyArray<number>) =>
      machine.alloc({ name, shape: [values.length], dtype, initial: () => Float32Array.from(values) })
    const p = yield* vector("p", "float32", [0.5, -0.25, 1, -2, 0.125, 0.0625])
    const g = yield* vector("g", "float32", [0.1, -0.2, largest, 0.01, 4e-9 * rounding, -6e-9 * rounding])
    const m = yield* vector("m", "float32", [0, 0, 0, 0, 0, 0])
    const v = yield* vector("v", "float32", [0, 0, 0, 0, 0, 0])
    const half = yield* vector("half", "float16", [0, 0, 0, 0, 0, 0])
    const y = yield* vector("y", "float32", [0, 0, 0, 0, 0, 0])
    for (let step = 1; step <= steps; step++) {
      const attributes = { learningRate, weightDecay: 0.01, step, shadow: true }
      machine.submit(launch("update", kernels.adamw, Lane.compute, [p, g, m, v], [p, m, v, half], attributes))
      machine.submit(launch("use", kernels.scale, Lane.compute, [p], [y], { factor: 2 }))
      yield* machine.endStep
    }
    yield* machine.drain
    return [p, half, y]
  })

/** The same run, of which the n-th update left something else in what it wrote. */
const left = (
  real: Machined,
  nth: number,
  output: number,
  change: (values: TensorData) => TensorData
): Machined => ({
  ...real,
  journals: real.journals.map(({ rank, entries }) => {
    let seen = 0
    return {
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op" && updates(entry.op) && seen++ === nth
          ? { ...entry, results: entry.results!.map((values, i) => (i === output ? change(values) : values)) }
          : entry
      )
    }
  })
})

describe("what updates made of parameters", () => {
  const real = machined(stepping(1))
  const found = (machine: Machined, name: string) => {
    const entry = machine.journals[0]!.entries.find((one) => one.kind === "alloc" && one.tensor.name === name)
    return [...machine.valuesOf(0, entry?.kind === "alloc" ? entry.tensor : expect.fail())]
  }

  it("of a gradient that is all rounding is counted, and goes on", () => {
    // On the other machine what was rounded has the other sign: it moves p by most of a learning rate each step.
    const other = machined(stepping(-1))
    const gap = Math.abs(found(real, "p")[5]! - found(other, "p")[5]!)
    expect(gap).toBeGreaterThan(learningRate)
    const { agreement, simulated } = held(stepping(-1), real)
    expect(agreement.firstDisagreement).toBeUndefined()
    expect(agreement.updates).toEqual({ elements: steps * 6, turned: steps * 2 })
    // Bit for bit, also what was computed of it: nothing behind it needs a tolerance of its own.
    for (const name of ["p", "m", "v", "half", "y"]) expect(found(simulated, name)).toEqual(found(real, name))
  })

  it("counts nothing where nothing turned", () => {
    const { agreement } = held(stepping(1), real)
    expect(agreement.firstDisagreement).toBeUndefined()
    expect(agreement.updates).toEqual({ elements: steps * 6, turned: 0 })
  })

  it("is told where it is not what comes of what the update found", () => {
    const told = (nth: number, output: number, change: (values: TensorData) => TensorData, name: string) => {
      const { agreement } = held(stepping(1), left(real, nth, output, change))
      expect(agreement.decisions).toBe(true)
      expect(agreement.firstDisagreement?.message).toMatch(
        new RegExp(
          `^rank 0, tensor \\d+ "${name}" \\(float(32|16)\\), (before|after) op ${2 * nth} "update"`,
          "u"
        )
      )
    }
    const element = (at: number, of: (value: number) => number) => (values: TensorData) =>
      values.map((value, i) => (i === at ? of(value) : value))
    for (const nth of [0, steps - 1]) {
      // A little more than some roundings of what it computes; a tenth of what is allowed of a value at the end.
      told(
        nth,
        0,
        element(2, (value) => value * (1 + 40 * 2 ** -23)),
        "p"
      )
      told(
        nth,
        0,
        element(2, (value) => value * (1 + 1e-4)),
        "p"
      )
      told(
        nth,
        0,
        element(5, (value) => value * (1 + 48 * 2 ** -23)),
        "p"
      )
      told(
        nth,
        0,
        element(4, (value) => value + 0.1 * learningRate),
        "p"
      )
      told(
        nth,
        0,
        element(4, () => NaN),
        "p"
      )
      told(
        nth,
        1,
        element(0, (value) => value * 1.001),
        "m"
      )
      told(
        nth,
        2,
        element(0, (value) => value * 1.001),
        "v"
      )
      // The copy in float16 is the parameter's own rounding, to the bit.
      told(
        nth,
        3,
        element(0, (value) => value * (1 + 2 ** -10)),
        "half"
      )
      told(nth, 3, (values) => values.map(() => 0), "half")
    }
    const half = Float32Array.from(found(real, "p"))
    roundInPlace(half, "float16")
    expect(found(real, "half")).toEqual([...half])
  })

  it("is told of each tensor that an update found otherwise", () => {
    for (const [index, name] of ["p", "g", "m", "v"].entries()) {
      let seen = 0
      const other = {
        ...real,
        journals: real.journals.map(({ rank, entries }) => ({
          rank,
          entries: entries.map((entry) =>
            entry.kind === "op" && updates(entry.op) && seen++ === 2
              ? {
                  ...entry,
                  inputs: entry.inputs!.map((values, i) =>
                    i === index ? values.map((value) => 1.0015 * value) : values
                  )
                }
              : entry
          )
        }))
      }
      expect(held(stepping(1), other).agreement.firstDisagreement?.message).toMatch(
        new RegExp(`"${name}" \\(float32\\), before op 4 "update"`, "u")
      )
    }
  })

  it("is told just beyond some roundings of as far as all of a tensor moved, where an element is next to nothing", () => {
    // m of Kingma and Ba: 0.1 g at first, and of what is left of the gradient's share then. These are its mean magnitude, and its mean move.
    const mean = (0.1 + 0.2 + 0.3 + 0.01) / 6
    for (const [nth, moved] of [0.1 * mean, 0.09 * mean].entries()) {
      const margin = 32 * 2 ** -23 * moved
      const off = (share: number) =>
        held(
          stepping(1),
          left(real, nth, 1, (values) => values.map((x, i) => (i === 4 ? x + share * margin : x)))
        ).agreement.firstDisagreement?.message
      expect(off(0.95), String(nth)).toBeUndefined()
      expect(off(1.05), String(nth)).toMatch(new RegExp(`"m" .*, after op ${2 * nth} "update"`, "u"))
    }
  })

  it("is nothing to hold where the runs have parted", () => {
    const parted = (change: (op: Op) => Op): Machined => ({
      ...real,
      journals: real.journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" && updates(entry.op) ? { ...entry, op: change(entry.op) } : entry
        )
      }))
    })
    const wider = (tensor: Tensor): Tensor => ({ ...tensor, elements: 7, shape: [7] })
    for (const change of [
      (op: Op): Op => ({ ...op, label: "another" }),
      (op: Op): Op => ({ ...op, kernel: { ...op.kernel, name: "sgd" } }),
      (op: Op): Op => ({ ...op, writes: op.writes.slice(0, 3) }),
      (op: Op): Op => ({ ...op, writes: op.writes.toReversed() }),
      (op: Op): Op => ({ ...op, writes: op.writes.map(wider) })
    ]) {
      const { agreement, simulated } = held(stepping(1), parted(change))
      expect(agreement).toMatchObject({ decisions: false, updates: { elements: 0, turned: 0 } })
      expect(agreement.firstDisagreement?.kind).toBe("decisions")
      expect(found(simulated, "p")).toEqual(found(real, "p"))
    }
  })

  it("of parameters that are narrow themselves is a step of theirs, and no more", () => {
    const narrow: Program<void> = Effect.gen(function* () {
      const machine = yield* Machine
      const vector = (name: string, values: ReadonlyArray<number>) =>
        machine.alloc({ name, shape: [6], dtype: "bfloat16", initial: () => Float32Array.from(values) })
      const p = yield* vector("p", [0.5, -0.25, 1, -2, 0.125, 0.0625])
      const g = yield* vector("g", [0.1, -0.2, 0.3, 0.01, 0.5, -0.5])
      machine.submit(launch("update", kernels.sgd, Lane.compute, [p, g], [p], { learningRate }))
      yield* machine.drain
    })
    const run = machined(narrow)
    const off = (steps: number) => {
      const change = (values: TensorData) => values.map((x, i) => (i === 2 ? x + steps * 2 ** -7 : x))
      const valuesOf: Machined["valuesOf"] = (rank, tensor) =>
        tensor.name === "p" ? change(run.valuesOf(rank, tensor)) : run.valuesOf(rank, tensor)
      return held(narrow, { ...left(run, 0, 0, change), valuesOf }).agreement.firstDisagreement?.message
    }
    expect(off(0)).toBeUndefined()
    expect(off(1)).toBeUndefined()
    expect(off(3)).toMatch(/"p" \(bfloat16\), after op 0 "update"/u)
  })

  it("is told where an update found something else than the simulated one", () => {
    const { agreement } = held(stepping(1, 0.301), real)
    expect(agreement.firstDisagreement?.message).toMatch(
      /tensor \d+ "g" \(float32\), before op 0 "update": simulated/u
    )
  })
})

/** On rank 1 each update is another one: of other attributes, or with other scalars. */
const updating = (
  attributes: Op["attributes"] | undefined,
  change: (learningRate: number, step: number) => ReadonlyArray<number> = (rate, step) => [rate, step]
) => {
  const others = new Map<Op, Op>()
  return (rank: NativeRank, index: number): void => {
    if (index !== 1) return
    const submit = rank.submit.bind(rank)
    rank.submit = (op, edges, scalars) => {
      if (!updates(op)) return submit(op, edges, scalars)
      let other = others.get(op) ?? op
      if (attributes !== undefined && other === op)
        others.set(op, (other = { ...op, attributes: { ...op.attributes, ...attributes } }))
      return submit(other, edges, change(scalars![0]!, scalars![1]!))
    }
  }
}

/** Rank 1 leaves its updates out. */
const skipping = (rank: NativeRank, index: number): void => {
  if (index !== 1) return
  const submit = rank.submit.bind(rank)
  const others = new Map<Op, Op>()
  rank.submit = (op, edges, scalars) => {
    if (!updates(op)) return submit(op, edges, scalars)
    const other = others.get(op) ?? launch(op.label, kernels.copy, op.lane, [op.writes[0]!], [op.writes[0]!])
    others.set(op, other)
    return submit(other, edges)
  }
}

describeNative("a machine whose updates are wrong", () => {
  const adamw = "training.optimizer={name: adamw, learningRate: 0.01, weightDecay: 0.01}"
  const sgd = "training.optimizer={name: sgd, learningRate: 0.01, momentum: 0.9, weightDecay: 0.01}"
  const wrong = {
    "too large by a hundredth": updating(undefined, (rate, step) => [1.01 * rate, step]),
    "of no learning rate": updating(undefined, (_, step) => [0, step]),
    "of the wrong sign": updating(undefined, (rate, step) => [-rate, step]),
    "without weight decay": updating({ weightDecay: 0 }),
    "left out": skipping
  }
  const alone: Readonly<Record<string, typeof wrong>> = {
    adamw: {
      ...wrong,
      "corrected for another step": updating(undefined, (rate, step) => [rate, step + 1]),
      "not corrected": updating(undefined, (rate) => [rate, 1e6]),
      "of another beta": updating({ beta2: 0.998 })
    } as typeof wrong,
    sgd: { ...wrong, "of another momentum": updating({ momentum: 0.8 }) } as typeof wrong
  }

  for (const precision of ["float32", "bfloat16", "float16"])
    for (const [name, optimizer] of Object.entries({ adamw, sgd })) {
      const settings = [optimizer, `training.precision=${precision}`, "steps=3"]

      it(`is told from one whose are right: ${name} in ${precision}`, async () => {
        const right = await trainedOn(intact, settings)
        expect(right.firstDisagreement).toBeUndefined()
        expect(right.updates!.elements).toBeGreaterThan(10_000)
        for (const [what, breakage] of Object.entries(alone[name]!)) {
          const agreement = await trainedOn(breakage, settings)
          expect(agrees(agreement), what).toBe(false)
          expect(agreement.decisions, what).toBe(true)
          expect(agreement.firstDisagreement?.message, what).toMatch(/^rank 1, tensor .* after op \d+ /u)
        }
      })
    }
})

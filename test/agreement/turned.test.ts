// What came over narrow wires in a real run: what rounding explains is counted and goes on in the simulated run, all else is told.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { throughWire } from "../../core/kernels/collectives.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type MachineError, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Tensor, TensorData } from "../../core/machine/tensor.ts"
import { Random } from "../../core/random.ts"
import { held, machined, type Machined } from "./collected.ts"

type Wire = "int8" | "float8" | "float4" | "bfloat16"
type Given = ReadonlyArray<ReadonlyArray<number>>

/** Averages x over a narrow wire, adds to it, averages that over one again, and doubles it: y lies on the second block's scale. */
const twice = (given: Given, added: ReadonlyArray<number>, wire: Wire): Program<void> =>
  Effect.gen(function* () {
    const machine = yield* Machine
    const like = { shape: [added.length], dtype: "float32" } as const
    const x = yield* machine.alloc({
      name: "x",
      ...like,
      initial: () => Float32Array.from(given[machine.rank]!)
    })
    const more = yield* machine.alloc({ name: "more", ...like, initial: () => Float32Array.from(added) })
    const y = yield* machine.alloc({ name: "y", ...like })
    const average = (label: string, from: Tensor) =>
      machine.submit(
        collective(label, kernels.all_reduce, Lane.inter, machine.world.all, [from], [y], {
          attributes: { reduce: "avg", wire }
        })
      )
    average("first", x)
    machine.submit(launch("add", kernels.add, Lane.compute, [y, more], [y]))
    average("second", y)
    machine.submit(launch("double", kernels.scale, Lane.compute, [y], [y], { factor: 2 }))
    yield* machine.drain
  })

/** The same run with other results of its first collective. */
const changed = (real: Machined, change: (values: TensorData, rank: number) => TensorData): Machined => ({
  ...real,
  journals: real.journals.map(({ rank, entries }) => ({
    rank,
    entries: entries.map((entry) =>
      entry.kind === "op" && entry.op.label === "first"
        ? { ...entry, results: entry.results!.map((values) => change(values, rank)) }
        : entry
    )
  }))
})

const drawn = (count: number, seed: number): ReadonlyArray<number> => {
  const random = new Random(seed)
  return Array.from({ length: count }, () => 2 * random.uniform() - 1)
}

describe("what turned on a narrow wire", () => {
  it("is counted, and moves nothing behind it: no scale of a block, and nothing that is computed", () => {
    // The largest is 127, so that a step is 1; 40.5 lies in the middle, and is the largest once 200 are added.
    const given = (middle: number): Given => [
      [127, middle, -3, 77, 5, 0.25, -9, 1],
      [127, 10, 31, -14, 2, 6.75, 18, -60]
    ]
    const added = [1, 200, 1, 1, 1, 1, 1, 1]
    const below = twice(given(40.49999), added, "int8")
    const real = machined(twice(given(40.50001), added, "int8"), 2)
    const alone = machined(below, 2)
    const y = (one: Machined) => {
      const entry = one.journals[0]!.entries.find(
        (entry) => entry.kind === "alloc" && entry.tensor.name === "y"
      )
      return [...one.valuesOf(0, entry?.kind === "alloc" ? entry.tensor : expect.fail())]
    }
    // Without the other's results all of the block lies elsewhere.
    const apart = y(alone).filter((value, i) => Math.abs(value - y(real)[i]!) > 1e-3 * Math.abs(value))
    expect(apart.length).toBeGreaterThan(4)
    const { agreement, simulated } = held(below, real)
    expect(agreement.firstDisagreement).toBeUndefined()
    expect(agreement.narrowWires).toEqual({ elements: 32, turned: 2 })
    expect(y(simulated)).toEqual(y(real))
    // And what is behind it is held to float32 again.
    const bent = {
      ...real,
      valuesOf: (rank: number, tensor: Tensor) =>
        real
          .valuesOf(rank, tensor)
          .map((value, i) => (tensor.name === "y" && i === 1 ? 1.003 * value : value))
    }
    expect(held(below, bent).agreement.firstDisagreement?.message).toMatch(/"y" \(float32\) at the end/u)
  })

  const given: Given = [drawn(64, 1), drawn(64, 2)]
  const added = drawn(64, 3)
  const scale = Math.max(...given[0]!.map(Math.abs)) / 127
  /** How far from the middle between two codes. */
  const fromMiddle = (value: number): number => Math.abs((Math.abs(value / scale) % 1) - 0.5)
  const plain = given[0]!.findIndex((value) => Math.abs(value / scale) < 100 && fromMiddle(value) > 0.45)

  const averaged = (sent: (values: ReadonlyArray<number>, rank: number) => ArrayLike<number>) => {
    const [one, other] = given.map((values, rank) => sent(values, rank))
    return Float32Array.from(one!, (value, i) => (value + other![i]!) / 2)
  }
  const cut = (values: ReadonlyArray<number>): ReadonlyArray<number> => {
    const own = Math.max(...values.map(Math.abs)) / 127
    return values.map((value) => Math.trunc(value / own) * own)
  }

  for (const wire of ["int8", "float8", "float4", "bfloat16"] as const) {
    const program = twice(given, added, wire)
    const real = machined(program, 2)
    const over = (values: ReadonlyArray<number>) => throughWire(Float32Array.from(values), wire)
    const told = (change: (values: TensorData, rank: number) => TensorData) => {
      const { agreement } = held(program, changed(real, change))
      expect(agreement).toMatchObject({ decisions: true, values: false })
      expect(agreement.firstDisagreement?.message).toMatch(/tensor \d+ "y" .*op 0 "first"/u)
    }

    it(`over ${wire} is told from what is wrong there`, () => {
      expect(held(program, real).agreement).toMatchObject({
        firstDisagreement: undefined,
        narrowWires: { elements: 256, turned: 0 }
      })
      // A scale that is off, to either side; on one rank alone.
      for (const factor of [0.99, 1.01]) {
        told((values) => values.map((value) => factor * value))
        told((values, rank) => (rank === 1 ? values.map((value) => factor * value) : values))
      }
      // A contribution that does not come, comes twice, or is not divided.
      told(() => averaged((values, rank) => (rank === 1 ? values.map(() => 0) : over(values))))
      told(() => averaged((values, rank) => over(rank === 1 ? given[0]! : values)))
      told((values) => values.map((value) => 2 * value))
      // Two that are exchanged, one that is nothing, and all of an earlier message.
      told((values) => values.map((_, i) => values[i ^ 1]!))
      told((values) => values.map((value, i) => (i === plain ? 0 : value)))
      told((values) => values.map((value, i) => (i === plain ? NaN : value)))
      told(() => Float32Array.from(added))
      // One that is off to either side, be it positive or negative.
      const most = Math.max(...given.flat().map(Math.abs))
      for (let at = 0; at < 8; at++)
        for (const by of [-0.4 * most, 0.4 * most])
          told((values) => values.map((value, i) => (i === at ? value + by : value)))
      // Another wire.
      for (const other of ["int8", "float8", "float4", "bfloat16"] as const)
        if (other !== wire) told(() => averaged((values) => throughWire(Float32Array.from(values), other)))
    })
  }

  it("is of inputs that are off as far as they may be, and no further", () => {
    // A step is 1, and the scale may be off by a thousandth, too: 40.475 may be 40.505, and 40.4 may not.
    for (const sign of [1, -1]) {
      const around = (middle: number) =>
        twice(
          [
            [127, sign * middle, 5, 9],
            [127, sign * 10, 1, -3]
          ],
          [1, 1, 1, 1],
          "int8"
        )
      const real = machined(around(40.505), 2)
      const { firstDisagreement, narrowWires } = held(around(40.475), real).agreement
      expect([firstDisagreement, narrowWires]).toEqual([undefined, { elements: 16, turned: 2 }])
      expect(held(around(40.4), real).agreement.firstDisagreement?.message).toMatch(
        /over a wire of int8 \(op 0 "first"\): simulated element 1 is -?25, /u
      )
    }
  })

  it("is nothing that a block without a scale excuses", () => {
    const program = travelling([[1, Infinity, 3]], (_, x) => Effect.succeed(x))
    const real = machined(program, 2)
    expect(held(program, real).agreement.firstDisagreement).toBeUndefined()
    const finite = coming(real, 0, () => Float32Array.of(1, 2, 3))
    expect(held(program, finite).agreement.firstDisagreement?.message).toMatch(/over a wire of int8/u)
  })

  /** Averages over int8 what tensors hold that are made of others by `make`, all in one. */
  const travelling = (
    values: ReadonlyArray<ReadonlyArray<number>>,
    make: (machine: Machine["Service"], from: Tensor) => Effect.Effect<Tensor, MachineError>
  ): Program<void> =>
    Effect.gen(function* () {
      const machine = yield* Machine
      const [reads, writes]: [Array<Tensor>, Array<Tensor>] = [[], []]
      for (const [i, own] of values.entries()) {
        const like = { shape: [1, own.length], dtype: "float32" } as const
        const x = yield* machine.alloc({ name: `x${i}`, ...like, initial: () => Float32Array.from(own) })
        reads.push(yield* make(machine, x))
        writes.push(yield* machine.alloc({ name: `y${i}`, ...like }))
      }
      machine.submit(
        collective("first", kernels.all_reduce, Lane.inter, machine.world.all, reads, writes, {
          attributes: { reduce: "avg", wire: "int8" }
        })
      )
      yield* machine.drain
    })
  /** The same run, in which that came of the n-th tensor. */
  const coming = (real: Machined, nth: number, change: (values: TensorData) => TensorData): Machined => ({
    ...real,
    valuesOf: (rank, tensor) =>
      tensor.name === `y${nth}` ? change(real.valuesOf(rank, tensor)) : real.valuesOf(rank, tensor),
    journals: real.journals.map(({ rank, entries }) => ({
      rank,
      entries: entries.map((entry) =>
        entry.kind === "op" && entry.op.label === "first"
          ? { ...entry, results: entry.results!.map((values, i) => (i === nth ? change(values) : values)) }
          : entry
      )
    }))
  })

  it("is nothing to hold where the runs have parted, on whichever rank", () => {
    const program = twice(given, added, "int8")
    const real = machined(program, 2)
    for (const parted of [0, 1]) {
      const journals = real.journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) =>
          entry.kind === "op" && rank === parted
            ? {
                ...entry,
                op: { ...entry.op, label: "another" },
                ...(entry.results && { results: entry.results.map((values) => values.map(() => 9)) })
              }
            : entry
        )
      }))
      const { agreement, simulated } = held(program, { ...real, journals })
      expect(agreement).toMatchObject({ decisions: false, narrowWires: { elements: 0, turned: 0 } })
      expect(agreement.firstDisagreement?.kind).toBe("decisions")
      const ends = (run: Machined) =>
        run.journals[0]!.entries.map((entry) => "results" in entry && entry.results)
      expect(ends(simulated)).toEqual(ends(real))
    }
  })

  it("is held of what one rank sends another, of which the one that sends has nothing", () => {
    const sending: Program<void> = Effect.gen(function* () {
      const machine = yield* Machine
      const { rank, world } = machine
      const x = yield* machine.alloc({
        name: "x",
        shape: [4],
        dtype: "float32",
        initial: () => Float32Array.of(127, 40.3, -3, 77)
      })
      const [reads, writes] = rank === 0 ? [[x], []] : [[], [x]]
      machine.submit(
        collective("first", kernels.send_recv, Lane.inter, world.all, reads, writes, {
          attributes: { source: rank === 0, wire: "int8" }
        })
      )
      yield* machine.drain
    })
    const run = machined(sending, 2)
    const come = (change: (values: TensorData) => TensorData): Machined => ({
      ...run,
      valuesOf: (rank, tensor) =>
        rank === 1 ? change(run.valuesOf(rank, tensor)) : run.valuesOf(rank, tensor),
      journals: run.journals.map(({ rank, entries }) => ({
        rank,
        entries: entries.map((entry) => {
          if (entry.kind !== "op") return entry
          const { results, ...sent } = entry
          return rank === 0 ? sent : { ...entry, results: results!.map(change) }
        })
      }))
    })
    expect(
      held(
        sending,
        come((values) => values)
      ).agreement
    ).toMatchObject({
      firstDisagreement: undefined,
      narrowWires: { elements: 4, turned: 0 }
    })
    // A step is 1: half of one would be within what the end allows behind so narrow a wire.
    const off = held(
      sending,
      come((values) => values.map((value, i) => (i === 1 ? value + 1 : value)))
    )
    expect(off.agreement.firstDisagreement?.message).toMatch(
      /^rank 1, .*, over a wire of int8 \(op 0 "first"\)/u
    )
  })

  it("is told of every tensor of a message", () => {
    const program = travelling(
      [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9]
      ],
      (_, x) => Effect.succeed(x)
    )
    const real = machined(program, 2)
    expect(held(program, real).agreement.firstDisagreement).toBeUndefined()
    for (const nth of [0, 1, 2]) {
      const { agreement } = held(
        program,
        coming(real, nth, (values) => values.map((x) => 1.1 * x))
      )
      expect(agreement.firstDisagreement?.message).toMatch(
        new RegExp(`"y${nth}" .*, over a wire of int8`, "u")
      )
    }
  })

  it("behind a narrow tensor is some elements, not all", () => {
    const program = travelling([drawn(64, 4)], (machine, x) =>
      Effect.gen(function* () {
        const narrow = yield* machine.alloc({ name: "narrow", shape: [1, 64], dtype: "float4" })
        machine.submit(launch("narrow", kernels.copy, Lane.compute, [x], [narrow]))
        machine.submit(launch("widen", kernels.copy, Lane.compute, [narrow], [x]))
        return x
      })
    )
    const real = machined(program, 2)
    const off = (count: number) =>
      held(
        program,
        coming(real, 0, (values) => values.map((x, i) => (i < count ? x + 0.25 : x)))
      ).agreement.firstDisagreement?.message
    expect(off(1)).toBeUndefined()
    expect(off(64)).toMatch(/over a wire of int8 .*: simulated all 64 elements but the one furthest off/u)
    expect(off(32)).toMatch(/over a wire of int8 .*: simulated all 64 elements but the one furthest off/u)
  })

  it("beside a scaled loss is held by its scale only where it is times that", () => {
    // Numbers so small that a step of int8 is less than 1e-8 of a gradient, times a scale of 2^20.
    const small = [1e-4, -2e-4, 3e-5, 5e-5]
    const program = (times: boolean) =>
      travelling([small], (machine, x) =>
        Effect.gen(function* () {
          const tensor = (name: string, shape: ReadonlyArray<number>, values: TensorData) =>
            machine.alloc({
              name,
              shape,
              dtype: values instanceof Int32Array ? "int32" : "float32",
              initial: () => values
            })
          const logits = yield* tensor("logits", [1, 4], Float32Array.of(0.1, 0.2, 0.3, 0.4))
          const targets = yield* tensor("targets", [1], Int32Array.of(-100))
          const scaling = yield* tensor("scaling", [4], Float32Array.of(2 ** 20, 0, 0, 0))
          const gradient = yield* tensor("gradient", [1, 4], new Float32Array(4))
          const kernel = kernels["softmax_cross_entropy.backward"]
          const reads = [logits, targets, scaling]
          machine.submit(launch("loss", kernel, Lane.compute, reads, [gradient], { scaled: true }))
          // Of a target that is left out a gradient is zero.
          if (times) machine.submit(launch("add", kernels.add, Lane.compute, [x, gradient], [x]))
          return x
        })
      )
    const off = (times: boolean, by: number) => {
      const real = machined(program(times), 2)
      return held(
        program(times),
        coming(real, 0, (values) => values.map((x, i) => (i === 0 ? x + by : x)))
      ).agreement.firstDisagreement?.message
    }
    expect(off(true, 0.005)).toBeUndefined()
    expect(off(true, 5)).toMatch(/over a wire of int8/u)
    expect(off(false, 0.005)).toMatch(/over a wire of int8/u)
  })

  it("is one step, of what lies near the middle", () => {
    const program = twice(given, added, "int8")
    const real = machined(program, 2)
    const off = (steps: number, element: number) =>
      held(
        program,
        changed(real, (values) =>
          values.map((value, i) => (i === element ? value + (steps * scale) / 2 : value))
        )
      ).agreement
    for (const steps of [-2, -1, 1, 2]) expect(off(steps, plain).values, String(steps)).toBe(false)
    // Rounded toward zero, half of all are off by a step.
    const toZero = held(
      program,
      changed(real, () => averaged(cut))
    ).agreement
    expect(toZero.firstDisagreement?.message).toMatch(/over a wire of int8/u)
  })

  const seconds = { shape: [12], dtype: "float32" } as const
  const travels = {
    all_reduce: [1, {}],
    all_gather: [2, { ranks: 2 }],
    reduce_scatter: [0.5, { ranks: 2 }],
    all_to_all: [1, { ranks: 2 }],
    broadcast: [1, { root: 1 }]
  } as const

  it("is whatever float32 may be off by before, of every collective", () => {
    let turned = 0
    let elements = 0
    fc.assert(
      fc.property(
        fc.constantFrom(...(Object.keys(travels) as ReadonlyArray<keyof typeof travels>)),
        fc.constantFrom<Wire>("int8", "float8", "float4", "bfloat16"),
        fc.nat(),
        (name, wire, seed) => {
          const [times, attributes] = travels[name]
          const sent = (off: number): Program<void> =>
            Effect.gen(function* () {
              const machine = yield* Machine
              const random = new Random(seed).split(String(machine.rank))
              const values = Float32Array.from({ length: 12 }, () => {
                const value = (2 * random.uniform() - 1) * 2 ** -random.below(6)
                return value * (1 + off * (2 * random.uniform() - 1))
              })
              const x = yield* machine.alloc({ name: "x", ...seconds, initial: () => values })
              const y = yield* machine.alloc({ name: "y", ...seconds, shape: [12 * times] })
              machine.submit(
                collective("first", kernels[name], Lane.inter, machine.world.all, [x], [y], {
                  attributes: { ...attributes, wire }
                })
              )
              yield* machine.drain
            })
          const { agreement } = held(sent(0), machined(sent(0.9e-3), 2))
          expect(agreement.firstDisagreement).toBeUndefined()
          turned += agreement.narrowWires!.turned
          elements += agreement.narrowWires!.elements
        }
      ),
      { numRuns: 300 }
    )
    expect(turned).toBeGreaterThan(20)
    expect(turned).toBeLessThan(elements / 10)
  })
})

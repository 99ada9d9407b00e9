// What recording costs, where it is known: a program runs on a device that takes longer for each op when it is timed, and the cost is
// found again from both runs; so is a host that cannot be as slow as a timeline says.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { hostSecondsOf } from "../../core/cost/host.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { interpose } from "../../core/machine/interpose.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import { oneRank } from "../../core/world.ts"
import { costOfRecording, leastCost, mostRecordingSeconds } from "../../exec/recording-cost.ts"
import type { RecordedRun } from "../../exec/recorded.ts"
import { lessRecording, type Launching } from "../../exec/replayed-run.ts"
import { inStretches, type Stretches } from "../../exec/stretches.ts"
import { run } from "../simulate/simulated.ts"

interface Given {
  /** Of each op of a step; every third is a copy, on a lane of its own. */
  readonly seconds: ReadonlyArray<number>
  readonly launchSeconds: number
  readonly readSeconds: number
  readonly recordingSeconds?: number
}

const rounds = 5

/** Steps that each end with a read, and their stretches on the simulation's own clock. */
const ran = ({ seconds, launchSeconds, readSeconds, recordingSeconds = 0 }: Given, reads = true) => {
  const journals: Array<Journal> = []
  const stretches: Stretches = new Map()
  let nowSeconds = 0
  const look = Effect.tap(
    Effect.flatMap(Machine, ({ now }) => now),
    (now) => Effect.sync(() => (nowSeconds = now))
  )
  const program = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    const y = yield* machine.alloc({ name: "y", shape: [1], dtype: "float32" })
    const ops = seconds.map((_, i) =>
      launch(`op ${i}`, kernels.scale, i % 3 === 2 ? Lane.h2d : Lane.compute, [i % 3 === 2 ? y : x], [x], {
        factor: 1
      })
    )
    for (let round = 0; round < rounds; round++) {
      for (const op of ops) machine.submit(op)
      if (reads) yield* machine.read(x)
      yield* machine.endStep
    }
  })
  // The clock is looked at where a wait has ended.
  const clocked = Effect.gen(function* () {
    const machine = yield* Machine
    const read = (tensor: Parameters<typeof machine.read>[0]) => Effect.tap(machine.read(tensor), () => seen)
    const seen = Effect.provideService(look, Machine, machine)
    const drain = Effect.tap(machine.drain, () => seen)
    const watched = inStretches(program, stretches, reads ? undefined : 2, () => nowSeconds)
    yield* Effect.provideService(watched, Machine, {
      ...machine,
      alloc: (spec) => machine.alloc(spec),
      free: (tensor) => machine.free(tensor),
      submit: (op, scalars) => machine.submit(op, scalars),
      read,
      drain,
      endStep: machine.endStep
    })
  })
  const { timeline, opLogs } = run({
    world: oneRank,
    costs: {
      seconds: ({ label }) => seconds[Number(label.slice(3))]! + recordingSeconds,
      estimates: [],
      host: {
        seconds: (op) =>
          hostSecondsOf(
            {
              mode: "compiled",
              launchSeconds,
              readSeconds,
              collectiveSeconds: 0,
              hookSeconds: 0,
              replaySeconds: 0
            },
            op
          ),
        readSeconds,
        replaySeconds: 0,
        launchesLayers: false,
        readsEachStep: false,
        waitsFor: () => false
      }
    },
    record: true,
    source: () => new Float32Array(1),
    program: journaled(clocked, journals)
  })
  return { run: { timeline: timeline!, opLogs, journals }, stretches: stretches.get(0)! }
}

/** Submitting costs a simulation's clock nothing that a program could see: what it would have been. */
const withHost = (stretches: ReturnType<typeof ran>["stretches"], launchSeconds: number) =>
  stretches.map((one) => ({ ...one, hostSeconds: one.ops * launchSeconds }))

const seconds = fc.array(fc.double({ min: 2e-5, max: 4e-4, noNaN: true }), { minLength: 4, maxLength: 24 })

describe("the cost of recording ops", () => {
  it("is what a device takes longer for each op that is timed, where the device is busy throughout", () => {
    fc.assert(
      fc.property(seconds, fc.double({ min: 1e-6, max: 1e-5, noNaN: true }), (each, recordingSeconds) => {
        const host = { launchSeconds: 1e-7, readSeconds: 3e-5 }
        const plain = ran({ seconds: each, ...host })
        const timed = ran({ seconds: each, ...host, recordingSeconds })
        const submitted = withHost(plain.stretches, host.launchSeconds)
        const found = costOfRecording(timed.run, "run", 0, timed.stretches, submitted, host)!
        expect(found.recordingSeconds).toBeCloseTo(recordingSeconds, 9)
        expect(found.host.launchSeconds).toBeCloseTo(host.launchSeconds, 10)
        expect(found.host.readSeconds).toBeCloseTo(host.readSeconds, 8)
        expect(found.ops).toBe(each.length)
        expect(found.plainSeconds).toBeLessThan(found.timedSeconds)
      })
    )
  })

  it("is found of steps that wait for nothing, between two drains", () => {
    const each = [2e-4, 1e-4, 3e-4, 5e-5, 1e-4]
    const host = { launchSeconds: 0, readSeconds: 0 }
    const plain = ran({ seconds: each, ...host }, false)
    const timed = ran({ seconds: each, ...host, recordingSeconds: 6e-6 }, false)
    const found = costOfRecording(timed.run, "run", 0, timed.stretches, plain.stretches)!
    expect(found.recordingSeconds).toBeCloseTo(6e-6, 9)
    expect(found).toMatchObject({ mostReached: false, flooredShare: 0 })
    expect(found.host).toEqual({})
    expect(found.ops).toBe((rounds - 2) * each.length)
  })

  it("says where its bounds are what decides: the most of an op, and the least that is left of one", () => {
    const host = { launchSeconds: 0, readSeconds: 0 }
    const of = (each: ReadonlyArray<number>, recordingSeconds: number) => {
      const [plain, timed] = [
        ran({ seconds: each, ...host }),
        ran({ seconds: each, ...host, recordingSeconds })
      ]
      return costOfRecording(timed.run, "run", 0, timed.stretches, plain.stretches)!
    }
    const long = of([2e-4, 1e-4, 3e-4], 6e-5)
    expect(long.recordingSeconds).toBeCloseTo(mostRecordingSeconds, 9)
    expect(long).toMatchObject({ mostReached: true, flooredShare: 0 })
    // a microsecond of ten that were timed, where two are the least that is left
    expect(of([2e-4, 1e-4, 1e-4, 1e-6], 9e-6)).toMatchObject({ mostReached: false, flooredShare: 1 / 4 })
  })

  it("is none where steps take no longer timed, whatever their ops come to", () => {
    const given = { seconds: [1e-4, 2e-4, 1e-4], launchSeconds: 0, readSeconds: 0 }
    const same = ran(given)
    const found = costOfRecording(same.run, "run", 0, same.stretches, same.stretches)!
    expect(found.recordingSeconds).toBe(0)
  })

  it("of spans is the least that makes them no longer than a plain step", () => {
    const spans = [1e-5, 4e-5, 2e-4]
    const total = (cost: number) => spans.reduce((sum, span) => sum + lessRecording(span, cost), 0)
    expect(leastCost(2.5e-4 - 3 * 5e-6, total)).toBeCloseTo(5e-6, 10)
    expect(leastCost(1, total)).toBe(0)
    expect(leastCost(1e-6, total)).toBeCloseTo(2e-5, 12)
  })

  it("leaves a fifth of an op's time", () => {
    expect(lessRecording(1e-5, 3e-6)).toBeCloseTo(7e-6, 12)
    expect(lessRecording(1e-5, 9e-6)).toBeCloseTo(2e-6, 12)
    expect(lessRecording(1e-5, 1)).toBeCloseTo(2e-6, 12)
  })

  it("is unknown of runs that have no stretch in common", () => {
    const given = { launchSeconds: 0, readSeconds: 0 }
    const [one, other] = [ran({ seconds: [1e-4], ...given }), ran({ seconds: [1e-4, 1e-4], ...given })]
    expect(costOfRecording(one.run, "run", 0, one.stretches, other.stretches)).toBeUndefined()
  })
})

describe("the host beside plain steps", () => {
  it("is shortened until its own steps take no longer than plain", () => {
    const each = Array.from({ length: 20 }, () => 1e-5)
    const real = { launchSeconds: 2e-5, readSeconds: 1e-4 }
    const plain = ran({ seconds: each, ...real })
    const timed = ran({ seconds: each, launchSeconds: 6e-5, readSeconds: 7e-4 })
    // all that the plain run's host is known to have spent on submitting is more than it had
    const slow = withHost(plain.stretches, 4e-5)
    const { host } = costOfRecording(timed.run, "run", 0, timed.stretches, slow, {
      launchSeconds: 6e-5,
      readSeconds: 7e-4
    })!
    const again = ran({
      seconds: each,
      launchSeconds: host.launchSeconds!,
      readSeconds: host.readSeconds!
    })
    const stepOf = ({ stretches }: typeof again) => stretches[2]!.seconds
    expect(stepOf(again)).toBeLessThanOrEqual(stepOf(plain) * (1 + 1e-6))
    expect(stepOf(again)).toBeGreaterThan(stepOf(plain) * 0.999)
  })

  it("launches no slower than the plain run submitted, and reads as long as what remains of its steps", () => {
    const each = Array.from({ length: 20 }, () => 1e-5)
    const host = { launchSeconds: 1e-5, readSeconds: 1e-4 }
    const real = ran({ seconds: each, ...host })
    const later = withHost(real.stretches, host.launchSeconds).map((one) => ({
      ...one,
      seconds: one.seconds + 5e-4
    }))
    const timeline = { ...host, launchSeconds: 6e-5 }
    const { host: found } = costOfRecording(real.run, "run", 0, real.stretches, later, timeline)!
    expect(found.launchSeconds).toBeCloseTo(host.launchSeconds, 10)
    expect(found.readSeconds).toBeCloseTo(host.readSeconds + 5e-4, 9)
  })
})

/** Of each kind of step. */
const times = 9

/** Steps of several kinds, `times` of each one after another: those of a kind have an op of their own, between ops that all have. */
const ranKinds = (own: ReadonlyArray<number>, host: Launching, recordingSeconds = 0, common = 2e-4) => {
  const journals: Array<Journal> = []
  const program = Effect.gen(function* () {
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
    for (const kind of own.keys()) {
      const labels = ["before", "more", `own ${kind}`, "after"]
      const ops = labels.map((label) => launch(label, kernels.scale, Lane.compute, [x], [x], { factor: 1 }))
      for (let round = 0; round < times; round++) {
        for (const op of ops) machine.submit(op)
        yield* machine.read(x)
        yield* machine.endStep
      }
    }
  })
  const ends: Array<number> = []
  const watched = Effect.gen(function* () {
    const machine = yield* Machine
    const read = (tensor: Parameters<typeof machine.read>[0]) =>
      Effect.tap(machine.read(tensor), () =>
        Effect.tap(machine.now, (now) => Effect.sync(() => ends.push(now)))
      )
    yield* Effect.provideService(program, Machine, interpose(machine, { read }))
  })
  const { launchSeconds = 0, readSeconds = 0 } = host
  const { timeline, opLogs } = run({
    world: oneRank,
    costs: {
      seconds: ({ label }) =>
        (label.startsWith("own") ? own[Number(label.slice(4))]! : common) + recordingSeconds,
      estimates: [],
      host: {
        seconds: () => launchSeconds,
        readSeconds,
        replaySeconds: 0,
        launchesLayers: false,
        readsEachStep: false,
        waitsFor: () => false
      }
    },
    record: true,
    source: () => new Float32Array(1),
    program: journaled(watched, journals)
  })
  const stretches = ends.map((end, index) => ({
    ops: 4,
    seconds: end - (ends[index - 1] ?? 0),
    hostSeconds: 4 * launchSeconds,
    slept: false
  }))
  return { run: { timeline: timeline!, opLogs, journals }, stretches }
}

describe("steps of several kinds", () => {
  const host = { launchSeconds: 1e-6, readSeconds: 5e-5 }
  const factors = [0.8, 0.9, 1, 1.1, 1.25]

  it("tell of each kind's own ops what they take plain, where that is not what they took timed less the recording", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 1e-4, max: 2e-3, noNaN: true }), { minLength: 5, maxLength: 5 }),
        fc.double({ min: 1e-6, max: 1e-5, noNaN: true }),
        (each, recordingSeconds) => {
          const timed = ranKinds(each, host, recordingSeconds)
          const plain = ranKinds(
            each.map((one, kind) => one * factors[kind]!),
            host
          )
          const found = costOfRecording(timed.run, "run", 0, timed.stretches, plain.stretches, host)!
          expect(found.kinds.map(({ count, ops }) => [count, ops])).toEqual(factors.map(() => [times, 4]))
          // what remains is the own ops' and nobody else's: predicted of these costs, every kind's steps take as long as they did plain
          const again = ranKinds(
            each.map((one, kind) => found.takes(ownOp(timed.run, kind), one + recordingSeconds)),
            found.host,
            0,
            found.takes(commonOp(timed.run), 2e-4 + recordingSeconds)
          )
          for (const [index, { seconds: predicted }] of again.stretches.entries())
            expect(predicted / plain.stretches[index]!.seconds).toBeCloseTo(1, 3)
        }
      ),
      { numRuns: 20 }
    )
  })

  it("say nothing where the host is what they wait for", () => {
    const busy = { launchSeconds: 1e-3, readSeconds: 5e-5 }
    const each = [1e-4, 2e-4, 3e-4]
    const timed = ranKinds(each, busy, 5e-6)
    const plain = ranKinds(each, busy)
    const longer = plain.stretches.map((one, index) => ({
      ...one,
      seconds: one.seconds * [0.97, 1, 1.03][Math.floor(index / times)]!
    }))
    const { kinds } = costOfRecording(timed.run, "run", 0, timed.stretches, longer, busy)!
    expect(kinds.map(({ factor }) => factor)).toEqual([1, 1, 1])
  })

  it("are told apart by their ops, and of one kind alone nothing is left", () => {
    const timed = ranKinds([3e-4], host, 5e-6)
    const plain = ranKinds([2e-4], host)
    const { kinds, takes } = costOfRecording(timed.run, "run", 0, timed.stretches, plain.stretches, host)!
    expect(kinds).toHaveLength(1)
    expect(kinds[0]!.factor).toBe(1)
    expect(takes(ownOp(timed.run, 0), 1)).toBe(takes(commonOp(timed.run), 1))
  })
})

const labelled = ({ journals }: RecordedRun, wanted: string): Op => {
  for (const entry of journals[0]!.entries)
    if (entry.kind === "op" && entry.op.label === wanted) return entry.op
  throw new Error(wanted)
}
const ownOp = (recorded: RecordedRun, kind: number): Op => labelled(recorded, `own ${kind}`)
const commonOp = (recorded: RecordedRun): Op => labelled(recorded, "before")

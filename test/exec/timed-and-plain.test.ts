// The same program timed and plain, for real: stretches are alike, in number and in ops, and a backend whose timing costs nothing runs
// it once.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { launch } from "../../core/machine/op.ts"
import { oneRank } from "../../core/world.ts"
import { CurrentBackend } from "../../exec/backend.ts"
import { layerTimes } from "../../exec/layer-times.ts"
import { forBenchmark, recordedOps } from "../../exec/recorded.ts"
import { costOfRecording } from "../../exec/recording-cost.ts"
import { costsOfRun } from "../../exec/run-costs.ts"
import { middleOf } from "../../exec/stretches.ts"
import { timedAndPlain } from "../../exec/timed-and-plain.ts"
import { describeNative } from "../native/addon.ts"

/** `reads`: what each step ends with; otherwise nothing is waited for. */
const stepsOf = (steps: number, reads: boolean, runs: { count: number }) =>
  Effect.gen(function* () {
    runs.count++
    const machine = yield* Machine
    const x = yield* machine.alloc({ name: "x", shape: [64], dtype: "float32" })
    const roles = [{ kind: "forward", layer: 0 }, { kind: "backward", layer: 0 }, undefined] as const
    const ops = roles.map((role, i) =>
      launch(`op ${i}`, kernels.scale, Lane.compute, [x], [x], { factor: 1 }, role)
    )
    for (let step = 0; step < steps; step++) {
      for (const op of ops) machine.submit(op)
      if (reads) yield* machine.read(x)
      yield* machine.endStep
    }
  })

const onCpu = <A, E>(effect: Effect.Effect<A, E>): Promise<A> =>
  Effect.runPromise(Effect.provideService(effect, CurrentBackend, "cpu"))

it("takes runs at their median, of which one was held up", () => {
  const run = (...seconds: ReadonlyArray<number>) =>
    seconds.map((one) => ({ ops: 3, seconds: one, hostSeconds: one / 10, slept: false }))
  expect(middleOf([run(1, 2), run(9, 1.9), run(1.1, 8)])).toEqual(run(1.1, 2))
  expect(middleOf([run(1, 2)])).toEqual(run(1, 2))
  expect(middleOf([])).toEqual([])
  // from where they part, they say nothing of each other
  const other = [...run(1), { ops: 4, seconds: 2, hostSeconds: 1, slept: true }]
  expect(middleOf([run(1, 2, 3), other, run(1, 2, 3)])).toEqual(run(1))
})

describeNative("timed and plain", () => {
  it("counts as many of the last plain runs as it is told", async () => {
    const runs = { count: 0 }
    // the first has fewer steps: with it there would be as few stretches
    const plain = (steps: number) => () => ({ program: stepsOf(steps, true, runs) })
    const { both } = await onCpu(
      timedAndPlain(
        { world: oneRank },
        { timed: plain(5)(), plain: [plain(2), plain(5), plain(5), plain(5)], counted: 3 },
        undefined,
        true
      )
    )
    expect(runs.count).toBe(5)
    expect(both!.plain).toHaveLength(5)
  })

  it("has stretches of steps that read, the last plain run's", async () => {
    const runs = { count: 0 }
    const plain = () => ({ program: stepsOf(5, true, runs) })
    const { record, both } = await onCpu(
      timedAndPlain({ world: oneRank }, { timed: plain(), plain: [plain, plain] }, undefined, true)
    )
    expect(runs.count).toBe(3)
    expect(both!.plain.map(({ ops }) => ops)).toEqual([3, 3, 3, 3, 3])
    expect(both!.timed.map(({ ops }) => ops)).toEqual([3, 3, 3, 3, 3])
    for (const { seconds, hostSeconds, slept } of [...both!.plain, ...both!.timed]) {
      expect(seconds).toBeGreaterThanOrEqual(hostSeconds)
      expect(hostSeconds).toBeGreaterThan(0)
      expect(slept).toBe(false)
    }
    const host = { launchSeconds: 1e-6, readSeconds: 1e-5 }
    const found = costOfRecording(record, "run", 0, both!.timed, both!.plain, host)!
    expect(found.ops).toBe(3)
    expect(found.recordingSeconds).toBeLessThanOrEqual(2e-5)
    expect(found.plainSeconds).toBeGreaterThan(0)
  })

  it("has the steps between two drains of a program that waits for nothing", async () => {
    const runs = { count: 0 }
    const { record, both } = await onCpu(
      timedAndPlain(
        { world: oneRank },
        {
          timed: { program: stepsOf(6, false, runs), drainAfter: 2 },
          plain: [() => ({ program: stepsOf(10, false, runs), drainAfter: 6 })]
        },
        undefined,
        true
      )
    )
    expect(both!.timed.map(({ ops }) => ops)).toEqual([6, 12])
    expect(both!.plain.map(({ ops }) => ops)).toEqual([18, 12])
    const found = costOfRecording(record, "run", 0, both!.timed, both!.plain)!
    expect(found.ops).toBe(12)

    const layers = [{ name: "one", parameters: [] }]
    const timed = layerTimes(record, layers, 2, 4)
    const less = layerTimes(record, layers, 2, 4, { busySeconds: 1, spanSeconds: 1 })
    for (const phase of ["forward", "backward"] as const) {
      expect(less.layers[0]![phase].busySeconds).toBeCloseTo(timed.layers[0]![phase].busySeconds / 5, 12)
      expect(less.layers[0]![phase].spanSeconds).toBeLessThan(timed.layers[0]![phase].spanSeconds)
    }
  })

  it("gives the costs of the run plain: ops less their recording, and the host of its plain steps", async () => {
    const runs = { count: 0 }
    const plain = () => ({ program: stepsOf(20, true, runs) })
    const ran = await onCpu(
      timedAndPlain({ world: oneRank }, { timed: plain(), plain: [plain, plain] }, undefined, true)
    )
    const { ops, host, recording } = await onCpu(costsOfRun(ran))
    const { takes, host: held } = recording!
    expect(ops.length).toBeGreaterThan(0)
    expect(ops).toEqual(recordedOps(ran.record, forBenchmark, takes))
    expect(host).toMatchObject(held)
    expect((await onCpu(costsOfRun({ record: ran.record }))).ops).toEqual(
      recordedOps(ran.record, forBenchmark)
    )
    expect((await onCpu(costsOfRun(ran, { hosted: false }))).host).toBeUndefined()
  })

  it("runs once where timing costs nothing", async () => {
    const runs = { count: 0 }
    const plain = () => ({ program: stepsOf(2, true, runs) })
    const { record, both } = await onCpu(
      timedAndPlain({ world: oneRank }, { timed: plain(), plain: [plain] }, undefined)
    )
    expect(runs.count).toBe(1)
    expect(both).toBeUndefined()
    expect(record.timeline.op.length).toBe(6)
  })
})

// The host as a lane: closed forms of launches, calls of collectives and reads; a host that costs nothing changes no bit; and none
// makes anything faster.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { hostSecondsOf, type HostCosts } from "../../core/cost/host.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import { makeWorld } from "../../core/world.ts"
import { explain, stepWindow } from "../../sim/explain/explain.ts"
import { run } from "./simulated.ts"

const free = { bytesPerSecond: Infinity, latencySeconds: 0 }
const worldOf = (ranks: number) =>
  makeWorld([{ name: "here", nodes: Array.from({ length: ranks }, () => 1) }], {
    intra: free,
    inter: free,
    wan: undefined
  })

const none: HostCosts = {
  mode: "compiled",
  launchSeconds: 0,
  collectiveSeconds: 0,
  hookSeconds: 0,
  readSeconds: 0,
  replaySeconds: 0
}
const costsWith = (deviceSeconds: number, host: HostCosts | undefined): CostModel => ({
  seconds: () => deviceSeconds,
  estimates: [],
  ...(host === undefined
    ? {}
    : {
        host: {
          seconds: (op) => hostSecondsOf(host, op),
          readSeconds: host.readSeconds,
          replaySeconds: host.replaySeconds,
          launchesLayers: false,
          readsEachStep: host.readsEachStep === true,
          waitsFor: () => false
        }
      })
})

interface Work {
  readonly ops: number
  readonly tensors: number
  readonly rounds: number
  readonly reads: boolean
  readonly steps?: boolean
  /** Before the last round the program sleeps until then. */
  readonly asleepUntil?: number
}

/** So many kernels one after another, then an all-reduce of so many tensors, then a read; that several times. */
const ran = (
  deviceSeconds: number,
  host: HostCosts | undefined,
  { ops, tensors, rounds, reads, steps = false, asleepUntil = 0 }: Work
) =>
  run({
    record: true,
    world: worldOf(2),
    costs: costsWith(deviceSeconds, host),
    collectives: { algorithm: "ring" },
    source: () => new Float32Array(1),
    program: Effect.gen(function* () {
      const machine = yield* Machine
      const x = yield* machine.alloc({ name: "x", shape: [1], dtype: "float32" })
      const carried = []
      for (let i = 0; i < tensors; i++)
        carried.push(yield* machine.alloc({ name: `g${i}`, shape: [1], dtype: "float32" }))
      for (let round = 0; round < rounds; round++) {
        if (round === rounds - 1) yield* machine.sleepUntil(asleepUntil)
        for (let i = 0; i < ops; i++)
          machine.submit(launch("work", kernels.scale, Lane.compute, [x], [x], { factor: 1 }))
        if (tensors > 0)
          machine.submit(
            collective("sum", kernels.all_reduce, Lane.inter, machine.world.all, [...carried], [...carried], {
              attributes: { reduce: "sum" }
            })
          )
        if (reads) yield* machine.read(x)
        if (steps) yield* machine.endStep
      }
      yield* machine.drain
    })
  })

const makespan = (...of: Parameters<typeof ran>): number => ran(...of).makespanSeconds

/** Of the whole of rank 0's first step. */
const explained = (...of: Parameters<typeof ran>) => {
  const timeline = ran(...of).timeline!
  return explain(timeline, stepWindow(timeline, 0, 0)!)
}

describe("the host", () => {
  it("sets the pace where launches take longer than kernels, and is hidden where they do not", () => {
    const shape = { ops: 10, tensors: 0, rounds: 1, reads: false }
    const slow = { ...none, launchSeconds: 5e-6 }
    expect(makespan(1e-6, slow, shape)).toBeCloseTo(10 * 5e-6 + 1e-6, 12)
    expect(makespan(20e-6, slow, shape)).toBeCloseTo(5e-6 + 10 * 20e-6, 12)
  })

  it("calls a collective once, and hands it every tensor", () => {
    const host = { ...none, collectiveSeconds: 1e-4, hookSeconds: 2e-5 }
    expect(makespan(0, host, { ops: 0, tensors: 7, rounds: 1, reads: false })).toBeCloseTo(
      1e-4 + 7 * 2e-5,
      12
    )
  })

  it("does nothing else while it takes a value, and begins when the device has it", () => {
    const host = { ...none, launchSeconds: 1e-6, readSeconds: 3e-5 }
    // Each round: its launches, the last kernel's end, the read.
    const each = 1e-6 + 4 * 1e-5 + 3e-5
    expect(makespan(1e-5, host, { ops: 4, tensors: 0, rounds: 3, reads: true })).toBeCloseTo(3 * each, 12)
  })

  it("runs ahead of a step's end, save where each step is read", () => {
    const shape = { ops: 4, tensors: 0, rounds: 3, reads: false, steps: true }
    const host = { ...none, launchSeconds: 6e-6, readSeconds: 3e-5 }
    // The first launch, then kernels back to back; or each step's last kernel and its read before the next launch.
    expect(makespan(1e-5, host, shape)).toBeCloseTo(6e-6 + 12 * 1e-5, 12)
    const each = 6e-6 + 4 * 1e-5
    expect(makespan(1e-5, { ...host, readsEachStep: true }, shape)).toBeCloseTo(3 * each + 2 * 3e-5, 12)
  })

  it("that costs nothing changes no bit, and never makes anything faster", () => {
    let later = 0
    const micros = fc.integer({ min: 0, max: 50 }).map((n) => n * 1e-6)
    fc.assert(
      fc.property(
        micros,
        fc.record({
          mode: fc.constantFrom("eager", "compiled", "graph"),
          launchSeconds: micros,
          collectiveSeconds: micros,
          hookSeconds: micros,
          readSeconds: micros,
          replaySeconds: micros
        }),
        fc.record({
          ops: fc.integer({ min: 0, max: 6 }),
          tensors: fc.integer({ min: 0, max: 3 }),
          rounds: fc.integer({ min: 1, max: 4 }),
          reads: fc.boolean()
        }),
        (device, host, shape) => {
          const without = makespan(device, undefined, shape)
          expect(makespan(device, none, shape)).toBe(without)
          const withHost = makespan(device, host, shape)
          expect(withHost).toBeGreaterThanOrEqual(without - 1e-15)
          if (withHost > without) later++
        }
      )
    )
    expect(later).toBeGreaterThan(20)
  })

  it("is what explain says the device waits for: its launches and reads", () => {
    // Kernel k is launched after 5 k us and takes 1.
    const launches = { ...none, launchSeconds: 5e-6 }
    const slow = explained(1e-6, launches, { ops: 10, tensors: 0, rounds: 1, reads: false })
    expect(slow.seconds).toBeCloseTo(51e-6, 12)
    expect(slow.exposed.hostSeconds).toBeCloseTo(41e-6, 12)
    expect(slow.exposed.idleSeconds).toBeCloseTo(0, 12)
    // Nothing but the host is on the way to the end, and its last kernel.
    expect(slow.criticalPath.byKind.host).toBeCloseTo(50e-6, 12)
    expect(slow.criticalPath.byKind.compute).toBeCloseTo(1e-6, 12)

    // A launch before all, and between rounds a read and a launch; other launches are hidden.
    const reads = { ...none, launchSeconds: 1e-6, readSeconds: 30e-6 }
    const { seconds, computeSeconds, exposed } = explained(10e-6, reads, {
      ops: 4,
      tensors: 0,
      rounds: 3,
      reads: true
    })
    expect(seconds).toBeCloseTo(183e-6, 12)
    expect(computeSeconds).toBeCloseTo(120e-6, 12)
    expect(exposed.hostSeconds).toBeCloseTo(63e-6, 12)
    expect(exposed.idleSeconds).toBeCloseTo(0, 12)
  })

  it("and a program that sleeps is told from one that has nothing to do", () => {
    const shape = { ops: 1, tensors: 0, rounds: 2, reads: true, asleepUntil: 1e-3 }
    // Without a host: 10 us of work, asleep until 1 ms, 10 us of work.
    const alone = explained(1e-5, undefined, shape)
    expect(alone.exposed.asleepSeconds).toBeCloseTo(1e-3 - 1e-5, 12)
    // With one: launched after 1 us, read for 30; awake at 1 ms, when it is launched.
    const host = { ...none, launchSeconds: 1e-6, readSeconds: 30e-6 }
    const { exposed } = explained(1e-5, host, shape)
    expect(exposed.hostSeconds).toBeCloseTo(2e-6, 12)
    expect(exposed.asleepSeconds).toBeCloseTo(1e-3 - 41e-6, 12)
    // The read lies before the sleep, and nothing was launched when it was over.
    expect(exposed.idleSeconds).toBeCloseTo(30e-6, 12)
  })
})

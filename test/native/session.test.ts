// Lanes, events, memory and faults of native sessions: order is kept, waits cost nothing, memory comes back.
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Dependencies, touchedBy } from "../../core/machine/dependencies.ts"
import { Lane, laneCount } from "../../core/machine/lane.ts"
import { launch, type Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { type NativeRank } from "../../exec/native.ts"
import { describeNative, drained, submitAfter, tensorOn, withSession } from "./addon.ts"

const collectGarbage = (type: "minor" | "major"): void => {
  setFlagsFromString("--expose-gc")
  ;(runInNewContext("gc") as (options: { readonly type: string }) => void)({ type })
}

const integers = (...values: ReadonlyArray<number>) => Int32Array.from(values)

describeNative("lanes and events", () => {
  it("give the values of program order, and times that obey lanes and edges, for any program", async () => {
    let waits = 0
    const step = fc.record({
      lane: fc.integer({ min: 0, max: laneCount - 1 }),
      what: fc.constantFrom("add", "subtract", "copy", "scale"),
      from: fc.integer({ min: 0, max: 4 }),
      also: fc.integer({ min: 0, max: 4 }),
      to: fc.integer({ min: 0, max: 4 })
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 60, size: "max" }), async (steps) => {
        await withSession({ ranks: 1, timed: true }, async (session, rank) => {
          const dependencies = new Dependencies()
          rank!.takeEdgesFrom(dependencies.edges)
          const tensors = Array.from({ length: 5 }, (_, i) => {
            // long enough for a missing wait to show
            const tensor = { ...tensorOn(rank!, [3000], "float32", new Float32Array(3000).fill(i + 1)) }
            dependencies.allocated(tensor)
            return tensor
          })
          const expected = tensors.map((_, i) => i + 1)
          const edges: Array<ReadonlyArray<number>> = []
          const kept: Array<Op> = []
          for (const { lane, what, from, also, to } of steps) {
            const [a, b] = [expected[from]!, expected[also]!]
            const reads =
              what === "add" || what === "subtract" ? [tensors[from]!, tensors[also]!] : [tensors[from]!]
            const attributes = what === "scale" ? { factor: 0.5 } : {}
            expected[to] = Math.fround({ add: a + b, subtract: a - b, copy: a, scale: 0.5 * a }[what]!)
            const op = launch(what, kernels[what as "add"], lane as Lane, reads, [tensors[to]!], attributes)
            kept.push(op)
            dependencies.derive(edges.length, lane as Lane, touchedBy(op))
            edges.push([...dependencies.edges.subarray(0, dependencies.edgeCount)])
            waits += dependencies.edgeCount
            expect(rank!.submit(op, dependencies.edgeCount)).toBe(edges.length - 1)
          }
          await drained(rank!)
          expect(session.fault).toBeUndefined()
          for (const [i, tensor] of tensors.entries()) {
            expect(new Set(rank!.read(tensor))).toEqual(new Set([expected[i]]))
          }
          const times = rank!.takeTimes()
          expect(times).toHaveLength(steps.length)
          const byOp = times.toSorted((x, y) => x.op - y.op)
          const last = new Map<number, number>()
          for (const { op, lane, startSeconds, endSeconds } of byOp) {
            expect(endSeconds).toBeGreaterThanOrEqual(startSeconds)
            expect(startSeconds).toBeGreaterThanOrEqual(last.get(lane) ?? 0)
            for (const edge of edges[op]!) expect(startSeconds).toBeGreaterThanOrEqual(byOp[edge]!.endSeconds)
            last.set(lane, endSeconds)
          }
          expect(kept).toHaveLength(steps.length)
        })
      }),
      { numRuns: 60 }
    )
    expect(waits).toBeGreaterThan(500)
  })

  it("wait for ops so old that their lane is forgotten", async () => {
    await withSession({ ranks: 1 }, async (_, rank) => {
      const [a, b, c] = [tensorOn(rank!, [1]), tensorOn(rank!, [1]), tensorOn(rank!, [1])]
      const slow = launch("slow", kernels.profiled, Lane.h2d, [], [a], { layer: 0, phase: "forward" })
      rank!.prepare(slow, { seconds: 0.5 })
      const first = rank!.submit(slow, 0)
      const small = launch("small", kernels.copy, Lane.compute, [b], [b])
      for (let i = 0; i < 70_000; i++) rank!.submit(small, 0)
      const late = launch("late", kernels.copy, Lane.inter, [a], [c])
      const op = submitAfter(rank!, late, [first])
      await new Promise<void>((resolve) => rank!.whenEnded(Lane.inter, op, resolve))
      expect(rank!.ended(Lane.h2d)).toBe(first)
    })
  })

  it("sleep while they wait: a second of waiting costs a few milliseconds of processor time", async () => {
    await withSession({ ranks: 4 }, async (_, ...ranks) => {
      const kept = ranks.flatMap((rank) => {
        const slow = launch("slow", kernels.profiled, Lane.compute, [], [], { layer: 0, phase: "forward" })
        rank.prepare(slow, { seconds: 0.5 })
        const op = rank.submit(slow, 0)
        const waiting = launch("waiting", kernels.barrier, Lane.h2d, [], [])
        submitAfter(rank, waiting, [op])
        return [slow, waiting]
      })
      const before = process.cpuUsage()
      const started = performance.now()
      await drained(...ranks)
      expect(performance.now() - started).toBeGreaterThan(490)
      const { user, system } = process.cpuUsage(before)
      expect((user + system) / 1000).toBeLessThan(100)
      expect(kept).toHaveLength(8)
    })
  })

  it("tell each watcher once, in any number, also from within a call", async () => {
    await withSession({ ranks: 1 }, async (_, rank) => {
      const a = tensorOn(rank!, [10])
      const op = launch("copy", kernels.copy, Lane.compute, [a], [a])
      let told = 0
      for (let i = 0; i < 200; i++) {
        const id = rank!.submit(op, 0)
        rank!.whenEnded(Lane.compute, id, () => {
          told++
          rank!.whenEnded(Lane.compute, id, () => told++)
        })
      }
      // whoever asks after the end is told at once, before those who have been waiting
      await drained(rank!)
      while (told < 400) await new Promise((resolve) => setImmediate(resolve))
      expect(told).toBe(400)
    })
  })
})

describeNative("memory", () => {
  it("is zero at first, also where it was used before", async () => {
    await withSession({ ranks: 1 }, async (_, rank) => {
      for (let i = 0; i < 3; i++) {
        const a = tensorOn(rank!, [1000])
        expect(new Set(rank!.read(a))).toEqual(new Set([0]))
        rank!.write(a, new Float32Array(1000).fill(7))
        rank!.free(a)
      }
    })
  })

  it("has a capacity per rank and place, counted in program order by dtype", async () => {
    await withSession({ ranks: 2, deviceBytes: 1000, hostBytes: 100 }, async (_, rank, other) => {
      const a = tensorOn(rank!, [400], "bfloat16")
      expect(rank!.freeBytes("device")).toBe(200)
      expect(() => tensorOn(rank!, [51])).toThrow(/204 B do not fit/)
      expect(rank!.freeBytes("device")).toBe(200)
      const b = tensorOn(rank!, [400], "float4")
      expect(rank!.freeBytes("device")).toBe(0)
      rank!.free(a)
      expect(rank!.freeBytes("device")).toBe(800)
      rank!.free(b)
      tensorOn(rank!, [25], "float32", undefined, "host")
      expect(rank!.freeBytes("host")).toBe(0)
      expect(other!.freeBytes("device")).toBe(1000)
    })
  })

  it("of a freed tensor is not used again before its last op has ended", async () => {
    await withSession({ ranks: 1 }, async (_, rank) => {
      const kept: Array<Op> = []
      const results: Array<Tensor> = []
      for (let i = 0; i < 50; i++) {
        const temporary = tensorOn(rank!, [5000], "float32", new Float32Array(5000).fill(i))
        const slow = launch("slow", kernels.profiled, Lane.compute, [], [], { layer: 0, phase: "forward" })
        rank!.prepare(slow, { seconds: 0.001 })
        rank!.submit(slow, 0)
        const out = tensorOn(rank!, [5000])
        const copy = launch("copy", kernels.copy, Lane.compute, [temporary], [out])
        rank!.submit(copy, 0)
        rank!.free(temporary)
        kept.push(slow, copy)
        results.push(out)
      }
      await drained(rank!)
      for (const [i, out] of results.entries()) expect(new Set(rank!.read(out))).toEqual(new Set([i]))
      expect(kept).toHaveLength(100)
    })
  })

  it("copies between host and device keep values and take the time of the bus", async () => {
    const bus = { bytesPerSecond: 1e6, latencySeconds: 0.005 }
    await withSession({ ranks: 1, h2d: bus, timed: true }, async (_, rank) => {
      const values = Float32Array.from({ length: 5000 }, (_, i) => Math.sin(i))
      const host = tensorOn(rank!, [5000], "float32", values, "host")
      const device = tensorOn(rank!, [5000])
      const back = tensorOn(rank!, [5000], "float32", undefined, "host")
      const up = launch("up", kernels.h2d, Lane.h2d, [host], [device])
      const down = launch("down", kernels.d2h, Lane.d2h, [device], [back])
      const first = submitAfter(rank!, up)
      submitAfter(rank!, down, [first])
      for (let i = 0; i < 9; i++) rank!.submit(down, 0)
      await drained(rank!)
      expect(rank!.read(back)).toEqual(values)
      const [slow, ...fast] = rank!
        .takeTimes()
        .map(({ startSeconds, endSeconds }) => endSeconds - startSeconds)
      // 20 kB at 1 MB/s, and the latency; the other way nothing holds a copy up, but a busy machine may
      expect(slow).toBeGreaterThan(0.0249)
      expect(fast).toHaveLength(10)
      expect(Math.min(...fast)).toBeLessThan(0.005)
    })
  })

  it("does not grow over 10,000 iterations", async () => {
    await withSession({ ranks: 2, timed: true }, async (_, ...ranks) => {
      const group = { name: "world", ranks: [0, 1] }
      const weights = ranks.map((rank) =>
        tensorOn(rank, [64, 64], "float32", new Float32Array(4096).fill(0.01))
      )
      const ones = new Float32Array(1024).fill(1)
      const iteration = (step: number) => {
        const kept: Array<Op> = []
        for (const [index, rank] of ranks.entries()) {
          const x = tensorOn(rank, [16, 64], "float32", ones)
          const y = tensorOn(rank, [16, 64])
          const forward = launch(
            "forward",
            kernels["linear.forward"],
            Lane.compute,
            [x, weights[index]!],
            [y]
          )
          const a = rank.submit(forward, 0)
          const reduce: Op = {
            ...launch("reduce", kernels.all_reduce, Lane.inter, [y], [y]),
            group,
            attributes: { wire: step % 2 === 0 ? "float8" : "" }
          }
          submitAfter(rank, reduce, [a])
          rank.free(x)
          rank.free(y)
          kept.push(forward, reduce)
        }
        return kept
      }
      const run = async (iterations: number) => {
        for (let i = 0; i < iterations; i++) {
          const kept = iteration(i)
          if (i % 50 === 49) {
            await drained(...ranks)
            for (const rank of ranks) rank.takeTimes()
            // often, so that garbage of V8's own does not hide what is looked for; all of the worker's heap only now and then
            collectGarbage(i % 500 === 499 ? "major" : "minor")
          }
          for (const [index, op] of kept.entries()) ranks[index < 2 ? 0 : 1]!.release(op)
        }
        await drained(...ranks)
        collectGarbage("major")
        return process.memoryUsage().rss
      }
      await run(2000)
      const before = await run(2000)
      const after = await run(10_000)
      // 10,000 iterations of 40 kB each leave nothing behind: a leak of 2 kB in each would be 20 MB
      expect(after - before).toBeLessThan(16 * 2 ** 20)
    })
  })
})

describeNative("faults", () => {
  it("of values fail the session, name rank and op, and let everything drain", async () => {
    await withSession({ ranks: 2 }, async (session, rank) => {
      const tokens = tensorOn(rank!, [2], "int32", integers(0, 7))
      const weight = tensorOn(rank!, [3, 4], "float32", new Float32Array(12))
      const out = tensorOn(rank!, [2, 4], "float32", new Float32Array(8))
      const op = launch("embed", kernels["embedding.forward"], Lane.compute, [tokens, weight], [out])
      rank!.submit(op, 0)
      const lonely: Op = {
        ...launch("reduce", kernels.all_reduce, Lane.inter, [out], [out]),
        group: { name: "world", ranks: [0, 1] }
      }
      submitAfter(rank!, lonely, [0])
      await drained(rank!)
      expect(session.fault).toEqual({
        kind: "value",
        rank: 0,
        op: 0,
        peer: -1,
        message: "embedding.forward: token 7 outside the vocabulary of 3"
      })
    })
  })

  const rejected = async (body: (rank: NativeRank) => void, message: RegExp) =>
    withSession({ ranks: 1 }, async (session, rank) => {
      expect(() => body(rank!)).toThrow(message)
      expect(() => body(rank!)).toThrow(RangeError)
      expect(session.fault).toBeUndefined()
    })

  it("of a call are thrown at once, and change nothing", async () => {
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      rank.free(a)
      rank.free(a)
    }, /free: tensor \d+ is not allocated/)
    await rejected((rank) => {
      const host = tensorOn(rank, [2], "float32", undefined, "host")
      rank.submit(launch("x", kernels.copy, Lane.compute, [host], [host]), 0)
    }, /copy: input 0 lies in host memory; expected device/)
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      rank.submit(launch("x", kernels.h2d, Lane.h2d, [a], [a]), 0)
    }, /h2d: input 0 lies in device memory; expected host/)
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      const op = launch("x", kernels.copy, Lane.compute, [a], [a])
      rank.prepare(op)
      rank.free(a)
      rank.submit(op, 0)
    }, /copy: names a tensor that was freed/)
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      submitAfter(rank, launch("x", kernels.copy, Lane.compute, [a], [a]), [1000])
    }, /copy: no op 1000 to wait for/)
    await rejected((rank) => rank.write(tensorOn(rank, [2]), new Float32Array(3)), /has 2 float32 values; 3/)
    await rejected((rank) => rank.write(tensorOn(rank, [2]), new Int32Array(2)), /2 int32 were given/)
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      const slow = launch("x", kernels.profiled, Lane.compute, [], [a], { layer: 0, phase: "forward" })
      rank.prepare(slow, { seconds: 0.2 })
      rank.submit(slow, 0)
      rank.read(a)
    }, /read: op \d+, which writes tensor \d+, has not ended/)
    await rejected((rank) => {
      const a = tensorOn(rank, [2])
      const unknown = { ...kernels.copy, name: "no_such_kernel" }
      rank.submit(launch("x", unknown, Lane.compute, [a], [a]), 0)
    }, /no_such_kernel: the \w+ backend has no such kernel/)
  })
})

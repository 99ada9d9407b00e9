// Native collectives against their TypeScript reference, bit for bit, whatever order the members come in.
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { collectives, kernels } from "../../core/kernels/catalogue.ts"
import type { Collective } from "../../core/kernels/collectives.ts"
import type { Attributes, Shape } from "../../core/kernels/kernel.ts"
import { Lane } from "../../core/machine/lane.ts"
import { collective, launch } from "../../core/machine/op.ts"
import { NativeSession } from "../../exec/native.ts"
import { callDtype, callsAmong, callValues, partsOf, type Held } from "./cases/collective-calls.ts"
import { backend, describeNative, drained, submitAfter, tensorOn, withSession } from "./addon.ts"

const ranks = 4
describeNative("native collectives", () => {
  const session = NativeSession.open({ backend, ranks })
  afterAll(() => session.close())

  it("equal their reference bit for bit, in place too, from any lane and in any order of arrival", async () => {
    const seen = new Map<string, number>()
    await fc.assert(
      fc.asyncProperty(
        callsAmong(
          fc.shuffledSubarray([0, 1, 2, 3], { minLength: 1 }),
          fc.shuffledSubarray([0, 1, 2, 3], { minLength: 2, maxLength: 2 })
        ),
        callDtype,
        callValues,
        fc.boolean(),
        fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
        fc.constantFrom(Lane.inter, Lane.intra),
        async (call, dtype, values, wanted, order, lane) => {
          const { kernel, members, perMember, mayBeInPlace } = call
          const { sendCounts, counts } = perMember[0]!.attributes
          const key = `${kernel.name}${sendCounts === undefined && counts === undefined ? "" : " uneven"}`
          seen.set(key, (seen.get(key) ?? 0) + 1)
          const parts = partsOf(call, dtype, values, wanted && mayBeInPlace).map(
            ({ attributes, sent, received }, index) => {
              const rank = session.ranks[members[index]!]!
              const on = (held: Held) => ({
                ...held,
                tensor: tensorOn(rank, held.of.shape, dtype, held.before)
              })
              const inputs = new Map(sent.map((held) => [held, on(held)]))
              return {
                rank,
                attributes,
                sent: sent.map((held) => inputs.get(held)!),
                received: received.map((held) => inputs.get(held) ?? on(held))
              }
            }
          )
          const shared = { name: `group ${members.join(" ")}`, ranks: members }
          const ops = parts.map(({ attributes, sent, received }) =>
            collective(
              "call",
              kernel,
              lane,
              shared,
              sent.map(({ tensor }) => tensor),
              received.map(({ tensor }) => tensor),
              { attributes }
            )
          )
          for (const index of order) if (index < parts.length) parts[index]!.rank.submit(ops[index]!, 0)
          await drained(...parts.map(({ rank }) => rank))
          expect(session.fault).toBeUndefined()
          for (const [index, { rank, sent, received }] of parts.entries()) {
            for (const { tensor, after } of received) expect(rank.read(tensor)).toEqual(after)
            rank.release(ops[index]!)
            for (const tensor of new Set([...sent, ...received].map(({ tensor }) => tensor)))
              rank.free(tensor)
          }
        }
      ),
      { numRuns: 1000 }
    )
    for (const [, count] of seen) expect(count).toBeGreaterThan(20)
    expect(seen.size).toBe(9)
  })
})

describeNative("collectives between ranks", () => {
  const all = { name: "world", ranks: [0, 1] }

  it("run beside compute: a slow one does not hold up kernels of the same rank", async () => {
    await withSession({ ranks: 2, timed: true, linkBytesPerSecond: [1e6] }, async (_, ...both) => {
      const kept = both.map((rank) => {
        const [a, b] = [tensorOn(rank, [10_000]), tensorOn(rank, [10_000])]
        const reduction = collective("slow", kernels.all_reduce, Lane.inter, all, [a], [a])
        rank.prepare(reduction, { transport: { latencySeconds: 1, loads: [{ link: 0, bytes: 40_000 }] } })
        rank.submit(reduction, 0)
        const work = launch("work", kernels.scale, Lane.compute, [b], [b], { factor: 0.5 })
        for (let i = 0; i < 20; i++) rank.submit(work, 0)
        return [reduction, work]
      })
      await drained(...both)
      for (const rank of both) {
        const times = rank.takeTimes()
        const slow = times.find(({ lane }) => lane === Lane.inter)!
        const kernelTimes = times.filter(({ lane }) => lane === Lane.compute)
        // 40 kB at 1 MB/s, and the latency
        expect(slow.endSeconds - slow.startSeconds).toBeGreaterThan(1.0399)
        expect(kernelTimes).toHaveLength(20)
        expect(Math.max(...kernelTimes.map(({ endSeconds }) => endSeconds))).toBeLessThan(slow.endSeconds)
      }
      expect(kept).toHaveLength(2)
    })
  })

  it("share a link one after another", async () => {
    await withSession({ ranks: 2, timed: true, linkBytesPerSecond: [1e6] }, async (_, ...both) => {
      const kept = both.flatMap((rank) =>
        [Lane.inter, Lane.intra].map((lane) => {
          const a = tensorOn(rank, [5000])
          const group = { name: `group of lane ${lane}`, ranks: [0, 1] }
          const op = collective("slow", kernels.all_reduce, lane, group, [a], [a])
          rank.prepare(op, { transport: { latencySeconds: 0, loads: [{ link: 0, bytes: 20_000 }] } })
          rank.submit(op, 0)
          return op
        })
      )
      await drained(...both)
      const times = both[0]!.takeTimes()
      expect(times).toHaveLength(2)
      // Each takes 20 ms of the link. Threads may wake late, so it is the two together that cannot be shorter.
      const first = Math.min(...times.map(({ startSeconds }) => startSeconds))
      const last = Math.max(...times.map(({ endSeconds }) => endSeconds))
      expect(last - first).toBeGreaterThan(0.0395)
      expect(kept).toHaveLength(4)
    })
  })

  const faultOf = (
    first: readonly [Collective, Attributes, Shape, Shape],
    second: readonly [Collective, Attributes, Shape, Shape]
  ) =>
    withSession({ ranks: 2 }, async (session, ...both) => {
      const ops = [first, second].map(([kernel, attributes, from, to], index) => {
        const rank = both[index]!
        const op = collective(
          "clash",
          kernel,
          Lane.inter,
          all,
          [tensorOn(rank, from)],
          [tensorOn(rank, to)],
          { attributes }
        )
        rank.submit(op, 0)
        return op
      })
      // the session has failed, yet nobody waits for ever
      await drained(...both)
      expect(ops).toHaveLength(2)
      return session.fault
    })

  describe("that contradict each other are a fault that says so", () => {
    it("another kernel", async () => {
      const fault = await faultOf(
        [collectives.all_reduce, {}, [4], [4]],
        [collectives.broadcast, {}, [4], [4]]
      )
      expect(fault?.kind).toBe("collective")
      expect(fault?.message).toMatch(/group "world": member 1 submitted broadcast, member 0 all_reduce/)
    })
    it("another size", async () => {
      const fault = await faultOf(
        [collectives.all_reduce, {}, [4], [4]],
        [collectives.all_reduce, {}, [5], [5]]
      )
      expect(fault?.kind).toBe("collective")
      expect(fault?.message).toMatch(/member 1 has 5 values at operand 0, member 0 4/)
    })
    it("counts that do not match", async () => {
      const uneven = (sendCounts: string, receiveCounts: string): Attributes => ({
        ranks: 2,
        sendCounts,
        receiveCounts
      })
      const fault = await faultOf(
        [collectives.all_to_all, uneven("1,2", "1,3"), [3], [4]],
        [collectives.all_to_all, uneven("4,0", "2,0"), [4], [2]]
      )
      expect(fault?.kind).toBe("collective")
      expect(fault?.message).toMatch(/rank 1 sends 4 rows to rank 0, which expects 3/)
    })
  })

  it("that one member never joins end when the session is closed", async () => {
    await withSession({ ranks: 2 }, async (session, rank) => {
      const a = tensorOn(rank!, [4])
      submitAfter(rank!, collective("alone", kernels.all_reduce, Lane.inter, all, [a], [a]))
      session.close()
      expect(session.fault).toBeUndefined()
      expect(() => rank!.freeBytes("device")).toThrow(/closed/)
    })
  })
})

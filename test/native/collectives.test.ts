// Native collectives against their TypeScript reference, bit for bit, whatever order the members come in.
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { collectives, kernels } from "../../core/kernels/catalogue.ts"
import { printCounts, type Collective } from "../../core/kernels/collectives.ts"
import { evaluateCollective } from "../../core/kernels/evaluate.ts"
import { operand, type Attributes, type Shape } from "../../core/kernels/kernel.ts"
import { roundInPlace } from "../../core/kernels/rounding.ts"
import { Lane } from "../../core/machine/lane.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Dtype } from "../../core/machine/tensor.ts"
import { NativeSession } from "../../exec/native.ts"
import { describeNative, drained, submitAfter, tensorOn, withSession } from "./addon.ts"

const ranks = 4
const wires = ["", "float32", "bfloat16", "float16", "float8", "float4", "int8"] as const

/** One call, as each member sees it. */
interface MemberCall {
  readonly attributes: Attributes
  readonly inputs: ReadonlyArray<Shape>
  /** Only where the inputs do not decide it. */
  readonly outputs?: ReadonlyArray<Shape>
}

interface Call {
  readonly kernel: Collective
  readonly members: ReadonlyArray<number>
  readonly perMember: ReadonlyArray<MemberCall>
  readonly mayBeInPlace: boolean
}

const extent = fc.integer({ min: 0, max: 6 })
const shapes = fc.array(fc.array(extent, { maxLength: 2 }), { minLength: 1, maxLength: 3 })
const wire = fc.constantFrom(...wires)
const group = fc.shuffledSubarray([0, 1, 2, 3], { minLength: 1 })
const reduce = fc.constantFrom("sum", "avg")

const same = (members: ReadonlyArray<number>, call: MemberCall) => members.map(() => call)

const call: fc.Arbitrary<Call> = fc.oneof(
  fc.record({ members: group, shapes, wire, reduce }).map(({ members, shapes, wire, reduce }) => ({
    kernel: collectives.all_reduce,
    members,
    perMember: same(members, { attributes: { wire, reduce }, inputs: shapes }),
    mayBeInPlace: true
  })),
  fc.record({ members: group, shapes, wire, rows: extent }).map(({ members, shapes, wire, rows }) => ({
    kernel: collectives.all_gather,
    members,
    perMember: same(members, {
      attributes: { wire, ranks: members.length },
      inputs: shapes.map((shape) => [rows, ...shape])
    }),
    mayBeInPlace: false
  })),
  fc
    .record({ members: group, shapes, wire, reduce, rows: extent })
    .map(({ members, shapes, wire, reduce, rows }) => ({
      kernel: collectives.reduce_scatter,
      members,
      perMember: same(members, {
        attributes: { wire, reduce, ranks: members.length },
        inputs: shapes.map((shape) => [members.length * rows, ...shape])
      }),
      mayBeInPlace: false
    })),
  fc.record({ members: group, shapes, wire, rows: extent }).map(({ members, shapes, wire, rows }) => ({
    kernel: collectives.all_to_all,
    members,
    perMember: same(members, {
      attributes: { wire, ranks: members.length },
      inputs: shapes.map((shape) => [members.length * rows, ...shape])
    }),
    mayBeInPlace: true
  })),
  fc
    .record({ members: group, shapes, wire, table: fc.array(extent, { minLength: 16, maxLength: 16 }) })
    .map(({ members, shapes, wire, table }) => {
      const sends = members.map((_, from) => members.map((_, to) => table[4 * from + to]!))
      return {
        kernel: collectives.all_to_all,
        members,
        perMember: members.map((_, rank) => {
          const counts = sends[rank]!
          return {
            attributes: {
              wire,
              ranks: members.length,
              sendCounts: printCounts(counts),
              receiveCounts: printCounts(sends.map((row) => row[rank]!))
            },
            inputs: shapes.map((shape) => [counts.reduce((sum, count) => sum + count, 0), ...shape])
          }
        }),
        mayBeInPlace: false
      }
    }),
  fc
    .record({
      members: group,
      shapes,
      wire,
      gather: fc.boolean(),
      rows: fc.array(extent, { minLength: 4, maxLength: 4 })
    })
    .map(({ members, shapes, wire, gather, rows }) => {
      const counts = members.map((_, member) => rows[member]!)
      const total = counts.reduce((sum, count) => sum + count, 0)
      return {
        kernel: gather ? collectives.all_gather : collectives.reduce_scatter,
        members,
        perMember: members.map((_, member) => ({
          attributes: { wire, ranks: members.length, counts: printCounts(counts), member },
          inputs: shapes.map((shape) => [gather ? counts[member]! : total, ...shape])
        })),
        mayBeInPlace: false
      }
    }),
  fc.record({ members: group, shapes, wire, root: fc.nat() }).map(({ members, shapes, wire, root }) => ({
    kernel: collectives.broadcast,
    members,
    perMember: same(members, { attributes: { wire, root: root % members.length }, inputs: shapes }),
    mayBeInPlace: true
  })),
  fc
    .record({
      members: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 2, maxLength: 2 }),
      shapes,
      wire,
      first: fc.boolean()
    })
    .map(({ members, shapes, wire, first }) => ({
      kernel: collectives.send_recv,
      members,
      perMember: [first, !first].map((source) => ({
        attributes: { wire, source },
        inputs: source ? shapes : [],
        outputs: source ? [] : shapes
      })),
      mayBeInPlace: false
    }))
)

const dtype = fc.constantFrom<Dtype>("float32", "float32", "bfloat16", "float16", "int32")

describeNative("native collectives", () => {
  const session = NativeSession.open({ ranks })
  afterAll(() => session.close())

  it("equal their reference bit for bit, in place too, from any lane and in any order of arrival", async () => {
    const seen = new Map<string, number>()
    const value = fc.noShrink(
      fc.array(fc.float({ noNaN: true, min: -1000, max: 1000 }), { minLength: 8, maxLength: 40 })
    )
    await fc.assert(
      fc.asyncProperty(
        call,
        dtype,
        value,
        fc.boolean(),
        fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 }),
        fc.constantFrom(Lane.inter, Lane.intra),
        async ({ kernel, members, perMember, mayBeInPlace }, dtype, values, wanted, order, lane) => {
          const inPlace = wanted && mayBeInPlace
          const { sendCounts, counts } = perMember[0]!.attributes
          const key = `${kernel.name}${sendCounts === undefined && counts === undefined ? "" : " uneven"}`
          seen.set(key, (seen.get(key) ?? 0) + 1)
          let next = 0
          const array = (elements: number) => {
            const data = dtype === "int32" ? new Int32Array(elements) : new Float32Array(elements)
            for (let i = 0; i < elements; i++) data[i] = values[next++ % values.length]! * (1 + (next % 7))
            roundInPlace(data, dtype)
            return data
          }
          const parts = perMember.map(({ attributes, inputs, outputs }, index) => {
            const rank = session.ranks[members[index]!]!
            const on = (shape: Shape, filled: boolean) => {
              const of = operand(shape, dtype)
              const data = filled
                ? array(of.elements)
                : array(0).constructor === Int32Array
                  ? new Int32Array(of.elements)
                  : new Float32Array(of.elements)
              return { of, data, tensor: tensorOn(rank, shape, dtype, data) }
            }
            const sent = inputs.map((shape) => on(shape, true))
            const results =
              outputs ??
              kernel.shapes(
                sent.map(({ of }) => of),
                attributes
              )!
            const received = results.map((shape, i) => (inPlace ? sent[i]! : on(shape, false)))
            return { rank, attributes, sent, received }
          })
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
          evaluateCollective(
            kernel,
            parts.map(({ attributes, sent, received }) => ({
              inputs: sent.map(({ of }) => of),
              inputData: sent.map(({ data }) => data),
              outputs: received.map(({ of }) => of),
              outputData: received.map(({ data }) => data),
              attributes
            }))
          )
          await drained(...parts.map(({ rank }) => rank))
          expect(session.fault).toBeUndefined()
          for (const [index, { rank, sent, received }] of parts.entries()) {
            for (const { tensor, data } of received) expect(rank.read(tensor)).toEqual(data)
            rank.release(ops[index]!)
            for (const tensor of new Set([...sent, ...received].map(({ tensor }) => tensor)))
              rank.free(tensor)
          }
        }
      ),
      { numRuns: 500 }
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
        rank.prepare(reduction, { transport: { latencySeconds: 0.3, loads: [{ link: 0, bytes: 40_000 }] } })
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
        expect(slow.endSeconds - slow.startSeconds).toBeGreaterThan(0.3399)
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

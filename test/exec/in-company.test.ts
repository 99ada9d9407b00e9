// What company costs, from runs made by hand: kernels that are slower while a collective is under way, by as much as was put in.
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { JournalEntry } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import { collective, launch, type Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { costOfCompany, withWaits } from "../../exec/in-company.ts"
import { forBenchmark, recordedCollectives, type RecordedRun } from "../../exec/recorded.ts"

const tensor: Tensor = {
  id: 0,
  name: "x",
  shape: [4],
  dtype: "float32",
  place: "device",
  elements: 4,
  sizeBytes: 16
}
const group = { name: "both", ranks: [0], alike: [[0]] }
const kernel = launch("scale", kernels.scale, Lane.compute, [tensor], [tensor], { factor: 2 })
const message = collective("sum", kernels.all_reduce, Lane.inter, group, [tensor], [tensor])

type Ran = readonly [op: Op, step: number, from: number, to: number]

const recordOf = (rows: ReadonlyArray<Ran>): RecordedRun => ({
  timeline: {
    rank: new Int32Array(rows.length),
    op: Int32Array.from(rows, (_, row) => row),
    lane: Uint8Array.from(rows, ([{ lane }]) => lane),
    step: Int32Array.from(rows, ([, step]) => step),
    label: new Int32Array(rows.length),
    labels: [""],
    kernel: new Int32Array(rows.length),
    kernels: [""],
    startSeconds: Float64Array.from(rows, ([, , from]) => from),
    endSeconds: Float64Array.from(rows, ([, , , to]) => to),
    sizeBytes: new Float64Array(rows.length).fill(16),
    cause: new Int32Array(rows.length).fill(-1)
  },
  opLogs: [
    {
      rank: 0,
      entries: rows.map(([op, step], id) => ({
        op: id,
        label: op.label,
        kernel: op.kernel.name,
        lane: op.lane,
        step,
        group: op.group?.name,
        sizeBytes: 16,
        after: []
      }))
    }
  ],
  journals: [{ rank: 0, entries: rows.map(([op, step], id): JournalEntry => ({ kind: "op", id, step, op })) }]
})

const kindOf = (step: number) => (["warm-up", "alone", "beside"] as const)[step]!

it("counts time lost over time beside collectives, each from what the same op takes alone", () => {
  // Alone 1 s. Beside: 0.4 s at full speed, then 1.2 s at half of it.
  const company = costOfCompany(
    recordOf([
      [kernel, 0, 0, 9],
      [message, 0, 0, 9],
      [kernel, 1, 10, 11],
      [message, 1, 11, 13],
      [kernel, 2, 20, 21.6],
      [message, 2, 20.4, 23.4]
    ]),
    kindOf
  )
  expect(company!.kernels).toBeCloseTo(2, 9)
  expect(company!.kernelsOfShares).toHaveLength(1)
  expect(company!.collectives).toBeCloseTo(1.5, 9)
  const [row, other] = withWaits(
    [
      { op: "all_reduce", ranks: 1, sizeBytes: 16, medianSeconds: 2.5, link: "unshaped" },
      { op: "all_reduce", ranks: 1, sizeBytes: 32, medianSeconds: 5, link: "unshaped" }
    ],
    company
  )
  // A second longer, whatever it takes alone elsewhere; of another message nothing is known.
  expect(row!.besideSeconds).toBeCloseTo(3.5, 9)
  expect(other!.besideSeconds).toBeUndefined()
})

it("tells what each share of the steps has of it, infinitely much where kernels lost more time than messages were beside them", () => {
  const beside = (step: number) => (step === 1 ? "alone" : "beside")
  const rows: ReadonlyArray<Ran> = [
    [kernel, 1, 0, 1],
    [message, 1, 1, 3],
    [kernel, 2, 10, 12],
    [message, 2, 10, 13],
    [kernel, 3, 20, 24],
    [message, 3, 20, 25]
  ]
  const two = costOfCompany(recordOf(rows), beside)
  expect(two!.kernelsOfShares).toEqual([2, 4])
  expect(two!.kernels).toBeCloseTo(3, 9)
  // Nine seconds more, of which a message was beside for one.
  const held = costOfCompany(recordOf([...rows, [kernel, 4, 30, 40], [message, 4, 39, 41]]), beside)
  expect(held!.kernelsOfShares).toEqual([2, 4, Infinity])
  expect(held!.kernels).toBeUndefined()
})

it("tells of messages that begin among kernels, and of one that something else held up nothing", () => {
  const company = costOfCompany(
    recordOf([
      [kernel, 1, 0, 1],
      [message, 1, 1, 3],
      [message, 1, 3, 90],
      [message, 1, 90, 92],
      // Before the first kernel, while connections are made; and after the last, as alone.
      [message, 2, 100, 160],
      [kernel, 2, 150, 180],
      [message, 2, 160, 163],
      [message, 2, 163, 167],
      [message, 2, 167, 170],
      [kernel, 2, 180, 181],
      [message, 2, 181, 183],
      [message, 2, 183, 185],
      [message, 2, 185, 187]
    ]),
    kindOf
  )
  expect(company!.collectives).toBeCloseTo(1.5, 9)
  expect(company!.waits.map(({ seconds }) => seconds)).toEqual([1])
})

it("takes no time from a message of which a member's times are left out", () => {
  const one = recordOf([
    [message, 1, 0, 2],
    [message, 1, 4, 7],
    [message, 1, 1, NaN],
    [message, 1, 5, 8]
  ])
  const log = one.opLogs[0]!
  const entries = log.entries.slice(0, 2)
  const both = {
    ...one,
    timeline: { ...one.timeline, rank: Int32Array.of(0, 0, 1, 1), op: Int32Array.of(0, 1, 0, 1) },
    opLogs: [0, 1].map((rank) => ({ rank, entries }))
  }
  // Of the second, from when the later came to their mean end.
  expect(recordedCollectives(both, forBenchmark)).toEqual([
    { op: "all_reduce", ranks: 2, sizeBytes: 16, medianSeconds: 2.5, link: "unshaped" }
  ])
})

it("tells nothing of messages where none begins beside kernels, and of kernels what they lose all the same", () => {
  const record = recordOf([
    [kernel, 1, 0, 1],
    [message, 1, 1, 3],
    [message, 2, 10, 15],
    [kernel, 2, 11, 13]
  ])
  expect(costOfCompany(record, kindOf)).toEqual({
    kernels: 2,
    kernelsOfShares: [2],
    collectives: undefined,
    waits: []
  })
  // But where kernels are kept going.
  expect(costOfCompany(record, kindOf, true)).toMatchObject({
    kernels: 2,
    collectives: 2.5,
    waits: [{ seconds: 3 }]
  })
})

it("knows nothing where nothing ran beside, and of no kernels that gain by it", () => {
  const alone: ReadonlyArray<Ran> = [
    [kernel, 1, 10, 11],
    [message, 1, 11, 13]
  ]
  expect(costOfCompany(recordOf(alone), kindOf)).toBeUndefined()
  const faster = recordOf([...alone, [kernel, 2, 20, 20.9], [message, 2, 20, 22]])
  expect(costOfCompany(faster, kindOf)).toMatchObject({ kernels: 1, collectives: 1 })
})

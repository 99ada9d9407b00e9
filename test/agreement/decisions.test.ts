// Decisions of two runs: whatever a call or an op log's entry says, runs that differ in it alone do not agree, whichever of the two has it.
import { describe, expect, it } from "vitest"
import { compareJournals, compareOpLogs } from "../../core/agreement/decisions.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Journal, JournalEntry } from "../../core/laws/journal.ts"
import { Lane } from "../../core/machine/lane.ts"
import type { Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import type { OpLog, OpLogEntry } from "../../core/machine/timeline.ts"

const arena: Tensor = {
  id: 0,
  name: "arena",
  dtype: "float32",
  shape: [256],
  place: "device",
  elements: 256,
  sizeBytes: 1024
}
const within = (id: number): Tensor => ({
  ...arena,
  id,
  name: `tensor ${id}`,
  shape: [2, 3],
  elements: 6,
  sizeBytes: 24,
  within: { arena, offsetBytes: 256 * id }
})
const [x, y] = [within(1), within(2)]

const op: Op = {
  label: "average",
  kernel: kernels.all_reduce,
  attributes: { reduce: "avg", factor: 0 },
  lane: Lane.inter,
  reads: [x],
  writes: [y],
  group: { name: "world", ranks: [0, 1] },
  sizeBytes: 24
}
const call = { kind: "op", id: 0, step: 0, op, scalars: [0.1, 2] } as const satisfies JournalEntry

const logged: OpLogEntry = {
  op: 1,
  label: "average",
  kernel: "all_reduce",
  lane: Lane.inter,
  step: 3,
  group: "world",
  sizeBytes: 24,
  rows: "1,2",
  scalars: [0.1, 2],
  after: [0, 1]
}

describe("op logs", () => {
  const first: OpLogEntry = { ...logged, op: 0, after: [] }
  const logOf = (...entries: ReadonlyArray<OpLogEntry>): ReadonlyArray<OpLog> => [
    { rank: 0, entries: [first] },
    { rank: 1, entries: [first, ...entries] }
  ]
  const parted = (one: ReadonlyArray<OpLog>, other: ReadonlyArray<OpLog>): void => {
    for (const [ours, theirs] of [
      [one, other],
      [other, one]
    ] as const) {
      expect(compareOpLogs(ours, theirs)).toMatchObject({ kind: "decisions", rank: 1 })
      expect(compareOpLogs(ours, ours)).toBeUndefined()
    }
  }

  const changes: ReadonlyArray<Partial<OpLogEntry>> = [
    { op: 2 },
    { label: "other" },
    { kernel: "reduce_scatter" },
    { lane: Lane.intra },
    { step: 4 },
    { group: "site" },
    { group: undefined },
    { sizeBytes: 28 },
    { rows: "2,1" },
    { rows: undefined },
    { scalars: [0.1, 3] },
    { scalars: [0.1] },
    { scalars: undefined },
    { after: [0] },
    { after: [] },
    { after: [0, 2] }
  ]
  it.each(changes)("part by %o", (change) => {
    parted(logOf(logged), logOf({ ...logged, ...change }))
  })

  it("part by an op more, at the end, and by a rank more", () => {
    parted(logOf(logged), logOf())
    parted(logOf(logged), logOf(logged, { ...logged, op: 2 }))
    parted(logOf(logged), logOf(logged).slice(0, 1))
  })
})

describe("journals", () => {
  const before: JournalEntry = { kind: "alloc", tensor: x }
  const journalOf = (...entries: ReadonlyArray<JournalEntry>): ReadonlyArray<Journal> => [
    { rank: 0, entries: [before] },
    { rank: 1, entries: [before, ...entries] }
  ]
  const parted = (one: ReadonlyArray<Journal>, other: ReadonlyArray<Journal>): void => {
    for (const [ours, theirs] of [
      [one, other],
      [other, one]
    ] as const) {
      expect(compareJournals(ours, theirs)).toMatchObject({ kind: "decisions", rank: 1 })
      expect(compareJournals(ours, ours)).toBeUndefined()
    }
  }

  const changes: ReadonlyArray<Partial<Op>> = [
    { kernel: kernels.all_gather },
    { label: "other" },
    { attributes: { reduce: "sum", factor: 0 } },
    { attributes: { reduce: "avg" } },
    { attributes: { reduce: "avg", factor: -0 } },
    { attributes: { reduce: "avg", factor: "0" } },
    { attributes: { reduce: "avg", other: 0 } },
    { reads: [y] },
    { reads: [x, y] },
    { reads: [] },
    { writes: [x] },
    { writes: [y, y] },
    { writes: [] },
    { group: { name: "world", ranks: [1, 0] } },
    { group: { name: "world", ranks: [0] } },
    { group: undefined }
  ]
  it.each(changes)("part by an op's %o", (change) => {
    parted(journalOf(call), journalOf({ ...call, op: { ...op, ...change } }))
  })

  it.each([{ scalars: [0.1, 3] }, { scalars: [0.1] }, { scalars: undefined }])("part by %o", (change) => {
    parted(journalOf(call), journalOf({ ...call, ...change }))
  })

  const others: ReadonlyArray<Partial<Tensor>> = [
    { id: 7 },
    { name: "other" },
    { dtype: "int32" },
    { place: "host" },
    { shape: [3, 2] },
    { shape: [2] },
    { within: undefined },
    { within: { arena: { ...arena, id: 9 }, offsetBytes: 256 } },
    { within: { arena, offsetBytes: 512 } }
  ] as ReadonlyArray<Partial<Tensor>>
  it.each(others)("part by a tensor's %o", (change) => {
    const other = { ...x, ...change } as Tensor
    for (const kind of ["alloc", "free"] as const)
      parted(journalOf({ kind, tensor: x }), journalOf({ kind, tensor: other }))
    const read = { kind: "read", writer: 0, values: Float32Array.of(1) } as const
    parted(journalOf({ ...read, tensor: x }), journalOf({ ...read, tensor: other }))
    parted(journalOf(call), journalOf({ ...call, op: { ...op, reads: [other] } }))
    parted(journalOf(call), journalOf({ ...call, op: { ...op, writes: [other] } }))
  })

  const calls: ReadonlyArray<JournalEntry> = [
    call,
    { kind: "alloc", tensor: y },
    { kind: "free", tensor: x },
    { kind: "read", tensor: x, writer: 0, values: Float32Array.of(1) },
    { kind: "endStep" },
    { kind: "drain" }
  ]
  it("part by a call more, wherever it is, by another call in its place, and by a rank more", () => {
    for (const one of calls) {
      parted(journalOf(), journalOf(one))
      parted(journalOf(before), journalOf(one, before))
      for (const other of calls) if (other !== one) parted(journalOf(one), journalOf(other))
    }
    parted(journalOf(call), journalOf(call).slice(0, 1))
  })

  it("do not part by what was asked of time", () => {
    const asked: ReadonlyArray<JournalEntry> = [
      { kind: "now", seconds: 1 },
      { kind: "ready", tensor: x, ready: true }
    ]
    expect(compareJournals(journalOf(call), journalOf(...asked, call))).toBeUndefined()
  })
})

// Edges between ops, against brute force over every pair of ops and against what a queue needs.

import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Dependencies, touchedBy } from "../../core/machine/dependencies.ts"
import { laneCount, type Lane } from "../../core/machine/lane.ts"
import { endedBefore } from "../../core/laws/order.ts"
import type { OpLogEntry } from "../../core/machine/timeline.ts"
import type { Tensor } from "../../core/machine/tensor.ts"

interface RandomOp {
  readonly lane: Lane
  readonly reads: ReadonlyArray<number>
  readonly writes: ReadonlyArray<number>
}

const tensor = (id: number): Tensor => ({
  id,
  name: `t${id}`,
  shape: [],
  dtype: "float32",
  place: "device",
  elements: 1,
  sizeBytes: 4
})

const programs = fc.integer({ min: 1, max: 6 }).chain((tensors) => {
  const some = fc.array(fc.nat({ max: tensors - 1 }), { maxLength: 3 })
  return fc.array(
    fc.record({
      lane: fc.nat({ max: laneCount - 1 }).map((lane) => lane as Lane),
      reads: some,
      writes: fc.oneof(some, fc.constant([]))
    }),
    { maxLength: 40, size: "max" }
  )
})

/** Edges of each op as derived. */
const derive = (program: ReadonlyArray<RandomOp>): ReadonlyArray<ReadonlyArray<number>> => {
  const dependencies = new Dependencies()
  const tensors = Array.from({ length: 6 }, (_, id) => tensor(id))
  for (const one of tensors) dependencies.allocated(one)
  return program.map(({ lane, reads, writes }, op) => {
    const touched = touchedBy({
      reads: reads.map((id) => tensors[id]!),
      writes: writes.map((id) => tensors[id]!)
    })
    dependencies.derive(op, lane, touched)
    return Array.from(dependencies.edges.subarray(0, dependencies.edgeCount))
  })
}

/** before[o] has every op that edges and lane order put before o: plain search, nothing clever. */
const reachable = (
  program: ReadonlyArray<RandomOp>,
  edges: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<ReadonlySet<number>> => {
  const before: Array<Set<number>> = []
  program.forEach(({ lane }, op) => {
    const direct = [...edges[op]!]
    const previous = program.slice(0, op).findLastIndex((other) => other.lane === lane)
    if (previous >= 0) direct.push(previous)
    before.push(new Set(direct.flatMap((one) => [one, ...before[one]!])))
  })
  return before
}

const entriesOf = (
  program: ReadonlyArray<RandomOp>,
  edges: ReadonlyArray<ReadonlyArray<number>>
): ReadonlyArray<OpLogEntry> =>
  program.map(({ lane }, op) => ({
    op,
    label: `op ${op}`,
    kernel: "any",
    lane,
    step: 0,
    group: undefined,
    sizeBytes: 0,
    after: edges[op]!
  }))

const meet = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): boolean => a.some((id) => b.includes(id))

describe("derived edges", () => {
  it("order every read after write, write after read and write after write", () => {
    const seen = { readAfterWrite: 0, writeAfterRead: 0, writeAfterWrite: 0, indirect: 0 }
    const property = fc.property(programs, (program) => {
      const edges = derive(program)
      const before = reachable(program, edges)
      program.forEach((later, op) => {
        for (const [earlier, other] of program.slice(0, op).entries()) {
          const readAfterWrite = meet(other.writes, later.reads)
          const writeAfterRead = meet(other.reads, later.writes)
          const writeAfterWrite = meet(other.writes, later.writes)
          if (!readAfterWrite && !writeAfterRead && !writeAfterWrite) continue
          expect(before[op]!.has(earlier)).toBe(true)
          if (other.lane === later.lane) continue
          if (readAfterWrite) seen.readAfterWrite++
          if (writeAfterRead) seen.writeAfterRead++
          if (writeAfterWrite) seen.writeAfterWrite++
          if (!edges[op]!.includes(earlier)) seen.indirect++
        }
      })
    })
    fc.assert(property, { numRuns: 500 })
    for (const [kind, count] of Object.entries(seen)) expect(count, kind).toBeGreaterThanOrEqual(500)
  })

  it("are for a reason, to other lanes, one for each, and never what the lane already waited for", () => {
    let edgesSeen = 0
    let spared = 0
    const property = fc.property(programs, (program) => {
      const edges = derive(program)
      program.forEach(({ lane, reads, writes }, op) => {
        const lanes = edges[op]!.map((edge) => program[edge]!.lane)
        expect(lanes).not.toContain(lane)
        expect(new Set(lanes).size).toBe(lanes.length)
        for (const edge of edges[op]!) {
          edgesSeen++
          const other = program[edge]!
          expect(meet(other.writes, reads) || meet(other.reads, writes) || meet(other.writes, writes)).toBe(
            true
          )
          // An earlier op of this lane that waited for this op, or a later one of its lane, settles it.
          const settled = edges
            .slice(0, op)
            .some(
              (earlier, index) =>
                program[index]!.lane === lane &&
                earlier.some((one) => program[one]!.lane === other.lane && one >= edge)
            )
          expect(settled).toBe(false)
        }
      })
      // What must wait for another lane and has no edge of its own for it: edges before it see to that.
      program.forEach(({ lane, reads, writes }, op) => {
        for (const [earlier, other] of program.slice(0, op).entries()) {
          const waits = meet(other.writes, reads) || meet(other.reads, writes) || meet(other.writes, writes)
          if (waits && other.lane !== lane && !edges[op]!.includes(earlier)) spared++
        }
      })
    })
    fc.assert(property, { numRuns: 500 })
    expect(edgesSeen).toBeGreaterThan(1000)
    expect(spared).toBeGreaterThan(1000)
  })

  it("endedBefore knows what a plain search finds", () => {
    const property = fc.property(programs, (program) => {
      const edges = derive(program)
      const before = reachable(program, edges)
      const known = endedBefore(entriesOf(program, edges))
      program.forEach((_, op) => {
        for (const [earlier, { lane }] of program.slice(0, op).entries())
          expect(known[op * laneCount + lane]! >= earlier).toBe(before[op]!.has(earlier))
      })
    })
    fc.assert(property, { numRuns: 200 })
  })
})

// The ring of ops under way forgets nothing that has not ended, whatever its capacity: held to a list that keeps everything.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { laneCount, type Lane } from "../../core/machine/lane.ts"
import { Pending } from "../../core/machine/pending.ts"

/** An op is added to a lane, waiting for some before it; or a lane ends its oldest op. */
type Event = { readonly add: number; readonly after: ReadonlyArray<number> } | { readonly ends: number }

const lane = fc.nat({ max: laneCount - 1 })
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ add: lane, after: fc.uniqueArray(fc.nat({ max: 40 }), { maxLength: 4 }) })
  },
  { weight: 2, arbitrary: fc.record({ ends: lane }) }
)

it("knows of every op whether it has ended, and of the others what they wait for", () => {
  let grown = 0
  let forgotten = 0
  const property = fc.property(
    fc.constantFrom(1, 2, 4, 16),
    fc.array(event, { minLength: 1, maxLength: 120, size: "max" }),
    (capacity, events) => {
      const ops: Array<{ readonly lane: Lane; readonly edges: ReadonlyArray<number>; ended: boolean }> = []
      const tokenOf = (op: number): number => 3 * op + 1
      const pending = new Pending((_, token) => ops[(token - 1) / 3]!.ended, { capacity, keepsEdges: true })
      for (const one of events) {
        if ("ends" in one) {
          const oldest = ops.find((op) => op.lane === one.ends && !op.ended)
          if (oldest !== undefined) oldest.ended = true
        } else {
          const edges = one.after
            .filter((back) => back > 0 && back <= ops.length)
            .map((back) => ops.length - back)
          ops.push({ lane: one.add as Lane, edges, ended: false })
          pending.add(
            one.add as Lane,
            tokenOf(ops.length - 1),
            Int32Array.from(edges),
            edges.length,
            undefined
          )
        }
        expect(pending.next).toBe(ops.length)
        for (const [op, { ended, lane: own }] of ops.entries()) {
          expect(pending.hasEnded(op)).toBe(ended)
          if (pending.tokenOf(op) === -1) {
            expect(ended).toBe(true)
            forgotten++
          } else {
            expect(pending.tokenOf(op)).toBe(tokenOf(op))
            expect(pending.laneOf(op)).toBe(own)
          }
        }
      }
      const open = ops.flatMap(({ ended, lane: own, edges }, op) =>
        ended ? [] : [{ op, lane: own, edges, meeting: undefined }]
      )
      expect([...pending.open()]).toEqual(open)
      if (open.length > capacity) grown++
    }
  )
  fc.assert(property, { numRuns: 200 })
  expect(grown).toBeGreaterThan(20)
  expect(forgotten).toBeGreaterThan(100)
})

it("takes powers of two", () => {
  for (const capacity of [0, 3, -4, 1.5, NaN])
    expect(() => new Pending(() => true, { capacity })).toThrow(/power of two/u)
})

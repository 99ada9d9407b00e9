// Whole fluid simulations against an independent one that is written from the definition: at every event it computes
// all rates anew by brute progressive filling and moves every flow's remaining bytes forward.

import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Engine } from "../../sim/engine/engine.ts"

interface FlowSpec {
  readonly links: ReadonlyArray<number>
  readonly weights: ReadonlyArray<number>
  readonly bytes: number
  readonly latencySeconds: number
  readonly bytesPerSecondMax: number
  /** Earlier flow it waits for, or -1. */
  readonly after: number
}
interface Change {
  readonly atSeconds: number
  readonly link: number
  readonly bytesPerSecond: number
}

/** Max-min rates of the flows by raising all together until a link or a limit stops some. */
function fairRates(capacities: ReadonlyArray<number>, flows: ReadonlyArray<FlowSpec>): Array<number> {
  const rates = flows.map(() => 0)
  const open = new Set(flows.keys())
  while (open.size > 0) {
    // The level each constraint would allow; the least decides.
    let level = Infinity
    let stopped: Array<number> = []
    const offer = (allowed: number, whom: Array<number>) => {
      if (allowed < level * (1 - 1e-12)) [level, stopped] = [allowed, whom]
      else if (allowed <= level * (1 + 1e-12)) stopped.push(...whom)
    }
    capacities.forEach((capacity, link) => {
      const weight = (f: number) => {
        const at = flows[f]!.links.indexOf(link)
        return at < 0 ? 0 : flows[f]!.weights[at]!
      }
      const sharing = [...open].filter((f) => weight(f) > 0)
      if (sharing.length === 0) return
      let left = capacity
      for (const f of flows.keys()) if (!open.has(f)) left -= weight(f) * rates[f]!
      offer(Math.max(0, left) / sharing.reduce((sum, f) => sum + weight(f), 0), sharing)
    })
    for (const f of open) offer(flows[f]!.bytesPerSecondMax, [f])
    if (level === Infinity) stopped = [...open]
    for (const f of stopped) {
      rates[f] = level
      open.delete(f)
    }
  }
  return rates
}

/** Ends of all flows; Infinity for those that never end. */
function bruteForce(
  bandwidths: ReadonlyArray<number>,
  flows: ReadonlyArray<FlowSpec>,
  changes: ReadonlyArray<Change>
): Array<number> {
  const capacities = [...bandwidths]
  const ends = flows.map(() => Infinity)
  const joins = flows.map((flow) => (flow.after < 0 ? flow.latencySeconds : Infinity))
  const left = flows.map((flow) => flow.bytes)
  const todo = [...changes]
  let now = 0
  for (;;) {
    const active = [...flows.keys()].filter((f) => joins[f]! <= now && ends[f] === Infinity)
    const rates = fairRates(
      capacities,
      active.map((f) => flows[f]!)
    )
    let next = Infinity
    active.forEach((f, i) => {
      const at = 0 === left[f] || rates[i] === Infinity ? now : now + left[f]! / rates[i]!
      next = Math.min(next, at)
    })
    for (const f of flows.keys()) if (joins[f]! > now) next = Math.min(next, joins[f]!)
    for (const change of todo) next = Math.min(next, change.atSeconds)
    if (next === Infinity) return ends
    active.forEach((f, i) => {
      const at = 0 === left[f] || rates[i] === Infinity ? now : now + left[f]! / rates[i]!
      if (at <= next * (1 + 1e-14)) {
        left[f] = 0
        ends[f] = next
        for (const g of flows.keys()) if (flows[g]!.after === f) joins[g] = next + flows[g]!.latencySeconds
      } else left[f]! -= rates[i]! * (next - now)
    })
    now = next
    while (todo.length > 0 && todo[0]!.atSeconds <= now) {
      const change = todo.shift()!
      capacities[change.link] = change.bytesPerSecond
    }
  }
}

const bandwidth = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 1, arbitrary: fc.constant(0) },
  { weight: 1, arbitrary: fc.constant(Infinity) }
)

const worlds = fc.integer({ min: 1, max: 5 }).chain((links) =>
  fc.record({
    bandwidths: fc.array(bandwidth, { minLength: links, maxLength: links }),
    flows: fc
      .array(
        fc.record({
          links: fc.uniqueArray(fc.nat(links - 1), { maxLength: 3 }),
          weights: fc.array(fc.constantFrom(1, 1, 1, 2, 5, 0.5), { minLength: 3, maxLength: 3 }),
          bytes: fc.nat(60),
          latencySeconds: fc.constantFrom(0, 0, 0.5, 1.25),
          bytesPerSecondMax: fc.constantFrom(Infinity, Infinity, Infinity, 3, 8),
          after: fc.oneof(fc.constant(-1), fc.nat())
        }),
        { minLength: 1, maxLength: 16 }
      )
      .map((flows) =>
        flows.map((flow, i): FlowSpec => ({
          ...flow,
          weights: flow.weights.slice(0, flow.links.length),
          after: flow.after < 0 || i === 0 ? -1 : flow.after % i
        }))
      ),
    changes: fc
      .array(
        fc.record({
          atSeconds: fc.integer({ min: 1, max: 40 }).map((x) => x / 4),
          link: fc.nat(links - 1),
          bytesPerSecond: bandwidth
        }),
        { maxLength: 4 }
      )
      .map((changes) => changes.toSorted((a, b) => a.atSeconds - b.atSeconds))
  })
)

describe("FluidNetwork", () => {
  it("ends every flow of generated worlds when brute force does", () => {
    const seen = { flows: 0, shared: 0, chained: 0, capped: 0, never: 0, changed: 0, sameRoute: 0 }
    fc.assert(
      fc.property(worlds, ({ bandwidths, flows, changes }) => {
        const engine = new Engine({
          network: "fluid",
          links: bandwidths.map((bytesPerSecond, i) => ({ name: `l${i}`, bytesPerSecond, latencySeconds: 0 }))
        })
        const activities = flows.map((flow) =>
          engine.flow(
            engine.route(flow.links, flow.weights),
            flow.bytes,
            flow.latencySeconds,
            flow.bytesPerSecondMax
          )
        )
        const ends = flows.map(() => Infinity)
        engine.onEnd = (tag) => {
          ends[tag] = engine.now
        }
        flows.forEach((flow, i) => {
          engine.watch(activities[i]!, i)
          if (flow.after >= 0) engine.after(activities[i]!, activities[flow.after]!)
        })
        for (const activity of activities) engine.release(activity)
        changes.forEach((change, i) => engine.at(change.atSeconds, i))
        engine.onTimer = (tag) => engine.setLink(changes[tag]!.link, changes[tag]!)
        let steps = 0
        while (engine.step()) if (++steps > 10_000) throw new Error("does not come to an end")
        const expected = bruteForce(bandwidths, flows, changes)
        flows.forEach((_, i) => {
          const [got, right] = [ends[i]!, expected[i]!]
          if (!(got === right || Math.abs(got - right) <= 1e-9 * right))
            throw new Error(`flow ${i} ends at ${got}, by brute force at ${right}`)
        })
        const stuck = expected.filter((end) => end === Infinity).length
        expect(engine.pending).toBe(stuck)
        expect(engine.waiting().length).toBe(stuck)
        bandwidths.forEach((_, link) => {
          let bytes = 0
          flows.forEach((flow, i) => {
            const at = flow.links.indexOf(link)
            if (at >= 0 && ends[i]! < Infinity) bytes += flow.weights[at]! * flow.bytes
          })
          expect(engine.linkBytes(link)).toBe(bytes) // weights are multiples of 1/2: exact
          expect(engine.linkBusySeconds(link)).toBeLessThanOrEqual(engine.now)
        })
        const routes = new Set(flows.map((flow) => `${flow.links};${flow.weights}`))
        seen.flows += flows.length
        if (flows.some((a, i) => flows.some((b, j) => i < j && a.links.some((l) => b.links.includes(l)))))
          seen.shared++
        if (flows.some((flow) => flow.after >= 0)) seen.chained++
        if (flows.some((flow) => flow.bytesPerSecondMax < Infinity)) seen.capped++
        if (stuck > 0) seen.never++
        if (changes.some((change) => change.atSeconds < engine.now)) seen.changed++
        if (routes.size < flows.length) seen.sameRoute++
      }),
      { numRuns: 1500 }
    )
    expect(seen.flows).toBeGreaterThan(5000)
    for (const [name, least] of Object.entries({
      shared: 700,
      chained: 700,
      capped: 700,
      never: 150,
      changed: 300,
      sameRoute: 300
    }))
      expect(seen[name as keyof typeof seen], `${name} of ${JSON.stringify(seen)}`).toBeGreaterThan(least)
  })
})

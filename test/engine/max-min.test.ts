// The max-min solver against closed forms, the definition of max-min fairness, and an independent naive solver.

import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { MaxMin } from "../../sim/engine/max-min.ts"

interface Variable {
  readonly links: ReadonlyArray<number>
  readonly weights: ReadonlyArray<number>
  readonly rateMax: number
}

/**
 * Brute progressive filling, written from the definition and sharing nothing with the solver: raise the rates of all
 * unfrozen variables by the largest common step, freeze those whose link is full or whose own limit is reached, repeat.
 */
function naive(
  capacities: ReadonlyArray<number>,
  variables: ReadonlyArray<Variable>,
  counts: ReadonlyArray<number>
) {
  const rates = variables.map(() => 0)
  const frozen = variables.map((_, v) => counts[v] === 0)
  for (;;) {
    let step = Infinity
    let full = (_: number): boolean => false
    capacities.forEach((capacity, link) => {
      let used = 0
      let slope = 0
      variables.forEach((variable, v) => {
        const at = variable.links.indexOf(link)
        if (at < 0 || counts[v] === 0) return
        used += variable.weights[at]! * counts[v]! * rates[v]!
        if (!frozen[v]) slope += variable.weights[at]! * counts[v]!
      })
      if (slope === 0) return
      const room = Math.max(0, (capacity - used) / slope)
      if (room < step * (1 - 1e-12)) {
        step = room
        full = (v) => variables[v]!.links.includes(link)
      } else if (room <= step * (1 + 1e-12) && room < Infinity) {
        const before = full
        full = (v) => before(v) || variables[v]!.links.includes(link)
      }
    })
    variables.forEach((variable, v) => {
      if (frozen[v]) return
      const room = variable.rateMax - rates[v]!
      if (room < step) {
        step = room
        full = (w) => w === v
      }
    })
    if (step === Infinity) {
      variables.forEach((_, v) => {
        if (!frozen[v]) rates[v] = Infinity
      })
      return rates
    }
    variables.forEach((_, v) => {
      if (frozen[v]) return
      rates[v]! += step
      if (full(v)) frozen[v] = true
    })
    if (frozen.every(Boolean)) return rates
  }
}

function solver(capacities: ReadonlyArray<number>, variables: ReadonlyArray<Variable>): MaxMin {
  const solver = new MaxMin()
  for (const capacity of capacities) solver.addLink(capacity)
  for (const { links, weights, rateMax } of variables) solver.addVariable(links, weights, rateMax)
  return solver
}

/** Throws unless the rates of variables that have flows are those. */
const requireRates = (
  solver: MaxMin,
  counts: ReadonlyArray<number>,
  expected: ReadonlyArray<number>
): void => {
  for (const [v, right] of expected.entries()) {
    const rate = solver.rate(v)
    if (counts[v]! > 0 && !(rate === right || Math.abs(rate - right) <= 1e-9 * Math.max(rate, right)))
      throw new Error(`variable ${v}: ${rate}, naive ${right}`)
  }
}

const plain = (...links: Array<number>): Variable => ({
  links,
  weights: links.map(() => 1),
  rateMax: Infinity
})

describe("MaxMin", () => {
  it("shares the textbook line network: one long flow against one short flow per link", () => {
    // Bertsekas & Gallager, Data Networks, 6.5.2: with capacities 1, 2, 4 the long flow gets 1/2 everywhere.
    const s = solver([1, 2, 4], [plain(0, 1, 2), plain(0), plain(1), plain(2)])
    for (let v = 0; v < 4; v++) s.addFlows(v, 1)
    s.solve()
    expect([0, 1, 2, 3].map((v) => s.rate(v))).toEqual([0.5, 0.5, 1.5, 3.5])
  })

  it("counts several flows of one variable, and frees their share when they leave", () => {
    const s = solver([12], [plain(0), plain(0)])
    s.addFlows(0, 3)
    s.addFlows(1, 1)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([3, 3])
    s.addFlows(0, -2)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([6, 6])
    s.addFlows(1, -1)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([12, 0])
  })

  it("gives coupled flows rates that respect their weights", () => {
    // Two flows on a link of 10: one counts four times. Equal rates x: 4 x + x = 10.
    const s = solver([10], [{ links: [0], weights: [4], rateMax: Infinity }, plain(0)])
    s.addFlows(0, 1)
    s.addFlows(1, 1)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([2, 2])
  })

  it("honours a limit per flow, whatever the number of flows", () => {
    const s = solver([10], [{ links: [0], weights: [1], rateMax: 2 }, plain(0)])
    s.addFlows(0, 1)
    s.addFlows(1, 1)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([2, 8])
    s.addFlows(0, 2)
    s.solve()
    expect([s.rate(0), s.rate(1)]).toEqual([2, 4])
    s.addFlows(0, 3)
    s.solve()
    expect(s.rate(0)).toBeCloseTo(10 / 7, 14)
  })

  it("knows links that never limit and links that are down", () => {
    const s = solver([Infinity, 0, 5], [plain(0), plain(0, 1), plain(0, 2), plain()])
    for (let v = 0; v < 4; v++) s.addFlows(v, 1)
    s.solve()
    expect([0, 1, 2, 3].map((v) => s.rate(v))).toEqual([Infinity, 0, 5, Infinity])
    s.setCapacity(0, 9)
    s.setCapacity(1, 1)
    s.solve()
    expect([0, 1, 2, 3].map((v) => s.rate(v))).toEqual([4, 1, 4, Infinity])
    s.setCapacity(0, Infinity)
    s.solve()
    expect([0, 1, 2].map((v) => s.rate(v))).toEqual([Infinity, 1, 5])
  })

  it("looks only at what a change can reach", () => {
    // 1000 separate pairs of links; a change in one pair must not make it look at the others.
    const capacities: Array<number> = []
    const variables: Array<Variable> = []
    for (let i = 0; i < 1000; i++) {
      capacities.push(3, 1)
      variables.push(plain(2 * i, 2 * i + 1), plain(2 * i))
    }
    const s = solver(capacities, variables)
    for (let v = 0; v < 2000; v++) s.addFlows(v, 1)
    s.solve()
    const before = s.evaluations
    s.addFlows(500, 1)
    s.solve()
    expect(s.rate(500)).toBe(0.5)
    expect(s.evaluations - before).toBeLessThanOrEqual(4)
    expect(s.changedLinkCount).toBeLessThanOrEqual(2)
  })

  it("agrees with the naive solver after every change of generated histories", () => {
    const capacity = fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 1, max: 40 }) },
      { weight: 4, arbitrary: fc.double({ min: 0.1, max: 40, noNaN: true }) },
      { weight: 1, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.constant(Infinity) }
    )
    const weight = fc.oneof(
      fc.constant(1),
      fc.constant(1),
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom(0.5, 1.75, 0.1)
    )
    const rateMax = fc.oneof(
      { weight: 3, arbitrary: fc.constant(Infinity) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 12 }) }
    )
    const history = fc.integer({ min: 1, max: 6 }).chain((links) => {
      const variable = fc
        .tuple(
          fc.uniqueArray(fc.nat(links - 1), { maxLength: 4 }),
          fc.array(weight, { minLength: 4, maxLength: 4 }),
          rateMax
        )
        .map(([on, weights, rateMax]): Variable => ({
          links: on,
          weights: weights.slice(0, on.length),
          rateMax
        }))
      const change = fc.oneof(
        {
          weight: 6,
          arbitrary: fc.record({ kind: fc.constant("flows" as const), which: fc.nat(), count: fc.nat(4) })
        },
        {
          weight: 1,
          arbitrary: fc.record({ kind: fc.constant("capacity" as const), which: fc.nat(), to: capacity })
        }
      )
      return fc.record({
        capacities: fc.array(capacity, { minLength: links, maxLength: links }),
        variables: fc.array(variable, { minLength: 1, maxLength: 12 }),
        batches: fc.array(fc.array(change, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 12 })
      })
    })
    const seen = {
      solutions: 0,
      severalLevels: 0,
      capped: 0,
      weighted: 0,
      stopped: 0,
      unlimited: 0,
      movedAlone: 0,
      refills: 0
    }
    fc.assert(
      fc.property(history, ({ capacities, variables, batches }) => {
        const s = solver(capacities, variables)
        const now = [...capacities]
        const counts = variables.map(() => 0)
        for (const batch of batches) {
          const changed = new Set<number>()
          for (const change of batch) {
            if (change.kind === "flows") {
              const v = change.which % variables.length
              s.addFlows(v, change.count - counts[v]!)
              counts[v] = change.count
              changed.add(v)
            } else {
              const link = change.which % now.length
              s.setCapacity(link, change.to)
              now[link] = change.to
            }
          }
          s.solve()
          const expected = naive(now, variables, counts)
          requireRates(s, counts, expected)
          for (let i = 0; i < s.movedCount; i++) if (!changed.has(s.movedVariables[i]!)) seen.movedAlone++
          const active = expected.filter((_, v) => counts[v]! > 0)
          seen.solutions++
          if (new Set(active).size >= 3) seen.severalLevels++
          if (active.includes(0)) seen.stopped++
          if (active.includes(Infinity)) seen.unlimited++
          if (expected.some((x, v) => counts[v]! > 0 && Math.abs(x - variables[v]!.rateMax) < 1e-9))
            seen.capped++
          if (variables.some((x, v) => counts[v]! > 0 && x.weights.some((w) => w !== 1))) seen.weighted++
          seen.refills += s.refills
        }
        // Filling from zero, the fallback, gives the same from any state.
        const expected = naive(now, variables, counts)
        s.refill()
        for (let v = 0; v < variables.length; v++)
          if (counts[v]! > 0) expect(s.rate(v)).toBeCloseTo(expected[v]!, 9)
      }),
      { numRuns: 1500 }
    )
    expect(seen.solutions).toBeGreaterThan(4000)
    for (const [name, least] of Object.entries({
      severalLevels: 1000,
      capped: 500,
      weighted: 2000,
      stopped: 300,
      unlimited: 300,
      movedAlone: 300
    }))
      expect(seen[name as keyof typeof seen], `${name} of ${JSON.stringify(seen)}`).toBeGreaterThan(least)
    expect(seen.refills).toBe(0) // local repair has always been enough
  })

  it("agrees with it all through long histories of flows over many links, of which few are full", () => {
    // What is reckoned of a link that is not full must still be right dozens of changes later, when it may be.
    const crossing = fc.integer({ min: 3, max: 7 }).chain((links) => {
      const capacity = fc.integer({ min: 1, max: 60 })
      const on = fc.uniqueArray(fc.nat(links - 1), {
        minLength: 1,
        maxLength: Math.min(4, links),
        size: "max"
      })
      const weights = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 4, maxLength: 4 })
      const change = fc.record({
        which: fc.nat(),
        count: fc.constantFrom(0, 0, 1, 2, 3, 4),
        capacity: fc.option(capacity, { freq: 6 })
      })
      return fc.record({
        capacities: fc.array(capacity, { minLength: links, maxLength: links }),
        variables: fc.array(fc.tuple(on, weights), { minLength: 4, maxLength: 8, size: "max" }),
        changes: fc.array(change, { minLength: 40, maxLength: 40 })
      })
    })
    fc.assert(
      fc.property(crossing, ({ capacities, variables: drawn, changes }) => {
        const variables = drawn.map(([links, weights]): Variable => ({
          links,
          weights: weights.slice(0, links.length),
          rateMax: Infinity
        }))
        const s = solver(capacities, variables)
        const now = [...capacities]
        const counts = variables.map(() => 0)
        for (const { which, count, capacity } of changes) {
          const v = which % variables.length
          s.addFlows(v, count - counts[v]!)
          counts[v] = count
          if (capacity !== null) s.setCapacity(which % now.length, (now[which % now.length] = capacity))
          s.solve()
          requireRates(s, counts, naive(now, variables, counts))
        }
        expect(s.refills).toBe(0)
      }),
      { numRuns: 400 }
    )
  })
})

// Machines broken on purpose: what holds of a right one must be seen to fail. A program means its ops done one after the
// other; each way of losing an order is found by the laws, before any number is wrong, and shows in the numbers too.
import * as fc from "fast-check"
import { afterEach, describe, expect, it, vi } from "vitest"
import { checkLaws } from "../../core/laws/laws.ts"
import { Dependencies, type Touched } from "../../core/machine/dependencies.ts"
import { laneCount, type Lane } from "../../core/machine/lane.ts"
import { anyCosts, anyProgram, meaningOf, programOf, type AnyProgram } from "./any-program.ts"
import { execute, flatWorld } from "./simulated.ts"

afterEach(() => {
  vi.restoreAllMocks()
})

const runOf = (program: AnyProgram) =>
  execute({
    world: flatWorld(program.ranks, { bytesPerSecond: 8, latencySeconds: 0 }),
    program: programOf(program),
    costs: anyCosts(program.seed),
    values: () => undefined
  })

/** The law that a run breaks, and whether what it read is wrong. */
const judge = (program: AnyProgram) => {
  const { simulated, execution } = runOf(program)
  const read = simulated.ranks.map(({ value }) => value)
  return {
    law: checkLaws(execution)?.law,
    wrong: JSON.stringify(read) !== JSON.stringify(meaningOf(program))
  }
}

describe("any program", () => {
  it("means its ops done one after the other, as written, whatever each takes", () => {
    let several = 0
    const property = fc.property(anyProgram, (program) => {
      const { simulated, execution } = runOf(program)
      expect(checkLaws(execution)).toBeUndefined()
      expect(simulated.ranks.map(({ value }) => value)).toEqual(meaningOf(program))
      if (program.ranks > 1 && program.steps.length > 10) several++
    })
    fc.assert(property, { numRuns: 200 })
    expect(several).toBeGreaterThanOrEqual(50)
  })
})

interface Submitted extends Touched {
  readonly op: number
  readonly lane: Lane
}

/** Which earlier ops an op is to wait for. */
type Rule = (earlier: Submitted, op: Submitted) => boolean

const meet = (a: Int32Array, b: Int32Array): boolean => a.some((one) => b.includes(one))
const readAfterWrite: Rule = (earlier, op) => meet(earlier.writes, op.reads)
const writeAfterRead: Rule = (earlier, op) => meet(earlier.reads, op.writes)
const writeAfterWrite: Rule = (earlier, op) => meet(earlier.writes, op.writes)
const right: Rule = (earlier, op) =>
  readAfterWrite(earlier, op) || writeAfterRead(earlier, op) || writeAfterWrite(earlier, op)

/** Derives edges by going through all earlier ops, by the rule; then `spoil` does what it will with them. */
const deriveBy = (rule: Rule, spoil: (edges: Array<Submitted>, all: ReadonlyArray<Submitted>) => void) => {
  const histories = new WeakMap<Dependencies, Array<Submitted>>()
  const writers = new WeakMap<Dependencies, Map<number, number>>()
  vi.spyOn(Dependencies.prototype, "derive").mockImplementation(function (
    this: Dependencies,
    op,
    lane,
    touched
  ) {
    const history = histories.get(this) ?? []
    const written = writers.get(this) ?? new Map<number, number>()
    histories.set(this, history)
    writers.set(this, written)
    const submitted = { op, lane, ...touched }
    const edges: Array<Submitted> = []
    for (let other = 0; other < laneCount; other++) {
      const last = history.findLast((earlier) => earlier.lane === other && rule(earlier, submitted))
      if (last !== undefined && other !== lane) edges.push(last)
    }
    spoil(edges, history)
    this.edges.set(edges.map((edge) => edge.op))
    this.edgeCount = edges.length
    history.push(submitted)
    for (const tensor of touched.writes) written.set(tensor, op)
  })
  vi.spyOn(Dependencies.prototype, "writerOf").mockImplementation(function (this: Dependencies, tensor) {
    return writers.get(this)?.get(tensor.id) ?? -1
  })
}

const keep = (): void => {}

describe("edges derived wrongly", () => {
  const samples = () => fc.sample(anyProgram, { numRuns: 150, seed: 11 })

  it("are not what a slower, plainer derivation gives", () => {
    deriveBy(right, keep)
    for (const program of samples()) expect(judge(program)).toEqual({ law: undefined, wrong: false })
  })

  const mutants: Readonly<Record<string, () => void>> = {
    "without read after write": () => {
      deriveBy((earlier, op) => writeAfterRead(earlier, op) || writeAfterWrite(earlier, op), keep)
    },
    "without write after read": () => {
      deriveBy((earlier, op) => readAfterWrite(earlier, op) || writeAfterWrite(earlier, op), keep)
    },
    "without write after write": () => {
      deriveBy((earlier, op) => readAfterWrite(earlier, op) || writeAfterRead(earlier, op), keep)
    },
    "of the first tensor only": () => {
      deriveBy((earlier, op) => right(earlier, { ...op, reads: op.reads.slice(0, 1) }), keep)
    },
    "to one other lane at most": () => {
      deriveBy(right, (edges) => {
        edges.splice(1)
      })
    },
    "to the op before the right one": () => {
      deriveBy(right, (edges, all) => {
        for (const [i, { op, lane }] of edges.entries()) {
          const before = all.findLast((earlier) => earlier.lane === lane && earlier.op < op)
          if (before !== undefined) edges[i] = before
        }
      })
    },
    "one in twenty lost": () => {
      let count = 0
      deriveBy(right, (edges) => {
        if (++count % 20 === 0) edges.pop()
      })
    }
  }
  it.each(Object.entries(mutants))("%s: the law says so, and numbers are wrong", (_, breakIt) => {
    breakIt()
    const found = samples().map(judge)
    expect(new Set(found.map(({ law }) => law))).toEqual(new Set([undefined, "hazardsOrdered"]))
    const wrong = found.filter((one) => one.wrong)
    expect(wrong.length).toBeGreaterThanOrEqual(1)
    // No number is wrong that the law had not warned of.
    for (const { law } of wrong) expect(law).toBe("hazardsOrdered")
  })
})

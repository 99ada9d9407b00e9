// Every law can fail: records of runs are falsified in one place, machines lie to their programs, and the law that is there
// for it says so. A law without a falsification below fails this test.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { rowsByRank, type Execution } from "../../core/laws/execution.ts"
import { journaled, type Journal, type JournalEntry } from "../../core/laws/journal.ts"
import { checkLaws, laws, type Law, type LawName } from "../../core/laws/laws.ts"
import { criticalPathSeconds } from "../../core/laws/time.ts"
import { Lane } from "../../core/machine/lane.ts"
import { interposing } from "../../core/machine/interpose.ts"
import { CollectiveMismatch, type Machine } from "../../core/machine/machine.ts"
import type { Op } from "../../core/machine/op.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import type { OpLogEntry, Timeline } from "../../core/machine/timeline.ts"
import { executionOf } from "../../testing/execution.ts"
import { anyCosts, anyProgram, meaningOf, programOf, type AnyProgram, type Step } from "./any-program.ts"
import { execute, failureOf, flatWorld, run } from "./simulated.ts"

const samples = fc
  .sample(anyProgram, { numRuns: 120, seed: 23 })
  .filter(({ steps }) => steps.some(({ kind }) => kind !== "read" && kind !== "endStep"))

const world = ({ ranks }: AnyProgram) => flatWorld(ranks, { bytesPerSecond: 8, latencySeconds: 0 })

const executions = samples.map(
  (program) =>
    execute({
      world: world(program),
      program: programOf(program),
      costs: anyCosts(program.seed),
      values: () => undefined
    }).execution
)

/** The same timeline with times of one row changed. */
const retimed = (
  execution: Execution,
  row: number,
  times: { readonly start?: number; readonly end?: number }
): Execution => {
  const timeline: Timeline = {
    ...execution.timeline,
    startSeconds: execution.timeline.startSeconds.slice(),
    endSeconds: execution.timeline.endSeconds.slice()
  }
  if (times.start !== undefined) timeline.startSeconds[row] = times.start
  if (times.end !== undefined) timeline.endSeconds[row] = times.end
  return { ...execution, timeline }
}

/** The same logs with one entry of the first rank that has one changed. */
const relogged = (
  execution: Execution,
  which: (entry: OpLogEntry) => boolean,
  change: (entry: OpLogEntry) => OpLogEntry
): Execution | undefined => {
  const log = execution.opLogs.find(({ entries }) => entries.some(which))
  const at = log?.entries.findIndex(which) ?? -1
  if (log === undefined) return undefined
  const changed = { ...log, entries: log.entries.with(at, change(log.entries[at]!)) }
  return { ...execution, opLogs: execution.opLogs.map((one) => (one === log ? changed : one)) }
}

/** A moment in the middle of what a row shows; undefined for an op that took no time. */
const during = ({ timeline }: Execution, row: number | undefined): number | undefined => {
  const start = timeline.startSeconds[row ?? -1]
  const end = timeline.endSeconds[row ?? -1]
  return start === undefined || end === undefined || start === end ? undefined : (start + end) / 2
}

/** The first thing that `find` finds among each rank's rows, entries of its log and of its journal. */
const search = <A>(
  execution: Execution,
  find: (
    rows: ReadonlyArray<number>,
    entries: ReadonlyArray<OpLogEntry>,
    journal: ReadonlyArray<JournalEntry>
  ) => A | undefined
): A | undefined => {
  const rows = rowsByRank(execution.timeline)
  for (const { rank, entries } of execution.opLogs) {
    const journal = execution.journals!.find((one) => one.rank === rank)!
    const found = find(rows.get(rank) ?? [], entries, journal.entries)
    if (found !== undefined) return found
  }
  return undefined
}

/** A record that is false in one place; undefined where this one has no such place. */
type Falsify = (execution: Execution) => Execution | undefined

const falsifications: Readonly<Record<LawName, Falsify>> = {
  logsComplete: (execution) =>
    relogged(
      execution,
      () => true,
      (entry) => ({ ...entry, label: "another" })
    ),
  everyOpRan: (execution) => retimed(execution, 0, { end: -1 }),
  onlyLiveTensors: (execution) => {
    const journals = execution.journals!.map(({ rank, entries }): Journal => {
      const at = entries.findIndex(({ kind }) => kind === "op")
      const entry = entries[at]
      if (entry?.kind !== "op") return { rank, entries }
      return { rank, entries: entries.toSpliced(at, 0, { kind: "free", tensor: entry.op.reads[0]! }) }
    })
    return { ...execution, journals }
  },
  memoryBounded: (execution) => ({ ...execution, capacityBytes: { device: 7 } }),
  hazardsOrdered: (execution) =>
    relogged(
      execution,
      ({ after }) => after.length === 1,
      (entry) => ({ ...entry, after: [] })
    ),
  collectiveOrder: (execution) =>
    execution.opLogs.length < 2
      ? undefined
      : relogged(
          execution,
          ({ group }) => group !== undefined,
          (entry) => ({ ...entry, sizeBytes: entry.sizeBytes + 1 })
        ),
  laneFifo: (execution) =>
    search(execution, (rows, entries) => {
      for (const { op, lane } of entries) {
        const previous = entries.slice(0, op).findLast((earlier) => earlier.lane === lane)
        const start = previous === undefined ? undefined : during(execution, rows[previous.op])
        if (start !== undefined) return retimed(execution, rows[op]!, { start })
      }
      return undefined
    }),
  edgesObeyed: (execution) =>
    search(execution, (rows, entries) => {
      for (const { op, after } of entries) {
        const start = after.length === 0 ? undefined : during(execution, rows[after[0]!])
        if (start !== undefined) return retimed(execution, rows[op]!, { start })
      }
      return undefined
    }),
  nothingBeforeItsRead: (execution) =>
    search(execution, (rows, _, journal) => {
      for (const [at, entry] of journal.entries()) {
        const start =
          entry.kind === "read" && entry.writer >= 0 ? during(execution, rows[entry.writer]) : undefined
        const next = journal.slice(at).find(({ kind }) => kind === "op")
        if (start !== undefined && next?.kind === "op") return retimed(execution, rows[next.id]!, { start })
      }
      return undefined
    }),
  collectivesMeet: (execution) =>
    execution.opLogs.length < 2
      ? undefined
      : search(execution, (rows, entries) => {
          for (const { op, group } of entries) {
            const end = group === undefined ? undefined : during(execution, rows[op])
            if (end !== undefined) return retimed(execution, rows[op]!, { end })
          }
          return undefined
        }),
  stepsNested: (execution) => {
    const { timeline } = execution
    const stepEnds = execution.stepEnds!.map(({ rank, seconds }) => ({ rank, seconds: seconds.map(() => 0) }))
    const worked = stepEnds.some(({ rank, seconds }) =>
      timeline.lane.some(
        (lane, row) =>
          lane === Lane.compute &&
          timeline.rank[row] === rank &&
          timeline.step[row]! < seconds.length &&
          timeline.endSeconds[row]! > 0
      )
    )
    return worked ? { ...execution, stepEnds } : undefined
  },
  lookAheadBounded: (execution) => {
    const { timeline, stepEnds } = execution
    for (let row = 0; row < timeline.op.length; row++) {
      const { seconds } = stepEnds!.find(({ rank }) => rank === timeline.rank[row])!
      const compute = timeline.lane.some(
        (lane, other) =>
          lane === Lane.compute &&
          timeline.rank[other] === timeline.rank[row] &&
          timeline.step[other]! <= timeline.step[row]! - 3 &&
          timeline.endSeconds[other]! > 0
      )
      if (compute && seconds.length > 0) return retimed(execution, row, { start: 0 })
    }
    return undefined
  },
  makespanCoversLanes: (execution) => {
    const makespanSeconds = Math.max(...execution.timeline.endSeconds) * (1 - 1e-6)
    return makespanSeconds > 0 ? { ...execution, makespanSeconds } : undefined
  },
  makespanCoversCriticalPath: (execution) => {
    const makespanSeconds = criticalPathSeconds(execution)! * (1 - 1e-6)
    return makespanSeconds > 0 ? { ...execution, makespanSeconds } : undefined
  },
  linkBytesConserved: (execution) => {
    const { traffic } = execution
    if (traffic === undefined || traffic.links.every(({ bytes }) => bytes === 0)) return undefined
    const links = traffic.links.map(({ name, bytes }) => ({ name, bytes: bytes * (1 + 1e-9) }))
    return { ...execution, traffic: { ...traffic, links } }
  }
}

describe("a law", () => {
  it("holds of what the simulator records", () => {
    for (const execution of executions) expect(checkLaws(execution)).toBeUndefined()
  })

  it.each(Object.keys(laws) as ReadonlyArray<LawName>)("%s is broken by a record that is false", (name) => {
    const law: Law = laws[name]
    const falsified = executions.flatMap((execution) => falsifications[name](execution) ?? [])
    expect(falsified.length).toBeGreaterThanOrEqual(15)
    const unnoticed = falsified.filter((execution) => law(execution) === undefined)
    // An edge may be one that others imply; any other falsehood is always found.
    if (name === "hazardsOrdered") expect(unnoticed.length).toBeLessThan(falsified.length / 4)
    else expect(unnoticed).toHaveLength(0)
    for (const execution of falsified) {
      const violation = law(execution)
      if (violation === undefined) continue
      expect(violation.law).toBe(name)
      expect(violation.message.length).toBeGreaterThan(20)
    }
  })
})

type Service = Machine["Service"]

const judge = (
  program: AnyProgram,
  lie: (machine: Service) => Partial<Service>,
  lookAhead = { is: 2, said: 2 }
) => {
  const journals: Array<Journal> = []
  const simulated = run({
    world: world(program),
    program: interposing(journaled(programOf(program), journals), lie),
    costs: anyCosts(program.seed),
    values: () => undefined,
    record: true,
    lookAhead: lookAhead.is
  })
  const read = simulated.ranks.map(({ value }) => value)
  return {
    law: checkLaws(executionOf(simulated, journals, world(program), "ring", lookAhead.said))?.law,
    wrong: JSON.stringify(read) !== JSON.stringify(meaningOf(program))
  }
}

describe("a machine", () => {
  const lies: Readonly<Record<string, (machine: Service) => Partial<Service>>> = {
    "that answers reads at once breaks nothingBeforeItsRead": () => ({
      read: (tensor) => Effect.succeed(new Float32Array(tensor.elements))
    }),
    "that loses ops breaks logsComplete": (machine) => {
      let count = 0
      return { submit: (op) => (count++ === 3 ? 3 : machine.submit(op)) }
    },
    "that takes another lane breaks logsComplete": (machine) => ({
      submit: (op) => machine.submit(op.lane === Lane.d2h ? { ...op, lane: Lane.h2d } : op)
    }),
    "that gives out memory twice breaks memoryBounded": (machine) => {
      let given: Tensor | undefined
      return {
        alloc: (spec) =>
          Effect.suspend(() =>
            given === undefined
              ? Effect.tap(machine.alloc(spec), (tensor) => Effect.sync(() => (given = tensor)))
              : Effect.succeed(given)
          )
      }
    },
    "that reads what was there before is found by values alone": (machine) => {
      const before = new Map<Tensor, Float32Array>()
      return {
        read: (tensor) =>
          Effect.map(machine.read(tensor), (values) => {
            const stale = before.get(tensor) ?? values
            before.set(tensor, Float32Array.from(values))
            return stale
          })
      }
    }
  }
  const lawOf = (name: string): string | undefined => /breaks (\w+)$/u.exec(name)?.[1]

  it.each(Object.entries(lies))("%s", (name, lie) => {
    const found = samples.map((program) => judge(program, lie))
    const expected = lawOf(name)
    expect(
      found.filter(({ law, wrong }) => (expected === undefined ? wrong : law === expected)).length
    ).toBeGreaterThanOrEqual(10)
    expect(
      new Set(found.map(({ law }) => law).filter((law) => law !== undefined && law !== expected))
    ).toEqual(new Set())
  })

  it("that lets programs run further ahead than it says breaks lookAheadBounded", () => {
    // Many steps, and nothing that a program waits for but their ends.
    const found = samples
      .map(({ steps, ...program }) => ({
        ...program,
        steps: steps
          .filter(({ kind }) => kind !== "read")
          .flatMap((step, i): ReadonlyArray<Step> => (i % 3 === 2 ? [step, { kind: "endStep" }] : [step]))
      }))
      .map((program) => judge(program, () => ({}), { is: 9, said: 1 }))
    expect(found.every(({ law }) => law === undefined || law === "lookAheadBounded")).toBe(true)
    expect(found.filter(({ law }) => law !== undefined).length).toBeGreaterThanOrEqual(5)
    expect(found.every(({ wrong }) => !wrong)).toBe(true)
  })

  it("on which one rank swaps two collectives is refused, with both sides named", () => {
    const swapped = samples.flatMap((program): ReadonlyArray<unknown> => {
      const held: Array<Op> = []
      const lie = (machine: Service): Partial<Service> => ({
        submit: (op) => {
          if (op.group === undefined || machine.rank !== 1) return machine.submit(op)
          held.push({ ...op, sizeBytes: op.sizeBytes + held.length })
          if (held.length % 2 === 1) return 0
          const [second, first] = [held.at(-1)!, held.at(-2)!]
          machine.submit(second)
          return machine.submit(first)
        }
      })
      const collectives = program.steps.filter(({ kind }) => kind === "average").length
      if (program.ranks < 2 || collectives < 2) return []
      return [
        failureOf({
          world: world(program),
          program: interposing(programOf(program), lie),
          costs: anyCosts(program.seed),
          values: () => undefined
        })
      ]
    })
    expect(swapped.length).toBeGreaterThanOrEqual(15)
    for (const error of swapped) expect(error).toBeInstanceOf(CollectiveMismatch)
  })
})

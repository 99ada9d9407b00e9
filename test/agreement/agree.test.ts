// The agreement checker on runs of which it is known what differs: two simulations of one program agree whatever their costs;
// a change of a decision, of a value or of the order is found, at its first place and on its side.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { agree, agrees, type Agreement, type AgreementRun } from "../../core/agreement/agree.ts"
import { defaultTolerance } from "../../core/agreement/values.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine, type Program } from "../../core/machine/machine.ts"
import { collective, launch } from "../../core/machine/op.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import type { CostModel } from "../../core/cost/cost-model.ts"
import { execute, flatWorld } from "../simulate/simulated.ts"

interface Settings {
  readonly factor?: number
  readonly second?: "scale" | "zero"
  readonly threshold?: number
  readonly extra?: boolean
  readonly label?: string
}

/** Scales a vector, averages it over the ranks, and goes on as its first element says. */
const program = (settings: Settings = {}): Program<number> =>
  Effect.gen(function* () {
    const { factor = 2, second = "scale", threshold = 10, extra = false, label = "double" } = settings
    const machine = yield* Machine
    const like = { shape: [3], dtype: "float32" as const }
    const x = yield* machine.alloc({
      ...like,
      name: "x",
      initial: () => Float32Array.of(1 + machine.rank, 2, 3)
    })
    const y = yield* machine.alloc({ ...like, name: "y" })
    machine.submit(launch(label, kernels.scale, Lane.compute, [x], [y], { factor }))
    machine.submit(
      collective("average", kernels.all_reduce, Lane.inter, machine.world.all, [y], [y], {
        attributes: { reduce: "avg" }
      })
    )
    const first = (yield* machine.read(y))[0]!
    const kernel = first < threshold ? kernels[second] : kernels.zero
    const attributes = kernel === kernels.scale ? { factor: 3 } : {}
    machine.submit(launch("second", kernel, Lane.compute, [y], [x], attributes))
    if (extra && machine.rank === 1) machine.submit(launch("more", kernels.copy, Lane.compute, [x], [y]))
    yield* machine.endStep
    return first
  })

const costing = (seconds: number): CostModel => ({
  seconds: ({ label }) => (label === "second" ? 2 * seconds : seconds),
  estimates: []
})

const runOf = (settings: Settings = {}, seconds = 1, initial: "own" | "other" = "own"): AgreementRun => {
  const { simulated, execution } = execute({
    world: flatWorld(2),
    program: program(settings),
    costs: costing(seconds),
    values: (rank, { name }) =>
      initial === "other" && rank === 1 && name === "x" ? Float32Array.of(2, 2, 3.1) : undefined
  })
  return { execution, valuesOf: (rank, tensor) => simulated.values!.of(rank, tensor) }
}

const compared = (settings: Settings, seconds = 1, initial: "own" | "other" = "own"): Agreement =>
  agree(runOf(), runOf(settings, seconds, initial))

describe("two runs of one program", () => {
  it("agree whatever their costs, and the error of time is the ratio of makespans", () => {
    const { timeError, comparedTensors, ...rest } = compared({}, 4)
    expect(rest).toEqual({ decisions: true, values: true, order: true, firstDisagreement: undefined })
    expect(timeError).toBeCloseTo(1 / 4 - 1, 12)
    expect(comparedTensors).toBe(4)
    expect(agrees(compared({}))).toBe(true)
  })

  it("whose values nobody kept are not compared by value", () => {
    const { execution } = runOf()
    expect(agree({ execution }, runOf()).values).toBeUndefined()
    expect(agrees(agree({ execution }, runOf()))).toBe(true)
  })
})

describe("a decision that differs is found", () => {
  it("in what an op is", () => {
    const agreement = compared({ second: "zero" })
    expect(agreement.decisions).toBe(false)
    expect(agreement.values).toBe(false)
    expect(agreement.firstDisagreement).toMatchObject({ kind: "decisions", rank: 0, op: 2 })
    expect(agreement.firstDisagreement!.message).toBe(
      'rank 0, op 2: simulated scale "second" of 12 B on the compute lane, step 0, after [1]; executed zero "second" of 12 B on the compute lane, step 0, after [1]'
    )
  })

  it("in its attributes alone, which no op log has", () => {
    const { firstDisagreement } = compared({ factor: 4 })
    expect(firstDisagreement).toMatchObject({ kind: "decisions", rank: 0, op: 0 })
    expect(firstDisagreement!.message).toContain('{"factor":4}')
  })

  it("in one op more", () => {
    expect(compared({ extra: true }).firstDisagreement).toMatchObject({ kind: "decisions", rank: 1, op: 3 })
  })

  it("in how it depends on data", () => {
    expect(compared({ threshold: 2 }).firstDisagreement!.message).toContain('executed zero "second"')
  })
})

describe("a value that differs is found", () => {
  it("in what a program read, and where it came from", () => {
    const agreement = compared({}, 1, "other")
    expect(agreement).toMatchObject({ decisions: true, values: false, order: true })
    expect(agreement.firstDisagreement).toMatchObject({ kind: "values", rank: 0, op: 1 })
    expect(agreement.firstDisagreement!.message).toContain("element 2 is 6; executed 6.0")
  })

  it("in a tensor at the end", () => {
    const other = runOf()
    const agreement = agree(runOf(), {
      ...other,
      valuesOf: (rank, tensor) =>
        rank === 1 && tensor.name === "x" ? Float32Array.of(9, 12, NaN) : other.valuesOf!(rank, tensor)
    })
    expect(agreement.firstDisagreement).toMatchObject({ kind: "values", rank: 1 })
    expect(agreement.firstDisagreement!.message).toMatch(
      /tensor 0 "x" .* at the end: simulated element 2 is 18/
    )
  })

  it("unless it is rounding", () => {
    const other = runOf()
    const rounded: AgreementRun = {
      ...other,
      valuesOf: (rank, tensor) => other.valuesOf!(rank, tensor)!.map((x) => x * (1 + 1e-6))
    }
    expect(agrees(agree(runOf(), rounded))).toBe(true)
    expect(agrees(agree(runOf(), rounded, { ...defaultTolerance, steps: () => 1, absolute: 0 }))).toBe(false)
  })
})

describe("an order that is not legal is found", () => {
  const changed = (change: (timeline: Timeline) => void): Agreement => {
    const run = runOf()
    const timeline = { ...run.execution.timeline, startSeconds: run.execution.timeline.startSeconds.slice() }
    change(timeline)
    return agree(runOf(), { ...run, execution: { ...run.execution, timeline } })
  }
  const rowOf = (timeline: Timeline, rank: number, op: number): number =>
    timeline.op.findIndex((id, row) => id === op && timeline.rank[row] === rank)

  it("against an edge", () => {
    const agreement = changed((timeline) => (timeline.startSeconds[rowOf(timeline, 1, 1)] = 0.5))
    expect(agreement).toMatchObject({ decisions: true, values: true, order: false })
    expect(agreement.firstDisagreement).toMatchObject({ kind: "order", rank: 1, op: 1 })
    expect(agreement.firstDisagreement!.message).toContain("law edgesObeyed")
  })

  it("against a lane", () => {
    const { firstDisagreement } = changed((timeline) => (timeline.startSeconds[rowOf(timeline, 0, 2)] = 0))
    expect(firstDisagreement!.message).toContain("law laneFifo")
  })

  it("but a collective's members may leave apart on a real machine", () => {
    const run = runOf()
    const { timeline } = run.execution
    const [startSeconds, endSeconds] = [timeline.startSeconds.slice(), timeline.endSeconds.slice()]
    // Rank 0 leaves the average a millisecond after rank 1.
    endSeconds[rowOf(timeline, 0, 1)]! += 1e-3
    startSeconds[rowOf(timeline, 0, 2)]! += 1e-3
    endSeconds[rowOf(timeline, 0, 2)]! += 1e-3
    const execution = {
      ...run.execution,
      timeline: { ...timeline, startSeconds, endSeconds },
      makespanSeconds: undefined,
      stepEnds: undefined
    }
    expect(agree(runOf(), { ...run, execution }).firstDisagreement!.message).toContain("law collectivesMeet")
    expect(agrees(agree(runOf(), { ...run, execution: { ...execution, leaveApart: true } }))).toBe(true)
  })

  it("and who leaves first may go on at once: the critical path counts no more than that", () => {
    const run = runOf()
    const { timeline } = run.execution
    const [startSeconds, endSeconds] = [timeline.startSeconds.slice(), timeline.endSeconds.slice()]
    // Rank 1 is the last to leave the average, 3 s after rank 0, whose next op has ended by then.
    endSeconds[rowOf(timeline, 1, 1)]! += 3
    startSeconds[rowOf(timeline, 1, 2)] = endSeconds[rowOf(timeline, 1, 1)]!
    endSeconds[rowOf(timeline, 1, 2)] = endSeconds[rowOf(timeline, 1, 1)]!
    const execution = {
      ...run.execution,
      timeline: { ...timeline, startSeconds, endSeconds },
      makespanSeconds: undefined,
      stepEnds: undefined,
      leaveApart: true
    }
    expect(agrees(agree(runOf(), { ...run, execution }))).toBe(true)
  })
})

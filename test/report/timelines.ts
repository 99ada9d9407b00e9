// Timelines for tests of what reads them: a way to write one by hand, and a generator of legal ones. The generator lays
// random programs of several ranks out by itself (each op starts when its lane, its edges and, for collectives, all
// members are ready), sharing no code with the simulator.
import * as fc from "fast-check"
import { Lane } from "../../core/machine/lane.ts"
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"

interface Row {
  readonly rank?: number
  readonly op?: number
  readonly lane: Lane
  readonly step?: number
  readonly label: string
  readonly kernel?: string
  readonly from: number
  readonly to: number
  readonly bytes?: number
  /** Row number; none by default. */
  readonly cause?: number
}

/** A timeline of rows in seconds; op numbers count up per rank unless given. */
export const timelineOf = (rows: ReadonlyArray<Row>): Timeline => {
  const labels = [...new Set(rows.map(({ label }) => label))]
  const kernelOf = ({ kernel, lane }: Row): string =>
    kernel ?? (lane === Lane.inter || lane === Lane.intra ? "all_reduce" : "profiled")
  const kernels = [...new Set(rows.map(kernelOf))]
  const next = new Map<number, number>()
  const ops = rows.map(({ rank = 0, op }) => {
    const own = op ?? next.get(rank) ?? 0
    next.set(rank, own + 1)
    return own
  })
  return {
    rank: Int32Array.from(rows, ({ rank = 0 }) => rank),
    op: Int32Array.from(ops),
    lane: Uint8Array.from(rows, ({ lane }) => lane),
    step: Int32Array.from(rows, ({ step = 0 }) => step),
    label: Int32Array.from(rows, ({ label }) => labels.indexOf(label)),
    labels,
    kernel: Int32Array.from(rows, (row) => kernels.indexOf(kernelOf(row))),
    kernels,
    startSeconds: Float64Array.from(rows, ({ from }) => from),
    endSeconds: Float64Array.from(rows, ({ to }) => to),
    sizeBytes: Float64Array.from(rows, ({ bytes = 0 }) => bytes),
    cause: Int32Array.from(rows, ({ cause = -1 }) => cause)
  }
}

/** One op of a generated program; every rank runs the same list, with its own durations and releases. */
interface Instruction {
  readonly lane: Lane
  readonly collective: boolean
  /** How many ops back each edge goes, 1 or more; edges beyond the first op are dropped. */
  readonly edges: ReadonlyArray<number>
  /** Per rank, in ticks. */
  readonly ticks: ReadonlyArray<number>
  /** Ticks between the last of what it waited for and its start. */
  readonly launch: ReadonlyArray<number>
  /** Ticks after which the program submits it, at the earliest. */
  readonly submitted: ReadonlyArray<number>
  readonly endsStep: boolean
}

interface GeneratedRun {
  readonly timeline: Timeline
  readonly opLogs: ReadonlyArray<OpLog>
  readonly ranks: number
}

/** A tick is a power of two of seconds, so that sums of ticks are exact and equal times are equal. */
const TICK = 2 ** -20

const instruction = (ranks: number): fc.Arbitrary<Instruction> => {
  const perRank = (arb: fc.Arbitrary<number>): fc.Arbitrary<Array<number>> =>
    fc.array(arb, { minLength: ranks, maxLength: ranks })
  const ticks = fc.oneof(
    { weight: 1, arbitrary: fc.constant(0) },
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 2000 }) }
  )
  return fc.record({
    lane: fc.constantFrom(Lane.compute, Lane.compute, Lane.compute, Lane.inter, Lane.intra, Lane.h2d),
    collective: fc.boolean(),
    edges: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 2 }),
    ticks: perRank(ticks),
    launch: perRank(
      fc.oneof(
        { weight: 5, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 50 }) }
      )
    ),
    submitted: perRank(
      fc.oneof(
        { weight: 8, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: 1, max: 20_000 }) }
      )
    ),
    endsStep: fc.integer({ min: 0, max: 9 }).map((n) => n === 0)
  })
}

/** Runs of 1 to 3 ranks and up to 60 ops each. */
export const legalRun: fc.Arbitrary<GeneratedRun> = fc.integer({ min: 1, max: 3 }).chain((ranks) =>
  fc
    .array(instruction(ranks), { minLength: 1, maxLength: 60 })
    // A step is seen on the compute lane: the first op is on it.
    .map(([first, ...rest]) => layOut(ranks, [{ ...first!, lane: Lane.compute, edges: [] }, ...rest]))
)

const layOut = (ranks: number, program: ReadonlyArray<Instruction>): GeneratedRun => {
  const rows: Array<Row> = []
  const rowOf = (op: number, rank: number): number => op * ranks + rank
  const tails = Array.from({ length: ranks }, () => new Map<Lane, number>())
  const logs: Array<OpLog & { entries: Array<OpLog["entries"][number]> }> = Array.from(
    { length: ranks },
    (_, rank) => ({ rank, entries: [] })
  )
  let step = 0
  program.forEach((instruction, op) => {
    const { lane, edges } = instruction
    const communicates = lane === Lane.inter || lane === Lane.intra
    const together = communicates && instruction.collective
    const label = `${communicates ? "all-reduce" : lane === Lane.h2d ? "copy" : "kernel"} ${op}`
    const after = [...new Set(edges.map((back) => op - back).filter((other) => other >= 0))]
    /** When a rank is ready, in ticks, and the row that made it so. */
    const readiness = Array.from({ length: ranks }, (_, rank) => {
      let ready = 0
      let cause = -1
      const waits = after.map((other) => rowOf(other, rank))
      const tail = tails[rank]!.get(lane)
      if (tail !== undefined) waits.push(tail)
      for (const row of waits) {
        if (rows[row]!.to >= ready) {
          ready = rows[row]!.to
          cause = row
        }
      }
      const submitted = instruction.submitted[rank]!
      if (submitted > ready) {
        ready = submitted
        cause = -1
      }
      return { ready, cause }
    })
    const last = readiness.reduce((a, b) => (b.ready > a.ready ? b : a))
    for (let rank = 0; rank < ranks; rank++) {
      const { ready, cause } = together ? last : readiness[rank]!
      const launch = cause < 0 ? 0 : instruction.launch[together ? 0 : rank]!
      const start = ready + launch
      // Members of a collective prefer the cause of their own rank where it was as late.
      const own = readiness[rank]!
      rows.push({
        rank,
        op,
        lane,
        step,
        label,
        kernel: communicates ? "all_reduce" : "profiled",
        from: start,
        to: start + instruction.ticks[together ? 0 : rank]!,
        bytes: 4 * op,
        cause: own.ready === ready ? own.cause : cause
      })
      tails[rank]!.set(lane, rowOf(op, rank))
      logs[rank]!.entries.push({
        op,
        label,
        kernel: communicates ? "all_reduce" : "profiled",
        lane,
        step,
        group: together ? "world" : undefined,
        sizeBytes: 4 * op,
        after: after.filter((other) => rows[rowOf(other, rank)]!.lane !== lane)
      })
    }
    if (instruction.endsStep) step++
  })
  return {
    ranks,
    opLogs: logs,
    timeline: timelineOf(rows.map((row) => ({ ...row, from: row.from * TICK, to: row.to * TICK })))
  }
}

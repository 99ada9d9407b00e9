// A run whose ops are timed, beside the same run that nobody times, where timing costs something: on a GPU, which records events
// for it. Where it does not, the timed run alone.
import * as Effect from "effect/Effect"
import type { MachineError, Program } from "../core/machine/machine.ts"
import { CurrentBackend } from "./backend.ts"
import type { Execution, ExecutionResult } from "./execute.ts"
import type { ProcessJob } from "./job/processes.ts"
import { recordRun, type RunRecord } from "./record-run.ts"
import { inStretches, middleOf, plainStretches, type Stretch, type Stretches } from "./stretches.ts"

/** A program, and after how many steps it is drained, where it waits for nothing itself. */
export interface Watched<A = unknown> {
  readonly program: Program<A>
  readonly drainAfter?: number
}

export interface TimedAndPlain<A = unknown> {
  readonly record: RunRecord
  /** What the timed run came to. */
  readonly executed: ExecutionResult<A>
  /** Of rank 0 at rank 0, elsewhere of its own: stretches of both, alike from the end of the first on. */
  readonly both?: { readonly timed: ReadonlyArray<Stretch>; readonly plain: ReadonlyArray<Stretch> }
}

/** Whether timing ops costs more than a look at a clock. */
const timingCosts = (backend: string): boolean => backend === "cuda"

/**
 * `plain` are run one after another, and then `timed`; of the last `counted` of `plain`, 1 where it is not given, stretches are taken at
 * their median: by then kernels are loaded, algorithms of products
 * chosen and the program's code compiled, without which a host is late for reasons that a longer run does not have. `costly`: what to
 * think of timing, where the backend does not say.
 */
export const timedAndPlain = <A>(
  execution: Omit<Execution<A>, "program">,
  {
    timed,
    plain,
    counted = 1
  }: {
    readonly timed: Watched<A>
    readonly plain: ReadonlyArray<() => Watched>
    readonly counted?: number
  },
  processes: ProcessJob | undefined,
  costly?: boolean
): Effect.Effect<TimedAndPlain<A>, MachineError> =>
  Effect.gen(function* () {
    const run = { ...execution, program: timed.program }
    if (!(costly ?? timingCosts(yield* CurrentBackend)))
      return yield* recordRun(run, processes, { values: false })
    const untimed: Array<ReadonlyArray<Stretch>> = []
    for (const each of plain) {
      const { program, drainAfter } = each()
      untimed.push(yield* plainStretches({ ...execution, program }, processes, drainAfter))
    }
    const into: Stretches = new Map()
    const program = inStretches(timed.program, into, timed.drainAfter)
    const ran = yield* recordRun({ ...execution, program }, processes, { values: false })
    return {
      ...ran,
      both: { timed: into.get(Math.min(...into.keys())) ?? [], plain: middleOf(untimed.slice(-counted)) }
    }
  })

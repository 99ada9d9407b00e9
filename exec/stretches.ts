// A run in stretches, from one moment when a rank knows that its device has come as far as it has to the next. Looks at the host's
// clock at those moments alone, so that it costs a run that nobody times next to nothing. Knows no device.
import * as Effect from "effect/Effect"
import { median } from "../core/median.ts"
import { interposing } from "../core/machine/interpose.ts"
import { Machine, type MachineError, type Program } from "../core/machine/machine.ts"
import { execute, type Execution } from "./execute.ts"
import type { ProcessJob } from "./job/processes.ts"

/** Between two reads or drains. */
export interface Stretch {
  /** Submitted in it; at least 1. */
  readonly ops: number
  readonly seconds: number
  /** Of these, those in which the program did not wait for the device: its own, and those of submitting. */
  readonly hostSeconds: number
  /** It waited for a moment to come: what it took says nothing. */
  readonly slept: boolean
}

/** To find that a moment is past takes less. */
const leastSleepSeconds = 1e-4

/** Stretches of each rank of this process. */
export type Stretches = Map<number, Array<Stretch>>

/**
 * The same program, drained at its end; its stretches are appended to `into`. `drainAfter`: it is drained after that many steps too,
 * for programs that wait for nothing.
 */
export const inStretches = <A>(
  program: Program<A>,
  into: Stretches,
  drainAfter?: number,
  nowSeconds: () => number = () => performance.now() / 1e3
): Program<A> =>
  interposing(
    Effect.tap(program, () => Effect.flatMap(Machine, ({ drain }) => drain)),
    (machine) => {
      const stretches: Array<Stretch> = []
      into.set(machine.rank, stretches)
      let [ops, step, hostSeconds] = [0, 0, 0]
      let slept = false
      let began = nowSeconds()
      let resumed = began
      const waiting = <B, Failure>(
        wait: Effect.Effect<B, Failure>,
        then: (waitedSeconds: number) => void = () => undefined
      ): Effect.Effect<B, Failure> =>
        Effect.suspend(() => {
          const stopped = nowSeconds()
          hostSeconds += stopped - resumed
          return Effect.tap(wait, () =>
            Effect.sync(() => {
              resumed = nowSeconds()
              then(resumed - stopped)
            })
          )
        })
      const close = (): void => {
        if (ops > 0) stretches.push({ ops, seconds: resumed - began, hostSeconds, slept })
        began = resumed
        ops = hostSeconds = 0
        slept = false
      }
      const drain = waiting(machine.drain, close)
      return {
        submit: (op, scalars) => {
          ops++
          return machine.submit(op, scalars)
        },
        read: (tensor) => waiting(machine.read(tensor), close),
        drain,
        endStep: Effect.suspend(() => {
          step++
          const ended = waiting(machine.endStep)
          return step === drainAfter ? Effect.andThen(ended, drain) : ended
        }),
        sleepUntil: (seconds) =>
          waiting(machine.sleepUntil(seconds), (waited) => {
            slept ||= waited > leastSleepSeconds
          })
      }
    }
  )

/**
 * Of runs of one program, each stretch at the median of its seconds: what one run was held up by now and then is not the program's.
 * Stretches are those that all runs have with as many ops.
 */
export const middleOf = (runs: ReadonlyArray<ReadonlyArray<Stretch>>): ReadonlyArray<Stretch> => {
  const [first = [], ...others] = runs
  const differs = first.findIndex(({ ops }, index) => others.some((run) => run[index]?.ops !== ops))
  return first.slice(0, differs < 0 ? undefined : differs).map(({ ops }, index) => {
    const alike = runs.map((run) => run[index]!)
    return {
      ops,
      seconds: median(alike.map(({ seconds }) => seconds)),
      hostSeconds: median(alike.map(({ hostSeconds }) => hostSeconds)),
      slept: alike.some(({ slept }) => slept)
    }
  })
}

/** What a run took that nobody timed: the stretches of this process's first rank. */
export const plainStretches = (
  execution: Execution<unknown>,
  processes: ProcessJob | undefined,
  drainAfter?: number
): Effect.Effect<ReadonlyArray<Stretch>, MachineError> =>
  Effect.suspend(() => {
    const into: Stretches = new Map()
    const program = inStretches(execution.program, into, drainAfter)
    const job = processes === undefined ? {} : { job: () => processes.run() }
    return Effect.map(
      execute({ ...execution, ...job, program, record: false }),
      () => into.get(Math.min(...into.keys())) ?? []
    )
  })

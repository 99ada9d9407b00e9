// How long threads of this process that had work waited for a core of the machine, while real runs went on: where the device is
// threads, that is part of every time that is measured, and no property of a kernel or a message. Knows no program and no device.
import * as fs from "node:fs"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { counted, formatShare } from "../core/units.ts"

/** Seconds of threads, added up: on a core, and ready to run without one. */
export interface CoreTime {
  readonly ranSeconds: number
  readonly waitedSeconds: number
}

/** By the number of each thread, since it began. */
export type ThreadTimes = ReadonlyMap<string, CoreTime>

/**
 * Of the threads of this process, as Linux counts them: on a core, then on a run queue, ns (Documentation/scheduler/sched-stats). Undefined where
 * the system does not say. `folder`: of one file or folder for each thread.
 */
export const threadTimes = (folder = "/proc/self/task"): ThreadTimes | undefined => {
  try {
    const times = new Map<string, CoreTime>()
    for (const thread of fs.readdirSync(folder)) {
      const found = timesIn(`${folder}/${thread}/schedstat`)
      if (found !== undefined) times.set(thread, found)
    }
    return times.size === 0 ? undefined : times
  } catch {
    return undefined
  }
}

/** Undefined of a thread that has ended meanwhile. */
const timesIn = (file: string): CoreTime | undefined => {
  try {
    const [ran, waited] = fs.readFileSync(file, "utf8").split(" ").map(Number)
    return ran! >= 0 && waited! >= 0 ? { ranSeconds: ran! / 1e9, waitedSeconds: waited! / 1e9 } : undefined
  } catch {
    return undefined
  }
}

const noTime: CoreTime = { ranSeconds: 0, waitedSeconds: 0 }

const plus = (one: CoreTime, other: CoreTime, sign = 1): CoreTime => ({
  ranSeconds: one.ranSeconds + sign * other.ranSeconds,
  waitedSeconds: one.waitedSeconds + sign * other.waitedSeconds
})

/** What threads did from one look to another; undefined where either saw nothing. */
export const between = (
  before: ThreadTimes | undefined,
  after: ThreadTimes | undefined
): CoreTime | undefined =>
  before === undefined || after === undefined
    ? undefined
    : [...after].reduce(
        (sum, [thread, now]) => plus(plus(sum, now), before.get(thread) ?? noTime, -1),
        noTime
      )

/** Undefined where some of them is not known. */
export const together = (all: ReadonlyArray<CoreTime | undefined>): CoreTime | undefined =>
  all.reduce((sum, one) => (sum === undefined || one === undefined ? undefined : plus(sum, one)), noTime)

/** Takes what each run came to; of a job's processes, at rank 0. */
type CoreWatch = (time: CoreTime | undefined) => void

/** Whom runs tell; nobody by default. */
export const CurrentCoreWatch = Context.Reference<CoreWatch | undefined>("tandem/exec/CurrentCoreWatch", {
  defaultValue: () => undefined
})

/** Times that were taken, "layers", and what threads did meanwhile; undefined where that is not known. */
export type Timed = readonly [what: string, cores: CoreTime | undefined]

/** Appends to `into` what threads did in all runs within the effect, if there are any. */
export const watchingCores = <A, E, R>(
  what: string,
  into: Array<Timed>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const all: Array<CoreTime | undefined> = []
    return effect.pipe(
      Effect.provideService(CurrentCoreWatch, (time) => void all.push(time)),
      Effect.tap(() =>
        Effect.sync(() => {
          if (all.length > 0) into.push([what, together(all)])
        })
      )
    )
  })

/**
 * A longer wait is told: foretold times are held to 5 % elsewhere (docs/validation.md), and what was measured with more of it in it cannot be
 * closer than that to what devices of their own would take.
 */
const untoldShare = 0.05

/** Where something was measured. */
interface Measured {
  readonly ranks: number
  /** Of this host. */
  readonly cores: number
  /** Each rank is a process, perhaps of another host. */
  readonly apart: boolean
}

/**
 * Of times that cannot be those of devices of their own, because threads shared cores. Where the system does not tell what threads waited,
 * more ranks than cores are told: each rank has a thread that computes.
 */
export const coreWarnings = (
  all: ReadonlyArray<Timed>,
  { ranks, cores, apart }: Measured
): ReadonlyArray<string> => {
  const where = `${counted(ranks, "rank")}, ${counted(cores, "core")}${apart ? " here" : ""}`
  const shares = all.flatMap(([what, time]) => {
    if (time === undefined) return []
    const share = time.waitedSeconds / (time.ranSeconds + time.waitedSeconds)
    return share > untoldShare ? [`${formatShare(share)} of the time while ${what} were timed`] : []
  })
  if (shares.length > 0)
    return [
      `threads that had work waited for a core ${shares.join(", ")} (${where}): that is part of what was measured, and would be of no device of its own`
    ]
  return all.some(([, time]) => time === undefined) && ranks > cores && !apart
    ? [
        `ranks shared cores (${where}): that is part of what was measured, and would be of no device of its own`
      ]
    : []
}

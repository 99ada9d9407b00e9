// How long threads of this process that had work waited for a core of the machine, while real runs went on: where the device is
// threads, that is part of what is measured, and no property of a kernel or a message. Knows no program and no device.
import * as fs from "node:fs"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { counted, formatShare } from "../core/units.ts"

/** Seconds of threads, added up: on a core, and ready to run without one. */
interface CoreTime {
  readonly ranSeconds: number
  readonly waitedSeconds: number
}

/**
 * Whose threads: the device's lanes and what carries messages to other processes, whose waiting is in the times of ops; the one that runs
 * programs, whose waiting is in what the host takes to submit and to read. What Node compiles and collects with waits as well, and nothing
 * waits for that.
 */
type Whose = "device" | "program"

export type CoreTimes = Readonly<Record<Whose, CoreTime>>

/** By the number of each thread, since it began. */
export type ThreadTimes = ReadonlyMap<string, CoreTime & { readonly whose: Whose }>

/** As they are called: "rank0 compute", "rank0 messages" (native/thread-name.h). */
const ofDevice = /^rank\d/u

/**
 * Of the threads of this process, as Linux counts them: on a core, then on a run queue, ns (Documentation/scheduler/sched-stats). Undefined where
 * the system does not say. `folder`: of one file or folder for each thread. `main`: the thread that runs programs.
 */
export const threadTimes = (
  folder = "/proc/self/task",
  main = String(process.pid)
): ThreadTimes | undefined => {
  try {
    const times = new Map<string, CoreTime & { readonly whose: Whose }>()
    for (const thread of fs.readdirSync(folder)) {
      const found = timesIn(`${folder}/${thread}`)
      if (found === undefined) continue
      const whose = thread === main ? "program" : ofDevice.test(found.name) ? "device" : undefined
      if (whose !== undefined) times.set(thread, { ...found.time, whose })
    }
    return times.size === 0 ? undefined : times
  } catch {
    return undefined
  }
}

/** Undefined of a thread that has ended meanwhile. */
const timesIn = (thread: string): { readonly name: string; readonly time: CoreTime } | undefined => {
  try {
    const [ran, waited] = fs.readFileSync(`${thread}/schedstat`, "utf8").split(" ").map(Number)
    const name = fs.readFileSync(`${thread}/comm`, "utf8").trim()
    return ran! >= 0 && waited! >= 0
      ? { name, time: { ranSeconds: ran! / 1e9, waitedSeconds: waited! / 1e9 } }
      : undefined
  } catch {
    return undefined
  }
}

const noTime: CoreTime = { ranSeconds: 0, waitedSeconds: 0 }
const noTimes: CoreTimes = { device: noTime, program: noTime }

const plus = (one: CoreTime, other: CoreTime, sign = 1): CoreTime => ({
  ranSeconds: one.ranSeconds + sign * other.ranSeconds,
  waitedSeconds: one.waitedSeconds + sign * other.waitedSeconds
})

/** What threads did from one look to another; undefined where either saw nothing. */
export const between = (
  before: ThreadTimes | undefined,
  after: ThreadTimes | undefined
): CoreTimes | undefined =>
  before === undefined || after === undefined
    ? undefined
    : [...after].reduce((sum, [thread, { whose, ...now }]) => {
        const meanwhile = plus(now, before.get(thread) ?? noTime, -1)
        return { ...sum, [whose]: plus(sum[whose], meanwhile) }
      }, noTimes)

/** Undefined where some of them is not known. */
export const together = (all: ReadonlyArray<CoreTimes | undefined>): CoreTimes | undefined =>
  all.reduce<CoreTimes | undefined>(
    (sum, one) =>
      sum === undefined || one === undefined
        ? undefined
        : { device: plus(sum.device, one.device), program: plus(sum.program, one.program) },
    noTimes
  )

/** Takes what was measured. */
interface CoreWatch {
  /** What each run came to; of a job's processes, at rank 0. */
  readonly ran: (times: CoreTimes | undefined) => void
  /** Of things that were timed several times each: seconds, those that stand for them and the least there were. */
  readonly timed: (seconds: number, leastSeconds: number) => void
}

/** Whom runs tell; nobody by default. */
export const CurrentCoreWatch = Context.Reference<CoreWatch | undefined>("tandem/exec/CurrentCoreWatch", {
  defaultValue: () => undefined
})

/** Tells who watches of medians or means, each with the least of what it is of. */
export const timedRepeatedly = (
  all: Iterable<readonly [seconds: number, leastSeconds: number]>
): Effect.Effect<void> =>
  Effect.map(CurrentCoreWatch, (watch) => {
    for (const [seconds, least] of all) watch?.timed(seconds, least)
  })

/** Tells who watches of a mean, by the parts that it is of: of one part nothing is known to be steady. */
export const timedInParts = (seconds: ReadonlyArray<number>): Effect.Effect<void> =>
  timedRepeatedly(
    seconds.length < 2
      ? []
      : [[seconds.reduce((sum, one) => sum + one, 0) / seconds.length, Math.min(...seconds)]]
  )

/** Times that were taken, "layers", and what threads did meanwhile. */
export interface Timed {
  readonly what: string
  /** Whose time it is. */
  readonly of: Whose
  /** Undefined where that is not known. */
  readonly cores: CoreTimes | undefined
  /** By what share medians or means are above the least of what they are of, all together; where that is known. */
  readonly aboveLeast?: number
}

/** Appends to `into` what threads did in all runs within the effect, if there are any. */
export const watchingCores = <A, E, R>(
  what: string,
  into: Array<Timed>,
  effect: Effect.Effect<A, E, R>,
  of: Whose = "device"
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const all: Array<CoreTimes | undefined> = []
    let [sum, leastSum] = [0, 0]
    const watch: CoreWatch = {
      ran: (times) => void all.push(times),
      timed: (seconds, least) => {
        sum += seconds
        leastSum += least
      }
    }
    return effect.pipe(
      Effect.provideService(CurrentCoreWatch, watch),
      Effect.tap(() =>
        Effect.sync(() => {
          if (all.length === 0) return
          const above = leastSum > 0 ? { aboveLeast: sum / leastSum - 1 } : {}
          into.push({ what, of, cores: together(all), ...above })
        })
      )
    )
  })

/**
 * A longer wait is told: predicted times are held to 5 % elsewhere (docs/validation.md), and what was measured with more of it in it cannot be
 * closer than that to what devices of their own would take.
 */
const untoldShare = 0.05

/**
 * Where medians or means are no further above the least that they are of, their number is steady, whoever waited: who waits for a core does so
 * now and then, and is longer for it. As with other repetitions (profile-warnings.ts), a tenth. More ranks than cores wait all the time.
 */
const untoldAboveLeast = 0.1

/** Where something was measured. */
interface Measured {
  readonly ranks: number
  /** Of this host. */
  readonly cores: number
  /** Each rank is a process, perhaps of another host. */
  readonly apart: boolean
}

const waitedShare = ({ of, cores }: Timed): number | undefined => {
  if (cores === undefined) return undefined
  const { ranSeconds, waitedSeconds } = cores[of]
  return waitedSeconds === 0 ? 0 : waitedSeconds / (ranSeconds + waitedSeconds)
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
  const shares = all.flatMap((one) => {
    const share = waitedShare(one) ?? 0
    const isSteady = ranks <= cores && (one.aboveLeast ?? Infinity) <= untoldAboveLeast
    return share > untoldShare && !isSteady
      ? [`${formatShare(share)} of the time while ${one.what} were timed`]
      : []
  })
  if (shares.length > 0)
    return [
      `threads that had work waited for a core ${shares.join(", ")} (${where}): that is part of what was measured, and would be of no device of its own`
    ]
  return all.some((one) => waitedShare(one) === undefined) && ranks > cores && !apart
    ? [
        `ranks shared cores (${where}): that is part of what was measured, and would be of no device of its own`
      ]
    : []
}

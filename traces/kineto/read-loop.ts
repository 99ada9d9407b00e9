// A loop that its host steers by reads, as decoding with routers is: where the host works, where it waits for the device, and how
// long the same steps take where the host's work takes another time. Knows nothing of what is computed.
import { median } from "../../core/median.ts"
import type { DeviceWork } from "./device-work.ts"
import type { HostTree } from "./host-tree.ts"
import { stepAt } from "./steps.ts"
import { Host } from "./trace.ts"

export interface ReadLoop {
  /** Launches between two reads, copies to the device aside: the median of a step's layers. */
  readonly launchesPerRead: number
  /** Of a step as profiled, in which the host works, seconds. */
  readonly hostSeconds: number
  /** Whether copies to the device are waited for before anything more is launched; undefined where none is made. */
  readonly waitsForCopies: boolean | undefined
  /** Gaps of the host far longer than the others, each counted as one of those. */
  readonly oddGaps: number
  /** Of a step whose host takes `scale` times as long as profiled, seconds. */
  readonly stepSeconds: (scale: number) => number
}

/** A call of the device's runtime: it launches what it names, or waits. Times in microseconds. */
interface Call {
  readonly kind: "kernel" | "copy" | "read" | "wait"
  readonly start: number
  readonly end: number
  /** On the device: when it ended, and how much longer the device was busy for it. */
  readonly launched: ReadonlyArray<{ readonly end: number; readonly busy: number }>
}

/** A wait for the device, and what was launched before it. Times in microseconds; `at` and `begins` by the host's own work. */
interface Stretch {
  readonly launches: ReadonlyArray<{ readonly at: number; readonly busy: number }>
  /** Of them and of those of waits since the last read, those that are no copies to the device. */
  readonly own: number
  readonly begins: number
  /** How long after the device had ended the host went on. */
  readonly after: number
  readonly isRead: boolean
}

const graphLaunch = /GraphLaunch/u
const synchronising = /Synchronize$/u
const toHost = /memcpy (?:d(?:evice)?to ?h(?:ost)?|dtoh)/iu
const toDevice = /memcpy (?:h(?:ost)?to ?d(?:evice)?|htod)/iu

/** A gap so many times as long as the median is work that is done once: a library's plan for a new size, a compilation. Assumed. */
const oddGap = 100

/** Undefined where a step reads less than twice, launches from several threads as training does, or replays graphs. */
export const readLoop = (tree: HostTree, work: DeviceWork): ReadLoop | undefined => {
  const { steps } = work
  const calls = callsOf(tree, work)
  if (calls === undefined) return undefined
  const clock = hostClock(calls, steps[0]!.start, steps.at(-1)!.end)
  const stretches = stretchesOf(calls, clock.at)
  const counts = stretches.flatMap(({ isRead, own }) => (isRead ? [own] : [])).toSorted((a, b) => a - b)
  if (counts.length < 2 * steps.length) return undefined
  const copies = calls.filter(({ kind }) => kind === "copy").length
  const waited = calls.filter(({ kind }, i) => kind === "wait" && calls[i - 1]?.kind === "copy").length
  return {
    // What begins a step, and what ends it, launches less than a layer.
    launchesPerRead: median(counts.length > 2 * steps.length ? counts.slice(2 * steps.length) : counts),
    hostSeconds: (clock.whole * 1e-6) / steps.length,
    waitsForCopies: copies === 0 ? undefined : waited * 2 > copies,
    oddGaps: clock.odd,
    stepSeconds: (scale) => (replayed(stretches, clock.whole, scale) * 1e-6) / steps.length
  }
}

/** The calls of the thread that launches, in order; undefined where the trace is of another kind. */
const callsOf = (
  tree: HostTree,
  { steps, kernels, rows, compute }: DeviceWork
): ReadonlyArray<Call> | undefined => {
  const { host, device, names } = tree.trace
  const kinds = names.texts.map((name) =>
    toHost.test(name) ? "read" : toDevice.test(name) ? "copy" : "kernel"
  )
  const kindOf = (kernel: number) => kinds[device.name.values[kernel]!]!
  // Most traces are none of these, and large ones are told so at once.
  const copied = compute.reduce((sum, index) => sum + (kindOf(kernels[index]!) === "read" ? 1 : 0), 0)
  if (copied < 2 * steps.length) return undefined
  interface Launch {
    kind: "kernel" | "copy" | "read"
    readonly launched: Array<{ readonly end: number; readonly busy: number }>
  }
  const launches = new Map<number, Launch>()
  let until = -Infinity
  for (const index of compute) {
    const [row, kernel] = [rows[index]!, kernels[index]!]
    const [start, end] = [device.start.values[kernel]!, device.end.values[kernel]!]
    const busy = Math.max(0, end - Math.max(start, until))
    until = Math.max(until, end)
    if (row < 0) continue
    const found = launches.get(row) ?? { kind: kindOf(kernel), launched: [] }
    launches.set(row, found)
    found.kind = kindOf(kernel)
    found.launched.push({ end, busy })
  }
  const threads = new Set([...launches.keys()].map((row) => host.thread.values[row]))
  if (threads.size !== 1 || [...launches.keys()].some((row) => graphLaunch.test(tree.name(row))))
    return undefined
  const calls: Array<Call> = []
  for (const row of tree.order) {
    if (host.kind.values[row] !== Host.launch || !threads.has(host.thread.values[row]!)) continue
    const [start, end] = [tree.start(row), tree.end(row)]
    if (stepAt(steps, start) < 0) continue
    const launch = launches.get(row)
    if (launch !== undefined) calls.push({ ...launch, start, end })
    else if (synchronising.test(tree.name(row))) calls.push({ kind: "wait", start, end, launched: [] })
  }
  return calls
}

/** Whether a call belongs to the wait after it: a copy to memory that may be paged waits in its own call. */
const isReadBefore = (calls: ReadonlyArray<Call>, wait: number): boolean => calls[wait - 1]?.kind === "read"

/** How long the host had worked at each call, waits aside, and in all. */
const hostClock = (calls: ReadonlyArray<Call>, begun: number, ended: number) => {
  const gaps = calls.map(({ start, kind }, i) => {
    const before = calls[i - 1]
    if (before === undefined) return start - begun
    if (before.kind === "wait") return start - before.end
    return kind === "wait" && before.kind === "read" ? 0 : start - before.start
  })
  const typical = median(gaps.filter((gap) => gap > 0))
  let odd = 0
  let clock = 0
  const at = gaps.map((gap) => {
    const isOdd = gap > oddGap * typical
    if (isOdd) odd++
    return (clock += isOdd ? typical : Math.max(0, gap))
  })
  const last = calls.at(-1)
  return {
    at,
    odd,
    whole: clock + Math.max(0, ended - (last?.kind === "wait" ? last.end : (last?.start ?? begun)))
  }
}

const stretchesOf = (calls: ReadonlyArray<Call>, at: ReadonlyArray<number>): ReadonlyArray<Stretch> => {
  const stretches: Array<Stretch> = []
  let pending: Array<{ readonly at: number; readonly busy: number; readonly end: number }> = []
  let own = 0
  for (const [i, { kind, start, end, launched }] of calls.entries()) {
    for (const each of launched) pending.push({ ...each, at: at[i]! })
    if (kind === "kernel" || kind === "read") own++
    if (kind !== "wait") continue
    const isRead = isReadBefore(calls, i)
    // What it does not wait for, as a copy made ahead, is left to a wait that ends later.
    const launches = pending.filter((each) => each.end <= end)
    pending = pending.filter((each) => each.end > end)
    const waits = isRead ? calls[i - 1]!.start : start
    const drained = launches.reduce((latest, each) => Math.max(latest, each.end), waits)
    stretches.push({ launches, own, begins: at[i]!, after: end - drained, isRead })
    if (isRead) own = 0
  }
  return stretches
}

/**
 * Microseconds of all steps: the host works `scale` times as long between its waits, the device takes what it is given one after
 * another, and each wait ends as long after the device as it did.
 */
const replayed = (stretches: ReadonlyArray<Stretch>, whole: number, scale: number): number => {
  let now = 0
  let worked = 0
  let device = 0
  for (const { launches, begins, after } of stretches) {
    for (const { at, busy } of launches)
      device = Math.max(device, now + scale * Math.max(0, at - worked)) + busy
    now = Math.max(now + scale * (begins - worked), device) + after
    worked = begins
  }
  return now + scale * (whole - worked)
}

/** How many times as long as profiled the host takes where a step takes so long; undefined where the device alone takes longer. */
export const scaleOf = ({ stepSeconds }: ReadLoop, seconds: number): number | undefined => {
  if (stepSeconds(0) >= seconds) return undefined
  let [low, high] = [0, 1]
  if (stepSeconds(high) <= seconds) return high
  for (let i = 0; i < 50; i++) {
    const middle = (low + high) / 2
    if (stepSeconds(middle) < seconds) low = middle
    else high = middle
  }
  return high
}

// A loop that its host steers by reads, as decoding with routers is: where the host works, where it waits for the device, and how
// long the same steps take where the host's work takes another time. Knows nothing of what is computed.
import { median } from "../../core/median.ts"
import type { DeviceWork } from "./device-work.ts"
import type { HostTree } from "./host-tree.ts"
import { stepAt } from "./steps.ts"
import { Host } from "./trace.ts"

export interface ReadLoop {
  /** Launches between two reads, copies to the device aside: their median. */
  readonly launchesPerRead: number
  /** Of a step as profiled, in which the host works, seconds. */
  readonly hostSeconds: number
  /** Whether copies to the device are waited for before anything more is launched; undefined where none is made. */
  readonly waitsForCopies: boolean | undefined
  /** Of a step whose host takes `scale` times as long as profiled, seconds. */
  readonly stepSeconds: (scale: number) => number
}

/** A wait for the device, and what was launched since the one before it. Times in microseconds. */
interface Stretch {
  readonly launches: Array<{ readonly at: number; readonly busy: number; readonly end: number }>
  /** Launches that are no copies to the device. */
  own: number
  readonly begins: number
  readonly ends: number
  readonly isRead: boolean
}

const graphLaunch = /GraphLaunch/u
const synchronising = /Synchronize$/u
const toHost = /memcpy (?:d(?:evice)?to ?h(?:ost)?|dtoh)/iu
const toDevice = /memcpy (?:h(?:ost)?to ?d(?:evice)?|htod)/iu

/** Undefined where a step reads less than twice, launches from several threads as training does, or replays graphs. */
export const readLoop = (tree: HostTree, work: DeviceWork): ReadLoop | undefined => {
  const { trace } = tree
  const { host, device, names } = trace
  const { steps, kernels, rows, compute } = work
  const is = (pattern: RegExp) => {
    const matching = names.texts.map((name) => pattern.test(name))
    return (kernel: number): boolean => matching[device.name.values[kernel]!] === true
  }
  const [isToHost, isToDevice] = [is(toHost), is(toDevice)]
  // Most traces are none of these, and large ones are told so at once.
  const copied = compute.reduce((sum, index) => sum + (isToHost(kernels[index]!) ? 1 : 0), 0)
  if (copied < 2 * steps.length) return undefined
  const launched = new Map<number, Array<{ readonly kernel: number; readonly busy: number }>>()
  let until = -Infinity
  for (const index of compute) {
    const [row, kernel] = [rows[index]!, kernels[index]!]
    const [start, end] = [device.start.values[kernel]!, device.end.values[kernel]!]
    const busy = Math.max(0, end - Math.max(start, until))
    until = Math.max(until, end)
    if (row < 0) continue
    const found = launched.get(row)
    if (found === undefined) launched.set(row, [{ kernel, busy }])
    else found.push({ kernel, busy })
  }
  if ([...launched.keys()].some((row) => graphLaunch.test(tree.name(row)))) return undefined
  const threads = new Set([...launched.keys()].map((row) => host.thread.values[row]))
  if (threads.size !== 1) return undefined
  const [thread] = threads

  const stretches: Array<Stretch> = []
  let pending: Stretch["launches"] = []
  let own = 0
  let last: "read" | "copy" | "kernel" | "none" = "none"
  let copies = 0
  let waited = 0
  let reads = 0
  for (const row of tree.order) {
    if (host.kind.values[row] !== Host.launch || host.thread.values[row] !== thread) continue
    const at = tree.start(row)
    if (stepAt(steps, at) < 0) continue
    const found = launched.get(row)
    if (found !== undefined) {
      const { kernel } = found.at(-1)!
      last = isToHost(kernel) ? "read" : isToDevice(kernel) ? "copy" : "kernel"
      if (last === "copy") copies++
      else own++
      for (const each of found) pending.push({ at, busy: each.busy, end: device.end.values[each.kernel]! })
    } else if (synchronising.test(tree.name(row))) {
      if (last === "copy") waited++
      const isRead = last === "read"
      if (isRead) reads++
      stretches.push({ launches: pending, own, begins: at, ends: tree.end(row), isRead })
      if (isRead) own = 0
      pending = []
      last = "none"
    }
  }
  if (reads < 2 * steps.length) return undefined
  handOn(stretches)
  const begun = steps[0]!.start
  const ended = steps.at(-1)!.end
  const idle = stretches.reduce((sum, { begins, ends }) => sum + ends - begins, 0)
  return {
    launchesPerRead: median(stretches.filter(({ isRead }) => isRead).map((stretch) => stretch.own)),
    hostSeconds: ((ended - begun - idle) * 1e-6) / steps.length,
    waitsForCopies: copies === 0 ? undefined : waited * 2 > copies,
    stepSeconds: (scale) => (replayed(stretches, begun, ended, scale) * 1e-6) / steps.length
  }
}

/** What a wait does not wait for, as a copy made ahead, is left to the next that ends after it. */
const handOn = (stretches: ReadonlyArray<Stretch>): void => {
  for (const [i, { launches, ends }] of stretches.entries()) {
    const later = launches.filter(({ end }) => end > ends)
    if (later.length === 0) continue
    launches.splice(0, launches.length, ...launches.filter(({ end }) => end <= ends))
    stretches[i + 1]?.launches.unshift(...later)
  }
}

/**
 * Microseconds from the first step's begin to the last's end: the host works `scale` times as long between its waits, the device takes
 * what it is given one after another, and each wait ends as long after the device as it did.
 */
const replayed = (stretches: ReadonlyArray<Stretch>, begun: number, ended: number, scale: number): number => {
  let now = 0
  let at = begun
  let device = 0
  for (const { launches, begins, ends } of stretches) {
    let drained = begins
    for (const each of launches) {
      device = Math.max(device, now + scale * Math.max(0, each.at - at)) + each.busy
      drained = Math.max(drained, each.end)
    }
    now = Math.max(now + scale * Math.max(0, begins - at), device) + Math.max(0, ends - drained)
    at = ends
  }
  return now + scale * Math.max(0, ended - at)
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

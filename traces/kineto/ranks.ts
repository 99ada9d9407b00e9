// A trace of several processes as one trace for each: sequence numbers and correlation ids are unique within one only.
// Knows nothing of steps or layers.
import { counted } from "../../core/units.ts"
import { subset } from "./subset.ts"
import { Host, type KinetoTrace } from "./trace.ts"

/** Microseconds between a launch and its work, at most, for ids that several processes use. */
const longestQueue = 10e6
const clockSkew = 1000

/**
 * The traces of the processes that launch device work, in the order in which the file names them; the trace itself where
 * there is one. Device work that no process launched is left out of several.
 */
export const processTraces = (trace: KinetoTrace, warnings: Array<string>): ReadonlyArray<KinetoTrace> => {
  const { host, device, processOfThread } = trace
  const launching = new Set<number>()
  for (let row = 0; row < host.start.length; row++) {
    if (host.kind.values[row] === Host.launch && host.correlation.values[row]! >= 0)
      launching.add(processOfThread[host.thread.values[row]!]!)
  }
  if (launching.size < 2) return [trace]
  const launches = new Map<number, Map<number, number>>()
  for (let row = 0; row < host.start.length; row++) {
    if (host.kind.values[row] !== Host.launch || host.correlation.values[row]! < 0) continue
    const process = processOfThread[host.thread.values[row]!]!
    let own = launches.get(process)
    if (own === undefined) launches.set(process, (own = new Map()))
    own.set(host.correlation.values[row]!, host.start.values[row]!)
  }
  const groupOf = (row: number): string => `${device.process.values[row]!} ${device.device.values[row]!}`
  const couldLaunch = (process: number, row: number): boolean => {
    const at = launches.get(process)!.get(device.correlation.values[row]!)
    return (
      at !== undefined &&
      at <= device.start.values[row]! + clockSkew &&
      device.start.values[row]! - at < longestQueue
    )
  }
  const scores = new Map<string, Map<number, number>>()
  for (let row = 0; row < device.start.length; row++) {
    const group = groupOf(row)
    let own = scores.get(group)
    if (own === undefined) scores.set(group, (own = new Map()))
    for (const process of launches.keys()) {
      if (couldLaunch(process, row)) own.set(process, (own.get(process) ?? 0) + 1)
    }
  }
  // Ids collide, so several processes may seem to have launched a device's work: the one that launched most of it did,
  // and each process is taken for one device before it is for a second.
  const owner = new Map<string, number>()
  const pairs = [...scores].flatMap(([group, own]) =>
    [...own].map(([process, count]) => ({ group, process, count }))
  )
  pairs.sort((a, b) => b.count - a.count || prefixOf(trace, b) - prefixOf(trace, a))
  const taken = new Set<number>()
  for (const { group, process } of pairs) {
    if (owner.has(group) || taken.has(process)) continue
    owner.set(group, process)
    taken.add(process)
  }
  for (const { group, process } of pairs) if (!owner.has(group)) owner.set(group, process)
  const shared = scores.size < taken.size || scores.size === 1
  const used = new Map<number, Uint8Array>()
  let lost = 0
  for (let row = 0; row < device.start.length; row++) {
    const candidates = shared ? [...launches.keys()].filter((process) => couldLaunch(process, row)) : []
    const process = candidates.length === 1 ? candidates[0]! : owner.get(groupOf(row))
    if (process === undefined) {
      lost++
      continue
    }
    let marks = used.get(process)
    if (marks === undefined) used.set(process, (marks = new Uint8Array(device.start.length)))
    marks[row] = 1
  }
  if (used.size < 2) return [trace]
  if (lost > 0)
    warnings.push(
      `${counted(lost, "device event", "was launched by no process of the trace and was", "were launched by no process of the trace and were")} left out`
    )
  return [...launches.keys()]
    .filter((process) => used.has(process))
    .map((process) => {
      const marks = Uint8Array.from({ length: host.start.length }, (_, row) =>
        processOfThread[host.thread.values[row]!] === process ? 1 : 0
      )
      return { ...subset(trace, marks, used.get(process)!), warnings: [] }
    })
}

/** How alike the names of a device's and of a host's process are: merging tools put the rank before both. */
const prefixOf = (
  { processes }: KinetoTrace,
  { group, process }: { group: string; process: number }
): number => {
  const a = processes.texts[Number(group.split(" ")[0])] ?? ""
  const b = processes.texts[process] ?? ""
  let i = 0
  while (i < a.length && i < b.length && a[i] === b[i]) i++
  return i
}

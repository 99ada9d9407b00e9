// Traces of several ranks of one job as one profile: whose clock is off, who comes late, and how long collectives take
// once everybody has come. Knows nothing of files or events.
import type { CollectiveCost, LayerCost, PhaseCost } from "../../core/profile.ts"
import type { RankTimes } from "../import-report.ts"
import { TraceError } from "../trace-error.ts"
import type { Attribution } from "./attribute.ts"
import { type CollectiveCall } from "./collectives.ts"
import { median } from "../../core/median.ts"

export interface RankTrace {
  readonly file: string
  /** As the trace says it. */
  readonly rank: number | undefined
  readonly worldSize: number | undefined
  readonly deviceName: string | undefined
  /** What the trace's times count from, microseconds. */
  readonly base: number
  readonly found: Attribution
}

interface Job {
  readonly ranks: ReadonlyArray<RankTimes>
  /** Position of the rank whose compute is the median. */
  readonly typical: number
  readonly layers: ReadonlyArray<LayerCost>
  readonly collectives: ReadonlyArray<CollectiveCost>
  readonly warnings: ReadonlyArray<string>
}

/** Share above the median rank's compute that makes a straggler. */
const straggling = 0.05

/** One call of a collective as several ranks saw it: positions of ranks, and each one's call. */
type Met = ReadonlyArray<{ readonly position: number; readonly call: CollectiveCall }>

/** Throws `TraceError` where two traces are of one rank. */
export const jobOf = (traces: ReadonlyArray<RankTrace>): Job => {
  const warnings: Array<string> = []
  requireUnlike(traces)
  const numbers = rankNumbers(traces, warnings)
  const meetings = meetingsOf(traces)
  const offsets = traces.map((_, position) => offsetOf(traces, meetings, position))
  const late = lateness(traces, meetings, offsets)
  const ranks = traces.map(({ file, found }, position): RankTimes => ({
    rank: numbers[position]!,
    file,
    steps: found.steps,
    stepSeconds: found.stepSeconds,
    deviceBusySeconds: found.deviceBusySeconds,
    communication: found.communication,
    clockOffsetSeconds: offsets[position] === undefined ? undefined : offsets[position] * 1e-6,
    lateSeconds: late[position] === undefined ? undefined : (late[position] * 1e-6) / found.steps
  }))
  const byCompute = ranks
    .map((_, position) => position)
    .toSorted((a, b) => ranks[a]!.deviceBusySeconds - ranks[b]!.deviceBusySeconds || a - b)
  const typical = byCompute[(byCompute.length - 1) >> 1]!
  const usual = ranks[typical]!.deviceBusySeconds
  for (const { rank, deviceBusySeconds } of ranks) {
    if (deviceBusySeconds > usual * (1 + straggling)) {
      const percent = Math.round(100 * (deviceBusySeconds / usual - 1))
      warnings.push(`rank ${rank} computes ${percent} % longer than the median rank`)
    }
  }
  const alike = traces.every(({ found }) => sameLayers(found.layers, traces[typical]!.found.layers))
  if (!alike) {
    warnings.push(
      `the ranks' layers differ: the profile is that of rank ${numbers[typical]}, whose compute is the median`
    )
  }
  const collectives = costsOf(meetings)
  if (collectives.length > 0) {
    warnings.push("times of collectives are from when the last rank came to them until they ended")
  }
  return {
    ranks: ranks.toSorted((a, b) => a.rank - b.rank),
    typical,
    layers: alike ? meanLayers(traces.map(({ found }) => found.layers)) : traces[typical]!.found.layers,
    collectives,
    warnings
  }
}

/** Two devices never agree on every time: of files that do, and say no rank, one is a copy of the other. */
const requireUnlike = (traces: ReadonlyArray<RankTrace>): void => {
  const seen = new Map<string, string>()
  for (const { rank, file, base, found } of traces) {
    if (rank !== undefined) continue
    const { stepSeconds, deviceBusySeconds, layers, calls } = found
    const times = JSON.stringify([base, stepSeconds, deviceBusySeconds, layers, calls])
    const before = seen.get(times)
    if (before !== undefined && before !== file)
      throw new TraceError({
        file,
        field: "traceEvents",
        value: `the same, time by time, as in ${before}`,
        accepted: "each rank's trace once"
      })
    seen.set(times, file)
  }
}

const rankNumbers = (traces: ReadonlyArray<RankTrace>, warnings: Array<string>): ReadonlyArray<number> => {
  const said = traces.map(({ rank }) => rank)
  const distinct = new Set(said)
  // A file that holds several ranks says one number for all of them.
  const files = new Set(traces.map(({ file }) => file))
  if (files.size === traces.length && !said.includes(undefined) && distinct.size < traces.length) {
    const twice = traces.findIndex(({ rank }, position) => said.indexOf(rank) < position)
    throw new TraceError({
      file: traces[twice]!.file,
      field: "distributedInfo.rank",
      value: `${said[twice]}, as in ${traces[said.indexOf(said[twice])]!.file}`,
      accepted: "traces of different ranks of one job"
    })
  }
  const worlds = [...new Set(traces.flatMap(({ worldSize }) => worldSize ?? []))]
  if (worlds.length > 1) {
    const other = traces.find(({ worldSize }) => worldSize === worlds[1])!
    const first = traces.find(({ worldSize }) => worldSize === worlds[0])!
    throw new TraceError({
      file: other.file,
      field: "distributedInfo.world_size",
      value: `${worlds[1]}, and ${worlds[0]} in ${first.file}`,
      accepted: "traces of ranks of one job"
    })
  }
  const [world = 0] = worlds
  if (world > traces.length) warnings.push(`traces of ${traces.length} of the job's ${world} ranks`)
  return distinct.size === traces.length && !said.includes(undefined)
    ? (said as ReadonlyArray<number>)
    : traces.map((_, position) => position)
}

const meetingsOf = (traces: ReadonlyArray<RankTrace>): ReadonlyArray<Met> => {
  const byKey = new Map<string, Map<number, Array<CollectiveCall>>>()
  for (const [position, { found }] of traces.entries()) {
    for (const call of found.calls) {
      const key = `${call.group} ${call.op ?? call.name} ${call.ranks}`
      let line = byKey.get(key)
      if (line === undefined) byKey.set(key, (line = new Map()))
      const own = line.get(position)
      if (own === undefined) line.set(position, [call])
      else own.push(call)
    }
  }
  const meetings: Array<Met> = []
  for (const line of byKey.values()) {
    const [first = []] = line.values()
    // Members of a communicator call the same collectives in the same order; other numbers are of other windows.
    if (line.size < 2 || [...line.values()].some((own) => own.length !== first.length)) continue
    for (const turn of first.keys()) {
      const met = [...line].map(([position, own]) => ({ position, call: own[turn]! }))
      if (met.every(({ call }) => call.sizeBytes === met[0]!.call.sizeBytes)) meetings.push(met)
    }
  }
  return meetings
}

/** Microseconds that a rank's clock is ahead of the first's: a collective ends at one time for all. */
const offsetOf = (
  traces: ReadonlyArray<RankTrace>,
  meetings: ReadonlyArray<Met>,
  position: number
): number | undefined => {
  const apart: Array<number> = []
  for (const met of meetings) {
    const first = met.find((each) => each.position === 0)
    const own = met.find((each) => each.position === position)
    if (first === undefined || own === undefined) continue
    apart.push(traces[position]!.base - traces[0]!.base + (own.call.end - first.call.end))
  }
  return apart.length === 0 ? undefined : median(apart)
}

/** Microseconds that each rank came after the first to come, summed over all meetings. */
const lateness = (
  traces: ReadonlyArray<RankTrace>,
  meetings: ReadonlyArray<Met>,
  offsets: ReadonlyArray<number | undefined>
): ReadonlyArray<number | undefined> => {
  const late = traces.map((): number | undefined => undefined)
  for (const met of meetings) {
    const came = met.flatMap(({ position, call }) => {
      const offset = offsets[position]
      return offset === undefined
        ? []
        : [{ position, at: traces[position]!.base - traces[0]!.base + call.start - offset }]
    })
    const first = came.reduce((least, { at }) => Math.min(least, at), Infinity)
    for (const { position, at } of came) late[position] = (late[position] ?? 0) + at - first
  }
  return late
}

/** Who comes last does not wait: the shortest of the ranks' times is the collective's own. */
const costsOf = (meetings: ReadonlyArray<Met>): ReadonlyArray<CollectiveCost> => {
  const groups = new Map<
    string,
    { readonly cost: Omit<CollectiveCost, "medianSeconds">; readonly seconds: Array<number> }
  >()
  for (const met of meetings) {
    const { op, ranks, sizeBytes } = met[0]!.call
    if (op === undefined || sizeBytes === undefined) continue
    const cost = { op, ranks: ranks ?? met.length, sizeBytes, link: "as recorded" }
    const key = `${op} ${cost.ranks} ${sizeBytes}`
    let group = groups.get(key)
    if (group === undefined) groups.set(key, (group = { cost, seconds: [] }))
    group.seconds.push(
      met.reduce((least, { call }) => Math.min(least, call.end - call.start), Infinity) * 1e-6
    )
  }
  return [...groups.values()].map(({ cost, seconds }) => ({ ...cost, medianSeconds: median(seconds) }))
}

const sameLayers = (a: ReadonlyArray<LayerCost>, b: ReadonlyArray<LayerCost>): boolean =>
  a.length === b.length && a.every(({ name }, layer) => name === b[layer]!.name)

const meanLayers = (all: ReadonlyArray<ReadonlyArray<LayerCost>>): ReadonlyArray<LayerCost> => {
  const mean = (layer: number, phase: "forward" | "backward" | "optimizer"): PhaseCost => {
    let busySeconds = 0
    let spanSeconds = 0
    for (const layers of all) {
      busySeconds += layers[layer]![phase].busySeconds / all.length
      spanSeconds += layers[layer]![phase].spanSeconds / all.length
    }
    const { launches } = all[0]![layer]![phase]
    return {
      busySeconds,
      spanSeconds: Math.max(busySeconds, spanSeconds),
      ...(launches === undefined ? {} : { launches })
    }
  }
  return all[0]!.map(({ name }, layer) => ({
    name,
    forward: mean(layer, "forward"),
    backward: mean(layer, "backward"),
    optimizer: mean(layer, "optimizer")
  }))
}

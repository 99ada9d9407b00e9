// What people and benchmarks call the columns of a table of timings, and in which units they count. Knows names and cells, and nothing
// of what is made of them.
import * as Result from "effect/Result"
import { timedCollectives, type CollectiveCost } from "../core/profile.ts"
import { parseBytes, parseSeconds } from "../core/units.ts"

/** Names are compared without case and without what is no letter or digit. */
const plain = (name: string): string =>
  name
    .toLowerCase()
    .replaceAll(/[µμ]/gu, "u")
    .replaceAll(/[^\p{L}\p{N}]/gu, "")

const opNames = ["op", "operation", "collective", "collectivename", "collectiveop", "coll", "primitive"]
const rankNames = ["ranks", "nranks", "numranks", "worldsize", "gpus", "ngpus", "numgpus", "devices", "numdevices", "workers", "numworkers"] // prettier-ignore
const sizeNames = ["bytes", "size", "messagesize", "msgsize", "message", "numbytes", "payload", "datasize"]
const linkNames = ["link", "network", "interconnect", "fabric"]

const sizeUnits = { "": 1, b: 1, bytes: 1, kb: 1e3, kib: 2 ** 10, mb: 1e6, mib: 2 ** 20, gb: 1e9, gib: 2 ** 30 } as const // prettier-ignore
const timeUnits: Readonly<Record<string, (value: number) => number>> = {
  s: (value) => value,
  sec: (value) => value,
  seconds: (value) => value,
  ms: (value) => value / 1e3,
  milliseconds: (value) => value / 1e3,
  us: (value) => value / 1e6,
  usec: (value) => value / 1e6,
  microseconds: (value) => value / 1e6,
  ns: (value) => value / 1e9,
  nanoseconds: (value) => value / 1e9
}

const timed =
  /^(median|mean|avg|average|p50)?(?:time|latency|duration|elapsed|elapsedtime)?(s|sec|seconds|ms|milliseconds|us|usec|microseconds|ns|nanoseconds)?(median|mean|avg|average|p50)?$/u

interface TimeColumn {
  readonly name: string
  /** Of a cell's number; undefined where each cell must say its own unit. */
  readonly inSeconds: ((value: number) => number) | undefined
  readonly statistic: "median" | "mean" | undefined
}

export interface TimingColumns {
  readonly op: string | undefined
  readonly ranks: string | undefined
  readonly size: { readonly name: string; readonly bytes: number } | undefined
  readonly time: TimeColumn | undefined
  readonly link: string | undefined
  readonly attributes: string | undefined
  /** Columns of none of these. */
  readonly others: ReadonlyArray<string>
}

const timeOf = (name: string): TimeColumn | undefined => {
  const found = timed.exec(plain(name))
  const [, before, unit, after] = found ?? []
  const said = before ?? after
  // A unit or a statistic alone, and a name that says nothing, is no time.
  if (found === null || plain(name) === "" || plain(name) === unit) return undefined
  if (unit === undefined && plain(name) === said) return undefined
  const statistic = said === undefined ? undefined : said === "median" || said === "p50" ? "median" : "mean"
  return { name, inSeconds: unit === undefined ? undefined : timeUnits[unit]!, statistic }
}

/** Whether the columns are those of what `sim collective` writes: its answers are no measurements. */
export const isPredicted = (names: ReadonlyArray<string>): boolean =>
  names.includes("wireSeconds") && names.includes("latencySeconds")

/** Which column is which; of several for one thing the first that is called most plainly so. */
export const timingColumns = (names: ReadonlyArray<string>): TimingColumns => {
  const called = (known: ReadonlyArray<string>): string | undefined =>
    known.flatMap((each) => names.find((name) => plain(name) === each) ?? [])[0]
  const sizes = sizeNames.flatMap((each) =>
    Object.entries(sizeUnits).flatMap(([unit, bytes]) => {
      const name = names.find((one) => plain(one) === each + unit)
      return name === undefined ? [] : [{ name, bytes }]
    })
  )
  const times = names.flatMap((name) => timeOf(name) ?? [])
  const rank = ({ statistic, inSeconds }: TimeColumn): number =>
    (statistic === "median" ? 0 : statistic === "mean" ? 2 : 4) + (inSeconds === undefined ? 1 : 0)
  const columns = {
    op: called(opNames),
    ranks: called(rankNames),
    size: sizes[0],
    time: times.toSorted((a, b) => rank(a) - rank(b))[0],
    link: called(linkNames),
    attributes: names.find((name) => plain(name) === "attributes")
  }
  const { op, ranks, size, time, link, attributes } = columns
  const used = [op, ranks, size?.name, time?.name, link, attributes]
  return { ...columns, others: names.filter((name) => name !== "" && !used.includes(name)) }
}

const spellings: ReadonlyMap<string, CollectiveCost["op"]> = new Map([
  ...timedCollectives.map((op) => [plain(op), op] as const),
  ["allreducesum", "all_reduce"],
  ["a2a", "all_to_all"],
  ["alltoallv", "all_to_all"],
  ["bcast", "broadcast"],
  ["p2p", "send_recv"],
  ["sendreceive", "send_recv"]
])

/** A collective, however it is spelt: "AllReduce", "all-reduce", "all_reduce_perf". */
export const collectiveNamed = (name: string): CollectiveCost["op"] | undefined =>
  spellings.get(plain(name.replace(/_perf$/iu, "")))

/** Collectives that nothing here measures. */
export const isOtherCollective = (name: string): boolean =>
  ["reduce", "gather", "scatter", "barrier", "hypercube"].includes(plain(name.replace(/_perf$/iu, "")))

/** Bytes of a cell: a number in the column's unit, or with its own ("4KiB"). NaN for anything else. */
export const bytesOfCell = (cell: string, perUnit: number): number => {
  const parsed = parseBytes(cell)
  return Result.isFailure(parsed) ? Number.NaN : parsed.success * (/[a-z]$/iu.test(cell.trim()) ? 1 : perUnit)
}

/** Seconds of a cell: a number in the column's unit, or with its own ("42 us"). NaN for anything else. */
export const secondsOfCell = (cell: string, { inSeconds }: TimeColumn): number => {
  const hasUnit = /[a-zµμ]\s*$/iu.test(cell)
  if (!hasUnit && inSeconds === undefined) return Number.NaN
  const parsed = parseSeconds(cell)
  if (Result.isFailure(parsed)) return Number.NaN
  return hasUnit ? parsed.success : inSeconds!(parsed.success)
}

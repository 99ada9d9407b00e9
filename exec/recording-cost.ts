// What it costs to time ops: a GPU takes each op's time by events, which it records beside the ops, and a run that nobody times has
// none. Told by two runs of the same program, timed and plain, and taken off what was timed. Knows no device and no file.
import type { MeasuredHost } from "../core/cost/host.ts"
import { rowsByRank } from "../core/laws/execution.ts"
import { laneCount } from "../core/machine/lane.ts"
import { median } from "../core/median.ts"
import { opKey, recordedSeconds, rowSeconds, type RecordedRun, type Reckoning } from "./recorded.ts"
import type { Stretch } from "./stretches.ts"

/** Of an op's time so much is left at least, whatever recording it costs. */
const leastShare = 1 / 5

/** An op's seconds without those of recording it. */
export const lessRecording = (seconds: number, recordingSeconds: number): number =>
  Math.max(seconds * leastShare, seconds - recordingSeconds)

/** Two events cost less: what is more is other work of the machine. */
const mostSeconds = 2e-5

/** Steps that are too long by less are explained: two runs of one program differ by as much. */
const explained = 0.01

/** The host of a program that reads. */
type Launching = Pick<MeasuredHost, "launchSeconds" | "readSeconds">

/** A rank's calls, ready to be gone through again with other times. */
class Replay {
  /** Of each op: its lane, its time, and whether recording is part of it. */
  readonly #ops: Array<{ lane: number; seconds: number; timed: boolean; after: ReadonlyArray<number> }> = []
  /** Where stretches end: the ops before, and the one that is waited for; -1 for all. */
  readonly #waits: Array<{ ops: number; writer: number; reads: boolean }> = []

  constructor(run: RecordedRun, rank: number, of: Reckoning["of"]) {
    const usual = recordedSeconds(run, { of, statistic: median })
    const taken = rowSeconds(run, of)
    const rows = rowsByRank(run.timeline).get(rank) ?? []
    const log = run.opLogs.find((one) => one.rank === rank)?.entries ?? []
    const logged = new Map(log.map((entry) => [entry.op, entry]))
    const positions = new Map<number, number>()
    for (const entry of run.journals.find((one) => one.rank === rank)?.entries ?? []) {
      if (entry.kind === "op") {
        positions.set(entry.id, this.#ops.length)
        const own = logged.get(entry.id)
        const row = rows[entry.id] ?? -1
        const seconds =
          entry.op.group === undefined ? usual.get(opKey(entry.op)) : row < 0 ? undefined : taken[row]
        this.#ops.push({
          lane: own?.lane ?? entry.op.lane,
          seconds: seconds === undefined || Number.isNaN(seconds) ? 0 : seconds,
          timed: entry.op.group === undefined,
          after: (own?.after ?? []).flatMap((op) => positions.get(op) ?? [])
        })
      } else if (entry.kind === "read")
        this.#waits.push({
          ops: this.#ops.length,
          writer: positions.get(entry.writer) ?? -1,
          reads: true
        })
      else if (entry.kind === "drain") this.#waits.push({ ops: this.#ops.length, writer: -1, reads: false })
    }
  }

  /** Ops and seconds of each stretch, as a simulation has them; without a host where it launches in no time. */
  stretches(
    recordingSeconds: number,
    { launchSeconds = 0, readSeconds = 0 }: Launching
  ): ReadonlyArray<Pick<Stretch, "ops" | "seconds">> {
    const tails = new Float64Array(laneCount)
    const ends = new Float64Array(this.#ops.length)
    const found: Array<Pick<Stretch, "ops" | "seconds">> = []
    let [host, began, position] = [0, 0, 0]
    for (const { ops, writer, reads } of this.#waits) {
      const first = position
      for (; position < ops; position++) {
        const { lane, seconds, timed, after } = this.#ops[position]!
        host += launchSeconds
        let start = Math.max(host, tails[lane]!)
        for (const before of after) start = Math.max(start, ends[before]!)
        tails[lane] = ends[position] = start + (timed ? lessRecording(seconds, recordingSeconds) : seconds)
      }
      const ended = reads && writer >= 0 ? ends[writer]! : Math.max(...tails)
      host = Math.max(host, ended) + (reads ? readSeconds : 0)
      if (position > first) found.push({ ops: position - first, seconds: host - began })
      began = host
    }
    return found
  }
}

/** What two runs of a program say of each other. */
export interface Recording {
  /** Of each op of the timed run, seconds. */
  readonly recordingSeconds: number
  /** The host, such that steps take as long as they did plain; of a program that does not read, nothing. */
  readonly host: Launching
  /** Of the steps that come most often: median seconds timed and plain, and ops. */
  readonly timedSeconds: number
  readonly plainSeconds: number
  readonly ops: number
}

/** The largest number from 0 to `most` that `holds`, which does for all below one that does; 0 where none does. */
const largest = (most: number, holds: (value: number) => boolean): number => {
  if (holds(most)) return most
  let [low, high] = [0, most]
  for (let i = 0; i < 30; i++) {
    const middle = (low + high) / 2
    if (holds(middle)) low = middle
    else high = middle
  }
  return low
}

/** The least cost of an op, at most 20 us, with which what it is taken off takes no longer than `plainSeconds`; else 20 us. */
export const leastCost = (plainSeconds: number, secondsWith: (cost: number) => number): number =>
  mostSeconds - largest(mostSeconds, (spared) => secondsWith(mostSeconds - spared) <= plainSeconds)

/**
 * The cost of recording an op is the least with which a simulation of the run's own steps takes no longer than they did plain, and at
 * most what steps took longer when they were timed, over their ops, and 20 us. Where that is not enough, the host is what is too long: the cost
 * is then the least with which that holds of a host that takes no time, and launches and reads are shortened alike until it holds
 * with them. A read takes what remains of a plain step after that, if that is more. Launches take at most what submitting an op took plain. Looks at the steps of which most are alike, by their number of
 * ops, and goes by medians over them. `timed`, `plain`: stretches of `rank`. Undefined where the two runs have none in common.
 */
export const costOfRecording = (
  run: RecordedRun,
  of: Reckoning["of"],
  rank: number,
  timed: ReadonlyArray<Stretch>,
  plain: ReadonlyArray<Stretch>,
  host: Launching = {}
): Recording | undefined => {
  const replay = new Replay(run, rank, of)
  const foretold = replay.stretches(0, {})
  const alike = Map.groupBy(
    [...plain.keys()].filter((index) => {
      const { ops, slept } = plain[index]!
      return !slept && timed[index]?.ops === ops && foretold[index]?.ops === ops && !timed[index].slept
    }),
    (index) => plain[index]!.ops
  )
  const [steps] = [...alike].toSorted(([a, as], [b, bs]) => bs.length - as.length || b - a)
  if (steps === undefined) return undefined
  const [ops, indices] = steps
  const middle = (of: (index: number) => number): number => median(indices.map(of))
  const plainHost = middle((index) => plain[index]!.hostSeconds / ops)
  const { launchSeconds = plainHost, readSeconds } = host
  const measured: Launching =
    readSeconds === undefined ? {} : { launchSeconds: Math.min(launchSeconds, plainHost), readSeconds }
  const times = (share: number): Launching => ({
    launchSeconds: (measured.launchSeconds ?? 0) * share,
    readSeconds: (measured.readSeconds ?? 0) * share
  })
  const overPlain = (recordingSeconds: number, share: number): number => {
    const again = replay.stretches(recordingSeconds, times(share))
    return middle((index) => again[index]!.seconds / plain[index]!.seconds)
  }
  /** What remains of plain steps after the device and the host. */
  const remaining = (recordingSeconds: number, share: number): number => {
    const again = replay.stretches(recordingSeconds, times(share))
    return Math.max(
      0,
      middle((index) => plain[index]!.seconds - again[index]!.seconds)
    )
  }
  const fits = (recordingSeconds: number, share: number): boolean => overPlain(recordingSeconds, share) <= 1
  const longer = middle((index) => (timed[index]!.seconds - plain[index]!.seconds) / ops)
  const most = Math.min(Math.max(0, longer), mostSeconds)
  const leastWith = (share: number): number => most - largest(most, (spared) => fits(most - spared, share))
  // Where no cost explains what steps are too long by, ops are not what they wait for.
  const recordingSeconds = leastWith(overPlain(most, 1) <= 1 + explained ? 1 : 0)
  const hostOf = (): Launching => {
    if (readSeconds === undefined) return {}
    const share = largest(1, (one) => fits(recordingSeconds, one))
    const { launchSeconds, readSeconds: shortened = 0 } = times(share)
    return {
      ...(launchSeconds === undefined ? {} : { launchSeconds }),
      readSeconds: shortened + (share < 1 ? 0 : remaining(recordingSeconds, share))
    }
  }
  return {
    recordingSeconds,
    host: hostOf(),
    timedSeconds: middle((index) => timed[index]!.seconds),
    plainSeconds: middle((index) => plain[index]!.seconds),
    ops
  }
}

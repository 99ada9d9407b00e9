// A rank's recorded calls, gone through again with other times of its ops and its host, as a simulation would. Knows no device.
import type { MeasuredHost } from "../core/cost/host.ts"
import { rowsByRank } from "../core/laws/execution.ts"
import { laneCount } from "../core/machine/lane.ts"
import { median } from "../core/median.ts"
import { opKey, recordedSeconds, rowSeconds, type RecordedRun, type Reckoning } from "./recorded.ts"
import type { Stretch } from "./stretches.ts"

/**
 * Of an op's time so much is left at least, whatever recording it costs: a choice and not a measurement. Recording overlaps short ops in
 * part, so that all of its cost taken off would leave them nothing, or less; a fifth keeps them in order of length, and of a step
 * of short ops it may leave too much. How many ops it is all that is left of is told (`flooredShare`).
 */
export const leastShare = 1 / 5

/** An op's seconds without those of recording it. */
export const lessRecording = (seconds: number, recordingSeconds: number): number =>
  Math.max(seconds * leastShare, seconds - recordingSeconds)

/** The host of a program that reads. */
export type Launching = Pick<MeasuredHost, "launchSeconds" | "readSeconds">

/** Ops and seconds, and which others have the same ops. */
interface ReplayedStretch extends Pick<Stretch, "ops" | "seconds"> {
  readonly kind: number
}

interface ReplayedOp {
  readonly lane: number
  readonly seconds: number
  /** Recording is part of it. */
  readonly timed: boolean
  readonly after: ReadonlyArray<number>
  /** By its `opKey`. */
  readonly key: number
}

/** Numbers for strings, from 0 in the order of their coming. */
class Numbering {
  readonly #numbers = new Map<string, number>()

  of(name: string): number {
    let number = this.#numbers.get(name)
    if (number === undefined) this.#numbers.set(name, (number = this.#numbers.size))
    return number
  }

  get names(): ReadonlyArray<string> {
    return [...this.#numbers.keys()]
  }
}

export class Replay {
  readonly #ops: Array<ReplayedOp> = []
  /** Where stretches end: the ops before, and the one that is waited for; -1 for all. Kind: -1 where none ends. */
  readonly #waits: Array<{ ops: number; writer: number; reads: boolean; kind: number }> = []
  readonly #keys = new Numbering()
  /** Of each kind of stretch, the keys of the timed ops that no other kind has. */
  readonly #own: ReadonlyArray<ReadonlySet<number>>

  constructor(run: RecordedRun, rank: number, of: Reckoning["of"]) {
    const usual = recordedSeconds(run, { of, statistic: median })
    const taken = rowSeconds(run, of)
    const rows = rowsByRank(run.timeline).get(rank) ?? []
    const log = run.opLogs.find((one) => one.rank === rank)?.entries ?? []
    const logged = new Map(log.map((entry) => [entry.op, entry]))
    const positions = new Map<number, number>()
    const kinds = new Numbering()
    const kindsOf = new Map<number, Set<number>>()
    let first = 0
    const wait = (writer: number, reads: boolean): void => {
      const ops = this.#ops.length
      const keys = this.#ops.slice(first, ops).map(({ key }) => key)
      const kind = keys.length === 0 ? -1 : kinds.of(keys.join(" "))
      for (const key of keys) {
        const known = kindsOf.get(key)
        if (known === undefined) kindsOf.set(key, new Set([kind]))
        else known.add(kind)
      }
      this.#waits.push({ ops, writer, reads, kind })
      first = ops
    }
    for (const entry of run.journals.find((one) => one.rank === rank)?.entries ?? []) {
      if (entry.kind === "op") {
        positions.set(entry.id, this.#ops.length)
        const own = logged.get(entry.id)
        const row = rows[entry.id] ?? -1
        const key = opKey(entry.op)
        const seconds = entry.op.group === undefined ? usual.get(key) : row < 0 ? undefined : taken[row]
        this.#ops.push({
          lane: own?.lane ?? entry.op.lane,
          seconds: seconds === undefined || Number.isNaN(seconds) ? 0 : seconds,
          timed: entry.op.group === undefined,
          after: (own?.after ?? []).flatMap((op) => positions.get(op) ?? []),
          key: this.#keys.of(key)
        })
      } else if (entry.kind === "read") wait(positions.get(entry.writer) ?? -1, true)
      else if (entry.kind === "drain") wait(-1, false)
    }
    const timed = new Set(this.#ops.filter((op) => op.timed).map(({ key }) => key))
    const own = kinds.names.map(() => new Set<number>())
    for (const [key, [kind, ...others]] of kindsOf)
      if (others.length === 0 && timed.has(key)) own[kind!]!.add(key)
    this.#own = own
  }

  /** Keys of the ops that stretches of this kind have and no others. */
  ownKeys(kind: number): ReadonlyArray<string> {
    const { names } = this.#keys
    return [...(this.#own[kind] ?? [])].map((key) => names[key]!)
  }

  /** Seconds of these ops in one such stretch. */
  ownSeconds(kind: number, recordingSeconds: number): number {
    const own = this.#own[kind]
    const end = this.#waits.findIndex((wait) => wait.kind === kind)
    if (own === undefined || end < 0) return 0
    return this.#ops
      .slice(this.#waits[end - 1]?.ops ?? 0, this.#waits[end]!.ops)
      .filter(({ key }) => own.has(key))
      .reduce((sum, { seconds }) => sum + lessRecording(seconds, recordingSeconds), 0)
  }

  /**
   * As a simulation has them; without a host where it launches in no time. `factors`: of kinds of stretches, how many times as long
   * the ops take that only these have.
   */
  stretches(
    recordingSeconds: number,
    { launchSeconds = 0, readSeconds = 0 }: Launching,
    factors: ReadonlyMap<number, number> = new Map()
  ): ReadonlyArray<ReplayedStretch> {
    const factorOf = new Map<number, number>()
    for (const [kind, factor] of factors) for (const key of this.#own[kind] ?? []) factorOf.set(key, factor)
    const tails = new Float64Array(laneCount)
    const ends = new Float64Array(this.#ops.length)
    const found: Array<ReplayedStretch> = []
    let [host, began, position] = [0, 0, 0]
    for (const { ops, writer, reads, kind } of this.#waits) {
      const first = position
      for (; position < ops; position++) {
        const { lane, seconds, timed, after, key } = this.#ops[position]!
        host += launchSeconds
        let start = Math.max(host, tails[lane]!)
        for (const before of after) start = Math.max(start, ends[before]!)
        const takes = timed ? lessRecording(seconds, recordingSeconds) * (factorOf.get(key) ?? 1) : seconds
        tails[lane] = ends[position] = start + takes
      }
      const ended = reads && writer >= 0 ? ends[writer]! : Math.max(...tails)
      host = Math.max(host, ended) + (reads ? readSeconds : 0)
      if (position > first) found.push({ ops: position - first, seconds: host - began, kind })
      began = host
    }
    return found
  }

  /** Of the ops that were timed, the share that `lessRecording` leaves no more than `leastShare` of. */
  flooredShare(recordingSeconds: number): number {
    const timed = this.#ops.filter((op) => op.timed && op.seconds > 0)
    const floored = timed.filter(({ seconds }) => seconds - recordingSeconds < seconds * leastShare)
    return timed.length === 0 ? 0 : floored.length / timed.length
  }
}

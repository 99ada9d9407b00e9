// What it costs to time ops: a GPU takes each op's time by events, which it records beside the ops, and a run that nobody times has
// none. Told by two runs of the same program, timed and plain, and taken off what was timed; and what steps of each kind take plain, told
// by the same two runs, is what their own ops come to. Knows no device and no file.
import { median } from "../core/median.ts"
import type { Op } from "../core/machine/op.ts"
import { opKey, type RecordedRun, type Reckoning } from "./recorded.ts"
import { lessRecording, Replay, type Launching } from "./replayed-run.ts"
import type { Stretch } from "./stretches.ts"

/**
 * Most that recording one op may cost, a choice and not a measurement: two events of a stream cost a GPU some microseconds, and 20 us
 * are several times that. What a timed step takes beyond it is other work of the machine, which no op is to be shortened by. Where it
 * is reached the two runs say more than a cost can explain, and whoever profiles is told.
 */
export const mostRecordingSeconds = 2e-5

/** Steps that are too long by less are explained: two runs of one program differ by as much. */
const explained = 0.01

/** Stretches of the same ops, of which there were several in both runs. */
interface StretchKind {
  readonly ops: number
  readonly count: number
  /** Medians. */
  readonly timedSeconds: number
  readonly plainSeconds: number
  /** Of the plain run's, those in which the program did not wait. */
  readonly hostSeconds: number
  /** As replayed of ops less their recording and of the host, the same for all kinds. */
  readonly replayedSeconds: number
  /** Of the ops that no other kind has, less their recording, in one stretch. */
  readonly ownSeconds: number
  /** How many times as long these take plain: 1 where nothing says that they take another time. */
  readonly factor: number
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
  /** Of these steps plain, the median seconds in which the program did not wait: it submitted. */
  readonly submittingSeconds: number
  /** Steps took longer timed by more than `mostRecordingSeconds` an op explain. */
  readonly mostReached: boolean
  /** Of the ops that were timed, the share of which no more than `leastShare` of their time is left. */
  readonly flooredShare: number
  /** Of as many ops. */
  readonly kinds: ReadonlyArray<StretchKind>
  /** An op's seconds when nobody times it, of those that it took timed. */
  readonly takes: (op: Op, seconds: number) => number
}

/** The median of fewer stretches of a kind says little of it. */
const leastStretches = 8

/** What ops take plain differs by no more from what they took timed, less the recording. */
const mostFactor = 2

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
  mostRecordingSeconds -
  largest(mostRecordingSeconds, (spared) => secondsWith(mostRecordingSeconds - spared) <= plainSeconds)

/** Between 1 / `mostFactor` and that, halved so often. */
const halvings = 24

/**
 * Of each kind of stretch, how many times as long the ops take that only it has for a replay to take as long as its stretches did plain: those
 * that all kinds have, and the host, are told by all of them. Left out where no factor does that, or where the device is not what a stretch
 * waits for: then it is not these ops that differ.
 */
const ownFactors = (
  replayed: (factors: ReadonlyMap<number, number>) => (kind: number) => number,
  kinds: ReadonlyMap<number, { readonly plainSeconds: number; readonly ownSeconds: number }>
): ReadonlyMap<number, number> => {
  const bounds = new Map([...kinds.keys()].map((kind) => [kind, { low: 1 / mostFactor, high: mostFactor }]))
  const middle = (): ReadonlyMap<number, number> =>
    new Map([...bounds].map(([kind, { low, high }]) => [kind, (low + high) / 2]))
  for (let i = 0; i < halvings; i++) {
    const factors = middle()
    const seconds = replayed(factors)
    for (const [kind, bound] of bounds) {
      if (seconds(kind) <= kinds.get(kind)!.plainSeconds) bound.low = factors.get(kind)!
      else bound.high = factors.get(kind)!
    }
  }
  const factors = middle()
  const seconds = replayed(factors)
  const longer = replayed(new Map([...factors].map(([kind, factor]) => [kind, factor * (1 + explained)])))
  return new Map(
    [...factors].filter(([kind, factor]) => {
      const { plainSeconds, ownSeconds } = kinds.get(kind)!
      const added = longer(kind) - seconds(kind)
      return (
        Math.abs(seconds(kind) / plainSeconds - 1) <= explained / 10 &&
        added >= (ownSeconds * factor * explained) / 2
      )
    })
  )
}

/**
 * The cost of recording an op is the least with which a simulation of the run's own steps takes no longer than they did plain, and at
 * most what steps took longer when they were timed, over their ops, and 20 us. Where that is not enough, the host is what is too long: the cost
 * is then the least with which that holds of a host that takes no time, and launches and reads are shortened alike until it holds
 * with them. A read takes what remains of a plain step after that, if that is more. Launches take at most what submitting an op took plain.
 * Looks at the steps of which most are alike, by their number of ops, and goes by medians over them. Where these are of several kinds, as
 * decoding steps of caches of several lengths are, and the program reads, what is then left of each kind is its own ops'.
 * `timed`, `plain`: stretches of `rank`. Undefined where the two runs have none in common.
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
  const predicted = replay.stretches(0, {})
  const alike = Map.groupBy(
    [...plain.keys()].filter((index) => {
      const { ops, slept } = plain[index]!
      return !slept && timed[index]?.ops === ops && predicted[index]?.ops === ops && !timed[index].slept
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
  const most = Math.min(Math.max(0, longer), mostRecordingSeconds)
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
  const found = hostOf()
  const kinds = new Map(
    [...Map.groupBy(indices, (index) => predicted[index]!.kind)].filter(
      ([, { length }]) => length >= leastStretches
    )
  )
  const replayed = (factors: ReadonlyMap<number, number>) => {
    const again = replay.stretches(recordingSeconds, found, factors)
    return (kind: number): number => median(kinds.get(kind)!.map((index) => again[index]!.seconds))
  }
  const known = new Map(
    [...kinds].map(([kind, own]) => [
      kind,
      {
        plainSeconds: median(own.map((index) => plain[index]!.seconds)),
        ownSeconds: replay.ownSeconds(kind, recordingSeconds)
      }
    ])
  )
  const factors =
    readSeconds === undefined || kinds.size < 2 ? new Map<number, number>() : ownFactors(replayed, known)
  const factorOf = new Map(
    [...factors].flatMap(([kind, factor]) => replay.ownKeys(kind).map((key) => [key, factor] as const))
  )
  const before = replayed(new Map())
  return {
    recordingSeconds,
    mostReached: recordingSeconds > 0.999 * mostRecordingSeconds,
    flooredShare: replay.flooredShare(recordingSeconds),
    host: found,
    timedSeconds: middle((index) => timed[index]!.seconds),
    plainSeconds: middle((index) => plain[index]!.seconds),
    ops,
    submittingSeconds: middle((index) => plain[index]!.hostSeconds),
    kinds: [...kinds].map(([kind, own]) => ({
      ops,
      count: own.length,
      timedSeconds: median(own.map((index) => timed[index]!.seconds)),
      hostSeconds: median(own.map((index) => plain[index]!.hostSeconds)),
      replayedSeconds: before(kind),
      ...known.get(kind)!,
      factor: factors.get(kind) ?? 1
    })),
    takes: (op, seconds) => lessRecording(seconds, recordingSeconds) * (factorOf.get(opKey(op)) ?? 1)
  }
}

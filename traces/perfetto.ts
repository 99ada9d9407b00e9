// A timeline as Chrome trace events, which Perfetto (https://ui.perfetto.dev) opens: a process for each rank, a thread
// for each lane, an arrow wherever an op of another lane or rank let one start. Knows nothing of files: it yields text.
import { Lane, laneCount, laneNames } from "../core/machine/lane.ts"
import type { Timeline } from "../core/machine/timeline.ts"

/** Text is yielded in pieces of about this many characters. */
const PIECE_CHARACTERS = 1 << 16

const categories: Readonly<Record<Lane, string>> = {
  [Lane.compute]: "compute",
  [Lane.inter]: "communication",
  [Lane.intra]: "communication",
  [Lane.h2d]: "copy",
  [Lane.d2h]: "copy"
}

/**
 * The trace as JSON text, in pieces: however long the timeline, only one piece is in memory. Write them one after the
 * other. Times are whole nanoseconds, printed in microseconds as the format wants; start and end are rounded each by
 * itself, so ops that follow each other without a gap still do.
 *
 * Rows that never started or ended (NaN) are left out. `nameOf` names a rank's process; `about` is told beside the events
 * (`otherData`), where it has anything.
 */
export function* chromeTrace(
  timeline: Timeline,
  nameOf: (rank: number) => string = (rank) => `rank ${rank}`,
  about: Readonly<Record<string, string>> = {}
): Generator<string, void, void> {
  const { rank, op, lane, step, label, kernel, startSeconds, endSeconds, sizeBytes, cause } = timeline
  const labels = timeline.labels.map((text) => JSON.stringify(text))
  const kernels = timeline.kernels.map((text) => JSON.stringify(text))
  const rows = rank.length

  const beside = Object.keys(about).length === 0 ? "" : `"otherData":${JSON.stringify(about)},`
  let piece = `{"displayTimeUnit":"ns",${beside}"traceEvents":[\n`
  let separator = ""
  for (const line of trackNames(timeline, nameOf)) {
    piece += separator + line
    separator = ",\n"
  }

  for (let row = 0; row < rows; row++) {
    const start = nanoseconds(startSeconds[row]!)
    const end = nanoseconds(endSeconds[row]!)
    if (Number.isNaN(start) || Number.isNaN(end)) continue
    const track = trackOf(rank[row]!, lane[row]!)
    piece +=
      `${separator}{"ph":"X","name":${labels[label[row]!]!},"cat":"${categories[lane[row] as Lane]}",` +
      `${track},"ts":${microseconds(start)},"dur":${microseconds(end - start)},"args":{"op":${op[row]!},` +
      `"step":${step[row]!},"bytes":${sizeBytes[row]!},"kernel":${kernels[kernel[row]!]!}}}`
    separator = ",\n"

    const from = cause[row]!
    if (from >= 0 && (rank[from] !== rank[row] || lane[from] !== lane[row])) {
      const causeStart = nanoseconds(startSeconds[from]!)
      const causeEnd = nanoseconds(endSeconds[from]!)
      if (!Number.isNaN(causeStart) && causeEnd <= start) {
        // An arrow is tied to the slice open at its time, so it leaves a nanosecond before the cause closes.
        const leaves = Math.max(causeStart, causeEnd - 1)
        const arrow = `"name":"lets start","cat":"cause","id":${row + 1}`
        piece +=
          `,\n{"ph":"s",${arrow},${trackOf(rank[from]!, lane[from]!)},"ts":${microseconds(leaves)}}` +
          `,\n{"ph":"f","bp":"e",${arrow},${track},"ts":${microseconds(start)}}`
      }
    }
    if (piece.length >= PIECE_CHARACTERS) {
      yield piece
      piece = ""
    }
  }
  yield `${piece}\n]}\n`
}

/** Names and order of the tracks in use. */
const trackNames = (timeline: Timeline, nameOf: (rank: number) => string): ReadonlyArray<string> => {
  const used = new Set<number>()
  for (let row = 0; row < timeline.rank.length; row++) {
    used.add(timeline.rank[row]! * laneCount + timeline.lane[row]!)
  }
  const lines: Array<string> = []
  let named = -1
  for (const track of [...used].toSorted((a, b) => a - b)) {
    const rank = Math.floor(track / laneCount)
    const lane = track % laneCount
    const ids = trackOf(rank, lane)
    if (rank !== named) {
      named = rank
      lines.push(
        `{"ph":"M","name":"process_name",${ids},"args":{"name":${JSON.stringify(nameOf(rank))}}}`,
        `{"ph":"M","name":"process_sort_index",${ids},"args":{"sort_index":${rank}}}`
      )
    }
    lines.push(
      `{"ph":"M","name":"thread_name",${ids},"args":{"name":"${laneNames[lane]}"}}`,
      `{"ph":"M","name":"thread_sort_index",${ids},"args":{"sort_index":${lane}}}`
    )
  }
  return lines
}

/**
 * Process and thread of a rank's lane. Perfetto names threads by thread number alone, and treats number 0, and a thread
 * with its process's number, specially: so thread numbers are unique over all ranks and none of these.
 */
const trackOf = (rank: number, lane: number): string => `"pid":${rank + 1},"tid":${(rank + 1) * 10 + lane}`

const nanoseconds = (seconds: number): number => Math.round(seconds * 1e9)

/** Whole nanoseconds in microseconds, exactly. */
const microseconds = (wholeNanoseconds: number): string => {
  const whole = Math.floor(wholeNanoseconds / 1000)
  const rest = wholeNanoseconds - whole * 1000
  return rest === 0 ? String(whole) : `${whole}.${String(rest).padStart(3, "0")}`
}

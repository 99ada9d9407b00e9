// The text of nccl-tests, whatever stands before its lines: launchers put ranks, pods, tags and times there, copying loses
// the `#`, and logs of other programs run between. Knows lines, not what collectives cost.
import { textLines } from "./text.ts"
import { TraceError } from "./trace-error.ts"

export interface NcclRow {
  /** "line 12". */
  readonly place: string
  readonly sizeBytes: number
  readonly type: string
  /** "" where the layout has none, or leaves it blank. */
  readonly redop: string
  /** As printed; "" likewise. */
  readonly root: string
  /** Bus bandwidth over algorithm bandwidth of the first column of times; undefined where they are not printed. */
  readonly busShare: number | undefined
  /** Microseconds as printed; undefined where that column is missing. */
  readonly outOfPlace: string | undefined
  readonly inPlace: string | undefined
  /** Elements that were wrong, of both columns; 0 where that was not checked. */
  readonly wrong: number
}

/** One program's output. */
export interface NcclRun {
  /** Undefined where the text names none, or several may be meant: `named`. */
  readonly test: string | undefined
  /** Tests that the text names since the run before it, each once. */
  readonly named: ReadonlyArray<string>
  readonly ranks: ReadonlySet<number>
  readonly device: string | undefined
  readonly header: ReadonlyArray<string> | undefined
  readonly hasInPlace: boolean
  readonly rows: ReadonlyArray<NcclRow>
  /** What the program says at its end where results were wrong. */
  readonly failed: string | undefined
}

interface Open {
  test: string | undefined
  named: ReadonlyArray<string>
  isNamed: boolean
  ranks: Set<number>
  device: string | undefined
  header: ReadonlyArray<string> | undefined
  hasInPlace: boolean
  rows: Array<NcclRow>
  failed: string | undefined
}

// Packages call the build with MPI all_reduce_perf_mpi.
const testName = /\b([a-z]+(?:_[a-z]+)*)_perf(?:_[a-z]+)?\b/u
// On a command line: with a path before it, or options after it.
const command = /(?:\/|\b)([a-z]+(?:_[a-z]+)*)_perf(?:_[a-z]+)?\b(?=\s+-|(?<=\/[a-z_]+))/u
const concluded = /\bCollective test concluded\b/u
const starting = /\bCollective test starting\b/u
const starts = /\bCollective test starting\b|\bnThreads?:? \d+ nGpus:? \d+/u
const rankLine = /\bRank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\b/u
// A PCI bus id: [0x8f], [0000:8f:00], [8f:00.0]. Labels of launchers may look alike, and stand before it.
const deviceName = /\bdevice\s+\d+\s+\[(?:0x)?[0-9a-fA-F]+(?::[0-9a-fA-F]+(?:\.\d+)?)*\]\s+(.*\S)/u
const headerLine = /\bsize\s+count\s+type\b.*\btime\b.*$/u
const types =
  "u?int(?:8|32|64)|u?char|half|float(?:16|32|64)?|double|bfloat16|bf16|fp16|fp32|f8e[45]m[23]|fp8_e[45]m[23]|float8_e[45]m[23]"
// A row of numbers may follow anything but another number or letter.
const dataLine = new RegExp(`(?:^|[^\\w.])(\\d+\\s+\\d+\\s+(?:${types})(?:\\s.*)?)$`, "u")
// A row is printed in parts, its times when they are there: messages of NCCL come between, and leave them a line of their own.
const measure = "(?:-?\\d[\\d.]*(?:e[+-]?\\d+)?|N/A)"
const timesLine = new RegExp(`(?:^|[\\s:>|])(${measure}(?:\\s+${measure})+)\\s*$`, "iu")
/** A message of NCCL, which may begin right behind a number, with the launcher's label before it. */
const message = /(?:\[[^\]\s]*\]\s*)?[^\s\]]+:\d+:\d+ \[\d+\] NCCL .*$/u
const isMeasure = new RegExp(`^${measure}$`, "iu")
const failed = /Out of bounds values\s*:\s*\d+\s+FAILED|\bTest (?:CUDA|NCCL) failure.*|\bTest failure .*/u

const opened = (): Open => ({
  test: undefined,
  named: [],
  isNamed: false,
  ranks: new Set(),
  device: undefined,
  header: undefined,
  hasInPlace: false,
  rows: [],
  failed: undefined
})

/** The runs in a text, in order. Throws `TraceError` on a row that is not as its header says, with its line. */
export const runsOfText = (file: string, text: string, warnings: Array<string>): ReadonlyArray<NcclRun> => {
  const runs: Array<Open> = [opened()]
  const lines = textLines(text)
  const lastLine = lines.findLastIndex((line) => line.trim() !== "")
  /** A row whose times are still to come. */
  let begun: Begun | undefined
  // Of what comes next: the program that a command line names, and one that is only spoken of.
  let commands = new Set<string>()
  let spoken: string | undefined
  for (const [index, line] of lines.entries()) {
    let run = runs.at(-1)!
    const place = `line ${index + 1}`
    const rank = rankLine.exec(line)
    // After rows, whatever begins a program's output begins another's; so does a beginning after one that failed before its rows.
    const isStart = starts.test(line)
    if (
      (run.rows.length > 0 && (isStart || rank !== null || headerLine.test(line))) ||
      (isStart && run.failed !== undefined)
    ) {
      const { ranks, device, test, named } = run
      if (run.rows.length === 0)
        warnings.push(`a test that ends before its first row (${run.test ?? "unnamed"}) was left out`)
      runs.push((run = opened()))
      // A header alone is printed again within one program, for another type or reduction.
      if (!isStart && rank === null) Object.assign(run, { ranks, device, test, named })
    }
    const data = dataLine.exec(line)
    const header = headerLine.exec(line)
    if (rank !== null) {
      const number = Number(rank[1])
      if (run.ranks.has(number)) {
        // Built without MPI but started by mpirun: every process measures itself alone.
        const accepted = "one list of ranks (nccl-tests built without MPI=1 run as separate programs)"
        throw new TraceError({ file, field: place, value: `rank ${number} a second time`, accepted })
      }
      run.ranks.add(number)
      run.device ??= deviceName.exec(line)?.[1]
    } else if (header !== null) run.header = header[0].trim().split(/\s+/u)
    else if (data !== null && run.header !== undefined) {
      if (begun !== undefined) throw notAsHeader(file, begun)
      const cells = data[1]!.trim().split(/\s+/u)
      const row = rowOf(place, cells, run.header)
      if (row !== undefined) run.rows.push(row)
      else if (index === lastLine && !/[\r\n]$/u.test(text))
        warnings.push(`${place} is cut short and was left out: ${data[1]!.trim()}`)
      else begun = { place, header: run.header, cells, measures: firstTimes(cells, run.header) }
    } else if (begun !== undefined) {
      const times = timesLine.exec(line.replace(message, ""))?.[1]?.split(/\s+/u) ?? []
      if (areTimes(times)) begun.measures.push(...times)
      const row = rowOf(begun.place, [...labelled(begun), ...begun.measures], begun.header)
      if (row !== undefined) {
        run.rows.push(row)
        begun = undefined
      }
    }
    if (/\bin-place\b/u.test(line)) run.hasInPlace = true
    run.failed ??= failed.exec(line)?.[0]
    const named = testName.exec(line)?.[1]
    if (named !== undefined) {
      if (starting.test(line)) run.test = named
      else if (concluded.test(line)) run.test ??= named
      else if (command.test(line)) commands.add(command.exec(line)![1]!)
      else spoken ??= named
    }
    // A run takes its name with its first row: what is named after that is of the next.
    if (run.rows.length > 0 && !run.isNamed) {
      run.isNamed = true
      if (run.test === undefined && run.named.length === 0) {
        run.named = [...commands]
        run.test = commands.size > 1 ? undefined : (run.named[0] ?? spoken)
      }
      commands = new Set()
      spoken = undefined
    }
  }
  if (begun !== undefined) throw notAsHeader(file, begun)
  const whole = runs.filter(({ rows, header }) => rows.length > 0 || header !== undefined)
  // A test whose name was only on the command line before it, or said once for several headers.
  const filled = whole.filter(({ rows }) => rows.length > 0)
  return filled.length > 0 ? filled : whole.length > 0 ? whole.slice(0, 1) : runs.slice(0, 1)
}

interface Begun {
  readonly place: string
  readonly header: ReadonlyArray<string>
  readonly cells: ReadonlyArray<string>
  readonly measures: Array<string>
}

const notAsHeader = (file: string, { place, header, cells }: Begun): TraceError => {
  const accepted = `${header.length} columns, as in the header`
  return new TraceError({ file, field: place, value: JSON.stringify(cells.join(" ")), accepted })
}

/** A time with its two bandwidths, which have decimals, and what else follows: of one column or both. */
const areTimes = (cells: ReadonlyArray<string>): boolean =>
  cells.length > 2 &&
  cells.every((cell, i) => isMeasure.test(cell) && (i === 0 || i > 2 || /^\d+\.\d+$/u.test(cell)))

/** The times of a row broken off between its two columns. */
const firstTimes = (cells: ReadonlyArray<string>, header: ReadonlyArray<string>): Array<string> => {
  const last = cells.slice(-(header.length - header.indexOf("time")) / 2)
  return cells.length > last.length + 2 && areTimes(last) ? last : []
}

/** What a row broken off says before its times: a message may begin right behind it, without a space. */
const labelled = ({ cells, header }: Begun): ReadonlyArray<string> => {
  const labels = header.slice(3, header.indexOf("time"))
  const [redop, root] = [labels.includes("redop"), labels.includes("root")]
  const rest = cells.slice(3).join(" ")
  const found = /^([a-z]+(?=\s|$))?\s*(-?\d+)?/u.exec(rest)!
  return [
    ...cells.slice(0, 3),
    ...(redop && found[1] ? [found[1]] : []),
    ...(root && found[2] ? [found[2]] : [])
  ]
}

/**
 * A row as its header says; undefined where it has other columns. The reduction may be blank, as old all-to-all tests leave it;
 * where one is named, a cell less is one of the last, cut off.
 */
const rowOf = (
  place: string,
  cells: ReadonlyArray<string>,
  header: ReadonlyArray<string>
): NcclRow | undefined => {
  const blank = header.length - cells.length
  const from = header.indexOf("time") - blank
  const labels = cells.slice(3, from)
  const mayBeBlank =
    blank === 1 && header.includes("redop") && cells.slice(3).every((cell) => isMeasure.test(cell))
  if (from < 3 || (blank !== 0 && !mayBeBlank)) return undefined
  const columns = (name: RegExp) =>
    header.flatMap((word, column) => (name.test(word) ? [cells[column - blank]] : []))
  const [outOfPlace, inPlace] = columns(/^time$/u)
  const label = (name: string, pattern: RegExp) =>
    header.includes(name) ? (labels.find((cell) => pattern.test(cell)) ?? "") : ""
  const busShare = Number(columns(/^busbw$/u)[0]) / Number(columns(/^algbw$/u)[0])
  return {
    place,
    sizeBytes: Number(cells[0]),
    type: cells[2]!,
    redop: label("redop", /^[a-z]/iu),
    root: label("root", /^-?\d+$/u),
    busShare: Number.isFinite(busShare) ? busShare : undefined,
    outOfPlace,
    inPlace,
    wrong: columns(/^#?wrong$/u).reduce((most, cell) => {
      const count = Number(cell)
      return count > most ? count : most
    }, 0)
  }
}

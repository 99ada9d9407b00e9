// The text of nccl-tests, whatever stands before its lines: launchers put ranks, pods, tags and times there, copying loses
// the `#`, and logs of other programs run between. Knows lines, not what collectives cost.
import { TraceError } from "./trace-error.ts"

export interface NcclRow {
  /** "line 12". */
  readonly place: string
  readonly sizeBytes: number
  readonly type: string
  /** "" where the layout has none. */
  readonly redop: string
  /** Microseconds as printed; undefined where that column is missing. */
  readonly outOfPlace: string | undefined
  readonly inPlace: string | undefined
  /** Elements that were wrong, of both columns; 0 where that was not checked. */
  readonly wrong: number
}

/** One program's output. */
export interface NcclRun {
  readonly test: string | undefined
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
  ranks: Set<number>
  device: string | undefined
  header: ReadonlyArray<string> | undefined
  hasInPlace: boolean
  rows: Array<NcclRow>
  failed: string | undefined
}

const testName = /\b([a-z]+(?:_[a-z]+)*)_perf\b/u
const starts = /\bCollective test starting\b|\bnThreads?:? \d+ nGpus:? \d+/u
const rankLine = /\bRank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\b/u
// A PCI bus id: [0x8f], [0000:8f:00], [8f:00.0].
const deviceName = /\[(?:0x)?[0-9a-fA-F]+(?::[0-9a-fA-F]+(?:\.\d+)?)*\]\s+(.*\S)/u
const headerLine = /\bsize\s+count\s+type\b.*\btime\b.*$/u
const types =
  "u?int(?:8|32|64)|u?char|half|float(?:16|32|64)?|double|bfloat16|bf16|fp16|fp32|f8e[45]m[23]|fp8_e[45]m[23]|float8_e[45]m[23]"
// A row of numbers may follow anything but another number or letter.
const dataLine = new RegExp(`(?:^|[^\\w.])(\\d+\\s+\\d+\\s+(?:${types})(?:\\s.*)?)$`, "u")
const failed = /Out of bounds values\s*:\s*\d+\s+FAILED|\bTest (?:CUDA|NCCL) failure.*|\bTest failure .*/u

const opened = (): Open => ({
  test: undefined,
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
  const lines = text.replace(/^\uFEFF/u, "").split(/\r?\n/u)
  const lastLine = lines.findLastIndex((line) => line.trim() !== "")
  for (const [index, line] of lines.entries()) {
    let run = runs.at(-1)!
    const place = `line ${index + 1}`
    const rank = rankLine.exec(line)
    // After rows, whatever begins a program's output begins another's.
    if (run.rows.length > 0 && (starts.test(line) || rank !== null || headerLine.test(line))) {
      const { ranks, device, test } = run
      runs.push((run = opened()))
      // A header alone is printed again within one program, for another type or reduction.
      if (!starts.test(line) && rank === null) Object.assign(run, { ranks, device, test })
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
      const cells = data[1]!.trim().split(/\s+/u)
      if (cells.length < run.header.length && index === lastLine && !text.endsWith("\n")) {
        warnings.push(`${place} is cut short and was left out: ${data[1]!.trim()}`)
      } else run.rows.push(rowOf(file, place, cells, run.header))
    }
    if (/\bin-place\b/u.test(line)) run.hasInPlace = true
    run.failed ??= failed.exec(line)?.[0]
    const named = testName.exec(line)?.[1]
    if (named !== undefined && run.rows.length === 0) run.test ??= named
  }
  const whole = runs.filter(({ rows, header }) => rows.length > 0 || header !== undefined)
  // A test whose name was only on the command line before it, or said once for several headers.
  const filled = whole.filter(({ rows }) => rows.length > 0)
  return filled.length > 0 ? filled : whole.length > 0 ? whole.slice(0, 1) : runs.slice(0, 1)
}

const rowOf = (
  file: string,
  place: string,
  cells: ReadonlyArray<string>,
  header: ReadonlyArray<string>
): NcclRow => {
  if (cells.length !== header.length) {
    const accepted = `${header.length} columns, as in the header`
    throw new TraceError({ file, field: place, value: JSON.stringify(cells.join(" ")), accepted })
  }
  const columns = (name: RegExp) => header.flatMap((word, column) => (name.test(word) ? [column] : []))
  const [out, inside] = columns(/^time$/u)
  const redop = header.indexOf("redop")
  return {
    place,
    sizeBytes: Number(cells[0]),
    type: cells[2]!,
    redop: redop < 0 ? "" : cells[redop]!,
    outOfPlace: out === undefined ? undefined : cells[out],
    inPlace: inside === undefined ? undefined : cells[inside],
    wrong: columns(/^#?wrong$/u).reduce((most, column) => {
      const count = Number(cells[column])
      return count > most ? count : most
    }, 0)
  }
}

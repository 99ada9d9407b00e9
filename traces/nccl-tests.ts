// The table that NVIDIA's nccl-tests print (all_reduce_perf, all_gather_perf, ...). Knows that text and nothing else.
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import type { CollectiveCost } from "../core/profile.ts"
import type { ImportReport } from "./import-report.ts"
import { tableProfile, type TableOptions } from "./table-profile.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

export interface NcclTestsOptions extends TableOptions {
  /** Which test it was, where the text does not say ("all_reduce_perf" or "all_reduce"). */
  readonly op?: string
  /** Number of ranks, where the text lists no devices. */
  readonly ranks?: number
  /** Take the in-place times; default: out-of-place. */
  readonly inPlace?: boolean
  /** How the links were limited; default "unshaped". */
  readonly link?: string
}

const tests: ReadonlyMap<string, CollectiveCost["op"]> = new Map([
  ["all_reduce", "all_reduce"],
  ["all_gather", "all_gather"],
  ["reduce_scatter", "reduce_scatter"],
  ["alltoall", "all_to_all"],
  ["all_to_all", "all_to_all"],
  ["broadcast", "broadcast"],
  ["sendrecv", "send_recv"],
  ["send_recv", "send_recv"]
])

const acceptedTests =
  "all_reduce_perf, all_gather_perf, reduce_scatter_perf, alltoall_perf, broadcast_perf or sendrecv_perf"
const anyTest = /\b([a-z]+(?:_[a-z]+)*)_perf\b/u
const rankLine = /^#\s+Rank\s+(\d+)\b/u
const deviceName = /\[0x[0-9a-fA-F]+\]\s+(.*\S)/u
const dataLine = /^\s*\d/u
const inPlaceWords = "in-place"

/**
 * Imports the text a nccl-tests program prints. Sizes become those of `CollectiveCost`: nccl-tests print the whole
 * buffer, so one rank's input of an all-gather and output of a reduce-scatter is that divided by the ranks. Times are
 * the program's means. Errors: `TraceError` with line and column.
 */
export const importNcclTests = (
  text: string,
  options: NcclTestsOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "nccl-tests"
  return attempt(file, "the output of a nccl-tests program", () => {
    const ranksSeen = new Set<number>()
    let named = options.op
    let device = options.device
    let header: ReadonlyArray<string> | undefined
    let hasInPlace = false
    const rows: Array<{ readonly line: number; readonly cells: ReadonlyArray<string> }> = []
    for (const [index, raw] of text
      .replace(/^\uFEFF/u, "")
      .split(/\r?\n/u)
      .entries()) {
      // Under mpirun lines may carry a prefix such as "[1,0]<stdout>:".
      const line = raw.replace(/^\[\d+,\d+\](?:<\w+>)?:\s?/u, "")
      if (line.trimStart().startsWith("#")) {
        const rank = rankLine.exec(line.trimStart())
        if (rank !== null) {
          const number = Number(rank[1])
          if (ranksSeen.has(number)) {
            // Built without MPI but started by mpirun: every process measures itself alone.
            const field = `line ${index + 1}`
            const accepted = "one list of ranks (nccl-tests built without MPI=1 run as separate programs)"
            throw new TraceError({ file, field, value: `rank ${number} a second time`, accepted })
          }
          ranksSeen.add(number)
          device ??= deviceName.exec(line)?.[1]
        }
        named ??= anyTest.exec(line)?.[1]
        if (line.includes(inPlaceWords)) hasInPlace = true
        const words = line.replace("#", "").trim().split(/\s+/u)
        if (words[0] === "size" && words.includes("time")) header = words
      } else if (dataLine.test(line)) {
        rows.push({ line: index + 1, cells: line.trim().split(/\s+/u) })
      } else named ??= anyTest.exec(line)?.[1]
    }
    const bad = (field: string, value: unknown, accepted: string) =>
      new TraceError({ file, field, value: showValue(value), accepted })
    if (header === undefined)
      throw bad("header", undefined, "a line `# size count type ... time algbw busbw`")
    if (rows.length === 0) throw bad("rows", undefined, "at least one line of sizes and times")
    if (named === undefined)
      throw bad("op", undefined, `the test's name in the text, or the option op: ${acceptedTests}`)
    const op = tests.get(named.replace(/_perf$/u, ""))
    if (op === undefined) throw bad("op", named, acceptedTests)
    const ranks = options.ranks ?? ranksSeen.size
    if (!Number.isInteger(ranks) || ranks < 1) {
      throw bad(
        "ranks",
        ranks === 0 ? "not in the text" : ranks,
        "lines `#  Rank 0 ...`, or the option ranks of at least 1"
      )
    }
    if (options.ranks === undefined && Math.max(...ranksSeen) !== ranks - 1) {
      const accepted = "every rank from 0, or the option ranks"
      throw bad("ranks", `${ranks} listed, up to rank ${Math.max(...ranksSeen)}`, accepted)
    }
    const times = header.flatMap((word, column) => (word === "time" ? [column] : []))
    const wanted = options.inPlace === true ? times[1] : times[0]
    if (wanted === undefined || (options.inPlace === true && !hasInPlace)) {
      throw bad("header", header.join(" "), "a second time column, in-place")
    }
    const divisor = op === "all_gather" || op === "reduce_scatter" ? ranks : 1
    const number = (row: (typeof rows)[number], column: number, name: string, accepted: string): number => {
      const cell = row.cells[column]
      const value = cell !== undefined && /^\d+\.?\d*(?:e[+-]?\d+)?$/iu.test(cell) ? Number(cell) : Number.NaN
      if (!Number.isFinite(value)) throw bad(`line ${row.line}, column ${name}`, cell, accepted)
      return value
    }
    const collectives = rows.map((row): CollectiveCost => {
      if (row.cells.length !== header.length) {
        throw bad(`line ${row.line}`, row.cells.join(" "), `${header.length} columns, as in the header`)
      }
      const size = number(row, 0, "size", "a whole number of bytes")
      const time = number(row, wanted, "time", "microseconds")
      return {
        op,
        ranks,
        sizeBytes: size / divisor,
        medianSeconds: time * 1e-6,
        link: options.link ?? "unshaped"
      }
    })
    const profile = tableProfile(
      "nccl-tests",
      { ...options, ...(device === undefined ? {} : { device }) },
      { collectives }
    )
    const warnings = ["nccl-tests print means; they are used where medians are expected"]
    return { profile, unattributed: [], warnings }
  })
}

/** As `importNcclTests`, from a file. */
export const importNcclTestsFile = (
  path: string,
  options: NcclTestsOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a nccl-tests output", () => readFile(path, "utf8")),
    (text) => importNcclTests(text, { file: path, ...options })
  )

// What NVIDIA's nccl-tests print (all_reduce_perf, all_gather_perf, ...), as text or as their JSON report. Knows those two
// and nothing else.
import * as Effect from "effect/Effect"
import { counted } from "../core/units.ts"
import type { CollectiveCost } from "../core/profile.ts"
import type { ImportReport } from "./import-report.ts"
import { isNcclJson, runOfJson } from "./nccl-tests-json.ts"
import { runsOfText, type NcclRow, type NcclRun } from "./nccl-tests-text.ts"
import { loggedText, readText } from "./text.ts"
import { mergedRows, tableProfile, type TableOptions } from "./table-profile.ts"
import { collectiveNamed } from "./timing-columns.ts"
import { attempt, attemptAsync, showValue, TraceError } from "./trace-error.ts"

/** What the output of nccl-tests does not say. */
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

const acceptedTests =
  "all_reduce_perf, all_gather_perf, reduce_scatter_perf, alltoall_perf, broadcast_perf or sendrecv_perf"

/**
 * Imports the output of nccl-tests: any number of tests in one file, whatever launchers put before a line. Sizes become
 * those of `CollectiveCost`: nccl-tests print the whole buffer, so one rank's input of an all-gather and output of a
 * reduce-scatter is that divided by the ranks. Times are the program's means. Of rows that differ only in reduction or
 * type one is taken, and said. Errors: `TraceError` with line and column.
 */
export const importNcclTests = (
  given: string,
  options: NcclTestsOptions = {}
): Effect.Effect<ImportReport, TraceError> => {
  const file = options.file ?? "nccl-tests"
  return attempt(file, "the output of a nccl-tests program", () => {
    const text = loggedText(given)
    const warnings = ["nccl-tests print means; they are used where medians are expected"]
    const bad = (field: string, value: unknown, accepted: string) =>
      new TraceError({ file, field, value: showValue(value), accepted })
    const runs = isNcclJson(text) ? [runOfJson(file, text)] : runsOfText(file, text, warnings)
    const collectives: Array<CollectiveCost> = []
    const unknown: Array<string> = []
    const devices = new Set<string>()
    const vain = new Set<string>()
    for (const run of runs) {
      if (run.header === undefined)
        throw bad("header", undefined, "a line `# size count type ... time algbw busbw`")
      if (run.rows.length === 0) throw bad("rows", undefined, "at least one line of sizes and times")
      const named = run.test ?? options.op ?? impliedTest(run, options, warnings)
      if (named === undefined) {
        const value = run.named.length > 0 ? run.named.map((test) => `${test}_perf`).join(" or ") : undefined
        throw bad("op", value, `the test's name in the text, or the option op: ${acceptedTests}`)
      }
      const op = collectiveNamed(named)
      if (run.test !== undefined && options.op !== undefined && op !== collectiveNamed(options.op))
        vain.add(`--op ${options.op} has no effect on ${named}_perf: the text names that test`)
      if (op === undefined) {
        unknown.push(named)
        continue
      }
      if (run.device !== undefined) devices.add(run.device)
      collectives.push(...costsOf(file, run, op, ranksOf(file, run, options), options, warnings))
    }
    warnings.push(...vain)
    if (collectives.length === 0) throw bad("op", unknown[0], acceptedTests)
    if (devices.size > 1)
      warnings.push(`the tests were run on different devices, taken together: ${[...devices].join(", ")}`)
    const device = options.device ?? [...devices][0]
    if (unknown.length > 0)
      warnings.push(`${[...new Set(unknown)].join(", ")}: not a test that is used, left out`)
    const profile = tableProfile(
      "nccl-tests",
      { ...options, ...(device === undefined ? {} : { device }) },
      { collectives: mergedRows(collectives, warnings) }
    )
    return { profile, unattributed: [], warnings }
  })
}

const ranksOf = (file: string, run: NcclRun, options: NcclTestsOptions): number => {
  const ranks = options.ranks ?? run.ranks.size
  if (!Number.isInteger(ranks) || ranks < 1) {
    throw new TraceError({
      file,
      field: "ranks",
      value: ranks === 0 ? "not in the text" : String(ranks),
      accepted: "lines `#  Rank 0 ...`, or the option ranks of at least 1"
    })
  }
  const last = Math.max(...run.ranks)
  if (options.ranks === undefined && last !== ranks - 1) {
    const value = `${ranks} listed, up to rank ${last}`
    throw new TraceError({ file, field: "ranks", value, accepted: "every rank from 0, or the option ranks" })
  }
  return ranks
}

/** How far a printed share of bandwidths may be from the one a test multiplies by: both have two decimals. */
const shareTolerance = 0.02

/**
 * Which test printed the rows of a text that does not say: each multiplies its bandwidth by a factor of its own
 * (nccl-tests, doc/PERFORMANCE.md) and fills other columns. Undefined where two tests look alike, as all-gather and
 * all-to-all do.
 */
const impliedTest = (
  { rows, header, ranks, named }: NcclRun,
  options: NcclTestsOptions,
  warnings: Array<string>
) => {
  const row = rows.at(-1)!
  const n = options.ranks ?? ranks.size
  const { redop, root, busShare } = row
  if (busShare === undefined || n < 2) return undefined
  const reduces = redop !== "" && redop !== "none"
  const is = (factor: number): boolean => Math.abs(busShare / factor - 1) < shareTolerance
  const rooted = Number(root) >= 0 && root !== ""
  const ofAll = is((n - 1) / n)
  let test: string | undefined
  if (reduces && rooted) test = is(1) ? "reduce" : undefined
  // Of two ranks an all-reduce has the factor of a send, which may name a reduction too.
  else if (reduces)
    test = ofAll ? "reduce_scatter" : n > 2 && is((2 * (n - 1)) / n) ? "all_reduce" : undefined
  else if (rooted) test = is(1) ? "broadcast" : undefined
  // Only old versions leave out, or leave blank, the columns that tell these two apart.
  else if (!header!.includes("root") && ofAll) test = header!.includes("redop") ? "alltoall" : "all_gather"
  if (test !== undefined && named.length > 0 && !named.includes(test)) return undefined
  if (test !== undefined)
    warnings.push(
      `the text does not name its test: taken for ${test}_perf, by its columns and bandwidths (--op says otherwise)`
    )
  return test
}

const costsOf = (
  file: string,
  run: NcclRun,
  op: CollectiveCost["op"],
  ranks: number,
  options: NcclTestsOptions,
  warnings: Array<string>
): ReadonlyArray<CollectiveCost> => {
  const inPlace = options.inPlace === true
  if (inPlace && !run.hasInPlace) {
    throw new TraceError({
      file,
      field: "header",
      value: run.header!.join(" "),
      accepted: "a second time column, in-place"
    })
  }
  const wrong = run.rows.filter(({ wrong: count }) => count > 0)
  if (wrong.length > 0) {
    warnings.push(
      `${op}: ${counted(wrong.length, "row", "has", "have")} wrong results (#wrong up to ${Math.max(...wrong.map((row) => row.wrong))}): their times may be of a broken run`
    )
  }
  if (run.failed !== undefined && wrong.length === 0) warnings.push(`${op}: the test says ${run.failed}`)
  const sized = run.rows.filter(({ sizeBytes }) => sizeBytes > 0)
  if (sized.length < run.rows.length)
    warnings.push(
      `${op}: ${counted(run.rows.length - sized.length, "row", "of 0 bytes was", "of 0 bytes were")} left out`
    )
  const kept = oneKind(op, sized, warnings)
  const divisor = op === "all_gather" || op === "reduce_scatter" ? ranks : 1
  return kept.map((row): CollectiveCost => {
    const time = inPlace ? row.inPlace : row.outOfPlace
    const microseconds =
      time !== undefined && /^\d+\.?\d*(?:e[+-]?\d+)?$/iu.test(time) ? Number(time) : Number.NaN
    if (!Number.isFinite(microseconds)) {
      const field = `${row.place}, column time`
      throw new TraceError({ file, field, value: showValue(time), accepted: "microseconds" })
    }
    return {
      op,
      ranks,
      sizeBytes: row.sizeBytes / divisor,
      medianSeconds: microseconds * 1e-6,
      link: options.link ?? "unshaped"
    }
  })
}

/** Of rows with several reductions or types (`-o all`, `-d all`), those of one: sum and float where they are there. */
const oneKind = (
  op: string,
  rows: ReadonlyArray<NcclRow>,
  warnings: Array<string>
): ReadonlyArray<NcclRow> => {
  let kept = rows
  for (const [key, preferred] of [
    ["redop", "sum"],
    ["type", "float"]
  ] as const) {
    const kinds = [...new Set(kept.map((row) => row[key]))]
    if (kinds.length < 2) continue
    const sizes = new Set(kept.map(({ sizeBytes }) => sizeBytes))
    const covers = (kind: string) =>
      new Set(kept.filter((row) => row[key] === kind).map(({ sizeBytes }) => sizeBytes)).size
    const chosen =
      kinds.find((kind) => kind === preferred && covers(kind) === sizes.size) ??
      kinds.toSorted((a, b) => covers(b) - covers(a))[0]!
    const others = kinds.filter((kind) => kind !== chosen)
    warnings.push(`${op}: rows of ${key} ${chosen} are taken, those of ${others.join(", ")} left out`)
    kept = kept.filter((row) => row[key] === chosen)
  }
  return kept
}

/** As `importNcclTests`, from a file, compressed or not. */
export const importNcclTestsFile = (
  path: string,
  options: NcclTestsOptions = {}
): Effect.Effect<ImportReport, TraceError> =>
  Effect.flatMap(
    attemptAsync(path, "the path of a nccl-tests output", async () => readText(path)),
    (text) => importNcclTests(text, { file: path, ...options })
  )

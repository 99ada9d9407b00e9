// Runs the fluid workloads here and under Debian's SimGrid, holds the end of every activity to SimGrid's, and prints time
// and memory of both. Needs g++ and libsimgrid-dev (apt-get install g++ libsimgrid-dev).
//   node bench/fluid/side-by-side.ts [workload N L I LAT_US]...
// Each run is a process of its own; times are medians, without the start of the process. SimGrid 3.32 is quadratic in the
// length of a DAG that exists before the run, so the sizes below are small.
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { worstDifference } from "./finish-times.ts"
import { median } from "../../core/median.ts"
import { messageOf } from "../../core/message-of.ts"

const defaults = [
  ["ps", "8", "20", "2", "50"],
  ["ps", "16", "50", "4", "0"],
  ["ring", "8", "10", "2", "50"],
  ["ring", "16", "10", "2", "0"],
  ["a2a", "8", "10", "2", "50"],
  ["a2a", "16", "20", "1", "0"]
]
const runs = 3
const tolerance = 1e-9

interface Measured {
  readonly activities: number
  readonly buildSeconds: number
  readonly runSeconds: number
  readonly peakMB: number
}

const here = import.meta.dirname
const folder = mkdtempSync(join(tmpdir(), "fluid-"))

/** The last line that a benchmark prints, as numbers. Ends the comparison when it fails. */
const measured = (command: string, args: ReadonlyArray<string>): Measured => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" })
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${stderr}`)
  return JSON.parse(stdout.trimEnd().split("\n").at(-1)!) as Measured
}

const compare = (
  binary: string,
  options: ReadonlyArray<string>,
  workload: ReadonlyArray<string>
): boolean => {
  const ours = (...more: ReadonlyArray<string>) =>
    measured(process.execPath, [join(here, "main.ts"), ...workload, ...more])
  const theirs = (...more: ReadonlyArray<string>) => measured(binary, [...workload, ...more, ...options])

  const files = [join(folder, "ours.csv"), join(folder, "theirs.csv")] as const
  ours(files[0])
  theirs(files[1])
  const { worst, activity } = worstDifference(readFileSync(files[0], "utf8"), readFileSync(files[1], "utf8"))

  // In turns, so that a busy moment of the machine hits both.
  const pairs = Array.from({ length: runs }, () => [ours(), theirs()] as const)
  const seconds = (side: 0 | 1): number =>
    median(pairs.map((pair) => pair[side].buildSeconds + pair[side].runSeconds))
  const memory = (side: 0 | 1): number => median(pairs.map((pair) => pair[side].peakMB))
  const agrees = worst <= tolerance
  console.log(
    [
      workload.join(" ").padEnd(20),
      String(pairs[0]![0].activities).padStart(10),
      seconds(0).toFixed(3).padStart(9),
      seconds(1).toFixed(3).padStart(9),
      `${(seconds(1) / seconds(0)).toFixed(1)} x`.padStart(8),
      memory(0).toFixed(0).padStart(9),
      memory(1).toFixed(0).padStart(9),
      `  ${worst.toExponential(1)}${agrees ? "" : ` at ${activity}`}`
    ].join("")
  )
  return agrees
}

const workloadsOf = (args: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => {
  if (args.length === 0) return defaults
  if (args.length % 5 !== 0) throw new Error("usage: side-by-side.ts [<ps|ring|a2a> N L I LAT_US]...")
  return Array.from({ length: args.length / 5 }, (_, i) => args.slice(5 * i, 5 * i + 5))
}

try {
  const workloads = workloadsOf(process.argv.slice(2))
  const binary = join(folder, "simgrid_fluid")
  const source = join(here, "simgrid_fluid.cpp")
  execFileSync("g++", ["-std=c++17", "-O2", source, "-o", binary, "-lsimgrid"], { stdio: "inherit" })
  const options = readFileSync(join(here, "simgrid.cfg"), "utf8").trimEnd().split("\n")
  console.log(
    "workload N L I LAT   activities   ours s SimGrid s          ours MB SimGrid MB  worst relative difference of a finish time"
  )
  const agreeing = workloads.filter((workload) => compare(binary, options, workload))
  console.log(
    agreeing.length === workloads.length
      ? `every activity of ${workloads.length} workloads ends when it does under SimGrid, to ${tolerance}`
      : `${workloads.length - agreeing.length} of ${workloads.length} workloads differ`
  )
  process.exitCode = agreeing.length === workloads.length ? 0 : 1
} catch (cause) {
  console.error(messageOf(cause))
  process.exitCode = 2
} finally {
  rmSync(folder, { recursive: true, force: true })
}

// npm run bench:fluid -- <ps|ring|a2a> N L I LAT_US [out.csv]
// Builds and runs one workload and prints one line of JSON; with out.csv also the end of every activity, in the order
// and format in which bench/fluid/simgrid_fluid.cpp writes them.

import { closeSync, openSync, writeSync } from "node:fs"
import { build, workloads, type OnActivity, type Workload } from "./workloads.ts"

const USAGE = `usage: npm run bench:fluid -- <${workloads.join("|")}> N L I LAT_US [out.csv]
  N workers (2 or more), L layers, I iterations (1 or more), latency of the shared links in microseconds`

function main(args: ReadonlyArray<string>): number {
  const [workload, n, l, i, latency, csv] = args
  const [workers, layers, iterations, latencyMicroseconds] = [n, l, i, latency].map(Number)
  if (
    !workloads.includes(workload as Workload) ||
    ![workers, layers, iterations].every((x) => Number.isInteger(x) && x! >= 1) ||
    workers! < 2 ||
    !(latencyMicroseconds! >= 0 && latencyMicroseconds! < Infinity) ||
    args.length > 6
  ) {
    console.error(USAGE)
    return 2
  }
  const size = {
    workers: workers!,
    layers: layers!,
    iterations: iterations!,
    latencySeconds: latencyMicroseconds! * 1e-6
  }

  const rows: Array<string> = []
  const handles: Array<number> = []
  const onActivity: OnActivity | undefined =
    csv === undefined
      ? undefined
      : (activity, kind, name) => {
          rows.push(`${kind},${name()}`)
          handles.push(activity)
        }

  const begin = performance.now()
  const engine = build(workload as Workload, size, onActivity)
  const ends = new Float64Array(handles.length).fill(-1)
  if (csv !== undefined) {
    handles.forEach((activity, index) => engine.watch(activity, index))
    engine.onEnd = (tag) => {
      ends[tag] = engine.now
    }
  }
  let sumFinish = 0
  engine.recorder = {
    started() {},
    ended(_activity, timeSeconds) {
      sumFinish += timeSeconds
    }
  }
  const built = performance.now()
  const makespan = engine.run()
  const finished = performance.now()
  if (engine.pending > 0) throw new Error(`${engine.pending} activities never ended`)

  const result = {
    makespan,
    sumFinish,
    activities: engine.endedCount,
    buildSeconds: (built - begin) / 1e3,
    runSeconds: (finished - built) / 1e3,
    peakMB: process.resourceUsage().maxRSS / 1024
  }
  if (csv !== undefined) {
    const file = openSync(csv, "w")
    writeSync(file, "kind,name,finish\n")
    for (let first = 0; first < rows.length; first += 65536) {
      let text = ""
      for (let row = first; row < Math.min(rows.length, first + 65536); row++)
        text += `${rows[row]},${Number(ends[row]!.toPrecision(15))}\n`
      writeSync(file, text)
    }
    closeSync(file)
  }
  console.log(JSON.stringify(result))
  return 0
}

process.exitCode = main(process.argv.slice(2))

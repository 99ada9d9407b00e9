// Every activity of the fluid workloads ends when it ends under SimGrid.
// Fixtures: finish time of each activity, printed with 15 significant digits by bench/fluid/simgrid_fluid.cpp under
// SimGrid 3.32 and 4.1 (bit-identical in both), network model CM02, crosstraffic off, no TCP window, maxmin and surf
// precision 1e-12. File name: workload-N-L-I-latency of the shared links in microseconds.

import { readdirSync, readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import { build, type Workload } from "../../bench/fluid/workloads.ts"

const directory = new URL("../fixtures/simgrid-fluid/", import.meta.url)
const files = readdirSync(directory).filter((file) => file.endsWith(".csv.gz"))

describe("fluid network against SimGrid", () => {
  it("has the golden runs of all three workloads", () => {
    expect(files).toHaveLength(24)
  })

  for (const file of files) {
    it(file, () => {
      const [workload, n, l, i, latency] = file.replace(".csv.gz", "").split("-")
      const rows = gunzipSync(readFileSync(new URL(file, directory)))
        .toString()
        .trimEnd()
        .split("\n")
        .slice(1)
      const names: Array<string> = []
      const handles: Array<number> = []
      const engine = build(
        workload as Workload,
        {
          workers: Number(n),
          layers: Number(l),
          iterations: Number(i),
          latencySeconds: Number(latency!.replace("lat", "")) * 1e-6
        },
        (activity, kind, name) => {
          handles.push(activity)
          names.push(`${kind},${name()}`)
        }
      )
      const ends: Array<number> = []
      handles.forEach((activity, index) => engine.watch(activity, index))
      engine.onEnd = (tag) => {
        ends[tag] = engine.now
      }
      engine.run()
      expect(engine.pending).toBe(0)
      expect(names).toEqual(rows.map((row) => row.slice(0, row.lastIndexOf(","))))
      let worst = 0
      rows.forEach((row, index) => {
        const golden = Number(row.slice(row.lastIndexOf(",") + 1))
        expect(golden).toBeGreaterThan(0)
        worst = Math.max(worst, Math.abs(ends[index]! - golden) / golden)
      })
      expect(worst).toBeLessThanOrEqual(1e-9)
    })
  }
})

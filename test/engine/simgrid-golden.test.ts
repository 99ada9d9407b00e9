// Every activity of the fluid workloads ends when it ends under SimGrid.
// Fixtures: finish time of each activity, printed with 15 significant digits by bench/fluid/simgrid_fluid.cpp under
// SimGrid 3.32 and 4.1 (bit-identical in both), network model CM02, crosstraffic off, no TCP window, maxmin and surf
// precision 1e-12. File name: workload-N-L-I-latency of the shared links in microseconds.

import { readdirSync, readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import { worstDifference } from "../../bench/fluid/finish-times.ts"
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
      const golden = gunzipSync(readFileSync(new URL(file, directory))).toString()
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
      const rows = names.map((name, index) => `${name},${ends[index]}\n`)
      expect(ends.every((seconds) => seconds > 0)).toBe(true)
      expect(worstDifference(`kind,name,finish\n${rows.join("")}`, golden).worst).toBeLessThanOrEqual(1e-9)
    })
  }
})

describe("the comparison", () => {
  const list = (...rows: ReadonlyArray<string>) => ["kind,name,finish", ...rows, ""].join("\n")
  const golden = list("exec,F i0,0", "comm,P i0,0.5", "comm,P i1,2")

  it.each([
    ["equal", list("exec,F i0,0", "comm,P i0,0.5", "comm,P i1,2"), 0, ""],
    ["a little late", list("exec,F i0,0", "comm,P i0,0.50000005", "comm,P i1,2"), 1e-7, "comm,P i0"],
    ["not from zero", list("exec,F i0,1", "comm,P i0,0.5", "comm,P i1,2"), Infinity, "exec,F i0"],
    ["never", list("exec,F i0,0", "comm,P i0,undefined", "comm,P i1,2"), Infinity, "comm,P i0"],
    ["others", list("exec,F i0,0", "comm,P i1,2", "comm,P i0,0.5"), Infinity, "comm,P i1 for comm,P i0"],
    ["missing", list("exec,F i0,0", "comm,P i0,0.5"), Infinity, "nothing for comm,P i1"],
    ["more", `${golden}comm,P i2,3\n`, Infinity, "comm,P i2 for nothing"]
  ])("%s", (_, ours, worst, activity) => {
    const difference = worstDifference(ours, golden)
    expect(difference.activity).toBe(activity)
    if (worst === Infinity) expect(difference.worst).toBe(Infinity)
    else expect(difference.worst).toBeCloseTo(worst, 12)
  })
})

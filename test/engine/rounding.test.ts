// A long contended run, where whoever is first by a hair changes who shares what: it amplifies rounding a millionfold. The
// engine is held to finish times in extended precision, more tightly than plain doubles with the same events are.
// Fixture: bench/fluid/ring_reference.cpp with -DREAL=__float128, `32 50 4`, 15 digits: every 500th activity, and all of
// those that the same program with -DREAL=double gets wrong by more than 2e-8. Its worst is 9.6e-8.
import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import { expect, it } from "vitest"
import { worstDifference } from "../../bench/fluid/finish-times.ts"
import { build } from "../../bench/fluid/workloads.ts"
import { Engine } from "../../sim/engine/engine.ts"

const fixture = new URL("../fixtures/fluid-extended/ring-32-50-4.csv.gz", import.meta.url)

it("is amplified from less than that of plain doubles", () => {
  const golden = gunzipSync(readFileSync(fixture)).toString()
  const wanted = new Set(
    golden
      .trimEnd()
      .split("\n")
      .slice(1)
      .map((row) => row.slice(0, row.lastIndexOf(",")))
  )
  expect(wanted.size).toBeGreaterThan(800)
  const rows: Array<string> = []
  const handles: Array<number> = []
  const engine = build(
    "ring",
    { workers: 32, layers: 50, iterations: 4, latencySeconds: 0 },
    (activity, kind, name) => {
      const row = `${kind},${name()}`
      if (!wanted.has(row)) return
      rows.push(row)
      handles.push(activity)
    }
  )
  const ends: Array<number> = []
  handles.forEach((activity, index) => engine.watch(activity, index))
  engine.onEnd = (tag) => {
    ends[tag] = engine.now
  }
  engine.run()
  expect(engine.pending).toBe(0)
  expect(engine.endedCount).toBe(409_600)
  const csv = `kind,name,finish\n${rows.map((row, index) => `${row},${ends[index]}\n`).join("")}`
  expect(worstDifference(csv, golden).worst).toBeLessThan(2e-8)
})

// Whole numbers and halves have no rounding: moving the epoch, some hundred times, must not show in any of them.
it.each(["fluid", "alpha-beta"] as const)("does not show where numbers are exact (%s)", (network) => {
  const rounds = 20_000
  const engine = new Engine({
    network,
    links: [
      { name: "a", bytesPerSecond: 2, latencySeconds: 0.5 },
      { name: "b", bytesPerSecond: 1, latencySeconds: 0 }
    ]
  })
  const slow = engine.speedProfile([{ atSeconds: 4 * rounds, factor: 0.5 }])
  const [fast, late] = [engine.route([0]), engine.route([1])]
  const ends: Array<number> = []
  engine.onEnd = (tag) => (ends[tag] = engine.now)
  const timers: Array<number> = []
  engine.onTimer = (tag) => {
    timers.push(engine.now - tag)
    if (tag === 100) engine.setLink(0, { bytesPerSecond: 4 })
    if (engine.now + 1000 < 3 * rounds) engine.at(engine.now + 1000, tag + 1000)
  }
  engine.at(100, 100)
  // One flow that lasts nearly as long as everything else, and a work that spans all moves but the last ones.
  const long = engine.flow(late, 3 * rounds)
  engine.watch(long, rounds)
  engine.release(long)
  const spanning = engine.work(5 * rounds, 1, slow)
  engine.watch(spanning, rounds + 1)
  engine.release(spanning)
  let before = -1
  for (let i = 0; i < rounds; i++) {
    const work = engine.work(1, 0)
    if (before >= 0) engine.after(work, before)
    const flow = engine.flow(fast, 3)
    engine.after(flow, work)
    if (i % 100 === 0) engine.watch(flow, i)
    engine.release(work)
    engine.release(flow)
    before = flow
  }
  engine.run()
  // 1 s of work, 0.5 s of latency, 3 bytes at 2 bytes/s until 100 s (33 1/3 rounds: the 34th begins at 99 s and its bytes move
  // from 100.5 s on), then at 4.
  const end = (i: number): number => (i < 33 ? 3 * (i + 1) : 3 * 33 + (i - 32) * 2.25)
  for (let i = 0; i < rounds; i += 100) expect(ends[i], String(i)).toBe(end(i))
  expect(engine.meters[0]).toBe(rounds)
  expect(engine.meters[1]).toBe(ends[rounds + 1])
  expect(ends[rounds]).toBe(3 * rounds)
  expect(ends[rounds + 1]).toBe(4 * rounds + 2 * rounds)
  expect(timers.length).toBe(Math.ceil((3 * rounds - 100) / 1000))
  expect(new Set(timers)).toEqual(new Set([0]))
  expect(engine.linkBusySeconds(1)).toBe(3 * rounds)
  expect(engine.linkBytes(0)).toBe(3 * rounds)
})

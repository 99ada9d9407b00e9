import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Lane, laneNames } from "../../core/machine/lane.ts"
import type { Timeline } from "../../core/machine/timeline.ts"
import { chromeTrace } from "../../traces/perfetto.ts"
import { legalRun, timelineOf } from "./timelines.ts"

interface TraceEvent {
  readonly ph: "M" | "X" | "s" | "f"
  readonly name: string
  readonly pid: number
  readonly tid: number
  readonly ts: number
  readonly dur: number
  readonly id: number
  readonly bp?: string
  readonly args: Readonly<Record<string, unknown>>
}

const traceOf = (timeline: Timeline): ReadonlyArray<TraceEvent> => {
  const text = [...chromeTrace(timeline)].join("")
  return (JSON.parse(text) as { traceEvents: ReadonlyArray<TraceEvent> }).traceEvents
}

describe("chromeTrace", () => {
  const timeline = timelineOf([
    { lane: Lane.compute, label: 'back"ward\n1', step: 3, from: 0.001, to: 1.5, bytes: 12 },
    { lane: Lane.inter, label: "bucket", kernel: "all_reduce", from: 1.5, to: 2, cause: 0, bytes: 99 },
    { lane: Lane.compute, label: "next", from: 1.5, to: 1.75, cause: 0 },
    { rank: 2, lane: Lane.inter, label: "bucket", kernel: "all_reduce", from: 1.5, to: 2, cause: 0 }
  ])
  const events = traceOf(timeline)

  it("has a process for each rank and a thread for each lane in use, in order", () => {
    const metadata = events.filter(({ ph }) => ph === "M")
    const named = (name: string) => metadata.filter((event) => event.name === name).map(({ args }) => args)
    expect(named("process_name")).toEqual([{ name: "rank 0" }, { name: "rank 2" }])
    expect(named("thread_name")).toEqual([{ name: "compute" }, { name: "inter" }, { name: "inter" }])
    expect(named("thread_sort_index")).toEqual([{ sort_index: 0 }, { sort_index: 1 }, { sort_index: 1 }])
    // Perfetto names threads by their number alone.
    const threads = new Set(events.filter(({ name }) => name === "thread_name").map(({ tid }) => tid))
    expect(threads.size).toBe(3)
  })

  it("tells beside the events what it is given to tell", () => {
    const graphs = 'off: "timed"'
    expect(JSON.parse([...chromeTrace(timeline, undefined, { graphs })].join(""))).toMatchObject({
      otherData: { graphs },
      traceEvents: events
    })
    expect([...chromeTrace(timeline)].join("")).not.toContain("otherData")
  })

  it("tells of each op what it was", () => {
    expect(events.find(({ ph, name }) => ph === "X" && name === 'back"ward\n1')).toMatchObject({
      ts: 1000,
      dur: 1_499_000,
      cat: "compute",
      args: { op: 0, step: 3, bytes: 12, kernel: "profiled" }
    })
    expect(events.find(({ ph, name }) => ph === "X" && name === "bucket")).toMatchObject({
      cat: "communication",
      args: { op: 1, bytes: 99, kernel: "all_reduce" }
    })
  })

  it("draws an arrow from a cause on another lane or rank, and none along a lane", () => {
    const starts = events.filter(({ ph }) => ph === "s")
    const ends = events.filter(({ ph }) => ph === "f")
    expect(starts.map(({ id }) => id)).toEqual(ends.map(({ id }) => id))
    expect(ends.map(({ tid }) => tid)).toEqual([11, 31])
    expect(starts.every(({ tid, ts }) => tid === 10 && ts === 1_499_999.999)).toBe(true)
    expect(ends.every(({ bp, ts }) => bp === "e" && ts === 1_500_000)).toBe(true)
  })

  it("leaves out ops that did not end", () => {
    const cut = timelineOf([
      { lane: Lane.compute, label: "done", from: 0, to: 1 },
      { lane: Lane.inter, label: "begun", from: 1, to: NaN, cause: 0 }
    ])
    expect(traceOf(cut).filter(({ ph }) => ph !== "M")).toHaveLength(1)
  })

  it("is valid without ops", () => {
    expect(traceOf(timelineOf([]))).toEqual([])
  })

  it("comes in pieces, so that no long text is ever whole", () => {
    const rows = 20_000
    const many: Timeline = {
      ...timelineOf([{ lane: Lane.compute, label: "op", from: 0, to: 1 }]),
      rank: new Int32Array(rows),
      op: Int32Array.from({ length: rows }, (_, i) => i),
      lane: new Uint8Array(rows),
      step: new Int32Array(rows),
      label: new Int32Array(rows),
      kernel: new Int32Array(rows),
      startSeconds: Float64Array.from({ length: rows }, (_, i) => i),
      endSeconds: Float64Array.from({ length: rows }, (_, i) => i + 1),
      sizeBytes: new Float64Array(rows),
      cause: Int32Array.from({ length: rows }, (_, i) => i - 1)
    }
    const pieces = [...chromeTrace(many)]
    expect(pieces.length).toBeGreaterThan(10)
    expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThan(70_000)
    const trace = JSON.parse(pieces.join("")) as { traceEvents: ReadonlyArray<TraceEvent> }
    expect(trace.traceEvents.filter(({ ph }) => ph === "X")).toHaveLength(rows)
  })

  it("keeps times to the nanosecond, order along lanes, and arrows forward, on generated runs", () => {
    let arrows = 0
    // Hours into a run, doubles of microseconds still tell nanoseconds apart.
    const offsets = fc.constantFrom(0, 0.1, 3600 * 24 * 30)
    fc.assert(
      fc.property(legalRun, offsets, ({ timeline: run }, offset) => {
        const timeline = {
          ...run,
          startSeconds: run.startSeconds.map((seconds) => seconds + offset),
          endSeconds: run.endSeconds.map((seconds) => seconds + offset)
        }
        const trace = traceOf(timeline)
        const ops = trace.filter(({ ph }) => ph === "X")
        expect(ops).toHaveLength(timeline.rank.length)
        const laneEnds = new Map<number, number>()
        ops.forEach((event, row) => {
          expect(laneNames[event.tid % 10]).toBe(laneNames[timeline.lane[row]!])
          expect(event.pid).toBe(timeline.rank[row]! + 1)
          const start = Math.round(event.ts * 1000)
          const end = start + Math.round(event.dur * 1000)
          expect(start).toBe(Math.round(timeline.startSeconds[row]! * 1e9))
          expect(end).toBe(Math.round(timeline.endSeconds[row]! * 1e9))
          // Slices of one track must not overlap, or the viewer nests them.
          expect(start).toBeGreaterThanOrEqual(laneEnds.get(event.tid) ?? 0)
          laneEnds.set(event.tid, end)
        })
        const leaving = new Map(trace.filter(({ ph }) => ph === "s").map((event) => [event.id, event]))
        for (const arrival of trace) {
          if (arrival.ph !== "f") continue
          arrows++
          const from = leaving.get(arrival.id)!
          expect(from.ts).toBeLessThanOrEqual(arrival.ts)
          expect(from.tid).not.toBe(arrival.tid)
          const row = arrival.id - 1
          const cause = timeline.cause[row]!
          expect(Math.round(arrival.ts * 1000)).toBe(Math.round(timeline.startSeconds[row]! * 1e9))
          expect(Math.round(from.ts * 1000)).toBeGreaterThanOrEqual(
            Math.round(timeline.startSeconds[cause]! * 1e9)
          )
        }
      })
    )
    expect(arrows).toBeGreaterThan(100)
  })
})

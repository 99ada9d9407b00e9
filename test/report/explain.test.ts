import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Lane } from "../../core/machine/lane.ts"
import { CriticalPath } from "../../sim/explain/critical-path.ts"
import { explain, stepsOf, stepWindow } from "../../sim/explain/explain.ts"
import { printExplanation } from "../../sim/explain/print.ts"
import { legalRun, timelineOf } from "./timelines.ts"

// Two steps of a rank with two buckets, by hand. Times in seconds:
//   compute  f 0-1  b1 1-2  b0 2-3          wait 8-8  u 8-9 | f 9-10
//   inter            r1 2-5 (released 2)  r0 5-8 (released 3)
const twoBuckets = timelineOf([
  { lane: Lane.compute, label: "forward", from: 0, to: 1 },
  { lane: Lane.compute, label: "backward 1", from: 1, to: 2, cause: 0 },
  { lane: Lane.inter, label: "bucket 1", kernel: "all_reduce", from: 2, to: 5, cause: 1, bytes: 100 },
  { lane: Lane.compute, label: "backward 0", from: 2, to: 3, cause: 1 },
  { lane: Lane.inter, label: "bucket 0", kernel: "all_reduce", from: 5, to: 8, cause: 2, bytes: 50 },
  { lane: Lane.compute, label: "wait", from: 8, to: 8, cause: 4 },
  { lane: Lane.compute, label: "update", from: 8, to: 9, cause: 5 },
  { lane: Lane.compute, label: "forward", step: 1, from: 9, to: 10, cause: 6 }
])

describe("explain", () => {
  const window = stepWindow(twoBuckets, 0, 0)!
  const explanation = explain(twoBuckets, window)

  it("takes a step to be from the end of the step before to its own end on the compute lane", () => {
    expect(stepsOf(twoBuckets, 0)).toEqual([0, 1])
    expect(window).toEqual({ rank: 0, firstStep: 0, lastStep: 0, fromSeconds: 0, toSeconds: 9 })
    expect(stepWindow(twoBuckets, 0, 1)).toMatchObject({ fromSeconds: 9, toSeconds: 10 })
    expect(stepWindow(twoBuckets, 0, 2)).toBeUndefined()
    expect(stepWindow(twoBuckets, 1, 0)).toBeUndefined()
  })

  it("follows causes from the end to the start", () => {
    const { segments, byKind, byLabel } = explanation.criticalPath
    expect(segments.map(({ row, fromSeconds, toSeconds }) => [row, fromSeconds, toSeconds])).toEqual([
      [0, 0, 1],
      [1, 1, 2],
      [2, 2, 5],
      [4, 5, 8],
      [6, 8, 9]
    ])
    expect(byKind).toEqual({
      compute: 3,
      communication: 6,
      copy: 0,
      latency: 0,
      host: 0,
      asleep: 0,
      placement: 0,
      idle: 0
    })
    expect(byLabel[0]).toEqual({ label: "bucket 0", kind: "communication", seconds: 3 })
  })

  it("divides a wait among the collectives that made it up", () => {
    expect(explanation.computeSeconds).toBe(4)
    expect(explanation.exposed.communicationSeconds).toBe(5)
    expect(explanation.communicationBusySeconds).toBe(6)
    const [first, second] = explanation.collectives
    // The wait is from 3 to 8: bucket 1 until 5, then bucket 0.
    expect(first).toMatchObject({
      label: "bucket 1",
      releasedSeconds: 2,
      startedSeconds: 2,
      endedSeconds: 5,
      delay: { kind: "none" },
      hiddenSeconds: 1,
      exposedSeconds: 2,
      waiters: [{ row: 5, label: "wait", seconds: 2 }]
    })
    expect(second).toMatchObject({
      label: "bucket 0",
      releasedSeconds: undefined,
      delay: { kind: "queued", behind: [2], labels: ["bucket 1"] },
      hiddenSeconds: 0,
      exposedSeconds: 3
    })
  })

  it("knows from an op log when a queued collective was ready", () => {
    const entry = (op: number, lane: number, after: ReadonlyArray<number>) => ({
      op,
      lane,
      after,
      label: "",
      kernel: "",
      step: 0,
      group: undefined,
      sizeBytes: 0
    })
    const entries = [entry(0, 0, []), entry(1, 0, []), entry(2, 1, [1]), entry(3, 0, []), entry(4, 1, [3])]
    const { collectives } = explain(twoBuckets, window, { opLogs: [{ rank: 0, entries }] })
    expect(collectives.map(({ releasedSeconds }) => releasedSeconds)).toEqual([2, 3])
    expect(collectives[1]!.delay).toEqual({ kind: "queued", behind: [2], labels: ["bucket 1"] })
  })

  it("separates what a collective's latency costs, where it is known", () => {
    const explained = explain(twoBuckets, window, {
      wireLatencySeconds: (row) => (row === 2 || row === 4 ? 0.5 : 0)
    })
    const { criticalPath, exposed } = explained
    // On the list of what is longest, beside the rest of the same collective.
    expect(printExplanation(explained)).toMatch(/^ {4}bucket 0 +2\.50 s/mu)
    expect(printExplanation(explained)).toMatch(/^ {4}latency of bucket 0 +500 ms/mu)
    expect(criticalPath.byKind).toMatchObject({ communication: 5, latency: 1 })
    // All of the first's was hidden.
    expect(exposed).toMatchObject({ communicationSeconds: 4.5, latencySeconds: 0.5 })
  })

  it("blames the rank that came late", () => {
    const late = timelineOf([
      { rank: 0, lane: Lane.compute, label: "fast", from: 0, to: 1 },
      { rank: 1, lane: Lane.compute, label: "slow", from: 0, to: 4 },
      { rank: 0, lane: Lane.inter, label: "all-reduce", from: 4, to: 5, cause: 1 },
      { rank: 1, lane: Lane.inter, label: "all-reduce", from: 4, to: 5, cause: 1 },
      { rank: 0, lane: Lane.compute, label: "update", from: 5, to: 6, cause: 2 },
      { rank: 1, lane: Lane.compute, label: "update", from: 5, to: 6, cause: 3 }
    ])
    const fast = explain(late, stepWindow(late, 0, 0)!)
    expect(fast.exposed).toMatchObject({ communicationSeconds: 1, otherRanksSeconds: 3 })
    expect(fast.collectives[0]!.delay).toEqual({ kind: "other-rank", rank: 1, row: 1, label: "slow" })
    expect(fast.criticalPath.segments.map(({ row }) => row)).toEqual([1, 2, 4])
    const slow = explain(late, stepWindow(late, 1, 0)!)
    expect(slow.exposed).toMatchObject({ communicationSeconds: 1, otherRanksSeconds: 0 })
    expect(slow.collectives[0]!.delay).toEqual({ kind: "none" })
    expect(printExplanation(fast)).toContain('rank 1 had finished "slow"')
  })

  it("takes neither a barrier nor the placing of a cache for a collective", () => {
    const timeline = timelineOf([
      { lane: Lane.compute, label: "a", from: 0, to: 1 },
      { lane: Lane.inter, label: "send", kernel: "send_recv", from: 1, to: 2, cause: 0 },
      { lane: Lane.inter, label: "place", kernel: "kv.place", from: 2, to: 2.5, cause: 1 },
      { lane: Lane.inter, label: "wait", kernel: "barrier", from: 2.5, to: 2.5, cause: 2 },
      { lane: Lane.compute, label: "b", from: 2.5, to: 4, cause: 3 }
    ])
    const { collectives, communicationBusySeconds } = explain(timeline, stepWindow(timeline, 0, 0)!)
    expect(collectives.map(({ label }) => label)).toEqual(["send"])
    expect(communicationBusySeconds).toBe(1)
  })

  it("calls a start that nothing let happen idle, and a late start latency", () => {
    const timeline = timelineOf([
      { lane: Lane.compute, label: "a", from: 0, to: 1 },
      { lane: Lane.compute, label: "b", from: 3, to: 4 },
      { lane: Lane.compute, label: "c", from: 4.5, to: 5, cause: 1 }
    ])
    const { criticalPath, exposed, computeSeconds } = explain(timeline, stepWindow(timeline, 0, 0)!)
    expect(computeSeconds).toBe(2.5)
    expect(exposed).toMatchObject({ idleSeconds: 2, latencySeconds: 0.5, communicationSeconds: 0 })
    expect(criticalPath.segments.map(({ kind }) => kind)).toEqual([
      "compute",
      "idle",
      "compute",
      "latency",
      "compute"
    ])
  })

  it("ends on a timeline whose causes go in circles", () => {
    const circular = timelineOf([
      { lane: Lane.compute, label: "a", from: 1, to: 1, cause: 1 },
      { lane: Lane.compute, label: "b", from: 1, to: 1, cause: 0 }
    ])
    const segments = new CriticalPath(circular).endingWith(1, 0, 1)
    expect(segments.reduce((sum, { fromSeconds, toSeconds }) => sum + toSeconds - fromSeconds, 0)).toBe(1)
  })

  it("accounts for every second of every step of generated runs", () => {
    const seen = {
      host: 0,
      asleep: 0,
      placement: 0,
      queued: 0,
      otherRank: 0,
      exposed: 0,
      hidden: 0,
      idle: 0,
      latency: 0,
      copies: 0
    }
    fc.assert(
      fc.property(
        legalRun,
        fc.boolean(),
        fc.boolean(),
        ({ timeline: legal, opLogs, ranks }, withLogs, withHost) => {
          const timeline = withHost ? heldUp(legal) : legal
          for (let rank = 0; rank < ranks; rank++) {
            for (const step of stepsOf(timeline, rank)) {
              const window = stepWindow(timeline, rank, step)!
              const explanation = explain(timeline, window, withLogs ? { opLogs } : {})
              const { seconds, computeSeconds, exposed, collectives, criticalPath } = explanation
              const rounding = 1e-12 * Math.max(seconds, window.toSeconds)

              // An independent account of the compute lane: mark every tick.
              expect(Math.abs(computeSeconds - busyByTicks(timeline, window))).toBeLessThanOrEqual(rounding)

              const parts = Object.values(exposed)
              for (const part of parts) expect(part).toBeGreaterThanOrEqual(0)
              const waited = parts.reduce((sum, part) => sum + part, 0)
              expect(Math.abs(waited - (seconds - computeSeconds))).toBeLessThanOrEqual(rounding)

              let byCollective = 0
              for (const collective of collectives) {
                const { startedSeconds, endedSeconds, exposedSeconds, hiddenSeconds, waiters } = collective
                byCollective += exposedSeconds
                expect(exposedSeconds + hiddenSeconds).toBeLessThanOrEqual(
                  endedSeconds - startedSeconds + rounding
                )
                const sum = waiters.reduce((total, waiter) => total + waiter.seconds, 0)
                expect(Math.abs(sum - exposedSeconds)).toBeLessThanOrEqual(rounding)
                const released = collective.releasedSeconds
                if (released !== undefined) expect(released).toBeLessThanOrEqual(startedSeconds)
                if (collective.delay.kind === "queued") seen.queued++
                if (collective.delay.kind === "other-rank") seen.otherRank++
                if (exposedSeconds > 0) seen.exposed++
                if (hiddenSeconds > 0) seen.hidden++
              }
              expect(Math.abs(byCollective - exposed.communicationSeconds)).toBeLessThanOrEqual(rounding)

              // The path is one unbroken line through the window.
              let time = window.fromSeconds
              for (const { fromSeconds, toSeconds } of criticalPath.segments) {
                expect(fromSeconds).toBe(time)
                expect(toSeconds).toBeGreaterThan(fromSeconds)
                time = toSeconds
              }
              expect(time).toBe(Math.max(window.fromSeconds, window.toSeconds))
              const kinds = Object.values(criticalPath.byKind).reduce((sum, part) => sum + part, 0)
              expect(Math.abs(kinds - seconds)).toBeLessThanOrEqual(rounding)
              const labels = criticalPath.byLabel.reduce((sum, share) => sum + share.seconds, 0)
              expect(Math.abs(labels - seconds)).toBeLessThanOrEqual(rounding)

              for (const line of printExplanation(explanation, { columns: 80 }).split("\n")) {
                expect(line.length).toBeLessThanOrEqual(82)
              }
              if (exposed.idleSeconds > 0) seen.idle++
              if (exposed.hostSeconds > 0) seen.host++
              if (exposed.asleepSeconds > 0) seen.asleep++
              if (exposed.placementSeconds > 0) seen.placement++
              if (exposed.latencySeconds > 0) seen.latency++
              if (exposed.copySeconds > 0) seen.copies++
            }
          }
        }
      ),
      { numRuns: 300 }
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(10)
  })
})

/** Half of what lies between an op's cause and its start is the host's, a quarter was slept before, an eighth is for multiprocessors. */
const heldUp = (timeline: ReturnType<typeof timelineOf>) => {
  const gaps = timeline.startSeconds.map((start, row) => {
    const cause = timeline.cause[row]!
    return Math.max(0, start - (cause < 0 ? 0 : timeline.endSeconds[cause]!))
  })
  return {
    ...timeline,
    held: {
      hostSeconds: gaps.map((gap) => gap / 2),
      asleepSeconds: gaps.map((gap) => gap / 4),
      placementSeconds: gaps.map((gap) => gap / 8)
    }
  }
}

const busyByTicks = (
  timeline: ReturnType<typeof timelineOf>,
  { rank, fromSeconds, toSeconds }: { rank: number; fromSeconds: number; toSeconds: number }
): number => {
  const tick = 2 ** -20
  let ticks = 0
  for (let row = 0; row < timeline.rank.length; row++) {
    if (timeline.rank[row] !== rank || timeline.lane[row] !== Lane.compute) continue
    const from = Math.max(fromSeconds, timeline.startSeconds[row]!) / tick
    const to = Math.min(toSeconds, timeline.endSeconds[row]!) / tick
    for (let t = from; t < to; t++) ticks++
  }
  return ticks * tick
}

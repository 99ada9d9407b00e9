// What of a profiled host is real, and what several ranks' calls of collectives come to, by hand.
import { describe, expect, it } from "vitest"
import type { CollectiveCall } from "../../traces/kineto/collectives.ts"
import type { HostTimes } from "../../traces/kineto/host-times.ts"
import { jobOf, type RankTrace } from "../../traces/kineto/job.ts"
import { measuredHost } from "../../traces/kineto/measured-host.ts"

describe("a host by the step's time without the profiler", () => {
  const times: HostTimes = {
    mode: "eager",
    launches: 100,
    gradients: 0,
    gradientSeconds: 0,
    calls: 0,
    callSeconds: 0,
    overlapped: false,
    sharding: undefined,
    readSeconds: undefined,
    loop: undefined,
    replaySeconds: undefined
  }
  const launchSeconds = (unprofiledSeconds: number, busySeconds: number): number =>
    measuredHost(times, { profiledSeconds: 1, wallSeconds: 1, unprofiledSeconds, busySeconds }, undefined)
      .host!.launchSeconds!

  it("takes all of it where the device waits for the host by more than a twentieth, and no more than was profiled", () => {
    expect(launchSeconds(0.5, 0.3)).toBeCloseTo(0.5 / 100, 12)
    expect(launchSeconds(0.5, 0.47)).toBeCloseTo(0.5 / 100, 12)
    expect(launchSeconds(2, 0.3)).toBeCloseTo(1 / 100, 12)
  })

  it("takes a third of what was profiled where the device hardly waits, or less where the whole step is less", () => {
    expect(launchSeconds(0.5, 0.48)).toBeCloseTo(1 / 300, 12)
    expect(launchSeconds(0.2, 0.2)).toBeCloseTo(0.2 / 100, 12)
  })

  it("of a sharded run is what is left of the whole step without FSDP's own code and calls", () => {
    const sharded = { ...times, calls: 2, callSeconds: 0.05, sharding: { seconds: 0.2, carried: 4 } }
    const step = { profiledSeconds: 0.6, wallSeconds: 1, unprofiledSeconds: 0.5, busySeconds: 0.3 }
    const { host, inGaps } = measuredHost(sharded, step, undefined)
    // Half of the profiler's time is real: of 1 s, 0.2 s of FSDP's and two calls of 0.05 s.
    expect(host!.launchSeconds).toBeCloseTo((0.5 * 0.7) / 100, 12)
    expect(host!.hookSeconds).toBeCloseTo((0.5 * 0.2) / 4, 12)
    expect(host!.collectiveSeconds).toBeCloseTo(0.5 * 0.05, 12)
    expect(inGaps.unprofiledSeconds).toBeCloseTo(0.5 - 0.35, 12)
  })
})

describe("ranks of one job", () => {
  const call = (start: number, end: number, sizeBytes: number | undefined): CollectiveCall => ({
    index: 0,
    name: "ring",
    op: "all_reduce",
    ranks: 3,
    sizeBytes,
    dtype: "float32",
    group: "0",
    phase: undefined,
    start,
    end
  })
  const traceOf = (
    rank: number,
    deviceBusySeconds: number,
    calls: ReadonlyArray<CollectiveCall>
  ): RankTrace =>
    ({
      file: `${rank}.json`,
      rank,
      worldSize: 3,
      deviceName: "GPU",
      base: 0,
      found: { steps: 1, stepSeconds: 10, deviceBusySeconds, communication: {}, calls, layers: [] }
    }) as unknown as RankTrace

  it("are told by the one whose compute is the median", () => {
    const busy = [9, 1, 2]
    expect(jobOf(busy.map((seconds, rank) => traceOf(rank, seconds, []))).typical).toBe(2)
  })

  it("meet in calls of as many bytes, of which the last to come takes what the collective takes", () => {
    const met = jobOf([
      traceOf(0, 1, [call(0, 30, 8), call(100, 140, 16)]),
      traceOf(1, 1, [call(20, 30, 8), call(120, 140, 16)])
    ])
    expect(
      met.collectives.map(({ sizeBytes, medianSeconds }) => [sizeBytes, Math.round(medianSeconds * 1e6)])
    ).toEqual([
      [8, 10],
      [16, 20]
    ])
    expect(met.ranks.map(({ lateSeconds }) => Math.round(lateSeconds! * 1e6))).toEqual([0, 40])
  })

  it("do not meet where one has called more often, or with other bytes", () => {
    const once = [call(0, 30, 8)]
    for (const other of [[call(20, 30, 8), call(60, 70, 8)], [call(20, 30, 16)], []])
      for (const [first, second] of [
        [once, other],
        [other, once]
      ] as const)
        expect(jobOf([traceOf(0, 1, first), traceOf(1, 1, second)]).collectives).toEqual([])
  })
})

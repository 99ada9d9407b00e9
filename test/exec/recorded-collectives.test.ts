// What a collective took, from runs of two ranks made by hand, and that every kind is timed, of whoever is ahead.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
import { Lane } from "../../core/machine/lane.ts"
import { timeCollectives } from "../../exec/bench.ts"
import { forBenchmark, recordedCollectives, type RecordedRun } from "../../exec/recorded.ts"
import { describeNative } from "../native/addon.ts"

/** One collective of two ranks, from and to. */
const recordOf = (
  kernel: string,
  spans: ReadonlyArray<readonly [from: number, to: number]>
): RecordedRun => ({
  timeline: {
    rank: Int32Array.from(spans, (_, rank) => rank),
    op: new Int32Array(spans.length),
    lane: new Uint8Array(spans.length).fill(Lane.inter),
    step: new Int32Array(spans.length),
    label: new Int32Array(spans.length),
    labels: [""],
    kernel: new Int32Array(spans.length),
    kernels: [kernel],
    startSeconds: Float64Array.from(spans, ([from]) => from),
    endSeconds: Float64Array.from(spans, ([, to]) => to),
    sizeBytes: new Float64Array(spans.length).fill(16),
    cause: new Int32Array(spans.length).fill(-1)
  },
  opLogs: spans.map((_, rank) => ({
    rank,
    entries: [
      { op: 0, label: "", kernel, lane: Lane.inter, step: 0, group: "both", sizeBytes: 16, after: [] }
    ]
  })),
  journals: []
})

const secondsOf = (kernel: string, ...spans: ReadonlyArray<readonly [number, number]>): number =>
  recordedCollectives(recordOf(kernel, spans), forBenchmark)[0]!.medianSeconds

it("takes from when all are there to the mean end, and where a member only sends to the last", () => {
  expect(secondsOf("all_reduce", [0, 5], [3, 5.5])).toBe(2.25)
  // The root has sent all before the other begins.
  for (const kind of ["broadcast", "send_recv"]) {
    expect(secondsOf(kind, [0, 1], [3, 4.5])).toBe(1.5)
    expect(secondsOf(kind, [3, 4], [0, 4.5])).toBe(1.5)
  }
})

describeNative("collectives of threads", () => {
  it("are timed in every kind, broadcasts too", async () => {
    const rows = await Effect.runPromise(timeCollectives(2, [4096, 2 ** 20]))
    expect(rows.map(({ op, sizeBytes }) => [op, sizeBytes])).toEqual(
      [4096, 2 ** 20].flatMap((size) => [
        ["all_reduce", size],
        ["all_gather", size],
        ["reduce_scatter", size / 2],
        ["all_to_all", size],
        ["broadcast", size]
      ])
    )
    for (const { medianSeconds } of rows) expect(medianSeconds).toBeGreaterThan(0)
  })
})

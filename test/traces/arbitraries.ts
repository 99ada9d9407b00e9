// Generators of what the trace layer reads and writes.
import * as fc from "fast-check"
import type { OpLog, Timeline } from "../../core/machine/timeline.ts"
import type { Profile } from "../../core/profile.ts"
import type { Routing } from "../../traces/index.ts"

/** Finite, at least 0, from denormal to astronomic; -0 becomes 0, as files do not tell them apart everywhere. */
const seconds = fc
  .oneof(
    fc.double({ min: 0, max: 1e3, noNaN: true }),
    fc.double({ min: 0, max: Number.MAX_VALUE, noNaN: true }),
    fc.constant(0)
  )
  .map((value) => value + 0)

/** Any text that is well-formed Unicode: what UTF-8 can carry. */
export const words = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 12 }),
  fc.constantFrom("", "__proto__", "a\u0000b", "h.0.attn", 'quote"', "línea")
)

const int31 = fc.integer({ min: 0, max: 2 ** 31 - 1 })
const phase = fc.record({ busySeconds: seconds, spanSeconds: seconds })

export const profiles: fc.Arbitrary<Profile> = fc
  .record({
    name: words,
    device: words,
    source: words,
    notes: fc.option(fc.array(words, { minLength: 1, maxLength: 3 }), { nil: undefined }),
    steps: fc.nat(),
    stepSeconds: seconds,
    unprofiledStepSeconds: fc.option(seconds, { nil: undefined }),
    recordingSeconds: fc.option(seconds, { nil: undefined }),
    deviceBusySeconds: seconds,
    unattributedShare: fc.double({ min: 0, max: 1, noNaN: true }).map((value) => value + 0),
    layers: fc.array(fc.record({ name: words, forward: phase, backward: phase, optimizer: phase }), {
      maxLength: 6
    }),
    parameters: fc.array(
      fc.record({
        layer: fc.nat({ max: 5 }),
        shape: fc.array(fc.nat({ max: 60_000 }), { maxLength: 4 }),
        dtype: fc.constantFrom("float32", "bfloat16")
      }),
      { maxLength: 8 }
    ),
    ops: fc.array(
      fc.record({
        op: words,
        attributes: fc.dictionary(
          fc.constantFrom("m", "k", "bytes", "__proto__", "7"),
          fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0)
        ),
        medianSeconds: seconds
      }),
      { maxLength: 5 }
    ),
    collectives: fc.array(
      fc.record(
        {
          op: fc.constantFrom(
            ...([
              "all_reduce",
              "all_gather",
              "reduce_scatter",
              "all_to_all",
              "broadcast",
              "send_recv"
            ] as const)
          ),
          ranks: int31,
          sizeBytes: seconds,
          medianSeconds: seconds,
          besideSeconds: seconds,
          link: words
        },
        { requiredKeys: ["op", "ranks", "sizeBytes", "medianSeconds", "link"] }
      ),
      { maxLength: 5 }
    )
  })
  .map((profile) => ({
    ...profile,
    parameters:
      profile.layers.length === 0
        ? []
        : profile.parameters.map((p) => ({ ...p, layer: p.layer % profile.layers.length }))
  }))

const rowsOf = <A>(row: fc.Arbitrary<A>) => fc.array(row, { maxLength: 40 })

export const timelines: fc.Arbitrary<Timeline> = fc
  .record({
    labels: fc.uniqueArray(words, { minLength: 1, maxLength: 5 }),
    kernels: fc.uniqueArray(words, { minLength: 1, maxLength: 3 }),
    rows: rowsOf(
      fc.record({
        rank: int31,
        op: int31,
        lane: fc.nat({ max: 4 }),
        step: int31,
        label: fc.nat(),
        kernel: fc.nat(),
        start: seconds,
        length: fc.double({ min: 0, max: 10, noNaN: true }),
        size: seconds,
        cause: fc.oneof(fc.constant(-1), int31)
      })
    )
  })
  .map(({ labels, kernels, rows }) => ({
    rank: Int32Array.from(rows, (row) => row.rank),
    op: Int32Array.from(rows, (row) => row.op),
    lane: Uint8Array.from(rows, (row) => row.lane),
    step: Int32Array.from(rows, (row) => row.step),
    label: Int32Array.from(rows, (row) => row.label % labels.length),
    labels,
    kernel: Int32Array.from(rows, (row) => row.kernel % kernels.length),
    kernels,
    startSeconds: Float64Array.from(rows, (row) => row.start),
    endSeconds: Float64Array.from(rows, (row) => Math.min(row.start + row.length, Number.MAX_VALUE)),
    sizeBytes: Float64Array.from(rows, (row) => row.size),
    cause: Int32Array.from(rows, (row) => row.cause)
  }))

export const opLogs: fc.Arbitrary<ReadonlyArray<OpLog>> = fc
  .array(
    fc.array(
      fc.record({
        op: int31,
        label: words,
        kernel: words,
        lane: fc.nat({ max: 4 }),
        step: int31,
        group: fc.option(words, { nil: undefined }),
        sizeBytes: seconds,
        after: fc.array(int31, { maxLength: 4 }),
        rows: fc.option(words, { nil: undefined }),
        scalars: fc.option(
          fc.array(
            fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
            {
              minLength: 1,
              maxLength: 3
            }
          ),
          { nil: undefined }
        )
      }),
      { minLength: 1, maxLength: 10 }
    ),
    { maxLength: 3 }
  )
  .map((logs) => logs.map((entries, rank) => ({ rank, entries })))

export const routings: fc.Arbitrary<Routing> = rowsOf(
  fc.record({
    step: int31,
    layer: int31,
    token: int31,
    choice: fc.nat({ max: 7 }),
    expert: int31,
    weight: fc.double({ noNaN: true, noDefaultInfinity: true })
  })
).map((rows) => ({
  step: Int32Array.from(rows, (row) => row.step),
  layer: Int32Array.from(rows, (row) => row.layer),
  token: Int32Array.from(rows, (row) => row.token),
  choice: Int32Array.from(rows, (row) => row.choice),
  expert: Int32Array.from(rows, (row) => row.expert),
  weight: Float64Array.from(rows, (row) => row.weight)
}))

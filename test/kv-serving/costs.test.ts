// Costs of serving: a table of measured kernels, read at its rows and between them; and a fitted step.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { MeasuredOps } from "../../scenarios/families/kv-serving/measured-ops.ts"
import { readProfile } from "../../traces/profile-file.ts"

const table = await Effect.runPromise(
  readProfile(new URL("../../traces/profiles/h200-ops.arrow", import.meta.url).pathname)
)
const ops = new MeasuredOps(table.ops)
const heads = { heads: 32, kvHeads: 8, headWidth: 128 }

describe("measured kernels", () => {
  it("are the table's own where it has them", () => {
    let compared = 0
    for (const { op, attributes, medianSeconds } of table.ops) {
      const { m, k, n, batch, kv, tokens, bytes } = attributes
      const found =
        op === "gemm_bf16"
          ? ops.gemm(m!, k!, n!)
          : op === "attention_decode_bf16"
            ? ops.decodeAttention(batch!, batch! * kv!, heads)
            : op === "attention_prefill_bf16"
              ? ops.prefillAttention(tokens!, heads)
              : Object.keys(attributes).join() === "bytes"
                ? ops.copy(op, bytes!)
                : undefined
      if (found === undefined) continue
      expect(found).toEqual({ seconds: medianSeconds, how: undefined })
      compared++
    }
    // All but the two rows of overlapped work.
    expect(compared).toBe(table.ops.length - 2)
  })

  it("between rows lie between them, and say how they were reckoned", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1025, max: 131_071 }), fc.integer({ min: 2, max: 31 }), (kv, batch) => {
        const { seconds, how } = ops.decodeAttention(batch, batch * kv, heads)!
        expect(how).toBeDefined()
        const lower = ops.decodeAttention(batch < 8 ? 1 : 8, (batch < 8 ? 1 : 8) * 1024, heads)!.seconds
        expect(seconds).toBeGreaterThanOrEqual(lower)
        expect(seconds).toBeLessThanOrEqual(ops.decodeAttention(32, 32 * 131_072, heads)!.seconds)
      })
    )
  })

  it("never take less for more: longer prompts, longer caches, more rows of a product", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100_000 }),
        fc.integer({ min: 1, max: 50_000 }),
        (tokens, more) => {
          expect(ops.prefillAttention(tokens + more, heads)!.seconds).toBeGreaterThanOrEqual(
            ops.prefillAttention(tokens, heads)!.seconds
          )
          expect(ops.decodeAttention(1, tokens + more, heads)!.seconds).toBeGreaterThanOrEqual(
            ops.decodeAttention(1, tokens, heads)!.seconds
          )
        }
      )
    )
  })

  it("of other shapes go by size, and no faster than the shortest", () => {
    const known = ops.gemm(16384, 4096, 14336)!.seconds
    expect(ops.gemm(16384, 14336, 4096)!.seconds).toBeCloseTo(known, 12)
    expect(ops.gemm(16384, 4096, 28672)!.seconds).toBeCloseTo(2 * known, 12)
    const shortest = Math.min(
      ...table.ops.filter(({ op }) => op === "gemm_bf16").map(({ medianSeconds }) => medianSeconds)
    )
    expect(ops.gemm(1, 64, 64)!.seconds).toBe(shortest)
    const half = { heads: 16, kvHeads: 4, headWidth: 128 }
    expect(ops.decodeAttention(32, 32 * 65_536, half)!.seconds).toBeCloseTo(
      ops.decodeAttention(32, 32 * 65_536, heads)!.seconds / 2,
      12
    )
  })

  it("that a table lacks are not made up", () => {
    const empty = new MeasuredOps([])
    expect(empty.gemm(1, 1, 1)).toBeUndefined()
    expect(empty.copy("d2d", 1)).toBeUndefined()
    expect(empty.decodeAttention(1, 1, heads)).toBeUndefined()
    expect(empty.prefillAttention(1, heads)).toBeUndefined()
    expect(empty.launchSeconds).toBe(0)
  })
})

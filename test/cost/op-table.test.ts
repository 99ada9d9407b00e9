// The one lookup of timed ops: rows as they are, what lies between, beyond and beside them, and that each says so. Errors are
// of the shipped table with rows left out.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import { deviceNamed, type Device } from "../../core/cost/devices.ts"
import { loadOf, measuredRow, type MeasuredRow } from "../../core/cost/measures.ts"
import { OpTable } from "../../core/cost/op-table.ts"
import type { Cost } from "../../core/cost/provenance.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { operand } from "../../core/kernels/kernel.ts"
import type { Measure, Sizes } from "../../core/kernels/measure.ts"
import { dtypeBits, type Dtype } from "../../core/machine/tensor.ts"
import type { OpCost } from "../../core/profile.ts"
import { readProfile } from "../../traces/profile-file.ts"

const shipped = await Effect.runPromise(
  readProfile(new URL("../../traces/profiles/h200-ops.arrow", import.meta.url).pathname)
)
const h200 = deviceNamed("NVIDIA H200")!
const tableOf = (ops: ReadonlyArray<OpCost>, device?: Device): OpTable =>
  new OpTable(ops, { measuredOn: { name: shipped.device, device: deviceNamed(shipped.device) }, device })
const table = tableOf(shipped.ops)

/** A launch of the plain kernel of a kind. */
const ask = (
  from: OpTable,
  measure: Measure,
  sizes: Sizes,
  dtype: Dtype = "bfloat16",
  kernel = "another kernel"
): Cost | undefined => {
  const { flops16, bytes } = loadOf(measure, sizes, dtypeBits[dtype])
  const work = { flops: (flops16 * 16) / dtypeBits[dtype], readBytes: bytes, writtenBytes: 0 }
  return from.cost({ kernel: { name: kernel }, measure, sizes, dtype, work })
}
const product = (m: number, k: number, n: number): Sizes => ({ m, k, n })
const decode = (batch: number, kv: number, heads = 32): Sizes => ({
  batch,
  kv,
  heads,
  kvHeads: heads / 4,
  headWidth: 128
})
const prefill = (tokens: number): Sizes => ({ batch: 1, tokens, heads: 32, kvHeads: 8, headWidth: 128 })

const rows = shipped.ops.flatMap((op) => {
  const row = measuredRow(op)
  return row === undefined ? [] : [{ op, row }]
})
const errorOf = (without: ReadonlyArray<OpCost>, { measure, sizes, seconds, name }: MeasuredRow): number =>
  Math.abs(ask(tableOf(without), measure, sizes, "bfloat16", name)!.seconds / seconds - 1)
const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

describe("a table of timed ops", () => {
  it("tells its own rows as they are", () => {
    for (const { row } of rows) {
      expect(ask(table, row.measure, row.sizes, "bfloat16", row.name)).toEqual({
        seconds: row.seconds,
        provenance: "exact",
        detail: ""
      })
    }
    // All but pageable copies and overlapped work.
    expect(rows.length).toBe(82)
    expect(table.unread).toEqual(["h2d_pageable", "overlap_h2d_and_3gemm", "3gemm"])
  })

  it("is within the stated errors at a row left out", () => {
    const errors = Map.groupBy(rows, ({ row }) => row.measure)
    const found = (measure: Measure): { readonly mean: number; readonly worst: number } => {
      const each = errors.get(measure)!.map(({ op, row }) =>
        errorOf(
          shipped.ops.filter((other) => other !== op),
          row
        )
      )
      return { mean: mean(each), worst: Math.max(...each) }
    }
    // docs/costs.md states these.
    for (const [measure, bound] of [
      ["product", { mean: 0.055, worst: 0.36 }],
      ["decode_attention", { mean: 0.035, worst: 0.09 }],
      ["prefill_attention", { mean: 0.2, worst: 0.49 }],
      ["copy", { mean: 0.04, worst: 0.14 }],
      ["h2d", { mean: 0.03, worst: 0.1 }],
      ["d2h", { mean: 0.035, worst: 0.16 }]
    ] as const) {
      const { mean: average, worst } = found(measure)
      expect(average, measure).toBeLessThan(bound.mean)
      expect(worst, measure).toBeLessThan(bound.worst)
    }
  })

  it("is within the stated errors at a weight that was never measured", () => {
    const products = rows.filter(({ row }) => row.measure === "product")
    const weights = Map.groupBy(products, ({ row }) => `${row.sizes["k"]} ${row.sizes["n"]}`)
    expect(weights.size).toBe(4)
    const errors = [...weights.values()].flatMap((own) => {
      const left = shipped.ops.filter((op) => !own.some((one) => one.op === op))
      return own.map(({ row }) => errorOf(left, row))
    })
    expect(mean(errors)).toBeLessThan(0.13)
    expect(Math.max(...errors)).toBeLessThan(0.33)
  })

  it("lies between its rows between them, and never takes less for more attention", () => {
    let inside = 0
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200_000 }),
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 1, max: 100_000 }),
        (kv, batch, more) => {
          const cost = ask(table, "decode_attention", decode(batch, kv))!
          const longer = ask(table, "decode_attention", decode(batch, kv + more))!
          expect(longer.seconds).toBeGreaterThanOrEqual(cost.seconds)
          if (batch * kv >= 1024 && batch * kv <= 32 * 65_536) {
            inside++
            expect(cost.provenance).not.toBe("extrapolated")
            expect(cost.seconds).toBeLessThanOrEqual(
              ask(table, "decode_attention", decode(32, 65_536))!.seconds
            )
          } else if (batch * kv > 3e6 || batch * kv < 512) expect(cost.provenance).toBe("extrapolated")
          const prompt = ask(table, "prefill_attention", prefill(kv))!
          expect(ask(table, "prefill_attention", prefill(kv + more))!.seconds).toBeGreaterThanOrEqual(
            prompt.seconds
          )
        }
      )
    )
    expect(inside).toBeGreaterThan(10)
  })

  it("says when a product lies beyond all that were measured", () => {
    const beyond = ask(table, "product", product(10 * 65_536, 4096, 14_336))!
    expect(beyond.provenance).toBe("extrapolated")
    // By the rate of the largest measured, within a tenth.
    const largest = ask(table, "product", product(65_536, 4096, 14_336))!
    expect(Math.abs(beyond.seconds / (10 * largest.seconds) - 1)).toBeLessThan(0.1)
    expect(ask(table, "product", product(3000, 4096, 14_336))!.provenance).toBe("interpolated")
    expect(ask(table, "product", product(3000, 4096, 14_000))!.provenance).toBe("scaled")
    expect(ask(table, "product", product(1, 8, 8))!.provenance).toBe("extrapolated")
    // No product is shorter than the shortest.
    expect(ask(table, "product", product(1, 8, 8))!.seconds).toBeGreaterThanOrEqual(1.98e-5)
  })

  it("takes a product with its sides exchanged, or a weight's gradient, for as long as the product", () => {
    const known = ask(table, "product", product(16_384, 4096, 14_336))!
    for (const sizes of [product(16_384, 14_336, 4096), product(4096, 16_384, 14_336)]) {
      const turned = ask(table, "product", sizes)!
      expect(turned.seconds).toBeCloseTo(known.seconds, 12)
      expect(turned.provenance).toBe("scaled")
      expect(turned.detail).toContain("sides exchanged")
    }
  })

  it("says of how many other shapes it tells", () => {
    const detail = (measure: Measure, sizes: Sizes) => ask(table, measure, sizes)!.detail
    // All prompts were timed with 32 heads; products in several shapes.
    expect(detail("prefill_attention", { ...prefill(4096), heads: 16 })).toContain(
      " rows of one other shape of "
    )
    expect(detail("product", product(3000, 4096, 14_000))).toMatch(
      / \d+ other shapes of .*, the nearest counting most/u
    )
  })

  it("tells of another dtype by its bits, and says so", () => {
    for (const dtype of ["float32", "float8"] as const) {
      const { seconds, provenance, detail } = ask(table, "product", product(16_384, 4096, 14_336), dtype)!
      expect(provenance).toBe("scaled")
      expect(detail).toContain(`from bfloat16 to ${dtype}`)
      const ratio = dtypeBits[dtype] / 16
      const like = ask(table, "product", product(16_384 * ratio, 4096, 14_336))!
      // As long as so many more rows; a weight's bytes make a small difference.
      expect(Math.abs(seconds / like.seconds - 1)).toBeLessThan(0.02)
    }
    // A table that says its dtype is believed.
    const single = tableOf([
      { op: "gemm", attributes: product(64, 64, 64), medianSeconds: 1e-3, dtype: "float32" }
    ])
    expect(ask(single, "product", product(64, 64, 64), "float32")!.provenance).toBe("exact")
    expect(ask(single, "product", product(64, 64, 64), "bfloat16")!.provenance).not.toBe("exact")
  })

  it("carries times to another device by peak rates, and says so", () => {
    const slower = { name: "half", flopsPerSecond: h200.flopsPerSecond / 2, memoryBytesPerSecond: 2.4e12 }
    const there = tableOf(shipped.ops, slower)
    const big = ask(there, "product", product(16_384, 4096, 14_336))!
    expect(big.provenance).toBe("scaled")
    expect(big.detail).toContain("NVIDIA H200 to half")
    const twice = ask(table, "product", product(2 * 16_384, 4096, 14_336))!
    expect(Math.abs(big.seconds / twice.seconds - 1)).toBeLessThan(0.01)
    // What launches take, and copies over the host's link, stay as they are.
    const small = (from: OpTable) => ask(from, "product", product(16, 768, 3072))!.seconds
    expect(Math.abs(small(there) / small(table) - 1)).toBeLessThan(0.05)
    const copy = { bytes: 2 ** 20 }
    expect(ask(there, "h2d", copy)).toEqual(ask(table, "h2d", copy))
    // The device it was measured on is no other device.
    expect(ask(tableOf(shipped.ops, h200), "product", product(16, 768, 3072))!.provenance).toBe("exact")
  })

  it("tells what only moves bytes by copies, other heads by their work, and never by another kind", () => {
    const moved = ask(table, "traffic", { bytes: 2 * 2 ** 28 })!
    expect(moved.provenance).toBe("scaled")
    expect(moved.seconds).toBeCloseTo(ask(table, "copy", { bytes: 2 ** 28 }, "bfloat16", "d2d")!.seconds, 12)
    const half = ask(table, "decode_attention", decode(32, 65_536, 16))!
    expect(half.provenance).toBe("scaled")
    expect(
      Math.abs(half.seconds / ask(table, "decode_attention", decode(32, 32_768))!.seconds - 1)
    ).toBeLessThan(0.01)
    const onlyCopies = tableOf(shipped.ops.filter(({ op }) => op === "d2d"))
    expect(ask(onlyCopies, "product", product(1, 1, 1))).toBeUndefined()
    expect(ask(onlyCopies, "h2d", { bytes: 1 })).toBeUndefined()
    expect(ask(tableOf([]), "traffic", { bytes: 1 })).toBeUndefined()
    expect(tableOf([]).shortestSeconds).toBe(0)
  })

  it("prefers rows of the kernel itself to rows of its kind", () => {
    const own: OpCost = {
      op: "linear.forward",
      attributes: product(8, 8, 8),
      medianSeconds: 1,
      dtype: "bfloat16"
    }
    const mixed = tableOf([...shipped.ops, own])
    expect(ask(mixed, "product", product(8, 8, 8), "bfloat16", "linear.forward")).toMatchObject({
      seconds: 1
    })
    expect(ask(mixed, "product", product(8, 8, 8), "bfloat16", "gemm")!.seconds).toBeLessThan(1e-4)
  })
})

describe("a fused kernel", () => {
  it("costs what its product does, plus the work that comes with it", () => {
    const costs = makeCostModel({ sources: [table] })
    const fused = Object.values(kernels).filter(
      (kernel) => kernel.expand !== undefined && kernel.measure === "product"
    )
    expect(fused.length).toBeGreaterThan(0)
    const [rows, width, out] = [16_384, 4096, 14_336]
    const product = costs.cost({
      kernel: kernels["linear.forward"],
      reads: [operand([rows, width], "bfloat16"), operand([out, width], "bfloat16")],
      writes: [operand([rows, out], "bfloat16")],
      attributes: {}
    })
    const kernel = kernels["linear_gelu.forward"]
    const reads = [
      operand([rows, width], "bfloat16"),
      operand([out, width], "bfloat16"),
      operand([out], "bfloat16")
    ]
    const writes = kernel.shapes(reads, {})!.map((shape) => operand(shape, "bfloat16"))
    expect(kernel.sizes(reads, writes, {})).toEqual({ m: rows, k: width, n: out })
    const whole = costs.cost({ kernel, reads, writes, attributes: {} })
    expect(whole.seconds).toBeGreaterThanOrEqual(product.seconds)
    expect(whole.seconds).toBeLessThan(1.2 * product.seconds)
  })
})

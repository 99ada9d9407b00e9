import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  ddpBuckets,
  type GradientSize,
  perLayerBuckets,
  singleBucket
} from "../../core/algorithms/data-parallel/plan/buckets.ts"

/** Tensors as PyTorch's own test writes them: element counts of float (4 bytes) and double (8 bytes). */
const tensors = (...sizes: ReadonlyArray<readonly [elements: number, dtype: "float32" | "float64"]>) =>
  sizes.map(([elements, dtype], layer): GradientSize => ({
    layer,
    dtype,
    sizeBytes: elements * (dtype === "float32" ? 4 : 8)
  }))
const indices = (gradients: ReadonlyArray<GradientSize>, first: number, later: number) =>
  ddpBuckets(gradients, { firstBucketBytes: first, bucketBytes: later }).map(({ parameters }) => parameters)

describe("DDP buckets", () => {
  // Inputs and results of ComputeBucketAssignmentTest in PyTorch's test/distributed/test_c10d_common.py.
  it("single limit, single dtype", () => {
    const gradients = tensors([100, "float32"], [200, "float32"], [100, "float32"], [50, "float32"])
    expect(indices(gradients, 400, 400)).toEqual([[0], [1], [2], [3]])
  })
  it("single limit, two dtypes", () => {
    const gradients = tensors(
      [50, "float32"],
      [25, "float64"],
      [50, "float32"],
      [25, "float64"],
      [50, "float32"],
      [25, "float64"]
    )
    expect(indices(gradients, 400, 400)).toEqual([[0, 2], [1, 3], [4], [5]])
  })
  it("two limits, single dtype", () => {
    const gradients = tensors([10, "float32"], [10, "float32"], [10, "float32"], [10, "float32"])
    expect(indices(gradients, 40, 80)).toEqual([[0], [1, 2], [3]])
  })
  it("two limits, two dtypes", () => {
    const gradients = tensors(
      [50, "float32"],
      [25, "float64"],
      [50, "float32"],
      [25, "float64"],
      [50, "float32"],
      [25, "float64"]
    )
    expect(indices(gradients, 200, 400)).toEqual([[0], [1], [2, 4], [3, 5]])
  })

  it("the default limits, worked by hand on a GPT-2 block in ready order", () => {
    // float32 d=768: ln_f bias and weight 3 KiB each, then mlp.c_proj bias, weight 9 MiB, c_fc bias 12 KiB, weight 9 MiB,
    // attention c_proj 2.25 MiB, c_attn 6.75 MiB (biases left out), then the embedding of 147 MiB.
    const kib = 1024
    const mib = 1024 * kib
    const sizes = [3 * kib, 3 * kib, 3 * kib, 9 * mib, 12 * kib, 9 * mib, 2.25 * mib, 6.75 * mib, 147 * mib]
    const gradients = sizes.map((sizeBytes, layer) => ({ layer, sizeBytes, dtype: "float32" }))
    const buckets = ddpBuckets(gradients)
    // 9 KiB + 9 MiB passes 1 MiB; then 12 KiB + 9 + 2.25 + 6.75 MiB is still short of 25, so the embedding joins it.
    expect(buckets.map(({ parameters }) => parameters)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7, 8]
    ])
    expect(buckets.map(({ sizeBytes }) => sizeBytes)).toEqual([9 * kib + 9 * mib, 12 * kib + 165 * mib])
    expect(buckets.map(({ readyAfter }) => readyAfter)).toEqual([3, 8])
  })

  it("launches in order: a bucket waits for the earlier ones", () => {
    const gradients = tensors([10, "float64"], [10, "float32"], [10, "float32"], [1, "float64"])
    const buckets = ddpBuckets(gradients, { firstBucketBytes: 80, bucketBytes: 80 })
    expect(buckets.map(({ parameters, readyAfter }) => [parameters, readyAfter])).toEqual([
      [[0], 0],
      [[1, 2], 2],
      [[3], 3]
    ])
  })

  it("every bucketing holds every gradient once, in ready order, one dtype to a bucket", () => {
    const gradient = fc.record({
      layer: fc.nat(5),
      sizeBytes: fc.oneof(fc.nat(2_000_000), fc.nat(60_000_000)),
      dtype: fc.constantFrom("float32", "bfloat16")
    })
    let several = 0
    fc.assert(
      fc.property(fc.array(gradient, { maxLength: 30 }), (gradients) => {
        for (const bucketing of [ddpBuckets, perLayerBuckets, singleBucket]) {
          const buckets = bucketing(gradients)
          expect(buckets.flatMap(({ parameters }) => parameters).toSorted((a, b) => a - b)).toEqual(
            gradients.map((_, index) => index)
          )
          let readyAfter = -1
          for (const bucket of buckets) {
            expect(bucket.parameters).toEqual(bucket.parameters.toSorted((a, b) => a - b))
            for (const index of bucket.parameters) expect(gradients[index]!.dtype).toBe(bucket.dtype)
            expect(bucket.sizeBytes).toBe(
              bucket.parameters.reduce((sum, index) => sum + gradients[index]!.sizeBytes, 0)
            )
            expect(bucket.readyAfter).toBe(Math.max(readyAfter, ...bucket.parameters))
            readyAfter = bucket.readyAfter
          }
          if (buckets.length > 2) several++
        }
        // Without its last gradient no full bucket had reached 25 MiB; per dtype only the last may be short of it.
        for (const dtype of ["float32", "bfloat16"]) {
          const own = ddpBuckets(gradients).filter((bucket) => bucket.dtype === dtype)
          for (const [position, { parameters, sizeBytes }] of own.entries()) {
            const limit = position === 0 ? 2 ** 20 : 25 * 2 ** 20
            expect(sizeBytes - gradients[parameters.at(-1)!]!.sizeBytes).toBeLessThan(limit)
            if (position < own.length - 1) expect(sizeBytes).toBeGreaterThanOrEqual(limit)
          }
        }
      }),
      { numRuns: 500 }
    )
    expect(several).toBeGreaterThan(100)
  })
})

describe("the other bucketings", () => {
  const gradients = [3, 3, 2, 1, 1, 3].map((layer, index) => ({
    layer,
    sizeBytes: index + 1,
    dtype: "float32"
  }))
  it("per layer: launched when a layer's last gradient is ready", () => {
    // Layer 3 has a gradient that comes last (a tied weight): it must not hold up layers 2 and 1.
    expect(perLayerBuckets(gradients).map(({ parameters, readyAfter }) => [parameters, readyAfter])).toEqual([
      [[2], 2],
      [[3, 4], 4],
      [[0, 1, 5], 5]
    ])
  })
  it("single: one for all", () => {
    expect(singleBucket(gradients)).toEqual([
      { parameters: [0, 1, 2, 3, 4, 5], sizeBytes: 21, dtype: "float32", readyAfter: 5 }
    ])
    expect(singleBucket([])).toEqual([])
  })
})

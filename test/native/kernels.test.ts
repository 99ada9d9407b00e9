// Every native kernel against its TypeScript reference, over drawn shapes, attributes, dtypes and values.
import * as fc from "fast-check"
import { afterAll, expect, it } from "vitest"
import { collectives, kernels, type KernelName } from "../../core/kernels/catalogue.ts"
import type { Kernel } from "../../core/kernels/kernel.ts"
import { nativeInfo, NativeSession, useBlas } from "../../exec/native.ts"
import { backend, describeNative } from "./addon.ts"
import type { KernelCases } from "./cases/draw.ts"
import { checkKernel, drawFrom } from "./check.ts"
import { expertCases } from "./cases/experts.ts"
import { fusedCases } from "./cases/fused.ts"
import { modelCases } from "./cases/model.ts"
import { moeOrderCases } from "./cases/moe-order.ts"
import { scheduleCases } from "./cases/schedule.ts"
import { servingCases } from "./cases/serving.ts"

/** Collectives have their own tests; copies, barrier and profiled are tested with sessions. */
const kernelCases: KernelCases = {
  ...modelCases,
  ...fusedCases,
  ...expertCases,
  ...moeOrderCases,
  ...servingCases,
  ...scheduleCases
}

describeNative("native kernels", () => {
  const session = NativeSession.open({ ranks: 1, backend })
  afterAll(() => session.close())
  const info = nativeInfo()
  const backends = "missing" in info ? [] : info.backends
  const own = new Set(backends.find(({ name }) => name === backend)?.kernels)

  it("are all of the catalogue, and there is a case for each", () => {
    for (const one of backends.filter(({ available }) => available)) {
      // A composite without a kernel of its own is its parts.
      const apart = Object.values<Kernel>(kernels).filter(
        ({ name, expand }) => expand === undefined || one.kernels.includes(name)
      )
      expect(one.kernels.toSorted()).toEqual(apart.map(({ name }) => name).toSorted())
    }
    const untested = [...own].filter((name) => !(name in kernelCases))
    expect(untested.toSorted()).toEqual(
      [...Object.keys(collectives), "barrier", "d2d", "d2h", "h2d", "profiled"].toSorted()
    )
  })

  for (const [name, make] of Object.entries(kernelCases)) {
    it(`${name} equals its reference`, async () => {
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 1e9 }), async (seed) => {
          const draw = drawFrom(seed)
          await checkKernel(session, kernels[name as KernelName], make(draw), draw)
        }),
        { numRuns: 40 }
      )
    })
  }

  it("multiply the same with the own product as with OpenBLAS, and sizes beyond one block", async () => {
    const info = nativeInfo()
    const before = "missing" in info ? "own" : info.blas
    try {
      for (const blas of [before, "own"]) {
        useBlas(blas)
        await fc.assert(
          fc.asyncProperty(
            fc.integer({ min: 1, max: 1e9 }),
            fc.constantFrom(
              [7, 300, 40], // depth beyond a panel
              [110, 20, 30], // rows beyond a block
              [5, 40, 1050], // columns beyond a block
              [1, 513, 1],
              [97, 257, 17]
            ),
            fc.constantFrom("linear.forward", "linear.backward_input", "linear.backward_weight"),
            async (seed, [rows, inWidth, outWidth], name) => {
              const draw = drawFrom(seed)
              const floats = (...shape: ReadonlyArray<number>) => ({ shape, dtype: "float32" as const })
              const inputs = {
                "linear.forward": [floats(rows!, inWidth!), floats(outWidth!, inWidth!), floats(outWidth!)],
                "linear.backward_input": [floats(rows!, outWidth!), floats(outWidth!, inWidth!)],
                "linear.backward_weight": [floats(rows!, outWidth!), floats(rows!, inWidth!)]
              }[name]!
              await checkKernel(session, kernels[name], { inputs }, draw)
            }
          ),
          { numRuns: 20 }
        )
      }
    } finally {
      useBlas(before)
    }
  })
})

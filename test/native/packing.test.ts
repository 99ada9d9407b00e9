// Where rounding to a grid turns: packed formats of the native layer at the halfway points between their numbers, and next to them.
import { afterAll, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { NativeSession } from "../../exec/native.ts"
import { backend, describeNative } from "./addon.ts"
import { checkKernel, drawFrom } from "./check.ts"

/** Every number of a grid that is at least zero, from its definition: float4 is E3M0 with a bias of 3, float8 E4M3 with one of 7. */
const grids = {
  float4: [0, ...[-2, -1, 0, 1, 2, 3, 4].map((exponent) => 2 ** exponent)],
  float8: [
    ...Array.from({ length: 8 }, (_, i) => i / 512),
    ...Array.from({ length: 15 }, (_, e) => Array.from({ length: 8 }, (_, m) => (1 + m / 8) * 2 ** (e - 6)))
      .flat()
      .slice(0, -1)
  ],
  int8: Array.from({ length: 128 }, (_, i) => i)
}

const bits = new DataView(new ArrayBuffer(4))
/** The float32 so many steps further from zero. */
const stepped = (value: number, steps: number): number => {
  bits.setFloat32(0, value)
  bits.setInt32(0, bits.getInt32(0) + steps)
  return bits.getFloat32(0)
}

describeNative("packing at the halfway points of a grid", () => {
  const session = NativeSession.open({ ranks: 1, backend })
  afterAll(() => session.close())

  for (const [format, grid] of Object.entries(grids) as ReadonlyArray<[keyof typeof grids, Array<number>]>)
    it(format, async () => {
      const most = grid.at(-1)!
      // Powers of two, whose halfways are floats; numbers whose halfways are none; and so small that values have few bits.
      for (const scale of [
        1,
        2 ** -100,
        Math.fround(1 / 3),
        1.1754943508222875e-38,
        7 * 2 ** -149,
        2 ** -149
      ]) {
        const values: Array<number> = [most * scale, 0, -0]
        for (let i = 1; i < grid.length; i++) {
          const halfway = Math.fround(((grid[i - 1]! + grid[i]!) / 2) * scale)
          for (const steps of [-2, -1, 0, 1, 2]) {
            const value = halfway === 0 && steps < 0 ? 0 : stepped(halfway, steps)
            if (value <= most * scale) values.push(value, -value)
          }
        }
        const input = { shape: [values.length], dtype: "float32" as const, value: (i: number) => values[i]! }
        expect(values.length).toBeGreaterThan(4 * grid.length)
        await checkKernel(session, kernels[`pack.${format}`], { inputs: [input] }, drawFrom(1))
      }
    })
})

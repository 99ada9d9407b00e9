// An expert's layer in one launch against the separate kernels it stands for.
import * as fc from "fast-check"
import { expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { round } from "../../core/kernels/rounding.ts"
import { numbers, random, run, type Value } from "./run.ts"

const rowsOf = ({ shape, data }: Value, first: number, count: number): Value => ({
  shape: [count, ...shape.slice(1)],
  data: data.slice(first * shape[1]!, (first + count) * shape[1]!)
})

it("is up projection, activation and down projection of its rows, and leaves the others alone", () => {
  fc.assert(
    fc.property(
      fc.nat(),
      fc.boolean(),
      fc.constantFrom("float64", "bfloat16"),
      fc.tuple(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 6 })
      ),
      fc.tuple(fc.nat(), fc.nat()),
      (seed, gated, storedAs, [width, ffn, assignments], [from, many]) => {
        const next = numbers(seed)
        const first = from % assignments
        const count = many % (assignments - first + 1)
        const upRows = gated ? 2 * ffn : ffn
        const up = random(next, [upRows, width])
        const down = random(next, [width, ffn])
        const weights = {
          shape: [gated ? 3 * ffn : 2 * ffn, width],
          data: Float64Array.from([...up.data, ...down.data])
        }
        const inp = random(next, [assignments, width])
        const hidden = random(next, [assignments, upRows])
        const out = random(next, [assignments, width])
        const own = rowsOf(inp, first, count)
        const [raised] = run(kernels["linear.forward"], [own, up])
        const [active] = gated
          ? run(kernels["swiglu.forward"], [raised!], { packed: true })
          : [{ shape: raised!.shape, data: raised!.data.map((x) => Math.max(0, x)) }]
        const narrow = storedAs === "bfloat16"
        const kept = {
          shape: active!.shape,
          data: narrow ? active!.data.map(round("bfloat16")) : active!.data
        }
        const [expected] = run(kernels["linear.forward"], [kept, down])

        const results = [
          { shape: hidden.shape, data: hidden.data.slice() },
          { shape: out.shape, data: out.data.slice() }
        ] as const
        const call = [inp, weights, ...results] as const
        kernels["expert_ffn.forward"].reference!(
          call.map(({ data }) => data),
          results.map(({ data }) => data),
          { first, count, gated },
          {
            inputs: call.map(({ shape }) => shape),
            outputs: results.map(({ shape }) => shape),
            ...(narrow ? { outputDtypes: ["bfloat16", "float32"] } : {})
          }
        )
        const computed = rowsOf(results[1], first, count).data
        for (let i = 0; i < computed.length; i++) expect(computed[i]).toBeCloseTo(expected!.data[i]!, 12)
        const untouched = (value: Value) => [
          ...rowsOf(value, 0, first).data,
          ...rowsOf(value, first + count, assignments - first - count).data
        ]
        expect(untouched(results[1])).toEqual(untouched(out))
        expect(untouched(results[0])).toEqual(untouched(hidden))
        for (let row = first; row < first + count; row++) {
          for (let h = 0; h < ffn; h++) {
            expect(results[0].data[row * upRows + h]).toBeCloseTo(kept.data[(row - first) * ffn + h]!, 12)
          }
        }
      }
    )
  )
})

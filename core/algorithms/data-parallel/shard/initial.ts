// What flat tensors hold at first, and parts of them: what the parameters hold that lie there. Knows no machine.
import { initialValues, stretchOf } from "../../../machine/initial.ts"
import { elementsOf, type Initial } from "../../../machine/tensor.ts"
import type { ParameterSpec } from "../storage.ts"
import type { Flat } from "./layout.ts"

/** What a stretch of a flat tensor begins with; zeros between parameters. */
export const flatInitial = (
  { members }: Flat,
  parameters: ReadonlyArray<ParameterSpec>,
  from: number,
  count: number
): Initial => {
  const own = members.flatMap(({ parameter, offset }) => {
    const { shape, initial } = parameters[parameter]!
    return initial === undefined ? [] : [{ offset, shape, initial }]
  })
  const given = own.flatMap(({ initial }) => (typeof initial === "function" ? [] : [initial]))
  if (given.length === own.length) {
    return own.flatMap(({ offset, shape }, i) =>
      given[i]!.flatMap((drawn) => {
        const begin = Math.max(from, offset)
        const end = Math.min(from + count, offset + elementsOf(shape))
        return stretchOf(drawn, begin - offset, end - offset, begin - from)
      })
    )
  }
  return () => {
    const values = new Float32Array(count)
    for (const { offset, shape, initial } of own) {
      const begin = Math.max(from, offset)
      const end = Math.min(from + count, offset + elementsOf(shape))
      if (end <= begin) continue
      const all = initialValues({ shape, dtype: "float32", initial })
      values.set(all.subarray(begin - offset, end - offset), begin - from)
    }
    return values
  }
}

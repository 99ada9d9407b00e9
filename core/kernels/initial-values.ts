// Values that tensors begin with, drawn where they lie: nothing comes from the host, and a slice of a tensor draws what the
// whole would have there.
import { normals } from "./counter-hash.ts"
import { defineKernel, number } from "./kernel.ts"

/**
 * out[i] = deviation * normal number `first + i` of `seed`, rounded to the tensor's dtype: mean 0, within 6 deviations. In
 * place: the input's values are not looked at. `first` is where the tensor begins in what is drawn, for a slice of it.
 */
export const normalValues = defineKernel({
  name: "normal_values",
  signature: "inp[...] -> out[...]",
  attributes: { seed: number(), deviation: number(1), first: number(0) },
  // six words of some ten operations each, and their sum
  flops: ({ rows }) => 75 * rows,
  readBytes: () => 0,
  reference: (_, [out], { a }) => {
    const draw = normals(a.seed)
    for (let i = 0; i < out.length; i++) out[i] = a.deviation * draw(a.first + i)
  }
})

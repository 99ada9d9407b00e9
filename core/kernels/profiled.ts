// A kernel whose cost only a profile can give: "this layer, this phase". It stands for however many launches the profile
// timed, so it has no shape rule, no work and no values.
import { attributeResolver, number, text, type Kernel } from "./kernel.ts"

const attributes = {
  /** Index into the profile's layers. */
  layer: number(),
  phase: text(),
  /** Of the device's time: what a rank does that has a part of the layer. */
  share: number(1)
}

const check = attributeResolver("profiled", attributes)

export const profiled: Kernel<"profiled"> = {
  name: "profiled",
  kind: "compute",
  signature: "any number of operands -> any number of operands",
  attributes,
  scalars: [],
  costFollowsScalars: false,
  inputDtypes: [],
  outputDtypes: [],
  shapes: (_, given) => {
    check(given)
    return undefined
  },
  work: () => ({ flops: 0, readBytes: 0, writtenBytes: 0 }),
  measure: "traffic",
  sizes: () => ({ bytes: 0 })
}

// Copies between the memories of one rank. The value never changes; what differs is the way the bytes take.
import { defineKernel } from "./kernel.ts"

const declareCopy = <const Name extends "h2d" | "d2h" | "d2d">(name: Name) =>
  defineKernel({
    name,
    kind: "copy",
    signature: "inp[...] -> out[...]",
    flops: () => 0,
    measure: name === "d2d" ? "copy" : name,
    sizes: (_, [inp]) => ({ bytes: inp.sizeBytes }),
    reference: ([inp], [out]) => out.set(inp)
  })

/** Host memory to device memory. */
export const h2d = declareCopy("h2d")
/** Device memory to host memory. */
export const d2h = declareCopy("d2h")
/** Device memory to device memory of the same rank. */
export const d2d = declareCopy("d2d")

// What an op of serving costs: from a table of measured kernels, or from a step time fitted to a published table; what
// neither has is a roofline estimate. Whatever is not a measured row is listed in `estimates`.
import { parseIntegers } from "../../../core/kernels/integer-list.ts"
import type { Op } from "../../../core/machine/op.ts"
import type { CostModel, Estimate } from "../../../core/cost/cost-model.ts"
import { rooflineSeconds, type Device } from "../../../core/cost/roofline.ts"
import { type AttentionHeads, type MeasuredOps, type Reckoned } from "./measured-ops.ts"

export interface MeasuredCosts {
  readonly ops: MeasuredOps | undefined
  /** For what the table lacks. */
  readonly device: Device
  /** Least time of a kernel that the table lacks. */
  readonly launchSeconds: number
  /** Copies to and from host memory run at this rate, where not as measured. */
  readonly hostBytesPerSecond: number | undefined
}

const headsOf = ({ attributes }: Op): AttentionHeads => ({
  heads: Number(attributes["heads"]),
  kvHeads: Number(attributes["kvHeads"]),
  headWidth: Number(attributes["headWidth"])
})

const lengthsOf = ({ kernel, attributes }: Op): ReadonlyArray<number> =>
  parseIntegers(kernel.name, "lengths", String(attributes["lengths"]))

const sumOf = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0)

/** The row of a table that an op's time comes from, if there is one. */
const fromTable = (op: Op, ops: MeasuredOps): Reckoned | undefined => {
  const { kernel, reads } = op
  switch (kernel.name) {
    case "linear.forward": {
      const [n, k] = reads[1]!.shape
      return ops.gemm(reads[0]!.elements / k!, k!, n!)
    }
    case "kv.attention": {
      const lengths = lengthsOf(op)
      return ops.decodeAttention(lengths.length, sumOf(lengths), headsOf(op))
    }
    case "attention.forward":
      return ops.prefillAttention(reads[0]!.shape[1]!, headsOf(op))
    case "h2d":
    case "d2h":
      return ops.copy(`${kernel.name}_pinned`, op.sizeBytes)
    // Compaction and placement move rows inside the device.
    case "kv.gather":
    case "kv.place":
    case "copy":
      return ops.copy("d2d", kernel.work(reads, op.writes, op.attributes).writtenBytes)
    default:
      return undefined
  }
}

/** Costs by kernel and shape. */
export const measuredCosts = ({
  ops,
  device,
  launchSeconds,
  hostBytesPerSecond
}: MeasuredCosts): CostModel => {
  const notes = new Map<string, Estimate>()
  const note = (kernel: string, source: Estimate["source"], detail: string): void => {
    const key = `${kernel} ${source} ${detail}`
    if (!notes.has(key)) notes.set(key, { kernel, source, detail })
  }
  // A step's layers submit the same kernels on the same shapes, with attributes that they share.
  const known = new WeakMap<object, Map<string, number>>()
  const reckon = (op: Op): number => {
    const { kernel, reads, writes, attributes } = op
    if (hostBytesPerSecond !== undefined && (kernel.name === "h2d" || kernel.name === "d2h"))
      return op.sizeBytes / hostBytesPerSecond
    const found = ops === undefined ? undefined : fromTable(op, ops)
    if (found !== undefined) {
      if (found.how !== undefined) note(kernel.name, "interpolated", found.how)
      return found.seconds
    }
    const launch =
      launchSeconds > 0 ? `, at least the ${(launchSeconds * 1e6).toPrecision(3)} us of a launch` : ""
    note(kernel.name, "roofline", `${device.name}: peak rates, so a lower bound${launch}`)
    return Math.max(launchSeconds, rooflineSeconds(kernel.work(reads, writes, attributes), device))
  }
  return {
    seconds(op) {
      const { attributes, kernel, reads } = op
      if (attributes["lengths"] === undefined && attributes["positions"] === undefined) return reckon(op)
      let same = known.get(attributes)
      if (same === undefined) known.set(attributes, (same = new Map()))
      const key = `${kernel.name} ${reads[0]!.elements}`
      let seconds = same.get(key)
      if (seconds === undefined) same.set(key, (seconds = reckon(op)))
      return seconds
    },
    get estimates() {
      return [...notes.values()]
    }
  }
}

/** A step time as published tables allow to fit it: so much for each step, so much more for each cached token. */
export interface FittedCosts {
  readonly stepSeconds: number
  readonly tokenSeconds: number
  /** Rate at which prefill gets through its arithmetic. */
  readonly prefillFlopsPerSecond: number
  readonly layers: number
}

/**
 * Every decoding step takes stepSeconds + tokenSeconds * (cached tokens of the batch, mean over layers); prefill takes its
 * FLOPs at the given rate; nothing else takes time.
 */
export const fittedCosts = ({
  stepSeconds,
  tokenSeconds,
  prefillFlopsPerSecond,
  layers
}: FittedCosts): CostModel => ({
  seconds(op) {
    const { kernel, reads, writes, attributes } = op
    // Once in each step, whatever the batch.
    if (kernel.name === "concat_rows") return stepSeconds
    if (kernel.name === "kv.attention") return (tokenSeconds * sumOf(lengthsOf(op))) / layers
    const ofPrompt =
      reads[0]?.shape.length === 3 && kernel.kind === "compute" && !kernel.name.startsWith("kv.place")
    return ofPrompt ? kernel.work(reads, writes, attributes).flops / prefillFlopsPerSecond : 0
  },
  estimates: [
    {
      kernel: "decoding step",
      source: "interpolated",
      detail: "a fitted line: so much a step, so much a cached token; no kernel by itself"
    }
  ]
})

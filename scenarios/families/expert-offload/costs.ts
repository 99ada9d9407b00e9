// What generation with offloaded experts costs, from timed GEMMs, copies and attention: a layer of the model is many
// launches of a few measured kinds. What nobody measured falls to the roofline of the device, and is noted.
import { kernels } from "../../../core/kernels/catalogue.ts"
import { operand } from "../../../core/kernels/kernel.ts"
import { Lane } from "../../../core/machine/lane.ts"
import { launch, type Op } from "../../../core/machine/op.ts"
import type { OpCost } from "../../../core/profile.ts"
import { interpolate, makeCostModel, type CostModel, type Estimate } from "../../../core/cost/cost-model.ts"
import type { Device } from "../../../core/cost/roofline.ts"

export interface HostLink {
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}

export interface OffloadCosts {
  /** Rows of a profile: gemm_bf16, h2d_pinned, d2h_pinned, attention_decode_bf16, attention_prefill_bf16. */
  readonly ops: ReadonlyArray<OpCost>
  /** Whether those rows were measured on the device that is simulated; copies hold for any. */
  readonly sameDevice: boolean
  readonly device: Device
  /** Copies as this link would make them; default: as measured. */
  readonly hostLink: HostLink | undefined
}

interface Curve {
  readonly at: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

/** Rows of one op whose other attributes are `fixed`, by the attribute `free`. */
const curveOf = (
  ops: ReadonlyArray<OpCost>,
  name: string,
  free: string,
  fixed: Readonly<Record<string, number>> = {}
): Curve | undefined => {
  const rows = ops
    .filter(
      ({ op, attributes }) =>
        op === name &&
        attributes[free] !== undefined &&
        Object.entries(fixed).every(([key, value]) => attributes[key] === value)
    )
    .toSorted((a, b) => a.attributes[free]! - b.attributes[free]!)
  if (rows.length === 0) return undefined
  return {
    at: rows.map(({ attributes }) => attributes[free]!),
    seconds: rows.map(({ medianSeconds }) => medianSeconds)
  }
}

export const offloadCosts = ({ ops, sameDevice, device, hostLink }: OffloadCosts): CostModel => {
  const roofline = makeCostModel({ device })
  const curves = new Map<string, Curve | undefined>()
  const notes = new Map<string, Estimate>()
  const lookUp = (
    kernel: string,
    key: string,
    make: () => Curve | undefined,
    x: number
  ): number | undefined => {
    if (!curves.has(key)) curves.set(key, make())
    const curve = curves.get(key)
    if (curve === undefined) return undefined
    const exact = curve.at.indexOf(x)
    if (exact >= 0) return curve.seconds[exact]!
    const { value, inside } = interpolate(curve.at, curve.seconds, x)
    const source = inside ? "interpolated" : "extrapolated"
    if (!notes.has(`${kernel} ${source}`)) {
      const detail = `${key}: ${x} from ${curve.at.length} measured points, ${curve.at[0]} to ${curve.at.at(-1)}`
      notes.set(`${kernel} ${source}`, { kernel, source, detail })
    }
    return value
  }
  const copy = (op: Op, name: string): number | undefined =>
    hostLink === undefined
      ? lookUp(op.kernel.name, name, () => curveOf(ops, name, "bytes"), op.sizeBytes)
      : hostLink.latencySeconds + op.sizeBytes / hostLink.bytesPerSecond
  /** A product with its sides exchanged moves the same bytes and computes as much. */
  const gemm = (kernel: string, m: number, k: number, n: number): number | undefined =>
    sameDevice
      ? (lookUp(kernel, `gemm_bf16 k=${k} n=${n}`, () => curveOf(ops, "gemm_bf16", "m", { k, n }), m) ??
        lookUp(kernel, `gemm_bf16 k=${n} n=${k}`, () => curveOf(ops, "gemm_bf16", "m", { k: n, n: k }), m))
      : undefined
  const measured = (op: Op): number | undefined => {
    const { name } = op.kernel
    switch (name) {
      case "h2d":
        return copy(op, "h2d_pinned")
      case "d2h":
        return copy(op, "d2h_pinned")
      case "linear.forward": {
        const [n, k] = op.reads[1]!.shape as readonly [number, number]
        return gemm(name, op.writes[0]!.elements / n, k, n)
      }
      case "expert_ffn.forward": {
        const [rows, width] = op.reads[1]!.shape as readonly [number, number]
        const matrices = op.attributes["gated"] === true ? 3 : 2
        const one = gemm(name, op.attributes["count"] as number, width, rows / matrices)
        return one === undefined ? undefined : matrices * one
      }
      case "kv.attention": {
        if (!sameDevice) return undefined
        const { heads, kvHeads, headWidth, lengths } = op.attributes as Readonly<
          Record<string, number | string>
        >
        const rows = String(lengths).split(",").map(Number)
        const fixed = {
          batch: rows.length,
          q_heads: Number(heads),
          kv_heads: Number(kvHeads),
          d: Number(headWidth)
        }
        const mean = rows.reduce((sum, length) => sum + length, 0) / rows.length
        return lookUp(
          name,
          `attention_decode_bf16 ${Object.values(fixed).join(" ")}`,
          () => curveOf(ops, "attention_decode_bf16", "kv", fixed),
          mean
        )
      }
      default:
        return undefined
    }
  }
  return {
    seconds: (op) => measured(op) ?? roofline.seconds(op),
    get estimates() {
      return [...notes.values(), ...roofline.estimates]
    }
  }
}

/** One copy of so many bytes to the device. */
export const loadSeconds = (costs: OffloadCosts, sizeBytes: number): number => {
  const sized = { ...operand([sizeBytes], "int8"), id: 0, name: "expert", place: "host" as const }
  return offloadCosts(costs).seconds(launch("load", kernels.h2d, Lane.h2d, [sized], [sized]))
}

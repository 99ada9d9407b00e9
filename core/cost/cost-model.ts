// What an op costs on one rank: measured where the profile has it, otherwise interpolated, otherwise a roofline
// estimate. Whatever is not measured is noted, so that the report can say so. Collectives are the network's business.
import type { ProfiledPhase } from "../algorithms/data-parallel/training-model.ts"
import type { Op } from "../machine/op.ts"
import type { OpCost, Profile } from "../profile.ts"
import { rooflineSeconds, type Device } from "./roofline.ts"

/** `span`: device time plus the host's launch gaps. `busy`: device time alone, as if the host were never late. */
export type HostTime = "span" | "busy"

/** A kind of op whose cost was not measured, and what stands for it. */
export interface Estimate {
  readonly kernel: string
  readonly source: "interpolated" | "extrapolated" | "roofline" | "free"
  readonly detail: string
}

export interface CostModel {
  /** Seconds of `op` on a rank at full speed. */
  seconds(op: Op): number
  readonly estimates: ReadonlyArray<Estimate>
}

export interface CostOptions {
  /** Layer times of a training step. */
  readonly profile?: Profile | undefined
  /** Which of a layer's two times counts. Default "span". */
  readonly hostTime?: HostTime
  /** Timed kernels and copies outside the layer structure. */
  readonly ops?: ReadonlyArray<OpCost>
  /** For what no table has; without one, such ops are free, and noted. */
  readonly device?: Device | undefined
}

const sizeKeys = ["m", "tokens", "kv", "bytes", "batch"] as const

/** Rows of one op that agree in every attribute but one, by that attribute. */
interface Series {
  readonly at: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
}

const seriesKey = (op: string, attributes: OpCost["attributes"], free: string): string => {
  const rest = Object.keys(attributes)
    .filter((key) => key !== free)
    .toSorted()
    .map((key) => `${key}=${attributes[key]}`)
  return `${op} ${free} ${rest.join(" ")}`
}

const buildSeries = (rows: ReadonlyArray<OpCost>): ReadonlyMap<string, Series> => {
  const points = new Map<string, Array<{ at: number; seconds: number }>>()
  for (const { op, attributes, medianSeconds } of rows) {
    for (const free of sizeKeys) {
      const at = attributes[free]
      if (at === undefined) continue
      const key = seriesKey(op, attributes, free)
      const list = points.get(key)
      if (list === undefined) points.set(key, [{ at, seconds: medianSeconds }])
      else list.push({ at, seconds: medianSeconds })
    }
  }
  const series = new Map<string, Series>()
  for (const [key, list] of points) {
    const sorted = list.toSorted((a, b) => a.at - b.at)
    series.set(key, { at: sorted.map(({ at }) => at), seconds: sorted.map(({ seconds }) => seconds) })
  }
  return series
}

/** Piecewise linear through the points; the first and last pieces extend beyond them, and never below zero. */
export const interpolate = (
  at: ReadonlyArray<number>,
  values: ReadonlyArray<number>,
  x: number
): { readonly value: number; readonly inside: boolean } => {
  const last = at.length - 1
  if (last === 0) return { value: values[0]!, inside: x === at[0] }
  let i = 1
  while (i < last && at[i]! < x) i++
  const share = (x - at[i - 1]!) / (at[i]! - at[i - 1]!)
  const value = values[i - 1]! + share * (values[i]! - values[i - 1]!)
  return { value: Math.max(0, value), inside: x >= at[0]! && x <= at[last]! }
}

export const makeCostModel = (options: CostOptions): CostModel => {
  const { profile, device, hostTime = "span" } = options
  const series = buildSeries(options.ops ?? [])
  const notes = new Map<string, Estimate>()
  const note = (kernel: string, source: Estimate["source"], detail: string): void => {
    const key = `${kernel} ${source}`
    if (!notes.has(key)) notes.set(key, { kernel, source, detail })
  }

  const fromTable = (op: Op): number | undefined => {
    const name = op.kernel.name
    const attributes: Record<string, number> = {}
    for (const [key, value] of Object.entries(op.attributes)) {
      if (typeof value === "number") attributes[key] = value
    }
    if (op.kernel.kind === "copy") attributes["bytes"] = op.sizeBytes
    for (const free of sizeKeys) {
      const x = attributes[free]
      if (x === undefined) continue
      const known = series.get(seriesKey(name, attributes, free))
      if (known === undefined) continue
      const exact = known.at.indexOf(x)
      if (exact >= 0) return known.seconds[exact]!
      if (known.at.length < 2) continue
      const { value, inside } = interpolate(known.at, known.seconds, x)
      note(
        name,
        inside ? "interpolated" : "extrapolated",
        `${free}=${x} from ${known.at.length} measured points, ${known.at[0]} to ${known.at.at(-1)}`
      )
      return value
    }
    return undefined
  }

  return {
    seconds(op) {
      const { kernel, attributes } = op
      if (kernel.name === "barrier") return 0
      if (kernel.name === "profiled") {
        const layer = profile?.layers[attributes["layer"] as number]
        if (layer === undefined) throw new RangeError(`op "${op.label}" names a layer that the profile lacks`)
        const cost = layer[attributes["phase"] as ProfiledPhase]
        return hostTime === "span" ? cost.spanSeconds : cost.busySeconds
      }
      const measured = fromTable(op)
      if (measured !== undefined) return measured
      if (device === undefined) {
        note(kernel.name, "free", "no measurement and no device: counted as 0 s")
        return 0
      }
      const work = kernel.work(op.reads, op.writes, attributes)
      note(kernel.name, "roofline", `${device.name}: peak rates, so a lower bound`)
      return rooflineSeconds(work, device)
    },
    get estimates() {
      return [...notes.values()]
    }
  }
}

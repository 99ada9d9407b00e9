// What an op costs on one rank: by what the scenario states, by tables of measured ops, by a device's peak rates, or nothing.
// The one place where a family's costs come together; whatever is not measured is noted, so that the report can say so.
// Collectives are the network's business.
import type { ProfiledPhase } from "../algorithms/data-parallel/training-model.ts"
import { type Attributes, type Kernel, type Operand } from "../kernels/kernel.ts"
import { countsArithmetic, type Measure, type Part } from "../kernels/measure.ts"
import type { Op } from "../machine/op.ts"
import { dtypeBits, type Dtype } from "../machine/tensor.ts"
import type { PhaseCost, Profile } from "../profile.ts"
import { rooflineSeconds, type Device } from "./devices.ts"
import {
  eagerCountOf,
  hostSecondsOf,
  layerHostSeconds,
  layerShare,
  waitsFor,
  type HostCosts
} from "./host.ts"
import { loadOf } from "./measures.ts"
import type { CostSource, Launch } from "./op-table.ts"
import { Estimates, type Cost, type Estimate } from "./provenance.ts"

export type { Estimate } from "./provenance.ts"

/** `span`: device time plus the host's launch gaps. `busy`: device time alone, as if the host were never late. */
export type HostTime = "span" | "busy"

/** How long ops take. */
export interface CostModel {
  /** Seconds of `op` on a rank at full speed. */
  seconds(op: Op): number
  readonly estimates: ReadonlyArray<Estimate>
  /** What the host's one thread spends, where it is modelled: on a launch, and on a read after the device's end of it. */
  readonly host?: HostLane | undefined
}

export interface HostLane {
  seconds(op: Op): number
  readonly readSeconds: number
  /** On the first launch after a step's begin or a read. */
  readonly replaySeconds: number
  /** Whether what a launch costs is spent on layers of a profile too: some say what is launched for them. */
  readonly launchesLayers: boolean
  /** Whether a step's end is waited for and read before anything more is launched. */
  readonly readsEachStep: boolean
  /** Whether the host launches nothing more until this op has ended. */
  waitsFor(op: Op): boolean
  /** Whether anything so far would have taken the host another time in another mode of the same costs. */
  readonly modeCounts?: boolean
}

/** What of an op its cost may depend on; a call of a layer graph is one, before anything was allocated. */
export interface Costed {
  readonly kernel: Kernel
  readonly attributes: Attributes
  readonly reads: ReadonlyArray<Operand>
  readonly writes: ReadonlyArray<Operand>
}

/** A cost model that says of each op how its time was come by. */
export interface TracedCostModel extends CostModel {
  cost(op: Costed): Cost
  /** Whether any op so far took what a table of timed ops says. */
  readonly lookedUp: boolean
}

/** What a cost model is made of; sources are asked before the device's peak rates. */
export interface CostOptions {
  /** Layer times of a training step. */
  readonly profile?: Profile | undefined
  /** Which of a layer's two times counts. Default "span". */
  readonly hostTime?: HostTime
  /** Whether the device waits for its host in the gaps of a profile's layers. Default true. */
  readonly gapsAreHost?: boolean
  /** Asked in order; the first that knows an op's kind tells its time. */
  readonly sources?: ReadonlyArray<CostSource>
  /** For what no source knows; without one, such ops are free, and noted. */
  readonly device?: Device | undefined
  /** What an unmeasured kernel takes at least. Default: the shortest launch that any source knows. */
  readonly launchSeconds?: number | undefined
  /** The host as a lane; default: it is never late, but for the gaps that a profile's spans hold, and that is noted. */
  readonly host?: HostOptions | "none" | undefined
  /** What products and attention of float32 operands are computed in (autocast). Default: as stored. */
  readonly computeDtype?: Dtype | undefined
}

/** What a scenario says of the host. */
export interface HostOptions {
  readonly costs: HostCosts
  /** Which of its costs are assumed rather than stated or measured, as a phrase. */
  readonly assumed?: string | undefined
  /** How a launch stands for the recorded ones, as a phrase, where it does. */
  readonly scaled?: string | undefined
  /** Whether costs are others because of the mode that is said: those of a graph are, say, or what is usual of it. */
  readonly modeChanges?: boolean | undefined
  /** Launches between two reads of the program that was measured; undefined where it does not read several times a step. */
  readonly launchesPerRead?: number | undefined
}

/** What is told where nothing is known of the host. */
const noHost =
  "launches, calls of collectives, hooks and reads take the host no time: `host:` says what they do (eager, compiled, graph, numbers, or {measured: a profile})"

const exactly = (seconds: number): Cost => ({ seconds, provenance: "exact", detail: "" })

/** Of the operand that the arithmetic is done in: the first that is no list of integers. */
export const arithmeticDtype = (operands: ReadonlyArray<Operand>): Dtype =>
  operands.find(({ dtype }) => dtype !== "int32")?.dtype ?? "int32"

/**
 * The one lookup of all families (docs/costs.md): layers by the profile, then the sources in order, then a
 * roofline of the device, else nothing; whatever is not exact is among its `estimates`.
 */
export const makeCostModel = (options: CostOptions): TracedCostModel => {
  const { profile, device, hostTime = "span", sources = [], computeDtype } = options
  const launchSeconds =
    options.launchSeconds ?? sources.find((source) => source.shortestSeconds > 0)?.shortestSeconds ?? 0
  const estimates = new Estimates()
  let lookedUp = false

  const fromSources = (launch: Launch): Cost | undefined => {
    for (const source of sources) {
      const cost = source.cost(launch)
      if (cost !== undefined) {
        lookedUp = true
        return cost
      }
    }
    return undefined
  }

  /** The sum of what the pieces take; undefined unless every piece is known. */
  const fromParts = (parts: ReadonlyArray<Part>, dtype: Dtype, movedBytes: number): Cost | undefined => {
    // Weights kept narrower than they are computed with move fewer bytes than the products by themselves would.
    const plainBytes = parts.reduce(
      (bytes, { measure, sizes, times }) => bytes + times * loadOf(measure, sizes, dtypeBits[dtype]).bytes,
      0
    )
    const share = movedBytes < 0.9 * plainBytes ? movedBytes / plainBytes : 1
    let sum = exactly(0)
    for (const { measure, sizes, times } of parts) {
      const { flops16, bytes } = loadOf(measure, sizes, dtypeBits[dtype])
      const work = { flops: (flops16 * 16) / dtypeBits[dtype], readBytes: bytes * share, writtenBytes: 0 }
      const cost = fromSources({ kernel: { name: "" }, measure, sizes, dtype, work })
      if (cost === undefined) return undefined
      const told = sum.provenance === "exact" ? cost : sum
      sum = { ...told, seconds: sum.seconds + times * cost.seconds }
    }
    return sum
  }

  const reckon = (op: Costed): Cost => {
    const { kernel, attributes, reads, writes } = op
    const stored = arithmeticDtype([...reads, ...writes])
    const cast = computeDtype !== undefined && stored === "float32" && countsArithmetic(kernel.measure)
    const dtype = cast ? computeDtype : stored
    const whole = kernel.work(reads, writes, attributes)
    const share = dtypeBits[dtype] / dtypeBits[stored]
    const work = cast
      ? { ...whole, readBytes: whole.readBytes * share, writtenBytes: whole.writtenBytes * share }
      : whole
    const sizes = kernel.sizes(reads, writes, attributes)
    // Nothing to compute or move.
    if (Object.values(sizes).some((size) => size === 0)) return exactly(0)
    const launch: Launch = { kernel, measure: kernel.measure, sizes, dtype, work }
    const parts = kernel.parts?.(reads, writes, attributes)
    const known =
      parts === undefined || sources.some((source) => source.knows(kernel.name))
        ? fromSources(launch)
        : (fromParts(parts, dtype, work.readBytes + work.writtenBytes) ?? fromSources(launch))
    if (known !== undefined) return known
    if (device === undefined) {
      return { seconds: 0, provenance: "free", detail: "no measurement and no device: counted as 0 s" }
    }
    const least =
      launchSeconds > 0 ? `, at least the ${(launchSeconds * 1e6).toPrecision(3)} us of a launch` : ""
    const peak =
      device.efficiency === undefined ? "peak rates, so a lower bound" : "peak rates times efficiency"
    return {
      seconds: Math.max(launchSeconds, rooflineSeconds(work, device)),
      provenance: "roofline",
      detail: `${device.name}: ${peak}${least}`
    }
  }

  const cost = (op: Costed): Cost => {
    const { kernel, attributes } = op
    if (kernel.name === "barrier") return exactly(0)
    if (kernel.name === "profiled") {
      const layer = profile?.layers[attributes["layer"] as number]
      if (layer === undefined) throw new RangeError(`layer ${attributes["layer"]} is none of the profile's`)
      const phase = layer[attributes["phase"] as ProfiledPhase]
      return exactly(hostTime === "span" ? spanOf(phase, attributes) : busyOf(phase, attributes))
    }
    const told = reckon(op)
    estimates.note(kernel.name, told)
    return told
  }

  const host = options.host === "none" ? undefined : options.host
  for (const detail of [host?.assumed, host?.scaled])
    if (detail !== undefined) estimates.note("host", { provenance: "scaled", detail })
  // Where the profiled device waits for its host, layers are launched as slowly as their spans say; a device that is never idle
  // says nothing of its host but that it keeps up.
  const { gapsAreHost = true } = options
  const late =
    host !== undefined && profile !== undefined && hostTime === "span" && gapsAreHost && isHostBound(profile)
  const share = host === undefined ? 1 : layerShare(host.costs)
  let modeCounts = host?.modeChanges === true
  const profiled = (op: Op) =>
    profile?.layers[op.attributes["layer"] as number]?.[op.attributes["phase"] as ProfiledPhase]

  return {
    cost,
    seconds: (op) => {
      if (options.host === undefined) estimates.note("host", { provenance: "free", detail: noHost })
      return late && op.kernel.name === "profiled" ? busyOf(profiled(op)!, op.attributes) : cost(op).seconds
    },
    ...(host === undefined
      ? {}
      : {
          host: {
            seconds: (op: Op) => {
              const { launchSeconds } = host.costs
              if (op.kernel.name !== "profiled") {
                modeCounts ||= launchSeconds > 0 && op.group === undefined && eagerCountOf(op.kernel.name) > 1
                return hostSecondsOf(host.costs, op)
              }
              const phase = profiled(op)!
              const { eager = 0, once = 0 } = phase.launches ?? {}
              modeCounts ||= late || (launchSeconds > 0 && eager !== once)
              if (late) return spanOf(phase, op.attributes) * share
              return phase.launches === undefined ? 0 : layerHostSeconds(host.costs, phase.launches)
            },
            readSeconds: host.costs.readSeconds,
            replaySeconds: host.costs.replaySeconds,
            launchesLayers:
              !late &&
              profile?.layers.some(({ forward, backward, optimizer }) =>
                [forward, backward, optimizer].some(({ launches }) => launches !== undefined)
              ) === true,
            readsEachStep: host.costs.readsEachStep === true,
            waitsFor: (op: Op) => {
              modeCounts ||= host.costs.waitsForCopies === undefined && op.onDemand === true
              return waitsFor(host.costs, op)
            },
            get modeCounts() {
              return modeCounts
            }
          }
        }),
    get lookedUp() {
      return lookedUp
    },
    get estimates() {
      return estimates.list
    }
  }
}

/** Device time of a rank that does its share of a layer. */
const busyOf = ({ busySeconds }: PhaseCost, { share = 1 }: Attributes): number => Number(share) * busySeconds

/** The host's gaps stay as they are, however little the device has to do. */
const spanOf = (phase: PhaseCost, attributes: Attributes): number =>
  phase.spanSeconds - (phase.busySeconds - busyOf(phase, attributes))

/** Whether the device of a profile waits for its host for more than a twentieth of the step. */
const isHostBound = ({ layers }: Profile): boolean => {
  let busy = 0
  let span = 0
  for (const { forward, backward, optimizer } of layers) {
    busy += forward.busySeconds + backward.busySeconds + optimizer.busySeconds
    span += forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds
  }
  return span > 1.05 * busy
}

/** Copies between host and device as a link that the scenario states would make them. */
export const hostLinkSource = (link: {
  readonly bytesPerSecond: number
  readonly latencySeconds: number
}): CostSource => ({
  shortestSeconds: 0,
  knows: (name) => name === "h2d" || name === "d2h",
  cost: ({ measure, sizes }) =>
    measure === "h2d" || measure === "d2h"
      ? exactly(link.latencySeconds + sizes["bytes"]! / link.bytesPerSecond)
      : undefined
})

/** Launches of one kind by a function of their sizes, as a fitted or published line states it. */
export const statedSource = (measure: Measure, cost: (launch: Launch) => Cost): CostSource => ({
  shortestSeconds: 0,
  knows: () => false,
  cost: (launch) => (launch.measure === measure ? cost(launch) : undefined)
})

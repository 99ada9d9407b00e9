// The work of a sharded run by what it is for: the model's, FSDP's own, and what travels, unit by unit. Knows FSDP's annotations
// through sharded.ts; nothing of phases.
import { elementsOf } from "../../core/machine/tensor.ts"
import { dtypeOf } from "./shapes.ts"
import { blocksOf } from "../../core/algorithms/data-parallel/blocks.ts"
import type { ProfiledParameter } from "../../core/profile.ts"
import type { ShardedRun, ShardedUnit } from "../import-report.ts"
import type { CollectiveCall } from "./collectives.ts"
import type { HostOfShards } from "./device-regions.ts"
import type { DeviceWork } from "./device-work.ts"
import type { HostTree } from "./host-tree.ts"
import type { Interval } from "./intervals.ts"
import type { Anchors, Layers } from "./layers.ts"
import { rootUnit, Sharded } from "./sharded.ts"
import type { KinetoTrace } from "./trace.ts"

export interface ShardedWork {
  readonly sharded: Sharded
  /** Whether FSDP launched what this host row launches. */
  readonly isOwn: (row: number) => boolean
  /** Positions of compute that is the model's, and that is FSDP's copies and casts; ascending. */
  readonly model: ReadonlyArray<number>
  readonly own: ReadonlyArray<number>
  /** Ranks that hold the model together. */
  readonly ranks: number
  /** Dtype in which gradients are summed, and so learnt by; undefined where the trace does not say. */
  readonly reduceDtype: string | undefined
  readonly host: HostOfShards
}

/** Undefined where nothing of the trace is FSDP's. */
export const shardedWork = (
  tree: HostTree,
  { rows, compute }: DeviceWork,
  calls: ReadonlyArray<CollectiveCall>
): ShardedWork | undefined => {
  const sharded = Sharded.of(tree)
  if (sharded === undefined) return undefined
  const isOwn = (row: number): boolean => sharded.isOwn(row)
  const summed = calls.find(({ index, op }) => op === "reduce_scatter" && isOwn(rows[index]!))?.dtype
  // Who scatters gradients or gathers parameters holds them together; gathers of anything else are not FSDP's own.
  const groups = calls.flatMap(({ index, op, ranks }) =>
    (op === "all_gather" || op === "reduce_scatter") && isOwn(rows[index]!) && ranks !== undefined
      ? [ranks]
      : []
  )
  return {
    sharded,
    isOwn,
    model: compute.filter((index) => !isOwn(rows[index]!)),
    own: compute.filter((index) => isOwn(rows[index]!)),
    ranks: Math.max(1, ...groups),
    reduceDtype: summed === undefined ? undefined : dtypeOf(summed),
    host: {
      own: sharded.hostIntervals,
      launchedAt: (index) => (rows[index]! < 0 ? undefined : tree.start(rows[index]!))
    }
  }
}

/** The unit of each layer; undefined where nothing is sharded. */
export const layerUnits = (
  layers: Layers,
  shards: ShardedWork | undefined,
  anchors: Anchors
): ReadonlyArray<string> | undefined => {
  if (shards === undefined) return undefined
  const units = layers.names.map(() => rootUnit)
  for (let at = anchors.length - 1; at >= 0; at--) {
    const { row } = anchors.at(at)
    const layer = layers.ofRow(row)
    if (layer !== undefined) units[layer] = shards.sharded.unitAt(row)
  }
  return units
}

/** Layers that are ops are named for their units too, and counted within them, so that they say which block they are of. */
export const unitNames = (
  names: ReadonlyArray<string>,
  units: ReadonlyArray<string> | undefined,
  areOps: boolean
): ReadonlyArray<string> => {
  if (units === undefined || !areOps) return names
  const seen = new Map<string, number>()
  return names.map((name, layer) => {
    const title = name.replace(/#\d+$/u, "")
    const whole = units[layer] === rootUnit ? title : `${units[layer]}.${title}`
    const count = (seen.get(whole) ?? 0) + 1
    seen.set(whole, count)
    return count === 1 ? whole : `${whole}#${count}`
  })
}

/** Names without what tells one block from another: the same for the same layer of like blocks. */
export const genericNames = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const blocks = blocksOf(names)
  return names.map((name, layer) => {
    const block = blocks[layer]
    return block === undefined ? name : `${block.replace(/\d+$/u, "")}*${name.slice(block.length)}`
  })
}

/** Which kernel it is, whatever the block and the step: its layer's generic name, its turn in that layer's phase, its own name; as a number. */
export const kindFinder = (
  trace: KinetoTrace,
  kernels: Int32Array,
  generic: ReadonlyArray<string>
): ((index: number, layer: number | undefined, phase: string, step: number) => number) => {
  const turns = new Map<string, number>()
  const codes = new Map<string, number>()
  return (index, layer, phase, step) => {
    const key = `${layer} ${phase} ${step}`
    const turn = turns.get(key) ?? 0
    turns.set(key, turn + 1)
    const own = layer === undefined ? "" : (generic[layer] ?? String(layer))
    const kind = `${own} ${phase} ${turn} ${trace.device.name.values[kernels[index]!]!}`
    let code = codes.get(kind)
    if (code === undefined) codes.set(kind, (code = codes.size))
    return code
  }
}

export const intervalsOf = (
  trace: KinetoTrace,
  kernels: Int32Array,
  indices: ReadonlyArray<number>
): ReadonlyArray<Interval> =>
  indices.map((index) => ({
    start: trace.device.start.values[kernels[index]!]!,
    end: trace.device.end.values[kernels[index]!]!
  }))

/** What travelled of each unit in a step, and what FSDP spent on it. */
export const shardedRun = (
  tree: HostTree,
  { steps, kernels, rows }: DeviceWork,
  { sharded, own, ranks }: ShardedWork,
  calls: ReadonlyArray<CollectiveCall>,
  parameters: ReadonlyArray<ProfiledParameter>,
  units: ReadonlyArray<string>
): ShardedRun => {
  const perStep = 1 / steps.length
  const byName = new Map<string, { -readonly [K in keyof ShardedUnit]: ShardedUnit[K] }>()
  const nothing = { seconds: 0, bytes: 0, calls: 0 }
  const unitOf = (name: string) => {
    let unit = byName.get(name)
    if (unit === undefined) {
      unit = { name, tensors: 0, elements: 0, gathers: { ...nothing }, scatters: { ...nothing } }
      byName.set(name, unit)
    }
    return unit
  }
  for (const name of [rootUnit, ...sharded.units]) unitOf(name)
  for (const { layer, shape } of parameters) {
    const unit = unitOf(units[layer] ?? rootUnit)
    unit.tensors++
    unit.elements += elementsOf(shape)
  }
  for (const { index, op, sizeBytes, start, end } of calls) {
    if (op !== "all_gather" && op !== "reduce_scatter") continue
    const row = rows[index]!
    if (!sharded.isOwn(row)) continue
    const unit = unitOf(sharded.unitOfCall(row) ?? rootUnit)
    const key = op === "all_gather" ? "gathers" : "scatters"
    const { seconds, bytes, calls: count } = unit[key]
    unit[key] = {
      calls: count + perStep,
      bytes: bytes + (sizeBytes ?? 0) * perStep,
      seconds: seconds + (end - start) * 1e-6 * perStep
    }
  }
  const { start, end } = tree.trace.device
  const microseconds = own.reduce(
    (sum, index) => sum + end.values[kernels[index]!]! - start.values[kernels[index]!]!,
    0
  )
  return { ranks, units: [...byName.values()], copySeconds: microseconds * 1e-6 * perStep }
}

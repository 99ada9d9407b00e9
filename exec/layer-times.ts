// How long each layer's phases took in a real run, from its timeline: what a profile says of a model. Knows ops by the
// roles that a model of real kernels gives them.
import { rowsByRank } from "../core/laws/execution.ts"
import { Lane } from "../core/machine/lane.ts"
import type { LayerRole } from "../core/algorithms/data-parallel/kernel-model.ts"
import type { OpLog, Timeline } from "../core/machine/timeline.ts"
import type { Layer } from "../core/models/layer-graph.ts"
import type { LayerCost, PhaseCost } from "../core/profile.ts"
import { lessRecording } from "./replayed-run.ts"

const phases = ["forward", "backward", "optimizer"] as const

/** A step's layers as they were measured, seconds, mean over ranks and steps. */
export interface LayerTimes {
  readonly layers: ReadonlyArray<LayerCost>
  /** Compute time per step, mean over ranks. */
  readonly busySeconds: number
  /** Share of it that belongs to no layer's phase. */
  readonly unattributedShare: number
}

/** Seconds of an op that are none of a run that nobody times: of its own time, and of that with the gap behind it. */
interface Untimed {
  readonly busySeconds: number
  readonly spanSeconds: number
}

/**
 * Means over ranks and the steps from `fromStep` on. A phase's span is its busy time and the gaps behind its ops, as far as
 * the next op had nothing else to wait for. An optimizer of all layers at once is shared out by their numbers of parameters.
 * `untimed` is taken off every op.
 */
export const layerTimes = (
  { timeline, opLogs }: { readonly timeline: Timeline; readonly opLogs: ReadonlyArray<OpLog> },
  layers: ReadonlyArray<Pick<Layer, "name" | "parameters">>,
  fromStep: number,
  steps: number,
  untimed: Untimed = { busySeconds: 0, spanSeconds: 0 }
): LayerTimes => {
  // Phase times of each layer: busy and span.
  const whole = layers.length * phases.length * 2
  const sums = new Float64Array(whole + 2)
  // Ranks run the same ops; what those of other processes are is told by this one's of the same label.
  const slots = new Map<string, number>()
  for (const { entries } of opLogs) {
    for (const { label, role } of entries) {
      if (role === undefined) continue
      const { kind, layer } = role as LayerRole
      slots.set(label, layer === undefined ? whole : 2 * (layer * phases.length + phases.indexOf(kind)))
    }
  }
  const slotOf = timeline.labels.map((label) => slots.get(label) ?? -1)

  let busySeconds = 0
  let unattributed = 0
  const ranks = rowsByRank(timeline)
  for (const rows of ranks.values()) {
    const lane = rows.filter((row) => row >= 0 && timeline.lane[row] === Lane.compute)
    for (const [index, row] of lane.entries()) {
      const step = timeline.step[row]!
      if (step < fromStep || step >= fromStep + steps) continue
      const taken = timeline.endSeconds[row]! - timeline.startSeconds[row]!
      const busy = lessRecording(taken, untimed.busySeconds)
      busySeconds += busy
      const slot = slotOf[timeline.label[row]!]!
      if (slot < 0) {
        unattributed += busy
        continue
      }
      const next = lane[index + 1]
      const gap =
        next === undefined || timeline.cause[next] !== row || timeline.step[next] !== step
          ? 0
          : timeline.startSeconds[next]! - timeline.endSeconds[row]!
      sums[slot]! += busy
      sums[slot + 1]! += Math.max(busy, lessRecording(taken + gap, untimed.spanSeconds))
    }
  }
  const elements = layers.map(({ parameters }) => parameters.reduce((sum, one) => sum + one.elements, 0))
  const all = elements.reduce((sum, one) => sum + one, 0)
  for (const [layer, own] of elements.entries()) {
    const slot = 2 * (layer * phases.length + phases.indexOf("optimizer"))
    for (const kind of [0, 1]) sums[slot + kind]! += all > 0 ? (sums[whole + kind]! * own) / all : 0
  }
  const count = Math.max(1, ranks.size * steps)
  const cost = (layer: number, phase: number): PhaseCost => {
    const slot = 2 * (layer * phases.length + phase)
    return { busySeconds: sums[slot]! / count, spanSeconds: sums[slot + 1]! / count }
  }
  return {
    layers: layers.map(({ name }, layer) => ({
      name,
      forward: cost(layer, 0),
      backward: cost(layer, 1),
      optimizer: cost(layer, 2)
    })),
    busySeconds: busySeconds / count,
    unattributedShare: busySeconds > 0 ? unattributed / busySeconds : 0
  }
}

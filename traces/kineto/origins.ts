// What the host was doing when it launched a piece of device work: phase, module, autograd node. Knows nothing of
// layers.
import type { HostTree } from "./host-tree.ts"
import { stepAt, type Step } from "./steps.ts"
import { Host } from "./trace.ts"

export type Phase = "forward" | "backward" | "optimizer"

/** What a host row's surroundings say of the device work it launches. */
export interface Origin {
  readonly row: number
  readonly step: number
  readonly phase: Phase
  readonly frame: number
  /** The autograd node it runs in, -1 for none. */
  readonly node: number
}

/** Finds the origin of a device row by its correlation id, else by its external id; undefined where neither is known. */
export const originFinder = (
  tree: HostTree,
  steps: ReadonlyArray<Step>
): ((kernel: number) => Origin | undefined) => {
  const { host, device } = tree.trace
  const launches = new Map<number, number>()
  const ops = new Map<number, number>()
  for (const row of tree.order) {
    const correlation = host.correlation.values[row]!
    if (correlation >= 0 && !launches.has(correlation)) launches.set(correlation, row)
    const id = host.externalId.values[row]!
    if (id >= 0) ops.set(id, row)
  }
  const known = new Map<number, Origin>()
  return (kernel) => {
    const row =
      launches.get(device.correlation.values[kernel]!) ?? ops.get(device.externalId.values[kernel]!) ?? -1
    if (row < 0) return undefined
    let origin = known.get(row)
    if (origin === undefined) known.set(row, (origin = classify(tree, steps, row)))
    return origin
  }
}

const classify = (tree: HostTree, steps: ReadonlyArray<Step>, row: number): Origin => {
  const { kind } = tree.trace.host
  const step = stepAt(steps, tree.start(row))
  let frame = -1
  let inBackwardCall = false
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    if (tree.isOptimizer(at)) return { row, step, phase: "optimizer", frame, node: -1 }
    if (tree.isNode(at)) return { row, step, phase: "backward", frame, node: at }
    if (frame < 0 && tree.isFrame[at] === 1) frame = at
    if (kind.values[at] === Host.backwardCall) inBackwardCall = true
  }
  const isModule = frame >= 0 && kind.values[frame] === Host.module
  return { row, step, phase: inBackwardCall && !isModule ? "backward" : "forward", frame, node: -1 }
}

// What the host was doing when it launched a piece of device work: phase, module, autograd node. Knows nothing of
// layers.
import { ById } from "./by-id.ts"
import type { HostTree } from "./host-tree.ts"
import { stepAt, type Step } from "./steps.ts"
import { Host } from "./trace.ts"

export type Phase = "forward" | "backward" | "optimizer"

/** What a host row's surroundings say of the device work it launches. */
export interface Origin {
  readonly row: number
  /** When the host launched it. */
  readonly start: number
  readonly step: number
  readonly phase: Phase
  readonly frame: number
  /** The autograd node it runs in, -1 for none. */
  readonly node: number
}

/** The host row that launched each of `kernels`, by its correlation id, else by its external id; -1 where neither is known. */
export const launchRows = (tree: HostTree, kernels: Int32Array): Int32Array => {
  const { host, device } = tree.trace
  const launches = new ById(kernels.length)
  const ops = new ById(tree.order.length)
  for (const row of tree.order) {
    const correlation = host.correlation.values[row]!
    if (correlation >= 0 && launches.get(correlation) === undefined) launches.set(correlation, row)
    const id = host.externalId.values[row]!
    if (id >= 0) ops.set(id, row)
  }
  return kernels.map(
    (kernel) =>
      launches.get(device.correlation.values[kernel]!) ?? ops.get(device.externalId.values[kernel]!) ?? -1
  )
}

/** Finds what surrounds the host row that launched a piece of device work; a graph's kernels, one after another, share it. */
export const originFinder = (tree: HostTree, steps: ReadonlyArray<Step>): ((row: number) => Origin) => {
  let last: Origin | undefined
  return (row) => (last = last?.row === row ? last : classify(tree, steps, row))
}

const classify = (tree: HostTree, steps: ReadonlyArray<Step>, row: number): Origin => {
  const { kind } = tree.trace.host
  const start = tree.start(row)
  const step = stepAt(steps, start)
  let frame = -1
  let inBackwardCall = false
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    if (tree.isOptimizer(at)) return { row, start, step, phase: "optimizer", frame, node: -1 }
    if (tree.isNode(at)) return { row, start, step, phase: "backward", frame, node: at }
    if (frame < 0 && tree.isFrame[at] === 1) frame = at
    if (kind.values[at] === Host.backwardCall) inBackwardCall = true
  }
  const isModule = frame >= 0 && kind.values[frame] === Host.module
  return { row, start, step, phase: inBackwardCall && !isModule ? "backward" : "forward", frame, node: -1 }
}

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

const phases: ReadonlyArray<Phase> = ["forward", "backward", "optimizer"]

/** What surrounds the host row that launched each piece of device work, in columns: as objects they would be most of an import. */
export class Origins {
  readonly length: number
  readonly #tree: HostTree
  readonly #rows: Int32Array
  readonly #step: Int32Array
  readonly #phase: Uint8Array
  readonly #frame: Int32Array
  readonly #node: Int32Array

  /** `rows`: the host row of each, -1 where none is known. */
  constructor(tree: HostTree, steps: ReadonlyArray<Step>, rows: Int32Array) {
    this.length = rows.length
    this.#tree = tree
    this.#rows = rows
    this.#step = new Int32Array(rows.length)
    this.#phase = new Uint8Array(rows.length)
    this.#frame = new Int32Array(rows.length)
    this.#node = new Int32Array(rows.length)
    let last: Origin | undefined
    for (let index = 0; index < rows.length; index++) {
      const row = rows[index]!
      if (row < 0) continue
      // A graph's kernels, one after another, share a row.
      if (last?.row !== row) last = classify(tree, steps, row)
      this.#step[index] = last.step
      this.#phase[index] = phases.indexOf(last.phase)
      this.#frame[index] = last.frame
      this.#node[index] = last.node
    }
  }

  /** Of the work at a position; undefined where its row is not known. */
  at(index: number): Origin | undefined {
    const row = this.#rows[index]!
    if (row < 0) return undefined
    return {
      row,
      start: this.#tree.start(row),
      step: this.#step[index]!,
      phase: phases[this.#phase[index]!]!,
      frame: this.#frame[index]!,
      node: this.#node[index]!
    }
  }
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

// The layers of one model as the forward pass of each step ran them: a layer is a run of device work that one call of
// one module (or annotation) launched itself, between the calls it makes. Knows the host's calls, not the device.
import type { HostTree } from "./host-tree.ts"
import { countBefore, countUpTo } from "./ascending.ts"
import { sortedRows } from "./by-id.ts"
import { Numbers } from "./trace.ts"

/** Work of the forward pass, by the host row that launched it or that a backward node belongs to. */
export interface Anchor {
  readonly row: number
  readonly step: number
  /** Innermost frame around it, -1 for none. */
  readonly frame: number
}

/** Anchors in columns, for there may be as many as kernels. */
export class Anchors {
  readonly row = new Numbers(Int32Array)
  readonly step = new Numbers(Int32Array)
  readonly frame = new Numbers(Int32Array)

  get length(): number {
    return this.row.length
  }

  push({ row, step, frame }: Anchor): void {
    this.row.push(row)
    this.step.push(step)
    this.frame.push(frame)
  }

  at(place: number): Anchor {
    return {
      row: this.row.values[place]!,
      step: this.step.values[place]!,
      frame: this.frame.values[place]!
    }
  }
}

/**
 * Adds what was `again` made in a backward pass to `anchors`, where neither a call of its module nor the op it is made again of
 * (`first`, -1 for none) has a layer: a recording that begins behind the forward pass.
 */
export const anchorAgain = (
  tree: HostTree,
  anchors: Anchors,
  again: ReadonlyArray<Anchor>,
  first: (row: number) => number
): void => {
  if (again.length === 0) return
  const rows = new Set<number>()
  const owners = new Set<string>()
  for (let place = 0; place < anchors.length; place++) {
    const { row, frame } = anchors.at(place)
    rows.add(row)
    if (frame >= 0 && tree.frames !== "ops") owners.add(tree.name(frame))
  }
  for (const anchor of again) {
    if (anchor.frame >= 0 && owners.has(tree.name(anchor.frame))) continue
    const row = first(anchor.row)
    if (row < 0) anchors.push(anchor)
    else if (!rows.has(row)) {
      rows.add(row)
      anchors.push({ row, step: anchor.step, frame: tree.frameOf(row) })
    }
  }
}

/** Finds layers, and names them. Build it from all anchors of all steps, then ask. */
export class Layers {
  /** Unique names, in forward order. */
  readonly names: ReadonlyArray<string>
  /** Class and number of the module (or the annotation) each belongs to; "" outside all. */
  readonly owners: ReadonlyArray<string>
  /** By host row, -1 for what was no anchor. */
  readonly #byRow: Int32Array
  readonly #byOwner = new Map<string, number>()
  /** Starts of the anchors by step, ascending, and the layer of each; those of a step in `[from, to)`. */
  readonly #starts: Float64Array
  readonly #layers: Int32Array
  readonly #steps = new Map<number, { readonly from: number; readonly to: number }>()

  constructor(tree: HostTree, anchors: Anchors, stepStarts: ReadonlyArray<number>) {
    const calls = new Calls(tree, stepStarts)
    const { row, step, frame } = anchors
    const startOf = (place: number): number => tree.start(row.values[place]!)
    /** Places of the anchors in order, each row once. */
    const inOrder = sortedRows(
      anchors.length,
      (a, b) =>
        step.values[a]! - step.values[b]! ||
        startOf(a) - startOf(b) ||
        row.values[a]! - row.values[b]! ||
        a - b
    ).filter((place, at, sorted) => at === 0 || row.values[place] !== row.values[sorted[at - 1]!])
    const isSame = (a: number, b: number): boolean =>
      frame.values[a] === frame.values[b] && step.values[a] === step.values[b]
    const known = new Map<string, { readonly code: number; readonly title: string; readonly owner: string }>()
    /** Codes of the layers in forward order. */
    const order: Array<number> = []
    /** Codes of what the step has run so far. */
    const ran = new Set<number>()
    let current = -1
    /** Of each anchor in order. */
    const codes = new Int32Array(inOrder.length)
    let at = 0
    while (at < inOrder.length) {
      const first = anchors.at(inOrder[at]!)
      let to = at + 1
      while (to < inOrder.length && isSame(inOrder[to]!, inOrder[at]!)) to++
      if (first.step !== current) ran.clear()
      current = first.step
      const key = `${calls.key(first.frame)}@${calls.childrenBefore(first)}`
      let layer = known.get(key)
      if (layer === undefined) {
        const run = Array.from(inOrder.subarray(at, to), (place) => anchors.at(place))
        layer = {
          code: known.size,
          title: titleOf(tree, calls, run),
          owner: first.frame < 0 ? "" : tree.name(first.frame)
        }
        known.set(key, layer)
        // A layer only later steps run stands where they run it: after all that ran before it, of which one may have run before
        // (what a second thread launches, between calls of modules).
        order.splice(order.findLastIndex((code) => ran.has(code)) + 1, 0, layer.code)
      }
      codes.fill(layer.code, at, to)
      ran.add(layer.code)
      at = to
    }
    const position = new Int32Array(order.length)
    for (const [index, code] of order.entries()) position[code] = index
    this.#byRow = new Int32Array(tree.order.length).fill(-1)
    this.#layers = codes.map((code) => position[code]!)
    this.#starts = Float64Array.from(inOrder, startOf)
    for (const [place, anchor] of inOrder.entries()) {
      this.#byRow[row.values[anchor]!] = this.#layers[place]!
      const own = step.values[anchor]!
      this.#steps.set(own, { from: this.#steps.get(own)?.from ?? place, to: place + 1 })
    }
    const all = [...known.values()]
    const inForward = order.map((code) => all[code]!)
    const seen = new Map<string, number>()
    this.names = inForward.map(({ title }) => {
      const count = (seen.get(title) ?? 0) + 1
      seen.set(title, count)
      return count === 1 ? title : `${title}#${count}`
    })
    this.owners = inForward.map(({ owner }) => owner)
    for (const [index, owner] of this.owners.entries())
      if (!this.#byOwner.has(owner)) this.#byOwner.set(owner, index)
  }

  /** Layer of an anchor's row; undefined for a row that was no anchor. */
  ofRow(row: number): number | undefined {
    const layer = this.#byRow[row] ?? -1
    return layer < 0 ? undefined : layer
  }

  /** First layer of a module by its name, for calls outside the forward pass (recomputation). */
  ofOwner(owner: string): number | undefined {
    return this.#byOwner.get(owner)
  }

  /** Layer under way on the host at a time of a step; undefined before the first. */
  at(step: number, time: number): number | undefined {
    const line = this.#steps.get(step)
    if (line === undefined) return undefined
    const before = countUpTo(this.#starts.subarray(line.from, line.to), time)
    return before === 0 ? undefined : this.#layers[line.from + before - 1]
  }
}

/** Calls of frames in each step, so that the same call of another step has the same key. */
class Calls {
  readonly #tree: HostTree
  readonly #keys = new Map<number, string>()
  /** Starts of the frames called directly by a frame (or by none: -1), ascending. */
  readonly #children = new Map<number, Array<number>>()
  readonly #stepStarts: ReadonlyArray<number>
  /** The one outermost frame around everything, if there is one: its name says nothing about a layer. */
  readonly root: string | undefined

  constructor(tree: HostTree, stepStarts: ReadonlyArray<number>) {
    this.#tree = tree
    this.#stepStarts = stepStarts
    const frames: Array<number> = []
    for (const row of tree.order) {
      if (tree.isFrame[row] === 1 && tree.inBackward[row] === 0) frames.push(row)
    }
    frames.sort((a, b) => tree.start(a) - tree.start(b) || tree.end(b) - tree.end(a))
    let step = -1
    let counts = new Map<string, number>()
    const roots = new Set<string>()
    for (const row of frames) {
      while (step + 1 < stepStarts.length && stepStarts[step + 1]! <= tree.start(row)) {
        step++
        counts = new Map()
      }
      const name = tree.name(row)
      const count = counts.get(name) ?? 0
      counts.set(name, count + 1)
      this.#keys.set(row, `${name}~${count}`)
      const outer = tree.outerFrame(row)
      const children = this.#children.get(outer)
      if (children === undefined) this.#children.set(outer, [tree.start(row)])
      else children.push(tree.start(row))
      if (outer < 0 && step >= 0) roots.add(name)
    }
    const [root] = roots
    this.root = roots.size === 1 ? root : undefined
  }

  key(frame: number): string {
    return frame < 0 ? "" : (this.#keys.get(frame) ?? this.#tree.name(frame))
  }

  /** Calls that the anchor's frame has made before the anchor, in this step. */
  childrenBefore({ row, frame, step }: Anchor): number {
    const from = frame < 0 ? this.#stepStarts[step]! : -Infinity
    const time = this.#tree.start(row)
    const starts = this.#children.get(frame) ?? []
    return countUpTo(starts, time) - (from === -Infinity ? 0 : countBefore(starts, from))
  }

  isLeaf(frame: number): boolean {
    return !this.#children.has(frame)
  }
}

/** "GPT2Block_0.GPT2Attention_0.Conv1D_1", "loss", or the op's name for work outside all modules. */
const titleOf = (tree: HostTree, calls: Calls, run: ReadonlyArray<Anchor>): string => {
  const { frame } = run[0]!
  const isOutermost = frame < 0 || tree.outerFrame(frame) < 0
  if (
    isOutermost &&
    (frame < 0 || !calls.isLeaf(frame)) &&
    run.some((anchor) => computesLoss(tree, anchor))
  ) {
    return "loss"
  }
  if (frame < 0) return outermostOp(tree, run[0]!.row)
  const path: Array<string> = []
  for (let at = frame; at >= 0; at = tree.outerFrame(at)) path.unshift(tree.name(at))
  if (path.length > 1 && path[0] === calls.root) path.shift()
  return path.join(".")
}

const computesLoss = (tree: HostTree, { row, frame }: Anchor): boolean => {
  for (let at = row; at >= 0 && at !== frame; at = tree.parent[at]!) if (tree.isLoss(at)) return true
  return false
}

const outermostOp = (tree: HostTree, row: number): string => {
  let outermost = row
  for (let at = tree.parent[row]!; at >= 0; at = tree.parent[at]!) if (!tree.isMachinery(at)) outermost = at
  return tree.name(outermost)
}

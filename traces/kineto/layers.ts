// The layers of one model as the forward pass of each step ran them: a layer is a run of device work that one call of
// one module (or annotation) launched itself, between the calls it makes. Knows the host's calls, not the device.
import type { HostTree } from "./host-tree.ts"
import { countBefore, countUpTo } from "./ascending.ts"

/** Work of the forward pass, by the host row that launched it or that a backward node belongs to. */
export interface Anchor {
  readonly row: number
  readonly step: number
  /** Innermost frame around it, -1 for none. */
  readonly frame: number
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
  /** Per step: starts of the anchors, ascending, and the layer of each. */
  readonly #starts = new Map<number, { readonly starts: Array<number>; readonly layers: Array<number> }>()

  constructor(tree: HostTree, anchors: ReadonlyArray<Anchor>, stepStarts: ReadonlyArray<number>) {
    const calls = new Calls(tree, stepStarts)
    const keys: Array<string> = []
    const known = new Map<string, { readonly title: string; readonly owner: string }>()
    /** Of each anchor, by its place in `inOrder`. */
    const keyAt: Array<string> = []
    const inOrder = anchors
      .toSorted((a, b) => a.step - b.step || tree.start(a.row) - tree.start(b.row) || a.row - b.row)
      .filter(({ row }, at, sorted) => at === 0 || row !== sorted[at - 1]!.row)
    let at = 0
    while (at < inOrder.length) {
      const first = inOrder[at]!
      let to = at + 1
      while (to < inOrder.length && inOrder[to]!.frame === first.frame && inOrder[to]!.step === first.step)
        to++
      const key = `${calls.key(first.frame)}@${calls.childrenBefore(first)}`
      if (!known.has(key)) {
        known.set(key, {
          title: titleOf(tree, calls, inOrder.slice(at, to)),
          owner: first.frame < 0 ? "" : tree.name(first.frame)
        })
        // A layer only later steps run stands where they run it: after the one before it.
        const before = at > 0 && inOrder[at - 1]!.step === first.step ? keyAt[at - 1] : undefined
        keys.splice(before === undefined ? 0 : keys.indexOf(before) + 1, 0, key)
      }
      while (at < to) keyAt[at++] = key
    }
    const position = new Map(keys.map((key, index) => [key, index]))
    this.#byRow = new Int32Array(tree.order.length).fill(-1)
    for (const [place, { row, step }] of inOrder.entries()) {
      const layer = position.get(keyAt[place]!)!
      this.#byRow[row] = layer
      let line = this.#starts.get(step)
      if (line === undefined) this.#starts.set(step, (line = { starts: [], layers: [] }))
      line.starts.push(tree.start(row))
      line.layers.push(layer)
    }
    const seen = new Map<string, number>()
    this.names = keys.map((key) => {
      const { title } = known.get(key)!
      const count = (seen.get(title) ?? 0) + 1
      seen.set(title, count)
      return count === 1 ? title : `${title}#${count}`
    })
    this.owners = keys.map((key) => known.get(key)!.owner)
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
    const line = this.#starts.get(step)
    if (line === undefined) return undefined
    return line.layers[countUpTo(line.starts, time) - 1]
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

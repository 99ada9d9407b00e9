// From an autograd node back to the forward op that made it. Knows only the host's ops, sequence numbers and links.
import type { HostTree } from "./host-tree.ts"
import { Host, linkKey } from "./trace.ts"

/** Autograd nodes of each thread by start, for "the node before this one". */
const nodesByThread = (tree: HostTree): ReadonlyMap<number, ReadonlyArray<number>> => {
  const nodes = new Map<number, Array<number>>()
  for (const row of tree.order) {
    if (!tree.isNode(row) || tree.sequence(row) < 0) continue
    const thread = tree.trace.host.thread.values[row]!
    const line = nodes.get(thread)
    if (line === undefined) nodes.set(thread, [row])
    else line.push(row)
  }
  return nodes
}

const precedingNodes = new WeakMap<HostTree, ReadonlyMap<number, ReadonlyArray<number>>>()

/** The node with a sequence number that started last before `node` on its thread, or `node` itself; -1 for none. */
export const precedingNode = (tree: HostTree, node: number): number => {
  let nodes = precedingNodes.get(tree)
  if (nodes === undefined) precedingNodes.set(tree, (nodes = nodesByThread(tree)))
  if (tree.sequence(node) >= 0) return node
  const line = nodes.get(tree.trace.host.thread.values[node]!) ?? []
  let low = 0
  let high = line.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (tree.start(line[middle]!) <= tree.start(node)) low = middle + 1
    else high = middle
  }
  return line[low - 1] ?? -1
}

/**
 * The forward op whose autograd node runs. An op's sequence number is the one the next node will get, so several ops
 * show it and the last to start made the node. AccumulateGrad has none: it follows the node that made its gradient.
 */
export const forwardFinder = (tree: HostTree): ((node: number) => number) => {
  const { host, links } = tree.trace
  // Rows of one sequence number as a chain: its first row here, the next of each in `next`.
  const forward = new Map<number, number>()
  const recomputed = new Map<number, number>()
  const next = new Int32Array(host.start.length).fill(-1)
  const linkStarts = new Set<number>()
  for (const { start } of links.values()) linkStarts.add(start)
  const byStart = new Map<string, number>()
  for (let at = tree.order.length - 1; at >= 0; at--) {
    const row = tree.order[at]!
    if (host.kind.values[row] !== Host.op || tree.isNode(row)) continue
    if (linkStarts.has(tree.start(row))) {
      const key = linkKey(host.thread.values[row]!, tree.start(row))
      // Of several ops with one start the innermost, which is the last in order.
      if (!byStart.has(key)) byStart.set(key, row)
    }
    const sequence = tree.sequence(row)
    if (sequence < 0) continue
    const index = tree.inBackward[row] === 1 ? recomputed : forward
    next[row] = index.get(sequence) ?? -1
    index.set(sequence, row)
  }
  const latest = (first: number, before: number): number => {
    let found = -1
    for (let row = first; row >= 0; row = next[row]!) {
      if (tree.start(row) < before && (found < 0 || tree.start(row) >= tree.start(found))) found = row
    }
    return found
  }
  const onOneThread = (first: number): boolean => {
    if (first < 0) return false
    for (let row = first; row >= 0; row = next[row]!)
      if (host.thread.values[row] !== host.thread.values[first]) return false
    return true
  }
  // The link starts where the node's own op does, just inside the engine's event around it.
  const linked = new Map<number, number>()
  for (const row of links.size === 0 ? [] : tree.order) {
    if (host.kind.values[row] !== Host.op || tree.inBackward[row] === 0) continue
    const link = links.get(linkKey(host.thread.values[row]!, tree.start(row)))
    if (link === undefined) continue
    const target = byStart.get(linkKey(link.thread, link.start))
    if (target === undefined) continue
    let node = row
    while (node >= 0 && !tree.isNode(node)) node = tree.parent[node]!
    for (let at = node; at >= 0 && tree.isNode(at); at = tree.parent[at]!) linked.set(at, target)
  }
  /** Row + 2 of the forward op by node, where it has been asked for. */
  const known = new Int32Array(host.start.length)
  const find = (node: number): number => {
    const sequence = tree.sequence(node)
    const start = tree.start(node)
    const bySequence = sequence < 0 ? -1 : (forward.get(sequence) ?? -1)
    const link = linked.get(node)
    // Sequence numbers are per thread: where two threads ran forward ops, only the link tells them apart.
    if (link !== undefined && (!onOneThread(bySequence) || tree.start(link) >= start)) return link
    const nested = tree.parent[node]! >= 0 && tree.inBackward[tree.parent[node]!] === 1
    const again = sequence < 0 ? -1 : latest(recomputed.get(sequence) ?? -1, start)
    if (nested && again >= 0) return again
    const row = latest(bySequence, start)
    if (row >= 0) return row
    return again >= 0 ? again : (link ?? -1)
  }
  return (node) => {
    const own = precedingNode(tree, node)
    if (own < 0) return linked.get(node) ?? -1
    if (known[own] === 0) known[own] = find(own) + 2
    return known[own]! - 2
  }
}

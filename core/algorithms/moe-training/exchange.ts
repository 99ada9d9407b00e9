// Dispatch and Combine: the messages of one chunk between nodes (EP) and inside them (ESP), and how many rows each has.
// Even where experts have a capacity; where nothing is dropped, as uneven as the routing, with every member knowing all
// counts. Knows nothing of what rows hold.
import { kernels } from "../../kernels/catalogue.ts"
import { printCounts } from "../../kernels/collectives.ts"
import type { Attributes } from "../../kernels/kernel.ts"
import { chunkStart } from "../../kernels/moe-layout.ts"
import type { Lane } from "../../machine/lane.ts"
import { collective, type Op } from "../../machine/op.ts"
import type { Tensor } from "../../machine/tensor.ts"
import type { MoeGroups } from "./groups.ts"
import type { MoeRole } from "./model.ts"

/** Rows that the rank at `position` of `node` sends to `expert`, over all chunks. */
export type RowCounts = (node: number, position: number, expert: number) => number

export interface Exchange {
  readonly groups: MoeGroups
  readonly localExperts: number
  readonly counts: RowCounts
  /** All ranks send as much to all: collectives need not say how much. */
  readonly even: boolean
  readonly chunks: number
  readonly inter: Lane
  readonly intra: Lane
}

/** Which stage of which chunk an op is. */
export type ChunkRole = Extract<MoeRole, { readonly chunk: number }>

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** Rows of one chunk that go from a rank at `position` of node `from` to local expert `j` of node `to`. */
const rowsOf = (
  { counts, localExperts, chunks }: Exchange,
  chunk: number,
  j: number,
  position: number,
  from: number,
  to: number
): number => {
  const all = counts(from, position, to * localExperts + j)
  return chunkStart(all, chunk + 1, chunks) - chunkStart(all, chunk, chunks)
}

const nodesOf = ({ groups }: Exchange) => Array.from({ length: groups.nodes }, (_, node) => node)
const positionsOf = ({ groups }: Exchange) =>
  Array.from({ length: groups.perNode }, (_, position) => position)

/** Rows that this rank sends for local expert `j` of every node. */
export const sentRows = (exchange: Exchange, chunk: number, j: number): number => {
  const { node, position, nodes } = exchange.groups
  if (exchange.even) return nodes * rowsOf(exchange, chunk, j, position, node, 0)
  return sum(nodesOf(exchange).map((to) => rowsOf(exchange, chunk, j, position, node, to)))
}

/** Rows that the rank at `position` of this node receives for its expert `j`. */
export const receivedRows = (
  exchange: Exchange,
  chunk: number,
  j: number,
  position = exchange.groups.position
): number => {
  const { node, nodes } = exchange.groups
  if (exchange.even) return nodes * rowsOf(exchange, chunk, j, position, 0, node)
  return sum(nodesOf(exchange).map((from) => rowsOf(exchange, chunk, j, position, from, node)))
}

/** Rows that the whole node receives for its expert `j`. */
export const gatheredRows = (exchange: Exchange, chunk: number, j: number): number =>
  exchange.even
    ? exchange.groups.perNode * receivedRows(exchange, chunk, j)
    : sum(positionsOf(exchange).map((position) => receivedRows(exchange, chunk, j, position)))

/** All rows of the node's expert `j`, by where they came from, in the order they lie in once gathered. */
export const gatheredBlocks = (exchange: Exchange, j: number): ReadonlyArray<number> => {
  const { node } = exchange.groups
  return positionsOf(exchange).flatMap((position) =>
    nodesOf(exchange).map((from) => exchange.counts(from, position, node * exchange.localExperts + j))
  )
}

/**
 * One all-to-all across nodes per chunk: a tensor for each local expert, from `from` to `to`. Uneven ones are a message per
 * expert. Dispatches go to the experts' nodes, combines back to the tokens'.
 */
export const acrossNodes = (
  exchange: Exchange,
  label: string,
  role: ChunkRole & { readonly kind: "dispatch" | "combine" },
  from: ReadonlyArray<Tensor>,
  to: ReadonlyArray<Tensor>
): ReadonlyArray<Op> => {
  const { groups, even, inter } = exchange
  const { kind, chunk } = role
  const back = kind === "combine"
  const ranks = groups.nodes
  if (even) {
    return [
      collective(label, kernels.all_to_all, inter, groups.across, from, to, { attributes: { ranks }, role })
    ]
  }
  return from.map((tensor, j) => {
    const nodes = nodesOf(exchange)
    const rows = (a: number, b: number): number => rowsOf(exchange, chunk, j, groups.position, a, b)
    const matrix = nodes.map((a) => nodes.map((b) => (back ? rows(b, a) : rows(a, b))))
    const attributes = {
      ranks,
      sendCounts: printCounts(matrix[groups.node]!),
      receiveCounts: printCounts(matrix.map((row) => row[groups.node]!)),
      matrix: matrix.map(printCounts).join(";")
    }
    return collective(label, kernels.all_to_all, inter, groups.across, [tensor], [to[j]!], {
      attributes,
      role
    })
  })
}

/** One gather or scatter inside the node per chunk; none on a node of one rank. */
export const insideNode = (
  exchange: Exchange,
  label: string,
  role: ChunkRole & { readonly kind: "gather" | "scatter" },
  from: ReadonlyArray<Tensor>,
  to: ReadonlyArray<Tensor>
): ReadonlyArray<Op> => {
  const { groups, even, intra } = exchange
  const kernel = role.kind === "gather" ? "all_gather" : "reduce_scatter"
  const ranks = groups.perNode
  if (ranks === 1) return []
  const submit = (reads: ReadonlyArray<Tensor>, writes: ReadonlyArray<Tensor>, more: Attributes): Op =>
    collective(label, kernels[kernel], intra, groups.inNode, reads, writes, {
      attributes: { ranks, ...more },
      role
    })
  if (even) return [submit(from, to, {})]
  return from.map((tensor, j) => {
    const counts = positionsOf(exchange).map((position) => receivedRows(exchange, role.chunk, j, position))
    return submit([tensor], [to[j]!], { counts: printCounts(counts), member: groups.position })
  })
}

// How long is this collective, of these bytes, on these ranks and links, by which algorithm? The answer in closed form, as
// planners reckon it, beside what a table has of it. Knows no command line and no files.
import type { CollectiveTable } from "../core/cost/collective-table.ts"
import type { CollectiveCost } from "../core/profile.ts"
import { legSeconds, legsOf } from "../core/wire/legs.ts"
import { Network, type CollectiveAlgorithm } from "../core/wire/network.ts"
import { distinct } from "../core/wire/symmetry.ts"
import type { World } from "../core/world.ts"

interface CollectiveQuestion {
  readonly op: CollectiveCost["op"]
  /** One rank's input; of a reduce-scatter its output, as tables count. */
  readonly sizeBytes: number
  readonly algorithm: CollectiveAlgorithm
  /** Of rings: bytes of each step that go around at a time. Default: all. */
  readonly chunkBytes?: number | undefined
}

export interface CollectiveAnswer extends CollectiveQuestion {
  readonly ranks: number
  readonly seconds: number
  /** Of it, what the links' latency takes. */
  readonly latencySeconds: number
  /** Of it, what the bytes take on the links alone, without any measured software. */
  readonly wireSeconds: number
  /** Bytes that leave the busiest link of each tier. */
  readonly busiestBytes: Readonly<Partial<Record<"intra" | "inter" | "wan", number>>>
  /** What the algorithm really is for this op: tree and hierarchical are ways of an all-reduce. */
  readonly by: CollectiveAlgorithm | "chain" | "pairwise" | "message"
  /** What stands for a measurement that the table lacks. */
  readonly estimate: string | undefined
  /** A row of a table for the same op, ranks and bytes, on the links asked for, and how far off the answer is. */
  readonly measuredSeconds: number | undefined
}

const inputBytes = ({ op, sizeBytes }: CollectiveQuestion, ranks: number): number =>
  op === "reduce_scatter" ? sizeBytes * ranks : sizeBytes

/** How `Network.phases` lays an op out under an algorithm. */
export const wayOf = (op: CollectiveCost["op"], algorithm: CollectiveAlgorithm): CollectiveAnswer["by"] => {
  if (op === "send_recv") return "message"
  if (op === "all_to_all") return "pairwise"
  if (op === "broadcast") return algorithm === "direct" ? "direct" : "chain"
  return op === "all_reduce" || algorithm === "direct" ? algorithm : "ring"
}

type Legs = ReturnType<typeof legsOf>["legs"]

/**
 * Bytes of the busiest link of each tier. Of interchangeable links that are one to the network, a chain to the first of unlike units
 * crosses others than the chain back does: then each is counted by itself.
 *
 * @param apart the same with every link by itself
 */
const busiestOf = (
  legs: Legs,
  network: Network,
  apart?: () => { readonly legs: Legs; readonly network: Network }
): CollectiveAnswer["busiestBytes"] => {
  if (apart !== undefined && legs.some(({ phase }) => phase.like.kernel === "reduce")) {
    const single = apart()
    return busiestOf(single.legs, single.network)
  }
  const perLink = new Float64Array(network.links.length)
  for (const { phase, bytes } of legs)
    phase.links.forEach((id, i) => (perLink[id]! += phase.weights[i]! * bytes))
  const busiest: Partial<Record<"intra" | "inter" | "wan", number>> = {}
  network.links.forEach(({ tier }, id) => {
    if (perLink[id]! > 0) busiest[tier] = Math.max(busiest[tier] ?? 0, perLink[id]!)
  })
  return busiest
}

/** `measured`: rows to compare with, of the links that the world stands for. */
export const answerCollective = (
  question: CollectiveQuestion,
  world: World,
  network: Network,
  table: CollectiveTable | undefined,
  measured: ReadonlyArray<CollectiveCost>
): CollectiveAnswer => {
  const { op, algorithm, sizeBytes, chunkBytes } = question
  const laid = { algorithm, chunkBytes }
  const ranks = world.size
  const groups = [op === "send_recv" ? world.all.ranks.slice(0, 2) : world.all.ranks]
  const message = { kernel: op, sizeBytes: inputBytes(question, ranks), from: 0 }
  const { legs, estimate } = legsOf(network, message, groups, groups, { ...laid, table })
  const bare = legsOf(network, message, groups, groups, laid).legs
  const latencySeconds = legs.reduce((sum, { phase }) => sum + phase.latencySeconds, 0)
  const rows = measured.filter((row) => row.op === op && row.ranks === ranks && row.sizeBytes === sizeBytes)
  return {
    ...question,
    ranks,
    seconds: legs.reduce((sum, leg) => sum + legSeconds(leg), 0),
    latencySeconds,
    wireSeconds: bare.reduce((sum, leg) => sum + legSeconds(leg), 0) - latencySeconds,
    busiestBytes: busiestOf(legs, network, () => {
      const own = new Network(world, distinct(world))
      return { legs: legsOf(own, message, groups, groups, laid).legs, network: own }
    }),
    by: wayOf(op, algorithm),
    estimate: estimate?.detail,
    measuredSeconds:
      rows.length === 0 ? undefined : rows.reduce((sum, row) => sum + row.medianSeconds, 0) / rows.length
  }
}

// A simulated run as the laws see it.
import type { Execution } from "../core/laws/execution.ts"
import type { Journal } from "../core/laws/journal.ts"
import type { Op } from "../core/machine/op.ts"
import { sizeBytesOf } from "../core/machine/tensor.ts"
import type { CollectiveAlgorithm } from "../core/wire/network.ts"
import type { World } from "../core/world.ts"
import type { SimulationResult } from "../sim/simulate.ts"
import { tierBytes, type Tier } from "./traffic.ts"

/** What comes out of a collective, counted tensor by tensor. */
const comesOut = ({ writes }: Op): number =>
  writes.reduce((bytes, { elements, dtype }) => bytes + sizeBytesOf(elements, dtype), 0)

/**
 * What a simulation recorded (`record: true`), with its programs' journals: everything that a law can judge. Bytes are
 * compared by tier of links with an account made from the world alone, where there is one.
 */
export const executionOf = <A>(
  simulated: SimulationResult<A>,
  journals: ReadonlyArray<Journal>,
  world: World,
  algorithm: CollectiveAlgorithm,
  lookAheadSteps = 2
): Execution => {
  const { timeline, opLogs, ranks, links } = simulated
  if (timeline === undefined) throw new RangeError("the simulation was not recorded: pass record: true")
  const groups = new Map<string, ReadonlyArray<number>>()
  const collectives = new Map<number, Map<number, Op>>()
  for (const { rank, entries } of journals) {
    const own = new Map<number, Op>()
    collectives.set(rank, own)
    for (const entry of entries) {
      if (entry.kind !== "op" || entry.op.group === undefined) continue
      groups.set(entry.op.group.name, entry.op.group.ranks)
      own.set(entry.id, entry.op)
    }
  }
  const tiers = new Map<Tier, number>()
  for (const { tier, bytes } of links) tiers.set(tier, (tiers.get(tier) ?? 0) + bytes)
  const known = opLogs.every(({ entries }) =>
    entries.every(
      ({ group, kernel, rows }) =>
        group === undefined ||
        // The account knows members that all put in as much.
        (rows === undefined && tierBytes(world, algorithm, kernel, groups.get(group) ?? [], 1) !== undefined)
    )
  )
  return {
    timeline,
    opLogs,
    journals,
    makespanSeconds: simulated.makespanSeconds,
    stepEnds: ranks.map(({ rank, stepEndSeconds }) => ({ rank, seconds: stepEndSeconds })),
    peakBytes: ranks.map(({ rank, peakBytes }) => ({ rank, bytes: peakBytes })),
    lookAheadSteps,
    traffic: known
      ? {
          links: [...tiers].map(([name, bytes]) => ({ name, bytes })),
          carried: ({ kernel, group, sizeBytes, rank, op }) => {
            const own = collectives.get(rank)?.get(op)
            const sumBytes = own === undefined ? sizeBytes : comesOut(own)
            const members = groups.get(group) ?? []
            const root = kernel === "broadcast" ? Number(own?.attributes["root"] ?? 0) : 0
            const ordered = [...members.slice(root), ...members.slice(0, root)]
            return tierBytes(world, algorithm, kernel, ordered, sizeBytes, sumBytes) ?? []
          }
        }
      : undefined
  }
}

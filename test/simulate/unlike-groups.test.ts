// Groups that do the same at the same time on unlike nodes, such as sites of which one is a single machine: what planners reckon with
// is what is simulated, and none goes by another's links.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { divide } from "../../core/algorithms/data-parallel/shard/groups.ts"
import { CollectiveTable } from "../../core/cost/collective-table.ts"
import { kernels } from "../../core/kernels/catalogue.ts"
import { Lane } from "../../core/machine/lane.ts"
import { Machine } from "../../core/machine/machine.ts"
import { collective, type Op } from "../../core/machine/op.ts"
import { aloneSeconds, secondsAlone } from "../../core/wire/alone.ts"
import type { CollectiveOptions } from "../../core/wire/legs.ts"
import { collectiveAlgorithms, Network } from "../../core/wire/network.ts"
import { asStated } from "../../core/wire/symmetry.ts"
import { makeWorld, type Group, type Links, type World } from "../../core/world.ts"
import { link } from "../../testing/world.ts"
import { close, run } from "./simulated.ts"

const elements = 1e6

/** Of one all-reduce in each site at once: when each rank's had ended, and the op of rank 0. */
const reducedInSites = (world: World, collectives: CollectiveOptions) => {
  const division = divide(world, "site")
  if ("sizes" in division) throw new Error("sites of unlike numbers of ranks")
  const own = (rank: number): Group => division.placeOf(rank).shard
  let first: Op | undefined
  const { ranks } = run({
    world,
    symmetric: false,
    collectives,
    program: Effect.gen(function* () {
      const { rank, alloc, submit, drain, endStep } = yield* Machine
      const sum = yield* alloc({ name: "sum", shape: [elements], dtype: "float32" })
      const op = collective("sum", kernels.all_reduce, Lane.inter, own(rank), [sum], [sum], {
        attributes: { reduce: "sum" }
      })
      if (rank === 0) first = op
      submit(op)
      yield* drain
      yield* endStep
    })
  })
  return { ends: ranks.map(({ stepEndSeconds }) => stepEndSeconds[0]!), op: first! }
}

const sitesOf = (nodes: ReadonlyArray<ReadonlyArray<number>>, links: Links): World =>
  makeWorld(
    nodes.map((own, site) => ({ name: `site ${site}`, nodes: own })),
    links
  )

/** Measured all-reduces, reduce-scatters and all-gathers of two and more ranks: so long each, and so many bytes per second. */
const measured = (seconds: number, bytesPerSecond: number): CollectiveTable =>
  new CollectiveTable(
    (["all_reduce", "reduce_scatter", "all_gather"] as const).flatMap((op) =>
      [2, 3, 4, 6].flatMap((ranks) =>
        [1, 1024, 4 * elements, 2 ** 24].map((sizeBytes) => ({
          op,
          ranks,
          sizeBytes,
          medianSeconds: seconds + sizeBytes / bytesPerSecond,
          link: "unshaped"
        }))
      )
    )
  )

/** The ranks of a site on nodes, cut anywhere. */
const nodes = (ranks: number) =>
  fc
    .array(fc.boolean(), { minLength: ranks - 1, maxLength: ranks - 1 })
    .map((cuts) =>
      cuts.reduce<ReadonlyArray<number>>(
        (own, cut) => (cut ? [...own, 1] : [...own.slice(0, -1), own.at(-1)! + 1]),
        [1]
      )
    )

describe("an all-reduce in each of several sites at once", () => {
  it("takes planners as long as it takes simulated, whatever the nodes", () => {
    let unlike = 0
    fc.assert(
      fc.property(
        fc.constantFrom(2, 3, 4, 6).chain((ranks) => fc.array(nodes(ranks), { minLength: 2, maxLength: 4 })),
        link(),
        link(),
        fc.constantFrom(...collectiveAlgorithms),
        fc.constantFrom(undefined, measured(1e-3, 1e9), measured(1e-5, 1e8)),
        fc.constantFrom(undefined, measured(1e-4, 1e10)),
        (counts, intra, inter, algorithm, table, inside) => {
          const world = sitesOf(counts, { intra, inter, wan: undefined })
          const options: CollectiveOptions = { algorithm, table, inside }
          const { ends, op } = reducedInSites(world, options)
          const network = new Network(world, asStated(world))
          const alone = aloneSeconds(network, "all_reduce", op.group!, options)(op.sizeBytes)
          expect(close(alone, Math.max(...ends)), `${alone} and ${Math.max(...ends)}`).toBe(true)
          expect(secondsAlone(network, options, () => 0)(op)).toBe(alone)
          if (new Set(counts.map((own) => own.toSorted().join(" "))).size > 1) unlike++
        }
      ),
      { numRuns: 200 }
    )
    expect(unlike).toBeGreaterThan(100)
  })

  it("is a hierarchy in the site that has levels, and a ring in the one of a single node", () => {
    const intra = { bytesPerSecond: 1e10, latencySeconds: 1e-5 }
    const inter = { bytesPerSecond: 1e9, latencySeconds: 1e-3 }
    const world = sitesOf([[4], [2, 2]], { intra, inter, wan: undefined })
    const { ends, op } = reducedInSites(world, { algorithm: "hierarchical" })
    const bytes = 4 * elements
    const ring = 6 * 1e-5 + (1.5 * bytes) / 1e10
    // Half of it each way inside nodes; a half goes across from each of two ranks.
    const levels = 2 * (1e-5 + bytes / 2 / 1e10) + 2 * 1e-3 + (2 * bytes) / 2 / 1e9
    ends.forEach((seconds, rank) => expect(seconds).toBeCloseTo(rank < 4 ? ring : levels, 9))
    const alone = aloneSeconds(new Network(world, asStated(world)), "all_reduce", op.group!, {
      algorithm: "hierarchical"
    })
    expect(alone(bytes)).toBeCloseTo(levels, 9)
  })

  it("takes in one of a single node what was measured, however slow the links between another's are", () => {
    const intra = { bytesPerSecond: 1e12, latencySeconds: 0 }
    const inter = { bytesPerSecond: 1e7, latencySeconds: 0 }
    const world = sitesOf([[4], [2, 2]], { intra, inter, wan: undefined })
    const { ends } = reducedInSites(world, { algorithm: "ring", table: measured(1e-3, 1e9) })
    const [here, there] = [1e-3 + (4 * elements) / 1e9, (1.5 * 4 * elements) / 1e7]
    ends.forEach((seconds, rank) => expect(seconds).toBeCloseTo(rank < 4 ? here : there, 9))
  })
})

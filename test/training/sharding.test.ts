// A model in parts learns what the whole model learns, bit for bit where its sums are exact, whatever is divided and whichever
// algorithm is across; no parameter is used before it was gathered, and every link carries what the closed form says.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { layOut } from "../../core/algorithms/data-parallel/shard/layout.ts"
import { dividedProfile, planShards, type ShardPlan } from "../../core/algorithms/data-parallel/shard/plan.ts"
import { profiledModel, type TrainingModel } from "../../core/algorithms/data-parallel/training-model.ts"
import { journaled, type Journal } from "../../core/laws/journal.ts"
import type { Tensor } from "../../core/machine/tensor.ts"
import { makeCostModel } from "../../core/cost/cost-model.ts"
import { makeWorld, type World } from "../../core/world.ts"
import { algorithmChoice } from "../../testing/algorithm.ts"
import { execute, plan, run, unlimited } from "../simulate/simulated.ts"
import { checkLaws } from "../../testing/index.ts"
import { accumulations } from "./rule-instances.ts"
import { choices, profileOf } from "./shard-choices.ts"
import { fsdp } from "./shard-stages.ts"
import { toyModel, toyProfile, type Toy } from "./toy-model.ts"
import { divided } from "./in-parts.ts"

const sitesOf = (sites: number, ranks: number, wan = unlimited): World =>
  makeWorld(
    Array.from({ length: sites }, (_, site) => ({ name: `site ${site}`, nodes: [ranks] })),
    { intra: unlimited, inter: wan, wan }
  )

/** Module paths for a toy: blocks of two layers between an embedding and a head, which are the root. */
const namesOf = ({ layers }: Toy): ReadonlyArray<string> =>
  layers.map((_, l) =>
    l === 0 ? "m.embed" : l === layers.length - 1 ? "m.head" : `m.h.${(l - 1) >> 1}.${l % 2 ? "a" : "b"}`
  )

const layerCounts = (minLength: number, maxLength: number): fc.Arbitrary<Array<number>> =>
  fc.array(fc.constantFrom(1, 2, 0), { minLength, maxLength, size: "max" })

const toys: fc.Arbitrary<Toy> = fc.record({
  layers: fc
    .oneof(layerCounts(1, 4), { weight: 2, arbitrary: layerCounts(4, 7) })
    .filter((counts) => counts.some((count) => count > 0)),
  width: fc.integer({ min: 1, max: 5 }),
  optimizer: fc.constantFrom(
    { name: "sgd" as const, learningRate: 0.1, momentum: 0.9 },
    { name: "adamw" as const, learningRate: 0.1, beta1: 0.5, beta2: 0.75, weightDecay: 0.1 }
  ),
  seed: fc.nat({ max: 1e6 })
})

/** Parameters of the toy as the ranks of one division hold them, by name. */
const assembled = (
  toy: Toy,
  shards: ShardPlan,
  models: ReadonlyMap<number, TrainingModel>,
  members: ReadonlyArray<number>,
  valuesOf: (rank: number, tensor: Tensor) => ArrayLike<number>
): ReadonlyArray<ReadonlyArray<number>> => {
  const found: Array<ReadonlyArray<number>> = []
  shards.runs.forEach(({ unit, first }, index) => {
    if (!first) return
    const owners = shards.division[unit]!.layers.flatMap((l) =>
      Array.from({ length: toy.layers[l]! }, () => l)
    )
    const flats = layOut(
      owners.map(() => ({ shape: [toy.width], dtype: "float32" as const })),
      shards.ranks
    )
    flats.forEach((flat, i) => {
      const values = members.flatMap((rank) =>
        Array.from(valuesOf(rank, models.get(rank)!.layers[index]!.parameters[i]!))
      )
      for (const { parameter, offset } of flat.members)
        found.push([owners[parameter]!, ...values.slice(offset, offset + toy.width)])
    })
  })
  return found.toSorted((a, b) => a[0]! - b[0]!)
}

describe("a model in parts", () => {
  it("learns what whole replicas learn, one for each division, to the bit", () => {
    const seen = {
      across: 0,
      several: 0,
      gathered: 0,
      accumulated: 0,
      stages: new Set<string>(),
      names: new Set<string>()
    }
    fc.assert(
      fc.property(
        fc.record({
          model: toys,
          choices,
          choose: algorithmChoice({ maxPeriod: 4 }),
          sites: fc.integer({ min: 1, max: 3 }),
          ranks: fc.integer({ min: 1, max: 4 }),
          steps: fc.integer({ min: 1, max: 9 }),
          bytesPerSecond: fc.constantFrom(Infinity, 1000, 50),
          accumulation: accumulations
        }),
        ({ model, choices, choose, sites, ranks, steps, bytesPerSecond, accumulation }) => {
          const toy = { ...model, accumulation }
          const world = sitesOf(sites, ranks, { bytesPerSecond, latencySeconds: 0 })
          const shards = planShards(namesOf(toy), divided(world, "site"), choices)
          const profile = dividedProfile(toyProfile(toy), shards)
          const chosen = choose(profile.layers.length)
          // Scaled dtypes have one scale for each tensor: parts have others than the whole.
          const plain = ["float32", "bfloat16", "float16"].includes(chosen.wire ?? "")
          const settings = plain ? chosen : { ...chosen, wire: "bfloat16" as const }
          // Ranks of a site learn from the same batches, whose mean is exact.
          const batchesOf = (rank: number) => world.siteOf[rank]!
          const models = new Map<number, TrainingModel>()
          const build = Effect.tap(toyModel(toy, steps, { shard: shards, batchesOf }), (model) =>
            Effect.sync(() => models.set(models.size, model))
          )
          const { planned } = plan(settings, profile, world)
          const { simulated, execution } = execute({
            world,
            program: planned.program(build, steps),
            values: () => undefined
          })
          expect(checkLaws(execution)).toBeUndefined()

          // The same algorithm over one whole replica for each site, planned with the same layers.
          const replicas = sitesOf(sites, 1, { bytesPerSecond, latencySeconds: 0 })
          const whole = planShards(namesOf(toy), divided(replicas, "site"), choices)
          const wholeModels = new Map<number, TrainingModel>()
          // A bucket's gradients are told by their sizes, which are others of the whole; sums are the same in any bucket.
          const bucketed = ["ddp", "s-sgd"].includes(settings.name)
          const wholly = bucketed
            ? plan(settings, dividedProfile(toyProfile(toy), whole), replicas).planned
            : planned
          const alone = run({
            world: replicas,
            program: wholly.program(
              Effect.tap(toyModel(toy, steps, { shard: whole }), (model) =>
                Effect.sync(() => wholeModels.set(wholeModels.size, model))
              ),
              steps
            ),
            values: () => undefined
          })
          for (let site = 0; site < sites; site++) {
            const members = Array.from({ length: ranks }, (_, r) => site * ranks + r)
            const parts = assembled(toy, shards, models, members, (r, t) => simulated.values!.of(r, t))
            const one = assembled(toy, whole, wholeModels, [site], (r, t) => alone.values!.of(r, t))
            expect(parts.flat().every((value) => Number.isFinite(value))).toBe(true)
            expect(parts).toEqual(one)
          }
          if (sites > 1) seen.across++
          if (ranks > 1) seen.several++
          if (toy.accumulation !== undefined) seen.accumulated++
          if (choices.parameters && choices.reshardAfterForward && shards.division.length > 2) seen.gathered++
          seen.stages.add(`${choices.parameters} ${choices.gradients}`)
          seen.names.add(settings.name)
        }
      ),
      { numRuns: 120 }
    )
    expect(seen.across).toBeGreaterThan(10)
    expect(seen.several).toBeGreaterThan(10)
    expect(seen.gathered).toBeGreaterThan(3)
    expect(seen.accumulated).toBeGreaterThan(10)
    expect(seen.stages.size).toBe(3)
    expect(seen.names.size).toBeGreaterThan(4)
  })

  it.each([
    ["one by one", undefined, [1, 2, 1, 2, 0, 1], undefined],
    ["clipped", 0.5, [1, 2, 1, 2, 0, 1], undefined],
    // The root's gradients must not lie where theirs do.
    ["as many parameters in a block as in the root", undefined, [1, 1, 1, 1, 1, 1, 1, 1], undefined],
    [
      "blocks that take turns",
      undefined,
      [1, 1, 1, 1, 1, 1, 1],
      ["m.embed", "m.h.0.a", "m.h.1.a", "m.h.2.a", "m.h.0.b", "m.h.2.b", "m.head"]
    ]
  ])("learns what the toy learns whole, unit by unit or not: %s", (_, clipNorm, layers, names) => {
    // One rank by itself: nothing is averaged, so sharded and whole must be the same arithmetic.
    const toy: Toy = {
      layers,
      width: 3,
      optimizer: { name: "adamw", learningRate: 0.1, beta1: 0.5, beta2: 0.75, weightDecay: 0.1 },
      seed: 7,
      clipNorm
    }
    const steps = 4
    const world = sitesOf(1, 3)
    const { planned } = plan({ name: "s-sgd" }, toyProfile(toy), world)
    const models = new Map<number, TrainingModel>()
    const ranksAlike = { batchesOf: () => 0 }
    const whole = run({
      world,
      program: planned.program(
        Effect.tap(toyModel(toy, steps, ranksAlike), (model) =>
          Effect.sync(() => models.set(models.size, model))
        ),
        steps
      ),
      values: () => undefined
    })
    const expected = models
      .get(0)!
      .layers.flatMap(({ parameters }, l) => parameters.map((one) => [l, ...whole.values!.of(0, one)]))
    for (const parameters of [true, false]) {
      for (const prefetch of [0, 1, 2]) {
        const shards = planShards(names ?? namesOf(toy), divided(world, "world"), {
          units: "block",
          parameters,
          gradients: true,
          reshardAfterForward: true,
          prefetch,
          reduceDtype: "float32",
          copies: parameters && prefetch > 0
        })
        const inParts = new Map<number, TrainingModel>()
        const profile = dividedProfile(toyProfile(toy), shards)
        const simulated = run({
          world,
          program: plan({ name: "s-sgd" }, profile, world).planned.program(
            Effect.tap(toyModel(toy, steps, { shard: shards, ...ranksAlike }), (model) =>
              Effect.sync(() => inParts.set(inParts.size, model))
            ),
            steps
          ),
          values: () => undefined
        })
        const found = assembled(toy, shards, inParts, [0, 1, 2], (r, t) => simulated.values!.of(r, t))
        // Each rank rounds its part of the norm: a few grid steps of a factor near 1, in a number or two of every step.
        const near = (values: ReadonlyArray<number>) => values.map((x) => expect.closeTo(x, 5) as number)
        expect(found).toEqual(clipNorm === undefined ? expected : expected.map(near))
      }
    }
  })
})

describe("what a model in parts asks of its machine", () => {
  it("is that no parameter is used before it was gathered, and that its memory is used again", () => {
    let copied = 0
    fc.assert(
      fc.property(choices, fc.integer({ min: 1, max: 5 }), (choices, blocks) => {
        const world = sitesOf(2, 2, { bytesPerSecond: 1e6, latencySeconds: 0 })
        const profile = profileOf(blocks, 16)
        const shards = planShards(
          profile.layers.map(({ name }) => name),
          divided(world, "site"),
          choices
        )
        const journals: Array<Journal> = []
        const { planned } = plan({ name: "ddp" }, dividedProfile(profile, shards), world)
        const result = run({
          world,
          costs: makeCostModel({ profile }),
          program: journaled(planned.program(profiledModel(profile, { shard: shards }), 3), journals),
          record: true,
          symmetric: false
        })
        const { timeline } = result
        for (const { rank, entries } of journals) {
          const rows = [...timeline!.op.keys()].filter((row) => timeline!.rank[row] === rank)
          // `id`: whose end makes them whole, the gather's or, where that arrives elsewhere, of the copy out of there.
          const gathers = new Map<Tensor, { readonly id: number; readonly gather: number; unit: string }>()
          const used = new Set<string>()
          let checked = 0
          for (const entry of entries) {
            if (entry.kind !== "op") continue
            const { op, id } = entry
            if (op.kernel.name === "all_gather")
              for (const tensor of op.writes)
                gathers.set(tensor, { id, gather: id, unit: op.reads[0]!.name.split(" part")[0]! })
            if (op.label.startsWith("lay out "))
              gathers.set(op.writes[0]!, { ...gathers.get(op.reads[0]!)!, id })
            const phase = op.attributes["phase"]
            if (op.kernel.name !== "profiled" || (phase !== "forward" && phase !== "backward")) continue
            const layer = op.attributes["layer"] as number
            const unit = shards.division.find(({ layers }) => layers.includes(layer))!
            for (const { within, name } of op.reads) {
              if (within === undefined || !name.includes("parameter")) continue
              const gather = gathers.get(within.arena)
              expect(gather?.unit).toBe(unit.name)
              expect(timeline!.endSeconds[rows[gather!.id]!]).toBeLessThanOrEqual(
                timeline!.startSeconds[rows[id]!]!
              )
              if (!unit.root && choices.parameters && choices.reshardAfterForward) {
                // Gathered anew for this pass: what its forward pass used is not what its backward pass does.
                used.add(`${unit.name} ${phase} ${entry.step} ${gather!.gather}`)
              }
              checked++
            }
          }
          expect(checked).toBeGreaterThan(0)
          copied += Number(choices.copies && choices.parameters)
          const gatherIds = new Set([...used].map((key) => key.split(" ").at(-1)))
          expect(gatherIds.size).toBe(
            new Set([...used].map((key) => key.split(" ").slice(0, -1).join(" "))).size
          )
        }
      }),
      { numRuns: 25 }
    )
    expect(copied).toBeGreaterThan(5)
  })

  // As FSDP2, whose streams that gather wait for the last unit's parameters to be laid out: the head's backward pass is the root's,
  // beside which one block is gathered and no more, however short its gather.
  it("is that a block is gathered ahead in the backward pass when the turn of the one before it has come", () => {
    const world = sitesOf(1, 2, { bytesPerSecond: 1e6, latencySeconds: 0 })
    const profile = profileOf(3, 16)
    const shards = planShards(
      profile.layers.map(({ name }) => name),
      divided(world, "site"),
      fsdp
    )
    const journals: Array<Journal> = []
    const { planned } = plan({ name: "ddp" }, dividedProfile(profile, shards), world)
    const { timeline } = run({
      world,
      costs: makeCostModel({ profile }),
      program: journaled(planned.program(profiledModel(profile, { shard: shards }), 2), journals),
      record: true,
      symmetric: false
    })
    const { rank, entries } = journals[0]!
    const rows = [...timeline!.op.keys()].filter((row) => timeline!.rank[row] === rank)
    const begun = (id: number): number => timeline!.startSeconds[rows[id]!]!
    const ops = entries.flatMap((entry) => (entry.kind === "op" && entry.step === 0 ? [entry] : []))
    const lastForward = ops.findLastIndex(({ op }) => op.attributes["phase"] === "forward")
    const again = ops.slice(lastForward).filter(({ op }) => op.kernel.name === "all_gather")
    const units = again.map(({ op }) => op.reads[0]!.name.split(" part")[0]!)
    expect(units).toEqual(shards.division.flatMap(({ root, name }) => (root ? [] : [name])).toReversed())
    const turnOf = (unit: string): number => {
      const { layers } = shards.division.find(({ name }) => name === unit)!
      const first = ops.find(
        ({ op }) => op.attributes["phase"] === "backward" && layers.includes(op.attributes["layer"] as number)
      )
      return begun(first!.id)
    }
    again.slice(1).forEach(({ id }, index) => {
      expect(begun(id), units[index + 1]).toBeGreaterThanOrEqual(turnOf(units[index]!))
    })
    // The first goes beside the head.
    expect(begun(again[0]!.id)).toBeLessThan(turnOf(units[0]!))
  })

  it("is that each link carries what the closed form says, exactly", () => {
    let [gathered, travelled] = [0, 0]
    fc.assert(
      fc.property(
        fc.record({
          choices,
          dtype: fc.constantFrom(undefined, "bfloat16" as const),
          reduceDtype: fc.constantFrom("float32" as const, "bfloat16" as const),
          blocks: fc.integer({ min: 0, max: 4 }),
          sites: fc.integer({ min: 1, max: 3 }),
          ranks: fc.integer({ min: 1, max: 8 }),
          steps: fc.integer({ min: 1, max: 3 }),
          accumulation: accumulations
        }),
        ({ choices, dtype, reduceDtype, blocks, sites, ranks, steps, accumulation }) => {
          const world = sitesOf(sites, ranks)
          const profile = profileOf(blocks, 24)
          const shards = planShards(
            profile.layers.map(({ name }) => name),
            divided(world, "site"),
            { ...choices, parameterDtype: dtype, reduceDtype }
          )
          const { planned } = plan({ name: "ddp" }, dividedProfile(profile, shards), world)
          const { links } = run({
            world,
            costs: makeCostModel({ profile }),
            program: planned.program(profiledModel(profile, { shard: shards, accumulation }), steps)
          })
          // Bytes of one rank's part of each unit, padded as documented: places to 128 numbers, and parts too.
          const partOf = (layers: ReadonlyArray<number>): number => {
            const up = (count: number) => 128 * Math.ceil(count / 128)
            const shapes = profile.parameters.filter(({ layer }) => layers.includes(layer))
            const sum = (matrices: boolean) =>
              shapes
                .filter(({ shape }) => shape.length > 1 === matrices)
                .reduce((count, { shape }) => count + up(shape.reduce((a, b) => a * b, 1)), 0)
            return up(Math.ceil(sum(true) / ranks)) + up(Math.ceil(sum(false) / ranks))
          }
          let all = 0
          let again = 0
          for (const { layers, root } of shards.division) {
            all += partOf(layers)
            if (!root) again += partOf(layers)
          }
          const wide = dtype === undefined ? 4 : 2
          const twice = choices.parameters && choices.reshardAfterForward ? again : 0
          // Each backward pass gives back what was gathered; gradients travel once, or after each.
          const { microBatches = 1, synchronize = "last" } = accumulation ?? {}
          const gathers = choices.parameters ? microBatches : 1
          const travels = synchronize === "each" ? microBatches : 1
          const gatherBytes = wide * (ranks - 1) * gathers * (all + twice)
          const summed = reduceDtype === "float32" ? 4 : 2
          const scatterBytes = summed * (ranks - 1) * all
          const inside = gatherBytes + travels * (choices.gradients ? scatterBytes : 2 * scatterBytes)
          // As FSDP2's all-reduce of HSDP: in `reduce_dtype`, whatever parts are kept in.
          const across = (travels * 2 * (sites - 1) * summed * all) / sites
          const bytes = (tier: string) =>
            links.filter((link) => link.tier === tier).reduce((sum, one) => sum + one.bytes, 0)
          // Both directions, every rank of every site; across, all ranks of a site share its node's interface.
          expect(bytes("intra")).toBeCloseTo(2 * steps * sites * ranks * inside, 3)
          expect(bytes("inter")).toBeCloseTo(2 * steps * sites * ranks * across, 3)
          if (twice > 0 && ranks > 1) gathered++
          if (travels > 1 && ranks > 1) travelled++
        }
      ),
      { numRuns: 200 }
    )
    expect(gathered).toBeGreaterThan(5)
    expect(travelled).toBeGreaterThan(5)
  })
})

describe("ranks alike", () => {
  it("are simulated once: 10,000 in sites of eight in under a second", () => {
    const began = process.cpuUsage()
    const world = sitesOf(1250, 8, { bytesPerSecond: 1.25e9, latencySeconds: 1e-3 })
    const profile = profileOf(4, 64)
    const shards = planShards(
      profile.layers.map(({ name }) => name),
      divided(world, "site"),
      fsdp
    )
    const { planned } = plan({ name: "diloco", period: 2 }, dividedProfile(profile, shards), world)
    const { ranks } = run({
      world,
      costs: makeCostModel({ profile }),
      program: planned.program(profiledModel(profile, { shard: shards }), 4)
    })
    expect(ranks.map(({ count }) => count)).toEqual([10_000])
    expect(process.cpuUsage(began).user / 1e6).toBeLessThan(1)
  })
})

// Generated scenarios, in the form that a scenario file has, so that whatever fails can be saved and run by `sim run`.
import * as fc from "fast-check"
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import type { Profile } from "../core/profile.ts"
import type { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"
import { decodeScenario as decoded } from "../scenarios/scenario-file.ts"
import { algorithmChoice, type AlgorithmConstraints } from "./algorithm.ts"
import { faultChoice, type FaultInput } from "./fault.ts"
import { profile } from "./profile.ts"
import { collectiveAlgorithms, type CollectiveAlgorithm } from "../core/wire/network.ts"
import { bandwidths, latencies } from "./world.ts"

/** A scenario as its file says it. */
export type ScenarioInput = typeof DataParallelScenario.Encoded

/** A scenario file, and the profile that its `model.profile` names, if it names one. */
export interface ScenarioCase {
  readonly scenario: ScenarioInput
  readonly profile?: Profile | undefined
}

/** Name under which a generated scenario refers to its generated profile; saved beside it as a file. */
export const generatedProfile = "generated.arrow"

/** How large scenarios are, and what may go wrong in them. */
export interface ScenarioConstraints extends AlgorithmConstraints {
  /** Default 6. */
  readonly maxSites?: number
  /** Default 3. */
  readonly maxNodesPerSite?: number
  /** Default 3. */
  readonly maxRanksPerNode?: number
  /** Default 8. */
  readonly maxLayers?: number
  /** `uniform`: layers, parameters and a step time; `profile`: every layer its own. Default: either. */
  readonly models?: ReadonlyArray<"uniform" | "profile">
  /** At most so many things go wrong. Default 2. */
  readonly maxFaults?: number
  /** Whether kernel times may vary at random. Default true. */
  readonly jitter?: boolean
  /** Default: both. */
  readonly networks?: ReadonlyArray<"fluid" | "alpha-beta">
  /** Default: all. */
  readonly collectives?: ReadonlyArray<CollectiveAlgorithm>
  /** Most steps to measure, before rounding up to whole periods. Default 3. */
  readonly maxSteps?: number
}

const linkInput = () =>
  fc
    .record({ bandwidth: fc.constantFrom(...bandwidths), latency: fc.constantFrom(...latencies) })
    .map(({ bandwidth, latency }) => ({
      ...(bandwidth === "unlimited" ? {} : { bandwidth }),
      ...(latency === "0s" ? {} : { latency })
    }))

const uniform = (maxLayers: number) =>
  fc.record({
    layers: fc.integer({ min: 1, max: maxLayers }),
    parameters: fc.constantFrom(1_000_000, 1, 1000, 20_000_000),
    stepSeconds: fc.constantFrom("10ms", "1ms", "100ms")
  })

/** Ranks of each node of each site: nodes of one size, sites too, or of any. Shrinks to one site of equal nodes. */
const nodesPerSite = ({
  maxSites,
  maxNodesPerSite,
  maxRanksPerNode
}: Required<Pick<ScenarioConstraints, "maxSites" | "maxNodesPerSite" | "maxRanksPerNode">>): fc.Arbitrary<
  ReadonlyArray<ReadonlyArray<number>>
> => {
  const sites = fc.integer({ min: 1, max: maxSites })
  const nodes = fc.integer({ min: 1, max: maxNodesPerSite })
  const ranks = fc.integer({ min: 1, max: maxRanksPerNode })
  const unlike = fc.array(ranks, { minLength: 1, maxLength: maxNodesPerSite })
  const alike = fc.tuple(nodes, ranks).map(([count, each]) => Array<number>(count).fill(each))
  const some = <T>(one: fc.Arbitrary<T>) => fc.array(one, { minLength: 1, maxLength: maxSites })
  return fc.oneof(
    { withCrossShrink: true },
    alike.map((site) => [site]),
    fc.tuple(sites, alike).map(([count, site]) => Array.from({ length: count }, () => site)),
    fc
      .tuple(ranks, some(nodes))
      .map(([each, counts]) => counts.map((count) => Array<number>(count).fill(each))),
    fc.tuple(sites, unlike).map(([count, site]) => Array.from({ length: count }, () => site)),
    some(alike),
    some(unlike)
  )
}

const sumOf = (counts: ReadonlyArray<number>): number => counts.reduce((sum, count) => sum + count, 0)

const areAlike = (counts: ReadonlyArray<unknown>): boolean =>
  counts.every((count) => JSON.stringify(count) === JSON.stringify(counts[0]))

/** How a scenario says a world with so many ranks on each node of each site, in as few fields as will do. */
export const ranksInput = (
  nodes: ReadonlyArray<ReadonlyArray<number>>
): Pick<ScenarioInput["world"], "ranks" | "ranksPerNode" | "sites"> => {
  const perNode = (site: ReadonlyArray<number>): { ranksPerNode?: number | ReadonlyArray<number> } =>
    !areAlike(site) ? { ranksPerNode: site } : site[0] === 1 ? {} : { ranksPerNode: site[0]! }
  const sizes = nodes.flat()
  if (areAlike(nodes)) {
    const sites = nodes.length === 1 ? {} : { sites: nodes.length }
    return { ranks: sumOf(sizes), ...sites, ...perNode(nodes[0]!) }
  }
  const together = areAlike(sizes)
  return {
    sites: nodes.map((site, index) => ({
      name: `site ${index}`,
      ranks: sumOf(site),
      ...(together ? {} : perNode(site))
    })),
    ...(together ? perNode(sizes) : {})
  }
}

/** Keeps a file to what it needs to say: empty parts go. */
const said = <T extends object>(key: string, part: T): { readonly [key: string]: T } =>
  Object.keys(part).length === 0 ? {} : { [key]: part }

/**
 * A whole scenario: 1 to 6 sites of nodes of any sizes, links of all tiers, a model, any data-parallel algorithm with settings that
 * have a plan, faults that end. Small ones are the likely ones; what is not needed to fail is shrunk away.
 */
export const scenario = (constraints: ScenarioConstraints = {}): fc.Arbitrary<ScenarioCase> => {
  const {
    maxSites = 6,
    maxNodesPerSite = 3,
    maxRanksPerNode = 3,
    maxLayers = 8,
    models = ["uniform", "profile"],
    maxFaults = 2,
    jitter = true,
    networks = ["fluid", "alpha-beta"],
    collectives = collectiveAlgorithms,
    maxSteps = 3
  } = constraints
  const model = fc.oneof(
    { withCrossShrink: true },
    ...models.map((kind): fc.Arbitrary<ReturnType<typeof modelOf>> =>
      kind === "uniform"
        ? uniform(maxLayers).map((input) => modelOf(input))
        : profile({ maxLayers }).map((generated) => modelOf(generated))
    )
  )
  return fc
    .record({
      model,
      nodes: nodesPerSite({ maxSites, maxNodesPerSite, maxRanksPerNode }),
      intra: linkInput(),
      inter: linkInput(),
      wan: fc.option(linkInput(), { nil: undefined }),
      algorithm: algorithmChoice(constraints),
      faults:
        maxFaults === 0
          ? fc.constant(undefined)
          : fc.option(fc.array(faultChoice(), { minLength: 1, maxLength: maxFaults }), {
              freq: 2,
              nil: undefined
            }),
      jitter: jitter
        ? fc.oneof(
            { weight: 3, arbitrary: fc.constant({}) },
            fc.nat({ max: 1000 }).map((seed) => ({ jitter: 0.1, ...(seed === 0 ? {} : { seed }) }))
          )
        : fc.constant({}),
      network: fc.constantFrom(...networks),
      collectives: fc.constantFrom(...collectives),
      steps: fc.integer({ min: 1, max: maxSteps })
    })
    .map((chosen): ScenarioCase => {
      const { model, nodes, network } = chosen
      const links = {
        ...said("intra", chosen.intra),
        ...said("inter", chosen.inter),
        ...(chosen.wan === undefined || nodes.length === 1 ? {} : { wan: chosen.wan })
      }
      const sizes = nodes.flat()
      const targets = { ranks: sumOf(sizes), nodes: sizes.length, sites: nodes.length }
      const faults: ReadonlyArray<FaultInput> = (chosen.faults ?? []).map((choose) => choose(targets))
      return {
        profile: model.profile,
        scenario: {
          name: "generated",
          model: model.input,
          world: {
            ...ranksInput(nodes),
            ...said("links", links)
          },
          algorithm: chosen.algorithm(model.layers),
          ...(network === "fluid" ? {} : { network }),
          ...(chosen.collectives === "ring" ? {} : { collectives: { algorithm: chosen.collectives } }),
          ...chosen.jitter,
          ...(faults.length === 0 ? {} : { faults }),
          steps: chosen.steps
        }
      }
    })
}

const modelOf = (
  model: Profile | Extract<ScenarioInput["model"], { layers: unknown }>
): {
  readonly input: ScenarioInput["model"]
  readonly profile: Profile | undefined
  readonly layers: number
} =>
  "device" in model
    ? { input: { profile: generatedProfile }, profile: model, layers: model.layers.length }
    : { input: model, profile: undefined, layers: model.layers }

/** The scenario with its units parsed and its defaults in place. Throws the `InputErrors` of one that is not valid, all fields at once. */
export const decodeScenario = (input: ScenarioInput): DataParallelScenario => {
  const scenario = Effect.runSync(decoded(input, () => "scenario"))
  if (scenario.task === "data-parallel") return scenario
  throw new InputError({ file: "scenario", field: "task", value: scenario.task, accepted: "data-parallel" })
}

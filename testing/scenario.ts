// Generated scenarios, in the form that a scenario file has, so that whatever fails can be saved and run by `sim run`.
import * as fc from "fast-check"
import * as Schema from "effect/Schema"
import type { Profile } from "../core/profile.ts"
import { DataParallelScenario } from "../scenarios/families/data-parallel/scenario.ts"
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
  readonly profile: Profile | undefined
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

/** Keeps a file to what it needs to say: empty parts go. */
const said = <T extends object>(key: string, part: T): { readonly [key: string]: T } =>
  Object.keys(part).length === 0 ? {} : { [key]: part }

/**
 * A whole scenario: 1 to 6 sites of any size, links of all tiers, a model, any data-parallel algorithm with settings that
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
      nodes: fc.oneof(
        { withCrossShrink: true },
        fc.integer({ min: 1, max: maxNodesPerSite }).map((count) => [count]),
        fc
          .tuple(fc.integer({ min: 1, max: maxSites }), fc.integer({ min: 1, max: maxNodesPerSite }))
          .map(([sites, count]) => Array.from({ length: sites }, () => count)),
        fc.array(fc.integer({ min: 1, max: maxNodesPerSite }), { minLength: 1, maxLength: maxSites })
      ),
      ranksPerNode: fc.integer({ min: 1, max: maxRanksPerNode }),
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
      const { model, nodes, ranksPerNode, network } = chosen
      const counts = nodes.map((count) => count * ranksPerNode)
      const ranks = counts.reduce((sum, count) => sum + count, 0)
      const even = counts.every((count) => count === counts[0])
      const sites = !even
        ? { sites: counts.map((count, index) => ({ name: `site ${index}`, ranks: count })) }
        : { ranks, ...(counts.length === 1 ? {} : { sites: counts.length }) }
      const links = {
        ...said("intra", chosen.intra),
        ...said("inter", chosen.inter),
        ...(chosen.wan === undefined || counts.length === 1 ? {} : { wan: chosen.wan })
      }
      const targets = { ranks, nodes: ranks / ranksPerNode, sites: counts.length }
      const faults: ReadonlyArray<FaultInput> = (chosen.faults ?? []).map((choose) => choose(targets))
      return {
        profile: model.profile,
        scenario: {
          name: "generated",
          model: model.input,
          world: {
            ...sites,
            ...(ranksPerNode === 1 ? {} : { ranksPerNode }),
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

const decode = Schema.decodeUnknownSync(DataParallelScenario, { onExcessProperty: "error" })

/** The scenario with its units parsed and its defaults in place. Throws what Schema throws for one that is not valid. */
export const decodeScenario = (input: ScenarioInput): DataParallelScenario => decode(input)

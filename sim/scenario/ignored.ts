// Fields of a scenario that change nothing for the model, algorithm and world it chooses: each is a warning, so that no
// one turns a knob that is not connected. Judges decoded settings; what a run has shown comes in as facts.
import type { Scenario } from "../../core/scenario.ts"
import type { Estimate } from "../cost/cost-model.ts"
import type { RunResult } from "../result.ts"

/** What only a finished run can tell. */
export interface RunFacts {
  readonly estimates: ReadonlyArray<Estimate>
  readonly makespanSeconds: number
}

/** One sentence for each field that has no effect, in the order of the file. */
export const ignoredFields = (scenario: Scenario, facts?: RunFacts): ReadonlyArray<string> => [
  ...deviceWarnings(scenario, facts),
  ...worldWarnings(scenario),
  ...algorithmWarnings(scenario),
  ...faultWarnings(scenario, facts),
  ...(scenario.seed !== 0 && scenario.jitter === 0
    ? ["seed has no effect: nothing is random while jitter is 0"]
    : [])
]

/** The result with these warnings among its own. */
export const withIgnoredFields = (result: RunResult, scenario: Scenario): RunResult => {
  const warnings = [...new Set([...result.warnings, ...ignoredFields(scenario, result)])]
  return { ...result, warnings }
}

const deviceWarnings = ({ device, model }: Scenario, facts: RunFacts | undefined): ReadonlyArray<string> => {
  if (device === undefined || facts === undefined) return []
  if (facts.estimates.some(({ source }) => source === "roofline")) return []
  const known = "profile" in model ? "measured" : "stated"
  return [`device has no effect: every cost that this scenario needs is ${known}`]
}

const limits = (link: { readonly bandwidth: number; readonly latency: number }): boolean =>
  link.bandwidth !== Number.POSITIVE_INFINITY || link.latency > 0

const rankCount = ({ world }: Scenario): number =>
  typeof world.sites === "number"
    ? (world.ranks ?? 1)
    : world.sites.reduce((sum, site) => sum + site.ranks, 0)

const siteCount = ({ world }: Scenario): number =>
  typeof world.sites === "number" ? world.sites : world.sites.length

const worldWarnings = (scenario: Scenario): ReadonlyArray<string> => {
  const { world, collectives } = scenario
  const { links, ranksPerNode } = world
  const ranks = rankCount(scenario)
  const sites = siteCount(scenario)
  const warnings: Array<string> = []
  if (ranks === 1) {
    if (limits(links.inter)) warnings.push("world.links.inter has no effect: there is one rank")
    if (collectives.measured !== undefined)
      warnings.push("collectives.measured has no effect: there is one rank")
  } else if (ranks === ranksPerNode && limits(links.inter))
    warnings.push("world.links.inter has no effect: all ranks are on one node")
  if (ranksPerNode === 1 && limits(links.intra))
    warnings.push("world.links.intra has no effect: there is one rank on each node (ranksPerNode: 1)")
  if (links.wan !== undefined && sites === 1)
    warnings.push("world.links.wan has no effect: there is one site")
  if (collectives.algorithm === "hierarchical" && ranksPerNode === 1 && sites === 1)
    warnings.push('collectives.algorithm "hierarchical" is "ring" here: one rank on each node, one site')
  return warnings
}

const algorithmWarnings = ({ algorithm }: Scenario): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  const noTime = (field: string): void => {
    warnings.push(`algorithm.${field} changes what is learnt, not how long it takes`)
  }
  switch (algorithm.name) {
    case "ddp":
      if (algorithm.buckets !== "sized") {
        for (const field of ["bucketBytes", "firstBucketBytes"] as const) {
          const usual = field === "bucketBytes" ? 25 * 2 ** 20 : 2 ** 20
          if (algorithm[field] !== usual)
            warnings.push(`algorithm.${field} has no effect: buckets is ${algorithm.buckets}`)
        }
      }
      break
    case "diloco":
      if (algorithm.outerLearningRate !== 0.7) noTime("outerLearningRate")
      if (algorithm.outerMomentum !== 0.9) noTime("outerMomentum")
      break
    case "streaming-diloco":
      if (algorithm.outerLearningRate !== 0.4) noTime("outerLearningRate")
      if (algorithm.outerMomentum !== 0.9) noTime("outerMomentum")
      if (algorithm.localShare !== 0.5) noTime("localShare")
      break
    default:
  }
  return warnings
}

const faultWarnings = (scenario: Scenario, facts: RunFacts | undefined): ReadonlyArray<string> =>
  scenario.faults.flatMap((fault, index) => {
    const name = `faults[${index}]`
    if ("link" in fault && fault.bandwidth === undefined && fault.latency === undefined)
      return [`${name} has no effect: it changes neither bandwidth nor latency`]
    if ("link" in fault && fault.link === "wan" && siteCount(scenario) === 1)
      return [`${name} has no effect: there is one site, so no wan link`]
    if ("link" in fault && fault.link === "intra" && scenario.world.ranksPerNode === 1)
      return [`${name} has no effect: there is one rank on each node, so no traffic inside it`]
    if ("straggler" in fault && fault.speed === 1) return [`${name} has no effect: its speed is 1`]
    if (facts !== undefined && fault.from >= facts.makespanSeconds)
      return [`${name} has no effect: it begins after the run of ${facts.makespanSeconds.toPrecision(3)} s`]
    return []
  })

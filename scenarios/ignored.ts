// Fields of a scenario that change nothing for the model, algorithm and world it chooses: each is a warning, so that no
// one turns a knob that is not connected. Judges decoded sections; what a run has shown comes in as facts. What only one
// task has is judged by its family.
import type { CollectiveSettings, DeviceSettings, FaultSettings, WorldSettings } from "./sections.ts"
import type { RunFacts } from "./family.ts"

/** `known`: what is not estimated is "measured" or "stated". */
export const deviceWarnings = (
  device: DeviceSettings | undefined,
  known: "measured" | "stated",
  facts: RunFacts | undefined
): ReadonlyArray<string> => {
  if (device === undefined || facts === undefined) return []
  if (facts.estimates.some(({ source }) => source === "roofline")) return []
  return [`device has no effect: every cost that this scenario needs is ${known}`]
}

export const seedWarnings = (seed: number, random: boolean, why: string): ReadonlyArray<string> =>
  seed !== 0 && !random ? [`seed has no effect: ${why}`] : []

const limits = (link: { readonly bandwidth: number; readonly latency: number }): boolean =>
  link.bandwidth !== Number.POSITIVE_INFINITY || link.latency > 0

const rankCount = (world: WorldSettings): number =>
  typeof world.sites === "number"
    ? (world.ranks ?? 1)
    : world.sites.reduce((sum, site) => sum + site.ranks, 0)

const siteCount = ({ sites }: WorldSettings): number => (typeof sites === "number" ? sites : sites.length)

export const worldWarnings = (
  world: WorldSettings,
  collectives: CollectiveSettings
): ReadonlyArray<string> => {
  const { links, ranksPerNode } = world
  const ranks = rankCount(world)
  const sites = siteCount(world)
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

export const faultWarnings = (
  faults: ReadonlyArray<FaultSettings>,
  world: WorldSettings,
  facts: RunFacts | undefined
): ReadonlyArray<string> =>
  faults.flatMap((fault, index) => {
    const name = `faults[${index}]`
    if ("link" in fault && fault.bandwidth === undefined && fault.latency === undefined)
      return [`${name} has no effect: it changes neither bandwidth nor latency`]
    if ("link" in fault && fault.link === "wan" && siteCount(world) === 1)
      return [`${name} has no effect: there is one site, so no wan link`]
    if ("link" in fault && fault.link === "intra" && world.ranksPerNode === 1)
      return [`${name} has no effect: there is one rank on each node, so no traffic inside it`]
    if ("straggler" in fault && fault.speed === 1) return [`${name} has no effect: its speed is 1`]
    if (facts !== undefined && fault.from >= facts.makespanSeconds)
      return [`${name} has no effect: it begins after the run of ${facts.makespanSeconds.toPrecision(3)} s`]
    return []
  })

/** What a scenario may say that only the simulator goes by. */
interface Simulated {
  readonly jitter: number
  readonly faults?: ReadonlyArray<FaultSettings>
  readonly network?: "fluid" | "alpha-beta"
  readonly collectives?: CollectiveSettings
}

/** Fields that change nothing for a real run; `alsoSimulated`: the simulator runs the same program beside it. */
export const realWarnings = (
  { jitter, faults = [], network = "fluid", collectives }: Simulated,
  alsoSimulated: boolean
): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  if (faults.length > 0) warnings.push("faults have no effect: nothing goes wrong on purpose in a real run")
  if (jitter > 0) warnings.push("jitter has no effect: a real run takes as long as it takes")
  if (network !== "fluid" && !alsoSimulated)
    warnings.push("network has no effect: it says how the simulator lets messages share links")
  if (collectives?.measured !== undefined)
    warnings.push("collectives.measured has no effect on a real run, but that algorithms plan with it")
  return warnings
}

// From what a scenario says of its ranks and links to a World.
import * as Effect from "effect/Effect"
import { mostRanks } from "../core/bounds.ts"
import { InputError } from "../core/input-error.ts"
import type { LinkSettings, SiteSettings, WorldSettings } from "./sections.ts"
import { makeWorld, type LinkSpec, type Site, type World } from "../core/world.ts"
import type { Loader } from "./load.ts"

/**
 * Share of an Ethernet link's bytes that TCP delivers: of each frame of mtu + 14 bytes, IPv4 (20), TCP (20) and its
 * timestamps (12) are not payload.
 */
export const payloadShare = (mtu: number): number => (mtu - 52) / (mtu + 14)

/** What of a link's bandwidth is left for what is sent. */
export const deliveredOf = (bandwidth: number, mtu: number | undefined): number =>
  mtu === undefined ? bandwidth : bandwidth * payloadShare(mtu)

/** A site as settings say it. */
interface SaidSite {
  /** Undefined where its nodes alone say it. */
  readonly ranks: number | undefined
  readonly perNode: WorldSettings["ranksPerNode"]
}

const saidSites = ({ ranks, ranksPerNode, sites }: WorldSettings): ReadonlyArray<SaidSite> => {
  if (typeof sites !== "number")
    return sites.map((site) => ({ ranks: site.ranks, perNode: site.ranksPerNode ?? ranksPerNode }))
  const each: SaidSite = { ranks: ranks === undefined ? undefined : ranks / sites, perNode: ranksPerNode }
  return Array.from({ length: sites }, () => each)
}

const sumOf = (counts: ReadonlyArray<number>): number => counts.reduce((sum, count) => sum + count, 0)

const sizeOf = ({ ranks = 1, perNode }: SaidSite): number =>
  typeof perNode === "number" ? ranks : sumOf(perNode)

const nodesOfSite = ({ ranks = 1, perNode }: SaidSite): ReadonlyArray<number> =>
  typeof perNode === "number"
    ? Array<number>(Math.max(1, Math.floor(ranks / perNode))).fill(perNode)
    : perNode

/** Ranks of each node, site by site, of a world that `resolveWorld` accepts. */
export const nodesOf = (settings: WorldSettings): ReadonlyArray<ReadonlyArray<number>> =>
  saidSites(settings).map(nodesOfSite)

/** Ranks of each site. */
export const siteSizes = (settings: WorldSettings): ReadonlyArray<number> => saidSites(settings).map(sizeOf)

export const rankCount = (settings: WorldSettings): number => sumOf(siteSizes(settings))

/** A field below `world`, what it says, and what it should. */
type Wrong = readonly [field: string, value: unknown, accepted: string]

const listOfNodes = "or a list with the ranks of each node"

/** What is wrong with the numbers of ranks of sites that are all alike. */
const wrongAlike = ({ ranks, ranksPerNode }: WorldSettings, sites: number): Wrong | undefined => {
  if (typeof ranksPerNode !== "number") {
    const total = sumOf(ranksPerNode) * sites
    const where = sites === 1 ? "" : ` on each of ${sites} sites`
    return ranks === undefined || ranks === total
      ? undefined
      : ["ranks", ranks, `${total}, the sum of world.ranksPerNode${where}, or nothing`]
  }
  if (ranks === undefined) return ["ranks", undefined, "the number of ranks, or a list of sites"]
  if (ranks % sites !== 0)
    return ["ranks", ranks, `a multiple of the ${sites} sites, or a list of sites with their ranks`]
  const each = ranks / sites
  return each % ranksPerNode === 0
    ? undefined
    : ["ranksPerNode", ranksPerNode, `a divisor of the ${each} ranks of site 0, ${listOfNodes}`]
}

/** What is wrong with those of one site of a list. */
const wrongOf = (
  { name, ranks, ranksPerNode: own }: SiteSettings,
  index: number,
  ofWorld: WorldSettings["ranksPerNode"]
): Wrong | undefined => {
  const perNode = own ?? ofWorld
  const field = own === undefined ? "ranksPerNode" : `sites[${index}].ranksPerNode`
  const ofItsOwn = own === undefined ? `; or ranksPerNode of ${name}'s own, beside its ranks` : ""
  if (typeof perNode !== "number") {
    const total = sumOf(perNode)
    return ranks === undefined || ranks === total
      ? undefined
      : [`sites[${index}].ranks`, ranks, `${total}, the sum of world.${field}, or nothing${ofItsOwn}`]
  }
  if (ranks === undefined)
    return [
      `sites[${index}].ranks`,
      undefined,
      "the number of ranks, or ranksPerNode as a list of each node's"
    ]
  return ranks % perNode === 0
    ? undefined
    : [field, perNode, `a divisor of the ${ranks} ranks of ${name}, ${listOfNodes}${ofItsOwn}`]
}

/** What is wrong with the names of sites: links between two of them, and results, go by these. */
const wrongNames = ({ sites }: WorldSettings): Wrong | undefined => {
  if (typeof sites === "number") return undefined
  const names = sites.map(({ name }) => name)
  const again = names.findIndex((name, index) => names.indexOf(name) < index)
  return again < 0
    ? undefined
    : [
        `sites[${again}].name`,
        names[again],
        `a name of its own: sites[${names.indexOf(names[again]!)}] has it`
      ]
}

/** What is wrong with how many ranks a world is said to have. */
const wrongCounts = (settings: WorldSettings): Wrong | undefined => {
  const { ranks, ranksPerNode, sites } = settings
  const wrong =
    typeof sites === "number"
      ? wrongAlike(settings, sites)
      : sites.map((site, index) => wrongOf(site, index, ranksPerNode)).find((one) => one !== undefined)
  if (wrong !== undefined) return wrong
  const total = rankCount(settings)
  if (ranks !== undefined && ranks !== total)
    return ["ranks", ranks, `${total}, the sum over world.sites, or nothing`]
  return total > mostRanks
    ? [typeof sites === "number" ? "ranksPerNode" : "sites", `${total} ranks`, `at most ${mostRanks} in all`]
    : undefined
}

export const resolveWorld = (
  settings: WorldSettings,
  file: string,
  loader: Loader
): Effect.Effect<World, InputError> =>
  Effect.gen(function* () {
    const { links, sites } = settings
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({
        file,
        field: `world.${field}`,
        ...(value === undefined ? {} : { value: String(value) }),
        accepted
      })
    const wrong = wrongNames(settings) ?? wrongCounts(settings)
    if (wrong !== undefined) return yield* refuse(...wrong)
    const nameOf = (site: number): string => (typeof sites === "number" ? `site ${site}` : sites[site]!.name)
    const built = nodesOf(settings).map((nodes, site): Site => ({ name: nameOf(site), nodes }))

    const spec = ({ bandwidth, latency, mtu, window }: typeof LinkSettings.Type): LinkSpec => ({
      bytesPerSecond: deliveredOf(bandwidth, mtu),
      latencySeconds: latency,
      ...(window === undefined ? {} : { windowBytes: window })
    })
    const wan = links.wan
    if (wan === undefined || !("pairs" in wan)) {
      return makeWorld(built, {
        intra: spec(links.intra),
        inter: spec(links.inter),
        wan: wan === undefined ? undefined : spec(wan)
      })
    }
    const pairs = yield* loader.wanPairs(file, "world.links.wan.pairs", wan.pairs)
    const known = new Set(pairs.pairs.flatMap(({ from, to }) => [`${from} ${to}`, `${to} ${from}`]))
    for (const a of built) {
      for (const b of built) {
        if (a !== b && !known.has(`${a.name} ${b.name}`)) {
          const names = [...new Set(pairs.pairs.flatMap(({ from, to }) => [from, to]))].join(", ")
          return yield* refuse(
            "sites",
            `${a.name} and ${b.name}`,
            `sites that ${wan.pairs} has a link for: ${names}`
          )
        }
      }
    }
    const windowed = pairs.pairs.map(({ link, ...pair }) => ({
      ...pair,
      link: wan.window === undefined ? link : { ...link, windowBytes: wan.window }
    }))
    return makeWorld(built, {
      intra: spec(links.intra),
      inter: spec(links.inter),
      wan: { pairs: windowed }
    })
  })

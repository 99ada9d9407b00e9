// From what a scenario says of its ranks and links to a World.
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import type { LinkSettings, WorldSettings } from "./sections.ts"
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

export const resolveWorld = (
  settings: WorldSettings,
  file: string,
  loader: Loader
): Effect.Effect<World, InputError> =>
  Effect.gen(function* () {
    const { ranks, ranksPerNode, sites, links } = settings
    const refuse = (field: string, value: unknown, accepted: string) =>
      new InputError({ file, field: `world.${field}`, value: String(value), accepted })

    const named: Array<{ readonly name: string; readonly ranks: number }> = []
    if (typeof sites === "number") {
      if (ranks === undefined) {
        return yield* new InputError({
          file,
          field: "world.ranks",
          accepted: "the number of ranks, or a list of sites"
        })
      }
      if (ranks % sites !== 0) {
        return yield* refuse(
          "ranks",
          ranks,
          `a multiple of the ${sites} sites, or a list of sites with their ranks`
        )
      }
      for (let site = 0; site < sites; site++) named.push({ name: `site ${site}`, ranks: ranks / sites })
    } else {
      const total = sites.reduce((sum, site) => sum + site.ranks, 0)
      if (ranks !== undefined && ranks !== total) {
        return yield* refuse("ranks", ranks, `${total}, the sum over world.sites, or nothing`)
      }
      named.push(...sites)
    }
    const built: Array<Site> = []
    for (const { name, ranks: own } of named) {
      if (own % ranksPerNode !== 0) {
        return yield* refuse(
          "ranksPerNode",
          ranksPerNode,
          `a divisor of the ${own} ranks of ${name}: nodes are alike in all sites`
        )
      }
      built.push({ name, nodes: Array.from({ length: own / ranksPerNode }, () => ranksPerNode) })
    }

    const spec = ({ bandwidth, latency, mtu }: typeof LinkSettings.Type): LinkSpec => ({
      bytesPerSecond: deliveredOf(bandwidth, mtu),
      latencySeconds: latency
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
    return makeWorld(built, { intra: spec(links.intra), inter: spec(links.inter), wan: pairs })
  })

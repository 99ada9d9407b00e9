// What a run sends over its narrowest tier: the one figure of bytes that tables and reports show. Knows results only.
import { greatest } from "../core/extremes.ts"
import type { LinkResult } from "../core/wire/network.ts"
import type { RunResult } from "../scenarios/result.ts"

type Traffic = Pick<RunResult, "links" | "steps" | "warmupSteps">

/** From what is between sites inwards: links get faster. */
const tiers = ["wan", "inter", "intra"] as const satisfies ReadonlyArray<LinkResult["tier"]>

const tierWords = { wan: "between sites", inter: "between nodes", intra: "inside nodes" } as const

/** The outermost tier that carried anything. */
const outermostTier = ({ links }: Pick<Traffic, "links">): LinkResult["tier"] | undefined =>
  tiers.find((tier) => links.some((link) => link.tier === tier && link.bytes > 0))

/**
 * Bytes a step that the busiest link of the outermost tier in use carries, in its one direction; warm-up steps count alike. 0 where
 * nothing is sent, undefined where there are no steps, or none ended.
 */
export const linkBytesPerStep = (result: Traffic): number | undefined => {
  const { links, steps, warmupSteps = 0 } = result
  if (typeof steps !== "number") return undefined
  const tier = outermostTier(result)
  const carried = links.filter((link) => link.tier === tier).map(({ bytes, count }) => bytes / count)
  return greatest([0, ...carried]) / (steps + warmupSteps)
}

/** What a column of `linkBytesPerStep` is headed: with the tier, where it is one and the same for all. */
export const linkBytesLabel = (results: ReadonlyArray<Pick<Traffic, "links">>): string => {
  const known = new Set(results.flatMap((result) => outermostTier(result) ?? []))
  const [tier] = known
  return tier !== undefined && known.size === 1 ? `sent ${tierWords[tier]}` : "sent per step"
}

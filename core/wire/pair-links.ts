// Links of their own that pairs of sites have. Knows nothing of what crosses them.
import type { LinkSpec, WanPairs, World } from "../world.ts"

/** A link from one site to another; sites by index. */
interface PairLink {
  readonly from: number
  readonly to: number
  readonly name: string
  readonly spec: LinkSpec
}

/** Both directions of every pair of sites that the world has; the way back is the same where nothing else is said of it. */
export const pairLinks = ({ sites }: World, { pairs }: WanPairs): ReadonlyArray<PairLink> => {
  const indexOf = new Map(sites.map(({ name }, index) => [name, index]))
  const said = new Set(pairs.map(({ from, to }) => `${from}-${to}`))
  return pairs.flatMap(({ from, to, link }) => {
    const [a, b] = [indexOf.get(from), indexOf.get(to)]
    if (a === undefined || b === undefined || a === b) return []
    const there = { from: a, to: b, name: `wan ${from} to ${to}`, spec: link }
    const back = { from: b, to: a, name: `wan ${to} to ${from}`, spec: link }
    return said.has(`${to}-${from}`) ? [there] : [there, back]
  })
}

// Fields of a scenario that change nothing for the model, algorithm and world it chooses: each is a warning, so that no
// one turns a knob that is not connected. Judges decoded sections; what a run has shown comes in as facts. What only one
// task has is judged by its family.
import type {
  CollectiveSettings,
  DeviceSettings,
  FaultSettings,
  HostSettings,
  MemorySettings,
  WorldSettings
} from "./sections.ts"
import { neverDone, neverIn, type HostWork } from "./host.ts"
import type { RunFacts } from "./family.ts"
import { greatest } from "../core/extremes.ts"
import { pairLinks } from "../core/wire/pair-links.ts"
import type { CollectiveOption } from "../core/wire/idle.ts"
import type { World } from "../core/world.ts"
import { formatBandwidth, formatBytes, formatSeconds } from "../core/units.ts"
import { nodesOf, rankCount } from "./world.ts"

const byPeakRates = ({ estimates }: RunFacts): boolean =>
  estimates.some(({ source }) => source === "roofline")

/**
 * `known`: what is not estimated is "measured" or "stated". `chooses`: without a device there would be no table of timed kernels.
 */
export const deviceWarnings = (
  device: DeviceSettings | undefined,
  known: "measured" | "stated",
  facts: RunFacts | undefined,
  chooses = false
): ReadonlyArray<string> => {
  if (device === undefined || facts === undefined || byPeakRates(facts)) return []
  const counts = facts.estimates.some(
    ({ kernel, source, carriedOver }) =>
      carriedOver === true || (chooses && kernel !== "host" && source !== "free")
  )
  return counts
    ? efficiencyWarnings(device, facts)
    : [`device has no effect: every cost that this scenario needs is ${known}`]
}

/** `efficiency` is of peak rates: what is measured, or carried over from another device's measurements, has its own. */
export const efficiencyWarnings = (
  device: DeviceSettings | undefined,
  facts: RunFacts | undefined
): ReadonlyArray<string> =>
  typeof device === "object" && device.efficiency !== undefined && facts !== undefined && !byPeakRates(facts)
    ? ["device.efficiency has no effect: no cost is an estimate from peak rates"]
    : []

export const seedWarnings = (seed: number, random: boolean, why: string): ReadonlyArray<string> =>
  seed !== 0 && !random ? [`seed has no effect: ${why}`] : []

const limits = (link: { readonly bandwidth: number; readonly latency: number }): boolean =>
  link.bandwidth !== Number.POSITIVE_INFINITY || link.latency > 0

const siteCount = ({ sites }: WorldSettings): number => (typeof sites === "number" ? sites : sites.length)

/** Seconds; by a geostationary satellite it is a quarter of one. */
const latencyOfNoLink = 1

/** Not vain, but a slip: 10 where 10ms is meant makes every message, copy or launch wait ten seconds. `than`: as a phrase. */
export const slipWarnings = (
  field: string,
  seconds: number | undefined,
  than: string
): ReadonlyArray<string> =>
  seconds === undefined || seconds < latencyOfNoLink
    ? []
    : [`${field} is ${formatSeconds(seconds)}${than}: a number without a unit is seconds`]

export const longerThanLinks = " one way, longer than any link's"

type Nodes = ReturnType<typeof nodesOf>

const isOneNode = (nodes: Nodes): boolean => nodes.length === 1 && nodes[0]!.length === 1
const areOfOneRank = (nodes: Nodes): boolean => nodes.every((site) => site.every((ranks) => ranks === 1))

/** It says something, and no site goes by it. */
const vainRanksPerNode = ({ ranksPerNode, sites }: WorldSettings): boolean =>
  ranksPerNode !== 1 && typeof sites !== "number" && sites.every((site) => site.ranksPerNode !== undefined)

/** Where a hierarchical all-reduce has neither nodes nor sites to sum in first. */
const hierarchyWarnings = (nodes: Nodes): ReadonlyArray<string> => {
  const ring = 'collectives.algorithm "hierarchical" is "ring" here:'
  if (isOneNode(nodes)) return [`${ring} all ranks are on one node`]
  if (!areOfOneRank(nodes)) return []
  if (nodes.length === 1) return [`${ring} one rank on each node, one site`]
  return nodes.every((site) => site.length === 1)
    ? [`${ring} one rank on each node, one node at each site`]
    : []
}

/** `sitesMatter`: they say more than which links are crossed. */
export const worldWarnings = (
  world: WorldSettings,
  collectives: CollectiveSettings,
  sitesMatter = false
): ReadonlyArray<string> => {
  const { links } = world
  const nodes = nodesOf(world)
  const ranks = rankCount(world)
  const sites = siteCount(world)
  const together = isOneNode(nodes)
  const alone = areOfOneRank(nodes)
  const warnings: Array<string> = []
  if (vainRanksPerNode(world))
    warnings.push("world.ranksPerNode has no effect: every site has its own (world.sites)")
  if (ranks === 1) {
    if (limits(links.inter)) warnings.push("world.links.inter has no effect: there is one rank")
    for (const field of ["measured", "inside", "slowdown", "slowdownInside", "wait", "chunk"] as const)
      if (collectives[field] !== undefined)
        warnings.push(`collectives.${field} has no effect: there is one rank`)
    if (collectives.handshake === true)
      warnings.push("collectives.handshake has no effect: there is one rank")
  } else if (together && limits(links.inter))
    warnings.push("world.links.inter has no effect: all ranks are on one node")
  if (ranks > 1 && alone && collectives.inside !== undefined)
    warnings.push("collectives.inside has no effect: there is one rank on each node (ranksPerNode: 1)")
  if (ranks > 1 && alone && collectives.slowdownInside !== undefined)
    warnings.push(
      "collectives.slowdownInside has no effect: there is one rank on each node (ranksPerNode: 1)"
    )
  if (ranks > 1 && together)
    for (const [field, own] of [
      ["measured", "inside"],
      ["slowdown", "slowdownInside"]
    ] as const)
      if (collectives[field] !== undefined && collectives[own] !== undefined)
        warnings.push(
          `collectives.${field} has no effect: all ranks are on one node, of which collectives.${own} is`
        )
  if (alone && limits(links.intra))
    warnings.push("world.links.intra has no effect: there is one rank on each node (ranksPerNode: 1)")
  if (links.wan !== undefined && sites === 1)
    warnings.push("world.links.wan has no effect: there is one site")
  if (ranks === 1 && collectives.algorithm !== "ring")
    warnings.push("collectives.algorithm has no effect: there is one rank")
  else if (collectives.algorithm === "hierarchical") warnings.push(...hierarchyWarnings(nodes))
  if (sites > 1 && links.wan === undefined && !sitesMatter)
    warnings.push("world.sites has no effect: crossing sites is free where world.links.wan is not given")
  for (const tier of ["intra", "inter", "wan"] as const) {
    const link = links[tier]
    if (link !== undefined && "latency" in link)
      warnings.push(...slipWarnings(`world.links.${tier}.latency`, link.latency, longerThanLinks))
    if (link !== undefined && "mtu" in link && link.mtu !== undefined && link.bandwidth === Infinity)
      warnings.push(`world.links.${tier}.mtu has no effect: that link's bandwidth is unlimited`)
  }
  if (collectives.handshake === true && collectives.algorithm !== "direct")
    warnings.push(
      `collectives.handshake has no effect: it is of direct collectives, and these are ${collectives.algorithm}`
    )
  else if (collectives.handshake === true && isNear(links))
    warnings.push("collectives.handshake has no effect: no link has a latency")
  if (ranks > 1 && collectives.chunk !== undefined && isNear(links))
    warnings.push("collectives.chunk has no effect: no link has a latency")
  return [
    ...warnings,
    ...slipWarnings("collectives.wait", collectives.wait, ", longer than any waits for multiprocessors"),
    ...windowWarnings(world)
  ]
}

const isNear = ({ intra, inter, wan }: WorldSettings["links"]): boolean =>
  intra.latency === 0 && inter.latency === 0 && (wan === undefined || ("latency" in wan && wan.latency === 0))

/** What Linux's TCP lets be on the way about, and what NCCL's rings send around at a time (`NCCL_BUFFSIZE`), both as they come. */
const usualWindowBytes = 2 ** 22

/**
 * What is told of links, and that rings go over ways so long that it matters how their software has them go, where nobody says how.
 *
 * @param rings whether any collective goes around one
 */
export const withRings = (
  rings: boolean,
  { chunk }: Pick<CollectiveSettings, "chunk">,
  told: ReadonlyArray<string>
): ReadonlyArray<string> =>
  !rings || chunk !== undefined || !told.some((text) => text.includes(onTheWay))
    ? told
    : [
        ...told,
        "collectives: NCCL sends 4 MiB around a ring at a time (NCCL_BUFFSIZE), which takes longer over such links; here all bytes follow each other (collectives.chunk)"
      ]

const onTheWay = "on the way at once"

/** Windows that never bound a message, and long ways of which nobody says how much may be on them. */
const windowWarnings = ({ links: { intra, inter, wan } }: WorldSettings): ReadonlyArray<string> => {
  const uplink = wan === undefined || "pairs" in wan ? undefined : wan
  const between = 2 * inter.latency
  const abroad = between + 2 * (uplink?.latency ?? 0)
  return [
    ...linkWindowWarnings("world.links.intra", intra),
    // How far pairs of sites are a file says.
    ...(wan !== undefined && uplink === undefined ? [] : vainWindow("world.links.inter", inter, abroad)),
    ...(uplink === undefined ? [] : vainWindow("world.links.wan", uplink, abroad)),
    ...(inter.window === undefined ? longWay("world.links.inter", inter.bandwidth, between) : []),
    ...(uplink !== undefined && inter.window === undefined && uplink.window === undefined
      ? longWay("world.links.wan", Math.min(uplink.bandwidth, inter.bandwidth), abroad)
      : [])
  ]
}

/** A link with its window, bytes. */
interface WindowedLink {
  readonly bandwidth: number
  readonly latency: number
  readonly window?: number | undefined
}

/** The same of a link by itself, which `field` says. */
export const linkWindowWarnings = (field: string, link: WindowedLink): ReadonlyArray<string> =>
  link.window === undefined
    ? longWay(field, link.bandwidth, 2 * link.latency)
    : vainWindow(field, link, 2 * link.latency)

/** The same of a world whose pairs of sites have a link each. */
export const pairWindowWarnings = (world: World): ReadonlyArray<string> => {
  const { sites, links } = world
  const { inter, wan } = links
  if (wan === undefined || !("pairs" in wan) || sites.length === 1) return []
  const all = pairLinks(world, wan)
  const latencyOf = new Map(all.map(({ from, to, spec }) => [`${from} ${to}`, spec.latencySeconds]))
  const ways = all.map(({ from, to, spec }) => {
    const roundTrip = 2 * inter.latencySeconds + spec.latencySeconds + latencyOf.get(`${to} ${from}`)!
    return { ...spec, between: `${sites[from]!.name} to ${sites[to]!.name}`, roundTrip }
  })
  const farthest = greatest(ways.map(({ roundTrip }) => roundTrip))
  const field = "world.links.wan"
  const inWay = { bandwidth: inter.bytesPerSecond, latency: inter.latencySeconds, window: inter.windowBytes }
  const vain = ways.map((way) =>
    vainWindow(field, { bandwidth: way.bytesPerSecond, latency: 0, window: way.windowBytes }, way.roundTrip)
  )
  const onWay = ways
    .filter(({ windowBytes }) => windowBytes === undefined && inter.windowBytes === undefined)
    .map(({ between, roundTrip, bytesPerSecond }) => {
      const rate = Math.min(bytesPerSecond, inter.bytesPerSecond)
      return { bytes: rate * roundTrip, told: longWay(field, rate, roundTrip, `, ${between}:`) }
    })
    .filter(({ told }) => told.length > 0)
    .toSorted((a, b) => b.bytes - a.bytes)
  return [
    ...vainWindow("world.links.inter", inWay, farthest),
    // One window for all of them: it is in vain where it is of each.
    ...(vain.every((told) => told.length > 0)
      ? [`${field}.window has no effect: no pair's bandwidth lets as much be on the way in a round trip`]
      : []),
    ...(onWay[0]?.told ?? [])
  ]
}

/** `roundTrip`: seconds, of the messages over the link that go farthest. */
const vainWindow = (
  field: string,
  { bandwidth, window }: WindowedLink,
  roundTrip: number
): ReadonlyArray<string> => {
  if (window === undefined || window < bandwidth * roundTrip) return []
  const none = `${field}.window has no effect:`
  return [
    roundTrip === 0
      ? `${none} there is no round trip, for there is no latency`
      : `${none} the link's bandwidth lets no more than ${formatBytes(bandwidth * roundTrip)} be on the way in a round trip`
  ]
}

/** `between`: which of the field's links it is. */
const longWay = (
  field: string,
  bandwidth: number,
  roundTrip: number,
  between = ":"
): ReadonlyArray<string> => {
  // A longer one is a slip, of which another warning tells.
  const bytes = roundTrip > 0 && roundTrip < 2 * latencyOfNoLink ? bandwidth * roundTrip : 0
  return bytes > usualWindowBytes && bytes < Infinity
    ? [
        `${field}${between} ${formatBandwidth(bandwidth)} over a round trip of ${formatSeconds(roundTrip)} is ${formatBytes(bytes)} ${onTheWay}; where TCP's windows hold less, messages are slower (${field}.window)`
      ]
    : []
}

const noMore = "without it no message of this run would come sooner"

const idleReasons = {
  chunkBytes: "no ring of this run sends more in a step over links that have a latency",
  handshake: "no direct collective of this run goes over links that have a latency",
  table: "no collective of this run takes another time by it (links take longer, or it has none like it)",
  inside: "no collective of this run takes another time by it (links take longer, or it has none like it)",
  intraWindow: noMore,
  interWindow: noMore,
  wanWindow: noMore,
  waitSeconds: "no collective of this run begins while a kernel of its rank runs",
  slowdown: "no kernel of this run runs beside a collective",
  slowdownInside: "no kernel of this run runs beside a collective inside a node"
} as const satisfies Readonly<Record<CollectiveOption, string>>

/**
 * Options that a run has shown to change none of its collectives.
 *
 * @param fields what each is called, where the scenario says it
 * @param told what is warned of without a run: nothing is told twice
 */
export const idleWarnings = (
  idle: ReadonlySet<CollectiveOption>,
  fields: ReadonlyArray<readonly [CollectiveOption, string]>,
  told: ReadonlyArray<string>
): ReadonlyArray<string> =>
  fields.flatMap(([option, field]) =>
    !idle.has(option) || told.some((warning) => warning.startsWith(`${field} `))
      ? []
      : [`${field} has no effect: ${idleReasons[option]}`]
  )

export const windowFields = [
  ["intraWindow", "world.links.intra.window"],
  ["interWindow", "world.links.inter.window"],
  ["wanWindow", "world.links.wan.window"]
] as const satisfies ReadonlyArray<readonly [CollectiveOption, string]>

/** `never`: what programs of the scenario do not do. */
export const hostWarnings = (
  host: HostSettings | undefined,
  never: ReadonlyArray<HostWork>
): ReadonlyArray<string> => {
  if (typeof host !== "object") return []
  const instead =
    "measured" in host
      ? []
      : neverIn(host.mode)
          .filter((what) => host[what] > 0)
          .map(
            (what) =>
              `host.${what} has no effect: with host.mode ${host.mode} ${what === "replay" ? "no graph is replayed" : "kernels and collectives are replayed together (host.replay)"}`
          )
  const idle = neverDone(host, never).flatMap((what) => {
    if (what === "copy")
      return host.waitsForCopies === undefined
        ? []
        : ["host.waitsForCopies has no effect: nothing is copied on demand"]
    return "measured" in host || !(host[what] > 0) || neverIn(host.mode).some((one) => one === what)
      ? []
      : [`host.${what} has no effect: there is no ${what === "hook" ? "collective" : what}`]
  })
  const slips =
    "measured" in host
      ? []
      : (["launch", "collective", "hook", "read", "replay"] as const).flatMap((what) =>
          slipWarnings(`host.${what}`, host[what], ", longer than it takes any host")
        )
  return [...instead, ...idle, ...slips]
}

/** For tasks that keep nothing in host memory. */
export const hostMemoryWarnings = (memory: typeof MemorySettings.Type | undefined): ReadonlyArray<string> =>
  memory?.host === undefined ? [] : ["memory.host has no effect: nothing of this task is in host memory"]

type LinkFault = Extract<FaultSettings, { readonly link: unknown }>

const linksOf = ({ link, of }: LinkFault): string =>
  of === undefined
    ? `world.links.${link}`
    : `the links of ${{ intra: "rank", inter: "node", wan: "site" }[link]} ${of}`

/** Whether it sets its links to what they are, no fault before it in the list having changed them meanwhile. */
const isAsBefore = (
  fault: LinkFault,
  before: ReadonlyArray<FaultSettings>,
  { links }: WorldSettings
): boolean => {
  const spec = links[fault.link]
  if (spec === undefined || "pairs" in spec) return false
  const until = ({ from, for: lasting = Infinity }: LinkFault): number => from + lasting
  return (
    (fault.bandwidth ?? spec.bandwidth) === spec.bandwidth &&
    (fault.latency ?? spec.latency) === spec.latency &&
    !before.some(
      (other) =>
        "link" in other && other.link === fault.link && other.from < until(fault) && fault.from < until(other)
    )
  )
}

const isAloneOnNode = (rank: number | undefined, nodes: Nodes): boolean => {
  if (rank === undefined || rank < 0) return false
  let first = 0
  for (const ranks of nodes.flat()) {
    if (rank < first + ranks) return ranks === 1
    first += ranks
  }
  return false
}

export const faultWarnings = (
  faults: ReadonlyArray<FaultSettings>,
  world: WorldSettings,
  facts: RunFacts | undefined
): ReadonlyArray<string> => {
  const nodes = nodesOf(world)
  return faults.flatMap((fault, index) => {
    const name = `faults[${index}]`
    if ("link" in fault && fault.bandwidth === undefined && fault.latency === undefined)
      return [`${name} has no effect: it changes neither bandwidth nor latency`]
    if ("link" in fault && fault.link === "wan" && siteCount(world) === 1)
      return [`${name} has no effect: there is one site, so no wan link`]
    if ("link" in fault && fault.link === "wan" && world.links.wan === undefined)
      return [`${name} has no effect: crossing sites is free where world.links.wan is not given`]
    if ("link" in fault && fault.link === "intra" && areOfOneRank(nodes))
      return [`${name} has no effect: there is one rank on each node, so no traffic inside it`]
    if ("link" in fault && fault.link === "intra" && isAloneOnNode(fault.of, nodes))
      return [`${name} has no effect: rank ${fault.of} is alone on its node, so no traffic inside it`]
    if ("link" in fault && fault.link === "inter" && isOneNode(nodes))
      return [`${name} has no effect: all ranks are on one node, so nothing crosses that link`]
    if ("link" in fault && isAsBefore(fault, faults.slice(0, index), world))
      return [`${name} has no effect: ${linksOf(fault)} have that already`]
    if ("straggler" in fault && fault.speed === 1) return [`${name} has no effect: its speed is 1`]
    if (facts !== undefined && fault.from >= facts.makespanSeconds)
      return [`${name} has no effect: it begins after the run of ${facts.makespanSeconds.toPrecision(3)} s`]
    return []
  })
}

/** Faults of which no figure tells, since these are of `fromSeconds` to `toSeconds`; `from` and `for` are in seconds. */
export const unmeasuredFaultWarnings = (
  faults: ReadonlyArray<FaultSettings>,
  measured: { readonly fromSeconds: number; readonly toSeconds: number }
): ReadonlyArray<string> =>
  faults.flatMap((fault, index) => {
    const { from, for: lasting = Infinity } = fault
    if (from + lasting <= measured.fromSeconds)
      return [
        `faults[${index}] is in no figure: it is over at ${formatSeconds(from + lasting)}, within the warm-up, whose length is the algorithm's; measured are ${formatSeconds(measured.fromSeconds)} to ${formatSeconds(measured.toSeconds)}`
      ]
    // What begins after everything is `faultWarnings`'s.
    return []
  })

/** What a scenario may say that only the simulator goes by. */
interface Simulated {
  readonly jitter: number
  readonly faults?: ReadonlyArray<FaultSettings>
  readonly network?: "fluid" | "alpha-beta"
  readonly collectives?: CollectiveSettings
  readonly host?: unknown
}

/** Fields that change nothing for a real run; `alsoSimulated`: the simulator runs the same program beside it. */
export const realWarnings = (
  { jitter, faults = [], network = "fluid", collectives, host }: Simulated,
  alsoSimulated: boolean
): ReadonlyArray<string> => {
  const warnings: Array<string> = []
  if (faults.length > 0) warnings.push("faults have no effect: nothing goes wrong on purpose in a real run")
  if (jitter > 0) warnings.push("jitter has no effect: a real run takes as long as it takes")
  if (host !== undefined)
    warnings.push("host has no effect on a real run: launches, calls and reads take what they take")
  if (network !== "fluid" && !alsoSimulated)
    warnings.push("network has no effect: it says how the simulator lets messages share links")
  if (collectives?.measured !== undefined)
    warnings.push("collectives.measured has no effect on a real run, but that algorithms plan with it")
  if (collectives?.inside !== undefined)
    warnings.push("collectives.inside has no effect on a real run, but that algorithms plan with it")
  if (collectives?.slowdown !== undefined)
    warnings.push("collectives.slowdown has no effect on a real run: its kernels take as long as they take")
  if (collectives?.slowdownInside !== undefined)
    warnings.push(
      "collectives.slowdownInside has no effect on a real run: its kernels take as long as they take"
    )
  if (collectives?.wait !== undefined)
    warnings.push("collectives.wait has no effect on a real run: its collectives take as long as they take")
  if (collectives?.handshake === true)
    warnings.push(
      "collectives.handshake has no effect on a real run, but that algorithms plan with it: its messages wait as they do"
    )
  if (collectives?.chunk !== undefined)
    warnings.push(
      "collectives.chunk has no effect on a real run, but that algorithms plan with it: its rings go as they do"
    )
  return warnings
}

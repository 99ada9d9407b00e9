// What bench/cluster/what-if.ts is asked for: points, algorithms, and how ranks lie in sites. Knows nothing of how runs are made.
import * as Schema from "effect/Schema"
import { Bandwidth, Seconds } from "../../core/units.ts"

const rateOf = Schema.decodeUnknownSync(Bandwidth)
const timeOf = Schema.decodeUnknownSync(Seconds)

export interface Point {
  readonly name: string
  readonly bandwidth: string
  readonly bytesPerSecond: number
  /** One way. */
  readonly latencySeconds: number
  /** What becomes of host 0's link. */
  readonly host0: "as the others" | "asymmetric" | "drop"
}

/** No namespaces, and what a GPU's NVLink carries each way. */
export const nvlink = "nvlink"

/** A bandwidth, or one behind "asymmetric:" or "drop:"; "@20ms" behind it is a latency. Throws Error for anything else. */
export const pointNamed = (name: string): Point => {
  if (name === nvlink)
    return { name, bandwidth: "450GB/s", bytesPerSecond: 450e9, latencySeconds: 0, host0: "as the others" }
  const [link, latency] = name.split("@") as [string, string?]
  const [kind, bandwidth] = link.includes(":") ? (link.split(":") as [string, string]) : ["", link]
  if (kind !== "" && kind !== "asymmetric" && kind !== "drop")
    throw new Error(`${name}: a bandwidth, or one behind "asymmetric:" or "drop:"`)
  return {
    name,
    bandwidth,
    bytesPerSecond: rateOf(bandwidth),
    latencySeconds: latency === undefined ? 0 : timeOf(latency),
    host0: kind === "" ? "as the others" : kind
  }
}

/** Which ranks share a host, that is, a link to the others. */
export interface Layout {
  readonly ranks: number
  readonly hosts: number
  readonly perHost: number
  /** Each host's ranks hold a model together, in parts; algorithms are between hosts. */
  readonly sharded: boolean
}

/** `sites`: hosts of several ranks; undefined where each rank is a host of its own. Throws Error where ranks do not divide. */
export const layoutOf = (ranks: number, sites: number | undefined, whole: boolean): Layout => {
  const hosts = sites ?? ranks
  if (ranks % hosts !== 0 || hosts < 2)
    throw new Error(`--sites ${sites}: a divisor of ${ranks} ranks that is 2 or more`)
  return { ranks, hosts, perHost: ranks / hosts, sharded: sites !== undefined && !whole }
}

/** As a scenario's world and division have it. */
export const layoutSettings = ({ ranks, hosts, perHost, sharded }: Layout): ReadonlyArray<string> => [
  `world.ranks=${ranks}`,
  ...(perHost === 1 ? [] : [`world.sites=${hosts}`, `world.ranksPerNode=${perHost}`]),
  ...(sharded ? ["shard={within: site}"] : [])
]

/** As the scenario of one site alone has it, whose ranks then send each other what a division does. */
export const insideSettings = ({ sharded }: Layout): ReadonlyArray<string> =>
  sharded ? ["shard={within: world}"] : []

interface AlgorithmChoice {
  readonly backend: string
  readonly period: number
  /** Of DDP's gradients. */
  readonly wire: string
  /** 16-bit gradients of more than two ranks are exchanged, added and rounded once, instead of by NCCL at every rank. */
  readonly exactSums?: boolean
}

/** One model, all of it in parts, each on a rank: as FSDP2 has it, every block gathered and its gradients scattered. */
export const fullyDivided = "fsdp"

/** Settings by name; of models in parts those that docs/sharding.md has. */
export const algorithmsOf = (
  { backend, period, wire }: AlgorithmChoice,
  sharded: boolean
): Readonly<Record<string, string>> => {
  const partial = { "partial-local-sgd": `{name: partial-local-sgd, period: ${period}}` }
  return {
    ddp: `{name: ddp, wire: ${wire}}`,
    ...(sharded ? {} : { [fullyDivided]: `{name: ddp, wire: ${wire}}` }),
    "local-sgd": `{name: local-sgd, period: ${period}}`,
    ...(sharded ? {} : partial),
    dreamddp: `{name: dreamddp, period: ${period}}`,
    diloco: `{name: diloco, period: ${period}}`,
    "streaming-diloco":
      backend === "cuda"
        ? `{name: streaming-diloco, period: ${period}, delaySteps: ${Math.floor(period / 20)}, message: fragment}`
        : `{name: streaming-diloco, period: ${period}, fragments: 2, delaySteps: 1}`
  }
}

/**
 * How NCCL's messages and ours lie on the wire (native/cuda/remote-reduction.cu), where that is no ring. NCCL adds float32 and 16-bit
 * values; everything narrower, and 16-bit values whose sums are to be exact, goes from everybody to everybody and is added there.
 */
export const laidOut = (
  name: string,
  { backend, wire, exactSums = false }: AlgorithmChoice,
  { ranks, sharded }: Layout
): ReadonlyArray<string> => {
  if (name === fullyDivided) return ["shard={within: world}"]
  if (backend !== "cuda") return []
  const byNccl =
    wire === "float32" ||
    (!sharded && (ranks === 2 || (!exactSums && (wire === "bfloat16" || wire === "float16"))))
  const narrow = name === "streaming-diloco" || (name === "ddp" && !byNccl)
  return narrow ? ["collectives.algorithm=direct"] : []
}

/** Whether a step is like every other: there is no period. */
export const stepsAreAlike = (name: string): boolean => name === "ddp" || name === fullyDivided

/** No longer than this, a choice, is waited for steps to settle: where they are long, launches are little of them. */
const mostSettlingSeconds = 3

/**
 * Steps, in whole periods, before those of a GPU that count: what comes again is launched as a graph from its third time on, and the
 * profile is of steps that are.
 */
export const settlingSteps = (name: string, period: number, stepSeconds: number): number => {
  const steps = stepsAreAlike(name) ? 4 : 2 * period
  return steps * stepSeconds <= mostSettlingSeconds ? steps : 0
}

// Small sections of a scenario, resolved: the device that costs are estimated for, the table of measured collectives, and
// what goes wrong when.
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import type {
  CollectiveSettings,
  DeviceSettings,
  FaultSettings,
  HostLinkSettings,
  WorldSettings
} from "./sections.ts"
import * as Result from "effect/Result"
import { formatBandwidth, largestQuantity, parseBandwidth } from "../core/units.ts"
import type { LinkSpec, World } from "../core/world.ts"
import { CollectiveTable } from "../core/cost/collective-table.ts"
import { deviceNamed, type Device } from "../core/cost/devices.ts"
import type { Fault } from "../core/fault.ts"
import type { Loader } from "./load.ts"
import { deliveredOf } from "./world.ts"

/** Copies between host and device, as cost models and machines have them. */
export const linkOf = ({ bandwidth, latency }: typeof HostLinkSettings.Type): LinkSpec => ({
  bytesPerSecond: bandwidth,
  latencySeconds: latency
})

/** The device whose peak rates estimate what nobody measured. */
export const resolveDevice = (device: DeviceSettings | undefined): Device | undefined => {
  if (device === undefined) return undefined
  if (typeof device === "string") return deviceNamed(device)
  const { name, flops, memoryBandwidth, efficiency } = device
  return {
    name,
    flopsPerSecond: flops,
    memoryBytesPerSecond: memoryBandwidth,
    ...(efficiency === undefined ? {} : { efficiency })
  }
}

/** The table that this field of `collectives` names; one with none of `ops`, which the program has, would change nothing. */
export const resolveCollectiveTable = (
  settings: CollectiveSettings,
  of: "measured" | "inside",
  ops: ReadonlyArray<string>,
  file: string,
  loader: Loader
): Effect.Effect<CollectiveTable | undefined, InputError> =>
  Effect.gen(function* () {
    const measured = settings[of]
    if (measured === undefined) return undefined
    const field = `collectives.${of}`
    const { collectives } = yield* loader.profile(file, field, measured)
    const endless = collectives.find(({ medianSeconds }) => medianSeconds > largestQuantity)
    if (endless !== undefined) {
      return yield* new InputError({
        file,
        field,
        value: `${measured} (${endless.op} of ${endless.sizeBytes} B takes more than ${largestQuantity} s)`,
        accepted: "a profile of collectives that end"
      })
    }
    // Rows on unlimited links say most; a table that has one other kind only means that one.
    const links = [...new Set(collectives.filter(({ op }) => ops.includes(op)).map(({ link }) => link))]
    const link = links.includes("unshaped") || links.length !== 1 ? "unshaped" : links[0]
    const table = new CollectiveTable(collectives, link)
    if (table.ops.some((op) => ops.includes(op))) return table
    const wanted = ops.join(" or ")
    const found =
      links.length > 1
        ? `${wanted} on links ${links.join(", ")}: more than one kind, and none without limit`
        : table.ops.length === 0
          ? "no collectives on unshaped links"
          : `only ${table.ops.join(", ")}`
    return yield* new InputError({
      file,
      field,
      value: `${measured} (${found})`,
      accepted: `a profile with ${wanted} measured on unshaped links or on one kind of others, as \`sim import nccl-tests\` makes`
    })
  })

/** Rates nearer than this to each other are one, as headers and buckets have it. */
const sameRate = 1.02

/** Tables that links of a stated rate limited say what those took: where the world's slowest are faster, nobody has measured that. */
export const limitedTableWarnings = (
  table: CollectiveTable | undefined,
  inside: CollectiveTable | undefined,
  { links, nodeOf, siteOf, size }: World
): ReadonlyArray<string> => {
  const nodes = new Set(nodeOf).size
  const { wan } = links
  const across = wan === undefined ? [] : "pairs" in wan ? wan.pairs.map(({ link }) => link) : [wan]
  const within = size > nodes ? [links.intra] : []
  const between = [...(nodes > 1 ? [links.inter] : []), ...(new Set(siteOf).size > 1 ? across : [])]
  return inside === undefined
    ? limitedTableWarning("measured", table, [...within, ...between])
    : [...limitedTableWarning("measured", table, between), ...limitedTableWarning("inside", inside, within)]
}

const limitedTableWarning = (
  of: "measured" | "inside",
  table: CollectiveTable | undefined,
  crossed: ReadonlyArray<LinkSpec>
): ReadonlyArray<string> => {
  const measured = table === undefined ? undefined : Result.getOrUndefined(parseBandwidth(table.link))
  if (table === undefined || measured === undefined) return []
  const slowest = Math.min(...crossed.map(({ bytesPerSecond }) => bytesPerSecond))
  if (crossed.length === 0 || slowest <= measured * sameRate) return []
  return [
    `collectives.${of} was measured over ${table.link} alone: over the ${slowest === Infinity ? "unlimited links" : formatBandwidth(slowest)} of this world collectives are said to take as long`
  ]
}

/**
 * Faults of this world; each that names a rank, node or site that is not there is an error.
 * @param links as the scenario has them: a bandwidth during a fault is of the same packets as before
 */
export const resolveFaults = (
  settings: ReadonlyArray<FaultSettings>,
  world: World,
  file: string,
  links?: WorldSettings["links"]
): Effect.Effect<ReadonlyArray<Fault>, InputError> =>
  Effect.forEach(settings, (fault, index) => {
    const fromSeconds = fault.from
    const untilSeconds = fault.for === undefined ? Infinity : fromSeconds + fault.for
    const refuse = (field: string, value: number, count: number, what: string) =>
      Effect.fail(
        new InputError({
          file,
          field: `faults[${index}].${field}`,
          value: String(value),
          accepted: `a ${what} of this world, 0 to ${count - 1}`
        })
      )
    if ("link" in fault) {
      const nodes = (world.nodeOf.at(-1) ?? 0) + 1
      const count = { intra: world.size, inter: nodes, wan: world.sites.length }[fault.link]
      if (fault.of !== undefined && !(fault.of >= 0 && fault.of < count)) {
        return refuse("of", fault.of, count, { intra: "rank", inter: "node", wan: "site" }[fault.link])
      }
      const spec = links?.[fault.link]
      const mtu = spec !== undefined && "mtu" in spec ? spec.mtu : undefined
      return Effect.succeed<Fault>({
        kind: "link",
        tier: fault.link,
        owner: fault.of,
        fromSeconds,
        untilSeconds,
        change: {
          ...(fault.bandwidth === undefined ? {} : { bytesPerSecond: deliveredOf(fault.bandwidth, mtu) }),
          ...(fault.latency === undefined ? {} : { latencySeconds: fault.latency })
        }
      })
    }
    const [field, rank, factor] =
      "outage" in fault
        ? (["outage", fault.outage, 0] as const)
        : (["straggler", fault.straggler, fault.speed] as const)
    if (!(rank >= 0 && rank < world.size)) return refuse(field, rank, world.size, "rank")
    return Effect.succeed<Fault>({ kind: "rank", rank, fromSeconds, untilSeconds, factor })
  })

// A profile that is only a table of timed ops or collectives, as importers of such tables make it.
import { counted } from "../core/units.ts"
import { median } from "../core/median.ts"
import type { MeasuredHost } from "../core/cost/host.ts"
import type { CollectiveCost, OpCost, Profile } from "../core/profile.ts"

/** What a table of timings does not say. */
export interface TableOptions {
  /** Name of the profile; default: the file's name without its extension. */
  readonly name?: string
  /** Device the times were measured on; default "unknown". */
  readonly device?: string
  /** Conditions of the measurement, added to the profile's `source`. */
  readonly conditions?: string
  /** Name of the input for messages; the functions that read files set it. */
  readonly file?: string
  /** As a profile has them. */
  readonly unprofiledStepSeconds?: number | undefined
  readonly recordingSeconds?: number | undefined
  readonly notes?: ReadonlyArray<string>
}

export const tableProfile = (
  kind: string,
  options: TableOptions,
  tables: {
    readonly ops?: ReadonlyArray<OpCost>
    readonly collectives?: ReadonlyArray<CollectiveCost>
    readonly host?: MeasuredHost
  }
): Profile => {
  const file = (options.file ?? kind).replace(/^.*[/\\]/u, "")
  return {
    name: options.name ?? file.replace(/\.[^.]*$/u, ""),
    device: options.device ?? "unknown",
    source: `${kind} ${file}${options.conditions === undefined ? "" : `; ${options.conditions}`}`,
    ...(options.notes === undefined ? {} : { notes: options.notes }),
    steps: 0,
    stepSeconds: 0,
    unprofiledStepSeconds: options.unprofiledStepSeconds,
    recordingSeconds: options.recordingSeconds,
    deviceBusySeconds: 0,
    unattributedShare: 0,
    layers: [],
    parameters: [],
    host: tables.host,
    ops: tables.ops ?? [],
    collectives: tables.collectives ?? []
  }
}

/** One row for each operation, ranks, size and link: of repeated ones, the median, which is told. */
export const mergedRows = (
  all: ReadonlyArray<CollectiveCost>,
  warnings: Array<string>
): ReadonlyArray<CollectiveCost> => {
  const groups = Map.groupBy(all, ({ op, ranks, sizeBytes, link }) => `${op} ${ranks} ${sizeBytes} ${link}`)
  if (groups.size < all.length)
    warnings.push(
      `${counted(all.length - groups.size, "row", "repeats", "repeat")} an operation, ranks and size: medians are taken`
    )
  return [...groups.values()].map((rows) => ({
    ...rows[0]!,
    medianSeconds: median(rows.map(({ medianSeconds }) => medianSeconds))
  }))
}

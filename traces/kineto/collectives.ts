// Timed collectives of a trace, with the sizes PyTorch recorded beside them. Knows nothing of layers.
import { counted } from "../../core/units.ts"
import type { CollectiveCost } from "../../core/profile.ts"
import { withoutArguments } from "./communication.ts"
import type { DeviceWork } from "./device-work.ts"
import type { HostTree } from "./host-tree.ts"
import type { Phase } from "./origins.ts"
import type { CollectiveRecord, KinetoTrace } from "./trace.ts"
import { median } from "../../core/median.ts"

// In this order: an all-reduce's name may hold reduce and scatter as well.
const operations: ReadonlyArray<readonly [RegExp, CollectiveCost["op"]]> = [
  [/reduce_?scatter/iu, "reduce_scatter"],
  [
    /all_?reduce|cross_device_reduce|(?:one|two)_?shot|multimem_?(?:one|red)|nvls|quick_?reduce/iu,
    "all_reduce"
  ],
  [/all_?gather/iu, "all_gather"],
  [/all_?to_?all|all2all|a2a|dispatch|combine/iu, "all_to_all"],
  [/broadcast/iu, "broadcast"],
  [/send|recv|memcpy ptop|rma_/iu, "send_recv"]
]

/** The operation a name speaks of: "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "allreduce_coalesced", "all_reduce_perf". */
const collectiveOperation = (name: string): CollectiveCost["op"] | undefined =>
  operations.find(([pattern]) => pattern.test(name))?.[1]

const elementBytes: Readonly<Record<string, number>> = {
  float: 4,
  float32: 4,
  int: 4,
  int32: 4,
  double: 8,
  float64: 8,
  long: 8,
  int64: 8,
  half: 2,
  float16: 2,
  bfloat16: 2,
  short: 2,
  int16: 2,
  byte: 1,
  char: 1,
  int8: 1,
  uint8: 1,
  bool: 1,
  uint16: 2,
  uint32: 4,
  uint64: 8,
  complexhalf: 4,
  complexfloat: 8,
  complexdouble: 16,
  float8_e4m3fn: 1,
  float8_e4m3fnuz: 1,
  float8_e5m2: 1,
  float8_e5m2fnuz: 1,
  float8_e8m0fnu: 1,
  // Two values a byte, counted as one element.
  float4_e2m1fn_x2: 1
}

/** One run of a collective on one device. */
export interface CollectiveCall {
  /** Position in the device's list of kernels. */
  readonly index: number
  readonly name: string
  readonly op: CollectiveCost["op"] | undefined
  readonly ranks: number | undefined
  /** As `CollectiveCost.sizeBytes`; undefined where the trace does not say. */
  readonly sizeBytes: number | undefined
  readonly dtype: string | undefined
  /** Who takes part, as the trace says it. */
  readonly group: string
  /** Which part of the step launched it. */
  readonly phase: Phase | undefined
  /** Microseconds. */
  readonly start: number
  readonly end: number
}

/** What a trace says of each collective of its steps: on the kernel, else on the record or annotation around its launch. */
export const collectiveCalls = (
  trace: KinetoTrace,
  tree: HostTree,
  { kernels, rows, origins, collective }: DeviceWork
): ReadonlyArray<CollectiveCall> =>
  collective.map((index) => {
    const kernel = kernels[index]!
    const records = [trace.deviceCollectives.get(kernel), ...enclosingRecords(trace, tree, rows[index]!)]
    const said = <K extends keyof CollectiveRecord>(key: K): CollectiveRecord[K] | undefined =>
      records.find((record) => record?.[key] !== undefined)?.[key]
    const name = trace.names.texts[trace.device.name.values[kernel]!]!
    const op =
      records.map((record) => collectiveOperation(record?.name ?? "")).find((each) => each !== undefined) ??
      collectiveOperation(name)
    const ranks = said("ranks") ?? trace.worldSize
    const hasRanks = ranks !== undefined && Number.isInteger(ranks) && ranks > 0 && ranks < 2 ** 31
    const input = said("inputElements")
    // A record gives both; an annotation only what was put in.
    const elements =
      op === "reduce_scatter"
        ? (said("outputElements") ?? (hasRanks && input !== undefined ? input / ranks : undefined))
        : input
    const dtype = said("dtype")
      ?.replace(/^.*(?:::|\.)/u, "")
      .toLowerCase()
    const bytes = elementBytes[dtype ?? ""]
    const hasSize =
      elements !== undefined && bytes !== undefined && elements >= 0 && Number.isFinite(elements)
    return {
      index,
      name,
      op,
      ranks: hasRanks ? ranks : undefined,
      sizeBytes: hasSize ? elements * bytes : undefined,
      dtype,
      group: said("group") ?? "",
      phase: origins.at(index)?.phase,
      start: trace.device.start.values[kernel]!,
      end: trace.device.end.values[kernel]!
    }
  })

/** Medians per operation, ranks and size. Those whose size or group the trace does not say are counted in a warning. */
export const collectiveCosts = (
  calls: ReadonlyArray<CollectiveCall>,
  warnings: Array<string>
): ReadonlyArray<CollectiveCost> => {
  const groups = new Map<
    string,
    { readonly cost: Omit<CollectiveCost, "medianSeconds">; readonly seconds: Array<number> }
  >()
  const unknown = new Map<string, number>()
  for (const { name, op, ranks, sizeBytes, start, end } of calls) {
    if (op === undefined || ranks === undefined || sizeBytes === undefined) {
      const short = withoutArguments(name)
        .replace(/^(?:void\s+)?(?:::)?/u, "")
        .trim()
      unknown.set(short, (unknown.get(short) ?? 0) + 1)
      continue
    }
    const key = `${op} ${ranks} ${sizeBytes}`
    let group = groups.get(key)
    if (group === undefined)
      groups.set(key, (group = { cost: { op, ranks, sizeBytes, link: "as recorded" }, seconds: [] }))
    group.seconds.push((end - start) * 1e-6)
  }
  if (unknown.size > 0) {
    const count = [...unknown.values()].reduce((sum, each) => sum + each, 0)
    const names = [...unknown.keys()].slice(0, 5).join(", ")
    warnings.push(
      `${counted(count, "collective", "has no recorded size or group and is", "have no recorded size or group and are")} not in the profile: ${names}`
    )
  }
  if (groups.size > 0) {
    warnings.push(
      "times of collectives are those of their kernels, which include waiting for the other ranks (traces of all ranks, imported together, tell the two apart)"
    )
  }
  return [...groups.values()].map(({ cost, seconds }) => ({ ...cost, medianSeconds: median(seconds) }))
}

/** Records around a host row, innermost first. */
const enclosingRecords = (
  trace: KinetoTrace,
  tree: HostTree,
  row: number
): ReadonlyArray<CollectiveRecord> => {
  const records: Array<CollectiveRecord> = []
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    const record = trace.hostCollectives.get(at)
    if (record !== undefined) records.push(record)
  }
  return records
}

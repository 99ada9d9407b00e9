// Timed collectives of a trace: NCCL kernels, with the sizes PyTorch recorded beside them. Knows nothing of layers.
import type { CollectiveCost } from "../../core/profile.ts"
import type { HostTree } from "./host-tree.ts"
import type { CollectiveRecord, KinetoTrace } from "./trace.ts"

const collectiveKernel = /nccl/iu

export const isCollective = (trace: KinetoTrace, kernel: number): boolean =>
  collectiveKernel.test(trace.names.texts[trace.device.name.values[kernel]!]!)

const operations: ReadonlyArray<readonly [RegExp, CollectiveCost["op"]]> = [
  [/reduce_?scatter/iu, "reduce_scatter"],
  [/all_?reduce/iu, "all_reduce"],
  [/all_?gather/iu, "all_gather"],
  [/all_?to_?all/iu, "all_to_all"],
  [/broadcast/iu, "broadcast"],
  [/send|recv/iu, "send_recv"]
]

/** The operation a name speaks of: "ncclDevKernel_AllReduce_Sum_f32_RING_LL", "allreduce_coalesced", "all_reduce_perf". */
export const collectiveOperation = (name: string): CollectiveCost["op"] | undefined =>
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
  float8_e4m3fn: 1,
  float8_e5m2: 1
}

/** Medians per operation, ranks and size. Kernels whose size or group the trace does not say are counted in a warning. */
export const collectiveCosts = (
  trace: KinetoTrace,
  tree: HostTree,
  kernels: ReadonlyArray<{ readonly kernel: number; readonly row: number }>,
  warnings: Array<string>
): ReadonlyArray<CollectiveCost> => {
  const groups = new Map<
    string,
    { readonly cost: Omit<CollectiveCost, "medianSeconds">; readonly seconds: Array<number> }
  >()
  let unknown = 0
  for (const { kernel, row } of kernels) {
    const record = trace.deviceCollectives.get(kernel) ?? enclosingRecord(trace, tree, row)
    const name = trace.names.texts[trace.device.name.values[kernel]!]!
    const op = collectiveOperation(record?.name ?? name) ?? collectiveOperation(name)
    const ranks = record?.ranks ?? trace.worldSize
    const elements = op === "reduce_scatter" ? record?.outputElements : record?.inputElements
    const bytes = elementBytes[(record?.dtype ?? "").toLowerCase()]
    const usable =
      op !== undefined &&
      ranks !== undefined &&
      elements !== undefined &&
      bytes !== undefined &&
      Number.isInteger(ranks) &&
      ranks > 0 &&
      ranks < 2 ** 31 &&
      elements >= 0 &&
      Number.isFinite(elements)
    if (!usable) {
      unknown++
      continue
    }
    const cost = { op, ranks, sizeBytes: elements * bytes, link: "as recorded" }
    const key = `${op} ${ranks} ${cost.sizeBytes}`
    let group = groups.get(key)
    if (group === undefined) groups.set(key, (group = { cost, seconds: [] }))
    group.seconds.push((trace.device.end.values[kernel]! - trace.device.start.values[kernel]!) * 1e-6)
  }
  if (unknown > 0)
    warnings.push(`${unknown} collectives have no recorded size or group and are not in the profile`)
  if (groups.size > 0) {
    warnings.push(
      "times of collectives are those of their kernels, which include waiting for the other ranks"
    )
  }
  return [...groups.values()].map(({ cost, seconds }) => ({ ...cost, medianSeconds: median(seconds) }))
}

const enclosingRecord = (trace: KinetoTrace, tree: HostTree, row: number): CollectiveRecord | undefined => {
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    const record = trace.hostCollectives.get(at)
    if (record !== undefined) return record
  }
  return undefined
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

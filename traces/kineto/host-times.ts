// What the host of a trace spent, as the profiler saw it: launches, calls of collectives, what follows each gradient, reads that
// waited for the device. Knows nothing of how much slower the profiler makes it.
import type { LaunchMode } from "../../core/cost/host.ts"
import type { ShardedRun, ShardedUnit } from "../import-report.ts"
import type { DeviceWork } from "./device-work.ts"
import type { HostTree } from "./host-tree.ts"
import type { ShardedWork } from "./shard-work.ts"
import { readLoop, type ReadLoop } from "./read-loop.ts"
import { rootUnit } from "./sharded.ts"
import { stepAt, type Step } from "./steps.ts"
import { Host, Numbers } from "./trace.ts"
import { median } from "../../core/median.ts"

/** Of one step; times in seconds. */
export interface HostTimes {
  readonly mode: LaunchMode
  /** Calls that launch something of the model's own. */
  readonly launches: number
  /** Gradients that were made, and what was done with each beside adding it up and communicating: DDP's hooks, mostly. */
  readonly gradients: number
  readonly gradientSeconds: number
  /** Calls of collectives, and each call's time. */
  readonly calls: number
  readonly callSeconds: number
  /** Whether gradients are communicated as they are made, as DDP does. */
  readonly overlapped: boolean
  /** FSDP's own code without the calls of collectives, and the tensors that these carry. */
  readonly sharding: { readonly seconds: number; readonly carried: number } | undefined
  /** From the end of a copy to the host until the host goes on: its median; undefined where nothing was read. */
  readonly readSeconds: number | undefined
  /** Of a program that reads several times a step. */
  readonly loop: ReadLoop | undefined
  /** Each replay of a graph; undefined where there is none. */
  readonly replaySeconds: number | undefined
}

const generated = /^triton_|## Call CompiledFxGraph|Torch-Compiled Region/u
const graphLaunch = /GraphLaunch/u
const synchronising = /Synchronize$/u
const toHost = /memcpy (?:d(?:evice)?to ?h(?:ost)?|dtoh)/iu

export const hostTimes = (
  tree: HostTree,
  work: DeviceWork,
  shards: ShardedWork | undefined,
  sharded: ShardedRun | undefined
): HostTimes => {
  const { trace } = tree
  const { steps, rows, collective } = work
  const compute = shards?.model ?? work.compute
  const gradients = gradientNodes(tree, steps)
  const count = steps.length
  const isReplay = trace.names.texts.map((name) => graphLaunch.test(name))
  const launching = new Uint8Array(tree.order.length)
  const replays: Array<number> = []
  let launches = 0
  let byReplay = 0
  const launch = (row: number): void => {
    if (row < 0 || launching[row] === 1) return
    launching[row] = 1
    launches++
    if (isReplay[trace.host.name.values[row]!] === true) replays.push(row)
  }
  for (const index of compute) {
    const row = rows[index]!
    launch(row)
    if (row >= 0 && isReplay[trace.host.name.values[row]!] === true) byReplay++
  }
  if (shards === undefined) for (const index of collective) launch(rows[index]!)
  const isGenerated = trace.names.texts.some((name) => generated.test(name))
  const launched = outermostCalls(tree, work)
  // Of one rank alone NCCL launches nothing, but is called all the same.
  const calls = launched.length > 0 ? launched : recordedCalls(tree, steps)
  const inNode = new Map<number, number>()
  for (const row of calls) {
    let at = tree.parent[row]!
    while (at >= 0 && !tree.isNode(at)) at = tree.parent[at]!
    if (at >= 0) inNode.set(at, (inNode.get(at) ?? 0) + lasted(tree, row))
  }
  let after = 0
  let overlapped = false
  for (let i = 0; i < gradients.length; i++) {
    const [row, node] = [gradients.row.values[i]!, gradients.node.values[i]!]
    after += Math.max(0, lasted(tree, node) - lasted(tree, row) - (inNode.get(node) ?? 0))
    overlapped ||= inNode.has(node)
  }
  return {
    mode: byReplay * 2 > compute.length ? "graph" : isGenerated ? "compiled" : "eager",
    launches: launches / count,
    gradients: gradients.length / count,
    gradientSeconds: gradients.length === 0 ? 0 : (after / gradients.length) * 1e-6,
    calls: calls.length / count,
    callSeconds: mean(calls.map((row) => lasted(tree, row))) * 1e-6,
    overlapped,
    sharding:
      shards === undefined || sharded === undefined
        ? undefined
        : {
            seconds:
              (hostOfShards(shards, steps) -
                calls.reduce((sum, row) => sum + (shards.isOwn(row) ? lasted(tree, row) : 0), 0)) *
              (1e-6 / count),
            carried: tensorsCarried(sharded)
          },
    readSeconds: readSeconds(tree, work),
    loop: readLoop(tree, work),
    replaySeconds: replays.length === 0 ? undefined : mean(replays.map((row) => lasted(tree, row))) * 1e-6
  }
}

/** Nodes that take a gradient, and within each the op that adds it up: recorded shapes are not needed. */
const gradientNodes = (
  tree: HostTree,
  steps: ReadonlyArray<Step>
): { readonly length: number; readonly row: Numbers; readonly node: Numbers } => {
  const { names, host } = tree.trace
  const named = names.texts.map((name) => name.endsWith("AccumulateGrad"))
  const found = { row: new Numbers(Int32Array), node: new Numbers(Int32Array) }
  for (const row of tree.order) {
    const node = tree.parent[row]!
    if (named[host.name.values[row]!] !== true || node < 0 || !tree.isNode(node)) continue
    if (named[host.name.values[node]!] !== true || stepAt(steps, tree.start(row)) < 0) continue
    found.row.push(row)
    found.node.push(node)
  }
  return { length: found.row.length, ...found }
}

/** Microseconds of FSDP's own code in the steps. */
const hostOfShards = ({ host }: ShardedWork, steps: ReadonlyArray<Step>): number =>
  host.own.starts
    .subarray(0, host.own.length)
    .reduce((sum, start, i) => sum + (stepAt(steps, start) >= 0 ? host.own.ends[i]! - start : 0), 0)

/**
 * Tensors that a step's gathers and scatters carry. Where no call names its unit (all are told of the root), each is reckoned to
 * carry what a unit has in the mean.
 */
const tensorsCarried = ({ units }: ShardedRun): number => {
  const callsOf = ({ gathers, scatters }: ShardedUnit): number => gathers.calls + scatters.calls
  const sum = (of: (unit: ShardedUnit) => number): number =>
    units.reduce((total, unit) => total + of(unit), 0)
  if (units.some((unit) => unit.name !== rootUnit && callsOf(unit) > 0))
    return sum((unit) => unit.tensors * callsOf(unit))
  const holding = units.filter(({ tensors }) => tensors > 0).length
  return holding === 0 ? 0 : (sum(callsOf) * sum(({ tensors }) => tensors)) / holding
}

const lasted = (tree: HostTree, row: number): number => tree.end(row) - tree.start(row)

const mean = (values: ReadonlyArray<number>): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length

/** The outermost records of the calls that launched the steps' collectives, each once. */
const outermostCalls = (tree: HostTree, { rows, collective }: DeviceWork): ReadonlyArray<number> => {
  const found = new Set<number>()
  for (const index of collective) {
    let outermost = -1
    for (let at = rows[index]!; at >= 0; at = tree.parent[at]!) if (tree.isCollectiveCall(at)) outermost = at
    if (outermost >= 0) found.add(outermost)
  }
  return [...found]
}

/** The outermost records of all calls of collectives within the steps, whether or not they launched anything. */
const recordedCalls = (tree: HostTree, steps: ReadonlyArray<Step>): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (const row of tree.order) {
    if (!tree.isCollectiveCall(row) || stepAt(steps, tree.start(row)) < 0) continue
    let within = tree.parent[row]!
    while (within >= 0 && !tree.isCollectiveCall(within)) within = tree.parent[within]!
    if (within < 0) found.push(row)
  }
  return found
}

/** A copy to the host is a read where the next thing the thread asks of the device is to wait. */
const readSeconds = (tree: HostTree, { steps, kernels, rows, compute }: DeviceWork): number | undefined => {
  const { host, device, names } = tree.trace
  const isToHost = names.texts.map((name) => toHost.test(name))
  if (!isToHost.includes(true)) return undefined
  const ends = new Map<number, number>()
  const launching = new Uint8Array(tree.order.length)
  for (const index of compute) {
    const row = rows[index]!
    if (row < 0) continue
    const kernel = kernels[index]!
    launching[row] = 1
    if (isToHost[device.name.values[kernel]!] === true) ends.set(row, device.end.values[kernel]!)
  }
  if (ends.size === 0) return undefined
  const later: Array<number> = []
  let copied = -1
  for (const row of tree.order) {
    if (host.kind.values[row] !== Host.launch) continue
    if (launching[row] === 1) copied = ends.has(row) ? row : -1
    else if (copied >= 0 && synchronising.test(tree.name(row))) {
      const alike = host.thread.values[row] === host.thread.values[copied]
      if (alike && stepAt(steps, tree.start(row)) === stepAt(steps, tree.start(copied)))
        later.push(Math.max(0, tree.end(row) - ends.get(copied)!))
      copied = -1
    }
  }
  return later.length === 0 ? undefined : median(later) * 1e-6
}

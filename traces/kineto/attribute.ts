// From events to layers: which layer and phase each piece of device time belongs to, and which parameters each layer
// has. Kernel -> launch (correlation id) -> enclosing module, or autograd node -> forward op (sequence number, or the
// forward/backward link) -> module. Knows nothing of files.
import { elementsOf } from "../../core/machine/tensor.ts"
import type { LayerCost, PhaseCost, ProfiledParameter } from "../../core/profile.ts"
import { formatSeconds } from "../../core/units.ts"
import type { CommunicationTimes, Parallelism, ShardedRun } from "../import-report.ts"
import { besideCollectives, lostBeside } from "./beside-collectives.ts"
import { collectiveCalls, type CollectiveCall } from "./collectives.ts"
import { deviceRegions, communicationTimes, waitsAtBeginnings, type Regions } from "./device-regions.ts"
import { deviceWork, type DeviceWork } from "./device-work.ts"
import { forwardFinder, precedingNode } from "./forward-ops.ts"
import { hostTimes, type HostTimes } from "./host-times.ts"
import { HostTree } from "./host-tree.ts"
import { union } from "./intervals.ts"
import { kernelGroup } from "./kernel-group.ts"
import { anchorAgain, Anchors, Layers, type Anchor } from "./layers.ts"
import type { Origin, Phase } from "./origins.ts"
import { findParallelism } from "./parallelism.ts"
import { firstMade, inputGradients, nodeAround } from "./reentrant.ts"
import { chooseParameters, Gradients, type GradientRow } from "./parameters.ts"
import {
  genericNames,
  intervalsOf,
  kindFinder,
  layerUnits,
  shardedRun,
  shardedWork,
  unitNames
} from "./shard-work.ts"
import { Host, type KinetoTrace } from "./trace.ts"

export interface Attribution {
  readonly steps: number
  readonly stepSeconds: number
  readonly deviceBusySeconds: number
  readonly layers: ReadonlyArray<LayerCost>
  readonly parameters: ReadonlyArray<ProfiledParameter>
  /** Every collective of the steps, in the order in which the device ran them. */
  readonly calls: ReadonlyArray<CollectiveCall>
  /** Per step. */
  readonly communication: CommunicationTimes
  readonly parallelism: ReadonlyArray<Parallelism>
  readonly host: HostTimes
  /** Where parameters were sharded: what travelled, by unit, and what that cost beside the model's own work. */
  readonly sharded: ShardedRun | undefined
  /** From one step to the next as recorded, seconds: `stepSeconds` with all that is in no layer. */
  readonly wallSeconds: number
  /** Device time per step that no layer could be found for, largest first. */
  readonly unattributed: ReadonlyArray<{ readonly name: string; readonly seconds: number }>
  readonly warnings: ReadonlyArray<string>
}

interface Target {
  readonly phase: Phase
  /** Undefined: the whole optimizer region, or unattributed when `reason` says why. */
  readonly layer: number | undefined
  readonly reason?: string
}

const microseconds = 1e-6

export const attribute = (trace: KinetoTrace): Attribution => {
  const warnings = [...trace.warnings]
  const tree = new HostTree(trace)
  const work = deviceWork(trace, tree, warnings)
  const { steps, kernels, rows, origins, compute, collective } = work
  const forwardOf = forwardFinder(tree)
  const gradients = new Gradients(tree, steps, inputGradients(tree, forwardOf))
  const calls = collectiveCalls(trace, tree, work)
  const shards = shardedWork(tree, work, calls)
  const hasFrames = tree.frames !== "none"

  // Where there is an optimizer, a step's own and its metrics follow its last backward node.
  const afterBackward = afterBackwardFinder(tree, work)

  const anchors = new Anchors()
  const again: Array<Anchor> = []
  const anchored = new Uint8Array(trace.host.start.length)
  const anchorForward = (node: number, step: number): void => {
    const row = forwardOf(node)
    if (row < 0 || anchored[row] === 1) return
    anchored[row] = 1
    const anchor = { row, step, frame: tree.frameOf(row) }
    // What is made again in a backward pass is of the layers that made it first.
    if (tree.inBackward[row] === 1) again.push(anchor)
    else anchors.push(anchor)
  }
  if (hasFrames) {
    for (let index = 0; index < origins.length; index++) {
      const origin = origins.at(index)
      if (origin === undefined || origin.step < 0 || shards?.isOwn(origin.row) === true) continue
      if (origin.node >= 0) anchorForward(origin.node, origin.step)
      else if (origin.phase === "forward" && !afterBackward(origin)) anchors.push(origin)
    }
    for (const step of steps.keys())
      for (let at = 0; at < gradients.countOf(step); at++) anchorForward(gradients.at(step, at).node, step)
  }
  anchorAgain(tree, anchors, again, (row) => firstMade(tree, forwardOf, row))
  const layers = new Layers(
    tree,
    anchors,
    steps.map((step) => step.start)
  )

  const groups = new Map<string, number>()
  const groupOf = (kernel: number): number => {
    const name = kernelGroup(trace.names.texts[trace.device.name.values[kernel]!]!)
    let group = groups.get(name)
    if (group === undefined) groups.set(name, (group = groups.size))
    return group
  }
  // A module's name is its own; an op's is shared by all of its kind.
  const ofFrame = (frame: number): number | undefined =>
    frame < 0 || tree.frames === "ops" ? undefined : layers.ofOwner(tree.name(frame))
  const ofForward = (row: number): number | undefined => {
    if (row < 0) return undefined
    const layer = layers.ofRow(row) ?? ofFrame(tree.frameOf(row))
    const node = layer === undefined ? nodeAround(tree, row) : -1
    const outer = node < 0 ? -1 : forwardOf(node)
    return outer >= 0 && tree.start(outer) < tree.start(node) ? ofForward(outer) : layer
  }
  const nodeGroup = new Map<number, number>()
  const within = knownTargets()
  const targetOf = (kernel: number, origin: Origin | undefined): Target => {
    const name = trace.names.texts[trace.device.name.values[kernel]!]!
    if (!hasFrames) {
      const group = groupOf(kernel)
      if (origin === undefined) {
        const phase = kernelGroup(name) === "optimizer" ? "optimizer" : "forward"
        return within(phase, phase === "optimizer" ? undefined : group)
      }
      const phase = afterBackward(origin) ? "optimizer" : origin.phase
      if (origin.node >= 0) nodeGroup.set(origin.node, group)
      return within(phase, phase === "optimizer" ? undefined : group)
    }
    if (origin === undefined)
      return { phase: "forward", layer: undefined, reason: `${name} (no launch record)` }
    if (origin.phase === "optimizer" || afterBackward(origin)) {
      return within("optimizer", undefined)
    }
    if (origin.phase === "forward") return within("forward", layers.ofRow(origin.row), () => name)
    if (origin.node < 0) {
      // The seed of the backward pass, launched by Tensor.backward itself: the loss's.
      const layer = layers.at(origin.step, tree.start(origin.row))
      return within("backward", layer, () => `${name} (before the forward pass)`)
    }
    const layer = ofFrame(origin.frame) ?? ofForward(forwardOf(origin.node))
    return within("backward", layer, () => `${nodeTitle(tree, origin.node)} (no forward op)`)
  }

  // ---- device time
  const model = shards?.model ?? compute
  const { regions, exposedCollective, ownHost } = deviceRegions(
    trace,
    kernels,
    model,
    shards === undefined ? collective : [...collective, ...shards.own],
    steps,
    shards?.host
  )

  const units = layerUnits(layers, shards, anchors)
  const names = hasFrames ? [...unitNames(layers.names, units, tree.frames === "ops")] : []
  const count = () => (hasFrames ? layers.names.length : groups.size)
  const sums = new Map<number, LayerSums>()
  const sumsOf = (layer: number): LayerSums => {
    let found = sums.get(layer)
    if (found === undefined) sums.set(layer, (found = newSums()))
    return found
  }
  const optimizer = { busy: 0, span: 0, launches: 0 }
  const lost = newSums()
  const reasons = new Map<string, number>()
  const targets = Array.from<Target | undefined>({ length: kernels.length })
  for (const index of model) targets[index] = targetOf(kernels[index]!, origins.at(index))
  const { slowdown, overlaps } = besideThem(trace, work, regions, targets, names)
  let wall = exposedCollective + ownHost
  let stepTotal = 0
  let busyTotal = 0
  let phase: Phase = "forward"
  for (let at = 0; at < regions.length; at++) {
    const index = regions.index[at]!
    const target = targets[index]!
    wall += regions.span[at]!
    const region = shorter(regions, at, lostBeside(overlaps?.[at] ?? 0, slowdown))
    stepTotal += region.span
    busyTotal += region.busy
    if (target.layer !== undefined) {
      phase = target.phase
      add(sumsOf(target.layer)[target.phase], region)
    } else if (target.phase === "optimizer" && target.reason === undefined) {
      phase = target.phase
      add(optimizer, region)
    } else {
      // Where even the phase is unknown, the time stays in the phase the device was in.
      add(lost[origins.at(index) === undefined ? phase : target.phase], region)
      const reason = target.reason ?? "unknown"
      reasons.set(reason, (reasons.get(reason) ?? 0) + region.busy)
    }
  }
  // Each rank's optimizer had its part alone; a profile is of the whole model.
  const parts = shards?.ranks ?? 1
  const elsewhere = optimizer.busy * (parts - 1)
  add(optimizer, { busy: elsewhere, span: elsewhere })
  busyTotal += elsewhere
  stepTotal += elsewhere
  if (!hasFrames) names.push(...groups.keys())
  warnings.push(...toldOfFrames(tree))
  warnings.push(...toldOfWait(waitsAtBeginnings(trace, work), wall))
  warnings.push(...toldOf(exposedCollective / steps.length, slowdown, shards !== undefined))

  // ---- parameters
  const layerOfGradient = ({ node }: GradientRow): number | undefined =>
    hasFrames ? ofForward(forwardOf(node)) : nodeGroup.get(precedingNode(tree, node))
  const parameters = chooseParameters(tree, layers, steps.length, gradients, layerOfGradient, warnings)

  // ---- the optimizer is one region over all parameters: by their elements
  const elements = elementsByLayer(parameters)
  const allElements = [...elements.values()].reduce((sum, size) => sum + size, 0)
  for (const [layer, size] of allElements > 0 ? elements : [])
    add(sumsOf(layer).optimizer, shareOf(optimizer, size / allElements))
  warnings.push(...crowded(elements.size, parameters.length))
  const ran = shards && shardedRun(tree, work, shards, calls, parameters, units!)
  const host = hostTimes(tree, work, shards, ran)

  // ---- layers
  const perStepSeconds = microseconds / steps.length
  if (host.mode !== "graph")
    launchedFirst(model, rows, tree.order.length, (index) => {
      const { layer, phase: own } = targets[index]!
      if (layer !== undefined) sumsOf(layer)[own].launches++
    })
  const cost = ({ busy, span, launches }: Sum): PhaseCost => ({
    busySeconds: busy * perStepSeconds,
    // The parts of a sum may fall short of the whole by its last digit.
    spanSeconds: Math.max(busy, span) * perStepSeconds,
    ...(launches === 0 ? {} : { launches: launchesOf(launches / steps.length) })
  })
  const kept: Array<LayerCost> = []
  const newIndex = new Map<number, number>()
  const keep = (name: string, own: LayerSums): void => {
    kept.push({
      name,
      forward: cost(own.forward),
      backward: cost(own.backward),
      optimizer: cost(own.optimizer)
    })
  }
  for (let layer = 0; layer < count(); layer++) {
    const own = sums.get(layer)
    if (own === undefined && !elements.has(layer)) continue
    newIndex.set(layer, kept.length)
    keep(names[layer]!, own ?? newSums())
  }
  if (allElements === 0 && optimizer.span > 0) keep("optimizer", { ...newSums(), optimizer })
  // A parameter of no layer that ran has no other place either.
  const homeless = parameters.some(({ layer }) => !newIndex.has(layer))
  const nowhere = kept.length
  if (reasons.size > 0 || homeless) keep("unattributed", lost)
  return {
    steps: steps.length,
    stepSeconds: stepTotal * perStepSeconds,
    deviceBusySeconds: busyTotal * perStepSeconds,
    layers: kept,
    parameters: parameters.map((parameter) => ({
      ...parameter,
      // Layers of a sharded run compute in a copy; what is learnt is what gradients are summed in.
      dtype: shards?.reduceDtype ?? parameter.dtype,
      layer: newIndex.get(parameter.layer) ?? nowhere
    })),
    parallelism: findParallelism(trace, calls, steps.length),
    calls,
    host,
    sharded: ran,
    wallSeconds: wall * perStepSeconds,
    communication: { ...communicationTimes(trace, work), slowdown },
    unattributed: [...reasons]
      .map(([name, busy]) => ({ name, seconds: busy * perStepSeconds }))
      .toSorted((a, b) => b.seconds - a.seconds),
    warnings
  }
}

/** One object for each phase of each layer, however many kernels are theirs; `why` says of what has no layer what it is. */
const knownTargets = () => {
  const known: Record<Phase, Array<Target>> = { forward: [], backward: [], optimizer: [] }
  return (phase: Phase, layer: number | undefined, why?: () => string): Target =>
    layer === undefined && why !== undefined
      ? { phase, layer, reason: why() }
      : (known[phase][(layer ?? -1) + 1] ??= { phase, layer })
}

/** Kernels of the model beside collectives, held to the same kernels alone; nothing where no collective ran. */
const besideThem = (
  trace: KinetoTrace,
  { kernels, origins, collective }: DeviceWork,
  { length, index, start, end }: Regions,
  targets: ReadonlyArray<Target | undefined>,
  names: ReadonlyArray<string>
) => {
  if (collective.length === 0) return { slowdown: undefined, overlaps: undefined }
  const kindOf = kindFinder(trace, kernels, genericNames(names))
  const kind = new Int32Array(length)
  for (let at = 0; at < length; at++) {
    const { layer, phase } = targets[index[at]!]!
    kind[at] = kindOf(index[at]!, layer, phase, origins.at(index[at]!)?.step ?? -1)
  }
  return besideCollectives({ length, start, end, kind }, union(intervalsOf(trace, kernels, collective)))
}

/** Of the kernels that each of the host's launches began, the first. `hostRows`: how many rows launches are among. */
const launchedFirst = (
  compute: ReadonlyArray<number>,
  rows: Int32Array,
  hostRows: number,
  found: (index: number) => void
): void => {
  const launched = new Uint8Array(hostRows)
  for (const index of compute) {
    const row = rows[index]!
    if (row < 0 || launched[row] === 1) continue
    launched[row] = 1
    found(index)
  }
}

const elementsByLayer = (parameters: ReadonlyArray<ProfiledParameter>): ReadonlyMap<number, number> => {
  const elements = new Map<number, number>()
  for (const { layer, shape } of parameters) {
    elements.set(layer, (elements.get(layer) ?? 0) + elementsOf(shape))
  }
  return elements
}

const shorter = ({ start, end, span }: Regions, at: number, by: number): Pick<Sum, "busy" | "span"> => ({
  busy: end[at]! - start[at]! - by,
  span: span[at]! - by
})

/** Share of a step that may be missing of it, untold. */
const littleWait = 0.03

/**
 * What is told of steps that are too short: each has the wait for the next one's first kernel at its end, and the last has none. `waits`
 * and `all` steps together, microseconds.
 */
const toldOfWait = (waits: ReadonlyArray<number>, all: number): ReadonlyArray<string> => {
  if (waits.length === 0) return []
  const left = waits.reduce((sum, wait) => sum + wait, 0) / waits.length
  return left > all * littleWait
    ? [
        `the device waited ${formatSeconds(left * microseconds)} for the first kernel of a step (data, mostly), and the last step has no such wait at its end: the mean is too short by ${formatSeconds((left / (waits.length + 1)) * microseconds)}; record more steps, or say --step-time`
      ]
    : []
}

/** What is told of layers that are no modules. */
const toldOfFrames = ({ frames }: HostTree): ReadonlyArray<string> => {
  if (frames === "none")
    return ["the trace has neither modules, annotations nor autograd nodes: layers are families of kernels"]
  return frames === "ops"
    ? [
        "no modules were recorded: layers are the ops whose backward pass ran (with_modules=True names modules)"
      ]
    : []
}

/** What is told of parameters that are in too few layers. */
const crowded = (holding: number, tensors: number): ReadonlyArray<string> =>
  holding === 1 || (holding === 2 && tensors > 4)
    ? [
        `all parameters are in ${holding === 1 ? "one layer" : "two layers"}: nothing of their communication can overlap the backward pass as it does in a model of many layers`
      ]
    : []

/** What is told of communication: microseconds of a step in which it ran alone, and what it does to kernels beside it. */
const toldOf = (exposed: number, slowdown: number | undefined, sharded: boolean): ReadonlyArray<string> => [
  ...(exposed > 0
    ? [
        `collectives${sharded ? " and copies of what travels" : ""} ran alone for ${(exposed * 1e-3).toPrecision(3)} ms per step; that time is in no layer, and the step is shorter by it`
      ]
    : []),
  ...(slowdown !== undefined && slowdown > 1
    ? [
        `kernels took ${slowdown.toFixed(2)} times as long beside collectives as without: layers have their times without (collectives.slowdown says so of a scenario)`
      ]
    : [])
]

interface Sum {
  busy: number
  span: number
  launches: number
}
type LayerSums = Record<Phase, Sum>

const newSums = (): LayerSums => ({
  forward: { busy: 0, span: 0, launches: 0 },
  backward: { busy: 0, span: 0, launches: 0 },
  optimizer: { busy: 0, span: 0, launches: 0 }
})

/** Of a recorded layer each kernel was launched once, however the program ran. */
const launchesOf = (count: number) => ({ eager: count, once: count })

const shareOf = ({ busy, span }: Sum, share: number) => ({ busy: busy * share, span: span * share })

const add = (sum: Sum, { busy, span }: Pick<Sum, "busy" | "span">): void => {
  sum.busy += busy
  sum.span += span
}

/** Whether host work of the forward phase is the optimizer's: after a step's last backward node, where it has an optimizer. */
const afterBackwardFinder = (
  tree: HostTree,
  { origins, kernels }: DeviceWork
): ((origin: Origin) => boolean) => {
  const { trace } = tree
  const lastNode = new Map<number, number>()
  for (let index = 0; index < origins.length; index++) {
    const origin = origins.at(index)
    if (origin === undefined || origin.node < 0) continue
    lastNode.set(origin.step, Math.max(lastNode.get(origin.step) ?? -Infinity, tree.start(origin.node)))
  }
  const follows = ({ step, start }: Origin): boolean => start > (lastNode.get(step) ?? Infinity)
  const optimizes = new Set<number>()
  for (let index = 0; index < origins.length; index++) {
    const origin = origins.at(index)
    if (origin === undefined || optimizes.has(origin.step)) continue
    const name = trace.names.texts[trace.device.name.values[kernels[index]!]!]!
    if (origin.phase === "optimizer" || (follows(origin) && kernelGroup(name) === "optimizer"))
      optimizes.add(origin.step)
  }
  return (origin) =>
    origin.phase === "forward" &&
    (origin.frame < 0 || trace.host.kind.values[origin.frame] !== Host.module) &&
    optimizes.has(origin.step) &&
    follows(origin)
}

const nodeTitle = (tree: HostTree, node: number): string =>
  tree.name(node).replace("autograd::engine::evaluate_function: ", "")

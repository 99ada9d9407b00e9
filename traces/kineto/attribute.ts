// From events to layers: which layer and phase each piece of device time belongs to, and which parameters each layer
// has. Kernel -> launch (correlation id) -> enclosing module, or autograd node -> forward op (sequence number, or the
// forward/backward link) -> module. Knows nothing of files.
import type { LayerCost, ProfiledParameter } from "../../core/profile.ts"
import type { CommunicationTimes, Parallelism } from "../import-report.ts"
import { collectiveCalls, type CollectiveCall } from "./collectives.ts"
import { deviceRegions, communicationTimes, type Region } from "./device-regions.ts"
import { deviceWork, type DeviceWork } from "./device-work.ts"
import { forwardFinder, precedingNode } from "./forward-ops.ts"
import { hostTimes, type HostTimes } from "./host-times.ts"
import { HostTree } from "./host-tree.ts"
import { kernelGroup } from "./kernel-group.ts"
import { Layers, type Anchor } from "./layers.ts"
import type { Origin, Phase } from "./origins.ts"
import { findParallelism } from "./parallelism.ts"
import { chooseParameters, gradientRows, type GradientRow } from "./parameters.ts"
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
  /** Device time per step that no layer could be found for, largest first. */
  readonly unattributed: ReadonlyArray<{ readonly name: string; readonly seconds: number }>
  readonly warnings: ReadonlyArray<string>
}

interface Target {
  readonly phase: Phase
  /** Undefined: the whole optimizer region, or unattributed when `reason` says why. */
  readonly layer: number | undefined
  readonly reason: string | undefined
}

const microseconds = 1e-6

export const attribute = (trace: KinetoTrace): Attribution => {
  const warnings = [...trace.warnings]
  const tree = new HostTree(trace)
  const work = deviceWork(trace, tree, warnings)
  const { steps, kernels, origins, compute, collective } = work
  const gradients = gradientRows(tree, steps)
  const hasFrames = tree.frames !== "none"

  // Where there is an optimizer, a step's own and its metrics follow its last backward node.
  const afterBackward = afterBackwardFinder(tree, work)

  const forwardOf = forwardFinder(tree)
  const anchors: Array<Anchor> = []
  const anchored = new Uint8Array(trace.host.start.length)
  const anchorForward = (node: number, step: number): void => {
    const row = forwardOf(node)
    if (row < 0 || anchored[row] === 1) return
    anchored[row] = 1
    anchors.push({ row, step, frame: tree.frameOf(row) })
  }
  if (hasFrames) {
    for (const origin of origins) {
      if (origin === undefined || origin.step < 0) continue
      if (origin.node >= 0) anchorForward(origin.node, origin.step)
      else if (origin.phase === "forward" && !afterBackward(origin)) anchors.push(origin)
    }
    for (const { node, step } of gradients) anchorForward(node, step)
  }
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
    const layer = layers.ofRow(row)
    return layer !== undefined || row < 0 ? layer : ofFrame(tree.frameOf(row))
  }
  const nodeGroup = new Map<number, number>()
  const targetOf = (kernel: number, origin: Origin | undefined): Target => {
    const name = trace.names.texts[trace.device.name.values[kernel]!]!
    if (!hasFrames) {
      const group = groupOf(kernel)
      if (origin === undefined) {
        const phase = kernelGroup(name) === "optimizer" ? "optimizer" : "forward"
        return { phase, layer: phase === "optimizer" ? undefined : group, reason: undefined }
      }
      const phase = afterBackward(origin) ? "optimizer" : origin.phase
      if (origin.node >= 0) nodeGroup.set(origin.node, group)
      return { phase, layer: phase === "optimizer" ? undefined : group, reason: undefined }
    }
    if (origin === undefined)
      return { phase: "forward", layer: undefined, reason: `${name} (no launch record)` }
    if (origin.phase === "optimizer" || afterBackward(origin)) {
      return { phase: "optimizer", layer: undefined, reason: undefined }
    }
    if (origin.phase === "forward") return { phase: "forward", layer: layers.ofRow(origin.row), reason: name }
    if (origin.node < 0) {
      // The seed of the backward pass, launched by Tensor.backward itself: the loss's.
      const layer = layers.at(origin.step, tree.start(origin.row))
      return { phase: "backward", layer, reason: `${name} (before the forward pass)` }
    }
    const layer = ofFrame(origin.frame) ?? ofForward(forwardOf(origin.node))
    return { phase: "backward", layer, reason: `${nodeTitle(tree, origin.node)} (no forward op)` }
  }

  // ---- device time
  const regions = deviceRegions(trace, kernels, compute, collective, steps.at(-1)!.end)

  const names = hasFrames ? [...layers.names] : []
  const count = () => (hasFrames ? layers.names.length : groups.size)
  const sums = new Map<number, LayerSums>()
  const sumsOf = (layer: number): LayerSums => {
    let found = sums.get(layer)
    if (found === undefined) sums.set(layer, (found = newSums()))
    return found
  }
  const optimizer = { busy: 0, span: 0 }
  const lost = newSums()
  const reasons = new Map<string, number>()
  let stepTotal = 0
  let busyTotal = 0
  let phase: Phase = "forward"
  for (const region of regions.regions) {
    const target = targetOf(kernels[region.index]!, origins[region.index])
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
      add(lost[origins[region.index] === undefined ? phase : target.phase], region)
      const reason = target.reason ?? "unknown"
      reasons.set(reason, (reasons.get(reason) ?? 0) + region.busy)
    }
  }
  if (!hasFrames) {
    names.push(...groups.keys())
    warnings.push(
      "the trace has neither modules, annotations nor autograd nodes: layers are families of kernels"
    )
  }
  if (tree.frames === "ops") {
    warnings.push(
      "no modules were recorded: layers are the ops whose backward pass ran (with_modules=True names modules)"
    )
  }
  if (regions.exposedCollective > 0) {
    const milliseconds = ((regions.exposedCollective / steps.length) * 1e-3).toPrecision(3)
    warnings.push(
      `collectives ran alone for ${milliseconds} ms per step; that time is in no layer, and the step is shorter by it`
    )
  }

  // ---- parameters
  const perStep = steps.map((): Array<GradientRow> => [])
  for (const gradient of gradients) perStep[gradient.step]!.push(gradient)
  const layerOfGradient = ({ node }: GradientRow): number | undefined =>
    hasFrames ? ofForward(forwardOf(node)) : nodeGroup.get(precedingNode(tree, node))
  const parameters = chooseParameters(tree, layers, perStep, layerOfGradient, warnings)

  // ---- the optimizer is one region over all parameters: by their elements
  const elements = new Map<number, number>()
  let allElements = 0
  for (const { layer, shape } of parameters) {
    const size = shape.reduce((product, extent) => product * extent, 1)
    elements.set(layer, (elements.get(layer) ?? 0) + size)
    allElements += size
  }
  if (allElements > 0) {
    for (const [layer, size] of elements) {
      const share = size / allElements
      add(sumsOf(layer).optimizer, { busy: optimizer.busy * share, span: optimizer.span * share })
    }
  }

  const holding = elements.size
  if (holding === 1 || (holding === 2 && parameters.length > 4)) {
    warnings.push(
      `all parameters are in ${holding === 1 ? "one layer" : "two layers"}: nothing of their communication can overlap the backward pass as it does in a model of many layers`
    )
  }

  const calls = collectiveCalls(trace, tree, work)

  // ---- layers
  const perStepSeconds = microseconds / steps.length
  const cost = ({ busy, span }: { busy: number; span: number }) => ({
    busySeconds: busy * perStepSeconds,
    // The parts of a sum may fall short of the whole by its last digit.
    spanSeconds: Math.max(busy, span) * perStepSeconds
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
      layer: newIndex.get(parameter.layer) ?? nowhere
    })),
    parallelism: findParallelism(trace, calls, steps.length),
    calls,
    host: hostTimes(tree, work),
    communication: communicationTimes(trace, work),
    unattributed: [...reasons]
      .map(([name, busy]) => ({ name, seconds: busy * perStepSeconds }))
      .toSorted((a, b) => b.seconds - a.seconds),
    warnings
  }
}

interface Sum {
  busy: number
  span: number
}
type LayerSums = Record<Phase, Sum>

const newSums = (): LayerSums => ({
  forward: { busy: 0, span: 0 },
  backward: { busy: 0, span: 0 },
  optimizer: { busy: 0, span: 0 }
})

const add = (sum: Sum, { busy, span }: Pick<Region, "busy" | "span">): void => {
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
  for (const origin of origins) {
    if (origin === undefined || origin.node < 0) continue
    lastNode.set(origin.step, Math.max(lastNode.get(origin.step) ?? -Infinity, tree.start(origin.node)))
  }
  const follows = ({ step, start }: Origin): boolean => start > (lastNode.get(step) ?? Infinity)
  const optimizes = new Set<number>()
  for (const [index, origin] of origins.entries()) {
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

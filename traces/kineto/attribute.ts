// From events to layers: which layer and phase each piece of device time belongs to, and which parameters each layer
// has. Kernel -> launch (correlation id) -> enclosing module, or autograd node -> forward op (sequence number, or the
// forward/backward link) -> module. Knows nothing of files.
import type { CollectiveCost, LayerCost, ProfiledParameter } from "../../core/profile.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { collectiveCosts, isCollective } from "./collectives.ts"
import { deviceRegions, type Region } from "./device-regions.ts"
import { forwardFinder, precedingNode } from "./forward-ops.ts"
import { HostTree } from "./host-tree.ts"
import { kernelGroup } from "./kernel-group.ts"
import { Layers, type Anchor } from "./layers.ts"
import { originFinder, type Origin, type Phase } from "./origins.ts"
import { chooseParameters, gradientRows, type GradientRow } from "./parameters.ts"
import { findSteps } from "./steps.ts"
import { Host, type KinetoTrace } from "./trace.ts"

export interface Attribution {
  readonly steps: number
  readonly stepSeconds: number
  readonly deviceBusySeconds: number
  readonly layers: ReadonlyArray<LayerCost>
  readonly parameters: ReadonlyArray<ProfiledParameter>
  readonly collectives: ReadonlyArray<CollectiveCost>
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
  const steps = findSteps(tree, warnings)
  const kernels = chooseDevice(trace, warnings)
  const originOf = originFinder(tree, steps)
  const origins = Array.from(kernels, originOf)
  const gradients = gradientRows(tree, steps)
  const hasFrames = tree.isFrame.some((is) => is === 1)

  // A step's own optimizer and metrics follow its last backward node.
  const lastNode = new Map<number, number>()
  for (const origin of origins) {
    if (origin === undefined || origin.node < 0) continue
    lastNode.set(origin.step, Math.max(lastNode.get(origin.step) ?? -Infinity, tree.start(origin.node)))
  }
  const afterBackward = ({ row, step, frame, phase }: Origin): boolean =>
    phase === "forward" &&
    (frame < 0 || trace.host.kind.values[frame] !== Host.module) &&
    tree.start(row) > (lastNode.get(step) ?? Infinity)

  const forwardOf = forwardFinder(tree)
  const anchors: Array<Anchor> = []
  const anchorForward = (node: number, step: number): void => {
    const row = forwardOf(node)
    if (row >= 0) anchors.push({ row, step, frame: tree.frameOf(row) })
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
  const ofForward = (row: number): number | undefined => {
    const layer = layers.ofRow(row)
    if (layer !== undefined || row < 0) return layer
    const frame = tree.frameOf(row)
    return frame < 0 ? undefined : layers.ofOwner(tree.name(frame))
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
    const recomputed = origin.frame < 0 ? undefined : layers.ofOwner(tree.name(origin.frame))
    const layer = recomputed ?? ofForward(forwardOf(origin.node))
    return { phase: "backward", layer, reason: `${nodeTitle(tree, origin.node)} (no forward op)` }
  }

  // ---- device time
  const stepOf = new Int32Array(kernels.length).fill(-1)
  const compute: Array<number> = []
  const collective: Array<number> = []
  let last = 0
  let outside = 0
  for (const [index, kernel] of kernels.entries()) {
    const origin = origins[index]
    // Work without a launch record belongs to the step the device is in.
    const step = origin?.step ?? last
    if (step < 0) {
      outside++
      continue
    }
    stepOf[index] = last = step
    if (isCollective(trace, kernel)) collective.push(index)
    else compute.push(index)
  }
  if (outside > 0) {
    warnings.push(`${outside} device events were launched outside the profiled steps and were left out`)
  }
  if (compute.length === 0) {
    throw new TraceError({
      file: trace.file,
      field: "traceEvents",
      value:
        kernels.length === 0
          ? "no device events (kernel, gpu_memcpy, gpu_memset)"
          : "no kernels inside a step",
      accepted: "a trace recorded with ProfilerActivity.CUDA"
    })
  }
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
    warnings.push("the trace has neither modules nor annotations: layers are families of kernels")
  }
  if (regions.exposedCollective > 0) {
    const milliseconds = ((regions.exposedCollective / steps.length) * 1e-3).toPrecision(3)
    warnings.push(
      `collectives ran alone for ${milliseconds} ms per step; that time is in no layer, and the step is shorter by it`
    )
  }

  // ---- parameters
  const perStep = steps.map((_, step) => gradients.filter((gradient) => gradient.step === step))
  const layerOfGradient = ({ node }: GradientRow): number | undefined =>
    hasFrames ? ofForward(forwardOf(node)) : nodeGroup.get(precedingNode(tree, node))
  const parameters = chooseParameters(trace, layers, perStep, layerOfGradient, warnings)

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
  if (reasons.size > 0) keep("unattributed", lost)
  return {
    steps: steps.length,
    stepSeconds: stepTotal * perStepSeconds,
    deviceBusySeconds: busyTotal * perStepSeconds,
    layers: kept,
    parameters: parameters.map((parameter) => ({ ...parameter, layer: newIndex.get(parameter.layer)! })),
    collectives: collectiveCosts(
      trace,
      tree,
      collective.map((index) => ({ kernel: kernels[index]!, row: origins[index]?.row ?? -1 })),
      warnings
    ),
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

/** Rows of the busiest device, by start. */
const chooseDevice = (trace: KinetoTrace, warnings: Array<string>): Int32Array => {
  const { start, end, device } = trace.device
  const busy = new Map<number, number>()
  for (let row = 0; row < start.length; row++) {
    const id = device.values[row]!
    busy.set(id, (busy.get(id) ?? 0) + end.values[row]! - start.values[row]!)
  }
  const [chosen, ...others] = [...busy].toSorted((a, b) => b[1] - a[1] || a[0] - b[0])
  if (others.length > 0) {
    warnings.push(
      `the trace has ${busy.size} devices; only device ${showValue(chosen![0])}, the busiest, is used`
    )
  }
  const rows: Array<number> = []
  for (let row = 0; row < start.length; row++) if (device.values[row] === chosen![0]) rows.push(row)
  return Int32Array.from(rows).toSorted((a, b) => start.values[a]! - start.values[b]! || a - b)
}

const nodeTitle = (tree: HostTree, node: number): string =>
  tree.name(node).replace("autograd::engine::evaluate_function: ", "")

// From events to layers: which layer and phase each piece of device time belongs to, and which parameters each layer
// has. Kernel -> launch (correlation id) -> enclosing module, or autograd node -> forward op (sequence number, or the
// forward/backward link) -> module. Knows nothing of files.
import type { CollectiveCost, LayerCost, ProfiledParameter } from "../../core/profile.ts"
import { showValue, TraceError } from "../trace-error.ts"
import { collectiveCosts, isCollective } from "./collectives.ts"
import { deviceRegions, type Region } from "./device-regions.ts"
import { HostTree } from "./host-tree.ts"
import { kernelGroup } from "./kernel-group.ts"
import { Layers, type Anchor } from "./layers.ts"
import { Host, linkKey, type KinetoTrace } from "./trace.ts"

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

type Phase = "forward" | "backward" | "optimizer"

/** What a host row's surroundings say of the device work it launches. */
interface Origin {
  readonly row: number
  readonly step: number
  readonly phase: Phase
  readonly frame: number
  /** The autograd node it runs in, -1 for none. */
  readonly node: number
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

interface Step {
  readonly start: number
  readonly end: number
}

/** Steps of the host: the profiler's own marks, else the optimizer's steps, else all is one step. */
const findSteps = (tree: HostTree, warnings: Array<string>): ReadonlyArray<Step> => {
  const marks: Array<Step> = []
  const optimizers: Array<Step> = []
  let first = Infinity
  let last = -Infinity
  for (const row of tree.order) {
    const extent = { start: tree.start(row), end: tree.end(row) }
    first = Math.min(first, extent.start)
    last = Math.max(last, extent.end)
    if (tree.isStep(row)) marks.push(extent)
    else if (tree.name(row).startsWith("Optimizer.step")) optimizers.push(extent)
  }
  const byStart = (a: Step, b: Step) => a.start - b.start
  if (marks.length > 0) {
    const sorted = marks.toSorted(byStart)
    return sorted.map(({ start, end }, i) => ({ start, end: sorted[i + 1]?.start ?? end }))
  }
  if (optimizers.length > 0) {
    warnings.push(`no ProfilerStep marks: the ${optimizers.length} optimizer steps divide the trace`)
    const sorted = optimizers.toSorted(byStart)
    return sorted.map((_, i) => ({
      start: i === 0 ? first : sorted[i - 1]!.end,
      end: i === sorted.length - 1 ? last + 1 : sorted[i]!.end
    }))
  }
  warnings.push("no ProfilerStep marks and no optimizer: the whole trace is taken for one step")
  return [{ start: -Infinity, end: Math.max(last, -Infinity) + 1 }]
}

const stepAt = (steps: ReadonlyArray<Step>, time: number): number => {
  let low = 0
  let high = steps.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (steps[middle]!.start <= time) low = middle + 1
    else high = middle
  }
  const step = low - 1
  return step >= 0 && (time <= steps[step]!.end || step < steps.length - 1) ? step : -1
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

const originFinder = (
  tree: HostTree,
  steps: ReadonlyArray<Step>
): ((kernel: number) => Origin | undefined) => {
  const { host, device } = tree.trace
  const launches = new Map<number, number>()
  const ops = new Map<number, number>()
  for (const row of tree.order) {
    const correlation = host.correlation.values[row]!
    if (correlation >= 0 && !launches.has(correlation)) launches.set(correlation, row)
    const id = host.externalId.values[row]!
    if (id >= 0) ops.set(id, row)
  }
  const known = new Map<number, Origin>()
  return (kernel) => {
    const row =
      launches.get(device.correlation.values[kernel]!) ?? ops.get(device.externalId.values[kernel]!) ?? -1
    if (row < 0) return undefined
    let origin = known.get(row)
    if (origin === undefined) known.set(row, (origin = classify(tree, steps, row)))
    return origin
  }
}

const classify = (tree: HostTree, steps: ReadonlyArray<Step>, row: number): Origin => {
  const { kind } = tree.trace.host
  const step = stepAt(steps, tree.start(row))
  let frame = -1
  let inBackwardCall = false
  for (let at = row; at >= 0; at = tree.parent[at]!) {
    if (tree.isOptimizer(at)) return { row, step, phase: "optimizer", frame, node: -1 }
    if (tree.isNode(at)) return { row, step, phase: "backward", frame, node: at }
    if (frame < 0 && tree.isFrame[at] === 1) frame = at
    if (kind.values[at] === Host.backwardCall) inBackwardCall = true
  }
  const isModule = frame >= 0 && kind.values[frame] === Host.module
  return { row, step, phase: inBackwardCall && !isModule ? "backward" : "forward", frame, node: -1 }
}

/** Autograd nodes of each thread by start, for "the node before this one". */
const nodesByThread = (tree: HostTree): ReadonlyMap<number, ReadonlyArray<number>> => {
  const nodes = new Map<number, Array<number>>()
  for (const row of tree.order) {
    if (!tree.isNode(row) || tree.sequence(row) < 0) continue
    const thread = tree.trace.host.thread.values[row]!
    const line = nodes.get(thread)
    if (line === undefined) nodes.set(thread, [row])
    else line.push(row)
  }
  return nodes
}

const precedingNodes = new WeakMap<HostTree, ReadonlyMap<number, ReadonlyArray<number>>>()

/** The node with a sequence number that started last before `node` on its thread, or `node` itself; -1 for none. */
const precedingNode = (tree: HostTree, node: number): number => {
  let nodes = precedingNodes.get(tree)
  if (nodes === undefined) precedingNodes.set(tree, (nodes = nodesByThread(tree)))
  if (tree.sequence(node) >= 0) return node
  const line = nodes.get(tree.trace.host.thread.values[node]!) ?? []
  let low = 0
  let high = line.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (tree.start(line[middle]!) <= tree.start(node)) low = middle + 1
    else high = middle
  }
  return line[low - 1] ?? -1
}

/**
 * The forward op whose autograd node runs. An op's sequence number is the one the next node will get, so several ops
 * show it and the last to start made the node. AccumulateGrad has none: it follows the node that made its gradient.
 */
const forwardFinder = (tree: HostTree): ((node: number) => number) => {
  const { host, links } = tree.trace
  const forward = new Map<number, Array<number>>()
  const recomputed = new Map<number, Array<number>>()
  const byStart = new Map<string, number>()
  for (const row of tree.order) {
    if (host.kind.values[row] !== Host.op || tree.isNode(row)) continue
    byStart.set(linkKey(host.thread.values[row]!, tree.start(row)), row)
    const sequence = tree.sequence(row)
    if (sequence < 0) continue
    const index = tree.inBackward[row] === 1 ? recomputed : forward
    const rows = index.get(sequence)
    if (rows === undefined) index.set(sequence, [row])
    else rows.push(row)
  }
  const latest = (rows: ReadonlyArray<number> | undefined, before: number): number => {
    let found = -1
    for (const row of rows ?? []) {
      if (tree.start(row) < before && (found < 0 || tree.start(row) >= tree.start(found))) found = row
    }
    return found
  }
  // The link starts where the node's own op does, just inside the engine's event around it.
  const linked = new Map<number, number>()
  for (const row of tree.order) {
    if (host.kind.values[row] !== Host.op || tree.inBackward[row] === 0) continue
    const link = links.get(linkKey(host.thread.values[row]!, tree.start(row)))
    if (link === undefined) continue
    const target = byStart.get(linkKey(link.thread, link.start))
    if (target === undefined) continue
    let node = row
    while (node >= 0 && !tree.isNode(node)) node = tree.parent[node]!
    for (let at = node; at >= 0 && tree.isNode(at); at = tree.parent[at]!) linked.set(at, target)
  }
  const known = new Map<number, number>()
  const find = (node: number): number => {
    const sequence = tree.sequence(node)
    const start = tree.start(node)
    const bySequence = sequence < 0 ? undefined : forward.get(sequence)
    const threads = new Set(bySequence?.map((row) => host.thread.values[row]!))
    const link = linked.get(node)
    // Sequence numbers are per thread: where two threads ran forward ops, only the link tells them apart.
    if (link !== undefined && (threads.size !== 1 || tree.start(link) >= start)) return link
    const nested = tree.parent[node]! >= 0 && tree.inBackward[tree.parent[node]!] === 1
    const again = sequence < 0 ? -1 : latest(recomputed.get(sequence), start)
    if (nested && again >= 0) return again
    const row = latest(bySequence, start)
    if (row >= 0) return row
    return again >= 0 ? again : (link ?? -1)
  }
  return (node) => {
    const own = precedingNode(tree, node)
    if (own < 0) return linked.get(node) ?? -1
    let row = known.get(own)
    if (row === undefined) known.set(own, (row = find(own)))
    return row
  }
}

interface GradientRow {
  readonly row: number
  readonly step: number
  readonly node: number
}

/** AccumulateGrad ops with a shape, in the order they ran. */
const gradientRows = (tree: HostTree, steps: ReadonlyArray<Step>): ReadonlyArray<GradientRow> =>
  [...tree.trace.gradients.keys()]
    .map((row) => {
      let node = row
      while (tree.parent[node]! >= 0 && !tree.isNode(node)) node = tree.parent[node]!
      return { row, step: stepAt(steps, tree.start(row)), node: tree.isNode(node) ? node : row }
    })
    .filter(({ step }) => step >= 0)
    .toSorted((a, b) => tree.start(a.row) - tree.start(b.row))

const nodeTitle = (tree: HostTree, node: number): string =>
  tree.name(node).replace("autograd::engine::evaluate_function: ", "")

const chooseParameters = (
  trace: KinetoTrace,
  layers: Layers,
  perStep: ReadonlyArray<ReadonlyArray<GradientRow>>,
  layerOf: (gradient: GradientRow) => number | undefined,
  warnings: Array<string>
): ReadonlyArray<ProfiledParameter> => {
  const first = perStep.find((gradients) => gradients.length > 0)
  if (first === undefined) {
    if (trace.names.texts.some((name) => name.includes("AccumulateGrad"))) {
      warnings.push(
        "AccumulateGrad events have no shapes (record_shapes=False): the profile has no parameters"
      )
    }
    return []
  }
  const shapeOf = ({ row }: GradientRow) => trace.gradients.get(row)!
  const identity = (gradient: GradientRow): string => {
    const layer = layerOf(gradient)
    return `${layer === undefined ? "" : (layers.owners[layer] ?? layer)} ${shapeOf(gradient).shape.join("x")}`
  }
  const line = first.map(identity)
  // Gradient accumulation runs the backward pass several times a step; each parameter counts once, as in the last.
  const period = shortestPeriod(line)
  const once = period < line.length && layers.owners.length > 0 ? first.slice(-period) : first
  if (once.length < first.length) {
    warnings.push(`${first.length / period} backward passes per step: parameters are those of one`)
  }
  for (const [step, gradients] of perStep.entries()) {
    if (gradients === first || gradients.length === 0) continue
    if (
      gradients.length !== first.length ||
      gradients.some((gradient, i) => identity(gradient) !== line[i])
    ) {
      warnings.push(`step ${step} makes gradients in another order than the first; the first step's is used`)
      break
    }
  }
  const parameters: Array<ProfiledParameter> = []
  let orphans = 0
  for (const gradient of once) {
    let layer = layerOf(gradient)
    if (layer === undefined) {
      orphans++
      layer = parameters.at(-1)?.layer ?? 0
    }
    parameters.push({ layer, ...shapeOf(gradient) })
  }
  if (orphans > 0)
    warnings.push(`${orphans} parameters have no known layer and were given to the one before them`)
  return parameters
}

/** Smallest p that divides the length such that the line repeats every p. */
const shortestPeriod = (line: ReadonlyArray<string>): number => {
  for (let period = 1; period < line.length; period++) {
    if (line.length % period === 0 && line.every((item, i) => i < period || item === line[i - period]))
      return period
  }
  return line.length
}

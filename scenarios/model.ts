// From what a scenario says of its model to the times of its layers: a measured profile, scaled; equal layers; or an
// architecture whose every kernel is estimated. Whatever it is, the rest of the simulator sees a Profile.
import * as Effect from "effect/Effect"
import { InputError } from "../core/input-error.ts"
import type { LayerCost, PhaseCost, Profile } from "../core/profile.ts"
import type { ModelSettings } from "./sections.ts"
import { elementsOf, type Dtype } from "../core/machine/tensor.ts"
import { formatSeconds, largestQuantity } from "../core/units.ts"
import { modelGraph } from "./model-graph.ts"
import { rescaleHostGaps, totalSeconds } from "../traces/rescale.ts"
import { makeCostModel } from "../core/cost/cost-model.ts"
import { interpolate } from "../core/cost/curve.ts"
import type { Device } from "../core/cost/devices.ts"
import type { OpTable } from "../core/cost/op-table.ts"
import type { Estimate } from "../core/cost/provenance.ts"
import { fuse } from "../core/models/fuse.ts"
import { placement } from "../core/models/placement.ts"
import { recomputed, trainingGraph, type Recompute } from "../core/models/recompute.ts"
import { calibrate } from "./calibrate.ts"
import { estimateProfile, phase, type KernelsOf } from "./estimated-profile.ts"
import type { Loader } from "./load.ts"

export interface ResolvedModel {
  readonly profile: Profile
  /** What a step's activations take of a rank's memory, where the model's architecture tells; else 0. */
  readonly activationBytes: number
  readonly hostTime: "span" | "busy"
  /** Ranks share a device, so that its gaps are others' work rather than the host's. */
  readonly sharesDevice: boolean
  /** What of the layers' times was not measured. */
  readonly estimates: ReadonlyArray<Estimate>
  readonly warnings: ReadonlyArray<string>
}

/** What a described model's kernels are costed by. */
interface KernelCosts {
  readonly device: Device | undefined
  readonly ops: OpTable | undefined
  /** What products and attention are computed in. */
  readonly computeDtype: Dtype
  /** Whose kernels run. */
  readonly kernelsOf: KernelsOf
  /** What backward passes compute again, of kernels that are this project's. */
  readonly recompute?: Recompute
}

export const resolveModel = (
  model: ModelSettings,
  ranks: number,
  { device, ops, computeDtype, kernelsOf, recompute = "none" }: KernelCosts,
  file: string,
  loader: Loader
): Effect.Effect<ResolvedModel, InputError> =>
  Effect.gen(function* () {
    if ("profile" in model) {
      const measured = yield* loader.profile(file, "model.profile", model.profile)
      if (measured.layers.length === 0) {
        return yield* new InputError({
          file,
          field: "model.profile",
          value: `${model.profile} (a table of ops, without layers)`,
          accepted: "a profile of a training step, as `sim import kineto` makes from a torch.profiler trace"
        })
      }
      const endless = endlessPart(measured)
      if (endless !== undefined) {
        return yield* new InputError({
          file,
          field: "model.profile",
          value: `${model.profile} (${endless} takes more than ${largestQuantity} s)`,
          accepted: "a profile of a step that ends"
        })
      }
      const whole = yield* withParameters(measured, model, file)
      const scaled = yield* scaleProfile(whole, model, ranks, file)
      return model.parameters === undefined
        ? scaled
        : { ...scaled, warnings: [...scaled.warnings, spreadParameters] }
    }
    if ("layers" in model) return { profile: uniformProfile(model), ...exact }
    const wrong = misfit(model)
    if (wrong !== undefined) return yield* new InputError({ file, ...wrong, field: `model.${wrong.field}` })
    if (kernelsOf !== "fused") {
      const refuse = (accepted: string) =>
        Effect.fail(new InputError({ file, field: "kernels", value: kernelsOf, accepted }))
      if ("mixtral" in model)
        return yield* refuse("fused, of a mixtral: what eager PyTorch runs for its experts was not counted")
      if (computeDtype === "float32")
        return yield* refuse("fused, with precision float32: what eager PyTorch runs was counted in 16 bits")
    }
    // Autocast: activations as products are computed, parameters as they are kept.
    const plain = modelGraph(model, computeDtype, "float32")
    const graph = trainingGraph(plain, recompute)
    const eager = recomputed(plain, recompute)
    if (device === undefined && ops === undefined) {
      return yield* new InputError({
        file,
        field: "device",
        accepted: `a device that the kernels of ${graph.name} are estimated for: a name such as "NVIDIA H200", or {flops, memoryBandwidth}`
      })
    }
    const costs = makeCostModel({
      sources: ops === undefined ? [] : [ops],
      device,
      computeDtype
    })
    const named = device?.name ?? "the costs' device"
    const described = {
      activationBytes: placement(graph).sizeBytes,
      hostTime: "span" as const,
      sharesDevice: false,
      warnings: []
    }
    const estimated = estimateProfile(graph, eager, costs, kernelsOf, named)
    const { measured } = model
    if (measured === undefined) return { ...described, profile: estimated, estimates: costs.estimates }
    // What the measured step takes by the same costs, on its own batch.
    const like = modelGraph(withBatch(model, measured), computeDtype, "float32")
    const likeGraph = fuse(like)
    const { stepSeconds } = estimateProfile(likeGraph, like, costs, kernelsOf, named)
    const calibration = calibrate(measured.stepSeconds, stepSeconds, likeGraph, device, file)
    if (calibration instanceof InputError) return yield* calibration
    const { factor, estimate, warnings } = calibration
    return {
      ...described,
      profile: scaled(estimated, factor),
      estimates: [estimate, ...costs.estimates],
      warnings
    }
  })

/** The same architecture with another batch and context, where they are given. */
const withBatch = (
  model: Architecture,
  { batch, context }: { readonly batch?: number; readonly context?: number }
): Architecture => {
  const own = { ...(batch === undefined ? {} : { batch }), ...(context === undefined ? {} : { context }) }
  if ("gpt2" in model) return { gpt2: { ...model.gpt2, ...own } }
  if ("llama" in model) return { llama: { ...model.llama, ...own } }
  return { mixtral: { ...model.mixtral, ...own } }
}

const spreadParameters =
  "model.parameters are spread over the profile's layers by their backward time: an estimate of when gradients are ready"

/** A profile that has parameters, its own or stated ones: without any, nothing would be communicated. */
const withParameters = (
  profile: Profile,
  { profile: named, parameters }: Extract<ModelSettings, { profile: string }>,
  file: string
): Effect.Effect<Profile, InputError> => {
  const held = profile.parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)
  const weights = profile.layers.map(({ backward }) => backward.busySeconds)
  const backwardSeconds = weights.reduce((sum, seconds) => sum + seconds, 0)
  const refuse = (field: string, value: string, accepted: string) =>
    Effect.fail(new InputError({ file, field, value, accepted }))
  if (held > 0) {
    return parameters === undefined
      ? Effect.succeed(profile)
      : refuse(
          "model.parameters",
          String(parameters),
          `no such field: ${named} has its own ${held} parameters`
        )
  }
  if (backwardSeconds === 0) {
    return refuse(
      "model.profile",
      `${named} (no backward pass, no parameters)`,
      "a profile of a training step: record forward, backward and optimizer, with record_shapes=True"
    )
  }
  if (parameters === undefined) {
    return refuse(
      "model.profile",
      `${named} (no parameters: its ranks would have nothing to communicate)`,
      "a trace recorded with record_shapes=True and imported again, or model.parameters: how many the model has"
    )
  }
  // Whole numbers that add up: each layer's share is the rise of the rounded running sum.
  let passed = 0
  let given = 0
  const shares = weights.map((seconds) => {
    passed += seconds
    const upTo = Math.round((parameters * passed) / backwardSeconds)
    const own = upTo - given
    given = upTo
    return own
  })
  const spread = shares
    .map((share, layer) => ({ layer, shape: [share], dtype: "float32" }))
    .filter(({ shape }) => shape[0]! > 0)
    .toReversed()
  return Effect.succeed({ ...profile, parameters: spread })
}

type Architecture = Exclude<ModelSettings, { profile: string } | { stepSeconds: number }>

/** The first size that does not go with another, by its field in `model`; each by itself is a positive whole number already. */
export const misfit = (model: Architecture): Pick<InputError, "field" | "value" | "accepted"> | undefined => {
  const refuse = (field: string, value: number, accepted: string) => ({
    field,
    value: String(value),
    accepted
  })
  const [name, sizes] =
    "gpt2" in model
      ? (["gpt2", model.gpt2] as const)
      : "llama" in model
        ? (["llama", model.llama] as const)
        : (["mixtral", model.mixtral] as const)
  const { width, heads } = sizes
  const own = "headWidth" in sizes ? sizes.headWidth : undefined
  if (own === undefined && width % heads !== 0)
    return refuse(`${name}.heads`, heads, `a divisor of the width of ${width}`)
  if (!("ffnWidth" in sizes)) return undefined
  const headWidth = own ?? width / heads
  if (headWidth % 2 !== 0) {
    const accepted = `a width for each head that is even, for its rotary positions; here it is ${headWidth}`
    return refuse(`${name}.${own === undefined ? "width" : "headWidth"}`, own ?? width, accepted)
  }
  if (sizes.kvHeads !== undefined && heads % sizes.kvHeads !== 0)
    return refuse(`${name}.kvHeads`, sizes.kvHeads, `a divisor of the ${heads} heads`)
  if ("topK" in sizes && sizes.topK > sizes.experts)
    return refuse(`${name}.topK`, sizes.topK, `at most the number of experts, ${sizes.experts}`)
  return undefined
}

/** What of a profile takes so long that sums of it would overflow. */
const endlessPart = ({ layers, unprofiledStepSeconds = 0 }: Profile): string | undefined => {
  if (unprofiledStepSeconds > largestQuantity) return "a step without the profiler"
  const layer = layers.find(({ forward, backward, optimizer }) =>
    [forward, backward, optimizer].some(
      ({ busySeconds, spanSeconds }) => Math.max(busySeconds, spanSeconds) > largestQuantity
    )
  )
  return layer === undefined ? undefined : `layer "${layer.name}"`
}

const exact = {
  activationBytes: 0,
  hostTime: "span",
  sharesDevice: false,
  estimates: [],
  warnings: []
} as const

/** Every layer alike; a step of 3L-1 equal nodes: L forward, L-1 backward-activation, L backward-parameter. */
const uniformProfile = (model: Extract<ModelSettings, { layers: number }>): Profile => {
  const { layers, parameters, stepSeconds } = model
  const node = stepSeconds / (3 * layers - 1)
  // Parameters that do not divide go to the first layers, one each.
  const base = Math.floor(parameters / layers)
  const rest = parameters - base * layers
  return {
    name: `${layers} equal layers`,
    device: "",
    source: "stated in the scenario",
    steps: 0,
    stepSeconds,
    unprofiledStepSeconds: undefined,
    deviceBusySeconds: stepSeconds,
    unattributedShare: 0,
    layers: Array.from({ length: layers }, (_, index): LayerCost => ({
      name: `layer ${index}`,
      forward: phase(node),
      // The first layer has no activation gradient to pass on.
      backward: phase(index === 0 ? node : 2 * node),
      optimizer: phase(0)
    })),
    parameters: Array.from({ length: layers }, (_, i) => {
      const layer = layers - 1 - i
      return { layer, shape: [base + (layer < rest ? 1 : 0)], dtype: "float32" }
    }).filter(({ shape }) => elementsOf(shape) > 0),
    ops: [],
    collectives: []
  }
}

const scaleProfile = (
  measured: Profile,
  model: Extract<ModelSettings, { profile: string }>,
  ranks: number,
  file: string
): Effect.Effect<ResolvedModel, InputError> =>
  Effect.gen(function* () {
    const warnings: Array<string> = []
    const { hostTime } = model
    // The profiler slows the host down: where the undisturbed step is known, the host's gaps are scaled to it.
    const unprofiled = measured.unprofiledStepSeconds
    const busy = Math.max(measured.deviceBusySeconds, totalSeconds(measured.layers).busySeconds)
    if (unprofiled !== undefined && unprofiled < busy) {
      warnings.push(
        `the profile's step without the profiler (${formatSeconds(unprofiled)}) cannot hold its ${formatSeconds(busy)} of device work and is not used`
      )
    }
    // A profiler slows a step down, and never makes it shorter by much.
    if (unprofiled !== undefined && measured.steps > 0 && unprofiled > 1.25 * measured.stepSeconds) {
      warnings.push(
        `the profile's step without the profiler (${formatSeconds(unprofiled)}) is longer than with it (${formatSeconds(measured.stepSeconds)}): it may be of another model or batch`
      )
    }
    const base =
      unprofiled === undefined || unprofiled < busy ? measured : rescaleHostGaps(measured, unprofiled)
    if (
      measured.unprofiledStepSeconds === undefined &&
      hostTime === "span" &&
      model.stepSeconds === undefined
    ) {
      warnings.push(
        `the profile does not say how long a step takes without the profiler; its ${formatSeconds(measured.stepSeconds)} step includes the profiler's own cost on the host`
      )
    }
    if (model.stepSeconds === undefined) return { ...exact, profile: base, hostTime, warnings }
    const wanted = yield* stepSecondsAt(model.stepSeconds, ranks, file, warnings)
    const own = base.layers.reduce(
      (sum, { forward, backward, optimizer }) =>
        sum +
        (hostTime === "span"
          ? forward.spanSeconds + backward.spanSeconds + optimizer.spanSeconds
          : forward.busySeconds + backward.busySeconds + optimizer.busySeconds),
      0
    )
    // So short that scaling it up might overflow.
    if (own < 1 / largestQuantity) {
      return yield* new InputError({
        file,
        field: "model.profile",
        value: `${model.profile} (its layers take no time)`,
        accepted: "a profile whose layers take some time, to be scaled to model.stepSeconds"
      })
    }
    const sharesDevice = typeof model.stepSeconds === "object"
    // As of the profile's own: ranks that share a device take longer by right.
    if (!sharesDevice && measured.steps > 0 && wanted > 1.25 * measured.stepSeconds) {
      warnings.push(
        `model.stepSeconds (${formatSeconds(wanted)}) is longer than the profiled step (${formatSeconds(measured.stepSeconds)}): a number without a unit is seconds`
      )
    }
    return { ...exact, profile: scaled(base, wanted / own), hostTime, sharesDevice, warnings }
  })

const stepSecondsAt = (
  setting: NonNullable<Extract<ModelSettings, { profile: string }>["stepSeconds"]>,
  ranks: number,
  file: string,
  warnings: Array<string>
): Effect.Effect<number, InputError> => {
  if (typeof setting === "number") return Effect.succeed(setting)
  const points = Object.entries(setting)
    .map(([key, seconds]) => ({ ranks: Number(key), seconds }))
    .toSorted((a, b) => a.ranks - b.ranks)
  const bad = points.some(
    ({ ranks: count }, i) => !Number.isInteger(count) || count < 1 || count === points[i - 1]?.ranks
  )
  if (bad || points.length === 0) {
    return Effect.fail(
      new InputError({
        file,
        field: "model.stepSeconds",
        value: JSON.stringify(setting),
        accepted: "a time, or times by number of ranks, each number once: {2: 60ms, 4: 113ms}"
      })
    )
  }
  const { value, inside } = interpolate(
    points.map((point) => point.ranks),
    points.map((point) => point.seconds),
    ranks
  )
  if (!inside) {
    warnings.push(
      `model.stepSeconds is given for ${points.map((point) => point.ranks).join(", ")} ranks; ${formatSeconds(value)} at ${ranks} is extrapolated`
    )
  }
  return Effect.succeed(value)
}

const scaled = (profile: Profile, factor: number): Profile => {
  const scale = ({ busySeconds, spanSeconds, ...rest }: PhaseCost): PhaseCost => ({
    ...rest,
    busySeconds: busySeconds * factor,
    spanSeconds: spanSeconds * factor
  })
  return {
    ...profile,
    stepSeconds: profile.stepSeconds * factor,
    deviceBusySeconds: profile.deviceBusySeconds * factor,
    layers: profile.layers.map((layer) => ({
      ...layer,
      forward: scale(layer.forward),
      backward: scale(layer.backward),
      optimizer: scale(layer.optimizer)
    }))
  }
}

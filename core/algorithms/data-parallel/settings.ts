// What a scenario may say about a data-parallel algorithm: one schema per algorithm, every field with its default.
// How a plan is made of them is algorithm.ts's business.
import * as Schema from "effect/Schema"
import { withDefault } from "../../fields.ts"
import { Bytes } from "../../units.ts"

const Period = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))
const WireDtype = Schema.Literals(["float32", "bfloat16", "float16", "float8", "float4", "int8"])
const DeadlineSetting = Schema.Literals(["end-of-backward", "next-use"])
const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

const ssgd = {
  /** Dtype of gradients on the wire. */
  wire: withDefault(WireDtype, "float32")
}

/** Synchronous SGD: one all-reduce of all gradients after the backward pass. */
export const SynchronousSgd = Schema.Struct({ name: Schema.Literal("s-sgd"), ...ssgd })

/** PyTorch DistributedDataParallel. */
export const Ddp = Schema.Struct({
  name: Schema.Literal("ddp"),
  ...ssgd,
  /** `sized`: PyTorch's buckets; `per-layer`: a bucket for each layer; `single`: one, sent when the last gradient is ready. */
  buckets: withDefault(Schema.Literals(["sized", "per-layer", "single"]), "sized"),
  bucketBytes: withDefault(Bytes, "25MiB"),
  firstBucketBytes: withDefault(Bytes, "1MiB"),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
})

const localSgd = { period: withDefault(Period, 10), wire: withDefault(WireDtype, "float32") }

/** Local SGD: every layer averaged after every H-th step; nothing overlaps. */
export const LocalSgd = Schema.Struct({ name: Schema.Literal("local-sgd"), ...localSgd })

const partial = {
  ...localSgd,
  order: withDefault(Schema.Literals(["average-then-step", "step-then-average"]), "average-then-step"),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
}

/** Partial local SGD with an equal number of layers in each step of the period. */
export const PartialLocalSgd = Schema.Struct({ name: Schema.Literal("partial-local-sgd"), ...partial })

/** DreamDDP: partial local SGD whose sets a planner chooses. */
export const DreamDdp = Schema.Struct({
  name: Schema.Literal("dreamddp"),
  ...partial,
  /** `assignment`: any layer in any step; `contiguous`: exact over blocks; `published`: the paper's depth-first search. */
  planner: withDefault(Schema.Literals(["assignment", "contiguous", "published"]), "assignment"),
  /** Synchronise further layers where the channel would be idle. */
  fillBubbles: withDefault(Schema.Boolean, false)
})

const outer = {
  outerLearningRate: withDefault(Schema.Number, 0.7),
  outerMomentum: withDefault(Share, 0.9)
}

/** DiLoCo: H inner steps, then an outer Nesterov step on the averaged change of all layers. */
export const Diloco = Schema.Struct({
  name: Schema.Literal("diloco"),
  period: withDefault(Period, 100),
  ...outer,
  wire: withDefault(WireDtype, "float32"),
  /** Send each layer as its last backward pass ends instead of after the whole step. */
  overlap: withDefault(Schema.Boolean, false),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
})

/** Streaming DiLoCo: fragments of a few layers at staggered steps, applied `delaySteps` later. */
export const StreamingDiloco = Schema.Struct({
  name: Schema.Literal("streaming-diloco"),
  period: withDefault(Period, 100),
  /** How many fragments the layers are divided into; default 8, as the paper's 24 layers by 3. */
  fragments: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  /** The same, said by the layers in each: not with `fragments`. */
  layersPerFragment: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  pattern: withDefault(Schema.Literals(["strided", "sequential"]), "strided"),
  offsets: withDefault(Schema.Literals(["rounded", "even"]), "rounded"),
  /** tau. */
  delaySteps: withDefault(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)), 1),
  /** alpha: share of the rank's own weights that survives when the outer result is applied. */
  localShare: withDefault(Share, 0.5),
  outerLearningRate: withDefault(Schema.Number, 0.4),
  outerMomentum: withDefault(Share, 0.9),
  wire: withDefault(WireDtype, "float4"),
  deadline: withDefault(DeadlineSetting, "next-use")
})

export const DataParallelSettings = Schema.Union([
  SynchronousSgd,
  Ddp,
  LocalSgd,
  PartialLocalSgd,
  DreamDdp,
  Diloco,
  StreamingDiloco
])
export type DataParallelSettings = typeof DataParallelSettings.Type

/** Names as a scenario writes them, in the order reports list them. */
export const dataParallelNames = [
  "s-sgd",
  "ddp",
  "local-sgd",
  "partial-local-sgd",
  "dreamddp",
  "diloco",
  "streaming-diloco"
] as const

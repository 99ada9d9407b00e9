// What a scenario may say about training for real: the text, the inner optimizer, and how many batches a step has. Only the last
// changes how long a step takes, but for the optimizer's own kernels; the optimizer changes what a rank holds.
import * as Schema from "effect/Schema"
import { Count, withDefault } from "../../../core/fields.ts"
import { Path } from "../../sections.ts"
import { tokenDtypes } from "../../../traces/token-file.ts"
import type { Accumulation } from "../../../core/algorithms/data-parallel/accumulation.ts"
import type { LossScaling } from "../../../core/algorithms/data-parallel/loss-scale.ts"
import { statesOf, type Optimizer } from "../../../core/algorithms/data-parallel/optimizer.ts"

const Rate = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1000 }))
const Share = Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

/** `matrices`: weight decay spares biases and norms, as usual recipes have it; `all`: as PyTorch's optimizers do. */
const Decays = withDefault(Schema.Literals(["all", "matrices"]), "all")

const schedule = {
  /** Steps in which the rate rises from 0 to `learningRate`. */
  warmupSteps: withDefault(Count, 0),
  /** Step by which the rate has fallen to `finalShare` of `learningRate`. Default: it does not fall. */
  decayUntilStep: Schema.optionalKey(Count),
  finalShare: withDefault(Share, 0.1),
  /** How it falls: in a straight line, or as half a cosine (arXiv:1608.03983). */
  decay: withDefault(Schema.Literals(["linear", "cosine"]), "linear")
}

const SgdSettings = Schema.Struct({
  name: Schema.Literal("sgd"),
  learningRate: withDefault(Rate, 0.1),
  momentum: withDefault(Share, 0),
  weightDecay: withDefault(Rate, 0),
  decays: Decays,
  ...schedule
})

const AdamwSettings = Schema.Struct({
  name: Schema.Literal("adamw"),
  learningRate: withDefault(Rate, 1e-3),
  beta1: withDefault(Share, 0.9),
  beta2: withDefault(Share, 0.99),
  epsilon: withDefault(Rate, 1e-8),
  weightDecay: withDefault(Rate, 0.01),
  decays: Decays,
  ...schedule
})

const LossScaleSettings = Schema.Struct({
  /** Of the first step. */
  initial: withDefault(
    Schema.Number.check(Schema.isBetween({ minimum: 1 / 65536, maximum: 2 ** 48 })),
    65536
  ),
  /** Steps without a skipped one after which the scale grows. */
  growthInterval: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 24 })), 2000),
  /** By how much it grows, and falls. */
  growthFactor: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 1, maximum: 1024 })), 2),
  backoffFactor: withDefault(Schema.Number.check(Schema.isBetween({ minimum: 1 / 1024, maximum: 1 })), 0.5)
})

export const TrainingSettings = Schema.Struct({
  /** A text file; its characters are the tokens. Its name may have stars: files in order of name. Default: the text that ships. */
  text: Schema.optionalKey(Path),
  /** Files of tokens (.bin) instead, as nanoGPT and llm.c write them; as many as have the name, which may have stars. */
  tokens: Schema.optionalKey(Path),
  /** Files of tokens to evaluate on. Default: the share `heldOut` at the end of those to train on. */
  heldOutTokens: Schema.optionalKey(Path),
  /** Of files of tokens without a header. */
  tokenDtype: withDefault(Schema.Literals(tokenDtypes), "uint16"),
  /** Tokens that lie on a rank's device at a time, of files that have more. */
  chunkTokens: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 2 ** 30 })), 2 ** 24),
  /** Share of the text, at its end, that is held out for evaluation. */
  heldOut: withDefault(Share, 0.1),
  /**
   * Dtype of activations, of gradients, and of the parameters that products read. With 16 bits the optimizer keeps float32
   * parameters beside them: these are learnt, averaged and saved. With `float16` the loss is scaled. `tf32` is float32 whose linear
   * layers multiply in TF32.
   */
  precision: withDefault(Schema.Literals(["float32", "tf32", "bfloat16", "float16"]), "float32"),
  /** Of `float16`: by how much the loss is scaled. Default: as PyTorch's GradScaler has it. */
  lossScale: Schema.optionalKey(LossScaleSettings),
  /**
   * Most that the norm of all gradients together may be: where it is more, they are scaled down to it before the optimizer's step,
   * after they are averaged where an algorithm averages gradients. Default: any.
   */
  clipNorm: Schema.optionalKey(Rate.check(Schema.isGreaterThan(0))),
  /** Passes of a step over batches of the model's size, whose gradients are averaged in float32 before the optimizer's one step. */
  accumulate: withDefault(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1024 })), 1),
  /**
   * When gradients that are to be averaged travel: `last`, with the last of those passes (PyTorch's `no_sync` around the others), or
   * with `each`, so that of a model in parts no whole gradients are kept between them.
   */
  synchronize: withDefault(Schema.Literals(["last", "each"]), "last"),
  /** `optimizer: sgd` is short for `optimizer: {name: sgd}`. */
  optimizer: withDefault(Schema.Union([AdamwSettings, SgdSettings]), { name: "adamw" })
})
export type TrainingSettings = typeof TrainingSettings.Type

/** The accumulation that they describe; undefined where a step has one batch. */
export const accumulationOf = (settings: TrainingSettings | undefined): Accumulation | undefined =>
  settings === undefined || settings.accumulate === 1
    ? undefined
    : { microBatches: settings.accumulate, synchronize: settings.synchronize }

/** Dtype of activations, gradients, and the parameters that products read. */
export const layerDtypeOf = ({
  precision
}: TrainingSettings): Exclude<TrainingSettings["precision"], "tf32"> =>
  precision === "tf32" ? "float32" : precision

/** The loss scaling that they describe; undefined where the loss is not scaled. */
export const lossScalingOf = (settings: TrainingSettings | undefined): LossScaling | undefined =>
  settings?.precision === "float16" ? (settings.lossScale ?? usualLossScale) : undefined

const usualLossScale = Schema.decodeUnknownSync(LossScaleSettings)({})

/** The optimizer that the settings describe. */
export const optimizerOf = (settings: TrainingSettings["optimizer"]): Optimizer => {
  const { warmupSteps, decayUntilStep = Infinity, finalShare, decay, ...optimizer } = settings
  if (warmupSteps === 0 && decayUntilStep === Infinity) return optimizer
  return { ...optimizer, schedule: { warmupSteps, decayUntilStep, finalShare, decay } }
}

/** Float32 numbers that the optimizer keeps of each that is learnt; AdamW's where none is said. */
export const statesKept = (settings: TrainingSettings | undefined): number =>
  settings === undefined ? 2 : statesOf(optimizerOf(settings.optimizer)).length

// Streaming DiLoCo: fragments of a few blocks at staggered steps, applied `delaySteps` later.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Count, withDefault } from "../../../fields.ts"
import { arbitrary, defaultsOf, said, SettingsError } from "../../algorithm.ts"
import { blocksIn, dataParallelAlgorithm, onlyLearnt } from "../algorithm.ts"
import { wholeBlocks } from "../blocks.ts"
import { planDiloco } from "../diloco/planned.ts"
import { DeadlineSetting, drawnDeadline, drawnWire, Period, Share, WireDtype } from "../fields.ts"

/** The paper's 24 layers by 3. */
const usualFragments = 8

const settings = Schema.Struct({
  name: Schema.Literal("streaming-diloco"),
  period: withDefault(Period, 100),
  /**
   * What is dealt to fragments: `block`, the paper's layers, with embeddings in the first and head in the last of a model's blocks (a
   * model that names none deals layers); `layer`, each layer by itself.
   */
  units: withDefault(Schema.Literals(["block", "layer"]), "block"),
  /** How many fragments the units are dealt to, at most as many as there are units; default at most 8, as the paper's 24 layers by 3. */
  fragments: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  /** The same, said by the units in each: not with `fragments`. */
  layersPerFragment: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  pattern: withDefault(Schema.Literals(["strided", "sequential"]), "strided"),
  offsets: withDefault(Schema.Literals(["rounded", "even"]), "rounded"),
  /** tau; default 1, and 0 where fragments leave a step apart, so that the last one would still be on its way. */
  delaySteps: Schema.optionalKey(Count),
  /** alpha: share of the rank's own weights that survives when the outer result is applied. */
  localShare: withDefault(Share, 0.5),
  outerLearningRate: withDefault(Schema.Number, 0.4),
  outerMomentum: withDefault(Share, 0.9),
  wire: withDefault(WireDtype, "float4"),
  /**
   * What is one message: a layer, sent as its last backward pass ends, as the paper's simulation has it; or a fragment, sent after its
   * step, which pays the links' latency once rather than for each layer.
   */
  message: withDefault(Schema.Literals(["layer", "fragment"]), "layer"),
  deadline: withDefault(DeadlineSetting, "next-use")
})

export const streamingDiloco = dataParallelAlgorithm({
  title: "Streaming DiLoCo",
  settings,
  plan: (own, facts) => {
    const blocks = blocksIn(facts)
    const known = own.units === "block" && blocks.some((block) => block !== undefined)
    const together = known ? wholeBlocks(blocks) : undefined
    const layers = together?.length ?? facts.profile.layers.length
    const { fragments, layersPerFragment } = own
    if (fragments !== undefined && layersPerFragment !== undefined) {
      const accepted = "either fragments or layersPerFragment"
      return Result.fail(new SettingsError({ field: "fragments", value: fragments, accepted }))
    }
    if (fragments !== undefined && fragments > layers) {
      const accepted = `at most the ${layers} ${known ? "blocks, or units: layer" : "layers"}`
      return Result.fail(new SettingsError({ field: "fragments", value: fragments, accepted }))
    }
    const each = layersPerFragment ?? Math.ceil(layers / usualFragments)
    return planDiloco(
      { ...own, layers, together, layersPerFragment: each, count: fragments },
      { ...own, overlap: own.message === "layer" }
    )
  },
  ignored: (own) =>
    onlyLearnt(own, defaultsOf(settings), ["outerLearningRate", "outerMomentum", "localShare"]),
  lostToClipping: ({ message }) =>
    message === "layer"
      ? "fragments are sent after the backward pass and not within it"
      : "algorithm.message has no effect",
  arbitrary: ({ maxPeriod }) =>
    arbitrary(
      {
        period: { from: 1, to: maxPeriod },
        wire: drawnWire,
        deadline: drawnDeadline,
        units: ["block", "layer"],
        fragmentSize: { from: 0, to: 7 },
        message: ["layer", "fragment"],
        pattern: ["strided", "sequential"],
        offsets: ["rounded", "even"],
        delay: { from: 0, to: 5 },
        localShare: [0.5, 0, 1, 0.25]
      },
      ({ period, units, fragmentSize, delay, pattern, offsets, localShare, ...drawn }, layers) => {
        const layersPerFragment = 1 + (fragmentSize % layers)
        // How many blocks there are is not known here; where there are two layers, two.
        const fragments =
          units === "block" ? 1 + (fragmentSize % Math.min(2, layers)) : Math.ceil(layers / layersPerFragment)
        // Every fragment needs a step of its own; even offsets need as many steps for each.
        const own =
          offsets === "even"
            ? fragments * Math.max(1, Math.floor(period / fragments))
            : Math.max(fragments, period)
        // A fragment is back before the next leaves; rounding may shorten the gap by one step.
        const gap = own % fragments === 0 ? own / fragments : Math.floor(own / fragments)
        return {
          name: "streaming-diloco" as const,
          period: own,
          ...(units === "block" ? { fragments } : { units, layersPerFragment }),
          pattern,
          offsets,
          delaySteps: delay % Math.max(1, gap),
          localShare,
          ...said(drawn)
        }
      }
    )
})

// Synchronous SGD: one all-reduce of all gradients after the backward pass.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { withDefault } from "../../../fields.ts"
import { arbitrary, said } from "../../algorithm.ts"
import { dataParallelAlgorithm } from "../algorithm.ts"
import { gradientSizes, planBuckets } from "../ddp/planned.ts"
import { drawnWire, WireDtype } from "../fields.ts"
import { singleBucket } from "../plan/buckets.ts"

const settings = Schema.Struct({
  name: Schema.Literal("s-sgd"),
  /** Dtype of gradients on the wire. */
  wire: withDefault(WireDtype, "float32")
})

export const sSgd = dataParallelAlgorithm({
  title: "S-SGD",
  settings,
  plan: ({ wire }, { profile }) =>
    Result.succeed(
      planBuckets(profile, singleBucket(gradientSizes(profile)), {
        overlap: false,
        deadline: "end-of-backward",
        wire
      })
    ),
  arbitrary: () => arbitrary({ wire: drawnWire }, (drawn) => ({ name: "s-sgd" as const, ...said(drawn) }))
})

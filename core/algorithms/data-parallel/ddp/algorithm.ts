// PyTorch DistributedDataParallel: gradients are averaged in buckets while the backward pass still runs.
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { withDefault } from "../../../fields.ts"
import { Bytes } from "../../../units.ts"
import { arbitrary, defaultsOf, said } from "../../algorithm.ts"
import { dataParallelAlgorithm } from "../algorithm.ts"
import { DeadlineSetting, drawnDeadline, drawnWire, WireDtype } from "../fields.ts"
import { ddpBuckets, perLayerBuckets, singleBucket } from "../plan/buckets.ts"
import { gradientSizes, planBuckets } from "./planned.ts"

const Buckets = Schema.Literals(["sized", "per-layer", "single"])

const settings = Schema.Struct({
  name: Schema.Literal("ddp"),
  /** Dtype of gradients on the wire. */
  wire: withDefault(WireDtype, "float32"),
  /** `sized`: PyTorch's buckets; `per-layer`: a bucket for each layer; `single`: one, sent when the last gradient is ready. */
  buckets: withDefault(Buckets, "sized"),
  bucketBytes: withDefault(Bytes, "25MiB"),
  firstBucketBytes: withDefault(Bytes, "1MiB"),
  deadline: withDefault(DeadlineSetting, "end-of-backward")
})

export const ddp = dataParallelAlgorithm({
  title: "DDP",
  settings,
  plan: ({ buckets, bucketBytes, firstBucketBytes, deadline, wire }, { profile }) => {
    const sizes = gradientSizes(profile)
    const made = {
      sized: () => ddpBuckets(sizes, { bucketBytes, firstBucketBytes }),
      "per-layer": () => perLayerBuckets(sizes),
      single: () => singleBucket(sizes)
    }[buckets]()
    return Result.succeed(planBuckets(profile, made, { overlap: true, deadline, wire }))
  },
  ignored: (own) => {
    if (own.buckets === "sized") return []
    const usual = defaultsOf(settings)
    return (["bucketBytes", "firstBucketBytes"] as const)
      .filter((field) => own[field] !== usual[field])
      .map((field) => `algorithm.${field} has no effect: buckets is ${own.buckets}`)
  },
  arbitrary: () =>
    arbitrary(
      {
        wire: drawnWire,
        deadline: drawnDeadline,
        buckets: [undefined, ...Buckets.literals],
        bucketBytes: [undefined, 1, 1000, 100_000, 10_000_000]
      },
      (drawn) => ({
        name: "ddp" as const,
        ...said(drawn),
        ...(drawn.bucketBytes === undefined ? {} : { firstBucketBytes: Math.ceil(drawn.bucketBytes / 4) })
      })
    )
})

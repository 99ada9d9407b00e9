// Settings of data-parallel algorithms where what is planned is the same with any of them, or nobody is there to send it to.
import type { Knob } from "./shared-knobs.ts"

const dreamddp = "algorithm={name: dreamddp, period: 5}"
const ofOneLayer = "algorithm={name: streaming-diloco, period: 6, layersPerFragment: 1, delaySteps: 0}"
const inTwo = "algorithm={name: streaming-diloco, period: 6, fragments: 2, delaySteps: 0}"

const ofOne = "algorithm={name: streaming-diloco, period: 6, fragments: 1, delaySteps: 0}"

const ofPlans: ReadonlyArray<Knob> = [
  ["algorithm.planner", "assignment", "published", dreamddp],
  ["algorithm.fillBubbles", "false", "true", dreamddp],
  ["algorithm.bucketBytes", "30MB", "60MB", "algorithm=ddp"],
  ["algorithm.firstBucketBytes", "1MB", "2MB", "algorithm={name: ddp, bucketBytes: 1B}"],
  ["algorithm.buckets", "sized", "per-layer", "algorithm=ddp", "model.layers=1"],
  ["algorithm.pattern", "strided", "sequential", ofOneLayer],
  ["algorithm.message", "layer", "fragment", ofOne, "model.layers=1"],
  ["algorithm.overlap", "false", "true", "algorithm={name: diloco, period: 4}", "model.layers=1"],
  ["algorithm.message", "layer", "fragment", inTwo, "training.clipNorm=1"],
  ["algorithm.order", "average-then-step", "step-then-average", dreamddp],
  [
    "algorithm.order",
    "average-then-step",
    "step-then-average",
    "algorithm={name: partial-local-sgd, period: 2}"
  ],
  ["algorithm.units", "block", "layer", inTwo],
  ["algorithm.offsets", "rounded", "even", inTwo]
]

const alone = ["world={ranks: 1}", "world={ranks: 2}"] as const

export const planKnobs: ReadonlyArray<Knob> = [
  ...ofPlans,
  ...ofPlans.map((knob): Knob => [...knob, alone[0]]),
  ...ofPlans.map((knob): Knob => [...knob, alone[1], "shard={within: world}"])
]

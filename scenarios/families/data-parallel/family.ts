// Data-parallel training as a family: its metrics and words.
import * as Effect from "effect/Effect"
import { titlesOf } from "../../../core/algorithms/algorithm.ts"
import { dataParallelAlgorithms } from "../../../core/algorithms/data-parallel/algorithms.ts"
import { DataParallelScenario } from "./scenario.ts"
import type { Family } from "../../family.ts"
import { prepareTraining, runnableOf } from "./kernels.ts"
import { ignored, ignoredByExec } from "./ignored.ts"
import { prepare, type PreparedDataParallel } from "./prepare.ts"
import { print } from "./print.ts"
import { schedule } from "./schedule.ts"
import { trainable } from "./trainable.ts"

export const dataParallel: Family<DataParallelScenario, PreparedDataParallel> & {
  readonly schema: typeof DataParallelScenario
} = {
  task: "data-parallel",
  schema: DataParallelScenario,
  metrics: [
    {
      name: "stepSeconds",
      label: "step time",
      unit: "seconds",
      better: "lower",
      description: "mean time of a measured step: that of the rank that finishes last"
    },
    {
      name: "computeUtilisation",
      label: "compute utilisation",
      unit: "share",
      better: "higher",
      description: "share of a step spent computing",
      chart: true
    },
    {
      name: "computeSeconds",
      label: "computing",
      unit: "seconds",
      better: "lower",
      description: "compute time of a step, mean over ranks"
    },
    {
      name: "exposedCommunicationSeconds",
      label: "waiting",
      unit: "seconds",
      better: "lower",
      description:
        "step minus computing: exposed communication, waits for slower ranks, for the host and for storage"
    }
  ],
  throughput: {
    metric: {
      name: "tokensPerSecond",
      label: "tokens/s of a rank",
      unit: "perSecond",
      better: "higher",
      description: "tokens that a rank trains on in a second: batch x context x accumulate over the step time"
    },
    work: "tokensPerStep"
  },
  fileFields: [
    ["model", "profile"],
    ["collectives", "measured"],
    ["collectives", "inside"],
    ["costs"],
    ["host", "measured"],
    ["training", "text"],
    ["training", "tokens"],
    ["training", "heldOutTokens"],
    ["world", "links", "wan", "pairs"]
  ],
  displayNames: titlesOf(dataParallelAlgorithms),
  baselines: ["ddp", "s-sgd"],
  verb: "trains",
  caveat:
    "Time per step. Algorithms that average less often may need more steps to the same loss; that is not simulated.",
  prepare,
  unlimited: (scenario) => ({ ...scenario, memory: {}, steps: 1 }),
  kernels: (scenario, file, host) => Effect.map(prepareTraining(scenario, file, host.loader), runnableOf),
  train: trainable,
  ignored,
  ignoredByExec,
  print,
  schedule
}

// Generation with offloaded experts as a family: its words.
import { titlesOf } from "../../../core/algorithms/algorithm.ts"
import { offloadAlgorithms } from "../../../core/algorithms/expert-offload/algorithms.ts"
import { ExpertOffloadScenario } from "./scenario.ts"
import type { Family } from "../../family.ts"
import { ignored, ignoredByExec } from "./ignored.ts"
import { generating, kernels } from "./kernels.ts"
import { metrics } from "./metrics.ts"
import { print } from "./print.ts"
import { schedule } from "./schedule.ts"
import { prepare, type PreparedOffload } from "./simulated.ts"

export const expertOffload: Family<ExpertOffloadScenario, PreparedOffload> & {
  readonly schema: typeof ExpertOffloadScenario
} = {
  task: "expert-offload",
  schema: ExpertOffloadScenario,
  metrics,
  fileFields: [["routing", "trace"], ["costs"], ["host", "measured"], ["algorithm", "predictor", "weights"]],
  displayNames: titlesOf(offloadAlgorithms),
  baselines: ["lru", "on-demand"],
  hindsight: offloadAlgorithms.filter(({ hindsight }) => hindsight === true).map(({ name }) => name),
  verb: "decodes",
  caveat: "Time per decoding step of the whole batch, after the warm-up; prefill is a metric of its own.",
  prepare,
  kernels,
  generate: generating,
  ignored,
  ignoredByExec,
  print,
  schedule
}

// Generation with offloaded experts as a family: its words. What a run does is in run.ts.
import type { ExpertOffloadScenario } from "../../../core/algorithms/expert-offload/scenario.ts"
import type { Family } from "../../family.ts"
import { ignored } from "./ignored.ts"
import { metrics } from "./metrics.ts"
import { displayNames } from "./names.ts"
import { print } from "./print.ts"
import { runExpertOffload } from "./run.ts"
import { schedule } from "./schedule.ts"

export const expertOffload: Family<ExpertOffloadScenario> = {
  task: "expert-offload",
  metrics,
  fileFields: [["routing", "trace"], ["costs"], ["algorithm", "predictor", "weights"]],
  displayNames,
  baselines: ["lru", "on-demand"],
  hindsight: ["optimum", "static-popular"],
  verb: "decodes",
  caveat: "Time per decoding step of the whole batch, after the warm-up; prefill is a metric of its own.",
  run: runExpertOffload,
  ignored,
  print,
  schedule
}

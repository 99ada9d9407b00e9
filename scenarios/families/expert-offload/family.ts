// Generation with offloaded experts as a family: its words.
import type { ExpertOffloadScenario } from "./scenario.ts"
import type { Family } from "../../family.ts"
import { ignored } from "./ignored.ts"
import { metrics } from "./metrics.ts"
import { displayNames } from "./names.ts"
import { print } from "./print.ts"
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
  ignored,
  print,
  schedule
}

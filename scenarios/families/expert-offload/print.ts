// The figures of a run with offloaded experts, for a person, each with what it counts.
import { formatBytes, formatSeconds, formatShare } from "../../../core/units.ts"
import { formatMetric } from "../../metric.ts"
import { metricOf, type RunResult } from "../../result.ts"
import { alignColumns } from "../../table.ts"
import type { OffloadDetails } from "./simulated.ts"

export const print = (result: RunResult): ReadonlyArray<string> => {
  const value = (name: string) => metricOf(result, name)
  const number = (name: string) => formatMetric(value(name), "number")
  const prefill = value("prefillSeconds")
  const { prefills } = result.details as Pick<OffloadDetails, "prefills">
  const decoding = (result.steps ?? 0) - prefills.between
  const warmup = (result.warmupSteps ?? 0) - prefills.before
  return alignColumns(
    [
      [
        "decoding step",
        formatSeconds(value("decodeStepSeconds")),
        `mean of ${decoding} after ${warmup} of warm-up; ${formatMetric(value("tokensPerSecond"), "perSecond")} tokens`
      ],
      ["  stalls", formatSeconds(value("stallSeconds")), "expert kernels waiting for their copies"],
      ...(prefill > 0
        ? [
            [
              "prefill",
              formatSeconds(prefill),
              prefills.all === 1
                ? "to the first token, from cold slots"
                : `mean of ${prefills.all}, the first from cold slots`
            ]
          ]
        : []),
      ["needs", number("needsPerStep"), "experts needed by layer calls, per step"],
      ["  ready", formatShare(value("readyShare")), "in its slot when the layer's choices were known"],
      ["  late", formatShare(value("lateShare")), "its copy was submitted ahead, and had not ended then"],
      ["  missed", formatShare(value("missShare")), "its copy was submitted then"],
      [
        "loads",
        number("loadsPerStep"),
        `per step, ${formatBytes(value("loadedBytesPerStep"))}; the link to the host is busy ${formatShare(value("hostLinkUtilisation"))} of the time`
      ],
      [
        "loads in all",
        number("loads"),
        `${number("prefetches")} ahead, ${number("uselessPrefetches")} of them useless; no schedule with these slots makes fewer than ${number("fewestLoads")} (${number("fewestForcedLoads")} without bypass)`
      ]
    ],
    (column) => column === 1
  )
}

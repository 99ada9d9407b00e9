// Serving with a key/value cache as a family: its metrics and words.
import { titlesOf } from "../../../core/algorithms/algorithm.ts"
import { cacheMethodList } from "../../../core/algorithms/kv-serving/methods.ts"
import { KvServingScenario } from "./scenario.ts"
import type { Family } from "../../family.ts"
import { ignored, ignoredByExec } from "./ignored.ts"
import { generating, kernels } from "./kernels.ts"
import { print } from "./print.ts"
import { schedule } from "./schedule.ts"
import { prepare, type PreparedServing } from "./simulated.ts"

export const kvServing: Family<KvServingScenario, PreparedServing> & {
  readonly schema: typeof KvServingScenario
} = {
  task: "kv-serving",
  schema: KvServingScenario,
  metrics: [
    {
      name: "requestSeconds",
      label: "time per request",
      unit: "seconds",
      better: "lower",
      description: "mean time from a request's arrival to its last token"
    },
    {
      name: "ttftSeconds",
      label: "time to first token",
      unit: "seconds",
      better: "lower",
      description: "mean time from arrival to the first token, on the device that prefills",
      chart: true
    },
    {
      name: "ttftP99Seconds",
      label: "time to first token, p99",
      unit: "seconds",
      better: "lower",
      description: "time to first token that 99 % of the requests keep within"
    },
    {
      name: "tpotSeconds",
      label: "time per token",
      unit: "seconds",
      better: "lower",
      description: "mean over requests of the time between their tokens after the first",
      chart: true
    },
    {
      name: "tpotP99Seconds",
      label: "time per token, p99",
      unit: "seconds",
      better: "lower",
      description: "time between tokens that 99 % of the requests keep within"
    },
    {
      name: "decodeStartSeconds",
      label: "time to second token",
      unit: "seconds",
      better: "lower",
      description:
        "mean time from arrival to the second token: the first after the cache has been handed over"
    },
    {
      name: "tokensPerSecond",
      label: "throughput",
      unit: "perSecond",
      better: "higher",
      description: "generated tokens of all requests per second of the whole run",
      chart: true
    },
    {
      name: "goodputPerSecond",
      label: "goodput",
      unit: "perSecond",
      better: "higher",
      description:
        "requests that keep both objectives (time to first token, time per token) per second of the whole run",
      chart: true
    },
    {
      name: "objectiveShare",
      label: "within objective",
      unit: "share",
      better: "higher",
      description: "share of the requests that keep both objectives"
    },
    {
      name: "promptCacheBytes",
      label: "cache per prompt",
      unit: "bytes",
      better: "lower",
      description: "mean bytes that stay of a prompt's cache, over all layers and key/value heads"
    },
    {
      name: "peakCacheBytes",
      label: "most cache",
      unit: "bytes",
      better: "lower",
      description: "most bytes of caches that one device held at a time, room for tokens to come included"
    },
    {
      name: "largestBatch",
      label: "largest batch",
      unit: "count",
      better: "higher",
      description: "most sequences that decoded together"
    },
    {
      name: "meanBatch",
      label: "mean batch",
      unit: "number",
      better: "higher",
      description: "mean over decoding steps of the sequences in them"
    },
    {
      name: "breakEvenBytesPerSecond",
      label: "break-even",
      unit: "bytesPerSecond",
      better: "higher",
      description:
        "bandwidth between nodes below which a lone request's cache is handed over sooner than the full one; 80 Tbit/s stands for any, 0 for none"
    }
  ],
  fileFields: [
    ["requests", "trace"],
    ["costs", "ops"],
    ["host", "measured"]
  ],
  displayNames: titlesOf(cacheMethodList),
  baselines: ["full"],
  verb: "serves",
  caveat:
    "Time and memory alone. Methods that keep less of a prompt may answer worse; that is not simulated.",
  prepare,
  kernels,
  generate: generating,
  ignored,
  ignoredByExec,
  print,
  schedule
}

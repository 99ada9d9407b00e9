// The numbers that a run of generation with offloaded experts comes to, each with its definition: hit ratios of papers
// differ by what they call a hit more than by what they measure.
import type { Metric } from "../../family.ts"

export const metrics: ReadonlyArray<Metric> = [
  {
    name: "decodeStepSeconds",
    label: "decoding step",
    unit: "seconds",
    better: "lower",
    description: "mean time of a measured decoding step: a token for every sequence of the batch"
  },
  {
    name: "tokensPerSecond",
    label: "tokens",
    unit: "perSecond",
    better: "higher",
    description: "tokens of all sequences per second of decoding",
    chart: true
  },
  {
    name: "stallSeconds",
    label: "stalls",
    unit: "seconds",
    better: "lower",
    description:
      "time per decoding step that expert kernels wait for their copies, the layer's choices known and the compute lane free",
    chart: true
  },
  {
    name: "loadsPerStep",
    label: "loads",
    unit: "number",
    better: "lower",
    description: "experts copied to the device per decoding step, useless prefetches included",
    chart: true
  },
  {
    name: "readyShare",
    label: "found ready",
    unit: "share",
    better: "higher",
    description:
      "share of needs (an expert that a layer call needs, once per call) whose expert was in its slot when the choices were known",
    chart: true
  },
  {
    name: "lateShare",
    label: "found late",
    unit: "share",
    better: "lower",
    description:
      "share of needs whose copy had been submitted ahead but had not ended when the choices were known"
  },
  {
    name: "missShare",
    label: "missed",
    unit: "share",
    better: "lower",
    description:
      "share of needs whose copy was submitted when the choices were known: ready, late and missed add up to 1"
  },
  {
    name: "needsPerStep",
    label: "needs",
    unit: "number",
    better: "lower",
    description: "experts that layer calls need, summed over the layers of a decoding step"
  },
  {
    name: "loadedBytesPerStep",
    label: "loaded",
    unit: "bytes",
    better: "lower",
    description: "bytes of experts copied to the device per decoding step"
  },
  {
    name: "hostLinkUtilisation",
    label: "host link busy",
    unit: "share",
    better: "lower",
    description:
      "share of the measured time in which the lane of copies to the device is busy, stores back on it included (writeBack: same-stream)"
  },
  {
    name: "prefillSeconds",
    label: "prefill",
    unit: "seconds",
    better: "lower",
    description:
      "time of a prefill, to the first token of every sequence: from cold slots, or the mean where a trace has several; 0 without prefill"
  },
  {
    name: "loads",
    label: "all loads",
    unit: "count",
    better: "lower",
    description: "experts copied to the device in the whole run, cold slots and prefill included"
  },
  {
    name: "fewestLoads",
    label: "fewest loads",
    unit: "count",
    better: "lower",
    description:
      "fewest loads that any schedule with these slots can serve the run with, prefetching included, a slot's room beside them for experts that pass through"
  },
  {
    name: "fewestForcedLoads",
    label: "fewest without bypass",
    unit: "count",
    better: "lower",
    description: "the same where every loaded expert takes one of the slots"
  },
  {
    name: "prefetches",
    label: "prefetches",
    unit: "count",
    better: "lower",
    description: "loads of the whole run submitted before the expert's layer asked for it"
  },
  {
    name: "uselessPrefetches",
    label: "useless prefetches",
    unit: "count",
    better: "lower",
    description: "prefetches whose expert left its slot unused, or lay there unused at the end"
  }
]

// Scenarios in which documented fields should matter, one for each task; and the fields that are not turned there.

/** Fields that name something, and say nothing of it. */
export const labels: ReadonlyArray<string> = ["task", "name", "description", "device.name"]

/** Fields that name a file made for them: what it says is tested where such files are (test/expert-offload, test/moe-training). */
export const elsewhere: ReadonlyArray<string> = [
  "routing.trace",
  "algorithm.predictor.weights",
  "algorithm.predictor.breadth"
]

/** Sections that are refused by name: no collective of theirs goes that way, or sizes must be those of a profile. */
export const refused: ReadonlyArray<string> = [
  "activations.of.",
  "costs.between.all_gather.",
  "costs.between.reduce_scatter.",
  "costs.inside.all_to_all.",
  "costs.inside.all_reduce."
]

export const bases: Readonly<Record<string, string>> = {
  "data-parallel": `
name: knobs
model: { layers: 6, parameters: 6e6, stepSeconds: 10ms }
world:
  { ranks: 8, ranksPerNode: 2, sites: 2, links: { intra: { bandwidth: 1GB/s }, inter: { bandwidth: 1Gbit/s }, wan: { bandwidth: 500Mbit/s } } }
algorithm: ddp
steps: 2
`,
  "moe-training": `
task: moe-training
name: knobs
model: { layers: 2, width: 512, hidden: 1024, heads: 8, sequence: 256, batch: 4, dtype: bfloat16 }
world: { ranks: 4, ranksPerNode: 2, links: { intra: { bandwidth: 10GB/s }, inter: { bandwidth: 10Gbit/s, latency: 5us } } }
algorithm: fsmoe
`,
  "expert-offload": `
task: expert-offload
name: knobs
model: { like: mixtral-8x7b, layers: 4 }
routing: { preset: mixtral }
workload: { batch: 2, promptTokens: 16, decodeTokens: 24, warmupSteps: 2 }
cache: { slotsPerLayer: 3 }
hostLink: { bandwidth: 20GB/s }
algorithm: lru
`,
  "kv-serving": `
task: kv-serving
name: knobs
model: { layers: 2, width: 1024, heads: 8, kvHeads: 2, ffnWidth: 2048, vocabulary: 1000 }
algorithm: { name: chunkkv, keep: 0.2 }
requests: { count: 6, prompt: { from: 400, to: 900 }, output: { from: 4, to: 12 }, perSecond: 50 }
maxBatch: 4
`
}

// Every documented field of every task, two values each, in a base where it should matter. What a field needs beside the base
// to matter at all is said with it.

import { collectiveKnobs } from "./collective-knobs.ts"
import { tableKnobs } from "./table-knobs.ts"
import { memoryKnobs } from "./memory-knobs.ts"
import { planKnobs } from "./plan-knobs.ts"
import { offloadKnobs, servedKnobs } from "./served-knobs.ts"
import { devices, faults, hosts, training, type Knob } from "./shared-knobs.ts"

const profile = "model={profile: traces/profiles/gpt2-h200.arrow}"
const slowOps = "test/fixtures/knobs/slow-ops.arrow"
const oneSite = "world={ranks: 4, links: {inter: {bandwidth: 1Gbit/s}}}"
const device = "device=NVIDIA A100-SXM4-80GB"
const decoder = "layers: 2, width: 64, heads: 4, vocabulary: 256, context: 32, batch: 2"
const gpt2 = `model={gpt2: {${decoder}}}`
const llama = `model={llama: {${decoder}, kvHeads: 2, ffnWidth: 128}}`
const mixtral = `model={mixtral: {${decoder}, kvHeads: 2, ffnWidth: 128}}`

/** Of two ranks, with an expert. */
const oneNode = ["world={ranks: 2, ranksPerNode: 2}", "model.topK=1"] as const

const ofDecoder = (name: string, model: string): ReadonlyArray<Knob> => [
  [`model.${name}.layers`, "2", "3", model, device],
  [`model.${name}.width`, "64", "128", model, device],
  [`model.${name}.heads`, "4", "8", model, device],
  [`model.${name}.vocabulary`, "256", "512", model, device],
  [`model.${name}.vocabularyMultiple`, "1", "200", model, device],
  [`model.${name}.context`, "32", "64", model, device],
  [`model.${name}.batch`, "2", "4", model, device],
  ["model.measured.stepSeconds", "1s", "2s", model, "model.measured={stepSeconds: 1s}", device],
  ["model.measured.batch", "1", "2", model, "model.measured={stepSeconds: 1s}", device],
  ["model.measured.context", "16", "32", model, "model.measured={stepSeconds: 1s}", device],
  ...(name === "gpt2"
    ? []
    : ([
        [`model.${name}.kvHeads`, "2", "4", model, device],
        [`model.${name}.headWidth`, "16", "32", model, device],
        [`model.${name}.ffnWidth`, "128", "256", model, device],
        [`model.${name}.tied`, "false", "true", model, device]
      ] as ReadonlyArray<Knob>))
]

const ofLinks = (tier: string, ...needs: ReadonlyArray<string>): ReadonlyArray<Knob> => [
  [`world.links.${tier}.bandwidth`, "100Mbit/s", "50Mbit/s", ...needs],
  [`world.links.${tier}.latency`, "1ms", "2ms", ...needs],
  [`world.links.${tier}.mtu`, "1500", "9000", `world.links.${tier}.bandwidth=100Mbit/s`, ...needs],
  [`world.links.${tier}.window`, "10kB", "20kB", `world.links.${tier}.latency=10ms`, ...needs]
]

const dreamddp = "algorithm={name: dreamddp, period: 4}"
const diloco = "algorithm={name: diloco, period: 4}"
const streaming = "algorithm={name: streaming-diloco, period: 6, layersPerFragment: 1, delaySteps: 0}"
const inTwo = "algorithm={name: streaming-diloco, period: 6, fragments: 2, delaySteps: 0}"

/** In every task, and without effect but by what studies do with it. */
export const knobs: Readonly<Record<string, ReadonlyArray<Knob>>> = {
  "data-parallel": [
    ["seed", "1", "2", "jitter=0.1"],
    ["model.profile", "traces/profiles/gpt2-h200.arrow", "traces/profiles/resnet18-h200.arrow", profile],
    ["model.hostTime", "span", "busy", profile],
    ["model.stepSeconds", "10ms", "20ms"],
    ["model.layers", "6", "3"],
    ["model.parameters", "6e6", "3e6"],
    ...ofDecoder("gpt2", gpt2),
    ...ofDecoder("llama", llama),
    ...ofDecoder("mixtral", mixtral),
    ["model.mixtral.experts", "8", "4", mixtral, device],
    ["model.mixtral.topK", "2", "1", mixtral, device],
    ["world.ranks", "8", "16"],
    ["world.ranksPerNode", "2", "4"],
    ["world.sites", "1", "2"],
    ...ofLinks("intra", "world.sites=1", "world.ranksPerNode=8"),
    ...ofLinks("inter", oneSite),
    ...ofLinks("wan"),
    [
      "world.links.wan.pairs",
      "traces/wan-dtfm.json",
      "test/fixtures/knobs/pairs.json",
      "world={sites: [{name: Oregon, ranks: 1}, {name: Virginia, ranks: 1}], links: {wan: {pairs: traces/wan-dtfm.json}}}"
    ],
    ["algorithm.name", "ddp", "local-sgd", "algorithm={name: ddp}"],
    ["algorithm.wire", "float32", "bfloat16"],
    ["algorithm.wire", "float32", "bfloat16", "world={ranks: 1}"],
    ...collectiveKnobs,
    ...planKnobs,
    ["world.sites", "1", "2", "world={ranks: 4, links: {inter: {bandwidth: 1Gbit/s}}}"],
    ["world.links.inter.mtu", "1500", "9000", "world={ranks: 4}"],
    ["faults", "[]", "[{link: inter, bandwidth: 1Mbit/s}]", "world={ranks: 2, ranksPerNode: 2}"],
    ["algorithm.buckets", "sized", "single"],
    ["algorithm.bucketBytes", "1MB", "8MB"],
    ["algorithm.firstBucketBytes", "1MB", "8MB"],
    ["algorithm.deadline", "end-of-backward", "next-use"],
    ["algorithm.period", "4", "8", dreamddp],
    ["algorithm.order", "average-then-step", "step-then-average", dreamddp, profile],
    [
      "algorithm.planner",
      "assignment",
      "published",
      "algorithm={name: dreamddp, period: 5}",
      "model={profile: traces/profiles/resnet50-h200.arrow}",
      "world.links.wan.bandwidth=2Gbit/s"
    ],
    [
      "algorithm.fillBubbles",
      "false",
      "true",
      "algorithm={name: dreamddp, period: 5}",
      "model={profile: traces/profiles/resnet50-h200.arrow}",
      "world={ranks: 4, links: {inter: {bandwidth: 20Gbit/s}}}"
    ],
    ...memoryKnobs(gpt2, device, profile),
    [
      "host.launch",
      "0",
      "100ms",
      "model={layers: 4, parameters: 1000, stepSeconds: 10ms}",
      "host={launch: 0}",
      "algorithm=ddp"
    ],
    ["host.launch", "0", "100ms", "model={profile: traces/profiles/gpt2-h200.arrow}", "host={launch: 0}"],
    ["algorithm.outerLearningRate", "0.5", "0.7", diloco],
    ["algorithm.outerMomentum", "0.5", "0.9", diloco],
    ["algorithm.overlap", "false", "true", diloco],
    ["algorithm.fragments", "2", "3", inTwo],
    ["algorithm.layersPerFragment", "1", "2", streaming],
    ["algorithm.message", "layer", "fragment", streaming, "algorithm.layersPerFragment=2"],
    ["algorithm.pattern", "strided", "sequential", inTwo, profile],
    ["algorithm.units", "block", "layer", inTwo, profile],
    [
      "algorithm.offsets",
      "rounded",
      "even",
      "algorithm={name: streaming-diloco, period: 7, layersPerFragment: 2, delaySteps: 0}"
    ],
    [
      "algorithm.delaySteps",
      "0",
      "1",
      "algorithm={name: streaming-diloco, period: 6, layersPerFragment: 2, delaySteps: 0}"
    ],
    ["algorithm.localShare", "0", "0.5", streaming],
    [
      "network",
      "fluid",
      "alpha-beta",
      "algorithm={name: streaming-diloco, period: 6, layersPerFragment: 1, delaySteps: 0}",
      "world.links.wan.bandwidth=10Mbit/s"
    ],
    ...tableKnobs,
    ...devices(gpt2),
    [
      "precision",
      "bfloat16",
      "float32",
      "model={gpt2: {layers: 2, width: 512, heads: 8, vocabulary: 1024, context: 256, batch: 8}}",
      device
    ],
    ["kernels", "fused", "eager", gpt2, device],
    ["kernels", "eager", "autocast", gpt2, device],
    ["costs", "traces/profiles/h200-ops.arrow", slowOps, gpt2, "device=NVIDIA H200"],
    ["memory.device", "100MB", "1kB"],
    ...hosts.map((knob): Knob => [...knob, "world={ranks: 2}", diloco]),
    ["memory.host", "100MB", "1kB"],
    ["steps", "2", "4"],
    faults,
    ["jitter", "0", "0.1"],
    ...training
  ],
  "moe-training": [
    ["seed", "1", "2", "jitter=0.1"],
    ["model.layers", "2", "3"],
    ["model.width", "512", "1024"],
    ["model.hidden", "1024", "2048"],
    ["model.heads", "8", "4"],
    ["model.headWidth", "64", "32"],
    ["model.kvHeads", "8", "2"],
    ["model.sequence", "256", "512"],
    ["model.batch", "4", "8"],
    ["model.experts", "2", "4"],
    ["model.topK", "2", "1"],
    ["model.capacityFactor", "1.2", "2"],
    ["model.ffn", "gpt", "mixtral"],
    ["model.gate", "softmax", "sigmoid"],
    ["model.gateWidth", "16", "512", "model.gate=x-moe"],
    ["model.dtype", "bfloat16", "float32"],
    ["world.ranks", "4", "8"],
    ["world.ranksPerNode", "1", "2"],
    ["world.sites", "1", "2"],
    ...ofLinks("intra", "costs.inside={}", "costs.between={}"),
    ...ofLinks("inter", "costs.between={}"),
    ...ofLinks("wan", "world.sites=2", "costs.between={}"),
    [
      "world.links.wan.pairs",
      "traces/wan-dtfm.json",
      "test/fixtures/knobs/pairs.json",
      "world={sites: [{name: Oregon, ranks: 1}, {name: Virginia, ranks: 1}], links: {wan: {pairs: traces/wan-dtfm.json}}}",
      "costs.between={}"
    ],
    ["costs.products.profile", "traces/profiles/h200-ops.arrow", slowOps],
    [
      "costs.products.op",
      "gemm_bf16",
      "3gemm",
      "costs.products={op: gemm_bf16, profile: traces/profiles/h200-ops.arrow}"
    ],
    ["costs.products.method", "line", "table", "costs.products={profile: traces/profiles/h200-ops.arrow}"],
    ...(
      [
        ["fixed", "10us", "20us"],
        ["perUnit", "1e-14", "2e-14"],
        ["unit", "MAC", "bytes"],
        ["dtype", "float32", "bfloat16"]
      ] as const
    ).map(([field, one, other]): Knob => [
      `costs.products.${field}`,
      one,
      other,
      "costs.products={fixed: 10us, perUnit: 1e-14, unit: MAC}"
    ]),
    [
      "device",
      "NVIDIA V100",
      "NVIDIA A100",
      "costs.products={profile: traces/profiles/h200-ops.arrow, method: line}"
    ],
    [
      "costs.between.profile",
      "traces/profiles/nccl-h200-sockets.arrow",
      "traces/profiles/allreduce-ddp-gpt2-h200.arrow"
    ],
    [
      "costs.between.link",
      "unshaped",
      "10gbit",
      "costs.between={profile: traces/profiles/nccl-h200-sockets.arrow}"
    ],
    [
      "costs.between.method",
      "line",
      "table",
      "costs.between={profile: traces/profiles/nccl-h200-sockets.arrow}"
    ],
    [
      "costs.inside.profile",
      "traces/profiles/nccl-h200-sockets.arrow",
      "traces/profiles/allreduce-ddp-gpt2-h200.arrow",
      "costs.inside={profile: traces/profiles/nccl-h200-sockets.arrow}"
    ],
    [
      "costs.inside.link",
      "unshaped",
      "10gbit",
      "costs.inside={profile: traces/profiles/nccl-h200-sockets.arrow}"
    ],
    [
      "costs.inside.method",
      "line",
      "table",
      "costs.inside={profile: traces/profiles/nccl-h200-sockets.arrow}"
    ],
    ...(["between", "inside"] as const).flatMap((tier) =>
      (tier === "between" ? ["all_to_all", "all_reduce"] : ["all_gather", "reduce_scatter"]).flatMap((op) => {
        const line = `costs.${tier}={${op}: {fixed: 1ms, perUnit: 1e-9, unit: bytes}}`
        return (
          [
            ["fixed", "1ms", "2ms"],
            ["perUnit", "1e-9", "2e-9"],
            ["unit", "bytes", "elements"],
            ["dtype", "float32", "bfloat16"],
            ["dtype", "float32", "bfloat16", `costs.${tier}.${op}.unit=elements`],
            ["scope", "input", "node"],
            ["scope", "input", "gathered"]
          ] as const
        ).map(([field, one, other, ...more]): Knob => [
          `costs.${tier}.${op}.${field}`,
          one,
          other,
          line,
          ...more
        ])
      })
    ),
    ["costs.portShare", "0.4", "1", "costs.between={}", "world.links.inter.bandwidth=100Gbit/s"],
    ["costs.slowdown", "1", "2"],
    ["costs.wait", "0s", "1ms"],
    ["routing.skew", "0", "2", "model.capacityFactor=dropless", "model.experts=4"],
    ["algorithm.name", "fsmoe", "tutel", "algorithm={name: fsmoe}"],
    ["algorithm.degrees", "[1]", "[4]"],
    ["algorithm.degrees", "[1]", "[4]", "algorithm={name: fsmoe, forwardDegree: 2, backwardDegree: 2}"],
    ["algorithm.forwardDegree", "1", "4"],
    ["algorithm.backwardDegree", "1", "4"],
    [
      "algorithm.planner",
      "cases",
      "simulation",
      "algorithm={name: fsmoe, forwardDegree: 2, backwardDegree: 2}"
    ],
    ["algorithm.planner", "cases", "simulation", "model.sequence=2048"],
    ["algorithm.planner", "cases", "lanes"],
    ["algorithm.chunkBytes", "50MB", "60MB", "algorithm=pipemoe-lina"],
    ["costs.slowdown", "1.1", "1.5", "world={ranks: 2}", "algorithm=deepspeed-moe", "model.layers=1"],
    ["world.links.inter.window", "1GiB", "2GiB"],
    ["algorithm.chunkBytes", "1MB", "30MB", "algorithm=pipemoe-lina", "learningRate=0.1"],
    ["algorithm.partition", "exact", "greedy", "learningRate=0.1", "model.layers=4"],
    ["costs.between", "{}", "{all_to_all: {fixed: 1ms, perUnit: 1e-9, unit: bytes}}", ...oneNode],
    ["costs.inside", "{}", "{all_gather: {fixed: 1ms, perUnit: 1e-9, unit: bytes}}", "world={ranks: 2}"],
    [
      "costs.between",
      "{profile: traces/profiles/nccl-h200-sockets.arrow}",
      "{profile: traces/profiles/nccl-h100-sockets.arrow}",
      ...oneNode
    ],
    [
      "costs.between.all_to_all.scope",
      "input",
      "node",
      "costs.between={all_to_all: {fixed: 1ms, perUnit: 1e-9, unit: bytes}}",
      "world={ranks: 2}"
    ],
    ["costs.portShare", "0.4", "1", "world={ranks: 2}"],
    ["costs.portShare", "0.3", "0.5", "costs.between={}", "world.links.inter.bandwidth=100Gbit/s"],
    ["costs.portShare", "0.6", "1", "costs.between={}", "algorithm=tutel"],
    ["faults", "[]", "[{link: inter, bandwidth: 1Mbit/s}]", ...oneNode],
    ["network", "fluid", "alpha-beta"],
    ...devices(),
    ["memory.device", "10GB", "1kB"],
    ...hosts,
    ["memory.host", "10GB", "1kB"],
    ["learningRate", "0.1", "0.2"],
    ["steps", "2", "4"],
    faults,
    ["jitter", "0", "0.1"]
  ],
  "expert-offload": [
    ["seed", "1", "2"],
    ["model.like", "mixtral-8x7b", "qwen1.5-moe"],
    ["model.layers", "4", "3"],
    ["model.experts", "8", "16"],
    ["model.topK", "2", "1"],
    ["model.width", "4096", "2048"],
    ["model.heads", "32", "16"],
    ["model.kvHeads", "8", "4"],
    ["model.ffnWidth", "14336", "7168"],
    ["model.vocabulary", "32000", "64000"],
    ["routing.preset", "mixtral", "uniform"],
    ["routing.statistics.zipf", "0", "1", "routing={statistics: {zipf: 0}}"],
    ["routing.statistics.repeat", "0", "0.5", "routing={statistics: {repeat: 0}}"],
    ["routing.statistics.topics", "1", "4", "routing={statistics: {zipf: 1}}"],
    ["model.headWidth", "128", "64"],
    ["model.dtype", "bfloat16", "float32"],
    ["model.expertDtype", "bfloat16", "float8"],
    ["workload.batch", "2", "4"],
    ["workload.promptTokens", "16", "32"],
    ["workload.prefill", "true", "false"],
    ["workload.decodeTokens", "24", "32"],
    ["workload.warmupSteps", "2", "4"],
    ["workload.batches", "1", "2", "workload.prefill=false"],
    [
      "workload.tokenScheduler",
      "false",
      "true",
      "workload.prefill=false",
      "workload.batches=2",
      "algorithm=expertflow"
    ],
    ["cache.slotsPerLayer", "3", "4"],
    ["cache.bytes", "10GB", "5GB", "cache={bytes: 10GB}"],
    ["cache.scope", "per-layer", "shared"],
    ["cache.stagingSlots", "1", "3", "algorithm=predict-next"],
    ["cache.writeBack", "none", "same-stream"],
    ["hostLink.bandwidth", "20GB/s", "10GB/s"],
    ["hostLink.latency", "10us", "1ms"],
    ["algorithm.name", "lru", "lfu", "algorithm={name: lru}"],
    ["algorithm.reach", "1", "3", "algorithm={name: previous-token}"],
    ["algorithm.window", "1", "4", "algorithm={name: previous-token}"],
    ["algorithm.reach", "1", "3", "algorithm={name: predict-next}"],
    ["algorithm.window", "1", "4", "algorithm={name: previous-layer}"],
    [
      "algorithm.predictor.name",
      "oracle",
      "previous-token",
      "algorithm={name: predict-next, predictor: {name: oracle}}"
    ],
    ["algorithm.predictor.recall", "0.5", "1", "algorithm={name: predict-next, predictor: {name: oracle}}"],
    [
      "algorithm.predictor.falsePositiveRate",
      "0",
      "0.3",
      "algorithm={name: predict-next, predictor: {name: oracle}}"
    ],
    ...offloadKnobs,
    ["algorithm.slots", "cross-layer", "fixed-quota", "algorithm=expertflow"],
    ["algorithm.admission", "bypass", "forced", "algorithm={name: optimum}"],
    ["cache.scope", "per-layer", "shared", "cache.slotsPerLayer=8"],
    ["cache.scope", "per-layer", "shared", "cache={bytes: 100GB}"],
    ["cache.writeBack", "none", "own-stream", "cache={bytes: 100GB}"],
    ["cache.scope", "per-layer", "shared", "algorithm=layer-ring"],
    ["cache.scope", "per-layer", "shared", "algorithm={name: expertflow, slots: fixed-quota}"],
    ["cache.writeBack", "none", "own-stream", "cache.slotsPerLayer=8"],
    ["costs", "traces/profiles/h200-ops.arrow", slowOps],
    ...devices(),
    ["memory.device", "80GB", "1GB"],
    ...hosts,
    ["memory.host", "800GB", "1GB"],
    ["jitter", "0", "0.1"]
  ],
  "kv-serving": [
    ["seed", "1", "2"],
    ["model", "llama-3.1-8b", "llama-2-7b"],
    ["model.layers", "2", "3"],
    ["model.width", "1024", "512"],
    ["model.heads", "8", "4"],
    ["model.kvHeads", "2", "4"],
    ["model.ffnWidth", "2048", "4096"],
    ["model.vocabulary", "1000", "2000"],
    ["model.tied", "false", "true"],
    ["model.dtype", "bfloat16", "float32"],
    ["model.headWidth", "128", "64"],
    ["cacheDtype", "bfloat16", "float8"],
    ["algorithm.name", "snapkv", "pyramidkv", "algorithm={name: snapkv, keep: 0.2}"],
    ["algorithm.keep", "0.2", "0.5"],
    ["algorithm.budget", "64", "128", "algorithm={name: snapkv, budget: 64}"],
    ["algorithm.sinks", "4", "8", "algorithm={name: streaming-llm, keep: 0.2}"],
    ["algorithm.window", "32", "64", "algorithm={name: h2o, keep: 0.2}"],
    ["algorithm.window", "32", "128", "algorithm={name: snapkv, keep: 0.2}"],
    // Prompts of which less stays than a window is long.
    ...["snapkv", "shotkv", "chunkkv"].map((name): Knob => [
      "algorithm.window",
      "500",
      "600",
      `algorithm={name: ${name}, keep: 0.2}`,
      "requests={count: 4, prompt: 400, output: 8}"
    ]),
    ...["snapkv", "pyramidkv"].flatMap((name): ReadonlyArray<Knob> => [
      ["algorithm.kernel", "5", "7", `algorithm={name: ${name}, keep: 0.2}`],
      ["algorithm.pooling", "avg", "max", `algorithm={name: ${name}, keep: 0.2}`]
    ]),
    ["algorithm.kernel", "5", "7", "algorithm={name: chunkkv, keep: 0.2, rule: kvpress}"],
    ["algorithm.pooling", "avg", "max", "algorithm={name: chunkkv, keep: 0.2, rule: kvpress}"],
    ["algorithm.beta", "2", "20", "algorithm={name: pyramidkv, keep: 0.2}"],
    ["algorithm.rule", "paper", "kvpress"],
    ["algorithm.chunk", "10", "50"],
    ["algorithm.reuse", "1", "2"],
    ["algorithm.shot", "16", "128", "algorithm={name: shotkv, keep: 0.2}"],
    ["algorithm.decodeKeep", "0.2", "1", "algorithm={name: shotkv, keep: 0.2}"],
    ...servedKnobs,
    ["requests.count", "6", "8"],
    ["requests.prompt", "400", "800", "requests={count: 4, prompt: 400, output: 8}"],
    ["requests.prompt.from", "400", "200"],
    ["requests.prompt.to", "900", "600"],
    ["requests.output", "4", "8", "requests={count: 4, prompt: 400, output: 8}"],
    ["requests.output.from", "4", "8"],
    ["requests.output.to", "12", "24"],
    ["requests.perSecond", "50", "5"],
    ["requests.arrivals", "poisson", "even"],
    [
      "requests.trace",
      "test/fixtures/requests/azure.csv",
      "test/fixtures/requests/mooncake.jsonl",
      "requests={trace: test/fixtures/requests/azure.csv}"
    ],
    ["requests.limit", "1", "2", "requests={trace: test/fixtures/requests/azure.csv}"],
    ["requests.speed", "1", "100", "requests={trace: test/fixtures/requests/azure.csv}"],
    ["maxBatch", "4", "1"],
    ["transfer.to", "none", "host"],
    ["transfer.bandwidth", "1Gbit/s", "2Gbit/s", "transfer.to=node"],
    ["transfer.latency", "1ms", "10ms", "transfer.to=node"],
    ["transfer.window", "1kB", "2kB", "transfer={to: node, latency: 10ms}"],
    ["objective.ttft", "2s", "1us"],
    ["objective.tpot", "100ms", "1us"],
    ["network", "fluid", "alpha-beta", "transfer={to: node, bandwidth: 100Mbit/s}"],
    ...devices(),
    ["costs.ops", "traces/profiles/h200-ops.arrow", slowOps, "costs={ops: traces/profiles/h200-ops.arrow}"],
    [
      "costs.launch",
      "1us",
      "100us",
      "costs={ops: traces/profiles/h200-ops.arrow}",
      "model.width=64",
      "model.ffnWidth=64"
    ],
    ["costs.launch", "1us", "100us", "device={name: x, flops: 100TFLOP/s, memoryBandwidth: 1TB/s}"],
    ["costs.step", "1ms", "2ms", "costs={step: 1ms, token: 1us, prefill: 1TFLOP/s}"],
    ["costs.token", "1us", "2us", "costs={step: 1ms, token: 1us, prefill: 1TFLOP/s}"],
    ["costs.prefill", "1TFLOP/s", "2TFLOP/s", "costs={step: 1ms, token: 1us, prefill: 1TFLOP/s}"],
    ["memory.device", "80GB", "1MB"],
    ...hosts,
    ["memory.host", "80GB", "1kB", "transfer.to=host"],
    faults,
    ["jitter", "0", "0.1"]
  ]
}

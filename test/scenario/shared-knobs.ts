// Fields that several tasks share, two values each: training, devices, the host, what goes wrong.

/** Field, two values as YAML, and what the base must be besides. */
export type Knob = readonly [path: string, one: string, other: string, ...needs: ReadonlyArray<string>]

const optimizers = ["sgd", "adamw"] as const
export const training: ReadonlyArray<Knob> = [
  ["training.text", "README.md", "LICENSE"],
  ["training.tokens", "a.bin", "b.bin"],
  ["training.heldOutTokens", "a.bin", "b.bin"],
  ["training.tokenDtype", "uint16", "uint32"],
  ["training.chunkTokens", "100000", "200000"],
  ["training.heldOut", "0.1", "0.2"],
  ["training.precision", "float32", "bfloat16"],
  ["training.precision", "float32", "float16"],
  ["training.precision", "float32", "tf32"],
  ["training.lossScale.initial", "1024", "2048", "training.precision=float16"],
  ["training.lossScale.growthInterval", "10", "20", "training.precision=float16"],
  ["training.lossScale.growthFactor", "2", "4", "training.precision=float16"],
  ["training.lossScale.backoffFactor", "0.5", "0.25", "training.precision=float16"],
  ["training.lossScale.initial", "1024", "2048"],
  ["training.clipNorm", "1", "2"],
  ["training.accumulate", "1", "2"],
  ["training.accumulate", "2", "4", "shard={}"],
  ["training.synchronize", "last", "each"],
  ["training.synchronize", "last", "each", "training.accumulate=2"],
  ["training.synchronize", "last", "each", "training.accumulate=2", "shard={}"],
  ["training.synchronize", "last", "each", "training.accumulate=2", "algorithm={name: diloco, period: 4}"],
  ["training.optimizer.decays", "all", "matrices", "training.optimizer={name: sgd}"],
  ["training.optimizer.name", ...optimizers],
  ...["learningRate", "weightDecay", "finalShare"].map((field): Knob => [
    `training.optimizer.${field}`,
    "0.1",
    "0.2",
    "training.optimizer={name: sgd}"
  ]),
  ["training.optimizer.momentum", "0.1", "0.2", "training.optimizer={name: sgd}"],
  ...["beta1", "beta2", "epsilon"].map((field): Knob => [
    `training.optimizer.${field}`,
    "0.1",
    "0.2",
    "training.optimizer={name: adamw}"
  ]),
  ["training.optimizer.warmupSteps", "1", "2", "training.optimizer={name: sgd}"],
  ["training.optimizer.decayUntilStep", "10", "20", "training.optimizer={name: sgd}"],
  ["training.optimizer.decay", "linear", "cosine", "training.optimizer={name: sgd, decayUntilStep: 10}"]
]

export const devices = (...needs: ReadonlyArray<string>): ReadonlyArray<Knob> => [
  ["device", "NVIDIA V100", "NVIDIA H200", ...needs],
  ["device.flops", "1GFLOP/s", "2GFLOP/s", ...needs, "device={flops: 1GFLOP/s, memoryBandwidth: 1TB/s}"],
  ["device.memoryBandwidth", "1GB/s", "2GB/s", ...needs, "device={flops: 1TFLOP/s, memoryBandwidth: 1GB/s}"],
  ["device.efficiency", "0.5", "0.9", ...needs, "device={flops: 1TFLOP/s, memoryBandwidth: 1GB/s}"]
]

export const faults: Knob = ["faults", "[]", "[{straggler: 0, speed: 0.5}]"]

const measuredHost = "host={measured: test/fixtures/knobs/host.arrow}"
export const hosts: ReadonlyArray<Knob> = [
  ["host", "eager", "graph"],
  ["host.launch", "0", "100ms", "host={launch: 0}"],
  ["host.collective", "0", "100ms", "host={launch: 0}"],
  ["host.hook", "0", "100ms", "host={launch: 0}"],
  ["host.read", "0", "100ms", "host={launch: 0}"],
  ["host.replay", "0", "100ms", "host={launch: 0}"],
  ["host.measured", "test/fixtures/knobs/host.arrow", "test/fixtures/knobs/slow-host.arrow", measuredHost],
  ["host.waitsForCopies", "false", "true", "host={launch: 20us}"],
  ["host.readEachStep", "false", "true", "host={launch: 20us, read: 1ms}"],
  ["host.mode", "eager", "graph", measuredHost],
  ["host.mode", "eager", "graph", "host={launch: 0}"],
  ["host.mode", "compiled", "graph", "host={launch: 10us}"],
  ["host.launch", "10us", "20us", "host={mode: graph}"],
  ["host.replay", "10us", "20us", "host={mode: eager}"]
]

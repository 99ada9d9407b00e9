// A model in parts small enough to draw its schedule on paper: seconds of a step, bytes on links, and what a device holds, for each
// stage of ZeRO, over one node and several, with several micro-batches, and with algorithms between divisions.
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import type { MemoryDetails } from "../../scenarios/families/data-parallel/prepare.ts"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import { schedule } from "../../scenarios/families/data-parallel/schedule.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile } from "./files.ts"

/**
 * Two layers of 4M parameters (16 MB each), a unit each, on two ranks of a node: a gather or a reduce-scatter of a unit takes 1 s. Layers
 * take 1 s forward; the second takes 2 s backward, the first 1 s.
 */
const text = `
name: by hand
model: { layers: 2, parameters: 8e6, stepSeconds: 5s }
world:
  ranks: 2
  ranksPerNode: 2
  links: { intra: { bandwidth: 8MB/s, latency: 0s }, inter: { bandwidth: 8MB/s, latency: 0s } }
shard: { within: node }
algorithm: ddp
steps: 8
`

const ran = async (...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(text)
  const { result } = await Effect.runPromise(
    Effect.flatMap(loadScenario(file, sets), (scenario) =>
      runScenario(scenario, file, { loader: new Loader() })
    )
  )
  const { memory } = result.details as { readonly memory: MemoryDetails }
  const sent = (link: string) => result.links.find(({ name }) => name === link)!.bytes
  return { seconds: metricOf(result, "stepSeconds"), memory, sent }
}

const MB = 1e6
/** Steps with one of warm-up, times ranks. */
const runs = 9 * 2

describe("one node", () => {
  // AG gathers, F and B forward and backward, RS scatters, by unit; (AB) is A and B at the same time.
  it.each([
    // AG0 (F0 AG1) F1 AG1 (B1.. AG0) (RS1 B0) RS0
    ["ZeRO-3", "{}", 8, 48, { parameters: 16, copies: 32, gradients: 48 }],
    // One arrives in a buffer, and is copied from there to where both units lie in turn; sums begin in a buffer of their own.
    ["FSDP2", "{copies: true}", 8, 48, { parameters: 16, copies: 32, gradients: 48 }],
    [
      "FSDP2, kept gathered",
      "{reshardAfterForward: false, copies: true}",
      7,
      32,
      { parameters: 16, copies: 32, gradients: 48 }
    ],
    // Two units stay: AG0 (F0 AG1) F1 B1.. (RS1 B0) RS0
    ["kept gathered", "{reshardAfterForward: false}", 7, 32, { parameters: 16, copies: 32, gradients: 48 }],
    // The new parameters are gathered, 16 MB in place; whole gradients of two units and parts.
    ["ZeRO-2", "{parameters: false}", 7, 32, { parameters: 32, copies: 0, gradients: 48 }],
    // An all-reduce takes 2 s: AG0 (F0 AG1) F1 B1.. (AR1 B0) AR1 AR0..
    ["ZeRO-1", "{parameters: false, gradients: false}", 9, 48, { parameters: 32, copies: 0, gradients: 32 }],
    // One slot: AG0 F0 AG1 F1 AG1 B1.. RS1 AG0 B0 RS0
    ["no prefetch", "{prefetch: 0}", 11, 48, { parameters: 16, copies: 16, gradients: 48 }],
    // AG.. F.. B... RS..
    ["one unit", "{units: model}", 9, 32, { parameters: 16, copies: 32, gradients: 48 }]
  ])("%s", async (_, shard, seconds, sent, parts) => {
    const told = await ran(`shard=${shard.replace("{", "{within: node, ").replace(", }", "}")}`)
    expect(told.seconds).toBeCloseTo(seconds, 9)
    expect(told.sent("intra out")).toBe(runs * sent * MB)
    const { outer, activations, buffers, optimizer, ...rest } = told.memory.parts
    expect(rest).toEqual(Object.fromEntries(Object.entries(parts).map(([name, mb]) => [name, mb * MB])))
    // AdamW's moments are of a part, whatever else is divided; what is left are scalars.
    expect(optimizer).toBe(32 * MB)
    // Of equal layers nothing says what activations take.
    expect([activations, buffers]).toEqual([undefined, 0])
    expect(outer).toBeGreaterThanOrEqual(0)
    expect(outer).toBeLessThan(100)
  })

  // The second pass gathers after the first: [AG0 (F0 AG1) F1 AG1 (B1.. AG0)] B0 [AG0 ...] RS0; with each pass RS0 is before the next AG0.
  it.each([
    ["last", 15, 80, 64],
    ["each", 16, 96, 56]
  ])("two micro-batches, synchronised with the %s", async (synchronize, seconds, sent, gradients) => {
    const told = await ran("training.accumulate=2", `training.synchronize=${synchronize}`)
    expect(told.seconds).toBeCloseTo(seconds, 9)
    expect(told.sent("intra out")).toBe(runs * sent * MB)
    expect(told.memory.parts.gradients).toBe(gradients * MB)
  })
})

describe("two nodes", () => {
  const two = "world.ranks=4"
  // Both ranks of a node average their 8 MB of a unit with their peers over one link: 2 s a unit.
  it.each([
    // The first begins when RS1 ends, at 7 s.
    ["ddp", 11, 9 * 2],
    // One message, when RS0 has ended, at 8 s.
    ["s-sgd", 12, 9 * 2],
    // The same once in four steps; a period of warm-up.
    ["{name: local-sgd, period: 4}", (3 * 8 + 12) / 4, 3 * 2],
    // The outer step is of both units at once, so that the second is gathered beside the first's forward pass.
    ["{name: diloco, period: 4}", (3 * 8 + 12) / 4, 3 * 2],
    // Each unit in one of two steps, hidden behind the backward pass: free from its gather in it to its end.
    ["{name: dreamddp, period: 2}", 8, 5 * 2],
    // Its step first: the second's after its sum, at 7 s, behind the first's backward pass and not before it, and an average to 9 s, when
    // the first is gathered for the next step; the first's after its sum, at 8 s, to 10 s.
    ["{name: dreamddp, period: 2, order: step-then-average}", (8 + 10) / 2, 5 * 2]
  ])("%s", async (algorithm, seconds, averages) => {
    const told = await ran(two, `algorithm=${algorithm}`)
    expect(told.seconds).toBeCloseTo(seconds, 9)
    expect(told.sent("inter out")).toBe(averages * 4 * 8 * MB)
  })

  // Each of a node's two messages pays the latency of its ring's two steps, the one behind the other.
  it.each([
    ["fluid", 12 + 2],
    ["alpha-beta", 12 + 2 * 2]
  ])("%s: two parts over one link", async (network, seconds) => {
    const links = "{intra: {bandwidth: 8MB/s, latency: 0s}, inter: {bandwidth: 8MB/s, latency: 1s}}"
    const sets = [two, "algorithm=s-sgd", `network=${network}`, `world.links=${links}`]
    expect((await ran(...sets)).seconds).toBeCloseTo(seconds, 9)
  })

  // As HSDP sums: half the bytes in half the time, whatever parts are kept in, planned and simulated.
  it.each(["ddp", "s-sgd"])("%s sums in reduceDtype between nodes too", async (algorithm) => {
    const sets = [two, `algorithm=${algorithm}`, "shard.reduceDtype=bfloat16"]
    expect((await ran(...sets)).sent("inter out")).toBe((9 * 2 * 4 * 8 * MB) / 2)
    const file = scenarioFile(text)
    const planned = await Effect.runPromise(
      Effect.flatMap(loadScenario(file, sets), (scenario) =>
        schedule(scenario as DataParallelScenario, file, { loader: new Loader() })
      )
    )
    const { buckets } = planned.json as {
      readonly buckets: ReadonlyArray<{ readonly sizeBytes: number; readonly allReduceSeconds: number }>
    }
    // 8 MB each of both ranks of a node over one link of 8 MB/s, a half of them around a ring in each of two steps: 1 s in 16 bits.
    for (const { sizeBytes, allReduceSeconds } of buckets)
      expect(allReduceSeconds).toBeCloseTo(sizeBytes / 8e6, 9)
  })

  // Of two passes: after each, the next waits for what is averaged, from 9 s to 11; then as before, 10 s later.
  it.each([
    ["last", 18, 9 * 2],
    ["each", 21, 2 * 9 * 2]
  ])("two micro-batches, synchronised with the %s", async (synchronize, seconds, averages) => {
    const told = await ran(two, "training.accumulate=2", `training.synchronize=${synchronize}`)
    expect(told.seconds).toBeCloseTo(seconds, 9)
    expect(told.sent("inter out")).toBe(averages * 4 * 8 * MB)
  })
})

// Over links of 450 GB/s a block's gathers and sums are shorter than its passes: what waits are the first gathers, behind the one launch
// of the optimizer's step, and the last sums, of the root and of the block beside it. What holds back a gather must hold back no computation.
it("a described model waits for its first gathers and its last sums alone", async () => {
  const file = fileURLToPath(new URL("../../scenarios/fit-llama8b.yaml", import.meta.url))
  const { result } = await Effect.runPromise(
    Effect.flatMap(loadScenario(file, []), (scenario) =>
      runScenario(scenario, file, { loader: new Loader() })
    )
  )
  const [ranks, width, keys, ffn, vocabulary] = [8, 4096, 1024, 14336, 128256]
  const root = 2 * vocabulary * width + width
  const block = 2 * width * width + 2 * width * keys + 3 * width * ffn + 2 * width
  /** Around a ring: gathered in bfloat16, summed in float32; three microseconds a step of it. */
  const seconds = (numbers: number, bytes: number): number =>
    (ranks - 1) * ((numbers * bytes) / ranks / 450e9 + 3e-6)
  const exposed = metricOf(result, "exposedCommunicationSeconds")
  expect(exposed).toBeGreaterThan(seconds(root, 2) + seconds(root, 4))
  expect(exposed).toBeLessThan(seconds(root, 2) + seconds(block, 2) + seconds(block, 4) + seconds(root, 4))
})

// Small scenarios whose numbers can be worked out by hand: what runs, what planners predict of the same, and what explains it.
import * as fs from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { explain, stepWindow } from "../../sim/explain/explain.ts"
import { wireLatency } from "../../sim/explain/wire-latency.ts"
import { hostOf, runScenario } from "../../sim/run.ts"
import { scenarioFile } from "./files.ts"

interface Told {
  readonly stepSeconds: number
  readonly computeSeconds: number
  readonly exposedCommunicationSeconds: number
}

/** Four layers, 110 ms of computation a step, 160 MB of float32; eight gigabits a second. */
const text = (
  algorithm: string,
  more = "",
  links = "inter: { bandwidth: 8Gbit/s, latency: 1ms }"
) => `name: by hand
model: { layers: 4, parameters: 40M, stepSeconds: 110ms }
world: { ranks: 4, links: { ${links} } }
algorithm: ${algorithm}
${more}
`

const recorded = async (yaml: string, ...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(yaml)
  const scenario = await Effect.runPromise(loadScenario(file, sets))
  return Effect.runPromise(runScenario(scenario, file, { loader: new Loader(), record: true }))
}
const figures = async (yaml: string, ...sets: ReadonlyArray<string>): Promise<Told> =>
  (await recorded(yaml, ...sets)).result as unknown as Told

const schedule = async (file: string, ...sets: ReadonlyArray<string>) => {
  const scenario = await Effect.runPromise(loadScenario(file, sets))
  return Effect.runPromise(familyOf(scenario).schedule(scenario, file, hostOf(new Loader())))
}

describe("what planners reckon with is what runs", () => {
  it("of buckets on a narrow wire", async () => {
    const yaml = text("{ name: ddp, wire: bfloat16, buckets: per-layer }")
    // Six latencies of a ring of four, and three halves of 20 MB.
    const { json } = await schedule(scenarioFile(yaml))
    const { buckets } = json as { readonly buckets: ReadonlyArray<{ readonly allReduceSeconds: number }> }
    for (const { allReduceSeconds } of buckets) expect(allReduceSeconds).toBeCloseTo(0.036, 9)
    // The first bucket is there after 60 ms of the step.
    expect((await figures(yaml)).stepSeconds).toBeCloseTo(0.06 + 4 * 0.036, 9)
  })

  it("of gradients that are bfloat16 as they are made", async () => {
    const gpt2 = "{ gpt2: { layers: 2, width: 64, heads: 4, vocabulary: 256, context: 32, batch: 2 } }"
    const yaml = `name: narrow
model: ${gpt2}
world: { ranks: 4, links: { inter: { bandwidth: 8Mbit/s } } }
device: { name: fast, flops: 1PFLOP/s, memoryBandwidth: 1PB/s }
algorithm: { name: ddp, buckets: single }
`
    const sizes = [2, 2, 4]
    for (const [i, set] of [
      "{precision: bfloat16}",
      "{precision: float16}",
      "{accumulate: 2, precision: bfloat16}"
    ].entries()) {
      const { json } = await schedule(scenarioFile(yaml), `training=${set}`)
      const [bucket] = (
        json as {
          readonly buckets: ReadonlyArray<{ readonly sizeBytes: number; readonly allReduceSeconds: number }>
        }
      ).buckets
      // Three quarters of all there and back at a megabyte a second; a bucket's size is that of gradients as they are made.
      const seconds = (2 * 0.75 * sizes[i]! * bucket!.sizeBytes) / 2 / 1e6
      expect(bucket!.allReduceSeconds).toBeCloseTo(seconds, 9)
      const { exposedCommunicationSeconds } = await figures(yaml, `training=${set}`)
      expect(exposedCommunicationSeconds / seconds).toBeCloseTo(1, 2)
    }
  })

  it("of buckets that close at so many bytes of gradients as they are made, whatever they are sent in", async () => {
    const yaml = `name: buckets
model: { gpt2: { layers: 2, width: 64, heads: 4, vocabulary: 256, context: 32, batch: 2 } }
world: { ranks: 2, links: { inter: { bandwidth: 8Mbit/s } } }
device: { name: fast, flops: 1PFLOP/s, memoryBandwidth: 1PB/s }
algorithm: { name: ddp, bucketBytes: 100KB, firstBucketBytes: 100KB, wire: bfloat16 }
`
    const sizesIn = async (set: ReadonlyArray<string>): Promise<ReadonlyArray<number>> => {
      const { json } = await schedule(scenarioFile(yaml), ...set)
      const { buckets } = json as { readonly buckets: ReadonlyArray<{ readonly sizeBytes: number }> }
      return buckets.map(({ sizeBytes }) => sizeBytes)
    }
    const wide = await sizesIn([])
    const narrow = await sizesIn(["training={precision: bfloat16}"])
    const sum = (sizes: ReadonlyArray<number>): number => sizes.reduce((all, size) => all + size, 0)
    expect(sum(wide)).toBe(2 * sum(narrow))
    for (const sizes of [wide, narrow])
      for (const size of sizes.slice(0, -1)) expect(size).toBeGreaterThanOrEqual(100_000)
    expect(wide.length).toBeGreaterThan(narrow.length)
  })

  it("of direct messages, whose sums travel back in float32", async () => {
    const yaml = text("{ name: local-sgd, period: 2, wire: bfloat16 }", "collectives: { algorithm: direct }")
    const { json } = await schedule(scenarioFile(yaml))
    // Three quarters of 80 MB there, of 160 MB back, and a latency each way.
    const exposed = 0.06 + 0.12 + 0.002
    expect((json as { readonly exposedSeconds: number }).exposedSeconds).toBeCloseTo(exposed, 9)
    expect((await figures(yaml)).stepSeconds).toBeCloseTo(0.11 + exposed / 2, 9)
  })

  it("of MoE layers in one chunk, which wait for all of their communication", async () => {
    const file = path.join(import.meta.dirname, "../../scenarios/moe-training.yaml")
    const bound = async (bandwidth: string) =>
      (await schedule(file, "algorithm=deepspeed-moe", `inter.bandwidth=${bandwidth}`)).lines
        .join("\n")
        .match(/bound by \w+/gu)
    expect(await bound("1Gbit/s")).toEqual(["bound by communication", "bound by communication"])
    expect(await bound("100Tbit/s")).toEqual(["bound by expert", "bound by expert"])
  })
})

describe("a rank alone", () => {
  it("waits for nothing, not for what rounding leaves of its sums", async () => {
    for (const seconds of ["0.1ms", "1.7ms", "33.3ms", "0.7s"]) {
      const told = await figures(
        `name: alone\nmodel: { layers: 7, parameters: 40M, stepSeconds: ${seconds} }\nworld: { ranks: 1 }\nalgorithm: s-sgd\nsteps: 97\n`
      )
      expect(told.exposedCommunicationSeconds).toBe(0)
    }
  })
})

describe("an outage", () => {
  it.each(["", "collectives: { slowdown: 1.5 }"])("is no computing %s", async (more) => {
    const { computeSeconds } = await figures(
      text(
        "s-sgd",
        `steps: 8\nfaults: [{ outage: 1, from: 50ms, for: 1s }, { outage: 2, from: 3s, for: 1s }]\n${more}`
      )
    )
    expect(computeSeconds).toBeCloseTo(0.11, 9)
  })
})

describe("a link between two sites", () => {
  it.each([
    ["named both ways has each its own, in either order", { "A-B": [20, 1], "B-A": [200, 0.1] }, 3.31],
    ["named both ways has each its own, in either order", { "B-A": [200, 0.1], "A-B": [20, 1] }, 3.31],
    ["named once is the same both ways", { "A-B": [20, 1] }, 0.34]
  ])("%s", async (_, pairs, exposed) => {
    const file = scenarioFile("")
    fs.writeFileSync(`${file}.json`, JSON.stringify({ pairs }))
    const sites = "sites: [{ name: A, ranks: 1 }, { name: B, ranks: 1 }]"
    const yaml = `name: pairs
model: { layers: 4, parameters: 10M, stepSeconds: 110ms }
world: { ${sites}, links: { wan: { pairs: ${file}.json } } }
algorithm: s-sgd
`
    // Two rounds of half of 40 MB each way, the slower way's; what goes there and comes back waits for either way once.
    expect((await figures(yaml)).stepSeconds).toBeCloseTo(0.11 + exposed, 9)
  })
})

describe("explained", () => {
  const explained = async (yaml: string, rank = 0) => {
    const { timeline, prepared, simulated } = await recorded(yaml)
    const { opLogs } = simulated
    const wireLatencySeconds = wireLatency(prepared.simulable, timeline!, opLogs)
    return explain(timeline!, stepWindow(timeline!, rank, 1)!, { opLogs, wireLatencySeconds })
  }

  it("latency is told apart from bytes", async () => {
    const { exposed } = await explained(text("s-sgd"))
    expect(exposed.latencySeconds).toBeCloseTo(0.006, 9)
    expect(exposed.communicationSeconds).toBeCloseTo(0.24, 9)
  })

  it("of MoE's groups too: what measured lines fix of a collective is no time of its bytes", async () => {
    const line = (fixed: string) =>
      `{ fixed: ${fixed}, perUnit: 0, unit: bytes, dtype: bfloat16, scope: input }`
    const { seconds, computeSeconds, exposed } = await explained(`task: moe-training
name: fixed
model: { layers: 1, width: 256, hidden: 512, heads: 4, sequence: 64, batch: 1, ffn: gpt, experts: 2, topK: 1 }
world: { ranks: 2 }
costs:
  products: { fixed: 10ms, perUnit: 0, unit: MAC, dtype: bfloat16 }
  between: { all_to_all: ${line("20ms")}, all_reduce: ${line("30ms")} }
algorithm: deepspeed-moe
`)
    // Products: five forward (qkv, projection, gate, two of the expert), ten backward; other kernels are some 100 us.
    expect(computeSeconds).toBeCloseTo(0.15, 3)
    // Four all-to-alls, one of which runs beside the expert's last product; gradients, then those of norms and gates.
    expect(exposed.latencySeconds).toBeCloseTo(4 * 0.02 - 0.01 + 2 * 0.03, 3)
    expect(exposed.communicationSeconds).toBeCloseTo(0, 6)
    expect(seconds).toBeCloseTo(0.28, 3)
  })

  it("a late rank is what others waited for", async () => {
    const { collectives } = await explained(
      text("{ name: local-sgd, period: 2 }", "faults: [{ straggler: 1, speed: 0.5 }]")
    )
    expect(collectives.map(({ delay }) => delay)).toMatchObject([{ kind: "other-rank", rank: 1 }])
  })
})

describe("Streaming DiLoCo", () => {
  const streaming = (more: string) =>
    text(`{ name: streaming-diloco, period: 8, wire: float32, delaySteps: 0, ${more} }`)

  it("has as many fragments as are asked for", async () => {
    for (const pattern of ["strided", "sequential"]) {
      const { json } = await schedule(scenarioFile(streaming(`fragments: 3, pattern: ${pattern}`)))
      const { fragments } = json as {
        readonly fragments: ReadonlyArray<{ readonly layers: ReadonlyArray<string> }>
      }
      expect(fragments.map(({ layers }) => layers.length).toSorted()).toEqual([1, 1, 2])
    }
    await expect(schedule(scenarioFile(streaming("fragments: 5")))).rejects.toThrow("at most the 4 layers")
  })

  it("deals blocks, so that fragments are of a size, whole or in parts", async () => {
    const fragmentsOf = async (more: string, ...sets: ReadonlyArray<string>) => {
      const gpt2 = "model={gpt2: {layers: 6, width: 64, heads: 4, vocabulary: 64, context: 32, batch: 1}}"
      const device = "device={name: any, flops: 1TFLOP/s, memoryBandwidth: 1TB/s}"
      const { json } = await schedule(scenarioFile(streaming(more)), gpt2, device, ...sets)
      return (json as { readonly fragments: ReadonlyArray<Record<string, unknown>> }).fragments
    }
    // Of 64 x 64: attention 4, the feed-forward net 8, with their biases and norms.
    const blockBytes = 4 * (12 * 64 * 64 + 13 * 64)
    const blocks = (indices: ReadonlyArray<number>) => indices.map((index) => `transformer.h.${index}`)
    const whole = await fragmentsOf("fragments: 3")
    expect(whole.map((fragment) => fragment["blocks"])).toEqual([
      ["transformer.wte", "transformer.wpe", ...blocks([0, 3])],
      blocks([1, 4]),
      [...blocks([2, 5]), "transformer.ln_f", "lm_head", "loss"]
    ])
    // The head is the embedding of tokens.
    expect(whole.map((fragment) => fragment["sizeBytes"])).toEqual([
      2 * blockBytes + 4 * 64 * (64 + 32),
      2 * blockBytes,
      2 * blockBytes + 4 * 2 * 64
    ])
    const parts = await fragmentsOf("fragments: 3", "shard={within: world}")
    expect(parts.map((fragment) => fragment["blocks"])).toEqual([
      ["root", ...blocks([0, 3])],
      blocks([1, 4]),
      [...blocks([2, 5]), expect.stringContaining("root, ")]
    ])
    // A fourth of each, and what fills it up.
    const padded = Number(parts[1]!["sizeBytes"]) / ((2 * blockBytes) / 4)
    expect(padded).toBeGreaterThanOrEqual(1)
    expect(padded).toBeLessThan(1.02)
    expect((await fragmentsOf("fragments: 7, units: layer")).length).toBe(7)
    await expect(fragmentsOf("fragments: 7")).rejects.toThrow("at most the 6 blocks, or units: layer")
    await expect(fragmentsOf("layersPerFragment: 7")).rejects.toThrow("a whole number from 1 to the 6 blocks")
  })

  it("pays latency for each message: of each layer, or of a fragment", async () => {
    // Nothing but latency: six of it for a message. All four layers leave at one time, and three wait behind the first.
    const slow = (message: string) =>
      figures(
        text(
          `{ name: streaming-diloco, period: 8, layersPerFragment: 4, delaySteps: 0, deadline: end-of-backward, message: ${message} }`,
          "",
          "inter: { latency: 1s }"
        )
      )
    expect((await slow("fragment")).stepSeconds).toBeCloseTo(0.11 + 6 / 8, 9)
    expect((await slow("layer")).stepSeconds).toBeGreaterThan(0.11 + 23 / 8)
  })
})

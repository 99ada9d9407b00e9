// Real traces. Recorded with torch.profiler (PyTorch 2.11, two steps, record_shapes, with_stack, with_modules) on one
// NVIDIA H200, bf16 autocast, fp32 master weights, fused AdamW, random weights. Parameter counts are what the models'
// own `sum(p.numel() for p in model.parameters())` said; un-profiled steps were timed without the profiler.
//
// test/fixtures/traces/resnet18-h200.pt.trace.json.gz is such a file as it was recorded.
// test/fixtures/traces/gpt2-h200-reduced.pt.trace.json.gz had events and arguments removed that say nothing of layers
// (Python frames other than nn.Module and backward, ops without sequence number, input shapes other than
// AccumulateGrad's, CUDA calls that launch nothing). Of the other three only the converted profile is in the repository.
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import type { Profile } from "../../core/profile.ts"
import { importKinetoFile, readProfile, rescaleHostGaps, totalSeconds } from "../../traces/index.ts"

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/traces/${name}.pt.trace.json.gz`, import.meta.url))
const shipped = (name: string): Promise<Profile> =>
  Effect.runPromise(
    readProfile(fileURLToPath(new URL(`../../traces/profiles/${name}.arrow`, import.meta.url)))
  )

const parameterCount = (profile: Profile): number =>
  profile.parameters.reduce(
    (sum, { shape }) => sum + shape.reduce((product, extent) => product * extent, 1),
    0
  )

interface Event {
  readonly ph: string
  readonly cat?: string
  readonly name: string
  readonly ts: number
  readonly dur: number
  readonly args?: { readonly correlation?: number }
}

/**
 * Oracle, independent of the importer: the whole file parsed at once; kernels belong to the step their launch call
 * started in; seconds of the union of their intervals, mean over the steps.
 */
const kernelUnionSeconds = (path: string): number => {
  const { traceEvents } = JSON.parse(gunzipSync(readFileSync(path)).toString("utf8")) as {
    traceEvents: ReadonlyArray<Event>
  }
  const launchedAt = new Map<number, number>()
  for (const { cat, args, ts } of traceEvents) {
    if (cat === "cuda_runtime" || cat === "cuda_driver") launchedAt.set(args!.correlation!, ts)
  }
  const steps = traceEvents.filter(
    ({ cat, name }) => cat === "user_annotation" && name.startsWith("ProfilerStep")
  )
  const kernels = traceEvents.filter(({ cat }) => ["kernel", "gpu_memcpy", "gpu_memset"].includes(cat ?? ""))
  let microseconds = 0
  for (const { ts: start, dur: length } of steps) {
    let covered = -Infinity
    const own = kernels.filter(({ args }) => {
      const at = launchedAt.get(args!.correlation!)!
      return at >= start && at < start + length
    })
    for (const { ts, dur } of own.toSorted((a, b) => a.ts - b.ts)) {
      microseconds += Math.max(0, ts + dur - Math.max(ts, covered))
      covered = Math.max(covered, ts + dur)
    }
  }
  return (microseconds * 1e-6) / steps.length
}

const expectWhole = (profile: Profile): void => {
  const { busySeconds, spanSeconds } = totalSeconds(profile.layers)
  expect(busySeconds / profile.deviceBusySeconds).toBeCloseTo(1, 9)
  expect(spanSeconds / profile.stepSeconds).toBeCloseTo(1, 9)
  for (const layer of profile.layers) {
    for (const phase of [layer.forward, layer.backward, layer.optimizer]) {
      expect(phase.busySeconds).toBeGreaterThanOrEqual(0)
      expect(phase.spanSeconds).toBeGreaterThanOrEqual(phase.busySeconds)
    }
  }
  expect(new Set(profile.layers.map(({ name }) => name)).size).toBe(profile.layers.length)
}

describe.each([
  ["resnet18-h200", "resnet18-h200", 11_689_512],
  ["gpt2-h200-reduced", "gpt2-h200", 124_439_808]
])("the trace %s", (file, name, parameters) => {
  it("is attributed whole, with every parameter", async () => {
    const { profile, unattributed, warnings } = await Effect.runPromise(importKinetoFile(fixture(file)))
    expect(warnings).toEqual([])
    expect(unattributed).toEqual([])
    expect(parameterCount(profile)).toBe(parameters)
    expect(profile.deviceBusySeconds / kernelUnionSeconds(fixture(file))).toBeCloseTo(1, 6)
    expect(profile.steps).toBe(2)
    expect(profile.device).toBe("NVIDIA H200")
    expectWhole(profile)
  })

  it("gives the profile that ships", async () => {
    const { profile } = await Effect.runPromise(importKinetoFile(fixture(file)))
    const { layers, parameters: tensors, stepSeconds, deviceBusySeconds } = await shipped(name)
    expect(layers).toEqual(profile.layers)
    expect(tensors).toEqual(profile.parameters)
    expect({ stepSeconds, deviceBusySeconds }).toEqual({
      stepSeconds: profile.stepSeconds,
      deviceBusySeconds: profile.deviceBusySeconds
    })
  })
})

describe.each([
  // Busy: union of kernel time by a separate script over the raw traces, microseconds, mean of the two steps.
  ["gpt2-h200", 124_439_808, 0.0323, (30_342.1 + 30_340.3) / 2],
  ["llama-h200", 134_105_856, 0.0404, (19_715.7 + 19_683.4) / 2],
  ["mixtral-h200", 430_482_432, 0.0759, 69_594.8],
  ["resnet18-h200", 11_689_512, 0.0126, (11_581.4 + 11_590.6) / 2],
  ["resnet50-h200", 25_557_032, 0.0288, (27_409.2 + 27_388.9) / 2]
])("the profile %s", (name, parameters, unprofiledStepSeconds, busyMicroseconds) => {
  it("has all parameters and all device time, and fits the un-profiled step", async () => {
    const profile = await shipped(name)
    expect(parameterCount(profile)).toBe(parameters)
    expect(profile.unprofiledStepSeconds).toBeCloseTo(unprofiledStepSeconds, 15)
    expect(profile.unattributedShare).toBe(0)
    // Rounded to a tenth of a microsecond where it was written down.
    expect(Math.abs(profile.deviceBusySeconds * 1e6 - busyMicroseconds)).toBeLessThan(0.1)
    expectWhole(profile)
    const rescaled = rescaleHostGaps(profile, unprofiledStepSeconds)
    expect(totalSeconds(rescaled.layers).spanSeconds).toBeCloseTo(unprofiledStepSeconds, 12)
    expect(totalSeconds(rescaled.layers).busySeconds).toBe(totalSeconds(profile.layers).busySeconds)
  })
})

describe("what is known of the models", () => {
  it("GPT-2: layers in forward order, the tied embedding once and last", async () => {
    const { layers, parameters } = await shipped("gpt2-h200")
    const names = layers.map(({ name }) => name)
    expect(names[0]).toBe("GPT2Model_0.Embedding_0")
    expect(names.slice(-3)).toEqual(["GPT2Model_0.LayerNorm_24", "Linear_0", "loss"])
    // 12 blocks of 12 layers: ln, c_attn, attention, c_proj, dropout, add, ln, c_fc, gelu, c_proj, dropout, add.
    expect(names.filter((name) => name.includes("GPT2Block_"))).toHaveLength(12 * 12)
    expect(parameters).toHaveLength(148)
    // ln_f's gradients come first; wte, tied to lm_head, waits for the embedding's own part.
    expect(parameters[0]).toEqual({
      layer: names.indexOf("GPT2Model_0.LayerNorm_24"),
      shape: [768],
      dtype: "float32"
    })
    expect(parameters.filter(({ shape }) => shape[0] === 50_257)).toEqual([
      { layer: 0, shape: [50_257, 768], dtype: "float32" }
    ])
    expect(parameters.findIndex(({ shape }) => shape[0] === 50_257)).toBeGreaterThan(145)
  })

  it("ResNet-18: a convolution's parameters belong to the layer of its name", async () => {
    const { layers, parameters } = await shipped("resnet18-h200")
    for (const { layer, shape } of parameters) {
      const { name } = layers[layer]!
      expect(name).toContain(shape.length === 4 ? "Conv2d" : shape[0] === 1000 ? "Linear" : "BatchNorm2d")
    }
    // conv1 at 224 x 224 is the longest forward of all convolutions.
    const convolutions = layers.filter(({ name }) => name.includes("Conv2d"))
    expect(convolutions).toHaveLength(20)
    expect(Math.max(...convolutions.map(({ forward }) => forward.busySeconds))).toBe(
      convolutions[0]!.forward.busySeconds
    )
  })
})

// Loops that read each layer's choices, played by hand at two paces of the host: from the trace of the slow one and the step time of
// the other, the import finds what the host spends.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { moeModels } from "../../core/algorithms/expert-offload/model.ts"
import { launchesOfLayer } from "../../core/algorithms/expert-offload/launches.ts"
import { decodeProfile, encodeProfile, importKineto } from "../../traces/index.ts"
import { ChromeTrace } from "./chrome-trace.ts"

interface Loop {
  readonly layers: number
  readonly steps: number
  /** Of a layer, beside its copies. */
  readonly launches: number
  /** Layers of each step that load an expert first. */
  readonly loads: number
  /** Whether the host waits for a load. */
  readonly waits: boolean
}

const loop: Loop = { layers: 4, steps: 5, launches: 12, loads: 0, waits: false }
/** Microseconds: of the host before each launch and after each read, of the device. */
const cost = { launch: 7, read: 15, kernel: 3, toHost: 2, load: 400 }

/** A step of it in microseconds with a host `slower` times as slow, written down. */
const played = (
  { layers, steps, launches, loads, waits }: Loop,
  slower: number
): { readonly trace: ChromeTrace; readonly stepMicroseconds: number } => {
  const trace = new ChromeTrace()
  let now = 0
  let computed = 0
  let copied = 0
  let correlation = 1
  const sync = (until: number, after: number): void => {
    const begun = now
    now = Math.max(now, until) + after
    trace.host("cuda_runtime", "cudaStreamSynchronize", begun, now - begun, { correlation: correlation++ })
  }
  const launch = (
    name: string,
    category: "kernel" | "gpu_memcpy",
    stream: number,
    take: number,
    from: number
  ) => {
    now += cost.launch * slower
    trace.host("cuda_runtime", category === "kernel" ? "cudaLaunchKernel" : "cudaMemcpyAsync", now - 1, 1, {
      correlation
    })
    const start = Math.max(now, from)
    trace.push({
      ph: "X",
      cat: category,
      name,
      pid: 0,
      tid: stream,
      ts: start,
      dur: take,
      args: { device: 0, stream, correlation: correlation++ }
    })
    return start + take
  }
  for (let step = 0; step < steps; step++) {
    const begun = now
    for (let layer = 0; layer < layers; layer++) {
      if (layer < loads) {
        copied = launch("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", 9, cost.load, copied)
        if (waits) sync(copied, 0)
        computed = Math.max(computed, copied)
      }
      for (let i = 1; i < launches; i++) computed = launch("gemv", "kernel", 7, cost.kernel, computed)
      computed = launch("Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", 7, cost.toHost, computed)
      sync(computed, cost.read)
    }
    trace.host("user_annotation", `ProfilerStep#${step}`, begun, now - begun)
  }
  return { trace, stepMicroseconds: now / steps }
}

const hostOf = async (of: Loop, unprofiledStepSeconds: number) => {
  const { profile, warnings } = await Effect.runPromise(
    importKineto(played(of, 3).trace.bytes, { unprofiledStepSeconds })
  )
  return { host: decodeProfile("p", encodeProfile("p", profile)).host, warnings: warnings.join("\n") }
}

describe("the host of a loop that reads", () => {
  it.each([
    ["without copies", { ...loop }],
    ["with loads that it waits for", { ...loop, loads: 2, waits: true }],
    ["with loads that only the device waits for", { ...loop, loads: 2, waits: false }]
  ])("%s spends what it does without the profiler", async (_, of: Loop) => {
    const real = played(of, 1).stepMicroseconds * 1e-6
    const { host } = await hostOf(of, real)
    expect(host!.mode).toBe("eager")
    expect(host!.launchesPerRead).toBe(loop.launches)
    expect(host!.waitsForCopies).toBe(of.loads === 0 ? undefined : of.waits)
    expect(host!.readSeconds! * 1e6).toBeCloseTo(cost.read, 3)
    // What is left is that the device's order is kept as profiled.
    expect(Math.abs(host!.launchSeconds! * 1e6 - cost.launch)).toBeLessThan(0.5)
  })

  it("is not told where copies alone take longer than the step's time", async () => {
    const of = { ...loop, loads: 2 }
    const { host, warnings } = await hostOf(of, (2.2 * cost.load + 200) * 1e-6)
    expect(host!.launchSeconds).toBeLessThan(cost.launch * 1e-6)
    expect(warnings).not.toContain("cannot be told")
    const under = await Effect.runPromise(
      importKineto(played(of, 3).trace.bytes, { unprofiledStepSeconds: (2 * cost.load + 160) * 1e-6 })
    )
    expect(under.profile.host).toBeUndefined()
    expect(under.warnings.join()).toContain("what the host spends cannot be told")
  })

  it("of fewer than two reads a step is none of these", async () => {
    expect((await hostOf({ ...loop, layers: 1 }, 100e-6)).host!.launchesPerRead).toBeUndefined()
  })

  it("launches as often for a layer as the kernels that it submits say, copies of experts aside", async () => {
    const of = (batch: number) => Effect.runPromise(launchesOfLayer(moeModels["mixtral-8x7b"], batch))
    const [one, two] = [await of(1), await of(2)]
    // Two norms of six, three products and one of attention, rope, cache, attention, router, gate, read, two experts of five, ...
    expect(one).toBeGreaterThan(45)
    expect(one).toBeLessThan(65)
    // Four experts for two, and a list of caches more.
    expect(two - one).toBeGreaterThanOrEqual(10)
  })
})

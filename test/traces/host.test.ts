// What a host costs, measured from made-up traces of a training step that its host paces: alone, and under DDP with hooks and
// calls as PyTorch nests them (a trace of PyTorch 2.13 with gloo shows the nesting). The simulator gives back the steps.
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { importKinetoFile, type KinetoOptions } from "../../traces/kineto/import.ts"
import { writeProfile } from "../../traces/profile-file.ts"
import { ChromeTrace } from "./chrome-trace.ts"

const folder = mkdtempSync(path.join(tmpdir(), "host-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const layers = 20
const each = { forward: 20, backward: 25, gradient: 5, optimizer: 10, kernel: 4 }

/** Microseconds of the profiled step without DDP. */
const aloneMicroseconds = layers * (each.forward + each.backward + each.gradient) + each.optimizer

/** Writes a trace of three steps, its host never idle. A call of a collective follows every fifth gradient. */
const traceOf = (
  name: string,
  ddp?: { readonly hook: number; readonly call: number; readonly alone?: boolean }
): string => {
  const trace = new ChromeTrace()
  let now = 0
  let device = 0
  const kernel = (what: string, tid: number) => {
    device = Math.max(device, now + 2)
    trace.kernel(what, now + 1, device, each.kernel, tid)
    device += each.kernel
  }
  for (let step = 0; step < 3; step++) {
    const begun = now
    for (let layer = 0; layer < layers; layer++) {
      trace.op("aten::linear", now, each.forward, { "Sequence number": step * layers + layer })
      kernel("gemm", 1)
      now += each.forward
    }
    for (let layer = layers - 1; layer >= 0; layer--) {
      trace.node("AddmmBackward0", step * layers + layer, now, each.backward)
      kernel("gemm", 2)
      now += each.backward
      const calls = ddp !== undefined && layer % 5 === 0 ? ddp.call : 0
      const hook = ddp?.hook ?? 0
      const node = "torch::autograd::AccumulateGrad"
      const whole = each.gradient + hook + calls
      trace.op(`autograd::engine::evaluate_function: ${node}`, now, whole, {}, 2)
      trace.op(node, now + 1, 2, { "Input Dims": [[64, 64]], "Input type": ["float"] }, 2)
      if (calls > 0) {
        const at = now + each.gradient + hook - 1
        const sizes = { dtype: "Float", "In msg nelems": 20_480, "Out msg nelems": 20_480, "Group size": 2 }
        trace.op("c10d::allreduce_", at, calls, {}, 2)
        trace.op("record_param_comms", at + 1, calls - 2, { "Collective name": "allreduce", ...sizes }, 2)
        if (ddp?.alone !== true)
          trace.kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL", at + 2, at + 4, 3, 2, { stream: 9 })
      }
      now += whole
    }
    trace.host("user_annotation", "Optimizer.step#AdamW.step", now, each.optimizer)
    kernel("multi_tensor_apply_kernel adamw", 1)
    now += each.optimizer
    trace.host("user_annotation", `ProfilerStep#${step}`, begun, now - begun)
  }
  const file = path.join(folder, `${name}.json`)
  writeFileSync(file, trace.bytes)
  return file
}

const imported = async (file: string, options: KinetoOptions) => {
  const report = await Effect.runPromise(importKinetoFile(file, options))
  await Effect.runPromise(writeProfile(`${file}.arrow`, report.profile))
  return report.profile
}

const stepOf = (file: string, algorithm: string): Promise<number> =>
  stepWith(`model: {profile: ${file}.arrow}`, `algorithm: ${algorithm}`)

/** A step of data-parallel training, with these lines in its scenario. */
const stepWith = async (...lines: ReadonlyArray<string>): Promise<number> => {
  const scenario = path.join(folder, "scenario.yaml")
  writeFileSync(
    scenario,
    [
      "task: data-parallel",
      "name: two ranks on links that cost nothing",
      "world: {ranks: 2, links: {inter: {bandwidth: 1TB/s, latency: 0s}}}",
      ...lines
    ].join("\n")
  )
  const loaded = await Effect.runPromise(loadScenario(scenario, []))
  const { result } = await Effect.runPromise(runScenario(loaded, scenario, { loader: new Loader() }))
  return (result as unknown as { readonly stepSeconds: number }).stepSeconds
}

// Buckets of five gradients of 64 x 64 floats, as the trace has them.
const ddp = "{name: ddp, bucketBytes: 80KiB, firstBucketBytes: 80KiB}"
/** Of the last layers' kernels, which follow the host, and of the collective after them. */
const tailSeconds = 30e-6

describe("a host measured from a trace", () => {
  it("launches in the step's own time, whatever the profiler made of it", async () => {
    const alone = traceOf("alone")
    const real = (aloneMicroseconds / 2) * 1e-6
    const { host } = await imported(alone, { unprofiledStepSeconds: real })
    expect(host?.mode).toBe("eager")
    expect(host!.launchSeconds! / (real / (2 * layers + 1))).toBeCloseTo(1, 1)
    expect((await imported(alone, {})).host).toBeUndefined()
    // As slow as stated, in local steps.
    await imported(alone, { unprofiledStepSeconds: real })
    expect(Math.abs((await stepOf(alone, "{name: local-sgd, period: 1000}")) - real)).toBeLessThan(
      tailSeconds
    )
  })

  it("takes hooks and calls from a second trace under DDP", async () => {
    const alone = traceOf("alone")
    const under = traceOf("ddp", { hook: 30, call: 200 })
    const real = aloneMicroseconds * 1e-6
    const as = await imported(alone, { unprofiledStepSeconds: real, ddp: under })
    expect(as.host!.hookSeconds).toBeCloseTo(30e-6, 8)
    expect(as.host!.collectiveSeconds).toBeCloseTo(200e-6, 8)
    // Its step without the profiler says what they really come to.
    const added = 0.5 * (layers * 30 + 4 * 200) * 1e-6
    const scaled = await imported(alone, {
      unprofiledStepSeconds: real,
      ddp: under,
      ddpStepSeconds: real + added
    })
    expect(scaled.host!.hookSeconds).toBeCloseTo(15e-6, 8)
    expect(scaled.host!.collectiveSeconds).toBeCloseTo(100e-6, 8)
    expect(Math.abs((await stepOf(alone, ddp)) - (real + added))).toBeLessThan(tailSeconds)
  })

  it("takes them from a trace of one rank alone too, where NCCL is called and launches nothing", async () => {
    const ddp = traceOf("one-rank", { hook: 30, call: 200, alone: true })
    const { host } = await imported(traceOf("alone"), {
      unprofiledStepSeconds: aloneMicroseconds * 1e-6,
      ddp
    })
    expect(host!.hookSeconds).toBeCloseTo(30e-6, 8)
    expect(host!.collectiveSeconds).toBeCloseTo(200e-6, 8)
  })

  it("gives a trace under DDP its step back, and less without DDP", async () => {
    const under = traceOf("ddp", { hook: 30, call: 200 })
    const whole = (aloneMicroseconds + layers * 30 + 4 * 200) * 1e-6
    const { host } = await imported(under, { unprofiledStepSeconds: whole / 2 })
    expect(host!.collectiveSeconds).toBeCloseTo(100e-6, 5)
    expect(Math.abs((await stepOf(under, ddp)) - whole / 2)).toBeLessThan(tailSeconds)
    const local = await stepOf(under, "{name: local-sgd, period: 1000}")
    expect(Math.abs(local - (aloneMicroseconds / 2) * 1e-6)).toBeLessThan(2 * tailSeconds)
  })

  it("launches a described model's kernels, more of them in eager mode, and none with a graph", async () => {
    const sizes =
      "layers: 2, width: 64, heads: 4, kvHeads: 2, ffnWidth: 128, vocabulary: 256, context: 32, batch: 2"
    const step = (host: string) =>
      stepWith(`model: {llama: {${sizes}}}`, "device: NVIDIA H100", "algorithm: s-sgd", `host: ${host}`)
    const free = await step("none")
    const once = await step("{launch: 100us}")
    const eager = await step("{mode: eager, launch: 100us}")
    // Far more than fifty kernels of two layers' forward and backward passes, each 100 us.
    expect(once).toBeGreaterThan(free + 50 * 100e-6)
    expect(eager).toBeGreaterThan(1.5 * once)
    expect(await step("{mode: graph, replay: 100us}")).toBeLessThan(free + 200e-6)
  })

  it("refuses a second trace that is not under DDP", async () => {
    const alone = traceOf("alone")
    const refusal = Effect.flip(importKinetoFile(alone, { unprofiledStepSeconds: 1e-3, ddp: alone }))
    expect((await Effect.runPromise(refusal)).accepted).toContain("DistributedDataParallel")
  })
})

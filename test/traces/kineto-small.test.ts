// Hand-written traces, one per quirk of the format: every expected number is on the page.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { gzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import type { Profile } from "../../core/profile.ts"
import { importKineto, TraceError, type ImportReport, type KinetoOptions } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

const run = (bytes: Uint8Array, options: KinetoOptions = {}): Promise<ImportReport> =>
  Effect.runPromise(importKineto(bytes, { file: "t.json", ...options }))

const failure = async (bytes: Uint8Array, options: KinetoOptions = {}): Promise<TraceError> => {
  const result = await Effect.runPromise(Effect.result(importKineto(bytes, { file: "t.json", ...options })))
  if (!Result.isFailure(result)) throw new Error("imported without an error")
  expect(result.failure).toBeInstanceOf(TraceError)
  return result.failure
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const us = (seconds: number): number => Math.round(seconds * 1e9) / 1e3
const phases = ["forward", "backward", "optimizer"] as const

/** Busy microseconds by layer: [forward, backward, optimizer]. */
const busy = (profile: Profile): Record<string, ReadonlyArray<number>> =>
  Object.fromEntries(
    profile.layers.map((layer) => [layer.name, phases.map((phase) => us(layer[phase].busySeconds))])
  )

const spanOf = (profile: Profile): number =>
  profile.layers.reduce((sum, layer) => sum + phases.reduce((s, phase) => s + layer[phase].spanSeconds, 0), 0)

/** 8 + 64 elements in Linear_0, 32 in Linear_1: the optimizer's 12 us divide as 72:32. */
const smallBusy = {
  "Block_0.Linear_0": [10, 20, us((12e-6 * 72) / 104)],
  Block_0: [5, 0, 0],
  "Block_0.Linear_1": [30, 40, us((12e-6 * 32) / 104)],
  loss: [2, 3, 0]
}

describe("a whole step", () => {
  it("gives every kernel to its layer and phase", async () => {
    const { profile, unattributed, warnings } = await run(smallStep(new ChromeTrace(), 0, 50).bytes)
    expect(busy(profile)).toEqual(smallBusy)
    expect(unattributed).toEqual([])
    expect(warnings).toEqual([])
    expect(profile).toMatchObject({ device: "Test GPU", steps: 1, name: "t", unattributedShare: 0 })
    expect(us(profile.deviceBusySeconds)).toBe(122)
    // From the first kernel (10) to the end of the step's mark (199).
    expect(us(profile.stepSeconds)).toBe(189)
    expect(us(spanOf(profile))).toBe(189)
    const linear = profile.layers.find((layer) => layer.name === "Block_0.Linear_0")!
    expect(us(linear.forward.spanSeconds)).toBe(11)
    expect(us(linear.backward.spanSeconds)).toBe(23)
  })

  it("lists parameters in the order their gradients become ready", async () => {
    const { profile } = await run(smallStep(new ChromeTrace(), 0, 50).bytes)
    const named = profile.parameters.map(({ layer, ...rest }) => ({
      layer: profile.layers[layer]!.name,
      ...rest
    }))
    expect(named).toEqual([
      { layer: "Block_0.Linear_1", shape: [4, 8], dtype: "float32" },
      { layer: "Block_0.Linear_0", shape: [8], dtype: "float32" },
      { layer: "Block_0.Linear_0", shape: [8, 8], dtype: "float32" }
    ])
  })

  it("takes means over steps, a step ending where the next begins on the device", async () => {
    const trace = smallStep(smallStep(new ChromeTrace(), 0, 50), 200, 60)
    const { profile } = await run(trace.bytes)
    expect(profile.steps).toBe(2)
    expect(busy(profile)).toEqual(smallBusy)
    // (210 - 10) and (399 - 210).
    expect(us(profile.stepSeconds)).toBe((200 + 189) / 2)
    expect(profile.parameters).toHaveLength(3)
  })

  it("does not count a kernel that runs under another twice", async () => {
    // 4 us of the 10 of another stream's copy lie under gemm_b (27..57); 6 after it, over the 2 of the loss (58..60).
    const trace = smallStep(new ChromeTrace(), 0, 50)
    trace.kernel("Memcpy", 21, 53, 10, 1, { stream: 8 })
    const { profile } = await run(trace.bytes)
    expect(busy(profile)["Block_0.Linear_1"]![0]).toBe(36)
    expect(busy(profile).loss).toEqual([0, 2, 0])
    expect(us(profile.deviceBusySeconds)).toBe(122 + 6 - 3)
    expect(us(spanOf(profile))).toBe(189)
  })
})

describe("forms of the file", () => {
  const trace = smallStep(new ChromeTrace(), 0, 50)

  it("reads gzip by its content, byte order marks, and a bare array without its end", async () => {
    const plain = await run(trace.bytes)
    expect(await run(gzipSync(trace.bytes))).toEqual(plain)
    expect(await run(encode(`\uFEFF${trace.json}`))).toEqual(plain)
    const bare = JSON.stringify(trace.events)
    const { profile } = await run(encode(bare))
    expect(profile.layers).toEqual(plain.profile.layers)
    expect(profile.device).toBe("unknown")
    expect((await run(encode(bare.slice(0, -1)))).profile.layers).toEqual(plain.profile.layers)
  })

  it("reads any chunking of the bytes, and members in any order", async () => {
    const plain = await run(trace.bytes)
    const swapped = JSON.stringify({ traceEvents: trace.events, other: { a: [1, "]}"] }, ...trace.members })
    const bytewise = async function* (): AsyncIterable<Uint8Array> {
      const bytes = encode(swapped)
      for (let i = 0; i < bytes.length; i += 7) yield bytes.subarray(i, i + 7)
    }
    const report = await Effect.runPromise(importKineto(bytewise(), { file: "t.json" }))
    expect(report).toEqual(plain)
  })

  it("keeps nanoseconds of timestamps that count from 1970", async () => {
    // 1.79e15 us: a float64 holds quarters of microseconds there, the text holds nanoseconds.
    const events = trace.events.map((event) => {
      // Only gemm_b starts 0.321 us later; the add before it is followed by a gap that much longer.
      const [whole = "", fraction = "0"] = String(event.name === "gemm_b" ? 27.321 : event.ts).split(".")
      return { ...event, ts: `@${1_790_857_026_000_000n + BigInt(whole)}.${fraction.padEnd(3, "0")}@` }
    })
    const text = JSON.stringify({ ...trace.members, traceEvents: events }).replace(/"@|@"/gu, "")
    const { profile } = await run(encode(text))
    expect(busy(profile)).toEqual(smallBusy)
    expect(us(profile.stepSeconds)).toBe(189)
    expect(us(profile.layers[1]!.forward.spanSeconds)).toBe(6.321)
  })

  it("reads whole nanoseconds where the file says so, and microseconds otherwise", async () => {
    const nanos = (value: unknown) => Math.round(Number(value) * 1000)
    const events = trace.events.map((event) => ({ ...event, ts: nanos(event.ts), dur: nanos(event.dur) }))
    const inNanos = encode(JSON.stringify({ ...trace.members, displayTimeUnit: "ns", traceEvents: events }))
    const { profile, warnings } = await run(inNanos)
    expect(busy(profile)).toEqual(smallBusy)
    expect(warnings.join()).toContain("nanoseconds")
    expect(us((await run(inNanos, { timestampUnit: "us" })).profile.deviceBusySeconds)).toBe(122_000)
    // displayTimeUnit alone only says how to show the trace.
    const shown = encode(
      JSON.stringify({ ...trace.members, displayTimeUnit: "ns", traceEvents: trace.events })
    )
    expect(busy((await run(shown)).profile)).toEqual(smallBusy)
  })

  it("tolerates missing fields", async () => {
    const events = trace.events.map((event) => {
      const copy: Record<string, unknown> = { ...event }
      if (event.cat === "python_function" || event.cat === "user_annotation") delete copy.args
      delete copy.pid
      return copy
    })
    events.push({ ph: "X", cat: "kernel", name: "no time at all", pid: 0, tid: 7 }, { ph: "M" }, {})
    const { profile, warnings } = await run(encode(JSON.stringify({ traceEvents: events })))
    expect(busy(profile)).toEqual(smallBusy)
    expect(warnings).toEqual(["1 device event has no ts or dur and was left out"])
  })
})

describe("other ways to find a kernel's origin", () => {
  it("uses the external id where the launch is not recorded, and says what has neither", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    trace.op("aten::extra", 30, 2, { "External id": 77 })
    trace.device("by_external_id", 143, 4, { correlation: 0, "External id": 77 })
    trace.device("orphan", 148, 6, {})
    const { profile, unattributed } = await run(trace.bytes)
    expect(busy(profile)["Block_0#2"]).toEqual([4, 0, 0])
    expect(busy(profile).unattributed!.reduce((a, b) => a + b)).toBe(6)
    expect(unattributed).toHaveLength(1)
    expect(unattributed[0]).toMatchObject({ name: "orphan (no launch record)" })
    expect(unattributed[0]!.share).toBeCloseTo(6 / 132, 12)
    expect(profile.unattributedShare).toBeCloseTo(6 / 132, 12)
    expect(us(spanOf(profile))).toBe(us(profile.stepSeconds))
  })

  it("follows forward/backward links where there are no sequence numbers", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const links = [
      [4, 77.1],
      [12, 74.1],
      [19, 66.1],
      [45, 60.1]
    ]
    for (const [id, [forward, backward]] of links.entries()) {
      trace.push({ ph: "s", cat: "fwdbwd", name: "fwdbwd", id, pid: 10, tid: 1, ts: forward })
      trace.push({ ph: "f", cat: "fwdbwd", name: "fwdbwd", id, pid: 10, tid: 2, ts: backward, bp: "e" })
    }
    const stripped = trace.json.replace(/"Sequence number":\d+,?/gu, "")
    const { profile, unattributed } = await run(encode(stripped))
    expect(unattributed).toEqual([])
    expect(busy(profile)["Block_0.Linear_0"]!.slice(0, 2)).toEqual([10, 20])
    expect(busy(profile)["Block_0.Linear_1"]!.slice(0, 2)).toEqual([30, 40])
    expect(busy(profile).loss).toEqual([2, 3, 0])
  })

  it("reports backward nodes whose forward op is not in the trace", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    trace.node("StrangeBackward0", 7, 90, 3).kernel("strange", 91, 143, 5, 2)
    const { profile, unattributed } = await run(trace.bytes)
    expect(unattributed.map(({ name, seconds }) => [name, us(seconds)])).toEqual([
      ["StrangeBackward0 (no forward op)", 5]
    ])
    expect(busy(profile).unattributed).toEqual([0, 5, 0])
  })

  it("gives recomputed forward work to its module, in the backward phase", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    trace.module("Linear_1", 67.5, 2, 2).kernel("recomputed", 68, 143, 9, 2)
    const { profile } = await run(trace.bytes)
    expect(busy(profile)["Block_0.Linear_1"]!.slice(0, 2)).toEqual([30, 49])
  })

  it("counts clipping and scaling between backward and optimizer to the optimizer", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    trace.op("aten::clip", 110.5, 1).kernel("clip_scale", 110.7, 143, 26)
    const { profile } = await run(trace.bytes)
    expect(busy(profile)["Block_0.Linear_1"]![2]).toBe(us((38e-6 * 32) / 104))
  })
})

describe("less telling traces", () => {
  it("makes layers of record_function annotations where there are no modules", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const events = trace.events.filter((event) => !String(event.name).startsWith("nn.Module"))
    trace.events.splice(0, trace.events.length, ...events)
    trace.host("user_annotation", "embed", 3, 8).host("user_annotation", "head", 11.5, 20)
    const { profile } = await run(trace.bytes)
    expect(busy(profile)).toMatchObject({
      embed: [10, 20, us((12e-6 * 72) / 104)],
      head: [35, 40, us((12e-6 * 32) / 104)]
    })
    expect(profile.layers.map((layer) => layer.name)).toEqual(["embed", "head", "loss"])
  })

  it("makes layers of ops with a backward pass where there are neither, phases and the optimizer apart", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const events = trace.events.filter((event) => !String(event.name).startsWith("nn.Module"))
    trace.host("user_annotation", "## forward ##", 2, 45)
    trace.host("user_annotation", "[pl][profile]run_training_batch", 1, 190)
    const { profile, warnings } = await run(
      encode(JSON.stringify({ traceEvents: [...events, ...trace.events.slice(-2)] }))
    )
    expect(busy(profile)).toEqual({
      "aten::linear": [10, 20, us((12e-6 * 72) / 104)],
      "aten::add": [5, 0, 0],
      "aten::linear#2": [30, 40, us((12e-6 * 32) / 104)],
      "aten::cross_entropy_loss": [2, 3, 0]
    })
    expect(warnings.join()).toContain("no modules were recorded")
  })

  it("groups kernels by family where ops say nothing of the backward pass either", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const events = trace.events.filter((event) => !String(event.name).startsWith("nn.Module"))
    const stripped = JSON.stringify({ traceEvents: events }).replace(/"Sequence number":\d+,?/gu, "")
    const { profile, warnings } = await run(encode(stripped))
    expect(busy(profile)).toMatchObject({ gemm: [40, 60, expect.any(Number) as number], loss: [2, 0, 0] })
    expect(us(spanOf(profile))).toBe(us(profile.stepSeconds))
    expect(us(profile.deviceBusySeconds)).toBe(122)
    expect(warnings.join()).toContain("families of kernels")
    expect(profile.parameters).toHaveLength(3)
  })

  it("imports kernels alone", async () => {
    const trace = new ChromeTrace()
      .device("gemm_x", 5, 10)
      .device("softmax_y", 17, 3)
      .device("fused_adam", 30, 4)
    const { profile } = await run(trace.bytes)
    expect(busy(profile)).toEqual({ gemm: [10, 0, 0], softmax: [3, 0, 0], optimizer: [0, 0, 4] })
    expect(us(profile.stepSeconds)).toBe(29)
  })

  it("keeps the optimizer as a layer where no shapes were recorded", async () => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const { profile, warnings } = await run(encode(trace.json.replaceAll("Input Dims", "Other")))
    expect(profile.parameters).toEqual([])
    expect(busy(profile).optimizer).toEqual([0, 0, 12])
    expect(warnings.join()).toContain("record_shapes")
  })

  it("divides a trace without marks at its optimizer steps", async () => {
    const trace = smallStep(smallStep(new ChromeTrace(), 0, 50), 200, 60)
    const events = trace.events.filter((event) => !String(event.name).startsWith("ProfilerStep"))
    const { profile, warnings } = await run(encode(JSON.stringify({ traceEvents: events })))
    expect(profile.steps).toBe(2)
    expect(busy(profile)).toEqual(smallBusy)
    expect(warnings.join()).toContain("optimizer steps divide")
  })

  it("leaves out what was launched before the first step, and says so", async () => {
    const trace = smallStep(new ChromeTrace().kernel("warm_up", 1, 2, 5), 50, 50)
    const { profile, warnings } = await run(trace.bytes)
    expect(busy(profile)).toEqual(smallBusy)
    expect(warnings).toEqual(["1 device event was launched before the profiled steps and was left out"])
  })

  it("calls nothing an optimizer where there is none", async () => {
    // Forward work after the last backward node, as pipelines have it.
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const events = trace.events.filter((event) => !String(event.name).startsWith("Optimizer"))
    const without = JSON.stringify({ traceEvents: events }).replaceAll("multi_tensor_apply_kernel", "gemm_e")
    const { profile } = await run(encode(without))
    const phases = Object.values(busy(profile))
    expect(phases.reduce((sum, [, , optimizer]) => sum + optimizer!, 0)).toBe(0)
    expect(phases.reduce((sum, [forward]) => sum + forward!, 0)).toBe(47 + 12)
  })

  it("counts parameters once under gradient accumulation", async () => {
    const trace = new ChromeTrace()
    smallStep(trace, 0, 50)
    smallStep(trace, 200, 60)
    const marks = trace.events.filter((event) => String(event.name).startsWith("ProfilerStep"))
    marks[0]!.dur = 400
    const optimizer = trace.events.find((event) => String(event.name).startsWith("Optimizer"))!
    for (const gone of [marks[1]!, optimizer]) trace.events.splice(trace.events.indexOf(gone), 1)
    const { profile, warnings } = await run(trace.bytes)
    expect(profile.steps).toBe(1)
    expect(warnings.join()).toContain("2 backward passes per step")
    // In the first pass's layers, whose backward pass a program that goes from the last layer to the first comes to last.
    const single = await run(smallStep(new ChromeTrace(), 0, 50).bytes)
    const names = ({ layers, parameters }: Profile): ReadonlyArray<string> =>
      parameters.map(({ layer }) => layers[layer]!.name)
    expect(names(profile)).toEqual(names(single.profile))
    expect(names(profile)).toHaveLength(3)
  })
})

describe("collectives", () => {
  const ddp = (): ChromeTrace => {
    const trace = smallStep(new ChromeTrace(), 0, 50)
    const sizes = { "In msg nelems": 1000, "Out msg nelems": 1000, "Group size": 4, dtype: "Float" }
    trace.op("record_param_comms", 84, 3, { "Collective name": "allreduce", ...sizes }, 2)
    // 10 us under gemm_d (107..127), 2.5 alone before the optimizer (130), 0.5 of them after 129.5.
    trace.kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 85, 117, 12.5, 2)
    trace.device("ncclDevKernel_ReduceScatter_Sum_bf16", 150, 8, {
      correlation: 9000,
      "Collective name": "_reduce_scatter_base",
      "In msg nelems": 400,
      "Out msg nelems": 100,
      "Group size": 4,
      dtype: "BFloat16"
    })
    return trace.host("cuda_runtime", "cudaLaunchKernelExC", 120, 1, { correlation: 9000 })
  }

  it("lists them with sizes and keeps them out of the layers", async () => {
    const { profile, warnings } = await run(ddp().bytes)
    expect(profile.collectives.map((cost) => ({ ...cost, medianSeconds: us(cost.medianSeconds) }))).toEqual([
      { op: "all_reduce", ranks: 4, sizeBytes: 4000, medianSeconds: 12.5, link: "as recorded" },
      { op: "reduce_scatter", ranks: 4, sizeBytes: 200, medianSeconds: 8, link: "as recorded" }
    ])
    expect(busy(profile)).toEqual(smallBusy)
    // 2.5 us and 8 us of collectives ran while no kernel did.
    expect(us(profile.stepSeconds)).toBe(189 - 10.5)
    expect(us(spanOf(profile))).toBe(189 - 10.5)
    expect(warnings.join()).toContain("collectives ran alone")
  })

  it.each([
    ["Float8_e4m3fnuz", 1],
    ["UInt16", 2],
    ["c10::BFloat16", 2],
    ["torch.float32", 4],
    ["ComplexDouble", 16]
  ])("reads sizes of %s", async (dtype, bytes) => {
    const { profile } = await run(encode(ddp().json.replaceAll('"Float"', JSON.stringify(dtype))))
    expect(profile.collectives[0]).toMatchObject({ op: "all_reduce", sizeBytes: 1000 * bytes })
  })

  it("names those without a size by the kernel, whatever namespace it is in", async () => {
    const name = "void (anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(c10::BFloat16*)"
    const text = ddp()
      .json.replaceAll("msg nelems", "other")
      .replace("ncclDevKernel_AllReduce_Sum_f32_RING_LL", name)
    const { warnings } = await run(encode(text))
    expect(warnings.join()).toContain(
      "not in the profile: multimem_all_reduce_kernel, ncclDevKernel_ReduceScatter"
    )
  })

  it("do not suspect a normalisation of communicating", async () => {
    const text = ddp().json.replaceAll("gemm_d", "void groupnorm_kernel_dispatch_down<float, 1024u>(float*)")
    expect((await run(encode(text))).warnings.join()).not.toContain("may communicate")
  })

  it("says which have no size", async () => {
    const { profile, warnings } = await run(encode(ddp().json.replaceAll("msg nelems", "other")))
    expect(profile.collectives).toEqual([])
    expect(warnings.join()).toContain("2 collectives have no recorded size")
  })
})

describe("bad input", () => {
  const trace = smallStep(new ChromeTrace(), 0, 50)
  const withEvent = (event: unknown): Uint8Array =>
    encode(JSON.stringify({ ...trace.members, traceEvents: [...trace.events, event] }))
  const last = `traceEvents[${trace.events.length}]`

  it.each([
    ["an empty file", new Uint8Array(0), "content", "empty"],
    ["no JSON", encode("<html>"), "content", "<"],
    ["another JSON", encode('{"a": 1}'), "traceEvents", "missing"],
    ["events that are no array", encode('{"traceEvents": 3}'), "traceEvents", "3"],
    ["broken JSON inside", encode('{"traceEvents": [{"a": tru}]}'), "traceEvents[0]", "tru"],
    [
      "a file cut inside an event",
      trace.bytes.subarray(0, trace.bytes.length - 9),
      `traceEvents[${trace.events.length - 1}]`,
      "cut short"
    ],
    ["truncated gzip", gzipSync(trace.bytes).subarray(0, 400), "content", "gzip cut short"],
    ["damaged gzip", gzipSync(trace.bytes).fill(7, 60, 90), "content", "gzip"],
    ["no device events", encode('{"traceEvents": []}'), "traceEvents", "no device events"],
    [
      "another device's events",
      encode(
        '{"traceEvents": [{"ph": "X", "cat": "mtia_ccp_events", "name": "a", "ts": 1, "dur": 1}, {"ph": "s", "cat": "ac2g", "ts": 1}]}'
      ),
      "traceEvents",
      "but events of mtia_ccp_events"
    ],
    [
      "an export of before the categories",
      encode('[{"ph": "X", "name": "aten::mm", "ts": 1, "dur": 2, "pid": "CUDA functions"}]'),
      "traceEvents",
      "PyTorch before 1.8.1"
    ]
  ])("%s", async (_, bytes, field, value) => {
    const error = await failure(bytes)
    expect(error).toMatchObject({ file: "t.json", field })
    expect(error.value).toContain(value)
    expect(error.message).not.toContain("\n")
  })

  it("an export after the profiler began anew is told from a trace without the device", async () => {
    const synchronise = {
      ph: "X",
      cat: "cuda_runtime",
      name: "cudaDeviceSynchronize",
      pid: 1,
      tid: 1,
      ts: 1,
      dur: 5
    }
    const op = { ph: "X", cat: "cpu_op", name: "aten::mm", pid: 1, tid: 1, ts: 1, dur: 5 }
    const accepted = async (...traceEvents: ReadonlyArray<object>) =>
      (await failure(encode(JSON.stringify({ traceEvents })))).accepted
    expect(await accepted(synchronise)).toContain("repeat=1")
    expect(await accepted(synchronise, op)).toContain("recorded with ProfilerActivity.CUDA")
    expect(await accepted()).toContain("recorded with ProfilerActivity.CUDA")
  })

  it.each([
    ["an event that is no object", 7, `${last} is 7, not an object`],
    ["a time that is no number", { ph: "X", cat: "kernel", ts: "now", dur: 1 }, `${last}.ts is now`],
    ["a negative duration", { ph: "X", cat: "kernel", ts: 1, dur: -2 }, `${last}.dur is -2`],
    ["arguments that are no object", { ph: "X", cat: "cpu_op", ts: 1, args: [] }, `${last}.args is []`]
  ])("%s is left out, and told", async (_, event, told) => {
    const { profile, warnings } = await run(withEvent(event))
    expect(busy(profile)).toEqual(smallBusy)
    expect(warnings.join()).toContain(`1 event has a value that is none and was left out, the first: ${told}`)
  })

  it("refuses a trace of which much is broken", async () => {
    const text = trace.json.replace(/"dur":/gu, '"dur":-').replaceAll("-0.5", "0.5")
    expect(await failure(encode(text))).toMatchObject({ field: "traceEvents[0].dur" })
    const broken = trace.json.replace(/"name":"(?:gemm|aten)/gu, '"name":"x"y')
    expect((await failure(encode(broken))).accepted).toContain("valid JSON")
  })

  it("refuses an un-profiled step shorter than the device's work", async () => {
    expect((await failure(trace.bytes, { unprofiledStepSeconds: 100e-6 })).field).toBe("unprofiled step time")
    const { profile } = await run(trace.bytes, { unprofiledStepSeconds: 150e-6 })
    expect(profile.unprofiledStepSeconds).toBe(150e-6)
  })

  it("warns of an un-profiled step longer than the profiled one, as of a forgotten unit", async () => {
    const { profile, warnings } = await run(trace.bytes, { unprofiledStepSeconds: 150e-6 })
    expect(warnings.filter((warning) => warning.includes("without the profiler"))).toEqual([])
    const forgotten = await run(trace.bytes, { unprofiledStepSeconds: profile.stepSeconds * 1000 })
    expect(forgotten.warnings.join("\n")).toMatch(
      /step time without the profiler, .* is longer than with it/u
    )
  })
})

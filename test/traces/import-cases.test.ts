// Small made-up traces, one for each kind of thing that public ones were seen to hold. All are 00-reference with one thing
// wrong or odd: two steps of 950 us, the device busy for 550 of them, a million parameters.
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { importKineto, importKinetoFile, importKinetoFiles, type ImportReport } from "../../traces/index.ts"
import { fixture, refusal } from "./imported.ts"

const run = (name: string): Promise<ImportReport> => Effect.runPromise(importKinetoFile(fixture(name)))
const refused = (name: string) => refusal(importKinetoFile(fixture(name)))

const us = (seconds: number): number => Math.round(seconds * 1e9) / 1e3
const phases = ["forward", "backward", "optimizer"] as const
const figures = ({ profile }: ImportReport) => ({
  steps: profile.steps,
  step: us(profile.stepSeconds),
  busy: us(profile.deviceBusySeconds),
  phases: phases.map((phase) => us(profile.layers.reduce((sum, layer) => sum + layer[phase].busySeconds, 0))),
  parameters: profile.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
})

const whole = { steps: 2, step: 950, busy: 550, phases: [200, 300, 50], parameters: 1_000_000 }

describe("a trace", () => {
  it.each([
    ["00-reference", whole, ""],
    ["01-stub-step", { ...whole, steps: 1, step: 900 }, "empty ProfilerStep mark"],
    [
      "02-kernels-before-window",
      whole,
      "5 device events were launched before the profiled steps and were left out"
    ],
    ["03-no-shapes", { ...whole, parameters: 0 }, "record_shapes=False"],
    [
      "04-inference",
      { ...whole, busy: 200, phases: [200, 0, 0], parameters: 0 },
      "no gradients were recorded"
    ],
    ["06-capital-categories", whole, "families of kernels"],
    ["07-quotes-in-name", whole, "1 event is no JSON and was left out, the first traceEvents[26]"],
    ["07b-quote-odd", whole, "1 event is no JSON and was left out, the first traceEvents[26]"],
    ["08-control-char", whole, "1 events hold what JSON does not know"],
    ["09-nan-arg", whole, "1 events hold what JSON does not know"],
    [
      "10-kernel-before-launch",
      { ...whole, step: 825, busy: 450, phases: [100, 300, 50] },
      "1 of 26 events have no time, or one far from all others"
    ],
    ["11-negative-duration", whole, "traceEvents[26].dur is -7"],
    ["12-phase-annotations", whole, "all parameters are in one layer"],
    ["14-empty-device", whole, ""],
    ["15-one-mark-many-steps", { ...whole, steps: 4, step: 975 }, "holds 4 optimizer steps"],
    ["18-bad-member", whole, "INFO beside the events is no JSON"],
    ["19-two-ranks-merged", whole, "holds traces of 2 processes"]
  ])("%s", async (name, expected, warning) => {
    const report = await run(`${name}.json`)
    expect(figures(report)).toEqual(expected)
    expect(report.warnings.join("\n")).toContain(warning)
  })

  type Event = Record<string, unknown>
  /** The reference with each event changed, whatever its file looks like then. */
  const changed = (
    change: (event: Event) => Event,
    write: (trace: { traceEvents: ReadonlyArray<Event> }) => string = (trace) => JSON.stringify(trace)
  ) => {
    const trace = JSON.parse(readFileSync(fixture("00-reference.json"), "utf8")) as {
      traceEvents: ReadonlyArray<Event>
    }
    const text = write({ ...trace, traceEvents: trace.traceEvents.map((event) => change({ ...event })) })
    return Effect.runPromise(importKineto(Buffer.from(text)))
  }
  const scaled = (by: number) => (event: Event) => ({
    ...event,
    ts: Number(event["ts"]) * by,
    ...(event["dur"] === undefined ? {} : { dur: Number(event["dur"]) * by })
  })

  it("is the same in any order, form and writing of it", async () => {
    const as = (write: Parameters<typeof changed>[1]) => changed((event) => event, write)
    for (const [name, report] of [
      ["reversed", as((trace) => JSON.stringify({ traceEvents: trace.traceEvents.toReversed() }))],
      ["with a comma too many", as((trace) => `${JSON.stringify(trace).slice(0, -2)},]}`)],
      [
        "bare and unclosed",
        as(({ traceEvents }) => `[${traceEvents.map((each) => JSON.stringify(each)).join()}`)
      ],
      ["indented, CRLF", as((trace) => JSON.stringify(trace, null, 4).replaceAll("\n", "\r\n"))],
      ["with a mark", as((trace) => `\uFEFF${JSON.stringify(trace)}`)],
      [
        "numbers as texts",
        changed((event) => ({ ...event, ts: String(event["ts"]), dur: String(event["dur"]) }))
      ],
      ["torch.bfloat16", as((trace) => JSON.stringify(trace).replaceAll('"float"', '"torch.bfloat16"'))],
      ["Half", as((trace) => JSON.stringify(trace).replaceAll('"float"', '"c10::Half"'))]
    ] as const) {
      const found = await report
      expect(figures(found), name).toEqual(whole)
      const dtype = { "torch.bfloat16": "bfloat16", Half: "float16" }[name as string] ?? "float32"
      expect(found.profile.parameters[0]!.dtype, name).toBe(dtype)
    }
  })

  it("of nanoseconds since 1970 keeps each of them; of milliseconds it is said", async () => {
    // As a program prints whole numbers: their digits are more than a float64 has.
    const digits = /"ts":"(\d+)"/gu
    const from = 1_700_000_000_000_000_123n
    const exact = await changed(
      (event) => ({
        ...event,
        ts: String(BigInt(Number(event["ts"]) * 1000) + from),
        dur: Number(event["dur"]) * 1000
      }),
      (trace) => JSON.stringify(trace).replaceAll(digits, '"ts":$1')
    )
    expect(figures(exact)).toEqual(whole)
    expect(exact.warnings.join()).toContain("of the size of nanoseconds since 1970")
    const short = await changed(scaled(1e-3))
    expect(short.warnings.join()).toMatch(/median device event lasts 0\.20 us, less than any kernel/u)
  })

  it("without a device's name has an unknown one", async () => {
    expect((await run("14-empty-device.json")).profile.device).toBe("unknown")
  })

  it("whose times are missing in half is refused", async () => {
    const { field, value } = await refused("16-zero-times.json")
    expect(field).toBe("ts")
    expect(value).toContain("10 of 26 events have no time")
  })

  it("does not take phases for layers", async () => {
    const { profile } = await run("12-phase-annotations.json")
    expect(profile.layers.map(({ name }) => name)).toEqual(["aten::linear"])
  })
})

describe("what communicates", () => {
  it.each([
    ["05a", ["expert"]],
    // One-sided transfers are of no kind of parallel run alone.
    ["05b", []],
    ["05d", []],
    ["05f", []]
  ] as const)("%s is no layer's, though its name has no nccl", async (name, parallelism) => {
    const report = await run(`${name}-comm-kernel.json`)
    // 200 us behind the last kernel, while nothing else ran.
    expect(figures(report)).toEqual({ ...whole, step: 750 })
    const { kernels, ...times } = report.communication!
    expect(kernels).toBe(1)
    expect(us(times.computeSeconds)).toBe(550)
    expect(us(times.unionSeconds)).toBe(200)
    expect(us(times.exposedSeconds)).toBe(200)
    expect(us(times.overlappedSeconds)).toBe(0)
    expect(report.warnings.join("\n")).toContain("2 collectives have no recorded size")
    expect(report.parallelism).toEqual(parallelism)
  })

  it("has its size on the annotation around it, in PyTorch up to 2.2", async () => {
    const report = await run("13-collective-annotation.json")
    expect(figures(report)).toMatchObject({ busy: 550, phases: [200, 300, 50] })
    expect(report.profile.collectives).toEqual([
      {
        op: "all_to_all",
        ranks: 8,
        sizeBytes: 16_384,
        medianSeconds: expect.closeTo(1e-4, 12),
        link: "as recorded"
      }
    ])
    expect(report.parallelism).toEqual([])
  })
})

describe("several ranks", () => {
  it("in one file are one profile, with each rank's times", async () => {
    const { ranks } = await run("19-two-ranks-merged.json")
    expect(ranks!.map(({ rank, steps, deviceBusySeconds }) => [rank, steps, us(deviceBusySeconds)])).toEqual([
      [0, 2, 550],
      [1, 2, 550]
    ])
  })

  it("in several files too", async () => {
    const files = ["00-reference.json", "01-stub-step.json"].map(fixture) as [string, string]
    const report = await Effect.runPromise(importKinetoFiles(files))
    expect(report.ranks).toHaveLength(2)
    expect(us(report.profile.deviceBusySeconds)).toBe(550)
    expect(report.profile.parameters).toHaveLength(1)
  })
})

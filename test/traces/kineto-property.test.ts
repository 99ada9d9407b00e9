// Generated traces, whose attribution is known because it was drawn first; and damaged ones, which must be refused
// politely or read.
import * as fc from "fast-check"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import * as Result from "effect/Result"
import { readFileSync } from "node:fs"
import { gunzipSync, gzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import { decodeProfile, encodeProfile, importKineto, TraceError, totalSeconds } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

/** What a module does, in order: launch a kernel itself, or call another module. */
type Work =
  { readonly kernel: number; readonly backward: number | undefined } | { readonly call: ReadonlyArray<Work> }

const { work } = fc.letrec<{ work: ReadonlyArray<Work> }>((tie) => ({
  work: fc.array(
    fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.record({
        kernel: fc.integer({ min: 1, max: 50 }),
        backward: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined })
      }),
      fc.record({ call: tie("work") })
    ),
    { maxLength: 5 }
  )
}))

interface Drawn {
  readonly trace: ChromeTrace
  /** Device microseconds by module (or "" for none) and phase. */
  readonly expected: Map<string, number>
  /** Of the whole trace. */
  readonly intervals: Array<readonly [number, number]>
  readonly kernels: number
}

/** One or more steps of a model; kernels follow each other with the gaps given (negative: they overlap). */
const draw = (model: ReadonlyArray<Work>, gaps: ReadonlyArray<number>, steps: number): Drawn => {
  const trace = new ChromeTrace()
  const expected = new Map<string, number>()
  const intervals: Array<readonly [number, number]> = []
  let host = 0
  let device = 5
  let kernels = 0
  let sequence = 0
  const launch = (owner: string, phase: string, length: number, thread: number): void => {
    const gap = gaps[kernels % gaps.length]!
    const start = Math.max(device + gap, intervals.at(-1)?.[0] ?? 0)
    // Work that overlaps other work is on a stream of its own.
    trace.kernel(`kernel_${kernels}`, host, start, length, thread, { stream: kernels++ })
    host += 1
    device = Math.max(device, start + length)
    intervals.push([start, start + length])
    expected.set(`${owner} ${phase}`, (expected.get(`${owner} ${phase}`) ?? 0) + length)
  }
  for (let step = 0; step < steps; step++) {
    const from = host
    const pending: Array<{ owner: string; sequence: number; length: number }> = []
    let modules = 0
    const run = (owner: string, list: ReadonlyArray<Work>): void => {
      for (const item of list) {
        host += 1
        if ("call" in item) {
          const name = `M_${modules++}`
          const entered = host
          host += 1
          run(name, item.call)
          host += 1
          trace.module(name, entered, host - entered)
        } else {
          trace.op("aten::op", host, 1.5, { "Sequence number": sequence })
          host += 0.25
          launch(owner, "forward", item.kernel, 1)
          host += 1
          if (item.backward !== undefined) pending.push({ owner, sequence, length: item.backward })
          sequence++
        }
      }
    }
    run("", model)
    host += 5
    for (const { owner, sequence: own, length } of pending.toReversed()) {
      trace.node("OpBackward0", own, host, 3)
      host += 1
      launch(owner, "backward", length, 2)
      host += 3
    }
    host += 5
    trace.host("user_annotation", `ProfilerStep#${step}`, from, host - from)
    host += 1
    device = Math.max(device, host)
  }
  return { trace, expected, intervals, kernels }
}

const unionOf = (intervals: ReadonlyArray<readonly [number, number]>): number => {
  // By counting unit slots: as unlike the importer's sweep as can be. Times are whole quarters.
  const slots = new Set<number>()
  for (const [from, to] of intervals)
    for (let slot = Math.round(from * 4); slot < Math.round(to * 4); slot++) slots.add(slot)
  return slots.size / 4
}

const owner = (name: string): string =>
  /^M_\d/u.test(name) ? name.replace(/#\d+$/u, "").replace(/^.*\./u, "") : ""

const models = fc.tuple(work, fc.integer({ min: 1, max: 3 }))

describe("a generated trace", () => {
  it("has each layer's time in the phase that was drawn, when kernels do not overlap", async () => {
    let nested = 0
    let several = 0
    await fc.assert(
      fc.asyncProperty(
        models,
        fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 5 }),
        async ([model, steps], gaps) => {
          const { trace, expected, kernels } = draw(model, gaps, steps)
          fc.pre(kernels > 0 && [...expected.keys()].some((key) => key.startsWith("M_")))
          if (trace.json.includes("M_3")) nested++
          if (steps > 1) several++
          const { profile, unattributed } = await Effect.runPromise(importKineto(trace.bytes))
          expect(unattributed).toEqual([])
          const found = new Map<string, number>()
          for (const layer of profile.layers) {
            for (const phase of ["forward", "backward"] as const) {
              const microseconds = layer[phase].busySeconds * 1e6 * steps
              const key = `${owner(layer.name)} ${phase}`
              if (microseconds > 0) found.set(key, (found.get(key) ?? 0) + microseconds)
            }
          }
          // Work after the backward pass that is in no module counts to the optimizer; none is drawn.
          expect([...found.keys()].toSorted()).toEqual([...expected.keys()].toSorted())
          for (const [key, microseconds] of expected) expect(found.get(key)).toBeCloseTo(microseconds, 6)
        }
      ),
      { numRuns: 150 }
    )
    expect(nested).toBeGreaterThan(10)
    expect(several).toBeGreaterThan(30)
  })

  it("is covered exactly: busy times add up to the union of kernels, spans tile the steps", async () => {
    let overlapping = 0
    await fc.assert(
      fc.asyncProperty(
        models,
        fc.array(fc.integer({ min: -20, max: 9 }), { minLength: 1, maxLength: 5 }),
        async ([model, steps], gaps) => {
          const { trace, intervals, kernels } = draw(model, gaps, steps)
          fc.pre(kernels > 0)
          const { profile } = await Effect.runPromise(importKineto(trace.bytes))
          const union = unionOf(intervals)
          if (union < intervals.reduce((sum, [from, to]) => sum + to - from, 0)) overlapping++
          const { busySeconds, spanSeconds } = totalSeconds(profile.layers)
          expect(busySeconds * 1e6 * steps).toBeCloseTo(union, 6)
          expect(profile.deviceBusySeconds * 1e6 * steps).toBeCloseTo(union, 6)
          const first = Math.min(...intervals.map(([from]) => from))
          const marks = trace.events.filter(({ name }) => String(name).startsWith("ProfilerStep"))
          const hostEnd = Math.max(...marks.map(({ ts, dur }) => Number(ts) + Number(dur)))
          const last = Math.max(hostEnd, ...intervals.map(([, to]) => to))
          expect(spanSeconds * 1e6 * steps).toBeCloseTo(last - first, 6)
          expect(profile.stepSeconds * 1e6 * steps).toBeCloseTo(last - first, 6)
          for (const layer of profile.layers) {
            for (const phase of [layer.forward, layer.backward, layer.optimizer]) {
              expect(phase.spanSeconds).toBeGreaterThanOrEqual(phase.busySeconds)
            }
          }
        }
      ),
      { numRuns: 150 }
    )
    expect(overlapping).toBeGreaterThan(20)
  })
})

// ---- damage

// Spread over the whole file: small numbers, which generators favour, would all fall on its head.
const anywhere = fc.nat().map((n) => ((n * 2_654_435_761) % 2 ** 32) / 2 ** 32)

/** Any mutation of bytes a disk, an editor or a network may do. */
const damage = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("cut" as const), at: anywhere }),
    fc.record({
      kind: fc.constant("byte" as const),
      at: anywhere,
      value: fc.nat({ max: 255 })
    }),
    fc.record({
      kind: fc.constant("drop" as const),
      at: anywhere,
      length: fc.integer({ min: 1, max: 300 })
    }),
    fc.record({
      kind: fc.constant("repeat" as const),
      at: anywhere,
      length: fc.integer({ min: 1, max: 300 })
    })
  ),
  { minLength: 1, maxLength: 3 }
)

const damaged = (
  bytes: Uint8Array,
  changes: typeof damage extends fc.Arbitrary<infer A> ? A : never
): Uint8Array => {
  // Not `slice`: that of a Buffer is a view, and damage would add up from run to run.
  let now: Uint8Array = new Uint8Array(bytes)
  for (const change of changes) {
    const at = Math.floor(change.at * now.length)
    if (change.kind === "cut") now = now.slice(0, at)
    else if (change.kind === "byte") {
      if (at < now.length) now[at] = change.value
    } else {
      const rest = now.subarray(change.kind === "drop" ? at + change.length : at)
      const head = now.subarray(0, change.kind === "drop" ? at : Math.min(now.length, at + change.length))
      now = Buffer.concat([head, rest])
    }
  }
  return now
}

/** "read" or "refused"; anything else fails the test with what was thrown. */
const outcome = async (bytes: Uint8Array): Promise<"read" | "refused"> => {
  const exit = await Effect.runPromiseExit(importKineto(bytes, { file: "f" }))
  if (Exit.isSuccess(exit)) {
    // What was read is a profile: it can be written and read again.
    expect(() => decodeProfile("p", encodeProfile("p", exit.value.profile))).not.toThrow()
    return "read"
  }
  const error = Cause.findError(exit.cause)
  if (!Result.isSuccess(error) || !(error.success instanceof TraceError))
    throw new Error(Cause.pretty(exit.cause))
  return "refused"
}

describe("a damaged trace", () => {
  const small = smallStep(smallStep(new ChromeTrace(), 0, 50), 200, 60)

  it("is read or refused with a TraceError, never anything else", async () => {
    const seen = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(damage, fc.boolean(), async (changes, zipped) => {
        seen[await outcome(damaged(zipped ? gzipSync(small.bytes) : small.bytes, changes))]++
      }),
      { numRuns: 600 }
    )
    expect(seen.read).toBeGreaterThan(20)
    expect(seen.refused).toBeGreaterThan(100)
  })

  it("may hold any value anywhere", async () => {
    const values = [null, -1, 0, 1e308, -1e308, 1e19, "", "x", "12", [], [[]], {}, true, 2 ** 53, 0.1]
    const seen = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), fc.nat(), fc.boolean(), fc.constantFrom(...values)), {
          minLength: 1,
          maxLength: 6
        }),
        async (changes) => {
          const { members, events } = JSON.parse(
            JSON.stringify({ members: small.members, events: small.events })
          ) as {
            members: Record<string, unknown>
            events: Array<Record<string, unknown>>
          }
          // Half of the traces are hit hard: a few odd values are left out, many refused.
          const hits = changes.length > 3 ? events.keys() : [0]
          for (const shift of hits) {
            for (const [event, key, inArgs, value] of changes) {
              const target = events[(event + shift) % events.length]!
              const args: unknown = target.args
              const place =
                inArgs && typeof args === "object" && args !== null
                  ? (args as Record<string, unknown>)
                  : target
              const keys = Object.keys(place)
              if (keys.length > 0) place[keys[key % keys.length]!] = structuredClone(value)
            }
          }
          const text = JSON.stringify({ ...members, traceEvents: events })
          seen[await outcome(new TextEncoder().encode(text))]++
        }
      ),
      { numRuns: 600 }
    )
    expect(seen.read).toBeGreaterThan(50)
    expect(seen.refused).toBeGreaterThan(50)
  })

  it("is treated so when it is a real one, too", async () => {
    const file = readFileSync(new URL("../fixtures/traces/resnet18-h200.pt.trace.json.gz", import.meta.url))
    const text = gunzipSync(file)
    const seen = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(damage, fc.boolean(), async (changes, zipped) => {
        seen[await outcome(damaged(zipped ? file : text, changes))]++
      }),
      { numRuns: 40 }
    )
    expect(seen.refused).toBeGreaterThan(5)
  })
})

describe("a damaged profile", () => {
  const bytes = readFileSync(new URL("../../traces/profiles/resnet18-h200.arrow", import.meta.url))
  const outcomes = (content: Uint8Array): "read" | "refused" => {
    try {
      decodeProfile("p", content)
      return "read"
    } catch (cause) {
      if (!(cause instanceof TraceError)) throw cause
      return "refused"
    }
  }

  it("is read or refused with a TraceError, never anything else", () => {
    fc.assert(
      fc.property(damage, (changes) => {
        outcomes(damaged(bytes, changes))
      }),
      { numRuns: 300 }
    )
  })

  it("whose bytes are in place but wrong, too, and without delay", () => {
    // Metadata lies at both ends and between the columns; a wrong length there once kept the reader busy for hours.
    const flips = fc.array(fc.tuple(anywhere, fc.nat({ max: 255 })), { minLength: 1, maxLength: 3 })
    const ends = flips.map((changes) =>
      changes.map(([at, value]) => [at < 0.5 ? at / 8 : 1 - at / 8, value] as const)
    )
    const seen = { read: 0, refused: 0 }
    fc.assert(
      fc.property(fc.oneof(flips, ends), (changes) => {
        const content = new Uint8Array(bytes)
        for (const [at, value] of changes) content[Math.floor(at * content.length)] = value
        seen[outcomes(content)]++
      }),
      { numRuns: 1500 }
    )
    expect(seen.read).toBeGreaterThan(100)
    expect(seen.refused).toBeGreaterThan(100)
  })
})

// Events of other phases than whole ones (ph X), in traces of torch.profiler's manner: pairs of begin and end come to what whole events do,
// and whatever lasts and is not read is told or refused, never left out in silence.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { importKineto, type ImportReport, type TraceError } from "../../traces/index.ts"
import { ChromeTrace, smallStep } from "./chrome-trace.ts"

type Written = Record<string, unknown>
interface Event extends Written {
  readonly ts: number
  readonly dur: number
}

const whole = smallStep(smallStep(smallStep(new ChromeTrace(), 0, 50), 200, 60), 400, 70)
const events = whole.events as unknown as ReadonlyArray<Event>

const imported = (changed: ReadonlyArray<Written>) => {
  const text = JSON.stringify({ ...whole.members, traceEvents: changed })
  return Effect.runPromise(
    Effect.result(importKineto(new TextEncoder().encode(text), { file: "t.json", name: "t" }))
  )
}

const report = async (changed: ReadonlyArray<Written>): Promise<ImportReport> => {
  const result = await imported(changed)
  if (Result.isFailure(result)) throw result.failure
  return result.success
}

const refused = async (changed: ReadonlyArray<Written>): Promise<TraceError> => {
  const result = await imported(changed)
  if (Result.isSuccess(result)) throw new Error("imported without an error")
  return result.failure as TraceError
}

/** Some events as pairs, in the order of their times: ends before begins, the outer begin first. */
const inPairs = (
  isPair: (event: Event, index: number) => boolean,
  {
    begin = "B",
    end = "E",
    argsAt = "begin",
    named = false
  }: { begin?: string; end?: string; argsAt?: "begin" | "end" | "both"; named?: boolean } = {}
): ReadonlyArray<Written> =>
  events
    .flatMap((event, i): ReadonlyArray<{ at: number; first: number; inner: number; event: Written }> => {
      const { dur, args, cat, name, ...place } = event
      if (!isPair(event, i)) return [{ at: event.ts, first: 1, inner: -dur, event }]
      const says = (at: string) => (argsAt === at || argsAt === "both" ? { args } : {})
      const over = { ...place, ...(named ? { cat, name } : {}), ...says("end"), ph: end, ts: event.ts + dur }
      return [
        { at: event.ts, first: 1, inner: -dur, event: { cat, name, ...place, ...says("begin"), ph: begin } },
        { at: event.ts + dur, first: 0, inner: -event.ts, event: over }
      ]
    })
    .toSorted((a, b) => a.at - b.at || a.first - b.first || a.inner - b.inner)
    .map(({ event }) => event)

describe("begins and ends", () => {
  it("come to what whole events do, whichever events are given so", async () => {
    const expected = await report(events)
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { minLength: events.length, maxLength: events.length }),
        fc.constantFrom("begin", "end", "both"),
        fc.boolean(),
        async (isPair, argsAt, named) => {
          const found = await report(inPairs((_, i) => isPair[i]!, { argsAt, named }))
          expect(found.profile).toEqual(expected.profile)
          const pairs = isPair.filter((yes) => yes).length
          expect(found.warnings).toHaveLength(pairs === 0 ? 0 : 1)
          if (pairs > 0)
            expect(found.warnings[0]).toContain(`${pairs} events are given as a begin and an end`)
        }
      )
    )
  })

  it("are refused where they cannot be paired", async () => {
    const all = inPairs(() => true, { named: true })
    expect(await refused(all.toReversed())).toMatchObject({
      field: "traceEvents[2].ts",
      value: expect.stringContaining("before that of an earlier begin or end")
    })
    const last = all.findLastIndex(({ ph }) => ph === "E")
    expect(await refused(all.with(last, { ...all[last], name: "another" }))).toMatchObject({
      field: `traceEvents[${last}]`,
      value: expect.stringContaining('the end of "another", where')
    })
    expect(await refused(inPairs(() => true).filter(({ ph }) => ph !== "E"))).toMatchObject({
      value: expect.stringContaining(`${events.length} begins without an end`),
      accepted: expect.stringContaining("whole events (ph X)")
    })
  })

  it("are told where few of them are alone, and nobody's concern where another program wrote them", async () => {
    const { profile } = await report(events)
    const alone = { ph: "B", cat: "user_annotation", name: "a", pid: 10, tid: 9, ts: 1 }
    const found = await report([...events, alone])
    expect(found.profile).toEqual(profile)
    expect(found.warnings).toEqual([
      "1 begin without an end and 0 ends without a begin (ph B and E) were left out"
    ])
    const other = { cat: "ftrace", name: "a", pid: 3, tid: 3 }
    const others = [7, 5, 3].flatMap((ts) => [
      { ...other, ph: "B", ts },
      { ...other, ph: "E", ts, name: "b" }
    ])
    expect(await report([...events, ...others])).toMatchObject({ profile, warnings: [] })
  })
})

const less = (event: Written, member: string): Written =>
  Object.fromEntries(Object.entries(event).filter(([key]) => key !== member))

describe("events of another phase", () => {
  it.each([
    ["asynchronous begins and ends", inPairs(({ cat }) => cat === "kernel", { begin: "b", end: "e" }), "b"],
    ["those of the host", inPairs(({ cat }) => cat === "cpu_op", { begin: "b", end: "e" }), "b"],
    ["the older kind", inPairs(({ cat }) => cat === "kernel", { begin: "S", end: "F" }), "S"],
    ["no phase", events.map((event) => less(event, "ph")), "missing"],
    ["a small x", events.map((event) => ({ ...event, ph: "x" })), "x"],
    ["a word", events.map((event) => ({ ...event, ph: "Complete" })), "Complete"]
  ])("are refused where they are many: %s", async (_, changed, value) => {
    const error = await refused(changed)
    expect(error).toMatchObject({ value, accepted: expect.stringContaining("X, a whole event, or B and E") })
    expect(error.field).toMatch(/^traceEvents\[\d+\]\.ph$/u)
  })

  it("are told where they are few", async () => {
    const { warnings } = await report(
      inPairs(({ name }) => String(name).startsWith("ProfilerStep"), { begin: "b", end: "e" })
    )
    expect(warnings.join("\n")).toContain("3 events were left out, the first traceEvents[0]: ph is b")
  })

  it("are not missed where they are moments, counters, flows or metadata", async () => {
    const { profile } = await report(events)
    const moments = [..."iICnstfMPNODRcvV"].map((ph) => ({
      ph,
      cat: "cpu_op",
      name: "a",
      pid: 10,
      tid: 1,
      ts: 1
    }))
    expect(await report([...events, ...moments])).toMatchObject({ profile, warnings: [] })
  })
})

describe("events without a time", () => {
  const without = (member: string, cat: string, from = 0): ReadonlyArray<Written> => {
    let seen = 0
    return events.map((event) => {
      if (event["cat"] !== cat || seen++ < from) return event
      return less(event, member)
    })
  }

  it.each(["ts", "dur"])(
    "are refused as such where they are many of the device's, not as no device: %s",
    async (member) => {
      expect(await refused(without(member, "kernel"))).toMatchObject({
        value: "27 of 27 device events without ts or dur"
      })
    }
  )

  it("are told where they are few, or the host's", async () => {
    expect((await report(without("dur", "kernel", 26))).warnings.join()).toContain(
      "1 device event has no ts or dur and was left out"
    )
    expect((await report(without("dur", "cpu_op"))).warnings).toEqual([
      "57 host events have no dur and are taken for moments"
    ])
    expect((await report(without("ts", "cpu_op", 55))).warnings.join()).toContain(
      "2 host events have no ts and were left out"
    )
  })
})

// Where requests come from: recorded traces, and a seeded process.
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { drawRequests, exponential } from "../../core/algorithms/kv-serving/arrivals.ts"
import { Random } from "../../core/random.ts"
import { parseRequestTrace } from "../../traces/requests/request-trace.ts"
import { TraceError } from "../../traces/trace-error.ts"

const fixture = (name: string) => {
  const file = new URL(`../fixtures/requests/${name}`, import.meta.url).pathname
  return parseRequestTrace(name, readFileSync(file, "utf8"))
}

const refusal = (text: string): string => {
  try {
    parseRequestTrace("trace", text)
  } catch (error) {
    if (error instanceof TraceError) return error.message
    throw error
  }
  throw new Error("expected a refusal")
}

describe("a request trace", () => {
  it("of Mooncake has milliseconds and lengths, and says that prompts begin alike", () => {
    expect(fixture("mooncake.jsonl")).toEqual({
      format: "mooncake",
      sharedPrefixes: true,
      warnings: [],
      requests: [
        { arrivalSeconds: 0, promptTokens: 6755, outputTokens: 5 },
        { arrivalSeconds: 0, promptTokens: 7322, outputTokens: 4 },
        { arrivalSeconds: 3.052, promptTokens: 1200, outputTokens: 6 },
        { arrivalSeconds: 6, promptTokens: 2048, outputTokens: 3 },
        { arrivalSeconds: 9.001, promptTokens: 512, outputTokens: 0 }
      ]
    })
  })

  it("of Azure has times of day, taken from the first request on to their last digit", () => {
    const { format, requests, sharedPrefixes } = fixture("azure.csv")
    expect([format, sharedPrefixes]).toEqual(["azure", false])
    expect(requests.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens])).toEqual([
      [4808, 10],
      [3180, 8],
      [110, 27],
      [7433, 14]
    ])
    const arrivals = requests.map(({ arrivalSeconds }) => arrivalSeconds)
    for (const [index, seconds] of [0, 0.052, 0.098189, 60].entries())
      expect(arrivals[index]).toBeCloseTo(seconds, 12)
  })

  it("takes what tools write: other names, other columns, time zones, CRLF and a byte order mark", () => {
    const aliases =
      '{"created_time": 5, "input_tokens": 3, "output_tokens": 2}\r\n\r\n{"timestamp": 15, "input_length": 1, "output_length": 1}\r\n'
    expect(parseRequestTrace("t", aliases).requests).toEqual([
      { arrivalSeconds: 0, promptTokens: 3, outputTokens: 2 },
      { arrivalSeconds: 0.01, promptTokens: 1, outputTokens: 1 }
    ])
    const columns =
      "\uFEFFTIMESTAMP,NumImages,GeneratedTokens,ContextTokens\n2024-05-10 00:00:00+00:00,1,7,9\n2024-05-10T01:00:01Z,0,1,1\n2024-05-10 02:00:01+01:00,0,2,2\n"
    expect(parseRequestTrace("t", columns).requests).toEqual([
      { arrivalSeconds: 0, promptTokens: 9, outputTokens: 7 },
      { arrivalSeconds: 3601, promptTokens: 1, outputTokens: 1 },
      { arrivalSeconds: 3601, promptTokens: 2, outputTokens: 2 }
    ])
  })

  it("has its times read in their own unit, and a guess is told", () => {
    const arrivals = (text: string) => {
      const { requests, warnings, format } = parseRequestTrace("t", text)
      return { last: requests.at(-1)!.arrivalSeconds, format, warnings: warnings.join() }
    }
    const lines = (rest: string, ...times: ReadonlyArray<number>): string =>
      times.map((t) => `{"timestamp": ${t}, "input_length": 1, "output_length": 1${rest}}`).join("\n")
    // Whole seconds look like Mooncake's milliseconds, but come a thousand times as often.
    expect(arrivals(lines("", 0, 30)).warnings).toMatch(/read as milliseconds.*2 requests in 0\.0300 s/)
    expect(arrivals(lines("", 0, 3000)).warnings).toBe("")
    // Of a conversation's first or any later line, in any case.
    expect(arrivals(`${lines("", 0)}\n${lines(', "Chat_Id": 3', 30)}`)).toEqual({
      last: 30,
      format: "bailian",
      warnings: ""
    })
    const epoch = 1_700_000_000
    expect(arrivals(lines("", epoch * 1e3, epoch * 1e3 + 3000)).last).toBe(3)
    expect(arrivals(lines("", epoch * 1e6, epoch * 1e6 + 3_000_000)).last).toBe(3)
    // A table of nobody's columns: seconds, and told so; under any line ends.
    const table = arrivals("timestamp,input_length,output_length\r0,1,1\r30250,1,1\r")
    expect(table.last).toBe(30250)
    expect(table.warnings).toMatch(/\(timestamp\) are read as seconds.*timestamp_ms/)
    expect(arrivals("timestamp_ms,input_length,output_length\n0,1,1\n30250,1,1\n")).toEqual({
      last: 30.25,
      format: "table",
      warnings: ""
    })
  })

  it("says which column or which conversation is missing", () => {
    expect(refusal("arrived_at,num_prefill_tokens\n0,1")).toMatch(/a column of generated tokens as well/)
    expect(refusal("num_decode_tokens,arrived_at\n1,0")).toMatch(/a column of prompt tokens as well/)
    expect(refusal('[{"id": "a"}, {"conversations": []}]')).toMatch(
      /\[0\].*expected an object with conversations/
    )
  })

  it("of a serving benchmark has its single requests, or is refused and told how to record them", () => {
    const run = {
      request_throughput: 2,
      input_lens: [100, 50, 10],
      output_lens: [20, 0, 5],
      start_times: [7.5, 8, 9.75],
      errors: ["", "refused", ""]
    }
    const { format, requests, warnings } = parseRequestTrace("b.json", JSON.stringify(run, null, 2))
    expect([format, requests, warnings]).toEqual([
      "benchmark",
      [
        { arrivalSeconds: 0, promptTokens: 100, outputTokens: 20 },
        { arrivalSeconds: 2.25, promptTokens: 10, outputTokens: 5 }
      ],
      ["1 requests of b.json failed in the benchmark and were left out"]
    ])
    const told = (value: unknown) => () => parseRequestTrace("b.json", JSON.stringify(value))
    expect(told({ completed: 3, request_throughput: 2 })).toThrow(/a benchmark's summary.*--save-detailed/)
    expect(told({ ...run, start_times: undefined })).toThrow(/start_times is missing.*sglang/)
    expect(told({ ...run, start_times: [1] })).toThrow(/start_times is 1 \(and 3 input_lens/)
    const lines = `${JSON.stringify(run)}\n${JSON.stringify(run)}\n`
    expect(() => parseRequestTrace("b.jsonl", lines)).toThrow(/the results of 2 runs/)
  })

  it("that is none says in which line and what would do", () => {
    expect(refusal("")).toMatch(/line 1 is nothing; expected a Mooncake trace/)
    expect(refusal("a,b,c\n1,2,3")).toMatch(/line 1 is "a,b,c"/)
    expect(refusal('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp"\n')).toMatch(
      /line 2 is/
    )
    expect(refusal('{"timestamp": "x", "input_length": 1, "output_length": 1}')).toMatch(
      /line 1, timestamp is "x"; expected milliseconds/
    )
    expect(refusal('{"timestamp": 0, "input_length": 1.5, "output_length": 1}')).toMatch(
      /line 1, input_length is 1.5/
    )
    expect(refusal('{"timestamp": 0, "input_length": 1}')).toMatch(/line 1, output_length is missing/)
    const azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    expect(refusal(`${azure}yesterday,1,1`)).toMatch(/line 2, TIMESTAMP is "yesterday"/)
    expect(refusal(`${azure}2023-11-16 18:17:03,1`)).toMatch(/line 2 is 2 cells; expected 3 cells/)
    expect(refusal(`${azure}2023-11-16 18:17:03,1,-1`)).toMatch(/line 2, GeneratedTokens is "-1"/)
  })
})

describe("drawn requests", () => {
  const settings = {
    count: 20_000,
    prompt: { from: 10, to: 19 },
    output: 5,
    perSecond: 4,
    arrivals: "poisson"
  } as const

  it("come as a Poisson process does: gaps are exponential", () => {
    const requests = drawRequests(settings, new Random(1))
    const gaps = requests
      .slice(1)
      .map(({ arrivalSeconds }, i) => arrivalSeconds - requests[i]!.arrivalSeconds)
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length
    // Standard errors: 0.25 / sqrt(20,000), and sqrt(p (1 - p) / 20,000); four of each.
    expect(Math.abs(mean - 0.25)).toBeLessThan(0.0071)
    for (const multiple of [0.5, 1, 2, 3]) {
      const share = gaps.filter((gap) => gap > multiple * 0.25).length / gaps.length
      const expected = Math.exp(-multiple)
      expect(Math.abs(share - expected)).toBeLessThan(
        4 * Math.sqrt((expected * (1 - expected)) / gaps.length)
      )
    }
  })

  it("have lengths drawn evenly, ends included", () => {
    const counts = new Map<number, number>()
    for (const { promptTokens, outputTokens } of drawRequests(settings, new Random(2))) {
      counts.set(promptTokens, (counts.get(promptTokens) ?? 0) + 1)
      expect(outputTokens).toBe(5)
    }
    expect([...counts.keys()].toSorted((a, b) => a - b)).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19])
    for (const count of counts.values())
      expect(Math.abs(count - 2000)).toBeLessThan(4 * Math.sqrt(2000 * 0.9))
  })

  it("are the same for a seed, and lengths do not depend on the rate", () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(1, 10, Infinity), (seed, perSecond) => {
        const some = { ...settings, count: 10 }
        const one = drawRequests({ ...some, perSecond }, new Random(seed))
        expect(drawRequests({ ...some, perSecond }, new Random(seed))).toEqual(one)
        const other = drawRequests({ ...some, perSecond: 3 }, new Random(seed))
        expect(other.map(({ promptTokens }) => promptTokens)).toEqual(
          one.map(({ promptTokens }) => promptTokens)
        )
        if (perSecond === Infinity) expect(one.every(({ arrivalSeconds }) => arrivalSeconds === 0)).toBe(true)
      })
    )
    expect(exponential(new Random(3))).toBe(exponential(new Random(3)))
  })

  it("come evenly where asked to", () => {
    const requests = drawRequests({ ...settings, count: 4, arrivals: "even" }, new Random(1))
    expect(requests.map(({ arrivalSeconds }) => arrivalSeconds)).toEqual([0, 0.25, 0.5, 0.75])
  })
})

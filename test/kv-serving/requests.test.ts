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

  it("is read whatever its fields say of when: a unit, a date, a wait, or a clock of each session", () => {
    const arrivals = (text: string) =>
      parseRequestTrace("t", text).requests.map(
        ({ arrivalSeconds }) => Math.round(arrivalSeconds * 1e6) / 1e6
      )
    expect(arrivals("send_timestamp_us,prompt_len,gen_len\n500000,1,1\n2000000,1,1\n")).toEqual([0, 1.5])
    const ns = "start_time_ns,input_tokens,output_tokens\n1700000000000000000,1,1\n1700000001500000000,1,1\n"
    expect(arrivals(ns)).toEqual([0, 1.5])
    expect(arrivals("inter_arrival_time,prompt_tokens,output_tokens\n2,1,1\n0.5,1,1\n1,1,1\n")).toEqual([
      0, 0.5, 1.5
    ])
    const json = (...times: ReadonlyArray<string>) =>
      times.map((time) => `{"timestamp": ${time}, "input_length": "1", "output_length": 1}`).join(",\n")
    expect(arrivals(json('"2024-05-10T00:00:00Z"', '"2024-05-10T00:00:01.5Z"'))).toEqual([0, 1.5])
    expect(arrivals(json('"0"', '"1500"'))).toEqual([0, 1.5])
    expect(arrivals(`[${json("0", "1500")},\n]`)).toEqual([0, 1.5])
    expect(arrivals(`{"version": 1, "requests": [${json("0", "1500")}]}`)).toEqual([0, 1.5])
    // Turns of a session after waits; the answers' own time nobody knows, and that is said.
    const turns =
      "session_id,session_start_at,think_time,num_prefill_tokens,num_decode_tokens\na,10,0,1,1\na,10,2,1,1\nb,11,0,1,1\na,10,3,1,1\n"
    expect(arrivals(turns)).toEqual([0, 1, 2, 5])
    expect(parseRequestTrace("t", turns).warnings.join()).toMatch(/think_time.*as if answers took no time/u)
    const delays =
      '{"session_id": 1, "timestamp": 0, "input_length": 1, "output_length": 1}\n' +
      '{"session_id": 1, "delay": 1000, "input_length": 1, "output_length": 1}\n'.repeat(2)
    expect(arrivals(delays)).toEqual([0, 1, 2])
    const agent = (id: string) =>
      `{"id": "${id}", "requests": [{"t": 0, "in": 8, "out": 2}, {"t": 4.5, "type": "subagent", "requests": [{"t": 5.5, "in": 9, "out": 3}]}]}\n`
    const agents = parseRequestTrace("t", agent("a") + agent("b"))
    expect(agents.format).toBe("agents")
    expect(agents.requests.map((each) => Object.values(each))).toEqual([
      [0, 8, 2],
      [0, 8, 2],
      [5.5, 9, 3],
      [5.5, 9, 3]
    ])
    expect(agents.warnings.join()).toMatch(/each of 2 sessions/u)
  })

  it("of texts in place of tokens is an estimate, and has its times where it says some", () => {
    const read = (value: unknown) => parseRequestTrace("t", JSON.stringify(value))
    const chat = [
      { role: "user", content: "12345678" },
      { role: "assistant", content: "1234" }
    ]
    const timed = read([
      { timestamp: "2023-04-09T00:02:53Z", conversation: chat },
      { timestamp: "2023-04-09T00:02:55Z", conversation: chat }
    ])
    expect(timed.requests.map((each) => Object.values(each))).toEqual([
      [0, 2, 1],
      [2, 2, 1]
    ])
    expect(timed.warnings.join()).toMatch(/conversations without tokens: 4 characters/u)
    expect(read([{ messages: chat }, { timestamp: 5, messages: chat }]).warnings.join()).toMatch(
      /all requests come at once/u
    )
    const pairs = read([{ instruction: "1234", input: "5678", output: "12345" }])
    expect(pairs.requests).toEqual([{ arrivalSeconds: 0, promptTokens: 2, outputTokens: 2 }])
    const words = read([{ timestamp: 0, text_input: "12345678", output_length: 7 }])
    expect(words.requests).toEqual([{ arrivalSeconds: 0, promptTokens: 2, outputTokens: 7 }])
    expect(words.warnings.join()).toMatch(/4 characters are taken for one/u)
  })

  it("loses requests that failed, and is refused where most did", () => {
    const row = (tokens: string) => `1,5,${tokens}\n`
    const burst = "Timestamp,Request tokens,Response tokens\n"
    const { requests, warnings } = parseRequestTrace("t", burst + row("7").repeat(10) + row("") + row("7"))
    expect([requests.length, warnings]).toEqual([
      11,
      ["1 request of t says no prompt or no answer and was left out"]
    ])
    expect(refusal(burst + row("nan").repeat(3) + row("7").repeat(3))).toMatch(
      /tokens is missing of 3 of 6 requests/u
    )
    expect(
      parseRequestTrace(
        "t",
        '{"timestamp": 0, "input_length": null, "output_length": 3}\n{"timestamp": 9, "input_length": 2, "output_length": 3}'
      ).requests
    ).toHaveLength(1)
  })

  it("may stand in Markdown's table", () => {
    const table =
      "| arrived_at | input_tokens | output_tokens |\n|---|:---:|--:|\n| 0 | 10 | 2 |\n| 1.5 | 11 | 3 |\n"
    expect(parseRequestTrace("t", table).requests.map((each) => Object.values(each))).toEqual([
      [0, 10, 2],
      [1.5, 11, 3]
    ])
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
      ["1 request of b.json failed in the benchmark and was left out"]
    ])
    const told = (value: unknown) => () => parseRequestTrace("b.json", JSON.stringify(value))
    expect(told({ completed: 3, request_throughput: 2 })).toThrow(/a benchmark's summary.*--save-detailed/)
    expect(told({ ...run, start_times: undefined })).toThrow(/start_times is missing.*sglang/)
    expect(told({ ...run, start_times: [1] })).toThrow(/start_times is 1 \(and 3 input_lens/)
    // Sent at an endless rate and limited by nothing, they came at once; Python writes that rate as no JSON is.
    const { start_times: _, ...unsaid } = run
    const text = JSON.stringify({ ...unsaid, request_rate: 0, p99_itl_ms: 0 })
    const python = text
      .replace('"request_rate":0', '"request_rate": Infinity')
      .replace('"p99_itl_ms":0', '"p99_itl_ms": NaN')
    const atOnce = parseRequestTrace("b.json", python)
    expect(atOnce.requests.map(({ arrivalSeconds }) => arrivalSeconds)).toEqual([0, 0])
    expect(atOnce.warnings.join()).toMatch(/all at once, by its request_rate \(Infinity\)/u)
    expect(told({ ...unsaid, request_rate: "inf", max_concurrency: 8 })).toThrow(/start_times is missing/)
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

// Serving scenarios as people run them: files, figures, warnings, errors.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { percentile } from "../../scenarios/families/kv-serving/outcome.ts"
import { familyOf, withIgnoredFields } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { hostOf, runScenario } from "../../sim/run.ts"
import { scenarioFile } from "../scenario/files.ts"

const tiny = "{ layers: 2, width: 64, heads: 4, kvHeads: 2, ffnWidth: 128, vocabulary: 100 }"

const small = `task: kv-serving
name: small
model: ${tiny}
algorithm: full
requests: { count: 6, prompt: 40, output: 5, perSecond: 1000, arrivals: even }
`

const attempt = (text: string, ...sets: ReadonlyArray<string>) => {
  const file = scenarioFile(text)
  return Effect.runPromise(
    Effect.result(
      Effect.gen(function* () {
        const scenario = yield* loadScenario(file, sets)
        const family = familyOf(scenario)
        const { result } = yield* runScenario(scenario, file, { loader: new Loader() })
        const told = yield* family.schedule(scenario, file, hostOf(new Loader()))
        return { result: withIgnoredFields(result, scenario), lines: family.print(result), told, family }
      }).pipe(
        Effect.mapError((error) =>
          ("errors" in error
            ? error.errors.map(({ message }) => message).join("\n")
            : error.message
          ).replaceAll(file, "FILE")
        )
      )
    )
  )
}

const run = async (text: string, ...sets: ReadonlyArray<string>) =>
  Result.getOrThrow(await attempt(text, ...sets))

const errorOf = async (text: string, ...sets: ReadonlyArray<string>): Promise<string> => {
  const result = await attempt(text, ...sets)
  if (Result.isSuccess(result)) throw new Error("expected an error")
  return String(result.failure)
}

interface RequestJson {
  readonly arrivalSeconds: number
  readonly ttftSeconds: number
  readonly tpotSeconds: number | null
  readonly requestSeconds: number
  readonly outputTokens: number
  readonly promptCacheBytes: number
}

describe("a serving scenario", () => {
  it("has every metric of its family as a number, and the same digest twice", async () => {
    for (const transfer of ["none", "host", "node"]) {
      const one = await run(small, "algorithm=chunkkv", "algorithm.window=4", `transfer.to=${transfer}`)
      for (const { name } of one.family.metrics) {
        const expected = name !== "breakEvenBytesPerSecond" || transfer === "node"
        expect(Number.isFinite(metricOf(one.result, name)), `${name}, ${transfer}`).toBe(expected)
      }
      const other = await run(small, "algorithm=chunkkv", "algorithm.window=4", `transfer.to=${transfer}`)
      expect(other.result.digest).toBe(one.result.digest)
      expect(one.lines.join("\n")).toContain("6 requests")
    }
  })

  it("adds up: a request is its first token and the others, figures are means of requests", async () => {
    const { result } = await run(small, "prompt={from: 10, to: 90}", "output={from: 1, to: 9}", "seed=3")
    const requests = (result.details as { readonly requests: ReadonlyArray<RequestJson> }).requests
    for (const { ttftSeconds, tpotSeconds, requestSeconds, outputTokens } of requests) {
      expect(requestSeconds).toBeCloseTo(ttftSeconds + (outputTokens - 1) * (tpotSeconds ?? 0), 12)
    }
    const mean = requests.reduce((sum, { requestSeconds }) => sum + requestSeconds, 0) / requests.length
    expect(metricOf(result, "requestSeconds")).toBeCloseTo(mean, 12)
    const tokens = requests.reduce((sum, { outputTokens }) => sum + outputTokens, 0)
    expect(metricOf(result, "tokensPerSecond")).toBeCloseTo(tokens / result.makespanSeconds, 9)
  })

  it("counts for goodput what keeps both objectives", async () => {
    const { result } = await run(small)
    const ttfts = (result.details as { readonly requests: ReadonlyArray<RequestJson> }).requests.map(
      ({ ttftSeconds }) => ttftSeconds
    )
    const limit = percentile(ttfts, 0.5)
    const half = (await run(small, `objective.ttft=${limit}`)).result
    expect(metricOf(half, "objectiveShare")).toBe(ttfts.filter((ttft) => ttft <= limit).length / 6)
    expect(metricOf((await run(small, "objective.tpot=1ns")).result, "goodputPerSecond")).toBe(0)
  })

  it("serves no slower with more memory, and batches less with less", async () => {
    const json = (await run(small)).told.json as Readonly<
      Record<"weightBytes" | "decodeBytes" | "prefillBytes" | "cacheBytes", number>
    >
    // Beside what is always there, room for two and a half caches.
    const bytes = json.weightBytes + json.decodeBytes + json.prefillBytes + 2.5 * json.cacheBytes
    const at = async (memory: number) => (await run(small, "perSecond=1e6", `memory.device=${memory}`)).result
    const [tight, wide] = [await at(bytes), await at(10 * bytes)]
    expect(metricOf(tight, "largestBatch")).toBe(2)
    expect(metricOf(wide, "largestBatch")).toBe(6)
    expect(metricOf(tight, "requestSeconds")).toBeGreaterThan(metricOf(wide, "requestSeconds"))
  })

  it("waits in host memory for as long as the copies there and back take", async () => {
    // One request: its cache goes while prefill works on the next layer, and comes back before decoding begins.
    const at = async (bandwidth: string) =>
      (await run(small, "count=1", "transfer.to=host", `transfer.bandwidth=${bandwidth}`)).result
    const [slow, slower] = [await at("1MB/s"), await at("500kB/s")]
    const bytes = metricOf(slow, "promptCacheBytes")
    // Tokens, layers, keys and values, key/value heads of 16, bfloat16.
    expect(bytes).toBe(40 * 2 * 2 * 2 * 16 * 2)
    const more = metricOf(slower, "decodeStartSeconds") - metricOf(slow, "decodeStartSeconds")
    const oneWay = bytes / 1e6
    expect(more).toBeGreaterThan(oneWay)
    expect(more).toBeLessThanOrEqual(2 * oneWay + 1e-9)
    expect(slow.peakBytes.host).toBe(bytes)
  })

  it("counts what stays of a prompt wherever its cache goes, not the room that it travels with", async () => {
    // Shots of 20 of which none fits into 8 rows; chunks one of which lies in the window, too, so that fewer rows stay than the 24
    // that may.
    for (const [algorithm, room] of [
      ["algorithm={name: shotkv, shot: 20, keep: 0.2}", 8],
      ["algorithm={name: chunkkv, chunk: 5, window: 4, keep: 0.6}", 24]
    ] as const) {
      const kept = async (to: string, output: string) => {
        const { result } = await run(small, algorithm, `transfer.to=${to}`, `output=${output}`)
        const { requests } = result.details as { readonly requests: ReadonlyArray<RequestJson> }
        return requests.map(({ promptCacheBytes }) => promptCacheBytes)
      }
      // One token is all that the rank which prefills makes: such a cache is not sent.
      for (const output of ["1", "{from: 1, to: 5}"]) {
        const here = await kept("none", output)
        // Rows, layers, keys and values, key/value heads of 16, bfloat16.
        expect(Math.max(...here)).toBeLessThan(room * 2 * 2 * 2 * 16 * 2)
        expect(await kept("node", output)).toEqual(here)
      }
    }
  })

  it("counts a cache in MXFP4 as it is stored, rows of half a block too", async () => {
    const narrow = ["model.kvHeads=1", "cacheDtype=mxfp4", "count=1", "transfer.to=node"]
    const { result, told } = await run(small, ...narrow)
    // Two layers of keys and values of 40 tokens, 16 wide, and a scale for each 32 numbers: 4.25 bits each.
    const bytes = (2 * 2 * 40 * 16 * 4.25) / 8
    expect(metricOf(result, "promptCacheBytes")).toBe(bytes)
    expect(told.json).toMatchObject({ promptCacheBytes: bytes, fullCacheBytes: bytes })
    // What travels: the cache, and the first token.
    expect(result.links.find(({ name }) => name === "inter out node 0")!.bytes).toBe(bytes + 4)
  })

  it("has in a fitted prefill the product that finds the first token", async () => {
    const fitted = ["count=1", "output=1", "costs={step: 1ms, token: 1us, prefill: 1GFLOP/s}"]
    const ttft = async (vocabulary: number) =>
      metricOf((await run(small, ...fitted, `vocabulary=${vocabulary}`)).result, "ttftSeconds")
    // Of one row, 64 wide.
    expect((await ttft(100_100)) - (await ttft(100))).toBeCloseTo((2 * 64 * 100_000) / 1e9, 12)
  })

  it("takes traces, and says what of them it leaves out", async () => {
    const trace = new URL("../fixtures/requests/mooncake.jsonl", import.meta.url).pathname
    const { result } = await run(small, `requests={trace: "${trace}"}`)
    const requests = (result.details as { readonly requests: ReadonlyArray<RequestJson> }).requests
    expect(requests.map(({ arrivalSeconds }) => arrivalSeconds)).toEqual([0, 0, 3.052, 6])
    expect(result.warnings).toEqual([
      "1 request of the trace asks for no tokens: left out",
      "the trace says which prompts begin alike; every prompt is prefilled in full here"
    ])
    const faster = (await run(small, `requests={trace: "${trace}", limit: 3, speed: 2}`)).result.details
    expect(
      (faster as { readonly requests: ReadonlyArray<RequestJson> }).requests.at(-1)!.arrivalSeconds
    ).toBe(1.526)
  })

  it("warns of requests beyond what a named model was made for, output counted", async () => {
    const warnings = async (model: string, prompt: string, output: number) => {
      const requests = `requests={count: 2, prompt: ${prompt}, output: ${output}}`
      const { result } = await run(
        small,
        `model=${model}`,
        requests,
        "costs={step: 1ms, token: 1ns, prefill: 1PFLOP/s}"
      )
      return result.warnings
    }
    expect(await warnings("llama-2-7b", "4090", 6)).toEqual([])
    expect(await warnings("meta-llama/Llama-2-7b-hf", "4090", 7)).toEqual([
      "llama-2-7b was made for 4096 tokens, prompt and output: 2 of 2 requests beyond, the longest of 4097"
    ])
    expect(await warnings("llama-3-8b", "8192", 1)).toHaveLength(1)
    expect(await warnings("llama-3.1-8b", "8192", 1)).toEqual([])
  })

  it("warns of fields without effect", async () => {
    const warnings = async (...sets: ReadonlyArray<string>) => (await run(small, ...sets)).result.warnings
    expect(await warnings()).toEqual([])
    expect(
      await warnings(
        "transfer.bandwidth=1Gbit/s",
        "seed=5",
        "memory.host=1GB",
        "transfer.latency=1ms",
        "transfer.window=1MiB"
      )
    ).toEqual([
      "transfer.bandwidth has no effect: caches stay where they are (transfer.to: none)",
      "transfer.latency has no effect: there is no link between nodes (transfer.to)",
      "transfer.window has no effect: there is no link between nodes (transfer.to)",
      "memory.host has no effect: nothing is in host memory (transfer.to)",
      "seed has no effect: neither requests nor times nor what is kept are drawn"
    ])
    const link = (rest: string) => warnings(`transfer={to: node, bandwidth: 10Gbit/s, ${rest}}`)
    expect(await link("latency: 2ms")).toEqual([
      "transfer: 10.0 Gbit/s over a round trip of 4.00 ms is 5.00 MB on the way at once; where TCP's windows hold less, messages are slower (transfer.window)"
    ])
    expect(await link("latency: 2ms, window: 4kB")).toEqual([])
    // The bandwidth would let more be on the way, but no cache of these is as large.
    expect(await link("latency: 2ms, window: 4MiB")).toEqual([
      "transfer.window has no effect: without it no message of this run would come sooner"
    ])
    expect(await link("latency: 2ms, window: 5MB")).toEqual([
      "transfer.window has no effect: the link's bandwidth lets no more than 5.00 MB be on the way in a round trip"
    ])
    expect(await link("window: 5MB")).toEqual([
      "transfer.window has no effect: there is no round trip, for there is no latency"
    ])
    // A fitted step is all there is: neither device nor host has a part in it, and nothing is copied.
    const fitted = "costs={step: 1ms, token: 1ns, prefill: 1PFLOP/s}"
    expect(await warnings(fitted, "device=NVIDIA A100", "host={launch: 10us, hook: 1us}")).toEqual([
      "device has no effect: the costs are a fitted step time",
      "host has no effect: the costs are a fitted step time"
    ])
    expect(await warnings(fitted, "host=none", "transfer.to=host")).toEqual([
      "caches go to host memory and back in no time: fitted costs have no copies"
    ])
    // At most 4 tokens of 40, in shots of 40; then in shots of 3.
    const { result, told } = await run(small, "algorithm=shotkv")
    expect(result.warnings).toEqual([
      "shotkv keeps nothing of 6 of 6 prompts: of the 40 tokens of one at most 4 may stay, and none of its shots is as short (algorithm.shot, keep or budget)"
    ])
    expect(metricOf(result, "promptCacheBytes")).toBe(0)
    expect(told.warnings).toEqual(result.warnings)
    expect(await warnings("algorithm={name: shotkv, shot: 3}")).toEqual([])
    // The usual costs are an H200's; an A100's are theirs by the peak rates of both.
    expect(await warnings("device=NVIDIA A100")).toEqual([])
    expect(await warnings("device=NVIDIA H200")).toEqual([expect.stringMatching(/^device has no effect/u)])
    expect(await warnings("algorithm={name: chunkkv, kernel: 3}")).toEqual([
      "algorithm.kernel has no effect: the paper's rule does not pool scores"
    ])
  })

  it("says what is wrong with which field", async () => {
    expect(await errorOf(small, "algorithm={name: snapkv, keep: 0.1, budget: 5}")).toBe(
      "FILE: algorithm.budget: 5 is not accepted; expected keep or budget, not both"
    )
    expect(await errorOf(small, "algorithm={name: snapkv, kernel: 4}")).toMatch(
      /algorithm.kernel: 4 .* an odd number/
    )
    expect(await errorOf(small, "model.kvHeads=3")).toMatch(/model.kvHeads: 3 .* a divisor of the 4 heads/)
    expect(await errorOf(small, "model.heads=5")).toMatch(/model.heads: 5/)
    expect(await errorOf(small, "prompt={from: 9, to: 3}")).toMatch(/requests.prompt.from: 9 .* at most 3/)
    expect(await errorOf(small, "algorithm={name: snapkv, keep: 0}")).toMatch(/algorithm.keep/)
    expect(await errorOf(small, "algorithm=snapkw")).toMatch(/snapkv/)
    expect(await errorOf(small, "requests={trace: nowhere.jsonl}")).toMatch(
      /requests.trace: nowhere.jsonl .*missing/
    )
    expect(await errorOf(small, "memory.device=100kB")).toMatch(/needs \d+ B of device memory/)
  })

  it("schedules: rows of each layer, and as many requests together as fit", async () => {
    const { told } = await run(small, "algorithm={name: chunkkv, keep: 0.5, reuse: 2}", "memory.device=1MB")
    const json = told.json as {
      readonly layers: ReadonlyArray<{ readonly choice: unknown; readonly rows: number }>
      readonly largestBatch: number
    }
    expect(json.layers.map(({ choice, rows }) => [choice, rows])).toEqual([
      ["choose", 20],
      [0, 20]
    ])
    expect(json.largestBatch).toBeGreaterThan(1)
    expect(told.lines.join("\n")).toContain("kv.window_scores, kv.chunk_scores, kv.top_chunks")
  })
})

describe("a percentile", () => {
  it("is the least value that so many do not exceed", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1 }),
        fc.constantFrom(0.01, 0.5, 0.99, 1),
        (values, share) => {
          const found = percentile(values, share)
          const atMost = (limit: number) => values.filter((value) => value <= limit).length / values.length
          expect(atMost(found)).toBeGreaterThanOrEqual(share)
          for (const value of values) if (value < found) expect(atMost(value)).toBeLessThan(share)
        }
      )
    )
  })
})

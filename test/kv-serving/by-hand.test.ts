// Serving against a queue worked out by hand: who is prefilled and decoded when, with steps that take a stated time, so that every figure
// of a run follows from the requests alone. Knows nothing of ops, tensors or how the program is written.
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Loader } from "../../scenarios/load.ts"
import { metricOf } from "../../scenarios/result.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { scenarioFile } from "../scenario/files.ts"

const loader = new Loader()

interface RequestJson {
  readonly arrivalSeconds: number
  readonly promptTokens: number
  readonly outputTokens: number
  readonly promptCacheBytes: number
}

const run = async (scenario: object) => {
  const file = scenarioFile(JSON.stringify(scenario))
  const { result } = await Effect.runPromise(
    Effect.flatMap(loadScenario(file, []), (loaded) => runScenario(loaded, file, { loader }))
  )
  const { requests } = result.details as { readonly requests: ReadonlyArray<RequestJson> }
  return { result, requests }
}

const layers = 2
const kvWidth = 32
const bits = { float32: 32, bfloat16: 16, float8: 8, mxfp4: 4.25 } as const
/** Seconds of a step, and of each cached token. */
const [stepSeconds, tokenSeconds] = [1e-3, 3e-6]

/** Seconds, which no request takes exactly. */
const objective = { ttft: 5.000123e-3, tpot: 1.300123e-3 }

const lengths = (most: number) =>
  fc.oneof(
    fc.integer({ min: 1, max: most }),
    fc.constant<{ readonly from: number; readonly to: number }>({ from: 1, to: most })
  )

const keep = fc.constantFrom(0.05, 0.37, 0.5, 1)

const cases = fc.record({
  algorithm: fc.oneof(
    fc.constant<object>({ name: "full" }),
    fc.record({ name: fc.constantFrom("streaming-llm", "h2o", "snapkv", "pyramidkv"), keep }),
    fc.record({
      name: fc.constant("chunkkv"),
      keep,
      chunk: fc.constantFrom(1, 5, 200),
      window: fc.constant(4)
    }),
    fc.record({
      name: fc.constant("shotkv"),
      keep,
      shot: fc.constantFrom(1, 5),
      decodeKeep: fc.constantFrom(1, 0.3)
    })
  ),
  cacheDtype: fc.constantFrom("bfloat16" as const, "float8" as const, "mxfp4" as const),
  prompt: lengths(90),
  output: lengths(12),
  count: fc.integer({ min: 1, max: 9 }),
  perSecond: fc.constantFrom(10, 100, 1000),
  maxBatch: fc.constantFrom(1, 2, 3, 64),
  seed: fc.nat({ max: 1000 })
})
type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never

const scenarioOf = ({ prompt, output, count, perSecond, ...rest }: Case) => ({
  task: "kv-serving",
  name: "by hand",
  ...rest,
  model: { layers, width: 64, heads: 4, kvHeads: 2, ffnWidth: 100, vocabulary: 100 },
  requests: { prompt, output, count, perSecond },
  objective,
  costs: { step: stepSeconds, token: tokenSeconds, prefill: "10GFLOP/s" }
})

/** One request on its way. */
class Waiting {
  readonly arrival: number
  readonly output: number
  /** Rows that stay of the prompt, the mean of the layers. */
  readonly rows: number
  /** Until its prefill is over, or its cache has come. */
  readonly seconds: number
  readonly decodeKeep: number
  made = 0
  first = 0
  second = Number.NaN
  last = 0

  constructor(request: RequestJson, { cacheDtype, algorithm }: Case, seconds: number) {
    this.arrival = request.arrivalSeconds
    this.output = request.outputTokens
    this.rows = request.promptCacheBytes / ((layers * 2 * kvWidth * bits[cacheDtype]) / 8)
    this.seconds = seconds
    this.decodeKeep = "decodeKeep" in algorithm ? Number(algorithm.decodeKeep) : 1
  }

  /** Rows that a step looks at: those of the prompt, of what was generated before as far as it stays, and the newest. */
  get cached(): number {
    const before = this.made - 1
    const stay = before === 0 ? 0 : Math.max(1, Math.floor(this.decodeKeep * before + 1e-9))
    return this.rows + stay + 1
  }
}

/** A step of all of them, from `now` on: when it ends. */
const decode = (running: ReadonlyArray<Waiting>, now: number): number => {
  const end = now + stepSeconds + tokenSeconds * running.reduce((sum, { cached }) => sum + cached, 0)
  for (const one of running) {
    one.made++
    if (one.made === 2) one.second = end
    if (one.made === one.output) one.last = end
  }
  return end
}

const mean = (values: ReadonlyArray<number>): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

describe("serving by hand", () => {
  it("on one device: prefill first, first come first served, the batch as it comes", async () => {
    const seen = { waited: 0, together: 0, within: 0, without: 0 }
    await fc.assert(
      fc.asyncProperty(cases, async (one) => {
        const { result, requests } = await run(scenarioOf(one))
        const prefills = new Map<number, number>()
        for (const { promptTokens } of requests) {
          if (prefills.has(promptTokens)) continue
          const alone = await run(scenarioOf({ ...one, count: 1, prompt: promptTokens, output: 1 }))
          prefills.set(promptTokens, alone.result.makespanSeconds)
        }
        const all = requests.map((request) => new Waiting(request, one, prefills.get(request.promptTokens)!))
        const arriving = [...all]
        let [now, steps, decoded, largest] = [0, 0, 0, 0]
        let running: ReadonlyArray<Waiting> = []
        while (arriving.length > 0 || running.length > 0) {
          const next = arriving[0]
          if (next !== undefined && next.arrival <= now && running.length < one.maxBatch) {
            if (next.arrival < now) seen.waited++
            arriving.shift()
            next.first = next.last = now += next.seconds
            next.made = 1
            if (next.output > 1) running = [...running, next]
            largest = Math.max(largest, running.length)
          } else if (running.length > 0) {
            if (running.length > 1) seen.together++
            now = decode(running, now)
            steps++
            decoded += running.length
            running = running.filter(({ made, output }) => made < output)
          } else now = next!.arrival
        }
        const several = all.filter(({ output }) => output > 1)
        const tpotOf = ({ first, last, output }: Waiting) => (last - first) / (output - 1)
        const kept = all.filter(
          (each) =>
            each.first - each.arrival <= objective.ttft &&
            (each.output === 1 || tpotOf(each) <= objective.tpot)
        ).length
        seen.within += kept
        seen.without += all.length - kept
        const expected = {
          makespanSeconds: now,
          requestSeconds: mean(all.map(({ last, arrival }) => last - arrival)),
          ttftSeconds: mean(all.map(({ first, arrival }) => first - arrival)),
          ...(several.length === 0
            ? {}
            : {
                tpotSeconds: mean(several.map(tpotOf)),
                decodeStartSeconds: mean(several.map(({ second, arrival }) => second - arrival))
              }),
          tokensPerSecond: all.reduce((sum, { output }) => sum + output, 0) / now,
          goodputPerSecond: kept / now,
          objectiveShare: kept / all.length,
          largestBatch: largest,
          meanBatch: steps === 0 ? 0 : decoded / steps
        }
        for (const [name, value] of Object.entries(expected))
          expect(Math.abs(metricOf(result, name) - value), name).toBeLessThanOrEqual(1e-9 * value)
      }),
      { numRuns: 60 }
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(20)
  })

  it("over a link: caches one after another, as far ahead as the batch has places", async () => {
    const seen = { together: 0, lists: 0 }
    await fc.assert(
      fc.asyncProperty(
        cases,
        fc.constantFrom(1e5, 1e6),
        fc.constantFrom(0, 1e-4, 5e-3),
        async (one, bandwidth, latency) => {
          const costs = { step: stepSeconds, token: tokenSeconds, prefill: "1e30FLOP/s" }
          const transfer = { to: "node", bandwidth: `${bandwidth}B/s`, latency }
          const { result, requests } = await run({ ...scenarioOf(one), costs, transfer })
          const sent = requests.filter(({ outputTokens }) => outputTokens > 1)
          // A layer's cache of the room that its choice has, which only choices that read their lists do not fill; then the lists, and a token.
          const choice = one.algorithm as {
            readonly name: string
            readonly keep?: number
            readonly chunk?: number
          }
          fc.pre(choice.name !== "pyramidkv")
          const messagesOf = ({ promptTokens }: RequestJson): ReadonlyArray<number> => {
            const limit = Math.max(1, Math.floor((choice.keep ?? 1) * promptTokens + 1e-9))
            const { chunk = 1 } = choice
            const listed = ["chunkkv", "shotkv"].includes(choice.name) && limit < promptTokens
            const window = Math.min(4, limit)
            const chunks = Math.max(1, Math.floor(limit / chunk)) * chunk
            const room =
              choice.name === "chunkkv" && listed
                ? Math.min(promptTokens, Math.min(limit - window, chunks) + window)
                : limit
            if (listed) seen.lists++
            const cache = (2 * room * kvWidth * bits[one.cacheDtype]) / 8
            const lists = listed ? Array.from({ length: layers }, () => 4 * room) : []
            return [...Array.from({ length: layers }, () => cache), ...lists, 4]
          }
          const bytes = sent.flatMap(messagesOf).reduce((sum, size) => sum + size, 0)
          expect(result.links.find(({ name }) => name === "inter out node 0")!.bytes).toBeCloseTo(bytes, 6)
          const expected = sent.map((request) => {
            const sizes = messagesOf(request)
            return new Waiting(
              request,
              one,
              sizes.reduce((sum, size) => sum + latency + size / bandwidth, 0)
            )
          })
          const all = [...expected]
          let [now, free] = [0, 0]
          let running: ReadonlyArray<Waiting> = []
          let coming: ReadonlyArray<{ readonly of: Waiting; readonly at: number }> = []
          while (expected.length > 0 || running.length > 0 || coming.length > 0) {
            const here = coming.filter(({ at }) => at <= now)
            coming = coming.filter(({ at }) => at > now)
            for (const { of } of here) of.made = 1
            running = [...running, ...here.map(({ of }) => of)]
            const next = expected[0]
            const taken = running.length + coming.length
            if (next !== undefined && (taken === 0 || (next.arrival <= now && taken < one.maxBatch))) {
              expected.shift()
              free = Math.max(free, next.arrival, now) + next.seconds
              coming = [...coming, { of: next, at: free }]
            } else if (running.length > 0) {
              if (running.length > 1) seen.together++
              now = decode(running, now)
              running = running.filter(({ made, output }) => made < output)
            } else now = coming[0]!.at
          }
          if (all.length === 0) return
          const start = mean(all.map(({ second, arrival }) => second - arrival))
          expect(Math.abs(metricOf(result, "decodeStartSeconds") - start)).toBeLessThanOrEqual(1e-7 * start)
          const end = Math.max(now, ...requests.map(({ arrivalSeconds }) => arrivalSeconds))
          expect(Math.abs(result.makespanSeconds - end)).toBeLessThanOrEqual(1e-7 * end)
        }
      ),
      { numRuns: 80 }
    )
    expect(Math.min(...Object.values(seen))).toBeGreaterThan(20)
  })
})

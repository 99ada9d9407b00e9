// Mutated scenarios must run, or be refused by an error that says what is wrong; nothing else may happen.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { stringify } from "yaml"
import { InputError } from "../../core/input-error.ts"
import { familyOf } from "../../scenarios/families.ts"
import { Loader } from "../../scenarios/load.ts"
import { runScenario } from "../../sim/run.ts"
import { decodeScenario, originOf, shapeFor } from "../../scenarios/scenario-file.ts"
import { expand } from "../../scenarios/file/check.ts"
import { InputErrors } from "../../scenarios/file/input-errors.ts"
import { getField, setField } from "../../scenarios/file/override.ts"
import { isRecord } from "../../scenarios/file/shape.ts"
import { parseSource } from "../../scenarios/file/source.ts"

const bases: ReadonlyArray<unknown> = [
  {
    name: "a",
    model: { layers: 4, parameters: "1e5", stepSeconds: "10ms" },
    world: {
      ranks: 4,
      ranksPerNode: 2,
      sites: 2,
      links: { inter: { bandwidth: "1Gbit/s", latency: "1ms" } }
    },
    algorithm: { name: "dreamddp", period: 3, order: "step-then-average", planner: "contiguous" },
    network: "fluid",
    faults: [
      { straggler: 1, speed: 0.5, from: "1ms", for: "1s" },
      { link: "inter", bandwidth: "1Mbit/s", for: "20ms" }
    ],
    jitter: 0.1,
    seed: 3
  },
  {
    name: "b",
    model: { layers: 6, parameters: 600, stepSeconds: 0.1 },
    world: {
      sites: [
        { name: "x", ranks: 2 },
        { name: "y", ranks: 1 }
      ],
      links: { wan: { bandwidth: "100Mbit/s" } }
    },
    algorithm: { name: "streaming-diloco", period: 6, layersPerFragment: 2, pattern: "sequential" },
    network: "alpha-beta",
    collectives: { algorithm: "tree" },
    device: { flops: "1TFLOP/s", memoryBandwidth: "1GB/s" }
  },
  {
    name: "c",
    model: { gpt2: { layers: 1, width: 8, heads: 2, vocabulary: 16, context: 8, batch: 1 } },
    device: "NVIDIA H100",
    world: { ranks: 2 },
    algorithm: "ddp",
    memory: { device: "1GiB", host: "1GiB" },
    steps: 2
  },
  {
    name: "d",
    model: {
      mixtral: { layers: 1, width: 8, heads: 2, kvHeads: 1, ffnWidth: 8, vocabulary: 16, experts: 2, topK: 1 }
    },
    device: { flops: "1TFLOP/s", memoryBandwidth: "1GB/s" },
    world: { ranks: 3, links: { inter: { bandwidth: "1Gbit/s", mtu: 1500 } } },
    algorithm: { name: "diloco", period: 2, wire: "bfloat16", overlap: true },
    faults: [{ outage: 1, from: "1us", for: "1us" }]
  },
  {
    task: "kv-serving",
    name: "e",
    model: { layers: 2, width: 64, heads: 4, kvHeads: 2, ffnWidth: 64, vocabulary: 100 },
    algorithm: { name: "chunkkv", keep: 0.5, reuse: 2 },
    requests: { count: 4, prompt: { from: 20, to: 40 }, output: 4, perSecond: 10 },
    maxBatch: 4,
    transfer: { to: "node", bandwidth: "1Gbit/s", latency: "20us" },
    memory: { device: "1GiB" },
    objective: { ttft: "10ms", tpot: "1ms" }
  },
  {
    task: "expert-offload",
    name: "f",
    model: {
      like: "mixtral-small",
      layers: 2,
      experts: 4,
      topK: 2,
      width: 32,
      heads: 2,
      kvHeads: 1,
      ffnWidth: 32
    },
    routing: { statistics: { zipf: 1, repeat: 0.5, topics: 2 } },
    workload: { batch: 2, promptTokens: 4, decodeTokens: 6, warmupSteps: 2 },
    cache: { slotsPerLayer: 2, scope: "shared", stagingSlots: 1 },
    hostLink: { bandwidth: "10GB/s", latency: "10us" },
    algorithm: { name: "lru" },
    seed: 3
  },
  {
    task: "moe-training",
    name: "g",
    model: {
      layers: 2,
      width: 16,
      hidden: 16,
      heads: 2,
      kvHeads: 2,
      sequence: 8,
      batch: 2,
      experts: 4,
      topK: 2,
      capacityFactor: "dropless",
      ffn: "mixtral",
      gate: "gshard"
    },
    world: { ranks: 4, ranksPerNode: 2, links: { inter: { bandwidth: "10Gbit/s", latency: "5us" } } },
    costs: {
      products: { fixed: "1us", perUnit: 1e-12, unit: "MAC" },
      between: { all_to_all: { fixed: "5us", perUnit: 1e-9, unit: "bytes", scope: "node" } },
      inside: {},
      portShare: 0.7,
      slowdown: 1.1,
      wait: "20us"
    },
    routing: { skew: 1 },
    algorithm: { name: "fsmoe", degrees: [1, 2], planner: "simulation", partition: "greedy" },
    faults: [{ straggler: 1, speed: 0.5 }],
    seed: 3,
    steps: 1
  }
]

/** Paths of every field and entry, outer ones included. */
const pathsOf = (
  value: unknown,
  path: ReadonlyArray<string | number> = []
): Array<ReadonlyArray<string | number>> => {
  const below = Array.isArray(value)
    ? value.flatMap((each: unknown, i) => pathsOf(each, [...path, i]))
    : isRecord(value)
      ? Object.entries(value).flatMap(([key, each]) => pathsOf(each, [...path, key]))
      : []
  return [path, ...below]
}

/** Values that have broken programs before, and ones that are right somewhere else. */
const values = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    "",
    0,
    -1,
    1,
    2,
    3,
    0.5,
    1e9,
    1e308,
    -0,
    Number.NaN,
    Infinity,
    "Infinity",
    "unlimited",
    "0bit/s",
    "1Gbit/s",
    "-1Gbit/s",
    "1Gb",
    "10gbps",
    "1ms",
    "0s",
    "1e400",
    "1e-300s",
    "9".repeat(400),
    "ring",
    "tree",
    "hierarchical",
    "ddp",
    "s-sgd",
    "diloco",
    "fluid",
    "__proto__",
    "constructor",
    [],
    {},
    [[]],
    { name: "ddp" },
    { name: "local-sgd", period: 2 },
    { profile: "no.arrow" },
    { pairs: "no.json" },
    [{ outage: 0, from: "1ms", for: "5ms" }],
    [{ outage: 1 }],
    [{ link: "wan", bandwidth: "0bit/s", for: "1s" }]
  ),
  fc.integer({ min: -2, max: 20 }),
  fc.double(),
  fc.string({ maxLength: 8 })
)

/** What a person might well write in place of a value: another number, another unit, another word. */
const near = (value: unknown): ReadonlyArray<unknown> => {
  if (typeof value === "number") return [value + 1, value * 2, value / 2, 0, String(value), -value]
  if (typeof value === "boolean") return [!value]
  if (typeof value !== "string") return [undefined]
  const quantity = /^([\d.e+-]+)(.*)$/u.exec(value)
  if (quantity === null) return ["fluid", "alpha-beta", "ring", "tree", "hierarchical", "float16", "s-sgd"]
  const [, amount, unit = ""] = quantity
  return [
    `${Number(amount) * 3}${unit}`,
    `${amount} ${unit}`,
    Number(amount),
    `0${unit}`,
    `${amount}m${unit}`
  ]
}

const mutated = fc.constantFrom(...bases).chain((base) => {
  const paths = pathsOf(base)
  const inner = paths.slice(1)
  const wild = fc
    .record({
      path: fc.constantFrom(...paths),
      key: fc.option(
        fc.constantFrom("name", "ranks", "period", "of", "bandwidth", "sites", "steps", "__proto__", "x")
      ),
      value: values
    })
    .map(({ path, key, value }) => ({ path: key === null ? path : [...path, key], value }))
  const tame = fc
    .constantFrom(...inner)
    .chain((path) => fc.constantFrom(...near(getField(base, path))).map((value) => ({ path, value })))
  return fc
    .array(fc.oneof({ arbitrary: tame, weight: 4 }, { arbitrary: wild, weight: 1 }), {
      minLength: 1,
      maxLength: 4
    })
    .map((mutations) =>
      mutations.reduce<unknown>((scenario, { path, value }) => setField(scenario, path, value), base)
    )
})

const counts = new Set(
  (
    "ranks sites layers period steps count prompt output from to " +
    "experts topics batch promptTokens decodeTokens warmupSteps"
  ).split(" ")
)

/** Whether a test can wait for it: no more ranks, layers and steps than so many. */
const isSmall = (value: unknown): boolean =>
  typeof value !== "object" ||
  value === null ||
  Object.entries(value).every(
    ([key, each]: [string, unknown]) =>
      !(counts.has(key) && typeof each === "number" && each > 64) && isSmall(each)
  )

const outcomeOf = (text: string): Promise<"ran" | "refused" | "large"> =>
  Effect.runPromise(
    Effect.gen(function* () {
      const source = yield* parseSource("s.yaml", text)
      const raw = expand(shapeFor(source.value), source.value)
      if (!isRecord(raw)) return "refused" as const
      const scenario = yield* decodeScenario(raw, originOf(source, []))
      if (!isSmall(scenario)) return "large" as const
      const { result } = yield* runScenario(scenario, "s.yaml", { loader: new Loader() })
      for (const { name } of familyOf(scenario).metrics) {
        const figure: unknown = Reflect.get(result, name)
        // Left out where it has no meaning: the time between tokens of requests for one.
        if (figure !== undefined) expect(figure, name).toSatisfy((x: number) => Number.isFinite(x) && x >= 0)
      }
      return "ran" as const
    }).pipe(
      Effect.exit,
      Effect.map((exit) => {
        if (Exit.isSuccess(exit)) return exit.value
        const error = Cause.squash(exit.cause)
        if (error instanceof InputErrors || error instanceof InputError) {
          expect(error.message).toMatch(/expected/u)
          return "refused" as const
        }
        if (error instanceof Error && ["Deadlock", "OutOfMemory"].includes(error.name))
          return "refused" as const
        throw error
      })
    )
  )

describe("a mutated scenario", () => {
  it("runs, or is refused by an error that names what is wrong", async () => {
    const seen = { ran: 0, refused: 0, large: 0 }
    await fc.assert(
      fc.asyncProperty(mutated, async (scenario) => {
        seen[await outcomeOf(stringify(scenario))]++
      }),
      { numRuns: 600 }
    )
    // The generator must reach both sides.
    expect(seen.ran).toBeGreaterThan(60)
    expect(seen.refused).toBeGreaterThan(60)
  })

  it("as damaged text does too", async () => {
    const text = fc.constantFrom(...bases.map((base) => stringify(base))).chain((whole) => {
      const damage = fc.record({
        at: fc.nat({ max: whole.length }),
        cut: fc.nat({ max: 6 }),
        put: fc.oneof(
          fc.string({ maxLength: 4 }),
          fc.constantFrom("\n", ": ", "[", "{", "&a ", "*a", "\t", "\0", "- ", "#")
        )
      })
      const digits = [...whole.matchAll(/\d/gu)].map(({ index }) => index)
      const slip = fc.record({
        at: fc.constantFrom(...digits),
        cut: fc.constant(1),
        put: fc.constantFrom("1", "2", "3", "4", "12", "")
      })
      return fc
        .array(fc.oneof({ arbitrary: slip, weight: 2 }, damage), { minLength: 1, maxLength: 3 })
        .map((edits) =>
          edits.reduce(
            (damaged, { at, cut, put }) => damaged.slice(0, at) + put + damaged.slice(at + cut),
            whole
          )
        )
    })
    const seen = { ran: 0, refused: 0, large: 0 }
    await fc.assert(
      fc.asyncProperty(text, async (damaged) => {
        seen[await outcomeOf(damaged)]++
      }),
      { numRuns: 400 }
    )
    expect(seen.ran).toBeGreaterThan(25)
    expect(seen.refused).toBeGreaterThan(40)
  })
})

// Routings in the forms that other tools record them, written here by hand or by independent encoders, and read back.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fc from "fast-check"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import type { RoutedSteps } from "../../core/algorithms/expert-offload/routing.ts"
import type { RoutingSource } from "../../traces/routing/sources.ts"
import { importRouting, importRoutingFiles, routingRows } from "../../traces/routing/import.ts"
import type { RoutingOptions, RoutingReport } from "../../traces/routing/tokens.ts"
import { writeRouting } from "../../traces/routing-file.ts"
import { readRoutedSteps, routedSteps } from "../../traces/routing-trace.ts"

const folder = mkdtempSync(join(tmpdir(), "routing-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const attempt = (source: RoutingSource, content: string | Uint8Array, options: RoutingOptions = {}) =>
  Effect.runSync(
    Effect.result(
      importRouting(source, typeof content === "string" ? new TextEncoder().encode(content) : content, {
        file: "FILE",
        ...options
      })
    )
  )

const imported = (
  source: RoutingSource,
  content: string | Uint8Array,
  options?: RoutingOptions
): RoutingReport => {
  const result = attempt(source, content, options)
  if (Result.isFailure(result)) throw new Error(result.failure.message)
  return result.success
}

const refusal = (source: RoutingSource, content: string | Uint8Array, options?: RoutingOptions): string => {
  const result = attempt(source, content, options)
  if (Result.isSuccess(result)) throw new Error("accepted")
  return result.failure.message
}

/** [step][layer][token][k] */
type Nested = ReadonlyArray<ReadonlyArray<ReadonlyArray<ReadonlyArray<number>>>>

/** Steps of one to four tokens; with several layers, so that every form can tell steps apart. */
const nested: fc.Arbitrary<Nested> = fc
  .record({
    layers: fc.integer({ min: 2, max: 4 }),
    topK: fc.integer({ min: 1, max: 3 }),
    tokens: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 6 }),
    salt: fc.nat()
  })
  .map(({ layers, topK, tokens, salt }) =>
    tokens.map((count, step) =>
      Array.from({ length: layers }, (_, layer) =>
        Array.from({ length: count }, (__, token) =>
          Array.from(
            { length: topK },
            (___, k) => ((Math.imul(salt + step * 31 + layer * 7 + token, 40503) >>> 8) % 9) + k
          )
        )
      )
    )
  )

const asNested = ({ topK, choices }: RoutedSteps): Nested =>
  choices.map((layers) =>
    layers.map((chosen) =>
      Array.from({ length: chosen.length / topK }, (_, token) => [
        ...chosen.subarray(token * topK, (token + 1) * topK)
      ])
    )
  )

/** Every token a step of its own. */
const apart = (steps: Nested): Nested =>
  steps.flatMap((layers) => layers[0]!.map((_, token) => layers.map((tokens) => [tokens[token]!])))

/** [tokens][layers][k] */
const byToken = (steps: Nested) => apart(steps).map((layers) => layers.map(([token]) => token!))

const npy = (shape: ReadonlyArray<number>, values: ReadonlyArray<number>, descr = "<i2"): Uint8Array => {
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`
  const header = Buffer.from(`${text.padEnd(117)}\n`)
  const data = Buffer.from(Int16Array.from(values).buffer)
  return Buffer.concat([Buffer.from([0x93, ...Buffer.from("NUMPY"), 1, 0, header.length, 0]), header, data])
}

describe("an imported routing has every choice where it was", () => {
  it("vllm, nested lists and .npy", () => {
    fc.assert(
      fc.property(nested, (steps) => {
        const tokens = byToken(steps)
        const shape = [tokens.length, tokens[0]!.length, tokens[0]![0]!.length]
        const expected = apart(steps)
        expect(asNested(imported("vllm", JSON.stringify(tokens)).routing)).toEqual(expected)
        expect(asNested(imported("vllm", JSON.stringify({ routed_experts: tokens })).routing)).toEqual(
          expected
        )
        expect(asNested(imported("vllm", npy(shape, tokens.flat(2))).routing)).toEqual(expected)
      })
    )
  })

  it("vllm, with the prompt as one step", () => {
    const { routing } = imported("vllm", "[[[1],[2]],[[3],[4]],[[5],[6]],[[7],[8]]]", { promptTokens: 2 })
    expect(asNested(routing)).toEqual([
      [
        [[1], [3]],
        [[2], [4]]
      ],
      [[[5]], [[6]]],
      [[[7]], [[8]]]
    ])
  })

  it("vllm, several files as requests in turn, each with its prompt", async () => {
    const paths = ["one", "other"].map((name) => join(folder, `${name}.json`)) as [string, string]
    writeFileSync(paths[0], "[[[1]],[[2]],[[3]]]")
    writeFileSync(paths[1], "[[[4]],[[5]],[[6]],[[7]]]")
    const { routing, warnings } = await Effect.runPromise(
      importRoutingFiles("vllm", paths, { promptTokens: 2 })
    )
    expect(asNested(routing)).toEqual([[[[1], [2]]], [[[3]]], [[[4], [5]]], [[[6]]], [[[7]]]])
    expect(warnings).toEqual([])
  })

  it("megatron, over several ranks and lines in any order", () => {
    fc.assert(
      fc.property(nested, fc.nat(), (steps, salt) => {
        const lines = steps.flatMap((layers, step) =>
          layers.flatMap((tokens, layer) => {
            const half = Math.ceil(tokens.length / 2)
            return [tokens.slice(0, half), tokens.slice(half)].map((top_indices, rank) =>
              JSON.stringify({
                step: 10 + step,
                layer,
                rank,
                num_tokens: top_indices.length,
                topk: 1,
                top_indices
              })
            )
          })
        )
        const turned = lines.map((_, i) => lines[(i + salt) % lines.length]!)
        expect(asNested(imported("megatron", turned.join("\n")).routing)).toEqual(steps)
      })
    )
  })

  it("llama-cpp, with or without a header", () => {
    fc.assert(
      fc.property(nested, fc.boolean(), (steps, header) => {
        const rows = steps.flatMap((layers) =>
          layers.flatMap((tokens, layer) => tokens.flat().map((expert) => `${layer + 1},${expert}`))
        )
        const topK = steps[0]![0]![0]!.length
        const text = [...(header ? ["layer,expert"] : []), ...rows].join("\n")
        const report = imported("llama-cpp", text, { topK })
        expect(asNested(report.routing)).toEqual(steps)
        expect(report.layers[0]).toBe(1)
        expect(report.warnings.join()).toMatch(/layers 1, 2.* of the source are layers 0/)
        // Decoding one sequence, a run of rows is a token.
        if (steps.every((layers) => layers[0]!.length === 1))
          expect(imported("llama-cpp", text).routing).toEqual(report.routing)
      })
    )
  })

  it("json, per layer and per step, dense layers left out", () => {
    fc.assert(
      fc.property(nested, (steps) => {
        const [first] = steps
        expect(asNested(imported("json", JSON.stringify(first)).routing)).toEqual(apart([first!]))
        const objects = steps.map((layers) =>
          Object.fromEntries([
            ["0", null],
            ...layers.map((tokens, layer) => [String(layer + 1), tokens] as const)
          ])
        )
        expect(asNested(imported("json", JSON.stringify(objects)).routing)).toEqual(steps)
        expect(asNested(imported("json", JSON.stringify(steps)).routing)).toEqual(steps)
      })
    )
  })

  it("and comes back from its file", async () => {
    const steps = imported("json", "[[[3,1],[2,0]],[[1,2],[3,4]]]").routing
    const path = join(folder, "routing.arrow")
    await Effect.runPromise(writeRouting(path, routingRows(steps)))
    expect(await Effect.runPromise(readRoutedSteps(path))).toEqual(steps)
  })
})

describe("warm-up", () => {
  const real = Array.from({ length: 40 }, (_, token) => [[token % 7], [(token * 3) % 5]])
  const dummy = Array.from({ length: 50 }, () => [[2], [4]])

  it("is left out and said: runs of tokens that choose alike at every layer", () => {
    const report = imported("vllm", JSON.stringify([...dummy, ...real, ...dummy]))
    expect(report.warmupTokens).toBe(100)
    expect(asNested(report.routing)).toEqual(real.map((layers) => layers.map((row) => [row])))
    expect(report.warnings).toEqual([expect.stringMatching(/100 of 140 tokens \(71 %\) left out as warm-up/)])
  })

  it("is kept on request, and short runs and runs of one layer are no warm-up", () => {
    const kept = imported("vllm", JSON.stringify([...dummy, ...real]), { keepWarmup: true })
    expect([kept.warmupTokens, kept.routing.choices.length]).toEqual([0, 90])
    const short = imported("vllm", JSON.stringify([...dummy.slice(0, 15), ...real]))
    expect(short.warmupTokens).toBe(0)
    const stuck = real.map(([first]) => [first, [1]])
    expect(imported("vllm", JSON.stringify(stuck)).warmupTokens).toBe(0)
  })

  it("alone is no routing", () => {
    expect(refusal("vllm", JSON.stringify(dummy))).toMatch(/nothing but warm-up/)
  })
})

it("SGLang's recorder fills a token up to eight, and says where experts lie", () => {
  const records = [{ topk_ids_of_layer: [[[4, 0, -1, -1]], [[1, 2, -1, -1]]] }]
  const plain = imported("sglang", JSON.stringify({ records }))
  expect(plain.routing).toMatchObject({ topK: 2, choices: [[Int32Array.of(4, 0), Int32Array.of(1, 2)]] })
  // Place 4 holds a second copy of expert 3.
  const last_physical_to_logical_map = [
    [0, 1, 2, 3, 3],
    [0, 2, 1, 3, 0]
  ]
  const placed = imported("sglang", JSON.stringify({ records, last_physical_to_logical_map }))
  expect(placed.routing.choices).toEqual([[Int32Array.of(3, 0), Int32Array.of(2, 1)]])
})

describe("what cannot be read", () => {
  it.each([
    ["vllm", "{", /FILE: content is .*; expected JSON/],
    ["vllm", "[]", /no token/],
    ["vllm", "[[[1],[2]],[[1]]]", /\[1\] is 1 layers; expected 2 layers/],
    ["vllm", "[[[1,2],[3]]]", /layer 1, token 0 is 1 experts; expected 2 experts/],
    ["vllm", "[[[1.5]]]", /\[0\]\[0\]\[0\] is 1.5; expected the number of an expert/],
    ["vllm", npy([2, 2], [1, 2, 3, 4]), /shape is \(2, 2\); expected \(tokens, layers, top k\)/],
    ["vllm", npy([1, 2, 1], [1]), /2 bytes; expected 4 bytes/],
    ["vllm", npy([1, 1, 1], [-1]), /element 0 is -1/],
    ["vllm", npy([1, 1, 1], [1], "<f4"), /descr is <f4; expected whole numbers/],
    ["megatron", '{"step": 0}', /line 1, layer is missing/],
    ["megatron", "nonsense", /line 1 is/],
    [
      "megatron",
      '{"step":0,"layer":0,"top_indices":[[1]]}\n{"step":1,"layer":1,"top_indices":[[1]]}',
      /step 1 is layers 1, top 1; expected layers 0, top 1/
    ],
    ["llama-cpp", "0,1\n0;2", /line 2 is 0;2; expected two whole numbers/],
    ["llama-cpp", "0,1\n0,2\n0,3\n1,1\n1,2", /step 0, layer 0 is 3 rows; expected a multiple of 2/],
    ["llama-cpp", "0,1\n1,1\n0,2", /step 1 is layers 0; expected layers 0, 1/],
    [
      "sglang",
      '{"rank": 0, "logical_count": [[[1]]]}',
      /logical_count is .*mode stat.*expected records of mode per_token/
    ],
    ["sglang", '[{"global_physical_count": [[1]]}]', /mode per_pass.*expected records of mode per_token/],
    [
      "sglang",
      '{"records": [{"topk_ids_of_layer": [[[3]]]}], "last_physical_to_logical_map": [[0, 1]]}',
      /topk_ids_of_layer\[0\]\[0\]\[0\] is 3; expected a place below 2/
    ],
    ["json", "3", /content is 3/],
    ["json", '{"a": [[1]]}', /"a"/],
    // Steps, though the first layer of the first has no list within.
    ["json", "[[[],[[2,3]]],[[[1,2]],[[3,0]]]]", /layer 1 is 1 tokens; expected 0 tokens, as layer 0/],
    ["json", "[[[],[]],[[[1,2]],[[3,0]]]]", /\[1\] is layers 0, 1, top 2; expected layers 0, 1, top 0/],
    ["json", `${"[".repeat(20_000)}1${"]".repeat(20_000)}`, /\[0\]\[0\]\[0\]\[0\] is .*; expected the number/]
  ] as const)("%s %#", (source, content, message) => {
    expect(refusal(source, content)).toMatch(message)
  })

  it("a routing file with gaps", () => {
    const rows = routingRows(imported("json", "[[[3],[2]],[[1],[3]]]").routing)
    const part = (count: number) => ({
      ...rows,
      step: rows.step.subarray(0, count),
      layer: rows.layer.subarray(0, count)
    })
    expect(routedSteps([rows])).toHaveProperty("topK", 1)
    expect(routedSteps([part(3)])).toMatch(/3 rows for 2 steps.*4 expected/)
    expect(routedSteps([{ ...rows, layer: Int32Array.of(0, 1, 0, 0) }])).toMatch(/twice|expected/)
    expect(routedSteps([])).toBe("none")
  })
})

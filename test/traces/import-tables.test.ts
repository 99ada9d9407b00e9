// Small made-up request files and routings, one for each kind of thing that public ones were seen to hold.
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import {
  importRouting,
  importRoutingFiles,
  parseRequestTrace,
  parseRequestTraces,
  TraceError
} from "../../traces/index.ts"
import { fixture, refusal } from "./imported.ts"

const run = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)

describe("a request file", () => {
  const read = (name: string) => parseRequestTrace(name, readFileSync(fixture(name), "utf8"))
  const told = ({ requests }: ReturnType<typeof read>) =>
    requests.map(({ arrivalSeconds, promptTokens, outputTokens }) => [
      arrivalSeconds,
      promptTokens,
      outputTokens
    ])

  it("of Qwen-Bailian counts seconds", () => {
    const trace = read("req-a-seconds.jsonl")
    expect(trace).toMatchObject({ format: "bailian", sharedPrefixes: true })
    expect(told(trace)).toEqual([
      [0, 100, 10],
      [30.25, 200, 10]
    ])
  })

  it("broken off within its last line is read without it, and says so; a fault elsewhere is none of these", () => {
    const json = '{"timestamp": 0, "input_length": 6, "output_length": 5}\n'
    const cut = '{"timestamp": 9, "input_length": 6, "outp'
    const csv = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,4,2\n"
    for (const text of [json + json + cut, `${csv}1.5,4,2\n2.5,`]) {
      const trace = parseRequestTrace("cut", text)
      expect(trace.requests).toHaveLength(2)
      expect(trace.warnings.join()).toMatch(/line [34] of cut, the last, is cut short and was left out/u)
    }
    for (const text of [
      `${json + cut}\n`,
      json + cut + "\n" + json,
      cut,
      `${csv}1.5,4\n`,
      `${csv}1.5,4\n2.5,3,2`
    ])
      expect(() => parseRequestTrace("cut", text)).toThrow(TraceError)
  })

  it("of BurstGPT with sessions has two columns more", () => {
    const trace = parseRequestTrace(
      "b.csv",
      "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n" +
        "19440110.0,ab-1,43,GPT-4,906,446,1352,Conversation log\n19440161.5,cd-2,2,ChatGPT,36,0,36,API log\n"
    )
    expect(trace.format).toBe("burstgpt")
    expect(told(trace)).toEqual([
      [0, 906, 446],
      [51.5, 36, 0]
    ])
  })

  it("of BurstGPT, Vidur and Splitwise has its own columns", () => {
    expect([read("req-b-burst.csv").format, told(read("req-b-burst.csv"))]).toEqual([
      "burstgpt",
      [
        [0, 10, 2],
        [2.5, 20, 4]
      ]
    ])
    expect([read("req-c-prefill-decode.csv").format, told(read("req-c-prefill-decode.csv"))]).toEqual([
      "vidur",
      [
        [0, 100, 10],
        [1.5, 200, 20]
      ]
    ])
    const splitwise =
      "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,2,0,0.5,1,7,3\n1,2,0,2,1,9,4\n"
    expect(told(parseRequestTrace("s", splitwise))).toEqual([
      [0, 7, 3],
      [1.5, 9, 4]
    ])
  })

  it("whose times have fractions is read in seconds, and told to be", () => {
    const trace = parseRequestTrace(
      "t",
      '{"timestamp": 1.5, "input_length": 3, "output_length": 2}\n{"timestamp": 4, "input_length": 1, "output_length": 1}'
    )
    expect(told(trace)[1]).toEqual([2.5, 1, 1])
    expect(trace.warnings.join()).toContain("read as seconds")
  })

  it("of conversations has estimated tokens, and says so", () => {
    const conversation = (turns: ReadonlyArray<readonly [string, string]>) => ({
      id: "x",
      conversations: turns.map(([from, value]) => ({ from, value }))
    })
    const trace = parseRequestTrace(
      "t",
      JSON.stringify([
        conversation([
          ["human", "12345678"],
          ["gpt", "1234"],
          ["human", "1234"],
          ["gpt", "12345678"]
        ])
      ])
    )
    expect(told(trace)).toEqual([
      [0, 2, 1],
      [0, 4, 2]
    ])
    expect(trace.warnings.join()).toContain("an estimate")
  })

  it("says its unit by its fields' names, or by times that count from 1970", () => {
    const seconds = (text: string) => told(parseRequestTrace("t", text)).at(-1)![0]
    const line = (field: string, time: number) =>
      JSON.stringify({ session: "a", [field]: time, input_tokens: 3, output_tokens: 2 })
    for (const [field, from, to, expected] of [
      ["start_s", 0, 2, 2],
      ["arrived_at", 0, 2, 2],
      ["timestamp", 0, 2, 0.002],
      ["timestamp_ms", 0, 2.5, 0.0025],
      ["timestamp", 1_700_000_000, 1_700_000_002, 2],
      ["timestamp", 1_700_000_000_000, 1_700_000_002_000, 2]
    ] as const) {
      expect(seconds(`${line(field, from)}\n${line(field, to)}`), `${field} ${to}`).toBeCloseTo(expected, 9)
      if (field === "timestamp" && to === 2) continue
      const columns = `${field},input_tokens,output_tokens\n${from},3,2\n${to},3,2\n`
      expect(seconds(columns), `${field} ${to} in columns`).toBeCloseTo(expected, 9)
    }
    expect(parseRequestTrace("t", line("start_s", 0))).toMatchObject({ format: "sessions", warnings: [] })
  })

  it("of messages has texts in parts, and answers by any model", () => {
    const lines = [
      { messages: [{ role: "system", content: "1234" }, { role: "user", content: [{ type: "text", text: "1234" }, { type: "image_url", image_url: {} }] }, { role: "assistant", content: "1234" }] }, // prettier-ignore
      { conversations: [{ from: "human", value: "1234" }, { from: "bard", value: "12345" }, { from: "tool", value: "123" }, { from: "chatgpt", value: "1" }] } // prettier-ignore
    ]
    expect(told(parseRequestTrace("t", lines.map((line) => JSON.stringify(line)).join("\n")))).toEqual([
      [0, 2, 1],
      [0, 1, 2],
      [0, 3, 1]
    ])
  })

  it("may be several, on one clock", () => {
    const part = (time: number) => `arrived_at,num_prefill_tokens,num_decode_tokens\n${time},1,1\n`
    const traces = parseRequestTraces([
      { file: "b", text: part(7) },
      { file: "a", text: part(2) }
    ])
    expect(told(traces)).toEqual([
      [0, 1, 1],
      [5, 1, 1]
    ])
    const sessions = parseRequestTrace(
      "s",
      "session,start_s,input_tokens,output_tokens\n0,0,1,1\n0,9,2,1\n1,0,3,1\n"
    )
    expect(sessions).toMatchObject({ format: "sessions" })
    expect(sessions.warnings.join()).toContain("2 sessions")
  })

  it("without arrivals is refused for that", () => {
    expect(() => parseRequestTrace("t", "num_prefill_tokens,num_decode_tokens\n1,1\n")).toThrow(
      /arrivals as well/u
    )
  })
})

describe("a routing", () => {
  it("has MTP blocks apart from layers", async () => {
    const report = await run(importRoutingFiles("megatron", [fixture("routing-a-mtp.jsonl")]))
    expect(report.routing.shape.layers).toBe(3)
    expect(report.routing.choices.map((layers) => layers.map((chosen) => chosen.length / 2))).toEqual([
      [2, 2, 2]
    ])
    expect(report.warnings.join()).toContain("layers 1, 2, mtp 0.1 of the source are layers 0 to 2")
    const block = (name: string): string =>
      `{"step": 0, "block": "${name}", "layer": 1, "top_indices": [[0, 1]]}\n`
    const text = new TextEncoder().encode(block("Decoder") + block("MTP"))
    expect((await run(importRouting("megatron", text))).routing.shape.layers).toBe(2)
    const other = new TextEncoder().encode(block("decoder") + block("encoder"))
    expect(String(await run(Effect.flip(importRouting("megatron", other))))).toMatch(
      /line 2, block is "encoder"; expected decoder or mtp/
    )
  })

  const bytes = (value: unknown): Uint8Array =>
    new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value))
  const choices = async (source: Parameters<typeof importRouting>[0], value: unknown) =>
    (await run(importRouting(source, bytes(value)))).routing.choices.map((layers) =>
      layers.map((chosen) => [...chosen])
    )

  it("of vLLM's answers has a step for each prompt and each token", async () => {
    const answer = {
      choices: [{ index: 0, routed_experts: [[[5], [6]]] }],
      prompt_routed_experts: [
        [[1], [2]],
        [[3], [4]]
      ]
    }
    const expected = [
      [
        [1, 3],
        [2, 4]
      ],
      [[5], [6]]
    ]
    expect(await choices("vllm", answer)).toEqual(expected)
    expect(await choices("vllm", [answer, answer])).toEqual([...expected, ...expected])
    expect(await choices("vllm", `${JSON.stringify(answer)}\n${JSON.stringify(answer)}\n`)).toEqual([
      ...expected,
      ...expected
    ])
    const without = { ...answer, choices: [{ index: 0 }] }
    expect((await refusal(importRouting("vllm", bytes(without)))).accepted).toContain(
      "enable-return-routed-experts"
    )
  })

  it("of SGLang's recorder has a step for each forward pass, without dense layers", async () => {
    const pass = (id: number, rank: number, tokens: ReadonlyArray<number>) => ({
      forward_pass_id: id,
      rank,
      topk_ids_of_layer: [
        tokens.map(() => [-1]),
        tokens.map((token) => [token]),
        tokens.map((token) => [token + 1])
      ]
    })
    const records = [pass(4, 1, [7]), pass(4, 0, [5, 6]), pass(3, 0, [1, 2])]
    expect(await choices("sglang", { records })).toEqual([
      [
        [1, 2],
        [2, 3]
      ],
      [
        [5, 6, 7],
        [6, 7, 8]
      ]
    ])
    expect((await refusal(importRouting("sglang", bytes("PK\u0003\u0004")))).accepted).toContain("torch.load")
  })

  it("of rows is the same by choice or by token, in a table or in JSON, in any order", async () => {
    // Two steps: tokens 0 and 1, then token 0; layers 3 and 5; two experts each, the first the better.
    const expected = [
      [
        [8, 26, 9, 2],
        [3, 4, 5, 6]
      ],
      [
        [1, 7],
        [0, 2]
      ]
    ]
    const all = [
      [0, 3, 0, [8, 26]],
      [0, 5, 0, [3, 4]],
      [0, 3, 1, [9, 2]],
      [0, 5, 1, [5, 6]],
      [1, 3, 0, [1, 7]],
      [1, 5, 0, [0, 2]]
    ] as const
    const long = all.flatMap(([step, layer, token, experts]) =>
      experts.map((expert, choice) => `${expert},0.5,${choice},${layer},${token},${step}`)
    )
    const header = "Expert ID,weight,choice,Layer,Token,Step\n"
    expect(await choices("rows", header + long.join("\n"))).toEqual(expected)
    expect(await choices("rows", header + long.toReversed().join("\n"))).toEqual(expected)
    expect(await choices("rows", (header + long.join("\r\n")).replaceAll(",", ";"))).toEqual(expected)
    const wide = all.map(([step, layer, token, experts]) => ({ step, layer, token, topk_ids: experts }))
    expect(await choices("rows", wide)).toEqual(expected)
    expect(await choices("rows", wide.map((row) => JSON.stringify(row)).join("\n"))).toEqual(expected)
    // Rows with all of a token's experts are tokens one after the other where nothing numbers them.
    const inTurn = "step,layer_idx,selected_experts\n".concat(
      all.map(([step, layer, , experts]) => `${step},${layer},"[${experts.join(" ")}]"\n`).join("")
    )
    expect(await choices("rows", inTurn)).toEqual(expected)
    // Without steps every token is one.
    expect((await choices("rows", "layer,token,expert\n0,0,1\n0,1,2\n")).length).toBe(2)
    expect((await refusal(importRouting("rows", bytes("layer,expert\n0,1\n")))).accepted).toContain(
      "layer, token and expert"
    )
    expect((await refusal(importRouting("rows", bytes("layer,token,expert\n0,0,many\n")))).field).toBe(
      "line 2, expert"
    )
    expect(
      (await refusal(importRouting("rows", bytes("layer,token,expert\n0,0,1\n1,0,1\n1,1,2\n")))).message
    ).toContain("tokens")
  })

  it("of other spellings: names of layers, columns turned, answers within answers, a comma too many", async () => {
    const layers = [[[1, 2]], [[3, 4]]]
    const plain = await choices("json", layers)
    for (const name of [(i: number) => `layer_${i}`, (i: number) => `model.layers.${i}.mlp.gate`])
      expect(await choices("json", Object.fromEntries(layers.map((rows, i) => [name(i), rows])))).toEqual(
        plain
      )
    expect(
      (await refusal(importRouting("json", bytes({ "layer1.2": [[1]], "layer3.4": [[1]] })))).accepted
    ).toContain("expert")
    expect(await choices("llama-cpp", "expert,layer\n1,0\n2,0\n3,1\n4,1\n")).toEqual(plain)
    const tokens = [
      [
        [1, 2],
        [3, 4]
      ]
    ]
    expect(await choices("vllm", { prompt_token_ids: [5], outputs: [{ routed_experts: tokens }] })).toEqual(
      plain
    )
    const answer = JSON.stringify({ choices: [{ routed_experts: tokens }] })
    expect(await choices("vllm", `${answer},\n${answer},\n`)).toEqual([...plain, ...plain])
    expect(
      await choices("moe-beyond", "Layer ID,Batch Number,Token,Activated Expert IDs\n0,0,a,1 2\n1,0,a,3 4\n")
    ).toEqual(plain)
  })

  it("of moe-beyond has its layers and tokens", async () => {
    const text =
      'Layer ID,Batch Number,Token,Activated Expert IDs\n1,0,a,"[8, 26]"\n1,0,",","[9, 2]"\n2,0,a,"[3, 4]"\n2,0,",","[5, 6]"\n'
    expect(await choices("moe-beyond", text)).toEqual([
      [
        [8, 26],
        [3, 4]
      ],
      [
        [9, 2],
        [5, 6]
      ]
    ])
    expect((await refusal(importRouting("moe-beyond", bytes(text.replace("[9, 2]", "9; 2"))))).field).toBe(
      "line 3, Activated Expert IDs"
    )
  })
})

// Mutated traces, tables, request files, routings, tensors and tokens: each is read or refused with a TraceError that a person
// can follow, whatever was done to it. TANDEM_FUZZ=100000 is how many; without it a few hundred, so that the way there is known
// to work. What was found by the long run is in docs/formats.md.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { afterAll, describe, expect, it } from "vitest"
import { Random } from "../../core/random.ts"
import {
  decodeProfile,
  encodeProfile,
  importCsv,
  importKineto,
  importKinetoFiles,
  importNcclTests,
  importRouting,
  parseRequestTrace,
  routingSources,
  TraceError
} from "../../traces/index.ts"
import { encodeHeader, SafetensorsFile } from "../../traces/safetensors.ts"
import { unpacked } from "../../traces/packed.ts"
import { decodeText } from "../../traces/text.ts"
import { openTokenFile, readTokensAcross } from "../../traces/token-file.ts"
import { attempt } from "../../traces/trace-error.ts"
import { ChromeTrace } from "./chrome-trace.ts"

const runs = Number(process.env["TANDEM_FUZZ"] ?? 300)
/** Milliseconds: a long run takes 2 an import on a quiet machine. */
const timeLimit = 60_000 + runs * 20
const folder = fileURLToPath(new URL("../fixtures/import/", import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), "tandem-fuzz-"))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

interface Seed {
  readonly name: string
  readonly bytes: Uint8Array
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** A routing of 3 tokens, 2 layers and top 2, as `.npy` has it. */
const npy = (): Uint8Array => {
  const text = "{'descr': '<i2', 'fortran_order': False, 'shape': (3, 2, 2), }"
  const header = utf8(`${text.padEnd(117)}\n`)
  const values = new Uint8Array(Int16Array.of(0, 1, 2, 3, 4, 5, 6, 7, 1, 0, 3, 2).buffer)
  return Buffer.concat([Buffer.from("\u0093NUMPY\u0001\u0000v\u0000", "latin1"), header, values])
}

const shards = (): Uint8Array => {
  const header = new Int32Array(256)
  header.set([20240520, 1, 5])
  return Buffer.concat([new Uint8Array(header.buffer), new Uint8Array(Uint16Array.of(1, 2, 3, 4, 5).buffer)])
}

/** Two steps that read twice each, a copy to the device among them. */
const readLoop = (): Uint8Array => {
  const trace = new ChromeTrace()
  let now = 0
  let correlation = 1
  const put = (call: string, name: string, cat: string, stream: number): void => {
    trace.host("cuda_runtime", call, now, 1, { correlation })
    const args = { device: 0, stream, correlation: correlation++ }
    trace.push({ ph: "X", cat, name, pid: 0, tid: stream, ts: now + 2, dur: 5, args })
    now += 10
  }
  for (const step of [0, 1]) {
    const begun = now
    for (const stream of [7, 9]) {
      put("cudaMemcpyAsync", "Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", stream)
      put("cudaLaunchKernel", "gemv", "kernel", 7)
      put("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", 7)
      trace.host("cuda_runtime", "cudaStreamSynchronize", now, 3, { correlation: correlation++ })
      now += 5
    }
    trace.host("user_annotation", `ProfilerStep#${step}`, begun, now - begun)
  }
  return trace.bytes
}

/** What the fixtures have no file of. */
const madeUp: ReadonlyArray<Seed> = [
  { name: "90-read-loop.json", bytes: readLoop() },
  {
    name: "nccl-json",
    bytes: utf8(
      '{"version": 3, "args": ["./build/all_reduce_perf"], "config": {"devices": [{"rank": 0, "device_info": "GPU"}, {"rank": 1}]}, "results": [{"size": 4096, "count": 1024, "type": "float", "redop": "sum", "out_of_place": {"time": 11, "nwrong": 0}, "in_place": {"time": 10, "nwrong": 0}}], "out_of_bounds": {"okay": true}}'
    )
  },
  { name: "routing-vllm.json", bytes: utf8('{"routed_experts": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]}') },
  {
    name: "routing-sglang.json",
    bytes: utf8(
      '[{"forward_pass_id": 3, "rank": 0, "topk_ids_of_layer": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]}]'
    )
  },
  {
    name: "routing-moe-beyond.csv",
    bytes: utf8('Layer ID,Batch Number,Token,Activated Expert IDs\n1,0,"a","[1, 2]"\n2,0,"a","[3, 4]"\n')
  },
  {
    name: "routing-sglang-placed.json",
    bytes: utf8(
      '{"records": [{"topk_ids_of_layer": [[[0, 2, -1], [1, 3, -1]]]}], "last_physical_to_logical_map": [[0, 1, 2, 0]]}'
    )
  },
  { name: "routing-llama.csv", bytes: utf8("layer,expert\n0,1\n0,2\n1,3\n1,4\n0,5\n0,6\n1,7\n1,0\n") },
  {
    name: "routing-plain.json",
    bytes: utf8('[{"0": [[0, 1]], "1": [[2, 3]]}, {"0": [[1, 2]], "1": [[3, 0]]}]')
  },
  { name: "routing.npy", bytes: npy() },
  {
    name: "csv-collectives",
    bytes: utf8("op,ranks,bytes,median_seconds,link\nall_reduce,2,4096,7.6e-05,unshaped\n")
  },
  {
    name: "csv-vidur",
    bytes: utf8(
      ",time_stats.all_reduce.median,num_workers,size,devices_per_node\n0,0.04,4,2048,2\n1,0.05,2,4096,2\n"
    )
  },
  {
    name: "csv-vidur-layers",
    bytes: utf8(
      "time_stats.mlp_up_proj.median,n_head,n_kv_head,n_embd,n_expanded_embd,use_gated_mlp,num_tokens,num_tensor_parallel_workers\n0.4,8,2,64,96,True,5,2\n"
    )
  },
  {
    name: "csv-vidur-attention",
    bytes: utf8(
      "time_stats.attn_prefill.median,time_stats.attn_decode.median,n_embd,n_q_head,n_kv_head,batch_size,prefill_chunk_size,kv_cache_size,is_prefill\n2,,4096,32,8,1,512,0,True\n,4,4096,32,8,16,0,1023,False\n"
    )
  },
  {
    name: "csv-spelt",
    bytes: utf8(
      "Collective,Num GPUs,Size (KB),Avg Time (us),AlgBW\nAllReduce,8,4,12.5 us,0\nBcast,8,4KiB,20,0\n"
    )
  },
  {
    name: "nccl-logged",
    bytes: utf8('{"log": "# all_reduce_perf\\n"}\n{"log": "  64 16 float sum -1 10.00 4.00 6.00 0\\n"}\n')
  },
  {
    name: "routing-rows.csv",
    bytes: utf8("step,layer,token,choice,expert\n0,0,0,0,1\n0,0,0,1,2\n0,1,0,0,3\n0,1,0,1,0\n")
  },
  {
    name: "routing-rows.jsonl",
    bytes: utf8('{"layer": 0, "topk_ids": [1, 2]}\n{"layer": 1, "topk_ids": "3 4"}\n')
  },
  {
    name: "req-agents.json",
    bytes: utf8(
      '{"id": "a", "requests": [{"t": 0, "in": 8, "out": 2}, {"t": 4.5, "type": "subagent", "requests": [{"t": 5.5, "in": 9, "out": 3}]}]}\n'
    )
  },
  {
    name: "req-waits.csv",
    bytes: utf8(
      "session_id,session_start_at,think_time_ms,num_prefill_tokens,num_decode_tokens\na,0,0,1,1\na,0,1e3,1,1\n"
    )
  },
  {
    name: "req-words.json",
    bytes: utf8(
      '[{"timestamp": "2024-05-10T00:00:00Z", "prompt": "hello", "completion": "you", "score": NaN}]'
    )
  },
  { name: "csv-ops", bytes: utf8("op,attributes,median_seconds\ngemm_bf16,m=16;k=768;n=3072,2.0e-05\n") },
  {
    name: "req-conversations.json",
    bytes: utf8(
      '[{"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good day"}]}]'
    )
  },
  {
    name: "req-benchmark.json",
    bytes: utf8(
      '{"input_lens": [10, 20], "output_lens": [3, 4], "start_times": [5.5, 6.25], "errors": ["", ""], "request_throughput": 2}'
    )
  },
  {
    name: "csv-semicolons",
    bytes: utf8("op;ranks;bytes;median_seconds\nall_reduce;2;4096;0,00125\nall_reduce;2;8192;1,5e-3\n")
  },
  {
    name: "csv-wide",
    bytes: Buffer.from("\uFEFFop\tranks\tbytes\tmedian_seconds\r\nall_reduce\t2\t4096\t0.1\r\n", "utf16le")
  },
  { name: "csv-zstd", bytes: zstdCompressSync("op,ranks,bytes,median_seconds\nall_reduce,2,4096,1e-5\n") },
  { name: "req-gzip", bytes: gzipSync("Timestamp,Request tokens,Response tokens\n5,472,18\n") },
  {
    name: "req-azure.csv",
    bytes: utf8("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n")
  },
  {
    name: "tensors.safetensors",
    bytes: Buffer.concat([
      encodeHeader(
        [
          { name: "a", shape: [2, 2], dtype: "float32" },
          { name: "b", shape: [3], dtype: "bfloat16" }
        ],
        { format: "pt" }
      ),
      new Uint8Array(22)
    ])
  },
  { name: "tokens-bare.bin", bytes: new Uint8Array(Uint16Array.of(1, 2, 3, 4).buffer) },
  { name: "tokens-header.bin", bytes: shards() }
]

const seeds: ReadonlyArray<Seed> = [
  ...readdirSync(folder)
    .filter((name) => !name.endsWith(".md"))
    .toSorted()
    .map((name) => ({ name, bytes: new Uint8Array(readFileSync(folder + name)) })),
  ...madeUp
]

const fragments = ["{", "}", "[", "]", '"', ",", ":", "\\", "-", "e", "nan", "null", "1e999", "-1", "0", "\u0000", "\n", "\uFEFF", "é", '"dur":', '"ts":', "# ", "},{", "]}"].map((text) => new TextEncoder().encode(text)) // prettier-ignore

/** What stands in a value's place: numbers of every size, and things that are no number. */
const odd = ["0", "-1", "1e300", "-1e300", "1e-300", "0.5", "9007199254740993", "4294967296", "1e999", "null", "true", '""', '"x"', "[]", "{}", "[1,2]", '{"a":1}', "NaN", "-0"] // prettier-ignore

/** One number, text or name replaced: damage that leaves the form whole, and so gets further in. */
const withOddValue = (bytes: Uint8Array, random: Random): Uint8Array => {
  const text = Buffer.from(bytes).toString("latin1")
  const values = [...text.matchAll(/-?\d+(?:\.\d+)?|"[^"\n]{0,40}"|\b[a-z_]+\b/gu)]
  if (values.length === 0) return bytes
  const { index, 0: found } = values[random.below(values.length)]!
  const own = random.below(4) === 0 ? values[random.below(values.length)]![0] : odd[random.below(odd.length)]!
  return Buffer.from(text.slice(0, index) + own + text.slice(index + found.length), "latin1")
}

const mutated = (bytes: Uint8Array, random: Random): Uint8Array => {
  let now: Uint8Array = bytes
  for (let change = random.below(4); change >= 0; change--) {
    const at = random.below(now.length + 1)
    const kind = random.below(8)
    if (kind >= 6) {
      now = withOddValue(now, random)
      continue
    }
    const length = 1 + random.below(kind === 5 ? 400 : 40)
    const rest = now.subarray(at + (kind === 0 || kind === 5 ? length : 0))
    const own =
      kind === 1
        ? now.subarray(at, at + length)
        : kind === 2
          ? fragments[random.below(fragments.length)]!
          : kind === 3
            ? Uint8Array.of(random.below(256))
            : new Uint8Array(0)
    now =
      kind === 4 && random.below(4) === 0 ? now.slice(0, at) : Buffer.concat([now.subarray(0, at), own, rest])
  }
  return now
}

/** Writing a profile and reading it again costs far more than the import: not each time. */
const writtenEvery = 16

const importsOf = (
  name: string,
  bytes: Uint8Array,
  run: number
): ReadonlyArray<Effect.Effect<unknown, TraceError>> => {
  const decoded = <A, E>(use: (text: string) => Effect.Effect<A, E>) =>
    Effect.flatMap(
      attempt(name, "text", () => decodeText(name, unpacked(name, bytes))),
      use
    )
  const inScratch = (): string => {
    writeFileSync(join(scratch, name), bytes)
    return join(scratch, name)
  }
  if (/^\d/u.test(name)) {
    return [
      Effect.map(importKineto(bytes, { file: name, unprofiledStepSeconds: 1e-3 }), ({ profile }) =>
        run % writtenEvery === 0 ? decodeProfile("p", encodeProfile("p", profile)) : profile
      ),
      ...(run % writtenEvery === 0
        ? [importKinetoFiles([inScratch(), join(folder, "19-two-ranks-merged.json")])]
        : [])
    ]
  }
  if (name.startsWith("nccl")) return [decoded((text) => importNcclTests(text, { file: name }))]
  if (name.startsWith("req") || name.startsWith("csv")) {
    return [
      decoded((text) => attempt(name, "a trace of requests", () => parseRequestTrace(name, text))),
      decoded((text) => importCsv(text, { file: name }))
    ]
  }
  if (name.startsWith("tensors")) {
    return [
      attempt(name, "tensors", () => {
        const file = SafetensorsFile.open(inScratch())
        const values = [...file.tensors.values()].map((tensor) => file.values(tensor).length)
        file.close()
        return values
      })
    ]
  }
  if (name.startsWith("tokens")) {
    return [
      attempt(name, "tokens", () => {
        const file = openTokenFile(inScratch(), "uint16")
        return readTokensAcross([file], 0, file.tokens)
      })
    ]
  }
  return routingSources.map((source) => importRouting(source, bytes, { file: name }))
}

/** What an engine says of a program's own mistake: an importer that passes it on has not understood the file. */
const mistake =
  /\n\s+at |Cannot (?:read|convert|mix|destructure|set)|is not (?:a function|iterable|defined|a constructor)|Invalid (?:array|typed array|string) length|call stack|undefined|\bBigInt|\[object |Array buffer allocation|offset is out of bounds|must be an instance|start offset of|should be a multiple/u

describe("a mutated file", () => {
  it(
    `is read or refused with a TraceError, ${runs} times`,
    async () => {
      const random = new Random(Number(process.env["TANDEM_SEED"] ?? 1))
      const seen = { read: 0, refused: 0 }
      for (let run = 0; run < runs; run++) {
        const { name, bytes } = seeds[random.below(seeds.length)]!
        const content = mutated(bytes, random)
        for (const imported of importsOf(name, content, run)) {
          const exit = await Effect.runPromiseExit(imported)
          if (Exit.isSuccess(exit)) {
            seen.read++
            continue
          }
          const error = Cause.findError(exit.cause)
          const isRefusal = Result.isSuccess(error) && error.success instanceof TraceError
          if (!isRefusal || mistake.test(error.success.message)) {
            throw new Error(
              `run ${run}, ${name}: ${Cause.pretty(exit.cause)}\n${new TextDecoder().decode(content)}`
            )
          }
          seen.refused++
        }
      }
      if (process.env["TANDEM_FUZZ"] !== undefined) console.log(seen)
      expect(seen.read).toBeGreaterThan(runs / 10)
      expect(seen.refused).toBeGreaterThan(runs / 10)
    },
    timeLimit
  )
})

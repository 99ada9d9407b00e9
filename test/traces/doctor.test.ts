// sim doctor knows every file that something here reads, and says of others what they are.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { afterAll, describe, expect, it } from "vitest"
import { diagnose, importKinetoFile } from "../../traces/index.ts"
import { refusal } from "./imported.ts"

const folder = mkdtempSync(join(tmpdir(), "tandem-doctor-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const root = fileURLToPath(new URL("../../", import.meta.url))

/** An archive of one empty file: its header, its entry in the list, the end. */
const zipOf = (name: string): Buffer => {
  const part = (bytes: number, mark: number, nameAt: number): Buffer => {
    const found = Buffer.alloc(bytes)
    found.writeUInt32LE(mark)
    if (nameAt > 0) found.writeUInt16LE(name.length, nameAt)
    return Buffer.concat([found, Buffer.from(nameAt > 0 ? name : "")])
  }
  const [header, entry, end] = [part(30, 0x04034b50, 26), part(46, 0x02014b50, 28), part(22, 0x06054b50, 0)]
  end.writeUInt16LE(1, 10)
  end.writeUInt32LE(entry.length, 12)
  end.writeUInt32LE(header.length, 16)
  return Buffer.concat([header, entry, end])
}

const of = (file: string) => Effect.runPromise(diagnose(join(root, file)))
const ofText = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content)
  return Effect.runPromise(diagnose(join(folder, name)))
}

describe("the diagnosis", () => {
  it.each([
    ["test/fixtures/import/00-reference.json", "kineto"],
    ["test/fixtures/import/nccl-a-launcher-prefix.txt", "nccl-tests"],
    ["traces/tables/nccl-h200-sockets.csv", "csv"],
    ["test/fixtures/import/req-a-seconds.jsonl", "requests"],
    ["test/fixtures/import/routing-a-mtp.jsonl", "routing"],
    ["traces/profiles/resnet18-h200.arrow", "profile"],
    ["scenarios/geo-gpt2.yaml", "scenario"]
  ])("of %s is that it is a %s, with what can be done with it", async (file, kind) => {
    const { readable, uses, ...rest } = await of(file)
    expect([rest.kind, readable]).toEqual([kind, true])
    expect(uses.length).toBeGreaterThan(0)
  })

  it("of what exec keeps names the command that goes on with it, and of others' files does not", async () => {
    const header = (text: string): Buffer => {
      const length = Buffer.alloc(8)
      length.writeBigUInt64LE(BigInt(text.length))
      return Buffer.concat([length, Buffer.from(text)])
    }
    for (const [name, content, kind] of [
      ["manifest.json", '{"format":"tandem-checkpoint","formatVersion":1}', "checkpoint"],
      ["rank.safetensors", header('{"__metadata__":{"format":"tandem-checkpoint"}}'), "checkpoint"],
      ["run.json", '{"format":"tandem-run","version":1}', "run"]
    ] as const) {
      const { uses, ...told } = await ofText(name, content)
      expect(told, name).toMatchObject({ kind, readable: true })
      expect(uses[0]!.how, name).toMatch(/^exec (?:train|agree) /u)
    }
    for (const [name, content, kind] of [
      ["other.safetensors", header('{"__metadata__":{"format":"pt"}}'), "safetensors"],
      ["other.json", '{"digest":"a","rows":[]}', "unknown"],
      ["half.json", '{"digest":"a","rows":[{"task":"b"}]}', "unknown"]
    ] as const)
      expect(await ofText(name, content), name).toMatchObject({ kind, readable: false })
  })

  it("of a folder of requests is that they are one trace", async () => {
    const within = join(folder, "requests")
    mkdirSync(within)
    expect(await Effect.runPromise(diagnose(within))).toMatchObject({ kind: "folder", readable: false })
    for (const [name, time] of [
      ["b.csv", 9],
      ["a.csv", 2]
    ] as const)
      writeFileSync(join(within, name), `arrived_at,num_prefill_tokens,num_decode_tokens\n${time},4,2\n`)
    writeFileSync(join(within, "README.md"), "no requests")
    const { kind, readable, title, contents, uses } = await Effect.runPromise(diagnose(within))
    expect({ kind, readable, title }).toEqual({
      kind: "requests",
      readable: true,
      title: "a folder of 2 traces of requests (vidur)"
    })
    expect(contents).toEqual(["2 requests over 7.000 s, of 4 prompt and 2 generated tokens in the mean"])
    expect(uses[0]!.how).toContain(`trace: ${within}`)
  })

  it("of a folder of traces is how they are one job's", async () => {
    const within = join(folder, "job")
    mkdirSync(within)
    const trace = readFileSync(join(root, "test/fixtures/import/00-reference.json"))
    for (const rank of ["rank0.json", "rank1.json"]) writeFileSync(join(within, rank), trace)
    const { readable, title, uses } = await Effect.runPromise(diagnose(within))
    expect([readable, title]).toEqual([true, "a folder of 2 profiler traces"])
    expect(uses[0]!.how).toContain(`sim import kineto ${within} -o`)
  })

  it("of a trace without a backward pass is no training", async () => {
    const { contents, uses, missing } = await of("test/fixtures/measured/h200-loop-4.json.gz")
    expect(contents).toContain("no backward pass: nothing is trained in it")
    const told = [...uses, ...missing].map(({ what, how }) => `${what} ${how}`).join("\n")
    expect(told).toContain("host: {measured: profile.arrow}")
    expect(told).not.toMatch(/data-parallel/u)
    const trained = await of("test/fixtures/import/00-reference.json")
    expect(trained.uses.map(({ what }) => what)).toContain("simulate data-parallel training")
  })

  it("says what a trace lacks and how to record it", async () => {
    const { missing } = await of("test/fixtures/import/03-no-shapes.json")
    expect(missing.map(({ how }) => how).join("\n")).toContain("record_shapes=True")
  })

  it.each([
    ["trace.json.gz", gzipSync('{"traceEvents": []}'), "kineto"],
    ["x.json", '{"Type":80,"CudaEvent":{"startNs":"100","endNs":"300"}}\n{"Type":59}\n', "nsys"],
    [
      "megatron.log",
      " [2024-05-01 10:00:00] iteration 10/ 500000 | elapsed time per iteration (ms): 5432.1 | lm loss: 1.05E+01 |",
      "training-log"
    ],
    [
      "deepspeed.log",
      "[2023-06-01 12:00:00,000] [INFO] [timer.py:181:stop] 0/10, RunningAvgSamplesPerSec=38.2, CurrSamplesPerSec=39.1",
      "training-log"
    ],
    ["x.sqlite", "SQLite format 3\u0000 CUPTI_ACTIVITY_KIND_KERNEL", "nsys"],
    ["x.pt", zipOf("archive/data.pkl"), "torch-save"],
    ["results.json", '{"rocprofiler-sdk-tool":[{"metadata":{}}]}', "rocprof"],
    ["page.json", "<!DOCTYPE html><html>", "html"],
    ["lfs.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"],
    ["nothing", "", "empty"],
    ["text", "hello\nworld", "unknown"],
    ["x.npz", zipOf("a.npy"), "npz"],
    ["burst.zip", zipOf("BurstGPT_1.csv"), "zip"],
    ["x.parquet", "PAR1\u0015\u0004", "parquet"],
    ["x.npy", Buffer.from(`\u0093NUMPY\u0001\0v\0${"{'descr': '<f4'}".padEnd(118)}`, "latin1"), "numpy"],
    ["m.safetensors", Buffer.from('\u0012\0\0\0\0\0\0\0{"__metadata__":{}}'), "safetensors"],
    ["snapshot.pickle", Buffer.from("800495", "hex"), "pickle"],
    ["other.sqlite", "SQLite format 3\u0000users", "sqlite"],
    ["a.xplane.pb", Buffer.concat([Buffer.from("0a9b12", "hex"), Buffer.alloc(300, 0xff)]), "xplane"],
    ["noise", Buffer.alloc(300, 0xff), "binary"],
    ["x.har", '{"log": {"version": "1.2", "creator": {}}}', "har"],
    ["config.json", '{"model_type": "llama", "hidden_size": 4096}', "model-config"],
    [
      "answers.csv",
      "op,ranks,sizeBytes,algorithm,seconds,latencySeconds,wireSeconds\nall_reduce,4,8,ring,1,0,1\n",
      "answers"
    ],
    ["study.csv", 'point,algorithm,ranks,digest\n0,"{""name"":""a"",""n"":1}",2,ab\n', "study-table"],
    ["loads.json", '{"step": [0], "expert_loads": [[8, 0]]}', "expert-loads"],
    ["spans.json", '{"resourceSpans": []}', "opentelemetry"],
    ["lengths.csv", "num_prefill_tokens,num_decode_tokens\n1,2\n", "requests"],
    [
      "host.json",
      '[{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 1}]',
      "kineto"
    ],
    ["nccl.log", "node:1:1 [0] NCCL INFO Bootstrap : Using eth0\n", "nccl-log"],
    ["topo.xml", '<system version="1"><cpu numaid="0"/></system>', "nccl-topology"],
    ["ds.txt", "---- Performance of all_reduce on 8 devices -----\n64.0 B 8x8 42.21 us\n", "comms-benchmark"],
    ["param.txt", "\tCOMMS-RES-all_reduce-float32\t 1024\t 256\t 42.1\n", "comms-benchmark"],
    ["nsys.csv", "Time (%),Total Time (ns),Instances,Name\n50.0,100,2,kernel\n", "nsys-stats"],
    ["iperf.json", '{"start": {"version": "iperf 3.9"}}', "iperf"],
    ["osu.txt", "# OSU MPI Allreduce Latency Test v5.9\n# Size  Avg Latency(us)\n4  1.37\n", "osu"],
    ["chakra.0.et", Buffer.from("070a05302e302e340c12", "hex"), "execution-trace"],
    ["chakra.1.et", Buffer.from("5e12100a06736368656d61ea0105312e302e31", "hex"), "execution-trace"],
    ["chakra.json", '{"workload_graph": [{"Id": 216, "Name": "aten::mm"}], "ngpus": 1}', "execution-trace"],
    ["et.json", '{"schema": "1.0.3-chakra.0.0.4", "pid": 7, "nodes": []}', "execution-trace"],
    ["numbers.json", "[1, 2, 3]", "unknown"],
    ["bench.jsonl", '{"completed": 3, "request_throughput": 0.3}', "unknown"],
    ["broken.txt", "# all_reduce_perf\n# size count type redop root time algbw busbw #wrong\n", "nccl-tests"]
  ])("of %s is that nothing can use it", async (name, content, kind) => {
    const { kind: found, readable } = await ofText(name, content)
    expect([found, readable]).toEqual([kind, false])
  })

  it("is what an import says too of a log that begins like a list", async () => {
    const log = join(folder, "train.log")
    writeFileSync(log, "[2024-05-01 10:00:00] iteration 10/ 50 | elapsed time per iteration (ms): 5432.1 |\n")
    const { field, value, accepted } = await refusal(importKinetoFile(log))
    expect(field).toBe("content")
    expect(value).toContain("a log of a training run")
    expect(accepted).toContain("torch.profiler")
  })

  it("looks at no more than the beginning of a large file, and at no pipe", async () => {
    const large = join(folder, "large.bin")
    writeFileSync(large, Buffer.alloc(1 << 20, 0xfe))
    // As large as no buffer can be; the rest of it is a hole.
    truncateSync(large, 6 * 2 ** 30)
    expect((await Effect.runPromise(diagnose(large))).kind).toBe("binary")
    const device = await Effect.runPromise(Effect.result(diagnose("/dev/zero")))
    expect(Result.isFailure(device) && device.failure.value).toBe("a pipe or a device")
  })

  it("says where a routing may be in two forms", async () => {
    const { kind, warnings } = await ofText(
      "bare.json",
      "[[[0, 1], [2, 3], [4, 5]], [[0, 1], [2, 3], [4, 5]]]"
    )
    expect(kind).toBe("routing")
    expect(warnings.join()).toContain("in the form of json as well, with 3 steps of 2 layers")
  })

  it("says of a trace without a device, and of lengths without times, that they are such", async () => {
    const host = '[{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 1}]'
    expect((await ofText("host.json", host)).title).toContain("of the host alone")
    const lengths = await ofText("lengths.csv", "num_prefill_tokens,num_decode_tokens\n1,2\n")
    expect([lengths.title, lengths.missing[0]!.what]).toEqual([
      "lengths of requests, without when they came",
      "a column of arrivals"
    ])
    expect((await ofText("quoted.csv", 'a,b\n"1,2",3\n')).title).toBe("a table of something else")
    expect((await ofText("a.log", "2022-10-25 11:24:21,278,INFO\nModel: a\n")).title).toBe(
      "text of something else"
    )
  })

  it.each([
    [
      "et.json",
      '{"schema": "1.0.3-chakra.0.0.4", "pid": 7, "nodes": []}',
      "a PyTorch or Chakra execution trace"
    ],
    ["chakra.et", Buffer.from("070a05302e302e340c12", "hex"), "a Chakra execution trace in protobuf"],
    ["ranks.tar", Buffer.from(`rank0.json${"\0".repeat(247)}ustar`), "a tar archive"]
  ])("of %s is what an import of traces says too", async (name, content, title) => {
    writeFileSync(join(folder, name), content)
    const result = await Effect.runPromise(Effect.result(importKinetoFile(join(folder, name))))
    expect(Result.isFailure(result) && result.failure.value).toContain(title)
    expect(Result.isFailure(result) && result.failure.accepted).toMatch(/^a PyTorch profiler trace .*; /u)
  })
})

// Tables of timings: CSV made by people, text printed by nccl-tests; and fitting a profile to its un-profiled step.
import * as fc from "fast-check"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import {
  importCsv,
  importCsvFile,
  importNcclTests,
  readProfile,
  rescaleHostGaps,
  totalSeconds,
  TraceError,
  type ImportReport,
  type NcclTestsOptions
} from "../../traces/index.ts"
import { profiles } from "./arbitraries.ts"

const run = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)

const failure = async (effect: Effect.Effect<ImportReport, TraceError>): Promise<TraceError> => {
  const result = await run(Effect.result(effect))
  if (!Result.isFailure(result)) throw new Error("imported without an error")
  expect(result.failure).toBeInstanceOf(TraceError)
  return result.failure
}

const repository = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

describe("CSV", () => {
  it("reads ops", async () => {
    const { profile, warnings } = await run(
      importCsv("op,attributes,median_seconds\ngemm,m=1;k=768;n=3072,3.5e-05\r\n\r\ncopy,bytes=4096,1e-6\n", {
        file: "dir/my-ops.csv",
        device: "GPU"
      })
    )
    expect(profile).toMatchObject({ name: "my-ops", device: "GPU", steps: 0, layers: [], collectives: [] })
    expect(profile.ops).toEqual([
      { op: "gemm", attributes: { m: 1, k: 768, n: 3072 }, medianSeconds: 3.5e-5 },
      { op: "copy", attributes: { bytes: 4096 }, medianSeconds: 1e-6 }
    ])
    expect(warnings).toEqual([])
  })

  it("reads collectives, columns in any order, quoted cells, a byte order mark", async () => {
    const { profile } = await run(
      importCsv('\uFEFFlink,op,bytes,ranks,median_seconds\n"10gbit, ""shaped""",all_gather,4096,8,0.25')
    )
    expect(profile.collectives).toEqual([
      { op: "all_gather", ranks: 8, sizeBytes: 4096, medianSeconds: 0.25, link: '10gbit, "shaped"' }
    ])
  })

  it("takes means, and says so; without a link column links are unshaped", async () => {
    const { profile, warnings } = await run(importCsv("op,ranks,bytes,mean_seconds\nbroadcast,2,8,1"))
    expect(profile.collectives[0]!.link).toBe("unshaped")
    expect(warnings.join()).toContain("means")
  })

  const rowsOf = async (text: string, options: Parameters<typeof importCsv>[1] = {}) => {
    const { profile, warnings } = await run(importCsv(text, options))
    const rows = profile.collectives.map(({ op, ranks, sizeBytes, medianSeconds, link }) =>
      [op, ranks, sizeBytes, Number(medianSeconds.toPrecision(12)), link].join(" ")
    )
    return { rows, warnings: warnings.join("\n") }
  }

  it("reads collectives as benchmarks call their columns, ops and units", async () => {
    const spaced =
      "Collective,Num GPUs,Size (KB),Avg Time (us),AlgBW (GB/s)\nAllReduce,8,4,12.5,0\nall-to-all,8,4,20,0\nReduceScatter,8,4,9,0\nReduce,8,4,9,0\n"
    const found = await rowsOf(spaced)
    expect(found.rows).toEqual([
      "all_reduce 8 4000 0.0000125 unshaped",
      "all_to_all 8 4000 0.00002 unshaped",
      "reduce_scatter 8 4000 0.000009 unshaped"
    ])
    expect(found.warnings).toMatch(/means.*\ncolumns AlgBW \(GB\/s\) are not used\nReduce: not a collective/u)
    expect(found.warnings).toMatch(/sizes of reduce_scatter are taken for one rank's/u)
    for (const [name, value] of [
      ["median_ms", "0.0125"],
      ["latency_us", "12.5"],
      ["p50_latency_ns", "12500"],
      ["duration", "12.5 us"],
      ["Time [µs]", "12.5"],
      ["avg_latency_us,median_seconds", "99,1.25e-5"]
    ] as const) {
      const { rows } = await rowsOf(`world_size,operation,${name},message_size\n8,ALL_REDUCE,${value},4KiB\n`)
      expect(rows, name).toEqual(["all_reduce 8 4096 0.0000125 unshaped"])
    }
    expect((await rowsOf("op,ranks,bytes,time_us\nall_reduce,2,8,3\n")).warnings).toContain("taken for one")
    // Of several dtypes or runs of a size, the median; and options say what the table does not.
    const dtypes = "size,dtype,time_us\n8,float,3\n8,half,5\n8,bfloat16,6\n"
    expect(await rowsOf(dtypes, { op: "bcast", ranks: 4, link: "ib" })).toMatchObject({
      rows: ["broadcast 4 8 0.000005 ib"]
    })
    expect((await failure(importCsv(dtypes))).accepted).toMatch(
      /which collective it was, --op says; of how many ranks/u
    )
    expect((await failure(importCsv("op,ranks,median_us\nall_reduce,2,8\n"))).accepted).toContain(
      "a column of bytes"
    )
  })

  const ops = "op,attributes,median_seconds\n"
  const collectives = "op,ranks,bytes,median_seconds,link\n"
  it.each([
    ["", "content", "empty"],
    ["a,b,c\n1,2,3", "line 1, header", "a,b,c"],
    ["op,op,attributes,median_seconds\n", "line 1, header", "op twice"],
    ["op,attributes,median_seconds,colour\n", "line 1, header", "colour"],
    [ops, "content", "without rows"],
    [`${ops}gemm,m=1,-1`, "line 2, column median_seconds", "-1"],
    [`${ops}gemm,m=1,3\n\ngemm,m=1,fast`, "line 4, column median_seconds", "fast"],
    [`${ops}gemm,m=1,NaN`, "line 2, column median_seconds", "NaN"],
    [`${ops}gemm,m=1,0x10`, "line 2, column median_seconds", "0x10"],
    [`${ops}gemm,m=big,1`, "line 2, column attributes", "m=big"],
    [`${ops}gemm,m=1;m=2,1`, "line 2, column attributes", "m=1;m=2"],
    [`${ops}gemm,m,1`, "line 2, column attributes", "m"],
    [`${ops},m=1,1`, "line 2, column op", ""],
    [`${ops}gemm,m=1`, "line 2", "2 cells"],
    [`${ops}"gemm,m=1,1`, "line 2", "a quote that never closes"],
    [`${collectives}all_recude,2,8,1,x`, "line 2, column op", "all_recude"],
    [`${collectives}all_reduce,0,8,1,x`, "line 2, column ranks", "0"],
    [`${collectives}all_reduce,2.5,8,1,x`, "line 2, column ranks", "2.5"],
    [`${collectives}all_reduce,2,8 furlongs,1,x`, "line 2, column bytes", "8 furlongs"],
    [`${collectives}all_reduce,2,8,1 furlong,x`, "line 2, column median_seconds", "1 furlong"],
    ["op,ranks,bytes,time\nall_reduce,2,8,3", "line 2, column time", "3"],
    ["op,ranks,bytes,seconds\nall_reduce,2,8,3", "line 1, header", "seconds"],
    [
      "op,ranks,sizeBytes,seconds,latencySeconds,wireSeconds\nall_reduce,2,8,3,1,2",
      "line 1, header",
      "predicted"
    ]
  ])("%j is refused with its place", async (text, field, value) => {
    const error = await failure(importCsv(text, { file: "t.csv" }))
    expect(error).toMatchObject({ file: "t.csv", field })
    expect(error.value).toContain(value)
    expect(error.accepted).not.toBe("")
  })

  it("never fails with anything else", async () => {
    const text = readFileSync(repository("traces/tables/nccl-h200-sockets.csv"), "utf8")
    const seen = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: text.length }),
        fc.nat({ max: 40 }),
        fc.string({ maxLength: 4 }),
        async (at, removed, added) => {
          const changed = text.slice(0, at) + added + text.slice(at + removed)
          const result = await run(Effect.result(importCsv(changed)))
          seen[Result.isSuccess(result) ? "read" : "refused"]++
        }
      ),
      { numRuns: 300 }
    )
    expect(seen.read).toBeGreaterThan(10)
    expect(seen.refused).toBeGreaterThan(50)
  })
})

describe("tables of Vidur", () => {
  const header = (op: string) =>
    ["min", "max", "mean", "median", "std"].map((s) => `time_stats.${op}.${s}`).join()

  it("of collectives are read: milliseconds, bytes, ranks inside a node and across", async () => {
    const { profile, warnings } = await run(
      importCsv(
        [
          `,${header("all_reduce")},rank,num_workers,size,collective,devices_per_node,max_devices_per_node`,
          "0,0.01,0.05,0.03,0.04,0.01,0,4,2048,all_reduce,4,8",
          "1,0.01,0.05,0.03,0.06,0.01,0,4,2048,all_reduce,4,8",
          "2,0.01,0.05,0.03,0.5,0.01,0,4,2048,all_reduce,2,8",
          "3,0.01,0.05,0.03,,0.01,0,4,4096,all_reduce,4,8"
        ].join("\n")
      )
    )
    expect(
      profile.collectives.map((row) => ({ ...row, medianSeconds: Math.round(row.medianSeconds * 1e6) }))
    ).toEqual([
      { op: "all_reduce", ranks: 4, sizeBytes: 2048, medianSeconds: 50, link: "unshaped" },
      { op: "all_reduce", ranks: 4, sizeBytes: 2048, medianSeconds: 500, link: "across nodes" }
    ])
    expect(warnings.join("\n")).toContain("1 time is blank or 0")
    expect(warnings.join("\n")).toContain("1 row is of ranks on several nodes")
  })

  const model =
    "n_head,n_kv_head,n_embd,n_expanded_embd,vocab_size,use_gated_mlp,num_tokens,num_tensor_parallel_workers"
  const layer = ["attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj", "mlp_act"]
  const mlp = (sizes: string) =>
    importCsv(
      [
        `${layer.map(header).join()},${model}`,
        `${layer.map((_, i) => `0,0,0,${i + 1},0`).join()},${sizes}`
      ].join("\n")
    )

  it("of a model's layers are products by their sizes, divided among ranks", async () => {
    const { profile, warnings } = await run(mlp("8,2,64,96,1000,True,5,2"))
    expect(profile.ops.map(({ op, attributes, medianSeconds }) => [op, attributes, medianSeconds])).toEqual([
      ["gemm_fp16", { m: 5, k: 64, n: ((8 + 2 * 2) * 8) / 2 }, 0.001],
      ["gemm_fp16", { m: 5, k: 32, n: 64 }, 0.002],
      ["gemm_fp16", { m: 5, k: 64, n: 96 }, 0.003],
      ["gemm_fp16", { m: 5, k: 48, n: 64 }, 0.004]
    ])
    expect(warnings.join()).toContain("columns of mlp_act are neither products")
    expect((await run(mlp("8,2,64,128,1000,False,5,1"))).profile.ops[2]!.attributes["n"]).toBe(128)
  })

  it("of attention are a rank's heads over prompts and over what is cached", async () => {
    const columns = ["attn_prefill", "attn_decode", "attn_kv_cache_save"]
    const sizes =
      "n_embd,n_q_head,n_kv_head,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size,is_prefill"
    const row = (prefill: string, decode: string, rest: string) =>
      `${[prefill, decode, "1"].map((each) => `0,0,0,${each},0`).join()},${rest}`
    const { profile, warnings } = await run(
      importCsv(
        [
          `${columns.map(header).join()},${sizes}`,
          row("2", "", "4096,32,8,2,1,512,0,True"),
          row("3", "", "4096,32,8,2,1,512,1024,True"),
          row("", "4", "4096,32,8,2,16,0,1023,False"),
          row("", "6", "4096,32,8,2,16,0,1023,False")
        ].join("\n")
      )
    )
    expect(profile.ops.map(({ op, attributes, medianSeconds }) => [op, attributes, medianSeconds])).toEqual([
      ["attention_prefill_fp16", { batch: 1, tokens: 512, q_heads: 16, kv_heads: 4, d: 128 }, 0.002],
      ["attention_decode_fp16", { batch: 16, kv: 1024, q_heads: 16, kv_heads: 4, d: 128 }, 0.005]
    ])
    expect(warnings.join("\n")).toMatch(/1 times are of parts of prompts/u)
    expect(warnings.join("\n")).toMatch(/columns of attn_kv_cache_save are neither/u)
    const odd = importCsv(
      `${columns.map(header).join()},${sizes}\n${row("2", "", "4096,30,8,4,1,512,0,True")}`
    )
    expect((await failure(odd)).accepted).toContain("heads divide evenly")
  })

  it("that lack a column, or hold what is no number, are refused by name", async () => {
    const error = await failure(importCsv(`${header("all_reduce")},size\n1,1,1,1,1,8`))
    expect([error.field, error.accepted]).toEqual([
      "line 1, header",
      "the column num_workers, as Vidur's tables have"
    ])
    expect((await failure(mlp("8,2,64,97,1000,False,5,2"))).accepted).toContain("divide evenly")
    expect((await failure(mlp("8,2,64,96,1000,False,x,2"))).field).toBe("line 2, column num_tokens")
    const other = await failure(importCsv(`${header("mlp_act")},batch_size\n1,1,1,1,1,8`))
    expect(other.accepted).toContain("time_stats.mlp_up_proj.median")
  })
})

describe("the measured tables that ship", () => {
  // Rows of the tables, counted with `wc -l`; the values are read straight from the files' text.
  it.each([
    ["h200-ops", 91, 0, "attention_decode_bf16", "NVIDIA H200"],
    ["nccl-h200-sockets", 0, 72, "all_to_all", "NVIDIA H200"],
    ["allreduce-ddp-gpt2-h200", 0, 10, "all_reduce", "NVIDIA H200"],
    ["nccl-h100-sockets", 0, 12, "reduce_scatter", "NVIDIA H100"],
    ["nccl-h100-nvlink", 0, 12, "all_gather", "NVIDIA H100"],
    ["nccl-h200-nvlink", 0, 88, "all_to_all", "NVIDIA H200"]
  ])("%s gives its profile", async (name, ops, collectives, someOp, device) => {
    const path = repository(`traces/tables/${name}.csv`)
    const { profile } = await run(importCsvFile(path, { device }))
    const shipped = await run(readProfile(repository(`traces/profiles/${name}.arrow`)))
    expect({ ...shipped, source: "" }).toEqual({ ...profile, source: "" })
    expect([shipped.ops.length, shipped.collectives.length]).toEqual([ops, collectives])
    expect([...shipped.ops, ...shipped.collectives].some(({ op }) => op === someOp)).toBe(true)
    const lastTime = /([\d.e-]+)(?:,\w+)?\n$/u.exec(readFileSync(path, "utf8"))![1]
    expect([...shipped.ops, ...shipped.collectives].at(-1)!.medianSeconds).toBe(Number(lastTime))
  })

  it("delays and bandwidths between regions cover each pair once, with plausible values", () => {
    const { pairs } = JSON.parse(readFileSync(repository("traces/wan-dtfm.json"), "utf8")) as {
      pairs: Record<string, [number, number]>
    }
    const regions = new Set(Object.keys(pairs).flatMap((pair) => pair.split("-")))
    expect(Object.keys(pairs)).toHaveLength((regions.size * (regions.size - 1)) / 2)
    // arXiv:2206.01288: the table has Oregon-Virginia at 67 ms and 0.79 Gbit/s.
    expect(pairs["Oregon-Virginia"]).toEqual([67, 0.79])
  })
})

/**
 * A run's text in the layout of nccl-tests (src/common.cu prints it); the numbers are made up but consistent: algbw is
 * size / time, which the test uses to check which column was read as what.
 */
const ncclText = (options: { readonly name?: string; readonly ranks?: number } = {}): string => {
  const { name = "all_reduce_perf", ranks = 4 } = options
  const device = (rank: number) =>
    `#  Rank ${String(rank).padStart(2)} Group  0 Pid  ${1200 + rank} on     node-a device ${String(rank).padStart(2)} [0x${rank}8] NVIDIA H100 80GB HBM3`
  const row = (size: number, out: number, inside: number) => {
    const rate = (time: number) => `${time.toFixed(2)} ${(size / time / 1000).toFixed(2)} 0.00 0`
    return `${String(size).padStart(12)} ${size / 4} float sum -1 ${rate(out)} ${rate(inside)}`
  }
  return [
    `# Collective test starting: ${name}`,
    "# nThread 1 nGpus 4 minBytes 1024 maxBytes 67108864 step: 4(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0",
    "#",
    "# Using devices",
    ...Array.from({ length: ranks }, (_, rank) => device(rank)),
    "#",
    "#                                                              out-of-place                       in-place          ",
    "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong",
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       ",
    row(1024, 12.5, 11),
    row(1_048_576, 40, 38.5),
    row(67_108_864, 900, 850),
    "# Out of bounds values : 0 OK",
    "# Avg bus bandwidth    : 50.123",
    "#"
  ].join("\n")
}

describe("nccl-tests", () => {
  const times = async (text: string, options: NcclTestsOptions = {}) =>
    (await run(importNcclTests(text, options))).profile.collectives

  it("gives sizes and times, out of place unless asked", async () => {
    const { profile, warnings } = await run(importNcclTests(ncclText(), { file: "run.txt", link: "nvlink" }))
    expect(profile).toMatchObject({ name: "run", device: "NVIDIA H100 80GB HBM3" })
    expect(
      profile.collectives.map(({ medianSeconds, ...cost }) => [cost, Math.round(medianSeconds * 1e9)])
    ).toEqual([
      [{ op: "all_reduce", ranks: 4, sizeBytes: 1024, link: "nvlink" }, 12_500],
      [{ op: "all_reduce", ranks: 4, sizeBytes: 1_048_576, link: "nvlink" }, 40_000],
      [{ op: "all_reduce", ranks: 4, sizeBytes: 67_108_864, link: "nvlink" }, 900_000]
    ])
    expect(warnings.join()).toContain("means")
    const inside = await times(ncclText(), { inPlace: true })
    expect(inside.map(({ medianSeconds }) => Math.round(medianSeconds * 1e9))).toEqual([
      11_000, 38_500, 850_000
    ])
  })

  // doc/PERFORMANCE.md of nccl-tests: the size of an all-gather is all ranks' data, that of a reduce-scatter the input.
  it.each([
    ["all_gather_perf", "all_gather", 256],
    ["reduce_scatter_perf", "reduce_scatter", 256],
    ["alltoall_perf", "all_to_all", 1024],
    ["broadcast_perf", "broadcast", 1024],
    ["sendrecv_perf", "send_recv", 1024]
  ])("%s counts bytes as CollectiveCost does", async (name, op, sizeBytes) => {
    expect((await times(ncclText({ name })))[0]).toMatchObject({ op, sizeBytes, ranks: 4 })
  })

  it("reads the layout without a root column, with carriage returns, and mpirun's prefixes", async () => {
    const old = ncclText().replaceAll(" -1 ", " ").replace(" root ", " ").replaceAll("#wrong", "error")
    expect(await times(old)).toEqual(await times(ncclText()))
    expect(await times(ncclText().replaceAll("\n", "\r\n"))).toEqual(await times(ncclText()))
    expect(await times(ncclText().replaceAll(/^/gmu, "[1,0]<stdout>:"))).toEqual(await times(ncclText()))
  })

  it("takes operation and ranks from options where the text lacks them", async () => {
    const bare = ncclText({ ranks: 0 }).replace("# Collective test starting: all_reduce_perf\n", "")
    expect((await failure(importNcclTests(bare, { ranks: 8 }))).field).toBe("op")
    expect((await failure(importNcclTests(bare, { op: "all_reduce" }))).field).toBe("ranks")
    expect((await times(bare, { op: "all_reduce", ranks: 8 }))[0]).toMatchObject({
      op: "all_reduce",
      ranks: 8
    })
  })

  it("tells of an option that says otherwise than the text which test it was", async () => {
    const vain = async (op: string) =>
      (await run(importNcclTests(ncclText(), { op }))).warnings.filter((one) => one.includes("--op"))
    expect(await vain("all_gather")).toEqual([
      "--op all_gather has no effect on all_reduce_perf: the text names that test"
    ])
    expect(await vain("all_reduce_perf")).toEqual([])
  })

  it.each([
    ["", "header", "missing"],
    [ncclText({ name: "hypercube_perf" }), "op", "hypercube"],
    [ncclText().replace("40.00", "fast"), "line 14, column time", "fast"],
    [ncclText().replace("40.00", ""), "line 14", "1048576"],
    [ncclText().replace(/^ .*\n/gmu, ""), "rows", "missing"],
    // Built without MPI and started by mpirun, each process is a run of its own: a mistake people report.
    [ncclText().replace("Rank  1", "Rank  0"), "line 6", "rank 0 a second time"],
    [ncclText().replace(/^#\s+Rank\s+2.*\n/gmu, ""), "ranks", "3 listed"]
  ])("refuses what it cannot read, with its place (%#)", async (text, field, value) => {
    const error = await failure(importNcclTests(text, { file: "n.txt" }))
    expect(error).toMatchObject({ file: "n.txt", field })
    expect(error.value).toContain(value)
  })
})

describe("rescaleHostGaps", () => {
  const phase = (busySeconds: number, spanSeconds: number) => ({ busySeconds, spanSeconds })
  const profile = {
    ...fc.sample(profiles, { numRuns: 1, seed: 3 })[0]!,
    stepSeconds: 10,
    layers: [
      { name: "a", forward: phase(1, 3), backward: phase(2, 2), optimizer: phase(0, 0) },
      { name: "b", forward: phase(1, 2), backward: phase(1, 2), optimizer: phase(0, 1) }
    ]
  }

  it("scales the gaps and nothing else", () => {
    // 5 s busy, 5 s gaps; a step of 7 s leaves 2 s of gaps: each 0.4 of what it was.
    const { layers, stepSeconds } = rescaleHostGaps(profile, 7)
    expect(stepSeconds).toBe(7)
    expect(layers[0]).toEqual({
      name: "a",
      forward: phase(1, 1.8),
      backward: phase(2, 2),
      optimizer: phase(0, 0)
    })
    expect(layers[1]!.optimizer.spanSeconds).toBeCloseTo(0.4, 15)
    expect(totalSeconds(layers).spanSeconds).toBeCloseTo(7, 12)
  })

  it("goes down to the busy time and no further", () => {
    expect(totalSeconds(rescaleHostGaps(profile, 5).layers).spanSeconds).toBe(5)
    expect(() => rescaleHostGaps(profile, 4.99)).toThrow(RangeError)
    expect(() => rescaleHostGaps(profile, Number.NaN)).toThrow(RangeError)
  })

  it("spreads missing time over the work where there are no gaps", () => {
    const tight = rescaleHostGaps(profile, 5)
    const { layers } = rescaleHostGaps(tight, 10)
    expect(layers[0]!.backward.spanSeconds).toBe(4)
    expect(totalSeconds(layers).spanSeconds).toBeCloseTo(10, 12)
  })

  it("hits any step from the busy time up, keeping busy times", () => {
    const times = fc.double({ min: 0, max: 1, noNaN: true })
    const phases = fc
      .record({ busySeconds: times, gap: times })
      .map(({ busySeconds, gap }) => phase(busySeconds, busySeconds + gap))
    const layer = fc.record({ name: fc.constant("l"), forward: phases, backward: phases, optimizer: phases })
    fc.assert(
      fc.property(
        fc.array(layer, { minLength: 1, maxLength: 8 }),
        fc.double({ min: 0, max: 4, noNaN: true }),
        (layers, more) => {
          const before = totalSeconds(layers)
          fc.pre(before.busySeconds > 1e-6)
          const target = before.busySeconds * (1 + more)
          const after = rescaleHostGaps({ ...profile, layers }, target)
          const { busySeconds, spanSeconds } = totalSeconds(after.layers)
          expect(busySeconds).toBe(before.busySeconds)
          expect(Math.abs(spanSeconds / target - 1)).toBeLessThan(1e-9)
        }
      )
    )
  })
})

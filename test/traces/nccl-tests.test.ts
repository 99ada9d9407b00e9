// Output of nccl-tests as launchers, pods, pages and logs of many tests hold it: small made-up ones of each kind.
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { importNcclTests, importNcclTestsFile, type ImportReport } from "../../traces/index.ts"
import { fixture, refusal } from "./imported.ts"

const run = <A, E>(effect: Effect.Effect<A, E>): Promise<A> => Effect.runPromise(effect)

const rows = ({ profile }: ImportReport) =>
  profile.collectives.map(({ op, ranks, sizeBytes, medianSeconds }) => [
    op,
    ranks,
    sizeBytes,
    Math.round(medianSeconds * 1e8) / 100
  ])
const both = [
  ["all_reduce", 4, 4096, 11],
  ["all_reduce", 4, 1_048_576, 99]
]

describe("output of nccl-tests", () => {
  it.each([
    ["nccl-a-launcher-prefix", both, ""],
    ["nccl-b-srun-label", both, ""],
    ["nccl-d-prte-tag", both, ""],
    ["nccl-f-digit-host", both, ""],
    ["nccl-h-two-tests", [...both, ["all_gather", 4, 1024, 11], ["all_gather", 4, 262_144, 99]], ""],
    ["nccl-i-no-hash", both, ""],
    ["nccl-j-all-ops", both, "rows of redop sum are taken, those of max left out"],
    ["nccl-k-wrong", both, "1 row has wrong results (#wrong up to 1234)"],
    ["nccl-l-cut-row", both, "line 13 is cut short"],
    ["nccl-m-bus-id", both, ""]
  ])("%s", async (name, expected, warning) => {
    const report = await run(importNcclTestsFile(fixture(`${name}.txt`)))
    expect(rows(report)).toEqual(expected)
    expect(report.profile.device).toBe("Example GPU")
    expect(report.warnings.join("\n")).toContain(warning)
  })

  it("is read where a container's runtime or a journal keeps each line as JSON", async () => {
    const lines = readFileSync(fixture("nccl-i-no-hash.txt"), "utf8").split("\n")
    for (const entry of [
      (line: string) => ({ log: `${line}\n`, stream: "stdout", time: "2024-01-01T00:00:00Z" }),
      (line: string) => ({ MESSAGE: line, PRIORITY: "6" })
    ]) {
      const logged = lines.map((line) => JSON.stringify(entry(line))).join("\n")
      expect(rows(await run(importNcclTests(logged)))).toEqual(both)
    }
  })

  /** Output of `ranks` ranks, rows as the program prints them; `labels` are the columns between type and times. */
  const printed = (ranks: number, labels: string, rows: ReadonlyArray<string>): string =>
    [
      `# nThread 1 nGpus ${ranks} minBytes 1 maxBytes 64 step: 2(factor)`,
      ...Array.from(
        { length: ranks },
        (_, rank) => `#   Rank  ${rank} Pid 7 on host device  ${rank} [0x1a] Example GPU`
      ),
      `#       size         count    type ${labels}    time   algbw   busbw  error     time   algbw   busbw  error`,
      ...rows,
      ""
    ].join("\n")
  // Time 10 us, 4 GB/s, and what the bus makes of it.
  const times = (bus: string): string => `10.00    4.00    ${bus}  0e+00    9.00    4.44    4.44    N/A`

  it.each([
    ["all_reduce", 4, "redop", `64 16 float sum ${times("6.00")}`, 64],
    ["all_reduce", 8, "redop root", `64 16 float sum -1 ${times("7.00")}`, 64],
    ["reduce_scatter", 4, "redop root", `64 4 float sum -1 ${times("3.00")}`, 16],
    ["broadcast", 4, "root", `64 16 float 0 ${times("4.00")}`, 64],
    ["broadcast", 4, "redop root", `64 16 float none 0 ${times("4.00")}`, 64],
    ["all_gather", 4, "", `64 4 float ${times("3.00")}`, 16],
    // The column of reductions is there and blank.
    ["all_to_all", 4, "redop", `64 4 float          ${times("3.00")}`, 64]
  ])(
    "that does not name its test is of %s by its columns and bandwidths",
    async (op, ranks, labels, row, bytes) => {
      const report = await run(importNcclTests(printed(ranks, labels, [`0 0 ${row.slice(5)}`, row])))
      expect(rows(report)).toEqual([[op, ranks, bytes, 10]])
      expect(report.warnings.join()).toContain("the text does not name its test")
      expect(report.warnings.join()).toContain("1 row of 0 bytes was left out")
    }
  )

  it.each([
    ["two ranks", printed(2, "redop root", [`64 16 float sum -1 ${times("4.00")}`]), "missing"],
    [
      "all-gather or all-to-all",
      printed(4, "redop root", [`64 4 float none -1 ${times("3.00")}`]),
      "missing"
    ],
    ["a reduction to one rank", printed(4, "redop root", [`64 4 float sum 0 ${times("4.00")}`]), '"reduce"']
  ])("that does not name its test and may be of several is refused: %s", async (_, text, value) => {
    const error = await refusal(importNcclTests(text))
    expect([error.field, error.value]).toEqual(["op", value])
  })

  /** A run that names no test itself. */
  const unnamed = (row: string, device = "Example GPU"): string =>
    printed(4, "redop root", [row]).replaceAll("Example GPU", device)
  const reduced = `64 16 float sum -1 ${times("6.00")}`
  const gathered = `64 4 float none -1 ${times("3.00")}`

  it("takes the names of tests from the command lines between their outputs, as pages and notebooks have them", async () => {
    const text = [
      "### Results of all_reduce_perf, all_gather_perf and alltoall_perf",
      "$ ./build/all_reduce_perf -b 64 -e 64 -g 4",
      unnamed(reduced),
      "# Avg bus bandwidth    : 6",
      "$ mpirun -np 4 /opt/nccl-tests/build/all_gather_perf",
      unnamed(gathered, "Other GPU"),
      "$ ./build/reduce_perf -g 4",
      unnamed(reduced),
      "$ ./build/reduce_perf -g 4",
      unnamed(reduced)
    ].join("\n")
    const report = await run(importNcclTests(text))
    expect(rows(report)).toEqual([
      ["all_reduce", 4, 64, 10],
      ["all_gather", 4, 16, 10]
    ])
    expect(report.warnings).toContain("reduce: not a test that is used, left out")
    expect(report.warnings.join()).toContain("different devices, taken together: Example GPU, Other GPU")
  })

  it("tells two programs of one script apart by what they printed, or asks", async () => {
    const script = "./build/alltoall_perf -g 4\n./build/all_reduce_perf -g 4\n"
    expect(rows(await run(importNcclTests(script + unnamed(reduced))))).toEqual([["all_reduce", 4, 64, 10]])
    const { field, value } = await refusal(importNcclTests(script + unnamed(gathered)))
    expect([field, value]).toEqual(["op", '"alltoall_perf or all_reduce_perf"'])
  })

  it("leaves out a test that failed before its first row, and says so", async () => {
    const failing = printed(4, "redop root", []).replace(
      "# nThread",
      "# Collective test starting: alltoall_perf\n# nThread"
    )
    const text = [
      failing,
      "host: Test NCCL failure common.cu:401 'remote process exited'",
      ` .. host pid 7: Test failure common.cu:519`,
      "# Collective test starting: all_reduce_perf",
      unnamed(reduced)
    ].join("\n")
    const report = await run(importNcclTests(text))
    expect(rows(report)).toEqual([["all_reduce", 4, 64, 10]])
    expect(report.warnings).toContain("a test that ends before its first row (alltoall) was left out")
    expect((await refusal(importNcclTests(failing + unnamed(reduced)))).value).toBe("rank 0 a second time")
  })

  it("is read where messages of NCCL come between a row and its times", async () => {
    const text = printed(4, "redop root", [
      "all_reduce_perf_mpi",
      "        64        16  float  sum  -1host:123:456 [0] NCCL INFO Launch mode Parallel",
      "host:123:457 [1] NCCL INFO Channel 00/02 : 0 1 2 3",
      `[1,0]<stdout>:   ${times("6.00")}`,
      `       128        32  float  sum  -1   20.00    6.40    9.60  0e+00`,
      "host:123:456 [0] NCCL WARN 2 of 4",
      "   19.00    6.74   10.11    N/A"
    ])
    expect(rows(await run(importNcclTests(text)))).toEqual([
      ["all_reduce", 4, 64, 10],
      ["all_reduce", 4, 128, 20]
    ])
    // A launcher labels every line, and messages end a line of times as well.
    const label = (line: string) => `[0] ${line.replace("-1host:", "-1[0] host:")}`
    const labelled = text
      .replace(`[1,0]<stdout>:   ${times("6.00")}`, (line) => {
        const [, first, second] = /^(.{15}\s.+0e\+00)(\s+9\.00.*)$/u.exec(line)!
        return `${first!.slice(14)}[0] host:123:456 [0] NCCL INFO 64 Bytes -> Algo 0 time 25.8\n${second}`
      })
      .split("\n")
      .map(label)
      .join("\n")
    const found = await run(importNcclTests(labelled))
    expect(rows(found)).toEqual(rows(await run(importNcclTests(text))))
    expect(found.profile.device).toBe("Example GPU")
    const cut = text.split("\n").filter((line) => !line.startsWith("[1,0]"))
    expect((await refusal(importNcclTests(cut.join("\n")))).accepted).toBe("13 columns, as in the header")
  })

  it.each([
    ["with a root", "broadcast", 4, "redop root", "float none 3", times("4.00")],
    ["with a root alone", "broadcast", 4, "root", "float 3", times("4.00")],
    ["with a reduction alone", "all_reduce", 4, "redop", "float sum", times("6.00")],
    ["without either", "all_gather", 4, "", "float", times("3.00")],
    // The reduction is blank, and may be: a cell less still shifts nothing.
    ["with a blank reduction", "all_to_all", 4, "redop", "float", times("3.00")]
  ])(
    "of which the last row lacks cells has that row left out: %s",
    async (_, op, ranks, labels, of, cells) => {
      const whole = `64 16 ${of} ${cells}`
      const cellsOfLast = `128 16 ${of} ${cells.replace("10.00", "20.00")}`.split(/\s+/u)
      const first = [op, ranks, op === "all_gather" ? 16 : 64, 10]
      const read = (kept: number) =>
        run(
          importNcclTests(printed(ranks, labels, [whole, cellsOfLast.slice(0, kept).join(" ")]).trimEnd(), {
            op: op as "broadcast"
          })
        )
      expect(rows(await read(cellsOfLast.length))).toHaveLength(2)
      // Down to the sizes and type: with less it is no row.
      for (let kept = cellsOfLast.length - 1; kept >= 3; kept--) {
        const report = await read(kept)
        expect(rows(report), `${kept} cells`).toEqual([first])
        expect(report.warnings.join("\n"), `${kept} cells`).toContain(
          "is cut short and was left out: 128 16 float"
        )
      }
    }
  )

  it("as JSON, with what the text says", async () => {
    const row = (size: number, out: number, nwrong: number) => ({
      size,
      count: size / 4,
      type: "float",
      redop: "sum",
      root: "-1",
      out_of_place: { time: out, alg_bw: 1, bus_bw: 1, nwrong },
      in_place: { time: out - 1, alg_bw: 1, bus_bw: 1, nwrong: 0 }
    })
    const json = {
      version: 3,
      args: ["./build/all_reduce_perf", "-b", "4K"],
      config: {
        devices: Array.from({ length: 4 }, (_, rank) => ({ rank, hostname: "a", device_info: "Example GPU" }))
      },
      results: [row(4096, 11, 0), row(1_048_576, 99, 7)],
      out_of_bounds: { count: 1, okay: false }
    }
    const report = await run(importNcclTests(JSON.stringify(json)))
    expect(rows(report)).toEqual(both)
    expect(report.profile.device).toBe("Example GPU")
    expect(report.warnings.join()).toContain("wrong results")
    expect(rows(await run(importNcclTests(JSON.stringify(json), { inPlace: true })))[1]![3]).toBe(98)
    expect((await refusal(importNcclTests('{"results": [{}]}'))).field).toBe("results[0].size")
    expect((await refusal(importNcclTests('{"results": '))).field).toBe("content")
  })

  it("said twice is the median of both, and times before lines are no rows", async () => {
    const text = readFileSync(fixture("nccl-b-srun-label.txt"), "utf8").replaceAll(
      "0: ",
      "2026-01-02T03:04:05.678Z pod-7 "
    )
    const again = text.replaceAll("11.00", "13.00")
    const report = await run(importNcclTests(`${text}\n${again}`))
    expect(rows(report)).toEqual([
      ["all_reduce", 4, 4096, 12],
      ["all_reduce", 4, 1_048_576, 99]
    ])
    expect(report.warnings.join()).toContain("medians are taken")
  })
})

// An option that a command takes and that changes nothing is refused, or told of: nothing is ignored without a word.
import * as fs from "node:fs"
import * as path from "node:path"
import { describe, expect, it } from "vitest"
import { folder, simEach, smallStudy } from "./launch.ts"

const here = folder()
const write = (name: string, text: string): string => {
  const file = path.join(here, name)
  fs.writeFileSync(file, text)
  return file
}

const scenario = smallStudy(here, "world.links.inter.bandwidth: [1Gbit/s, 2Gbit/s]")

describe("a change to the study, of a command that runs one scenario, is refused", () => {
  const cases: ReadonlyArray<readonly [string, string, string]> = [
    [
      "study.axes.inter.bandwidth=[3Gbit/s, 5Gbit/s]",
      "study.axes.world.links.inter.bandwidth",
      " (--set world.links.inter.bandwidth=3Gbit/s)"
    ],
    ["study.axes.algorithm=[{name: s-sgd}]", "study.axes.algorithm", ' (--set algorithm={"name":"s-sgd"})'],
    ["study={axes: {ranks: [2]}}", "study", ""],
    ["study.axes={}", "study.axes", ""],
    ["study.find.metric=stepSeconds", "study.find.metric", ""]
  ]
  const commands = ["run", "explain", "schedule", "compare"]
  const ended = simEach(
    commands.flatMap((command) => cases.map(([set]) => [command, scenario, "--set", set]))
  )
  it.each(
    commands.flatMap((command, at) =>
      cases.map((one, index) => [command, ...one, ended[at * cases.length + index]!] as const)
    )
  )("sim %s --set %s", (_, set, field, instead, { status, stdout, stderr }) => {
    expect(stderr).toBe(
      `sim: --set ${set}: ${field}: expected a field of the one scenario that is run${instead}: only sim study reads a study section\n`
    )
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" })
  })
})

it("--set is refused beside results that were saved, which are not run again", () => {
  const [ran, computed] = simEach([
    ["run", scenario, "--json"],
    ["study", scenario, "--out", path.join(here, "out")]
  ])
  expect([ran!.status, computed!.status]).toEqual([0, 0])
  const result = write("result.json", ran!.stdout)
  const study = path.join(here, "out/study.arrow")
  const cases = [[result], [study], [scenario, result], [result, result], [study, scenario]]
  const ended = simEach(cases.map((files) => ["compare", ...files, "--set", "ranks=4"]))
  for (const [at, files] of cases.entries()) {
    const saved = files.find((file) => file !== scenario)!
    expect(ended[at]).toEqual({
      status: 2,
      stdout: "",
      stderr: `sim: --set ranks=4: ${saved}, results that were saved, is not accepted; expected scenario files beside it, whose runs it changes\n`
    })
  }
})

describe("sim collective tells of links that nothing crosses", () => {
  const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
    [
      "--ranks 4 --intra 10GB/s --intra-latency 1us",
      [
        "--intra has no effect: there is one rank on each node (--ranks-per-node 1)",
        "--intra-latency has no effect: there is one rank on each node (--ranks-per-node 1)"
      ]
    ],
    ["--ranks 4 --ranks-per-node 4 --inter 1gbit", ["--inter has no effect: all ranks are on one node"]],
    [
      "--ranks 4 --ranks-per-node 4 --inter-latency 1us",
      ["--inter-latency has no effect: all ranks are on one node"]
    ],
    ["--ranks 4,8 --ranks-per-node 4 --inter 1gbit", []],
    ["--ranks 1 --inter 1gbit", ["--inter has no effect: there is one rank"]],
    ["--ranks 4 --mtu 1500", ["--mtu has no effect: that link's bandwidth is unlimited"]],
    ["--ranks 4 --mtu 1500 --inter unlimited,1gbit", []],
    ["--ranks 4 --sites 2", ["--sites has no effect: crossing sites is free where --wan is not given"]],
    [
      "--ranks 4 --inter-latency 10",
      ["--inter-latency is 10.0 s one way, longer than any link's: a number without a unit is seconds"]
    ],
    ["--ranks 4 --inter 1gbit --inter-latency 1ms", []],
    ["--ranks 4 --chunk 64KiB", ["--chunk has no effect: no link has a latency"]],
    ["--ranks 4 --inter 1gbit --inter-latency 1ms --chunk 64KiB", []],
    [
      "--ranks 4 --inter 1gbit --inter-latency 1ms --chunk 64KiB --algorithm direct",
      ["--chunk has no effect: it is of rings, and nothing that is asked goes around one"]
    ],
    [
      "--ranks 4 --inter 100gbit --inter-latency 50ms",
      [
        "--inter, --inter-latency: 100 Gbit/s over a round trip of 100 ms is 1.25 GB on the way at once; where TCP's windows hold less, messages are slower (--inter-window)",
        "NCCL sends 4 MiB around a ring at a time (NCCL_BUFFSIZE), which takes longer over such links; here all bytes follow each other (--chunk)"
      ]
    ]
  ]
  const ended = simEach(
    cases.flatMap(([args]) => [
      ["collective", "--bytes", "1MiB", ...args.split(" ")],
      ["collective", "--bytes", "1MiB", ...args.split(" "), "--json"]
    ])
  )
  it.each(cases.map(([args, told], at) => [args, told, ended[2 * at]!, ended[2 * at + 1]!] as const))(
    "%s",
    (_, told, text, json) => {
      expect(text.status, text.stderr).toBe(0)
      expect(text.stdout.split("\nwarnings\n")[1] ?? "").toBe(told.map((line) => `  ${line}\n`).join(""))
      expect((JSON.parse(json.stdout) as { readonly warnings: unknown }).warnings).toEqual(told)
    }
  )
})

describe("sim import tells of options that say what the file says", () => {
  const out = path.join(here, "out.arrow")
  const ofCollectives = "op,ranks,bytes,median_seconds,link\nall_reduce,4,1024,1e-5,1gbit\n"
  const every = ["--op", "all_gather", "--ranks", "8", "--link", "10gbit"]
  const cases: Readonly<Record<string, readonly [args: ReadonlyArray<string>, told: ReadonlyArray<string>]>> =
    {
      "a table with a column for each": [
        ["csv", write("all.csv", ofCollectives), ...every],
        [
          "--op all_gather has no effect: the table's column op says it",
          "--ranks 8 has no effect: the table's column ranks says it",
          "--link 10gbit has no effect: the table's column link says it"
        ]
      ],
      "a table of ops": [
        ["csv", write("ops.csv", "op,attributes,median_seconds\ngemm,m=1;k=2;n=3,1e-5\n"), ...every],
        ["--op all_gather", "--ranks 8", "--link 10gbit"].map(
          (option) => `${option} has no effect: the table is of ops, not of collectives`
        )
      ],
      "a table that lacks them": [
        ["csv", write("none.csv", "bytes,median_seconds\n1024,1e-5\n"), ...every],
        []
      ],
      "choices of experts": [
        ["routing", "json", write("routing.json", "[[[0, 1], [1, 2]]]"), "--top-k", "3"],
        ["--top-k 3 has no effect: the source says 2 experts of a token"]
      ],
      "choices of as many experts": [
        ["routing", "json", write("same.json", "[[[0, 1], [1, 2]]]"), "--top-k", "2"],
        []
      ]
    }
  const ended = simEach(Object.values(cases).map(([args]) => ["import", ...args, "-o", out, "--json"]))
  it.each(Object.entries(cases).map(([name, [, told]], at) => [name, told, ended[at]!] as const))(
    "%s",
    (_, told, { status, stdout, stderr }) => {
      expect(status, stderr).toBe(0)
      expect((JSON.parse(stdout) as { readonly warnings: unknown }).warnings).toEqual(told)
    }
  )
})

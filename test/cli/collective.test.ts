// sim collective end to end: closed forms that people know, a study of all combinations, a table beside, and what is refused.
import * as path from "node:path"
import { readFileSync, symlinkSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { folder, root, sim, simEach } from "./launch.ts"

interface Row {
  readonly op: string
  readonly ranks: number
  readonly sizeBytes: number
  readonly algorithm: string
  readonly by: string
  readonly seconds: number
  readonly latencySeconds: number
  readonly wireSeconds: number
  readonly busiestBytes: Readonly<Record<string, number>>
  readonly busBytesPerSecond: number
  readonly measuredSeconds?: number
  readonly off?: number
  readonly estimate?: string
}

const rows = (...args: ReadonlyArray<string>): ReadonlyArray<Row> => {
  const { status, stdout, stderr } = sim("collective", ...args, "--json")
  expect(status, stderr).toBe(0)
  return (JSON.parse(stdout) as { readonly rows: ReadonlyArray<Row> }).rows
}

/** Rings over links shaped to 10 Gbit/s, as they were measured. */
const shapedRings = ["--inter", "10gbit", "--mtu", "9000", "--algorithm", "ring"] as const

describe("sim collective", () => {
  it("says what textbooks say, for every algorithm", () => {
    const found = rows("--bytes", "100MB", "--ranks", "4", "--inter", "1gbit", "--inter-latency", "1ms")
    const of = (algorithm: string) => found.find((row) => row.algorithm === algorithm)!
    // 2 (n - 1) steps of latency and size / n each way.
    expect(of("ring").seconds).toBeCloseTo(6 * (1e-3 + 25e6 / 1.25e8), 9)
    expect(of("ring").busiestBytes).toEqual({ inter: 150e6 })
    expect(of("direct").seconds).toBeCloseTo(2 * (1e-3 + 75e6 / 1.25e8), 9)
    expect(of("tree").latencySeconds).toBeCloseTo(4e-3, 12)
    expect(of("ring").busBytesPerSecond).toBeLessThan(1.25e8)
    // Over nodes of eight NCCL's trees have one rank of each, and the others are on a chain (tuning.cc: 2 (m - 1) hops inside, 2
    // log2(nodes) between). Of four nodes the busiest has three edges in one tree and one in the other, of half the message each.
    const inside = ["--intra", "300GB/s", "--intra-latency", "1us"]
    const nodes = ["--ranks", "32", "--ranks-per-node", "8", "--inter", "100gbit", "--inter-latency", "10us"]
    const [trees] = rows("--bytes", "100MB", ...nodes, ...inside, "--algorithm", "tree")
    expect(trees!.busiestBytes).toEqual({ intra: 200e6, inter: 200e6 })
    expect(trees!.latencySeconds).toBeCloseTo(2 * 7 * 1e-6 + 2 * 2 * 10e-6, 12)
    expect(trees!.seconds).toBeCloseTo(200e6 / 12.5e9 + 54e-6, 9)
    // An uplink of which only the latency is given: every second of the ring's hops crosses it, and a message makes six.
    const [far] = rows("--ranks", "4", "--sites", "2", "--wan-latency", "500ms", "--algorithm", "ring")
    expect(far!.seconds).toBeCloseTo(3 * 0.5, 12)
    expect(found.map(({ by }) => by)).toEqual(["ring", "tree", "hierarchical", "direct"])
  })

  it("is a study of all combinations, as CSV too", () => {
    const csv = path.join(folder(), "study.csv")
    const found = rows(
      "all_reduce",
      "all_to_all",
      "--bytes",
      "1MiB,64MiB",
      "--ranks",
      "2,4",
      "--inter",
      "1gbit,10gbit",
      "--algorithm",
      "ring,direct",
      "--csv",
      csv
    )
    expect(found).toHaveLength(2 * 2 * 2 * 2 * 2)
    expect(new Set(found.filter(({ op }) => op === "all_to_all").map(({ by }) => by))).toEqual(
      new Set(["pairwise"])
    )
    const lines = readFileSync(csv, "utf8").trim().split("\r\n")
    expect(lines).toHaveLength(33)
    expect(lines[0]).toContain("sizeBytes,inter,interLatency,algorithm")
  })

  it("writes no cell that a spreadsheet computes, and replaces no table that it reads", () => {
    const csv = path.join(folder(), "one.csv")
    const asked = ["--bytes", "1MiB", "--inter", "+1gbit", "--inter-latency", "+1ms", "--algorithm", "ring"]
    expect(rows(...asked, "--csv", csv)).toHaveLength(1)
    expect(readFileSync(csv, "utf8").split("\r\n")[1]).toContain(",'+1gbit,'+1ms,ring,")
    const table = path.join(folder(), "table.csv")
    symlinkSync(path.join(root, "traces/profiles/nccl-h200-sockets.arrow"), table)
    const { status, stderr } = sim(
      "collective",
      "--measured",
      "traces/profiles/nccl-h200-sockets.arrow",
      "--csv",
      table
    )
    expect(stderr).toMatch(/--csv: .*it would replace what is read/u)
    expect(status).toBe(2)
  })

  it("stands beside a measured table, within what two runs differ by", () => {
    const found = rows(
      "all_reduce",
      "all_gather",
      "reduce_scatter",
      "all_to_all",
      "--bytes",
      "4MiB,16MiB,64MiB",
      "--ranks",
      "2",
      ...shapedRings,
      "--measured",
      path.join(root, "traces/profiles/nccl-h200-sockets.arrow"),
      "--compare",
      "10gbit"
    )
    expect(found).toHaveLength(12)
    for (const row of found) {
      expect(Math.abs(row.off!), `${row.op} ${row.sizeBytes}`).toBeLessThan(0.06)
      expect(row.off).toBeCloseTo(row.seconds / row.measuredSeconds! - 1, 12)
      expect(row.estimate).toBeUndefined()
    }
  })

  it("is within 3 % and a tenth of a session's shaped all-reduces, from the unshaped ones of two others", () => {
    interface Measured {
      readonly ranks: number
      readonly link_rate: string
      readonly all_reduce: ReadonlyArray<{ readonly bytes: number; readonly median_seconds: number }>
    }
    const { runs } = JSON.parse(
      readFileSync(path.join(root, "bench/measured/ddp-gpt2-h200-heldout.json"), "utf8")
    ) as { readonly runs: ReadonlyArray<Measured> }
    const { all_reduce } = runs.find(({ ranks, link_rate }) => ranks === 4 && link_rate === "10gbit")!
    const tables = ["nccl-h200-sockets", "allreduce-ddp-gpt2-h200"]
    const found = rows(
      "--bytes",
      all_reduce.map(({ bytes }) => String(bytes)).join(","),
      "--ranks",
      "4",
      ...shapedRings,
      "--measured",
      tables.map((name) => path.join(root, `traces/profiles/${name}.arrow`)).join(",")
    )
    const off = all_reduce.map(({ median_seconds }, i) => Math.abs(found[i]!.seconds / median_seconds - 1))
    expect(off).toHaveLength(7)
    expect(off.reduce((sum, one) => sum + one, 0) / off.length).toBeLessThan(0.03)
    expect(Math.max(...off)).toBeLessThan(0.1)
  })

  it("is told of nodes of unlike numbers of ranks", () => {
    const asked = ["--bytes", "1000", "--inter", "1kbit", "--algorithm", "ring,direct"]
    const [ring, direct] = rows("--ranks-per-node", "3,1", ...asked)
    expect([ring!.ranks, direct!.ranks]).toEqual([4, 4])
    // Around a ring a node is left once, by 2 * 3/4 of the bytes; directly three ranks have a share for the fourth, and a sum.
    expect(ring!.seconds).toBeCloseTo(1500 / 125, 9)
    expect(direct!.seconds).toBeCloseTo((2 * 3 * 250) / 125, 9)
    const [even] = rows("--ranks-per-node", "2,2", ...asked)
    expect(even).toEqual(rows("--ranks-per-node", "2", ...asked)[0])
    expect(rows("--ranks-per-node", "3,1", "--sites", "2", ...asked)[0]!.ranks).toBe(8)
    // A node's second rank sends all to the first, and gets all: neither port has it twice in a direction. The first ranks of a site's
    // nodes go on with halves, inside the site and across.
    const unlike = ["--ranks-per-node", "2,1", "--sites", "2", "--wan-latency", "1ms", "--bytes", "1000"]
    const [chains] = rows(...unlike, "--algorithm", "hierarchical")
    expect(chains!.busiestBytes).toEqual({ intra: 1000, inter: 1500, wan: 1000 })
  })

  it("knows ops and algorithms however they are spelt", () => {
    const asked = (...words: ReadonlyArray<string>) =>
      rows(...words, "--bytes", "1MiB", "--inter", "10gbit").map(({ op, algorithm, seconds }) => [
        op,
        algorithm,
        seconds
      ])
    const plain = asked("all_reduce", "all_to_all", "broadcast", "--algorithm", "ring")
    expect(plain).toHaveLength(3)
    expect(asked("AllReduce", "alltoall", "BCAST", "--algorithm", "Ring")).toEqual(plain)
  })

  it("refuses what it cannot answer, and says what it could", () => {
    const refusals = [
      [["all_reduse"], /op: "?all_reduse"? .*all_reduce, all_gather/u],
      [["--bytes", "1Mbit"], /--bytes/u],
      [["--algorithm", "rings"], /--algorithm.*ring, tree, hierarchical, direct/u],
      [
        ["--ranks", "3", "--ranks-per-node", "2"],
        /--ranks-per-node: 2 is not accepted; expected a divisor of the 3/u
      ],
      [["--ranks", "3", "--sites", "2"], /--ranks: 3 is not accepted; expected a multiple of the 2 sites$/mu],
      [
        ["--ranks", "4", "--ranks-per-node", "2,1"],
        /--ranks: 4 .* expected 3, the sum of --ranks-per-node, or/u
      ],
      [["--ranks-per-node", "2,0"], /--ranks-per-node .*Expected a whole number, at least 1/u],
      [["--ranks", "2,"], /--ranks .*'2,' is invalid. Expected a list such as a,b, with no part empty/u],
      [["--bytes", "1.5"], /--bytes: 1.5 is not accepted; expected whole bytes/u],
      [["--ranks", "many"], /--ranks: "many" is not accepted; expected a whole number, from 1 to/u],
      [["--ranks", "0"], /--ranks: 0 is not accepted; expected a whole number, from 1 to/u],
      [["--inter", "10"], /--inter: "10" .*no unit.* is not accepted; expected a bandwidth with its unit/u],
      [["--intra-latency", "fast"], /--intra-latency: "fast" .*expected a time such as/u],
      [["--mtu", "100000000"], /--mtu: 100000000 is not accepted/u],
      [["--wan-latency", "1ms"], /--wan-latency: 1ms.*--sites of 2 or more/u],
      [["--compare", "10gbit"], /--measured with it/u],
      [["--measured", "nowhere.arrow"], /--measured/u]
    ] as const
    const ended = simEach(refusals.map(([args]) => ["collective", ...args]))
    for (const [index, [, message]] of refusals.entries()) {
      const { status, stderr } = ended[index]!
      expect(status, stderr).toBe(2)
      expect(stderr).toMatch(message)
      expect(stderr).not.toMatch(/ {4}at /u)
    }
  })
})

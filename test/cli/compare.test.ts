// sim compare where some of what is compared cannot run: a row that says so, and the numbers of all others.
import * as fs from "node:fs"
import * as path from "node:path"
import { describe, expect, it } from "vitest"
import { folder, simEach } from "./launch.ts"

const here = folder()
const write = (name: string, text: string): string => {
  const file = path.join(here, name)
  fs.writeFileSync(file, text)
  return file
}

const text = `model: { layers: 2, parameters: 1e6, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
steps: 2
`
const small = write("small.yaml", `name: small\n${text}`)
const tight = write("tight.yaml", `name: tight\n${text}memory: { device: 1kB }\n`)

const set = (...alternatives: ReadonlyArray<string>): ReadonlyArray<string> =>
  alternatives.flatMap((one) => ["--set", one])

interface Row {
  readonly label: string
  readonly ratio: Readonly<Record<string, number | null>>
  readonly result: {
    readonly stepSeconds?: number
    readonly ranks: number | null
    readonly failure?: { readonly kind: string; readonly reason: string }
    readonly details?: { readonly memory?: Readonly<Record<string, unknown>> }
  }
}
const rowsOf = (stdout: string): ReadonlyArray<Row> =>
  (JSON.parse(stdout) as { readonly results: ReadonlyArray<Row> }).results

const room = "memory.device=1GB"
const noMemory = "memory.device=1kB"
const away = "faults=[{outage: 1, from: 1ms}]"
const unplanned = "algorithm={name: streaming-diloco, fragments: 100}"
const unread = "model={profile: nowhere.arrow}"

const saved = path.join(here, "saved.json")
const absent = path.join(here, "absent.yaml")
const swept = path.join(here, "swept")
fs.mkdirSync(swept)
write("swept/study.arrow", "")

const ended = { digest: "0", algorithm: "ddp", ranks: 2, links: [], stepSeconds: "1" }
const half = write("half.json", JSON.stringify(ended))
const halfStudy = write("half-study.json", JSON.stringify({ rows: [{ ...ended, links: [{ count: 2 }] }] }))

/** Each as a table and as JSON; in two processes for all, of which the first writes what the second reads. */
const lines = {
  some: [small, ...set(noMemory, "algorithm=diloco", away)],
  plain: [small, ...set(room, "algorithm=diloco")],
  "the second": [tight, small, tight],
  none: [tight, tight],
  unplanned: [small, ...set(unplanned, "algorithm=diloco")],
  unread: [small, ...set(unread, "algorithm=diloco")],
  "no file": [small, absent],
  "a study's folder": [small, swept],
  "no field": [small, ...set("algorithm=diloco", "nothing=1")],
  "another task": [small, "scenarios/expert-offload.yaml"],
  saved: [saved, small],
  "half a result": [half, small],
  "half a study": [halfStudy, small]
} as const
write("saved.json", simEach([["run", tight, "--json"]])[0]!.stdout)
const all = simEach(
  Object.values(lines).flatMap((line) => [
    ["compare", ...line],
    ["compare", ...line, "--json"]
  ])
)
const compared = (name: keyof typeof lines) => {
  const at = 2 * Object.keys(lines).indexOf(name)
  return { table: all[at]!, asJson: all[at + 1]! }
}

describe("sim compare of what cannot run", () => {
  it("has a row with the reason, and the others' numbers", () => {
    const { table, asJson } = compared("some")
    const plain = compared("plain").asJson
    expect(table.status, table.stderr).toBe(0)
    expect(table.stdout).toMatch(/^memory\.device=1kB +ddp +- +no memory( +-)+$/mu)
    expect(table.stdout).toMatch(/^faults=\S+ .*ddp +- +deadlock( +-)+$/mu)
    expect(table.stdout).toMatch(
      /what cannot run\n {2}memory\.device=1kB: rank 0: .* needs 2000000 B of device memory; 984 of 1000 B are free; .*holds up to 16\.0 MB: does not fit 1\.00 kB\n {2}faults=/u
    )
    const rows = rowsOf(asJson.stdout)
    expect(asJson.status, asJson.stderr).toBe(0)
    expect(rows.map(({ label }) => label)).toEqual([small, noMemory, "algorithm=diloco", away])
    expect(rows.map(({ result }) => result.failure?.kind)).toEqual([
      undefined,
      "OutOfMemory",
      undefined,
      "Deadlock"
    ])
    // As much as is held where there is room.
    const [, roomy] = rowsOf(plain.stdout)
    expect(rows[1]!.result.details).toEqual({
      memory: { heldBytes: roomy!.result.details?.memory?.["heldBytes"], capacityBytes: 1000, fits: false }
    })
    expect(rows[1]!.result.ranks).toBeNull()
    expect(Object.values(rows[1]!.ratio).filter((ratio) => ratio !== null)).toEqual([])
    // Those that run are as they are without the others.
    expect([rows[0], rows[2]]).toEqual(rowsOf(plain.stdout).filter(({ label }) => label !== room))
  })

  it("tells ratios to the first that came to an end", () => {
    const { asJson } = compared("the second")
    expect(asJson.status, asJson.stderr).toBe(0)
    expect(rowsOf(asJson.stdout).map(({ ratio }) => ratio["stepSeconds"])).toEqual([null, 1, null])
  })

  it("says no where nothing can run", () => {
    const { table, asJson } = compared("none")
    expect([table.status, asJson.status]).toEqual([1, 1])
    expect(table.stdout).toContain("what cannot run")
    expect(rowsOf(asJson.stdout).map(({ result }) => result.failure?.kind)).toEqual([
      "OutOfMemory",
      "OutOfMemory"
    ])
  })

  it.each([
    ["unplanned", unplanned, "algorithm.fragments"],
    ["unread", unread, "nowhere.arrow"]
  ] as const)("tells the others where one is %s, and that it is bad input", (name, refused, named) => {
    const { table, asJson } = compared(name)
    for (const one of [table, asJson]) {
      expect(one.status).toBe(2)
      expect(one.stderr).toContain(`--set ${refused}: `)
      expect(one.stderr).toContain(named)
    }
    expect(table.stdout).toMatch(/^(algorithm|model)=.* refused( +-)+$/mu)
    const rows = rowsOf(asJson.stdout)
    expect(rows.map(({ result }) => result.failure?.kind)).toEqual([undefined, "InputError", undefined])
    expect(rows[2]!.ratio["stepSeconds"]).toBeLessThan(1)
  })

  it.each([
    ["no file", absent],
    ["a study's folder", `swept: a study's folder is not accepted; expected its table, ${swept}/study.arrow`],
    ["no field", "--set nothing=1"],
    ["another task", "expert-offload is not accepted; expected data-parallel, as "],
    ["half a result", 'half.json:1:68: stepSeconds: "1" is not accepted; expected a number, at least 0\n'],
    ["half a result", "half.json:1:1: computeUtilisation: expected a number, or null where there is none"],
    [
      "half a study",
      "half-study.json:1:61: rows.0.links.0.bytes: expected a number, at least 0 (it is missing)"
    ]
  ] as const)("runs nothing where one is %s", (name, said) => {
    const { table, asJson } = compared(name)
    expect([table.status, table.stdout, asJson.status, asJson.stdout]).toEqual([2, "", 2, ""])
    expect(table.stderr).toContain(said)
  })

  it("reads what sim run --json says of a run that came to no end", () => {
    const { table, asJson } = compared("saved")
    expect(table.status, table.stderr).toBe(0)
    expect(table.stdout).toMatch(/^\S+saved\.json +ddp +- +no memory( +-)+$/mu)
    const [first, second] = rowsOf(asJson.stdout)
    expect(first!.result).toMatchObject({
      failure: { kind: "OutOfMemory" },
      details: { memory: { capacityBytes: 1000, fits: false } }
    })
    expect(second!.ratio["stepSeconds"]).toBe(1)
  })
})

// docs/cli.md against the command line itself: every command and every field of its JSON is in the page.
import { spawnSync } from "node:child_process"
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))
const page = readFileSync(join(root, "docs/cli.md"), "utf8")
const folder = mkdtempSync(join(tmpdir(), "sim-docs-"))

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

const sim = (...args: ReadonlyArray<string>): string => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, "bin/sim.js"), ...args], {
    cwd: root,
    encoding: "utf8"
  })
  expect(status, stderr).toBe(0)
  return stdout
}
const json = (...args: ReadonlyArray<string>) => JSON.parse(sim(...args, "--json")) as Record<string, unknown>

/** The text of a section, to the next heading. */
const section = (heading: string): string => {
  const begin = page.indexOf(`## ${heading}\n`)
  expect(begin, heading).toBeGreaterThanOrEqual(0)
  const end = page.indexOf("\n## ", begin)
  return page.slice(begin, end < 0 ? undefined : end)
}
/** First names of the fields that a text quotes: `links[]` and `peakBytes.device` are links and peakBytes. */
const quoted = (text: string): ReadonlySet<string> =>
  new Set([...text.matchAll(/`(\w+)(?:\[\]|\.\w+)*`/gu)].map((match) => match[1]!))
/** The same of the first column of a table. */
const listed = (text: string): ReadonlyArray<string> =>
  text.split("\n").flatMap((line) => (line.startsWith("| `") ? [...quoted(line.split("|")[1]!)] : []))
const undocumented = (fields: ReadonlyArray<string>, heading: string): ReadonlyArray<string> => {
  const documented = new Set(listed(section(heading)))
  return fields.filter((field) => !documented.has(field))
}

const scenario = "scenarios/geo-gpt2.yaml"
const quick = ["--set", "steps=1", "--set", "algorithm=ddp"]

describe("docs/cli.md", () => {
  it("has every command", () => {
    const commands = [...sim("--help").matchAll(/^ {2}(\w+) (?:\[options\] )?[<[ ]/gmu)].map(
      (match) => match[1]!
    )
    expect(commands).toEqual(expect.arrayContaining(["run", "study", "validate", "import"]))
    for (const command of commands) expect(page).toContain(`\`sim ${command} `)
  })

  it("has every option, or another page has", () => {
    const pages = ["README.md", ...globSync("docs/*.md", { cwd: root })].map((name) =>
      readFileSync(join(root, name), "utf8")
    )
    const commands = [
      "run",
      "study",
      "merge",
      "explain",
      "schedule",
      "collective",
      "compare",
      "validate",
      "doctor"
    ]
    const imports = ["kineto", "nccl-tests", "routing", "csv"].map((name) => ["import", name])
    const missing = [...commands.map((name) => [name]), ...imports].flatMap((command) => {
      const options = [...sim(...command, "--help").matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gmu)].map(
        (match) => match[1]!
      )
      expect(options).toContain("--json")
      return options
        .filter(
          (option) =>
            option !== "--help" && !pages.some((page) => new RegExp(`${option}(?![\\w-])`, "u").test(page))
        )
        .map((option) => `${command.join(" ")} ${option}`)
    })
    expect(missing).toEqual([])
  })

  it("has the fields of a run", () => {
    const fields = Object.keys(json("run", scenario, ...quick))
    expect(fields).toContain("stepSeconds")
    expect(undocumented(fields, "`sim run --json`")).toEqual([])
  })

  it.each([
    ["moe-training", "moe-training.md", "## Metrics"],
    ["expert-offload", "cli.md", "# The"],
    ["kv-serving", "kv-serving.md", "## Figures"]
  ])("has the fields of a run of %s, and their page", (task, name, heading) => {
    const { details, ...fields } = json("run", `scenarios/agree/${task}.yaml`)
    const other = readFileSync(join(root, "docs", name), "utf8")
    const own = quoted(other.slice(other.indexOf(heading)))
    const unnamed = undocumented(Object.keys(fields), "`sim run --json`").filter((field) => !own.has(field))
    expect(unnamed).toEqual([])
    const told = (field: string) => own.has(field) || other.includes(`\`details.${field}`)
    expect(Object.keys(details as object).filter((field) => !told(field))).toEqual([])
  })

  it("has the fields of a schedule of every family", () => {
    for (const task of ["moe-training", "expert-offload", "kv-serving"]) {
      const fields = Object.keys(json("schedule", `scenarios/agree/${task}.yaml`))
      expect(undocumented(fields, "`sim schedule --json`"), task).toEqual([])
    }
  })

  it("has the fields of a study and of its rows", () => {
    const study = json("study", "scenarios/geo-gpt2-bandwidth.yaml", ...quick)
    const heading = "`sim study --json`, `sim merge --json`"
    expect(undocumented(Object.keys(study), heading)).toEqual([])
    const row = Object.keys((study["rows"] as ReadonlyArray<object>)[0]!)
    const own = new Set(quoted(section(heading)))
    expect(
      undocumented(
        row.filter((field) => !own.has(field)),
        "`sim run --json`"
      )
    ).toEqual([])
  })

  it("has the fields of an explanation", () => {
    const fields = Object.keys(json("explain", scenario, ...quick))
    expect(undocumented(fields, "`sim explain --json`")).toEqual([])
  })

  it("has the fields of a schedule", () => {
    for (const algorithm of ["ddp", "local-sgd", "dreamddp", "streaming-diloco"]) {
      const fields = Object.keys(json("schedule", scenario, "--set", `algorithm=${algorithm}`))
      expect(undocumented(fields, "`sim schedule --json`"), algorithm).toEqual([])
    }
  })

  it("or a family's page has every field inside of them", () => {
    const families = ["cli", "moe-training", "expert-offload", "kv-serving"]
    const known = new Set(
      families.flatMap((name) =>
        [...readFileSync(join(root, `docs/${name}.md`), "utf8").matchAll(/`([^`\n]+)`/gu)].flatMap((match) =>
          match[1]!.split(/\W+/u)
        )
      )
    )
    const namesIn = (value: unknown): ReadonlyArray<string> =>
      Array.isArray(value)
        ? value.slice(0, 3).flatMap(namesIn)
        : typeof value === "object" && value !== null
          ? Object.entries(value).flatMap(([name, inner]) =>
              // What is named by op, kind or lane says so itself.
              name === "byKind" ? [name] : [name, ...namesIn(inner)]
            )
          : []
    const tasks = ["geo-gpt2", "moe-training", "expert-offload", "kv-serving"]
    const asked = [
      ...tasks.map((name) => ["schedule", `scenarios/${name}.yaml`]),
      ...["ddp", "streaming-diloco"].map((name) => ["schedule", scenario, "--set", `algorithm=${name}`]),
      ...tasks.slice(1).map((name) => ["run", `scenarios/${name}.yaml`]),
      ["explain", scenario, ...quick],
      ["explain", "scenarios/moe-training.yaml"]
    ]
    for (const args of asked) {
      const missing = new Set(namesIn(json(...args)).filter((name) => !known.has(name)))
      expect([...missing], args.join(" ")).toEqual([])
    }
  })

  it("has the fields of the other commands", () => {
    const text = section("Other `--json`")
    const row = (command: string) =>
      quoted(text.split("\n").find((line) => line.startsWith(`| \`${command}\``))!)
    const compared = json("compare", scenario, scenario, ...quick)
    const [first] = compared["results"] as ReadonlyArray<object>
    const validated = json("validate", "dreamddp-resnet18")
    const [part] = validated["sections"] as ReadonlyArray<object>
    const table = join(root, "traces/tables/nccl-h200-sockets.csv")
    const imported = json("import", "csv", table, "-o", join(folder, "table.arrow"))
    for (const [command, ...parts] of [
      ["compare", compared, first!],
      ["validate", validated, part!],
      ["import", imported]
    ] as const) {
      const documented = row(command)
      const fields = parts.flatMap((object) => Object.keys(object))
      expect(
        fields.filter((field) => !documented.has(field)),
        command
      ).toEqual([])
    }
  })
})

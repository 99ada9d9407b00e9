// docs/cli.md against the command line itself: every command and every field of its JSON is in the page.
import { globSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { root, simEach } from "../cli/launch.ts"

const page = readFileSync(join(root, "docs/cli.md"), "utf8")
const folder = mkdtempSync(join(tmpdir(), "sim-docs-"))

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

type Line = ReadonlyArray<string>
/** What each of several command lines prints. */
const printed = (lines: ReadonlyArray<Line>): ReadonlyArray<string> => {
  const ended = simEach(lines)
  expect(ended).toHaveLength(lines.length)
  return ended.map(({ status, stdout, stderr }, at) => {
    expect(status, `${lines[at]!.join(" ")}: ${stderr}`).toBe(0)
    return stdout
  })
}
const jsonEach = (lines: ReadonlyArray<Line>) =>
  printed(lines.map((line) => [...line, "--json"])).map(
    (stdout) => JSON.parse(stdout) as Record<string, unknown>
  )
const json = (...args: Line) => jsonEach([args])[0]!

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
    const help = printed([["--help"]])[0]!
    const commands = [...help.matchAll(/^ {2}(\w+) (?:\[options\] )?[<[ ]/gmu)].map((match) => match[1]!)
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
    const lines = [...commands.map((name) => [name]), ...imports]
    const helps = printed(lines.map((command) => [...command, "--help"]))
    const missing = lines.flatMap((command, at) => {
      const options = [...helps[at]!.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gmu)].map((match) => match[1]!)
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
    const tasks = ["moe-training", "expert-offload", "kv-serving"]
    const schedules = jsonEach(tasks.map((task) => ["schedule", `scenarios/agree/${task}.yaml`]))
    for (const [at, schedule] of schedules.entries())
      expect(undocumented(Object.keys(schedule), "`sim schedule --json`"), tasks[at]).toEqual([])
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
    const algorithms = ["ddp", "local-sgd", "dreamddp", "streaming-diloco"]
    const schedules = jsonEach(algorithms.map((name) => ["schedule", scenario, "--set", `algorithm=${name}`]))
    for (const [at, schedule] of schedules.entries())
      expect(undocumented(Object.keys(schedule), "`sim schedule --json`"), algorithms[at]).toEqual([])
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
    for (const [at, told] of jsonEach(asked).entries()) {
      const missing = new Set(namesIn(told).filter((name) => !known.has(name)))
      expect([...missing], asked[at]!.join(" ")).toEqual([])
    }
  })

  it("has the fields of the other commands", () => {
    const text = section("Other `--json`")
    const row = (command: string) =>
      quoted(text.split("\n").find((line) => line.startsWith(`| \`${command}\``))!)
    const table = join(root, "traces/tables/nccl-h200-sockets.csv")
    const [compared, validated, imported] = jsonEach([
      ["compare", scenario, scenario, ...quick],
      ["validate", "dreamddp-resnet18"],
      ["import", "csv", table, "-o", join(folder, "table.arrow")]
    ]) as [Record<string, unknown>, Record<string, unknown>, Record<string, unknown>]
    const [first] = compared["results"] as ReadonlyArray<object>
    const [part] = validated["sections"] as ReadonlyArray<object>
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

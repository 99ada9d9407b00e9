// Bad input to each command: one line that names the file, the field, the value and what would be accepted; exit code 2;
// nothing on standard output, and no file written or changed.
import * as fs from "node:fs"
import * as path from "node:path"
import { describe, expect, it } from "vitest"
import { filesIn, folder, root, sim, simEach } from "./launch.ts"

const here = folder()
const folderNamed = (name: string): string => {
  fs.mkdirSync(path.join(here, name))
  return path.join(here, name)
}
const write = (name: string, content: string | Uint8Array): string => {
  const file = path.join(here, name)
  fs.writeFileSync(file, content)
  return file
}
const shipped = (file: string): Buffer => fs.readFileSync(path.join(root, file))

const scenario = "scenarios/geo-gpt2.yaml"
const study = "scenarios/geo-gpt2-bandwidth.yaml"
const profiles = path.join(root, "traces/profiles")
const trace = "test/fixtures/traces/resnet18-h200.pt.trace.json.gz"
const scenarioText = shipped(scenario).toString().replace("../traces", path.join(root, "traces"))
const lines = scenarioText.split("\n").length
const studyText = shipped(study).toString()
const small = `name: small
model: { layers: 2, parameters: 1000, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
`

const malformed = write("malformed.yaml", "name: [x\n")
const empty = write("empty.yaml", "")
const cutArrow = write("cut.arrow", shipped("traces/profiles/gpt2-h200.arrow").subarray(0, 3000))
const cutGzip = write("cut.json.gz", shipped(trace).subarray(0, 20_000))
const cutJson = write("cut.json", '{"traceEvents": [{"ph": "X"')

const bandwidthForms =
  'expected a bandwidth with its unit, such as "1Gbit/s", "1 Gbps", "10gbit" (bits) or "125MB/s", "1GiB/s" (bytes), or "unlimited", greater than 0'
const arrowForm = "expected an uncompressed Arrow IPC file (.arrow) as tandem writes it"

interface Refusal {
  readonly args: ReadonlyArray<string>
  /** In the order in which the message has them: file and place, field, value, what is accepted. */
  readonly says: ReadonlyArray<string>
}

const file = (name: string, text: string, ...args: ReadonlyArray<string>): ReadonlyArray<string> => [
  "run",
  write(name, text),
  ...args
]

const refusals: Readonly<Record<string, Refusal>> = {
  "malformed YAML": {
    args: ["run", malformed],
    says: [`${malformed}:2:1: Flow sequence`, "is not accepted; expected YAML"]
  },
  "sections in sections without end": {
    args: ["run", write("deep.yaml", `name: deep\nmodel: ${"[".repeat(5000)}${"]".repeat(5000)}\n`)],
    says: ["deep.yaml:2:", "nesting too deep to be read is not accepted; expected YAML"]
  },
  "a binary file": {
    args: ["run", path.join(profiles, "gpt2-h200.arrow")],
    says: [
      "sim: ",
      "gpt2-h200.arrow: content that is binary (zero bytes) is not accepted; expected a readable YAML"
    ]
  },
  "a rank that another stands for": {
    args: ["explain", scenario, "--rank", "3"],
    says: [
      "sim: --rank: 3 is not accepted; expected a rank that was simulated by itself: 0; this one is like one"
    ]
  },
  "a rank that is not there": {
    args: ["explain", scenario, "--rank", "99"],
    says: ["sim: --rank: 99 is not accepted; expected a rank that was simulated by itself: 0\n"]
  },
  "a folder for a profile": {
    args: ["run", scenario, "--set", `model.profile=${profiles}`],
    says: ["model.profile: ", "(file: a folder) is not accepted; expected a profile file"]
  },
  "an empty file": {
    args: ["run", empty],
    says: [`${empty}: an empty file is not accepted; expected a scenario with the fields name, model`]
  },
  "an unknown field": {
    args: file("unknown.yaml", `${scenarioText}\ncolour: red\n`),
    says: [
      `unknown.yaml:${lines + 1}:1: colour: an unknown field is not accepted; expected one of task, name`
    ]
  },
  "a field one letter off": {
    args: file("typo.yaml", small.replace("bandwidth", "bandwith")),
    says: [
      "typo.yaml:3:38: world.links.inter.bandwith: an unknown field is not accepted; expected one of bandwidth",
      'did you mean "bandwidth"?'
    ]
  },
  "a wrong unit": {
    args: file("unit.yaml", small.replace("1Gbit/s", "1parsec")),
    says: [
      'unit.yaml:3:49: world.links.inter.bandwidth: "1parsec" ("parsec" is not a unit of it) is not accepted',
      bandwidthForms
    ]
  },
  "a negative bandwidth": {
    args: file("negative.yaml", small.replace("1Gbit/s", "-1Gbit/s")),
    says: [
      'negative.yaml:3:49: world.links.inter.bandwidth: "-1Gbit/s" (it is negative) is not accepted',
      bandwidthForms
    ]
  },
  "a bandwidth without a unit, on the command line": {
    args: ["run", scenario, "--set", "wan.bandwidth=10"],
    says: [
      "--set wan.bandwidth=10: world.links.wan.bandwidth: 10 (it has no unit (bits or bytes?)) is not accepted",
      bandwidthForms
    ]
  },
  "an unknown field on the command line": {
    args: ["explain", scenario, "--set", "wan.bandwith=1Gbit/s"],
    says: [
      "--set wan.bandwith=1Gbit/s: wan.bandwith: an unknown field is not accepted; expected the path of a scenario field"
    ]
  },
  "sizes of a model that do not go together": {
    args: ["run", "scenarios/gpt2-described.yaml", "--set", "heads=7", "--set", "algorithm=ddp"],
    says: ["--set heads=7: model.gpt2.heads: 7 is not accepted; expected a divisor of the width of 1600"]
  },
  "a setting of an algorithm": {
    args: ["schedule", scenario, "--set", "period=0"],
    says: ["--set period=0: algorithm.period: 0 is not accepted; expected a whole number, from 1 to 100000"]
  },
  "a profile that is not there": {
    args: file("missing.yaml", scenarioText.replace("gpt2-h200", "nothing")),
    says: [
      "missing.yaml:",
      "model.profile:",
      "nothing.arrow (file: missing (ENOENT)) is not accepted; expected a profile"
    ]
  },
  "a profile cut short": {
    args: ["study", study, "--set", `model.profile=${cutArrow}`, "--out", path.join(here, "out")],
    says: [
      `model.profile: ${cutArrow} (content: an Arrow file cut short) is not accepted`,
      "expected a profile file"
    ]
  },
  "a profile without layers": {
    args: ["run", scenario, "--set", `model.profile=${profiles}/h200-ops.arrow`],
    says: [
      "model.profile:",
      "h200-ops.arrow (a table of ops, without layers) is not accepted; expected a profile of a training step"
    ]
  },
  "a profile without the collective that is needed": {
    args: ["run", scenario, "--set", `collectives.measured=${profiles}/gpt2-h200.arrow`],
    says: [
      "collectives.measured:",
      "gpt2-h200.arrow (no collectives on unshaped links) is not accepted; expected a profile with all_reduce"
    ]
  },
  "a study without axes": {
    args: ["study", write("no-axes.yaml", `${small}study: { axes: {} }\n`), "--out", path.join(here, "out")],
    says: [
      "no-axes.yaml:5:16: study.axes: {} is not accepted; expected at least one axis, such as {algorithm:"
    ]
  },
  "an axis without values": {
    args: ["study", write("no-values.yaml", `${small}study: { axes: { algorithm: [] } }\n`)],
    says: ["no-values.yaml:5:29: study.axes.algorithm: [] is not accepted; expected a list of at least 1"]
  },
  "a scenario in place of a study": {
    args: ["study", scenario, "--out", path.join(here, "out")],
    says: [`${scenario}: study: expected a study section, such as study: {axes:`]
  },
  "one bad value of an axis": {
    args: [
      "study",
      write("bad-value.yaml", studyText.replace("200Mbit/s", "200mb")),
      "--out",
      path.join(here, "out")
    ],
    says: ["bad-value.yaml:", 'world.links.wan.bandwidth: "200mb"', bandwidthForms]
  },
  "a resumption of nothing": {
    args: ["study", study, "--resume"],
    says: ["--resume: expected --out with the folder that has the journal"]
  },
  "a shard that there is not": {
    args: ["study", study, "--shard", "5/4"],
    says: ["option '--shard <i/n>' argument '5/4' is invalid. Expected i/n"]
  },
  "a shard that is no study": {
    args: ["merge", path.join(profiles, "gpt2-h200.arrow"), "-o", path.join(here, "out")],
    says: ['gpt2-h200.arrow: metadata tandem.format is "profile"; expected "study"']
  },
  "a shard cut short": {
    args: ["merge", cutArrow, "-o", path.join(here, "out")],
    says: [`${cutArrow}: content is an Arrow file cut short; ${arrowForm}`]
  },
  "results that cannot be compared": {
    args: ["compare", cutArrow],
    says: [`${cutArrow}: content is an Arrow file cut short; ${arrowForm}`]
  },
  "a section that there is not": {
    args: ["validate", "nothing"],
    says: ["sim validate: name: nothing is not accepted; expected one of streaming-diloco"]
  },
  "a gzip file cut short": {
    args: ["import", "kineto", cutGzip, "-o", path.join(here, "profile.arrow")],
    says: [`${cutGzip}: content is gzip cut short; expected a complete gzip file, or no compression`]
  },
  "a JSON file cut short": {
    args: ["import", "kineto", cutJson, "-o", path.join(here, "profile.arrow")],
    says: [`${cutJson}: traceEvents[0] is cut short: the file ends here; expected a complete file`]
  },
  "a table that is none": {
    args: ["import", "csv", malformed, "-o", path.join(here, "profile.arrow")],
    says: [`${malformed}: line 1, header is name: [x; expected the columns op,`]
  },
  "a name that is empty": {
    args: ["import", "kineto", trace, "-o", path.join(here, "profile.arrow"), "--name", ""],
    says: ["sim: option '--name <text>' argument '' is invalid. Expected text that is not empty."]
  },
  "a device of nothing but spaces": {
    args: ["import", "csv", malformed, "-o", path.join(here, "profile.arrow"), "--device", " "],
    says: ["sim: option '--device <text>' argument ' ' is invalid. Expected text that is not empty."]
  },
  "a time that is none": {
    args: ["import", "kineto", trace, "-o", path.join(here, "profile.arrow"), "--step-time", "4parsec"],
    says: [
      '--step-time: "4parsec" ("parsec" is not a unit of it) is not accepted; expected a time such as "40ms"'
    ]
  },
  "a place that cannot be written to": {
    args: ["import", "kineto", trace, "-o", path.join(here, "no/such/profile.arrow")],
    says: [
      "no/such/profile.arrow: --out: in a folder that does not exist (ENOENT) is not accepted; expected a file in an existing, writable folder"
    ]
  },
  "a name too long for any folder": {
    args: ["import", "kineto", trace, "-o", `${"x".repeat(300)}.arrow`],
    says: [
      "x.arrow: --out: a name that is too long (ENAMETOOLONG) is not accepted; expected a file in an existing, writable folder"
    ]
  },
  "a folder of no name, as of a variable that is not set": {
    args: ["study", study, "--out", ""],
    says: ["sim: option '--out <folder>' argument '' is invalid. Expected text that is not empty."]
  },
  "a study of itself": {
    args: ["study", write("itself.yaml", `${small}study: { axes: { study.axes: [{ seed: [1] }] } }\n`)],
    says: ["itself.yaml:5:18: study.axes: expected a field of the scenarios that the study is over"]
  },
  "a search over a study": {
    args: [
      "study",
      write(
        "search.yaml",
        `${small}study: { axes: {}, find: { vary: study.find.targets, over: [1, 2], metric: stepSeconds, targets: [1] } }\n`
      )
    ],
    says: [
      "search.yaml:5:",
      "study.find.vary: study.find.targets is not accepted; expected a field of the scen"
    ]
  },
  "a search over one value of two": {
    args: [
      "study",
      write(
        "one.yaml",
        `${small}study: { axes: {}, find: { vary: inter.bandwidth, over: { from: 1Gbit/s, to: 2Gbit/s, points: 1 }, metric: stepSeconds, targets: [1] } }\n`
      )
    ],
    says: ["study.find.over.points: 1 is not accepted; expected a whole number, from 2 to 1000000"]
  },
  "a table of collectives that is none": {
    args: ["collective", "--measured", malformed],
    says: [
      `sim: the command line: --measured: ${malformed} (content: not an Arrow file`,
      "expected a profile file; here "
    ]
  },
  "a name that says another format than what would be in it": {
    args: ["run", scenario, "--record", path.join(here, "timeline.json")],
    says: [
      "option '--record <file>' argument",
      "timeline.json' is invalid. Expected a name that ends in .arrow."
    ]
  },
  "a table of another format": {
    args: ["collective", "all-reduce", "--csv", path.join(here, "rows.txt")],
    says: ["rows.txt' is invalid. Expected a name that ends in .csv."]
  },
  "a folder in place of a table": {
    args: ["collective", "all-reduce", "--csv", folderNamed("folder.csv")],
    says: ["folder.csv: --csv: a folder is not accepted; expected a file in an existing, writable folder"]
  },
  "a folder in place of a file": {
    args: ["run", scenario, "--timeline", here],
    says: [`${here}: --timeline: a folder is not accepted; expected a file in an existing, writable folder`]
  }
}

describe("bad input is refused", () => {
  const before = filesIn(here)
  const ended = simEach(Object.values(refusals).map(({ args }) => args))

  it.each(Object.entries(refusals).map(([name, refusal], at) => [name, refusal, ended[at]] as const))(
    "%s",
    (_, { says }, end) => {
      const { status, stdout, stderr } = end!
      expect(stderr).toMatch(/^sim: [^\n]+\n$/u)
      let from = 0
      for (const part of says) {
        const at = stderr.indexOf(part, from)
        expect(at, `${part}\nin\n${stderr}`).toBeGreaterThanOrEqual(0)
        from = at + part.length
      }
      expect({ status, stdout }).toEqual({ status: 2, stdout: "" })
    }
  )

  it("and writes or changes no file", () => {
    expect(filesIn(here)).toEqual(before)
  })

  // The others share a process.
  it("by the command itself, too", () => {
    expect(sim(...refusals["malformed YAML"]!.args)).toEqual(
      ended[Object.keys(refusals).indexOf("malformed YAML")]
    )
  })
})

it.each([
  ["explain", 1_000_000, []],
  // Ranks that are not alike are each simulated, and their ops kept.
  ["explain", 900, ["--set", "world.ranks=64", "--set", "jitter=0.01"]],
  ["run", 1_000_000, ["--timeline", "never.json"]],
  ["run", 1_000_000, ["--record", "never.arrow"]]
] as const)(
  "sim %s does not keep every op of %d steps where these are too many, %j",
  (command, steps, more) => {
    const args = [command, "scenarios/geo-gpt2.yaml", ...more, "--set", `steps=${steps}`]
    const { status, stdout, stderr } = sim(...args)
    expect(stderr).toMatch(
      new RegExp(
        String.raw`^sim: --set steps=${steps}: steps: ${steps} is not accepted; expected at most \d+ (?:to explain|with --timeline or --record), [^\n]+\n$`,
        "u"
      )
    )
    expect(Number(/at most (\d+)/u.exec(stderr)![1])).toBeLessThan(steps)
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" })
    for (const file of ["never.json", "never.arrow"]) expect(fs.existsSync(file)).toBe(false)
  }
)

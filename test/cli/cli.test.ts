// The command line as a user meets it: results on standard output, bad input named with exit code 2 and nothing left behind.
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { describe, expect, it } from "vitest"
import { folder, root, sim, simEach, smallStudy } from "./launch.ts"

const scenario = "scenarios/geo-gpt2.yaml"

describe("help", () => {
  it.each(["sim", "exec"])("of %s ends quietly when its reader has seen enough", (name) => {
    const program = `"${process.execPath}" "${path.join(root, "bin", `${name}.js`)}"`
    const { status, stderr } = spawnSync("bash", ["-c", `set -o pipefail; ${program} --help | true`], {
      encoding: "utf8"
    })
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" })
  })

  it.each(["sim", "exec"])("of %s loads little, and what it compiles is kept", (name) => {
    const TMPDIR = folder()
    const { NODE_COMPILE_CACHE: _, ...usual } = process.env
    const { status } = spawnSync(process.execPath, [path.join(root, "bin", `${name}.js`), "--help"], {
      env: { ...usual, NODE_OPTIONS: "", TMPDIR }
    })
    expect(status).toBe(0)
    // By module: those of the command line and of its options. The packages that commands load have hundreds.
    const kept = fs.readdirSync(path.join(TMPDIR, "node-compile-cache"), { recursive: true })
    expect(kept.length).toBeGreaterThan(10)
    expect(kept.length).toBeLessThan(40)
  })
})

describe("sim run", () => {
  it("prints the documented fields, the same twice", () => {
    const first = sim("run", scenario, "--json")
    expect(first.status).toBe(0)
    expect(sim("run", scenario, "--json").stdout).toBe(first.stdout)
    expect(Object.keys(JSON.parse(first.stdout) as object)).toEqual(
      expect.arrayContaining([
        "digest",
        "algorithm",
        "ranks",
        "stepSeconds",
        "computeSeconds",
        "computeUtilisation",
        "exposedCommunicationSeconds",
        "links",
        "estimates",
        "warnings"
      ])
    )
  })
})

describe("sim compare", () => {
  it("takes a result without warnings, and takes nothing for a result that lacks a number", () => {
    const digest = { digest: "64a1c11339da55e2", scenario: "saved", task: "data-parallel", algorithm: "ddp" }
    const times = { stepSeconds: 0.4, computeSeconds: 0.1, computeUtilisation: 0.25 }
    const rest = { exposedCommunicationSeconds: 0.3, makespanSeconds: 4, links: [], steps: 10 }
    const write = (name: string, value: object): string => {
      const file = path.join(folder(), name)
      fs.writeFileSync(file, JSON.stringify(value))
      return file
    }
    const saved = write("saved.json", { ...digest, ranks: 8, ...times, ...rest })
    const { status, stdout, stderr } = sim("compare", saved, saved)
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" })
    expect(stdout).toMatch(/saved\.json +ddp +8 +400 ms +1\.00 x/u)
    const ranks = sim("compare", write("ranks.json", { ...digest, ranks: "8", ...times, ...rest }), saved)
    expect(ranks.status).toBe(2)
  })
})

describe("what commands write", () => {
  const here = folder()
  const scenario = smallStudy(here, "memory.device: [1GB, 1kB]")
  const out = path.join(here, "out")
  const saved = path.join(here, "study.json")
  const timeline = path.join(here, "timeline.json")
  const run = path.join(here, "run.json")
  /** Runs the study, once for all tests that look at what it wrote. */
  let studied = false
  const study = (): void => {
    if (studied) return
    const { status, stdout, stderr } = sim("study", scenario, "--out", out, "--json")
    expect(status, stderr).toBe(0)
    fs.writeFileSync(saved, stdout)
    studied = true
  }

  it("is compared, what a search found for each target by value and target", () => {
    const [file, study] = [path.join(here, "search.yaml"), path.join(here, "search.json")]
    const searching = {
      name: "search",
      model: { layers: 2, parameters: 1e6, stepSeconds: "10ms" },
      world: { ranks: 2 },
      algorithm: "ddp",
      study: {
        axes: { algorithm: ["ddp"] },
        find: {
          vary: "world.links.inter.bandwidth",
          over: ["100Mbit/s", "1Gbit/s", "10Gbit/s"],
          metric: "computeUtilisation",
          targets: [0.4, 0.9]
        }
      }
    }
    fs.writeFileSync(file, JSON.stringify(searching))
    fs.writeFileSync(study, sim("study", file, "--json").stdout)
    const compared = sim("compare", study)
    expect(compared.stdout).toMatch(/^ddp, bandwidth 1Gbit\/s for computeUtilisation 0\.4 +ddp/mu)
    expect(compared.stdout).toMatch(/^ddp, bandwidth 10Gbit\/s for computeUtilisation 0\.9 +ddp/mu)
  })

  it("is compared, points that cannot run with their reasons and without numbers", () => {
    study()
    const files = [path.join(out, "study.arrow"), saved]
    const all = simEach(files.flatMap((file) => [[], ["--json"]].map((more) => ["compare", file, ...more])))
    expect(all).toHaveLength(4)
    for (const [told, asJson] of [all.slice(0, 2), all.slice(2)]) {
      const compared = told!
      expect(compared.status, compared.stderr).toBe(0)
      expect(compared.stdout).toMatch(/^1GB +ddp +2 +\S+ m?s +1\.00 x/mu)
      expect(compared.stdout).toMatch(/^1kB +ddp +- +no memory +- +- +- +-$/mu)
      expect(compared.stdout).toMatch(/what cannot run\n {2}1kB: rank 0: tensor/u)
      const { results } = JSON.parse(asJson!.stdout) as {
        readonly results: ReadonlyArray<{ readonly ratio: Readonly<Record<string, number | null>> }>
      }
      expect(Object.values(results[1]!.ratio).filter((ratio) => ratio !== null)).toEqual([])
    }
  })

  it("is compared by tokens in a second where a step takes more of them", () => {
    const both = ["compare", "scenarios/agree/sharded.yaml", "--set", "training.accumulate=2"]
    const { stdout, stderr } = sim(...both)
    expect(stdout, stderr).toMatch(/^ +algorithm +ranks +tokens\/s of a rank +step time/mu)
    const { results } = JSON.parse(sim(...both, "--json").stdout) as {
      readonly results: ReadonlyArray<{ readonly ratio: Readonly<Record<string, number>> }>
    }
    const { tokensPerSecond, stepSeconds } = results[1]!.ratio
    expect(tokensPerSecond! * stepSeconds!).toBeCloseTo(2, 9)
    const alike = sim("compare", "scenarios/agree/sharded.yaml", "--set", "shard.prefetch=0")
    expect(alike.stdout).toMatch(/^ +algorithm +ranks +step time/mu)
  })

  it("is known to sim doctor, with what goes on with it", () => {
    study()
    const ran = sim("run", scenario, "--set", "memory.device=1GB", "--timeline", timeline, "--json")
    expect(ran.status, ran.stderr).toBe(0)
    fs.writeFileSync(run, ran.stdout)
    const files = [
      [path.join(out, "study.arrow"), "study", "sim compare"],
      [saved, "result", "sim compare"],
      [run, "result", "sim compare"],
      [timeline, "timeline", "perfetto"]
    ] as const
    const all = simEach(files.map(([file]) => ["doctor", file, "--json"]))
    expect(all).toHaveLength(files.length)
    for (const [at, { status, stdout, stderr }] of all.entries()) {
      const [file, kind, how] = files[at]!
      expect(status, `${file}: ${stderr}`).toBe(0)
      const told = JSON.parse(stdout) as { readonly kind: string; readonly uses: unknown }
      expect(told.kind, file).toBe(kind)
      expect(JSON.stringify(told.uses), file).toContain(how)
    }
  })
})

describe("sim study", () => {
  // One bandwidth, all algorithms: threads in one process are held to each other in test/study.
  const small = ["study", "scenarios/geo-gpt2-bandwidth.yaml", "--set", "wan.bandwidth=1Gbit/s"]

  it("comes out the same whatever the number of jobs, and writes table, Arrow and report", () => {
    const out = folder()
    const digests = [["1"], ["3", "--out", out]].map((jobs) => {
      const { status, stdout } = sim(...small, "--json", "--jobs", ...jobs)
      expect(status).toBe(0)
      return (JSON.parse(stdout) as { digest: string }).digest
    })
    expect(new Set(digests).size).toBe(1)
    expect(fs.readdirSync(out)).toEqual(expect.arrayContaining(["study.arrow", "study.csv", "report.html"]))
  })
})

describe("bad input", () => {
  const write = (text: string): string => {
    const file = path.join(folder(), "s.yaml")
    fs.writeFileSync(file, text)
    return file
  }
  const good = fs
    .readFileSync(path.join(root, scenario), "utf8")
    .replace("../traces", path.join(root, "traces"))

  const refused = [
    ["malformed YAML", write("name: [x"), []],
    ["unknown field", write(`${good}\ncolour: red\n`), []],
    ["wrong unit", write(good), ["--set", "wan.bandwidth=1parsec"]],
    ["negative bandwidth", write(good), ["--set", "wan.bandwidth=-1Gbit/s"]],
    ["unknown override", write(good), ["--set", "bandwith=1Gbit/s"]],
    ["missing profile", write(good.replace("gpt2-h200", "nothing")), []],
    ["missing file", "/nowhere/s.yaml", []]
  ] as const
  it("each has exit code 2, one message, no stack trace", () => {
    const ended = simEach(refused.map(([, file, more]) => ["run", file, ...more]))
    expect(ended).toHaveLength(refused.length)
    for (const [at, [what]] of refused.entries()) {
      const { status, stdout, stderr } = ended[at]!
      expect({ status, stdout }, what).toEqual({ status: 2, stdout: "" })
      expect(stderr, what).toMatch(/expected|accepted/u)
      expect(stderr, what).not.toMatch(/^\s+at /mu)
    }
  })

  it("a truncated profile is refused and nothing is written", () => {
    const out = folder()
    const profile = path.join(out, "cut.arrow")
    const whole = fs.readFileSync(path.join(root, "traces/profiles/gpt2-h200.arrow"))
    fs.writeFileSync(profile, whole.subarray(0, whole.length >> 1))
    const target = path.join(out, "result")
    const { status } = sim(
      "study",
      "scenarios/geo-gpt2-bandwidth.yaml",
      "--set",
      `profile=${profile}`,
      "--out",
      target
    )
    expect(status).toBe(2)
    expect(fs.existsSync(path.join(target, "study.arrow"))).toBe(false)
  })
})

// What ends a command early: Ctrl-C, a full disk. Finished points stay usable and --resume goes on from them; files appear
// whole or not at all; the exit code says which it was.
import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { readStudyArrow } from "../../sim/study/study-file.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { begin, filesIn, folder, root, sim, simInShell } from "./launch.ts"

const here = folder()
const fresh = (name: string): string => path.join(here, name)

/** A study of so many points, each of a fraction of a second when `ranks` is many. */
const study = (name: string, points: number, ranks: number): string => {
  const file = fresh(`${name}.yaml`)
  const text = `name: ${name}
model: { layers: 24, parameters: 1e6, stepSeconds: 10ms }
world: { ranks: ${ranks}, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: { name: dreamddp, period: 5 }
jitter: 0.1
steps: 40
study: { axes: { seed: [${Array.from({ length: points }, (_, i) => i + 1).join(", ")}] } }
`
  fs.writeFileSync(file, text)
  return file
}

interface StudyJson {
  readonly digest: string
  readonly rows: ReadonlyArray<{ readonly point: number }>
}
const parsed = (stdout: string): StudyJson => JSON.parse(stdout) as StudyJson

/** Resolves when a journal has so many finished points. */
const journalHas = async (journal: string, points: number): Promise<void> => {
  for (;;) {
    const lines = fs.existsSync(journal) ? fs.readFileSync(journal, "utf8").split("\n").length - 2 : -1
    if (lines >= points) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe("Ctrl-C during a study", () => {
  const slow = study("slow", 14, 8)
  const whole = parsed(sim("study", slow, "--json", "--jobs", "1").stdout)

  it.each([
    ["one thread", "SIGINT", 130, ["--jobs", "1"]],
    ["two threads", "SIGINT", 130, ["--jobs", "2"]],
    ["a shard", "SIGTERM", 143, ["--jobs", "1", "--shard", "1/2"]]
  ] as const)(
    "on %s (%s) leaves finished points usable, and --resume continues",
    async (name, signal, code, args) => {
      const out = fresh(`interrupted ${name}`)
      const sharded = args.length > 2
      const { child, ended } = begin("study", slow, "--out", out, ...args)
      await journalHas(path.join(out, sharded ? "journal-1-of-2.jsonl" : "journal.jsonl"), 2)
      child.kill(signal)
      const { status, stdout, stderr } = await ended
      expect({ status, stdout }).toEqual({ status: code, stdout: "" })
      const [, finished, total] =
        /^sim: (\d+) of (\d+) points are finished; continue with --resume$/mu.exec(stderr) ?? []
      expect(Number(total)).toBe(sharded ? 7 : 14)
      expect(Number(finished)).toBeGreaterThanOrEqual(2)
      expect(Number(finished)).toBeLessThan(Number(total))

      // What is there is whole, and says what a run to the end says of the same points.
      const files = filesIn(out).filter((file) => !file.startsWith("journal"))
      expect(files).toEqual(sharded ? ["shard-1-of-2.arrow"] : ["study.arrow", "study.csv"])
      const partial = await Effect.runPromise(readStudyArrow(path.join(out, files[0]!)))
      expect(partial.rows).toHaveLength(Number(finished))
      for (const row of partial.rows) expect(row).toEqual(whole.rows[row.point])

      const resumed = sim("study", slow, "--out", out, ...args, "--resume", "--json")
      expect(resumed.status).toBe(0)
      if (sharded)
        expect(parsed(resumed.stdout).rows).toEqual(whole.rows.filter(({ point }) => point % 2 === 1))
      else expect(parsed(resumed.stdout)).toEqual(whole)
    }
  )

  it("before any point is finished leaves nothing", async () => {
    const one = study("one slow point", 1, 400)
    const out = fresh("nothing")
    const { child, ended } = begin("study", one, "--out", out, "--jobs", "2")
    await journalHas(path.join(out, "journal.jsonl"), 0)
    child.kill("SIGINT")
    expect(await ended).toMatchObject({ status: 130, stdout: "" })
    expect(fs.existsSync(out)).toBe(false)
  })
})

describe("a study whose folder is taken away meanwhile", () => {
  const slow = study("slow to take away", 14, 8)
  const whole = parsed(sim("study", slow, "--json").stdout)
  const journal = "journal.jsonl"

  const withTwoPoints = async (out: string) => {
    const begun = begin("study", slow, "--out", out, "--jobs", "1", "--json")
    await journalHas(path.join(out, journal), 2)
    return begun
  }

  it("has it again at its end, with everything in it", async () => {
    const out = fresh("taken away")
    const { ended } = await withTwoPoints(out)
    fs.rmSync(out, { recursive: true })
    const { status, stdout, stderr } = await ended
    expect([status, parsed(stdout)], stderr).toEqual([0, whole])
    expect(filesIn(out)).toEqual([journal, "report.html", "study.arrow", "study.csv"])
    expect(parsed(sim("study", slow, "--out", out, "--resume", "--json").stdout)).toEqual(whole)
  })

  it("has its finished points there when it is interrupted", async () => {
    const out = fresh("taken away, interrupted")
    const { child, ended } = await withTwoPoints(out)
    fs.rmSync(out, { recursive: true })
    child.kill("SIGINT")
    const { status, stderr } = await ended
    expect(status).toBe(130)
    const finished = /^sim: (\d+) of 14 points are finished; continue with --resume$/mu.exec(stderr)?.[1]
    expect(fs.readFileSync(path.join(out, journal), "utf8").split("\n")).toHaveLength(Number(finished) + 2)
  })

  it("promises nothing where it cannot be had again", async () => {
    const out = fresh("a file in its place")
    const { ended } = await withTwoPoints(out)
    fs.rmSync(out, { recursive: true })
    fs.writeFileSync(out, "")
    expect(await ended).toEqual({
      status: 2,
      stdout: "",
      stderr: `sim: ${path.join(out, journal)}: ${out} is a file is not accepted; expected a file in a writable folder with free space\n`
    })
  })

  it("leaves another's journal alone", async () => {
    const out = fresh("another's")
    const { ended } = await withTwoPoints(out)
    fs.rmSync(out, { recursive: true })
    fs.mkdirSync(out)
    fs.writeFileSync(path.join(out, journal), "another's")
    const { status, stderr } = await ended
    expect(stderr).toMatch(
      /journal\.jsonl: that of another run, which has begun there since, is not accepted/u
    )
    expect(stderr).not.toContain("--resume")
    expect([status, filesIn(out)]).toEqual([2, [journal]])
    expect(fs.readFileSync(path.join(out, journal), "utf8")).toBe("another's")
  })
})

describe("what was found out", () => {
  it("by a study is told though its files cannot be written", async () => {
    const out = fresh("obstacle")
    const slow = study("with an obstacle", 8, 8)
    const { ended } = begin("study", slow, "--out", out, "--jobs", "1", "--json")
    await journalHas(path.join(out, "journal.jsonl"), 1)
    fs.mkdirSync(path.join(out, "study.arrow"))
    const { status, stdout, stderr } = await ended
    expect([status, parsed(stdout).rows.length], stderr).toEqual([2, 8])
    expect(stderr).toMatch(/^sim: \S+study\.arrow: file is a folder/u)
  })

  it("need not reach anybody for a file's failure to be told", () => {
    const args = ["run", "scenarios/geo-gpt2.yaml", "--timeline", "/dev/full"]
    const { status, stderr } = simInShell('exec $SIM "$@" > /dev/full', ...args)
    expect(stderr).toMatch(/^sim: \/dev\/full: file is on a disk with no space left \(ENOSPC\); [^\n]+\n$/u)
    expect(status).toBe(2)
  })
})

describe("a signal while one simulation runs", () => {
  const long = fresh("long.yaml")
  fs.writeFileSync(
    long,
    `name: long
model: { profile: traces/profiles/gpt2-h200.arrow }
world: { ranks: 8, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
jitter: 0.1
steps: 100000
`
  )
  it.each([
    ["run", "SIGINT", 130],
    ["explain", "SIGTERM", 143],
    ["run", "SIGHUP", 129]
  ] as const)("is heard by sim %s: %s", async (command, signal, code) => {
    // Without the launcher, so that it is this process of which is known what it hears.
    const child = spawn(process.execPath, ["sim/cli.ts", command, long], {
      cwd: root,
      env: endsWithParent,
      stdio: "ignore"
    })
    const ended = new Promise((resolve) => child.on("close", resolve))
    const hears = (): boolean => {
      const caught = /^SigCgt:\s*(\w+)$/mu.exec(fs.readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]
      return (Number.parseInt(caught!.slice(-4), 16) & 1) === 1
    }
    /** Processor time that it has had, in hundredths of a second. */
    const worked = (): number => {
      const fields = fs.readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1]!.split(" ")
      return Number(fields[11]) + Number(fields[12])
    }
    const wait = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))
    while (!hears()) await wait(20)
    // Half a second of work later it is under way; minutes would pass before its end.
    const from = worked()
    while (worked() < from + 50) await wait(20)
    const before = performance.now()
    child.kill(signal)
    expect(await ended).toBe(code)
    expect(performance.now() - before).toBeLessThan(10_000)
  })
})

// A process that may write files of so many blocks of 512 bytes and no larger: to it the disk is full, on any machine.
const limited = (blocks: number): string => `trap '' XFSZ; ulimit -f ${blocks}; exec $SIM "$@"`

describe("a disk that takes no more", () => {
  const many = study("many", 40, 2)
  const whole = parsed(sim("study", many, "--json").stdout)
  const full =
    /^sim: [^\n]+(?:is|:) (?:longer|on)[^\n]+ \(E(?:FBIG|NOSPC)\)[^\n]*; ?expected a (?:file|path) in an? [^\n]*writable folder with free space\n$/mu

  it("for a study's journal keeps what is finished; --resume goes on from there", () => {
    const out = fresh("full journal")
    const { status, stdout, stderr } = simInShell(limited(40), "study", many, "--out", out, "--jobs", "1")
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" })
    expect(stderr).toContain(`${path.join(out, "journal.jsonl")}: longer than a file may become here (EFBIG)`)
    expect(stderr).toMatch(/^sim: \d+ of 40 points are finished; continue with --resume$/mu)
    expect(filesIn(out)).toEqual(["journal.jsonl"])
    const resumed = sim("study", many, "--out", out, "--resume", "--json")
    expect(resumed.status).toBe(0)
    expect(parsed(resumed.stdout)).toEqual(whole)
  })

  // What was simulated is told all the same.
  const simulated = sim("run", "scenarios/geo-gpt2.yaml").stdout

  it.each([
    ["a timeline", ["run", "scenarios/geo-gpt2.yaml", "--timeline"], "timeline.json", simulated],
    ["a recorded timeline", ["run", "scenarios/geo-gpt2.yaml", "--record"], "timeline.arrow", simulated],
    [
      "a profile",
      ["import", "kineto", "test/fixtures/traces/resnet18-h200.pt.trace.json.gz", "-o"],
      "profile.arrow",
      ""
    ]
  ] as const)("for %s leaves the file that was there", (_, args, name, told) => {
    const out = fresh(`full ${name}`)
    fs.mkdirSync(out)
    const target = path.join(out, name)
    fs.writeFileSync(target, "what was there")
    const { status, stdout, stderr } = simInShell(limited(8), ...args, target)
    expect({ status, stdout }).toEqual({ status: 2, stdout: told })
    expect(stderr).toMatch(full)
    expect(stderr).toContain(target)
    expect(filesIn(out)).toEqual([name])
    expect(fs.readFileSync(target, "utf8")).toBe("what was there")
  })

  it("for standard output is said", () => {
    const { status, stderr } = simInShell('exec $SIM "$@" > /dev/full', "run", "scenarios/geo-gpt2.yaml")
    expect({ status, stderr }).toEqual({
      status: 2,
      stderr: "sim: cannot write to standard output (ENOSPC): expected a file or pipe with space\n"
    })
    // Nor does a device cease to be one.
    const timeline = sim("run", "scenarios/geo-gpt2.yaml", "--json", "--timeline", "/dev/full")
    // What was simulated is told before that.
    expect(JSON.parse(timeline.stdout)).toHaveProperty("stepSeconds")
    expect(timeline.status).toBe(2)
    expect(fs.statSync("/dev/full").isCharacterDevice()).toBe(true)
  })

  it("but a reader that has seen enough is no failure", () => {
    const { status, stdout } = simInShell('$SIM "$@" --json | head -c 10', "run", "scenarios/geo-gpt2.yaml")
    expect({ status, stdout }).toEqual({ status: 0, stdout: '{\n  "diges' })
  })

  // A small file system of its own needs a namespace, which not every machine gives.
  const mounted = 'mount -t tmpfs -o size=48k tmpfs "$0" && '
  const mayMount = spawnSync("unshare", ["-rm", "sh", "-c", `${mounted} true`, here]).status === 0
  it.skipIf(!mayMount)("as a real one does, keeps its word", () => {
    const out = fresh("small disk")
    fs.mkdirSync(out)
    const script = `${mounted} { $SIM study "$1" --out "$0/out" --jobs 1; echo "status $?"; ls "$0/out"; }`
    const { stdout, stderr } = spawnSync("unshare", ["-rm", "sh", "-c", script, out, many], {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, SIM: `${process.execPath} ${path.join(root, "bin/sim.js")}` }
    })
    expect(stderr).toMatch(/^sim: [^\n]*: on a disk with no space left \(ENOSPC\)[^\n]*free space$/mu)
    expect(stderr).toContain("continue with --resume")
    expect(stdout).toBe("status 2\njournal.jsonl\n")
  })
})

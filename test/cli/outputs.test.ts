// What commands write, and where: never onto what they read or onto each other, one study at a time in a folder, nothing left of
// writers that were killed, and nothing in it that a terminal, a spreadsheet or a browser would obey.
import { createHash } from "node:crypto"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { beforeEach, describe, expect, it, vi } from "vitest"
import { requireApart, requireWritable } from "../../scenarios/cli/outputs.ts"
import { filesOf } from "../../scenarios/named-files.ts"
import { readSource } from "../../scenarios/file/source.ts"
import { filesThere } from "../../exec/cli/checkpoints.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { loadText } from "../../scenarios/text.ts"
import { lockOf, lossOf, withLock } from "../../scenarios/cli/folder-lock.ts"
import { clearLeftovers, nameBeside } from "../../traces/beside.ts"
import { writeFileAtomically } from "../../traces/atomic-file.ts"
import { filesIn, folder, root, sim } from "./launch.ts"

const small = `name: small
model: { layers: 2, parameters: 1000, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
`

/** The number of a process that has ended. */
const gone = spawnSync("true").pid

const message = <A, E extends Error>(effect: Effect.Effect<A, E>): string =>
  Effect.runSync(Effect.flip(effect)).message

describe("outputs", () => {
  const here = folder()
  const input = path.join(here, "input.yaml")
  fs.writeFileSync(input, small)
  fs.symlinkSync(input, path.join(here, "link.json"))
  fs.linkSync(input, path.join(here, "hard.yaml"))
  fs.symlinkSync(here, path.join(here, "again"))

  it("are refused before the work for them where they cannot be made, root or not", () => {
    const places = [
      `${here}/input.yaml/new`,
      `${here}/${"x".repeat(255)}`,
      "/proc/new",
      `${here}/none/new`,
      here
    ]
    const there = filesIn(here)
    for (const place of places)
      expect(message(requireWritable(place, "--save"))).toMatch(
        /^[^,]*: --save: [\w :,()]+ is not accepted; expected a file in an existing, writable folder$/u
      )
    Effect.runSync(requireWritable(`${here}/new`, "--save"))
    Effect.runSync(requireWritable("/dev/null", "--save"))
    expect(filesIn(here)).toEqual(there)
  })

  it("are never what is read, by whatever name, nor one file twice", () => {
    const names = ["input.yaml", "link.json", "hard.yaml", "again/input.yaml", "./again/../input.yaml"]
    for (const name of names) {
      expect(message(requireApart([["--out", `${here}/${name}`]], [input]))).toMatch(
        /--out: .* is not accepted; expected a file of its own; it would replace what is read: .*input\.yaml/u
      )
    }
    const twice = [
      ["--out", `${here}/new`],
      ["--save", `${here}/again/new`]
    ] as const
    expect(message(requireApart(twice, [input]))).toContain("it would replace that of --out")
    // What replaces nothing may be there twice.
    const devices = [
      ["--out", "/dev/null"],
      ["--save", "/dev/null"],
      ["--timeline", `${here}/other`],
      ["--record", undefined]
    ] as const
    Effect.runSync(requireApart(devices, [input]))
  })

  it("are held apart from what cannot be looked at, which whoever reads it says", () => {
    // As root, whom every folder lets in, these stand for one that does not.
    const loop = path.join(here, "loop.arrow")
    fs.symlinkSync(loop, loop)
    const refusals = [
      [path.join(here, `${"x".repeat(255)}.arrow`), "ENAMETOOLONG"],
      [loop, "ELOOP"]
    ] as const
    const out = path.join(here, "profile.arrow")
    for (const [file, code] of refusals) {
      Effect.runSync(requireApart([["--out", `${here}/new`]], [file]))
      for (const args of [
        ["run", input, "--set", `model={profile: ${file}}`, "--timeline", `${here}/new.json`],
        ["import", "kineto", file, "-o", out]
      ]) {
        const { status, stderr } = sim(...args)
        expect(stderr).toMatch(new RegExp(`^sim: (?!an error in tandem)[^\\n]*${code}`, "u"))
        expect(status).toBe(2)
      }
    }
    fs.rmSync(loop)
  })

  it("are none of the files of a folder, or of a name with stars", () => {
    const tokens = path.join(here, "tokens")
    fs.mkdirSync(tokens)
    for (const name of ["a.bin", "b.bin", "c.txt"]) fs.writeFileSync(path.join(tokens, name), "")
    const scenario = (sets: ReadonlyArray<string>) => Effect.runSync(loadScenario(input, sets))
    const training = "training={tokens: tokens/*.bin, optimizer: sgd}"
    const read = filesOf(scenario([training, "host={measured: link.json}"]), input)
    expect(read.map((file) => path.relative(here, file))).toEqual([
      "input.yaml",
      "link.json",
      "tokens/a.bin",
      "tokens/b.bin"
    ])
    expect(filesOf(scenario(["training={text: gone/*.txt, optimizer: sgd}"]), input)).toHaveLength(2)
  })

  it("are no part of a checkpoint that is kept", () => {
    const kept = path.join(here, "kept")
    const step = path.join(kept, "step-0000000007")
    fs.mkdirSync(step, { recursive: true })
    fs.writeFileSync(path.join(step, "manifest.json"), "{}")
    const read = filesThere({
      folder: kept,
      every: 1,
      keep: 2,
      newestStep: undefined,
      predecessor: undefined
    })
    expect(message(requireApart([["--out", path.join(step, "manifest.json")]], read))).toContain(
      "it would replace what is read"
    )
    Effect.runSync(requireApart([["--out", path.join(kept, "result.json")]], read))
  })

  it("of a command are held to that", () => {
    const before = fs.readFileSync(input, "utf8")
    const { status, stderr } = sim("run", input, "--timeline", path.join(here, "link.json"))
    expect(stderr).toMatch(/^sim: --timeline: .*link\.json is not accepted; expected a file of its own/u)
    expect(status).toBe(2)
    expect(fs.readFileSync(input, "utf8")).toBe(before)
  })

  it("into a pipe that nobody reads, and onto a full device, are errors", () => {
    const pipe = path.join(here, "pipe")
    spawnSync("mkfifo", [pipe])
    const write = (file: string) =>
      writeFileAtomically(file, (sink) => Effect.sync(() => sink.write("x".repeat(1 << 16))))
    expect(message(write(pipe))).toContain("a pipe that nobody reads (ENXIO)")
    expect(message(write("/dev/full"))).toContain("ENOSPC")
  })

  it("into a pipe that is read slowly arrive whole", () => {
    const pipe = path.join(here, "slow")
    spawnSync("mkfifo", [pipe])
    const script = `timeout 20 sh -c '(sleep 0.3; cat) < "$0"' "$1" | wc -c & "$2" --input-type=module -e '
      const { writeFileAtomically } = await import(process.argv[1])
      const Effect = await import("effect/Effect")
      await Effect.runPromise(writeFileAtomically(process.argv[2], (sink) => Effect.sync(() => sink.write("x".repeat(1e6)))))
    ' "$3" "$1"; wait`
    const module = path.join(root, "traces/atomic-file.ts")
    const { stdout, stderr } = spawnSync("sh", ["-c", `${script}`, "sh", pipe, process.execPath, module], {
      cwd: root,
      encoding: "utf8"
    })
    expect([stdout.trim(), stderr]).toEqual(["1000000", ""])
  })

  it("in a folder that cannot be made say that", () => {
    const file = path.join(here, "study.yaml")
    fs.writeFileSync(file, `${small}study: { axes: { "world.ranks": [2] } }\n`)
    const { status, stderr } = sim("study", file, "--out", "/proc/nowhere")
    expect(stderr).toBe(
      "sim: /proc/nowhere: --out: a folder that cannot be made: /proc takes no folders: it is read-only, or not kept on a disk (ENOENT) is not accepted; expected a folder that can be written to\n"
    )
    expect(status).toBe(2)
  })
})

describe("what killed writers leave", () => {
  it("is cleared by the next one, and nothing else", async () => {
    const here = folder()
    const target = path.join(here, "study.csv")
    const mine = nameBeside(target)
    const left = mine.replace(`.${process.pid}.`, `.${gone}.`)
    const others = [
      mine,
      // With its dots: the folder's own name, which is random, may have that of the host in it.
      left.replace(`.${os.hostname().replaceAll(/[^\w-]/gu, "-")}.`, ".elsewhere."),
      path.join(here, `.other.csv.${path.basename(left).split(".").slice(3).join(".")}`)
    ]
    for (const file of [left, ...others]) fs.writeFileSync(file, "half")
    await Effect.runPromise(writeFileAtomically(target, (sink) => Effect.sync(() => sink.write("whole"))))
    const names = [...others, target].map((file) => path.basename(file)).toSorted()
    expect(filesIn(here)).toEqual(names)
    clearLeftovers(path.join(here, "not/there"))
  })
})

describe("a study's folder", () => {
  const here = folder()
  const lock = path.join(here, "journal.jsonl.lock")
  beforeEach(() => fs.rmSync(lock, { force: true }))
  const hold = (holder: unknown, ageSeconds = 0) => {
    fs.writeFileSync(lock, typeof holder === "string" ? holder : JSON.stringify(holder))
    const at = Date.now() / 1000 - ageSeconds
    fs.utimesSync(lock, at, at)
  }
  const used = Effect.sync(() => fs.existsSync(lock))
  const study = { folder: here, option: "--out", what: "a study" }

  it("is one study's at a time", () => {
    const host = os.hostname()
    for (const holder of [{ pid: process.ppid, host }, { pid: 1, host: "elsewhere" }, ""]) {
      hold(holder)
      expect(message(withLock(lock, study, used))).toMatch(
        /--out: a folder that .*process.* writes a study to is not accepted; expected another folder, or this one when/u
      )
      expect(fs.existsSync(lock)).toBe(true)
    }
    const inside = withLock(lock, study, withLock(lock, study, used))
    fs.rmSync(lock)
    expect(message(inside)).toContain(`process ${process.pid}`)
    expect(fs.existsSync(lock)).toBe(false)
  })

  it("is recovered when its holder has ended, or its number is another process's", () => {
    const host = os.hostname()
    for (const [holder, age] of [
      [{ pid: gone, host }, 0],
      [{ pid: process.ppid, host, began: "1" }, 0],
      ['{"pid": 1', 60]
    ] as const) {
      hold(holder, age)
      expect(Effect.runSync(withLock(lock, study, used))).toBe(true)
      expect(filesIn(here)).toEqual([])
    }
  })

  it("is locked whole or not at all, by whoever is killed meanwhile", () => {
    const script = `import * as Effect from "effect/Effect"
      import { withLock } from ${JSON.stringify(path.join(root, "scenarios/cli/folder-lock.ts"))}
      import fs from "node:fs"
      import { syncBuiltinESMExports } from "node:module"
      const { writeSync } = fs
      fs.writeSync = (...args) => (args[0] > 2 ? process.kill(process.pid, "SIGKILL") : writeSync(...args))
      syncBuiltinESMExports()
      Effect.runSync(withLock(${JSON.stringify(lock)}, ${JSON.stringify(study)}, Effect.void))`
    const { signal, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      cwd: root,
      encoding: "utf8"
    })
    expect([signal, stderr]).toEqual(["SIGKILL", ""])
    expect(Effect.runSync(withLock(lock, study, used))).toBe(true)
    expect(filesIn(here)).toEqual([])
  })

  it("of another host is recovered when it was touched, and is not any more", () => {
    const elsewhere = { pid: 1, host: "elsewhere" }
    const touched = { ...study, touched: true }
    for (const age of [0, 110]) {
      hold(elsewhere, age)
      expect(message(withLock(lock, touched, used))).toContain("process 1 on elsewhere")
    }
    hold(elsewhere, 130)
    expect(message(withLock(lock, study, used))).toContain("process 1 on elsewhere")
    expect(Effect.runSync(withLock(lock, touched, used))).toBe(true)
    expect(filesIn(here)).toEqual([])
  })

  it("is locked again where somebody has removed the lock, with it or alone, and nobody else was there", async () => {
    const place = path.join(here, "removed")
    const own = path.join(place, "journal.jsonl.lock")
    let alone = true
    const used = Effect.gen(function* () {
      yield* lockOf(own, { ...study, mayRegain: () => alone })
      const text = fs.readFileSync(own, "utf8")
      for (const removed of [own, place]) {
        fs.rmSync(removed, { recursive: true })
        expect(lossOf(own)).toBeUndefined()
        expect(fs.readFileSync(own, "utf8")).toBe(text)
      }
      // Not where it cannot be made; when it can be, it is.
      fs.rmSync(place, { recursive: true })
      fs.writeFileSync(place, "")
      expect(lossOf(own)).toEqual({ gone: `${place} is a file` })
      fs.rmSync(place)
      expect(lossOf(own)).toBeUndefined()
      // Who may have been there meanwhile is not written over, nor later.
      fs.rmSync(own)
      alone = false
      expect(lossOf(own)).toEqual({ by: "another process" })
      alone = true
      expect(lossOf(own)).toEqual({ by: "another process" })
    })
    fs.mkdirSync(place)
    await Effect.runPromise(Effect.scoped(used))
    expect(filesIn(place)).toEqual([])
    fs.rmSync(place, { recursive: true })
  })

  it("is touched while it is held", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] })
    try {
      const times = Effect.sync(() => {
        const text = fs.readFileSync(lock, "utf8")
        fs.utimesSync(lock, 1, 1)
        vi.advanceTimersByTime(15_000)
        expect(fs.readFileSync(lock, "utf8")).toBe(text)
        return fs.statSync(lock).mtimeMs
      })
      expect(await Effect.runPromise(withLock(lock, { ...study, touched: true }, times))).toBeGreaterThan(1e6)
      expect(await Effect.runPromise(withLock(lock, study, times))).toBe(1000)
    } finally {
      vi.useRealTimers()
    }
  })

  it("of one who gave no sign of life is left to whoever took it over", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] })
    try {
      const other = `${JSON.stringify({ pid: 7, host: "elsewhere", began: "1" })}\n`
      const losses: ReadonlyArray<readonly [() => void, string]> = [
        [() => fs.writeFileSync(lock, other), "process 7 on elsewhere"],
        // Longer than ours, and begins with it.
        [() => fs.appendFileSync(lock, " "), `process ${process.pid} on ${os.hostname()}`],
        [() => fs.rmSync(lock), "another process"]
      ]
      for (const [lose, by] of losses)
        for (const asked of ["timer", "writer", "nobody"]) {
          const used = Effect.gen(function* () {
            yield* lockOf(lock, { ...study, touched: true })
            expect(lossOf(lock)).toBeUndefined()
            lose()
            const now = fs.existsSync(lock) ? fs.readFileSync(lock, "utf8") : undefined
            if (asked === "timer") {
              vi.advanceTimersByTime(15_000)
              expect(vi.getTimerCount()).toBe(0)
            }
            if (asked === "writer") {
              expect(lossOf(lock)).toEqual({ by })
              expect(vi.getTimerCount()).toBe(0)
            }
            return now
          })
          const now = await Effect.runPromise(Effect.scoped(used))
          // Neither touched nor removed, and no timer is left.
          expect(fs.existsSync(lock) ? fs.readFileSync(lock, "utf8") : undefined).toBe(now)
          expect(vi.getTimerCount()).toBe(0)
          fs.rmSync(lock, { force: true })
        }
    } finally {
      vi.useRealTimers()
    }
  })

  // Root may write to any folder, and a file system of its own needs a namespace, which not every machine gives.
  const readOnly = `import * as Effect from "effect/Effect"
    import { execFileSync } from "node:child_process"
    const { withLock } = await import(process.argv[2])
    const folder = process.argv[1]
    const remount = Effect.sync(() => execFileSync("mount", ["-o", "remount,ro", folder]))
    Effect.runSync(withLock(folder + "/lock", { folder, option: "--out", what: "a study" }, remount))`
  const mount = 'mount -t tmpfs -o size=48k tmpfs "$0" && '
  const inNamespace = (script: string, ...args: ReadonlyArray<string>) =>
    spawnSync("unshare", ["-rm", "sh", "-c", `${mount}${script}`, here, ...args], {
      cwd: root,
      encoding: "utf8"
    })
  const mayMount = inNamespace('mount -o remount,ro "$0"').status === 0
  it.skipIf(!mayMount)("that has become read-only keeps the lock, and fails nobody", () => {
    const script = '"$1" --input-type=module -e "$2" "$0" "$3"; echo "status $?"; ls "$0"'
    const module = path.join(root, "scenarios/cli/folder-lock.ts")
    const { stdout, stderr } = inNamespace(script, process.execPath, readOnly, module)
    expect([stdout, stderr]).toEqual(["status 0\nlock\n", ""])
  })

  it("is held to that by the command", () => {
    const file = path.join(here, "study.yaml")
    fs.writeFileSync(file, `${small}study: { axes: { "world.ranks": [2] } }\n`)
    hold({ pid: process.pid, host: os.hostname() })
    const { status, stderr } = sim("study", file, "--out", here)
    expect(stderr).toContain(`a folder that process ${process.pid} writes a study to`)
    expect([status, filesIn(here)]).toEqual([2, ["journal.jsonl.lock", "study.yaml"]])
  })
})

describe("messages", () => {
  it("carry no control character to a terminal, and stay JSON", () => {
    const here = folder()
    const name = "\u001b[31mred\u009b2J\u202e\u0007"
    const file = path.join(here, "named.yaml")
    fs.writeFileSync(file, small.replace("small", JSON.stringify(name)))
    const told = sim("run", file)
    expect(told.stdout).toContain("\\u001b[31mred\\u009b2J\\u202e\\u0007")
    const json = sim("run", file, "--json")
    expect((JSON.parse(json.stdout) as { scenario: string }).scenario).toBe(name)
    const refused = sim("run", path.join(here, `\u001b]0;x\u0007.yaml`))
    for (const text of [told.stdout, json.stdout, refused.stderr])
      expect(/(?![\n\t])[\p{Cc}\p{Bidi_Control}]/u.test(text)).toBe(false)
  })

  it("are few and short, whatever is wrong with a file", () => {
    const file = path.join(folder(), "flood.yaml")
    for (const part of ["{[", "- a: b: c\n", '"\n', "a: [\n", "%x\n", `k: "${"y".repeat(5000)}\n`]) {
      fs.writeFileSync(file, part.repeat(100))
      const text = message(readSource(file))
      expect(text.length).toBeLessThan(50_000)
      expect(text.split("\n").length).toBeLessThanOrEqual(21)
    }
  })
})

describe("a text to learn", () => {
  it("is UTF-8 or refused", () => {
    const file = path.join(folder(), "text.txt")
    fs.writeFileSync(file, Buffer.from([...Buffer.from("abc ".repeat(100)), 0xff, 0xfe, 0x41]))
    const read = loadText([file], 0.1, { context: 4, vocabulary: 64 }, ["s.yaml", "training.text"])
    expect(message(read)).toMatch(/training\.text: .*not valid.*utf-8.* expected a text file in UTF-8/iu)
  })
})

describe("a report", () => {
  it("lets a browser run its own script and no other", () => {
    const here = folder()
    const file = path.join(here, "study.yaml")
    fs.writeFileSync(file, `${small}study: { axes: { name: ["=1+1", "+x", "@y", "-z", "plain"] } }\n`)
    sim("study", file, "--out", path.join(here, "out"))
    const html = fs.readFileSync(path.join(here, "out/report.html"), "utf8")
    const policy = /Content-Security-Policy" content="([^"]*)"/u.exec(html)![1]!
    const [script] = [...html.matchAll(/<script>([\s\S]*?)<\/script>/gu)].map(([, text]) => text!)
    const hash = createHash("sha256").update(script!).digest("base64")
    expect(policy).toContain(`script-src 'sha256-${hash}'`)
    expect(policy.split(";").find((part) => part.includes("script-src"))).not.toContain("unsafe")
    // And its table is no program of a spreadsheet's.
    const cells = fs.readFileSync(path.join(here, "out/study.csv"), "utf8").split("\r\n").slice(1, 6)
    expect(cells.map((line) => line.split(",")[1])).toEqual(["'=1+1", "'+x", "'@y", "'-z", "plain"])
  })
})

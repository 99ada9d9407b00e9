// exec train as a job of processes, through the command line: what is learnt is what threads of one process learn, to the bit,
// whoever starts the processes; and nobody is left behind when one is killed.
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, expect, it } from "vitest"
import { freePort } from "../../exec/job/free-port.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { exec, root } from "../cli/launch.ts"
import { describeNative } from "../native/addon.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { childrenOf, isAlive } from "../setup/running.ts"
import { variablesOf } from "./started.ts"

const folder = mkdtempSync(path.join(tmpdir(), "exec-job-"))
const children: Array<ChildProcess> = []
afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
})

const command = (...args: ReadonlyArray<string>): ReadonlyArray<string> => [
  path.join(root, "bin/exec.js"),
  "train",
  "scenarios/train-tiny.yaml",
  ...args
]

const run = (...args: ReadonlyArray<string>): Record<string, unknown> => {
  const out = path.join(folder, `${args.length}-${args.join("").replaceAll(/\W/gu, "")}.json`)
  const { status, stderr } = exec("train", "scenarios/train-tiny.yaml", ...args, "--out", out)
  expect(status, stderr).toBe(0)
  return JSON.parse(readFileSync(out, "utf8")) as Record<string, unknown>
}

const learnt = ({ losses, heldOutLosses, stepsDone }: Record<string, unknown>) => ({
  losses,
  heldOutLosses,
  stepsDone
})

interface Ended {
  readonly code: number | null
  readonly text: string
}

const ended = (child: ChildProcess): Promise<Ended> => {
  children.push(child)
  let text = ""
  child.stderr!.on("data", (more) => (text += String(more)))
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, text })))
}

/** When it has said that on standard error. Fails where it ends before. */
const saying = (child: ChildProcess, words: string): Promise<void> => {
  let text = ""
  return new Promise((resolve, reject) => {
    child.stderr!.on("data", (more) => {
      text += String(more)
      if (text.includes(words)) resolve()
    })
    child.on("close", (code, signal) => reject(new Error(`ended with ${code ?? signal}: ${text}`)))
  })
}

describeNative("exec train over processes", () => {
  it.each([
    ["s-sgd", []],
    ["diloco", ["--set", "algorithm={name: diloco, period: 3}"]],
    [
      "streaming-diloco",
      ["--set", "algorithm={name: streaming-diloco, period: 4, fragments: 2, delaySteps: 1, wire: float4}"]
    ]
  ])("learns with %s what one process learns, to the bit", (_, algorithm) => {
    const common = ["--steps", "6", "--set", "world.ranks=2", ...algorithm]
    const apart = run(...common, "--processes", "2")
    expect(learnt(apart)).toEqual(learnt(run(...common)))
    expect((apart["losses"] as ReadonlyArray<unknown>).length).toBeGreaterThanOrEqual(6)
  })

  it("learns on nodes of unlike numbers of ranks, as threads and as processes", () => {
    const unlike = ["--steps", "2", "--set", "world={ranksPerNode: [2, 1]}"]
    const apart = run(...unlike, "--processes", "3")
    expect(learnt(apart)).toEqual(learnt(run(...unlike)))
    expect(apart).toMatchObject({ ranks: 3, stepsDone: 2 })
  })

  it("starts no process where their number is not that of the ranks", () => {
    const asked = ["--set", "world={ranksPerNode: [2, 1]}", "--processes", "100000"]
    const { status, stderr } = exec("train", "scenarios/train-tiny.yaml", ...asked)
    expect(status).toBe(2)
    expect(stderr).toMatch(
      /^exec: .*: ranks: 3 is not accepted; expected 100000, for --processes 100000 starts 100000 processes, one for each rank\n$/u
    )
  })

  it("keeps what is done when a signal comes to one process sooner than to another", async () => {
    const out = path.join(folder, "interrupted.json")
    // However slow the machine, some wait is long enough for a first step.
    for (let waitMillis = 3000; waitMillis <= 48_000 && !existsSync(out); waitMillis *= 2) {
      const port = await freePort()
      const secret = freshSecret()
      const start = (rank: number): ChildProcess =>
        spawn(process.execPath, command("--steps", "10000000", "--set", "world.ranks=2", "--out", out), {
          cwd: root,
          env: { ...process.env, ...variablesOf(rank, 2, "127.0.0.1", port, secret) },
          stdio: ["ignore", "ignore", "pipe"]
        })
      const [first, second] = [start(0), start(1)]
      const ends = [ended(first), ended(second)]
      await sleep(waitMillis)
      second.kill("SIGINT")
      await sleep(300)
      first.kill("SIGINT")
      const [{ code, text }, other] = (await Promise.all(ends)) as [Ended, Ended]
      if (!text.includes("messages go by")) continue
      expect([code, other.code], text).toEqual([130, 130])
    }
    expect(JSON.parse(readFileSync(out, "utf8"))).toMatchObject({ steps: 10_000_000, peakBytes: null })
  })

  it("joins processes that a launcher has started, and refuses a job of another size", async () => {
    const port = await freePort()
    const secret = freshSecret()
    const out = path.join(folder, "launched.json")
    const start = (rank: number, ranks: number) => {
      const args = ["--steps", "3", "--set", `world.ranks=${ranks}`, "--out", out]
      const child = spawn(process.execPath, command(...args), {
        cwd: root,
        env: { ...process.env, ...variablesOf(rank, 2, "127.0.0.1", port, secret) },
        stdio: ["ignore", "ignore", "pipe"]
      })
      return ended(child)
    }
    for (const { code, text } of await Promise.all([start(0, 2), start(1, 2)])) expect(code, text).toBe(0)
    expect(JSON.parse(readFileSync(out, "utf8"))).toMatchObject({ ranks: 2, stepsDone: 3 })
    const { code, text } = await start(0, 3)
    expect(code).toBe(2)
    expect(text).toContain("ranks: 3 is not accepted; expected 2, for torchrun has started 2 processes")
  })

  it("refuses a rank whose weights are others, and looks at outputs where they are written", async () => {
    const [port, secret] = [await freePort(), freshSecret()]
    const start = (rank: number, ...args: ReadonlyArray<string>) => {
      const cwd = path.join(folder, `host ${rank}`)
      mkdirSync(cwd, { recursive: true })
      return ended(
        spawn(
          process.execPath,
          [command()[0]!, "train", path.join(root, "scenarios/train-tiny.yaml"), "--steps", "1", ...args],
          {
            cwd,
            env: {
              ...process.env,
              ...(args.includes("--save") ? {} : variablesOf(rank, 2, "127.0.0.1", port, secret))
            },
            stdio: ["ignore", "ignore", "pipe"]
          }
        )
      )
    }
    // Files of one name that are not the same, as hosts may have them.
    expect(await start(0, "--set", "world.ranks=1", "--save", "w.safetensors")).toMatchObject({ code: 0 })
    const weights = readFileSync(path.join(folder, "host 0/w.safetensors"))
    weights.writeFloatLE(0.5, weights.length - 4)
    // As of another program, which says no digest.
    weights.write("another.name", weights.indexOf("tandem.check"), "latin1")
    for (const made of ["host 1", "host 0/out"]) mkdirSync(path.join(folder, made))
    writeFileSync(path.join(folder, "host 1/w.safetensors"), weights)
    // The other's folder has no place for what rank 0 writes.
    const common = ["--set", "world.ranks=2", "--weights", "w.safetensors", "--out", "out/learnt.json"]
    for (const { code, text } of await Promise.all([start(0, ...common), start(1, ...common)])) {
      expect(text).toMatch(/--weights of rank 1 is (\w+) of (\d+) B, that of rank 0 is (?!\1)\w+ of \2 B/u)
      expect(code).toBe(1)
    }
  })

  it("refuses a rank for which a file of the scenario says something else", async () => {
    const [port, secret] = [await freePort(), freshSecret()]
    const ends = [0, 1].map((rank) => {
      const cwd = path.join(folder, `site ${rank}`)
      mkdirSync(cwd, { recursive: true })
      writeFileSync(path.join(cwd, "asked.csv"), `arrived_at,prompt_tokens,output_tokens\n0,8,${4 + rank}\n`)
      const scenario = path.join(cwd, "serve.yaml")
      const text = readFileSync(path.join(root, "scenarios/agree/kv-serving.yaml"), "utf8")
      writeFileSync(scenario, text.replace(/^requests:.*$/mu, "requests: { trace: asked.csv }"))
      const env = { ...process.env, ...variablesOf(rank, 2, "127.0.0.1", port, secret) }
      const args = [command()[0]!, "agree", scenario]
      return ended(spawn(process.execPath, args, { cwd, env, stdio: ["ignore", "ignore", "pipe"] }))
    })
    for (const { code, text } of await Promise.all(ends)) {
      expect(text).toMatch(
        /requests\.trace: asked\.csv of rank 1 is (\w+) of 45 B, that of rank 0 is (?!\1)\w+ of 45 B/u
      )
      expect(code).toBe(1)
    }
  })

  it("looks whether files can be written before it starts anything", () => {
    for (const [name, ...args] of [
      ["--record", "agree", "scenarios/agree/data-parallel.yaml"],
      ["-o", "profile", "scenarios/agree/data-parallel.yaml"]
    ] as const) {
      const { status, stderr } = exec(...args, "--processes", "2", name, "/dev/null/there/file.arrow")
      expect(stderr).toMatch(
        /^exec: \/dev\/null\/there\/file.arrow: --\w+: .* is not accepted; expected a f\w+ /mu
      )
      expect(stderr).not.toContain("a job of")
      expect(status).toBe(2)
    }
  })

  it("tells what all refuse once", () => {
    const args = ["--text", "/nowhere/text", "--set", "world.ranks=3", "--processes", "3"]
    const { status, stderr } = exec("train", "scenarios/train-tiny.yaml", ...args)
    expect(stderr).toMatch(/^exec: --text \/nowhere\/text: [^\n]+\n$/u)
    expect(status).toBe(2)
  })

  it("says so where there is no port to meet at, and starts nothing", () => {
    const refusing = `import { Server } from "node:net"
      Server.prototype.listen = function () {
        process.nextTick(() => this.emit("error", new Error("listen EADDRNOTAVAIL")))
        return this
      }`
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        "--import",
        `data:text/javascript,${encodeURIComponent(refusing)}`,
        ...command("--processes", "2", "--set", "world.ranks=2")
      ],
      { cwd: root, encoding: "utf8" }
    )
    expect(stderr).toBe(
      "exec: rank 0: no port of 127.0.0.1 for the processes to meet at: listen EADDRNOTAVAIL\n"
    )
    expect([status, stdout]).toEqual([1, ""])
  })

  it("ends everywhere, with the name of the rank, when one is killed", async () => {
    const child = spawn(
      process.execPath,
      command("--steps", "100000", "--set", "world.ranks=3", "--processes", "3"),
      { cwd: root, env: endsWithParent, stdio: ["ignore", "ignore", "pipe"] }
    )
    const end = ended(child)
    await saying(child, "a job of 3 processes")
    await sleep(1000)
    const killedAt = performance.now()
    process.kill(childrenOf(child.pid!)[1]!, "SIGKILL")
    const { code, text } = await end
    // They hear of it within 10 s, and then end.
    expect(performance.now() - killedAt).toBeLessThan(15_000)
    expect(code).not.toBe(0)
    expect(text).toContain("[1] ended by SIGKILL")
    // Each of the others says whom it has lost.
    expect(text).toMatch(/^exec: rank 0: lost rank 1: /mu)
    expect(text).toMatch(/^\[2\] exec: rank 2: lost rank 1: /mu)
    expect(childrenOf(child.pid!)).toEqual([])
  })

  it("leaves none behind that is stopped when the process that started it is killed", async () => {
    // Not `endsWithParent`, by which ranks would end without what is tested.
    const args = command("--steps", "100000", "--set", "world.ranks=3", "--processes", "3")
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "pipe"] })
    children.push(child)
    await saying(child, "a job of 3 processes")
    const ranks = childrenOf(child.pid!)
    expect(ranks).toHaveLength(3)
    try {
      for (const rank of ranks.slice(1)) process.kill(rank, "SIGSTOP")
      child.kill("SIGKILL")
      const killedAt = performance.now()
      while (ranks.some(isAlive) && performance.now() - killedAt < 20_000) await sleep(50)
      expect(ranks.filter(isAlive)).toEqual([])
    } finally {
      for (const rank of ranks.filter(isAlive)) process.kill(rank, "SIGKILL")
    }
  })
})

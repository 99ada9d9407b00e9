// `exec train` as a user meets it: what it prints, what repeats, what Ctrl-C leaves, and how bad input is refused.
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, describe, expect, it } from "vitest"
import type { TrainResult } from "../../exec/cli/train-command.ts"
import { describeNative } from "../native/addon.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { exec as anyExec, execEach, root } from "./launch.ts"

const launcher = path.join(root, "bin/exec.js")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "exec-train-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const exec = (...args: ReadonlyArray<string>) => anyExec("train", ...args)

const scenario = path.join(folder, "tiny.yaml")
fs.writeFileSync(
  scenario,
  `name: tiny
model:
  gpt2: { layers: 1, width: 16, heads: 2, vocabulary: 64, context: 16, batch: 2 }
world: { ranks: 2 }
algorithm: { name: streaming-diloco, period: 6, fragments: 3 }
`
)

describeNative("exec train", () => {
  const json = (...args: ReadonlyArray<string>): TrainResult => {
    const { status, stdout, stderr } = exec(scenario, "--json", ...args)
    expect(stderr).toBe("")
    expect(status).toBe(0)
    return JSON.parse(stdout) as TrainResult
  }
  /** All that does not depend on how fast the machine is. */
  const learnt = (result: TrainResult) => ({ ...result, seconds: 0, tokensPerSecond: 0 })

  it("tells what was learnt, the same bits with the same seed", () => {
    const once = json("--steps", "12", "--seed", "5", "--evaluate-every", "5")
    expect(once).toMatchObject({ scenario: "tiny", algorithm: "streaming-diloco", ranks: 2, seed: 5 })
    expect(once).toMatchObject({ steps: 12, stepsDone: 12, tokens: 12 * 2 * 2 * 16 })
    expect(once.losses.map(({ step }) => step)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1))
    expect(once.heldOutLosses.map(({ step }) => step)).toEqual([5, 10, 12])
    expect(once.tokensPerSecond).toBeCloseTo(once.tokens / once.seconds, 3)
    expect(learnt(json("--steps", "12", "--seed", "5", "--evaluate-every", "5"))).toEqual(learnt(once))
    expect(json("--steps", "12", "--seed", "6").losses).not.toEqual(once.losses)
  })

  it("that has diverged says since when, and ends with exit code 1", () => {
    const out = path.join(folder, "diverged.json")
    const wild = "training.optimizer={name: sgd, learningRate: 1000, momentum: 0.9}"
    const run = (steps: number, ...args: ReadonlyArray<string>) =>
      exec(scenario, "--steps", String(steps), "--set", "algorithm=s-sgd", "--set", wild, ...args)
    const { status, stdout, stderr } = run(20, "--out", out)
    const { losses } = JSON.parse(fs.readFileSync(out, "utf8")) as TrainResult
    const since = losses.findIndex(({ loss }) => loss === null) + 1
    expect(since).toBeGreaterThan(1)
    expect(stderr).toMatch(
      new RegExp(`^exec: training diverged: the loss is NaN from step ${since} on$`, "mu")
    )
    expect(stdout).toContain("20 steps in")
    expect(status).toBe(1)
    // Told by what it has learnt, where the last step spoils that.
    const last = run(since - 1)
    expect(last.stderr).toMatch(
      new RegExp(`^exec: training diverged: the held-out loss is NaN after step ${since - 1}$`, "mu")
    )
    expect(last.status).toBe(1)
    expect(run(20, "--processes", "2").status).toBe(1)
  })

  it("tells what a float16 run's loss is scaled by, and how many of its steps were skipped", () => {
    // a scale from which gradients overflow, and one from which none does
    for (const [initial, overflows] of [
      [2 ** 34, true],
      [1, false]
    ] as const) {
      const half = [
        "--set",
        `training={precision: float16, lossScale: {initial: ${initial}}}`,
        "--steps",
        "3"
      ]
      const { lossScales, losses } = json(...half)
      expect(lossScales!.map(({ rank }) => rank)).toEqual([0, 1])
      expect(losses).toHaveLength(3)
      for (const { scale, skippedSteps } of lossScales!) {
        expect(skippedSteps > 0).toBe(overflows)
        expect(scale).toBe(initial / 2 ** skippedSteps)
      }
      expect(exec(scenario, ...half).stdout).toMatch(
        overflows
          ? /^loss scale \d+(?: to \d+, by ranks)?; \d(?: to \d, by ranks)? steps? skipped for overflow$/mu
          : /^loss scale 1; 0 steps skipped for overflow$/mu
      )
    }
    expect(json("--steps", "1").lossScales).toBeUndefined()
  })

  it("learns a text of one's own, named as the shell sees it", () => {
    const text = path.join(folder, "mine.txt")
    fs.writeFileSync(text, "abcdefgh".repeat(100))
    const relative = path.relative(root, text)
    const result = json("--steps", "3", "--text", relative)
    expect(result.text).toEqual({ trainTokens: 720, heldOutTokens: 80 })
    const { status, stdout } = exec(scenario, "--steps", "3", "--text", relative)
    expect(status).toBe(0)
    expect(stdout).toMatch(/^tiny: streaming-diloco on 2 ranks, \d+ parameters, seed 0\n3 steps in /u)
    expect(stdout).toMatch(/held-out loss \d\.\d{3} after 3 steps/u)
  })

  it("names an option as it was given where its field is wrong, and a file's name that says another format", () => {
    const cases = [
      ["--text", "nowhere.txt", "--text nowhere.txt: training.text: "],
      ["--tokens", "nowhere.bin", "--tokens nowhere.bin: training.tokens: "],
      ["--held-out-tokens", "nowhere.bin", "--held-out-tokens nowhere.bin: training.heldOutTokens: "],
      [
        "--seed",
        "99999999999999999999",
        "option '--seed <n>' argument '99999999999999999999' is invalid. Expected a whole number, from 0 to 9007199254740991."
      ],
      ["--set", "steps=0", "--set steps=0: steps: "],
      [
        "--save",
        "learnt.txt",
        "option '--save <file>' argument 'learnt.txt' is invalid. Expected a name that ends in .arrow or .safetensors."
      ],
      ["--timeline", "step.arrow", "argument 'step.arrow' is invalid. Expected a name that ends in .json."]
    ] as const
    const all = execEach(cases.map(([option, value]) => ["train", scenario, option, value]))
    expect(all).toHaveLength(cases.length)
    for (const [at, { status, stdout, stderr }] of all.entries()) {
      const says = cases[at]![2]
      expect(stderr).toMatch(/^exec: [^\n]+\n$/u)
      expect(stderr).toContain(says)
      expect(stdout).toBe("")
      expect(status).toBe(2)
    }
  })

  it("tells its result and writes it when what it learnt cannot be saved", () => {
    const out = path.join(folder, "told.json")
    const { status, stdout, stderr } = exec(
      scenario,
      "--steps",
      "1",
      "--json",
      "--out",
      out,
      "--save",
      "/dev/full"
    )
    expect(stderr).toContain("ENOSPC")
    expect(status).toBe(2)
    expect(JSON.parse(stdout)).toEqual(JSON.parse(fs.readFileSync(out, "utf8")))
  })

  it.each([
    ["SIGINT", 130],
    ["SIGHUP", 129]
  ] as const)("keeps what is done when it is interrupted by %s, whole", async (signal, code) => {
    const out = path.join(folder, `kept-${signal}.json`)
    // However slow the machine, some wait is long enough for a first step.
    for (let waitMillis = 1500; waitMillis <= 48_000 && !fs.existsSync(out); waitMillis *= 2) {
      const args = [launcher, "train", scenario, "--steps", "10000000", "--json", "--out", out]
      const child = spawn(process.execPath, args, { cwd: root, env: endsWithParent })
      let stdout = ""
      child.stdout.on("data", (piece: Buffer) => (stdout += piece.toString()))
      const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
      await sleep(waitMillis)
      child.kill(signal)
      const status = await ended
      if (!fs.existsSync(out)) continue
      expect(status).toBe(code)
      const kept = fs.readFileSync(out, "utf8")
      expect(stdout).toBe(kept)
      const { steps, stepsDone, losses, peakBytes } = JSON.parse(kept) as TrainResult
      expect(steps).toBe(10_000_000)
      expect(stepsDone).toBeGreaterThan(0)
      expect(losses.length).toBe(stepsDone)
      expect(peakBytes).toBeNull()
    }
    expect(fs.existsSync(out)).toBe(true)
    expect(fs.readdirSync(folder).filter((name) => name.includes(".tmp"))).toEqual([])
  })

  it("ends with 1 when a rank's memory does not hold the model", () => {
    const { status, stderr } = exec(scenario, "--set", "memory.device=10KiB", "--steps", "3")
    expect(status).toBe(1)
    expect(stderr).toMatch(/^exec: rank \d: tensor ".+" needs \d+ B of device memory/u)
  })
})

describe("exec train refuses", () => {
  const short = path.join(folder, "short.txt")
  fs.writeFileSync(short, "abc")
  const wide = path.join(folder, "wide.txt")
  fs.writeFileSync(wide, String.fromCodePoint(...Array.from({ length: 500 }, (_, i) => 0x4e00 + i)))
  const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>, RegExp]> = [
    ["a text that is not there", ["--text", "/nowhere.txt"], /ENOENT.*expected a text file/u],
    ["a text too short for a window", ["--text", short], /3 characters to train on.*the 16 of a window/u],
    [
      "a share held out that leaves too little of a text that is long enough",
      ["--set", "training.heldOut=1"],
      /training\.heldOut: 1, which leaves 0 characters of .*psalms\.txt to train on, is not accepted; expected a share that leaves more than the 16 of a window/u
    ],
    ["a text with too many characters", ["--text", wide], /500 different characters.*vocabulary of 64/u],
    [
      "an algorithm that is none",
      ["--set", "algorithm=magic"],
      /"magic" is not accepted; expected s-sgd, ddp/u
    ],
    [
      "a plan from nowhere",
      ["--plan-from", "nowhere.arrow"],
      /exec: --plan-from: .*nowhere\.arrow.*a profile file/u
    ],
    ["no steps", ["--steps", "0"], /'--steps <n>' argument '0' is invalid/u],
    ["a seed that is no number", ["--seed", "x"], /'--seed <n>' argument 'x' is invalid/u],
    ["a result that cannot be written", ["--out", "/nowhere/a.json"], /\/nowhere\/a\.json: --out/u],
    ["a result in place of a folder", ["--out", folder], /--out.*a folder.*expected a file/u],
    ["a held-out part below a window", ["--set", "training.heldOut=0.00001"], /tokens held out.*or 0/u]
  ]
  it("with exit code 2 and one message, and leaves nothing", () => {
    const before = fs.readdirSync(folder)
    const ended = execEach(cases.map(([, args]) => ["train", scenario, ...args]))
    expect(ended).toHaveLength(cases.length)
    for (const [at, [what, , message]] of cases.entries()) {
      const { status, stdout, stderr } = ended[at]!
      expect(stderr, what).toMatch(message)
      expect(stderr, what).not.toMatch(/\n\s+at /u)
      expect([status, stdout], what).toEqual([2, ""])
    }
    expect(fs.readdirSync(folder)).toEqual(before)
  })

  it("a model that only a profile describes", () => {
    const { status, stderr } = exec("scenarios/geo-gpt2.yaml")
    expect(stderr).toMatch(/model: .* expected an architecture, whose kernels can be run/u)
    expect(status).toBe(2)
  })
})

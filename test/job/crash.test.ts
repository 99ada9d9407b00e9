// Training over processes that keeps being killed and is gone on from, until it is done: what it has learnt is what a run that
// nobody disturbed learns. A soak alone, for each kill is a start of processes; test/checkpoint has the short form. 300 kills: TANDEM_SOAK=100 npm run soak -- test/job/crash.test.ts
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, expect, it } from "vitest"
import { Random } from "../../core/random.ts"
import { describeNative } from "../native/addon.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = mkdtempSync(path.join(tmpdir(), "exec-crash-"))
const children: Array<ChildProcess> = []
afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
})

const soak = Number(process.env["TANDEM_SOAK"] ?? 0)
const kills = 3 * soak
const steps = 60 * soak
const ranks = 2

const start = (out: string, ...args: ReadonlyArray<string>): ChildProcess => {
  const common = ["--steps", String(steps), "--set", `world.ranks=${ranks}`, "--processes", String(ranks)]
  const algorithm = [
    "--set",
    "algorithm={name: streaming-diloco, period: 4, fragments: 2, delaySteps: 1, wire: float4}"
  ]
  const child = spawn(
    process.execPath,
    [
      path.join(root, "bin/exec.js"),
      "train",
      "scenarios/train-tiny.yaml",
      ...common,
      ...algorithm,
      "--out",
      out,
      ...args
    ],
    { cwd: root, stdio: ["ignore", "ignore", "pipe"] }
  )
  children.push(child)
  return child
}

const ended = (child: ChildProcess): Promise<{ readonly code: number | null; readonly text: string }> => {
  let text = ""
  child.stderr!.on("data", (more) => (text += String(more)))
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, text })))
}

const childrenOf = (pid: number): ReadonlyArray<number> =>
  spawnSync("pgrep", ["-P", String(pid)], { encoding: "utf8" })
    .stdout.split("\n")
    .filter((line) => line !== "")
    .map(Number)

const learnt = (out: string) => {
  const { losses, heldOutLosses, stepsDone } = JSON.parse(readFileSync(out, "utf8")) as Record<
    string,
    unknown
  >
  return { losses: (losses as ReadonlyArray<unknown>).at(-1), heldOutLosses, stepsDone }
}

describeNative("training that is killed again and again", () => {
  it.skipIf(soak === 0)(
    "comes to what it comes to undisturbed, and leaves nobody behind",
    async () => {
      const whole = path.join(folder, "whole.json")
      const undisturbed = await ended(start(whole))
      expect(undisturbed.code, undisturbed.text).toBe(0)

      const random = new Random(Date.now() % 1_000_000)
      const kept = path.join(folder, "kept")
      const out = path.join(folder, "out.json")
      const again = ["--checkpoint", kept, "--checkpoint-every", "3", "--resume"]
      const seen = { SIGKILL: 0, SIGSTOP: 0, afterCheckpoint: 0 }
      for (let kill = 0; kill < kills; kill++) {
        const child = start(out, ...again)
        const end = ended(child)
        let over = false
        void end.then(() => (over = true))
        while (!over && childrenOf(child.pid!).length < ranks) await new Promise((go) => setTimeout(go, 20))
        await new Promise((go) => setTimeout(go, 1000 + random.below(8000)))
        const signal = kill % 4 === 3 ? "SIGSTOP" : "SIGKILL"
        const all = childrenOf(child.pid!)
        if (over || all.length < ranks) continue
        process.kill(all[random.below(ranks)]!, signal)
        seen[signal]++
        const { code } = await end
        expect(code).not.toBe(0)
        // A process that is stopped does not hear that it should end: whoever started it ends it.
        for (const pid of all) expect(() => process.kill(pid, 0)).toThrow(/ESRCH/u)
        if (readdirSync(folder).includes("kept") && readdirSync(kept).length > 0) seen.afterCheckpoint++
      }
      expect(seen.SIGKILL).toBeGreaterThan(0)
      const last = await ended(start(out, ...again))
      expect(last.code, last.text).toBe(0)
      expect(learnt(out)).toEqual(learnt(whole))
      expect(readdirSync(kept).filter((name) => name.startsWith("."))).toEqual([])
      process.stderr.write(`kills: ${JSON.stringify(seen)}\n`)
    },
    60_000 * (kills + 2)
  )
})

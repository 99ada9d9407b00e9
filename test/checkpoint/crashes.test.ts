// A run that is killed again and again, at any moment of its steps and of the writing of its checkpoints, and started again each
// time, ends with what it would have learnt without: nothing is lost but steps since a checkpoint, and no checkpoint is ever there
// in part. Ten kills here; TANDEM_SOAK=1 makes it 300 and more, of every algorithm, and kills or stops single processes of jobs.
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { afterAll, expect, it } from "vitest"
import { checkpointsIn } from "../../exec/checkpoint/folder.ts"
import { Random } from "../../core/random.ts"
import { describeNative } from "../native/addon.ts"
import { settings } from "../setup/settings.ts"
import { manifestIn, newest, stateIn, trained, variants, whole } from "./training.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const { factor } = settings(process.env)
const folder = mkdtempSync(path.join(tmpdir(), "crashes-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Started {
  readonly command: ReadonlyArray<string>
  /** Lines that tell a step. */
  readonly step: RegExp
  readonly kill: (pid: number, random: Random) => void
}

/** Starts it, and kills it a moment after it has taken so many steps; false where it has ended by itself. */
const crash = async ({ command, step, kill }: Started, steps: number, random: Random): Promise<boolean> => {
  const child = spawn(process.execPath, command, { cwd: root, stdio: ["ignore", "pipe", "pipe"] })
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
  let told = ""
  let taken = 0
  const reached = new Promise<void>((resolve) => {
    const heard = (more: Buffer): void => {
      told += String(more)
      taken += String(more).match(step)?.length ?? 0
      if (taken >= steps) resolve()
    }
    child.stdout.on("data", heard)
    child.stderr.on("data", heard)
  })
  await Promise.race([reached, ended])
  await sleep(5 * random.uniform())
  const isRunning = child.exitCode === null && child.signalCode === null
  if (isRunning) kill(child.pid!, random)
  const code = await ended
  expect(isRunning || code === 0, told).toBe(true)
  return isRunning && code !== 0
}

/** What is there is whole: it opens, and its parts have their digests. */
const expectWhole = async (checkpoint: string): Promise<void> => {
  for (const { folder: one, step } of checkpointsIn(checkpoint)) {
    const { shards, ranks } = await manifestIn(one)
    expect([shards.length, step % 2]).toEqual([ranks, 0])
  }
}

/** Kills a run of the variant so often, lets it end, and holds it to one that nobody has killed. */
const survives = async (
  name: string,
  kills: number,
  started: (checkpoint: string, steps: number) => Started
) => {
  const checkpoint = path.join(folder, `${name} ${kills}`)
  const random = new Random(kills).split(name)
  let [done, last] = [0, 0]
  while (done < kills) {
    const { step = 0 } = newest(checkpoint) ?? {}
    expect(step).toBeGreaterThanOrEqual(last)
    last = step
    if (await crash(started(checkpoint, step + 1000), 4 + random.below(12), random)) done++
    await expectWhole(checkpoint)
  }
  const { step } = newest(checkpoint)!
  const steps = step + 3
  await trained(name, { steps, checkpoint, checkpointEvery: 2, resume: true })
  expect(await stateIn(checkpoint)).toEqual((await whole(name, steps, `${checkpoint} whole`)).state)
  // Each start goes on from where the last one had come to, or near.
  expect(step).toBeGreaterThan(kills)
}

const alone =
  (name: string) =>
  (checkpoint: string, steps: number): Started => ({
    command: [path.join(import.meta.dirname, "crashed.ts"), name, checkpoint, String(steps)],
    step: /^\d+$/gmu,
    kill: (pid) => process.kill(pid, "SIGKILL")
  })

/** A job of processes, one of which is killed or stopped. */
const job =
  (name: string) =>
  (checkpoint: string, steps: number): Started => ({
    command: [
      path.join(root, "bin/exec.js"),
      "train",
      path.join(import.meta.dirname, "tiny.yaml"),
      ...variants[name]!.flatMap((set) => ["--set", set]),
      "--processes",
      "2",
      "--steps",
      String(steps),
      "--checkpoint",
      checkpoint,
      "--checkpoint-every",
      "2",
      "--resume"
    ],
    step: /saved/gu,
    kill: (pid, random) => {
      const ranks = spawnSync("pgrep", ["-P", String(pid)], { encoding: "utf8" })
        .stdout.trim()
        .split("\n")
        .map(Number)
      const one = ranks[random.below(ranks.length)]!
      process.kill(one, random.below(2) === 0 ? "SIGKILL" : "SIGSTOP")
      // Whoever was stopped is beyond being asked to end.
      setTimeout(() => spawnSync("kill", ["-KILL", String(one)]), 8000)
    }
  })

describeNative("a run that is killed again and again", () => {
  it.each(["streaming-diloco", "s-sgd"])("%s learns what it would have learnt", async (name) => {
    await survives(name, 5, alone(name))
  })

  it.runIf(factor > 1)(
    "with every algorithm, and as a job of processes",
    async () => {
      for (const name of Object.keys(variants)) await survives(name, factor, alone(name))
      await survives("streaming-diloco", 2 * factor, job("streaming-diloco"))
    },
    3_600_000
  )
})

// A run that is killed again and again, at any moment of its steps and of the writing of its checkpoints, and started again each
// time, ends with what it would have learnt without: nothing is lost but steps since a checkpoint, and no checkpoint is ever there
// in part. Ten kills here; TANDEM_SOAK=1 makes it 320 and more, of every algorithm, and kills or stops single processes of jobs, or
// cuts their links.
import { spawn, type ChildProcess, type SpawnOptions } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { afterAll, expect, it } from "vitest"
import { Cluster, whyNoCluster } from "../../bench/cluster/namespaces.ts"
import { checkpointsIn } from "../../scenarios/cli/checkpoint/kept.ts"
import { freshSecret } from "../../exec/job/secret.ts"
import { Random } from "../../core/random.ts"
import { variablesOf } from "../job/started.ts"
import { describeNative } from "../native/addon.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { childrenOf } from "../setup/running.ts"
import { settings } from "../setup/settings.ts"
import { manifestIn, newest, stateIn, trained, variants, whole } from "./training.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const { factor } = settings(process.env)
const folder = mkdtempSync(path.join(tmpdir(), "crashes-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A run under way, of one process or several. */
interface Run {
  readonly processes: ReadonlyArray<ChildProcess>
  /** Lines that tell a step. */
  readonly step: RegExp
  /** How it is brought down. */
  readonly kill: () => void
  /** When all of it has ended. */
  readonly after?: (() => void) | undefined
}

type Start = (checkpoint: string, steps: number, random: Random) => Run

/** Starts it, and kills it a moment after it has taken so many steps; false where it has ended by itself. */
const crash = async (
  { processes, step, kill, after }: Run,
  steps: number,
  random: Random
): Promise<boolean> => {
  let told = ""
  let taken = 0
  const ended = Promise.all(
    processes.map((child) => new Promise<number | null>((resolve) => child.on("close", resolve)))
  )
  const reached = new Promise<void>((resolve) => {
    const heard = (more: Buffer): void => {
      told += String(more)
      taken += String(more).match(step)?.length ?? 0
      if (taken >= steps) resolve()
    }
    for (const { stdout, stderr } of processes) {
      stdout!.on("data", heard)
      stderr!.on("data", heard)
    }
  })
  await Promise.race([reached, ended])
  await sleep(5 * random.uniform())
  const isRunning = processes.every(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
  if (isRunning) kill()
  const codes = await ended
  after?.()
  expect(isRunning || codes.every((code) => code === 0), told).toBe(true)
  return isRunning && codes.every((code) => code !== 0)
}

/** What is there is whole: it opens, and its parts have their lengths and digests. How many parts were looked at. */
const expectWhole = async (checkpoint: string): Promise<number> => {
  let parts = 0
  for (const { folder: one, step } of checkpointsIn(checkpoint)) {
    const { shards, ranks } = await manifestIn(one)
    expect([shards.length, step % 2]).toEqual([ranks, 0])
    for (const { file, bytes, sha256 } of shards) {
      const content = readFileSync(path.join(one, file))
      expect([file, content.length]).toEqual([file, bytes])
      expect(createHash("sha256").update(content).digest("hex"), file).toBe(sha256)
      parts++
    }
  }
  return parts
}

/** Kills a run of the variant so often, lets it end, and holds it to one that nobody has killed. */
const survives = async (name: string, kills: number, start: Start) => {
  const checkpoint = path.join(folder, `${name} ${kills}`)
  const random = new Random(kills).split(name)
  let [done, last, parts] = [0, 0, 0]
  while (done < kills) {
    const { step = 0 } = newest(checkpoint) ?? {}
    expect(step).toBeGreaterThanOrEqual(last)
    last = step
    if (await crash(start(checkpoint, step + 1000, random), 4 + random.below(12), random)) done++
    parts += await expectWhole(checkpoint)
  }
  expect(parts).toBeGreaterThan(kills)
  const { step } = newest(checkpoint)!
  const steps = step + 3
  await trained(name, { steps, checkpoint, checkpointEvery: 2, resume: true })
  expect(await stateIn(checkpoint)).toEqual((await whole(name, steps, `${checkpoint} whole`)).state)
  // Each start goes on from where the last one had come to, or near.
  expect(step).toBeGreaterThan(kills)
}

const piped: SpawnOptions = { cwd: root, env: endsWithParent, stdio: ["ignore", "pipe", "pipe"] }

const alone =
  (name: string): Start =>
  (checkpoint, steps) => {
    const script = path.join(import.meta.dirname, "crashed.ts")
    const child = spawn(process.execPath, [script, name, checkpoint, String(steps)], piped)
    return { processes: [child], step: /^\d+$/gmu, kill: () => child.kill("SIGKILL") }
  }

const ranks = 2

const trainingCommand = (name: string, checkpoint: string, steps: number): ReadonlyArray<string> => [
  path.join(root, "bin/exec.js"),
  "train",
  path.join(import.meta.dirname, "tiny.yaml"),
  ...variants[name]!.flatMap((set) => ["--set", set]),
  "--steps",
  String(steps),
  "--checkpoint",
  checkpoint,
  "--checkpoint-every",
  "2",
  "--resume"
]

/** What was done to single processes of jobs, and to their links. */
const seen = { SIGKILL: 0, SIGSTOP: 0, cut: 0 }

/** A job of processes, one of which is killed or stopped; none is left behind. */
const job =
  (name: string): Start =>
  (checkpoint, steps, random) => {
    const command = [...trainingCommand(name, checkpoint, steps), "--processes", String(ranks)]
    const child = spawn(process.execPath, command, piped)
    let all: ReadonlyArray<number> = []
    return {
      processes: [child],
      step: /saved/gu,
      kill: () => {
        all = childrenOf(child.pid!)
        expect(all).toHaveLength(ranks)
        const signal = random.below(2) === 0 ? "SIGKILL" : "SIGSTOP"
        process.kill(all[random.below(ranks)]!, signal)
        seen[signal]++
      },
      // One that is stopped does not hear that it should end: whoever started it ends it.
      after: () => {
        for (const pid of all) expect(() => process.kill(pid, 0)).toThrow(/ESRCH/u)
      }
    }
  }

/** The same with each rank on a host of its own, one of which is cut off. */
const hosts =
  (name: string, cluster: Cluster): Start =>
  (checkpoint, steps, random) => {
    const command = [process.execPath, ...trainingCommand(name, checkpoint, steps)]
    const [secret, port] = [freshSecret(), 29_400]
    const processes = Array.from({ length: ranks }, (_, rank) =>
      cluster.spawn(rank, command, {
        ...piped,
        env: { ...endsWithParent, ...variablesOf(rank, ranks, cluster.addressOf(0), port, secret) }
      })
    )
    const cut = random.below(ranks)
    return {
      processes,
      step: /saved/gu,
      kill: () => {
        cluster.setLink(cut, "down")
        seen.cut++
      },
      after: () => cluster.setLink(cut, "up")
    }
  }

describeNative("a run that is killed again and again", () => {
  // Six processes start one after the other, of 2 s of computing each: on busy cores the usual limit is near. Always five kills,
  // soak or not, so that the limit holds for both.
  it.each(["streaming-diloco", "s-sgd"])(
    "%s learns what it would have learnt",
    async (name) => {
      await survives(name, 5, alone(name))
    },
    240_000
  )

  const soak = it.runIf(factor > 1)
  soak(
    "with every algorithm",
    async () => {
      for (const name of Object.keys(variants)) await survives(name, factor, alone(name))
    },
    7_200_000
  )

  soak(
    "as a job of processes, one of which is killed or stopped",
    async () => {
      await survives("streaming-diloco", 2 * factor, job("streaming-diloco"))
      expect(seen.SIGKILL).toBeGreaterThan(factor / 4)
      expect(seen.SIGSTOP).toBeGreaterThan(factor / 4)
    },
    7_200_000
  )

  const noCluster = factor > 1 ? whyNoCluster() : undefined
  if (noCluster !== undefined) process.stderr.write(`no network namespaces here: ${noCluster}\n`)
  it.runIf(factor > 1 && noCluster === undefined)(
    "as a job on several hosts, one of which is cut off",
    async () => {
      const unshaped = { up: Infinity, down: Infinity }
      const cluster = new Cluster(Array.from({ length: ranks }, () => unshaped))
      try {
        await survives("diloco", factor, hosts("diloco", cluster))
      } finally {
        cluster.close()
      }
      expect(seen.cut).toBeGreaterThanOrEqual(factor)
    },
    7_200_000
  )
})

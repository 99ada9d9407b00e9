// `exec train --checkpoint` as a user and a cluster meet it: told to end, killed in part, refused.
import { spawn } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, expect, it } from "vitest"
import type { TrainResult } from "../../exec/cli/train-command.ts"
import { exec as warmExec, root } from "../cli/launch.ts"
import { describeNative } from "../native/addon.ts"
import { endsWithParent } from "../setup/ends-with-parent.ts"
import { childrenOf } from "../setup/running.ts"
import { newest, stateIn, whole } from "./training.ts"

const folder = mkdtempSync(path.join(tmpdir(), "checkpoint-command-"))
const running = new Set<ReturnType<typeof spawn>>()
afterAll(() => {
  for (const child of running) child.kill("SIGKILL")
  rmSync(folder, { recursive: true, force: true })
})

const lineOf = (args: ReadonlyArray<string>): ReadonlyArray<string> => [
  "train",
  path.join(import.meta.dirname, "tiny.yaml"),
  ...args
]

const exec = (...args: ReadonlyArray<string>) => warmExec(...lineOf(args))

/** Begins a run of many steps, and does something to it once it has a checkpoint; how it ended. */
const interrupted = async (
  checkpoint: string,
  args: ReadonlyArray<string>,
  then: (child: ReturnType<typeof spawn>) => void
) => {
  const asked = ["--steps", "1000000", "--checkpoint", checkpoint, "--checkpoint-every", "5"]
  const child = spawn(process.execPath, [path.join(root, "bin/exec.js"), ...lineOf([...args, ...asked])], {
    cwd: root,
    env: endsWithParent,
    stdio: ["ignore", "ignore", "pipe"]
  })
  running.add(child)
  let stderr = ""
  child.stderr!.on("data", (more) => (stderr += String(more)))
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
  while (child.exitCode === null && (newest(checkpoint)?.step ?? 0) < 5) await sleep(20)
  then(child)
  const code = await ended
  running.delete(child)
  return { code, stderr }
}

const diloco = ["--set", "algorithm={name: streaming-diloco, period: 6, fragments: 2, delaySteps: 2}"]

/** Goes on for a few steps, and holds what comes of it to a run without a pause. */
const goesOn = async (checkpoint: string, args: ReadonlyArray<string>): Promise<void> => {
  const { step } = newest(checkpoint)!
  const steps = step + 4
  const out = `${checkpoint}.json`
  const asked = ["--steps", String(steps), "--checkpoint", checkpoint, "--resume", "--out", out]
  const { status, stderr } = exec(...args, ...asked)
  expect(status, stderr).toBe(0)
  expect(stderr).toContain(`exec: goes on after step ${step}, from `)
  const result = JSON.parse(readFileSync(out, "utf8")) as TrainResult
  expect(result).toMatchObject({
    stepsDone: steps,
    resumedAfter: step,
    checkpoint: newest(checkpoint)!.folder
  })
  const uninterrupted = await whole("streaming-diloco", steps, `${checkpoint}-whole`)
  expect(result.losses).toEqual(uninterrupted.learnt.losses.slice(step))
  expect(await stateIn(checkpoint)).toEqual(uninterrupted.state)
}

describeNative("exec train --checkpoint", () => {
  it("ends on SIGTERM with a checkpoint of the step, from which it goes on", async () => {
    const checkpoint = path.join(folder, "terminated")
    // Twice: npx and launchers pass on to a process what has come to its whole group.
    const { code, stderr } = await interrupted(checkpoint, diloco, (child) => {
      child.kill("SIGTERM")
      setTimeout(() => child.kill("SIGTERM"), 20)
    })
    expect(code).toBe(143)
    const { step } = newest(checkpoint)!
    expect(stderr).toContain(`exec: interrupted after ${step} of 1000000 steps`)
    await goesOn(checkpoint, diloco)
  })

  it.each([
    ["threads", []],
    ["processes", ["--processes", "2"]]
  ] as const)("of a run that has taken all its steps writes what it came to, by %s", (_, more) => {
    const checkpoint = path.join(folder, `done ${more.length}`)
    const files = ["a", "b"].map((name) => path.join(folder, `${name}${more.length}.safetensors`))
    const asked = ["--steps", "13", ...diloco, "--set", "training.heldOut=0.1", "--checkpoint", checkpoint]
    const [first, again] = files.map((file) => {
      const { status, stderr, stdout } = exec(...asked, ...more, "--resume", "--save", file, "--json")
      expect(status, stderr).toBe(0)
      return JSON.parse(stdout) as TrainResult
    })
    // What is on its way at the last step is in what is saved, and in its loss.
    expect(again).toMatchObject({ stepsDone: 13, resumedAfter: 13, losses: [], checkpoint: null })
    expect(again!.heldOutLosses).toEqual(first!.heldOutLosses)
    const [saved, savedAgain] = files.map((file) => readFileSync(file))
    expect(savedAgain!.equals(saved!)).toBe(true)
    expect(readdirSync(checkpoint)).toEqual(["step-0000000013"])
  })

  it("of processes: all end together when one of them is told to", async () => {
    const checkpoint = path.join(folder, "processes")
    const args = [...diloco, "--processes", "2"]
    const { code, stderr } = await interrupted(checkpoint, args, (child) => {
      process.kill(childrenOf(child.pid!)[1]!, "SIGTERM")
    })
    expect(code, stderr).not.toBe(0)
    const { step } = newest(checkpoint)!
    expect(stderr).toContain(
      `exec: stopped after ${step} of 1000000 steps: a process of the job was asked to`
    )
    await goesOn(checkpoint, args)
  })

  it("of processes: a killed one costs the steps since the last checkpoint", async () => {
    const checkpoint = path.join(folder, "killed")
    const args = [...diloco, "--processes", "2"]
    const { code, stderr } = await interrupted(checkpoint, args, (child) => {
      process.kill(childrenOf(child.pid!)[1]!, "SIGKILL")
    })
    expect(code).not.toBe(0)
    expect(stderr).toContain("[1] ended by SIGKILL")
    expect(stderr).toMatch(/^exec: rank 0: lost rank 1: /mu)
    expect(newest(checkpoint)!.step % 5).toBe(0)
    await goesOn(checkpoint, args)
    expect(readdirSync(checkpoint).filter((name) => name.startsWith("."))).toEqual([])
  })

  it("of processes: none writes where another run has taken the folder over", async () => {
    const checkpoint = path.join(folder, "taken over")
    const lock = path.join(checkpoint, ".lock")
    const args = [...diloco, "--processes", "2"]
    let left: string | undefined
    const { code, stderr } = await interrupted(checkpoint, args, (child) => {
      let told = ""
      writeFileSync(`${lock}.new`, JSON.stringify({ pid: 77, host: "elsewhere" }))
      renameSync(`${lock}.new`, lock)
      child.stderr!.on("data", (more) => {
        told += String(more)
        const times = told.split("process 77 on elsewhere has taken the folder over").length - 1
        // One that was being written may have been completed; nothing comes after it.
        if (times > 0) left ??= newest(checkpoint)!.folder
        if (times > 3) child.kill("SIGTERM")
      })
    })
    expect(code, stderr).not.toBe(0)
    expect(stderr).not.toContain("lost rank")
    expect(readFileSync(lock, "utf8")).toContain("elsewhere")
    expect(newest(checkpoint)!.folder).toBe(left)
    const partial = readdirSync(checkpoint).filter((name) => name.endsWith(".partial"))
    const parts = partial.flatMap((name) => readdirSync(path.join(checkpoint, name)))
    expect(parts.length).toBeLessThan(3)
  })

  it("refuses to keep checkpoints inside of one, as if there were none to go on from", () => {
    const kept = path.join(folder, "kept")
    const checkpoint = path.join(kept, "step-0000000002")
    expect(exec("--steps", "2", "--checkpoint", kept).status).toBe(0)
    for (const more of [[], ["--resume"]]) {
      const { status, stderr, stdout } = exec("--steps", "4", "--checkpoint", checkpoint, ...more)
      expect(stderr).toBe(
        `exec: --checkpoint: ${checkpoint}, which is a checkpoint, is not accepted; expected the folder that it is kept in, ${kept}, or another; --resume names a checkpoint to go on from\n`
      )
      expect([status, stdout]).toEqual([2, ""])
    }
  })

  it("refuses with exit code 2 what it cannot go on from, and options that need a folder", () => {
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      [
        ["--checkpoint", "/proc/nowhere"],
        /^exec: \/proc\/nowhere: --checkpoint: a folder that cannot be made: \/proc takes no folders.* is not accepted; expected a folder that can be written to$/mu
      ],
      [["--resume"], /^exec: --resume: .*expected --checkpoint <folder> beside it/mu],
      [
        ["--checkpoint", path.join(folder, "new"), "--resume", "/nowhere"],
        /^exec: \/nowhere\/manifest\.json: ENOENT.* expected the manifest of a checkpoint/mu
      ],
      [
        ["--checkpoint", path.join(folder, "new"), "--resume", path.join(folder, "several")],
        /^exec: --resume: .*several, a folder of checkpoints, is not accepted; expected one of them, such as the newest: .*several\/step-0000000020$/mu
      ]
    ]
    for (const step of ["0000000010", "0000000020"])
      mkdirSync(path.join(folder, "several", `step-${step}`), { recursive: true })
    for (const [args, message] of cases) {
      const { status, stderr, stdout } = exec("--steps", "2", ...args)
      expect(stderr).toMatch(message)
      expect([status, stdout]).toEqual([2, ""])
    }
    expect(existsSync(path.join(folder, "new"))).toBe(false)
  })
})

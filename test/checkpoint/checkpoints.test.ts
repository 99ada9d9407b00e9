// What a folder of checkpoints holds while and after a run writes them: whole ones, the newest few, whatever becomes of the disk; and
// what a run refuses to go on from, with the file and the field.
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { hostname, tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { printManifest, type Manifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { describeNative } from "../native/addon.ts"
import { manifestIn, newest, refused, stateIn, trained, whole } from "./training.ts"

const folder = mkdtempSync(path.join(tmpdir(), "checkpoints-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let folders = 0
const fresh = (): string => path.join(folder, String(folders++))

describeNative("checkpoints of a run", () => {
  it("are of every K-th step and the last, and only the newest stay", async () => {
    const checkpoint = fresh()
    const seen: Array<ReadonlyArray<string>> = []
    const { checkpoints, told } = await trained("diloco", {
      steps: 11,
      checkpoint,
      checkpointEvery: 3,
      keep: 2,
      onStep: () => seen.push(readdirSync(checkpoint).filter((name) => !name.startsWith(".")))
    })
    expect(told).toEqual([3, 6, 9, 11].map((step) => `saved ${path.join(checkpoint, named(step))}`))
    expect(readdirSync(checkpoint).toSorted()).toEqual([named(9), named(11)])
    expect(checkpoints.last).toEqual({
      step: 11,
      folder: path.join(checkpoint, named(11)),
      failure: undefined,
      unremoved: undefined
    })
    expect(seen.every((names) => names.length <= 2)).toBe(true)
    const { run, plan, ranks, step } = await manifestIn(path.join(checkpoint, named(9)))
    expect({ ranks, step }).toEqual({ ranks: 2, step: 9 })
    expect(run).toMatchObject({ task: "data-parallel", algorithm: { name: "diloco", period: 4 } })
    expect(plan.described).toMatchObject({ fragments: [{ sendAfterStep: 4 }] })
  })

  it("stop a run that is asked to, after a step that no rank has passed", async () => {
    const checkpoint = fresh()
    const asked = { steps: 400, checkpoint, checkpointEvery: 100 }
    const stopped = await trained("streaming-diloco", {
      ...asked,
      onStep: (step, checkpoints) => {
        if (step === 7) checkpoints.requestStop()
      }
    })
    const step = stopped.checkpoints.stopsAfter!
    expect(step).toBeGreaterThan(7)
    expect(stopped.learnt.stepsDone).toBe(step)
    expect(newest(checkpoint)!.step).toBe(step)
    const steps = step + 9
    const rest = await trained("streaming-diloco", { ...asked, steps, resume: true })
    const uninterrupted = await whole("streaming-diloco", steps, fresh())
    expect(rest.learnt.losses).toEqual(uninterrupted.learnt.losses.slice(step))
    expect(await stateIn(checkpoint)).toEqual(uninterrupted.state)
  })

  it("of a run's last step are enough to tell what its loss was scaled by", async () => {
    const asked = { checkpoint: fresh(), steps: 7, resume: true } as const
    const first = await trained("ddp in float16, whose scale grows", asked)
    const again = await trained("ddp in float16, whose scale grows", asked)
    expect(first.learnt.lossScales).toHaveLength(2)
    expect(again.learnt).toMatchObject({ stepsDone: 7, losses: [], lossScales: first.learnt.lossScales })
  })

  it("stay those of another run that has taken the folder over", async () => {
    const checkpoint = fresh()
    const lock = path.join(checkpoint, ".lock")
    const other = JSON.stringify({ pid: 7, host: "elsewhere", began: "1" })
    const asked = { checkpoint, checkpointEvery: 20, keep: 1, resume: true } as const
    await trained("s-sgd", { ...asked, steps: 3 })
    const { checkpoints, told, learnt } = await trained("s-sgd", {
      ...asked,
      steps: 20,
      onStep: (step) => {
        if (step !== 4) return
        writeFileSync(lock, other)
        mkdirSync(path.join(checkpoint, `.${named(20)}.partial`))
      }
    })
    expect(learnt.stepsDone).toBe(20)
    const failure =
      "process 7 on elsewhere has taken the folder over, as this run gave no sign of life for minutes"
    expect(checkpoints.last).toMatchObject({ step: 20, folder: undefined, failure })
    expect(told.at(-1)).toContain(`step 20 could not be written, and what was there stays: ${failure}`)
    expect(readdirSync(checkpoint).toSorted()).toEqual(
      [`.${named(20)}.partial`, ".lock", named(3)].toSorted()
    )
    expect(readdirSync(path.join(checkpoint, `.${named(20)}.partial`))).toEqual([])
    expect(readFileSync(lock, "utf8")).toBe(other)
  })

  /** Trains with a checkpoint every three steps, and does something to the folder once it has one, while none is written. */
  const disturbed = (checkpoint: string, steps: number, disturb: () => void) => {
    let isDone = false
    return trained("s-sgd", {
      checkpoint,
      checkpointEvery: 3,
      keep: 1000,
      steps,
      onStep: () => {
        const names = existsSync(checkpoint) ? readdirSync(checkpoint) : []
        if (isDone || !names.includes(named(3)) || names.some((name) => name.endsWith(".partial"))) return
        isDone = true
        disturb()
      }
    })
  }

  it.each([
    ["the folder", ""],
    ["its lock alone", ".lock"]
  ])("are kept though somebody removes %s", async (_, name) => {
    const checkpoint = fresh()
    let before: ReadonlyArray<string> = []
    const { told } = await disturbed(checkpoint, 90, () => {
      before = readdirSync(checkpoint)
      rmSync(path.join(checkpoint, name), { recursive: true })
    })
    expect(told.map((line) => line.split(" ", 1)[0])).toEqual(Array.from({ length: 30 }, () => "saved"))
    const removed = name === "" ? before.length - 1 : 0
    const kept = Array.from({ length: 30 }, (__, i) => named(3 * i + 3)).slice(removed)
    expect(removed < 29 && readdirSync(checkpoint).toSorted()).toEqual(kept)
    expect(await stateIn(checkpoint)).toEqual((await whole("s-sgd", 90, fresh())).state)
  })

  it("are not kept where another run has left some since somebody removed the lock", async () => {
    const checkpoint = fresh()
    let before: ReadonlyArray<string> = []
    const { checkpoints } = await disturbed(checkpoint, 90, () => {
      before = readdirSync(checkpoint).filter((name) => name !== ".lock")
      rmSync(path.join(checkpoint, ".lock"))
      mkdirSync(path.join(checkpoint, named(4)))
    })
    expect(checkpoints.last?.failure).toContain("another process has taken the folder over")
    expect(readdirSync(checkpoint).toSorted()).toEqual([...before, named(4)].toSorted())
  })

  it("that do not fit on the disk leave the last one as it is, and the run goes on", async () => {
    const checkpoint = fresh()
    const asked = { checkpoint, checkpointEvery: 3, keep: 1, resume: true } as const
    await trained("s-sgd", { ...asked, steps: 3 })
    const before = await stateIn(checkpoint)
    const { checkpoints, told, learnt } = await trained("s-sgd", {
      ...asked,
      steps: 6,
      onStep: (step) => {
        if (step !== 4) return
        // The next one's second part goes to a disk that is full.
        const partial = path.join(checkpoint, `.${named(6)}.partial`)
        mkdirSync(partial)
        symlinkSync("/dev/full", path.join(partial, "rank-00001-of-00002.safetensors"))
      }
    })
    expect(learnt.stepsDone).toBe(6)
    expect(told[1]).toMatch(
      /^the checkpoint of step 6 could not be written, and what was there stays: rank 1: .*ENOSPC/u
    )
    expect(checkpoints.last).toMatchObject({ step: 6, folder: undefined })
    expect(checkpoints.newest).toBeUndefined()
    expect(readdirSync(checkpoint)).toEqual([named(3)])
    expect(await stateIn(checkpoint)).toEqual(before)
    await trained("s-sgd", { ...asked, steps: 6 })
    expect(readdirSync(checkpoint)).toEqual([named(6)])
    expect(await stateIn(checkpoint)).toEqual((await whole("s-sgd", 6, fresh())).state)
  })

  it("are saved where older ones cannot be removed, which is told as such", async () => {
    const checkpoint = fresh()
    const asked = { checkpoint, checkpointEvery: 3, keep: 1, resume: true } as const
    await trained("s-sgd", { ...asked, steps: 3 })
    const { checkpoints, told } = await trained("s-sgd", {
      ...asked,
      steps: 6,
      onStep: (step) => {
        // Where the old one will be put aside, something is in its way.
        const partial = path.join(checkpoint, `.${named(3)}.partial`)
        if (step === 4) mkdirSync(path.join(partial, "in the way"), { recursive: true })
      }
    })
    expect(told.slice(1)).toEqual([
      `saved ${path.join(checkpoint, named(6))}`,
      expect.stringMatching(/^warning: older checkpoints could not be removed: ENOTEMPTY/u)
    ])
    expect(checkpoints.last).toMatchObject({ step: 6, failure: undefined })
    expect(checkpoints.newest).toBe(path.join(checkpoint, named(6)))
    // The next run clears its way, and keeps as few as it is asked to.
    await trained("s-sgd", { ...asked, steps: 8 })
    expect(readdirSync(checkpoint)).toEqual([named(8)])
  })

  it("are one run's at a time in a folder", async () => {
    const checkpoint = fresh()
    mkdirSync(checkpoint)
    const lock = path.join(checkpoint, ".lock")
    writeFileSync(lock, JSON.stringify({ pid: process.ppid, host: hostname() }))
    const partial = path.join(checkpoint, `.${named(3)}.partial`)
    mkdirSync(partial)
    const { message } = await refused("s-sgd", { steps: 2, checkpoint })
    expect(message).toMatch(
      /--checkpoint: a folder that process \d+ writes checkpoints to is not accepted; expected another folder, or/u
    )
    // What the other one writes is left alone.
    expect(readdirSync(checkpoint).toSorted()).toEqual([".lock", path.basename(partial)])
    rmSync(lock)
    let held = false
    await trained("s-sgd", { steps: 2, checkpoint, onStep: () => (held = existsSync(lock)) })
    expect(held).toBe(true)
    expect(readdirSync(checkpoint)).toEqual([named(2)])
  })

  it("are not mixed with those of a run that was there first", async () => {
    const checkpoint = fresh()
    const common = { checkpoint, checkpointEvery: 2, keep: 1 }
    const first = () => trained("s-sgd", { ...common, steps: 6 })
    // Where the folder was empty, or was not there, and this run would have begun at step 0.
    const { message } = await refused("s-sgd", { ...common, steps: 2, meanwhile: first })
    expect(message).toMatch(
      /^--checkpoint: .*newest checkpoint became that of step 6 while this run began \(it was none\): another run/u
    )
    expect(readdirSync(checkpoint)).toEqual([named(6)])
    // Where another run went on from the same checkpoint.
    const resumed = { ...common, resume: true } as const
    const second = () => trained("s-sgd", { ...resumed, steps: 8 })
    const late = await refused("s-sgd", { ...resumed, steps: 7, meanwhile: second })
    expect(late.message).toMatch(/became that of step 8 while this run began \(it was that of step 6\)/u)
    expect(readdirSync(checkpoint)).toEqual([named(8)])
    expect((await trained("s-sgd", { ...resumed, steps: 9 })).checkpoints.from).toBe(8)
  })

  it("of a run on more or fewer ranks go on where replicas may join and leave", async () => {
    const checkpoint = fresh()
    const asked = { checkpoint, checkpointEvery: 4, keep: 10 }
    await trained("diloco", { ...asked, steps: 8 })
    const more = await trained("diloco", { ...asked, steps: 12, resume: true, set: ["world.ranks=3"] })
    expect(more.told[1]).toMatch(/2 ranks wrote the checkpoint: ranks from 2 begin as copies/u)
    const outer = await outerIn(checkpoint)
    expect(outer).toHaveLength(3)
    expect(outer[0]!.length).toBeGreaterThan(1000)
    expect(new Set(outer).size).toBe(1)
    const fewer = await trained("diloco", { ...asked, steps: 16, resume: true })
    expect(fewer.told[1]).toMatch(/3 ranks wrote the checkpoint: what ranks from 2 have learnt/u)
    expect((await manifestIn(newest(checkpoint)!.folder)).shards.length).toBe(2)
    const { message } = await refused("ddp", await begun("ddp", ["world.ranks=3"]))
    expect(message).toMatch(/ranks: 2 is not accepted; expected 3, .*batch is that of all ranks together/u)
    const divided = "diloco of a divided model (ZeRO-1) in bfloat16"
    const parts = await begun(divided, ["world.ranksPerNode=4"])
    expect((await refused(divided, parts)).message).toMatch(/run\.parts: 2 is not accepted; expected 4, as/u)
    const experts = await begun("moe-training", ["world.ranks=2"])
    expect((await refused("moe-training", experts)).message).toMatch(
      /ranks: 4 is not accepted; expected 2, .*experts/u
    )
  })
})

/** Digests of what all ranks have alike after an average: all of a shard's bytes but moments differ by rank alone. */
const outerIn = async (checkpoint: string): Promise<ReadonlyArray<string>> => {
  const { folder: last } = newest(checkpoint)!
  const { shards } = await manifestIn(last)
  return shards.map(({ file }) => {
    const bytes = readFileSync(path.join(last, file))
    const length = Number(bytes.readBigUInt64LE(0))
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<
      string,
      { data_offsets: [number, number] }
    >
    return Object.keys(header)
      .filter((name) => name.endsWith(" outer"))
      .map((name) =>
        bytes.subarray(...header[name]!.data_offsets.map((at) => 8 + length + at)).toString("hex")
      )
      .join()
  })
}

const named = (step: number): string => `step-${String(step).padStart(10, "0")}`

/** A folder with a checkpoint after four steps, and what goes on from it. */
const begun = async (name: string, set: ReadonlyArray<string> = []) => {
  const checkpoint = fresh()
  await trained(name, { steps: 4, checkpoint, checkpointEvery: 4 })
  return { steps: 8, checkpoint, resume: true, set } as const
}

describeNative("a run refuses to go on from", () => {
  let original = ""
  beforeAll(async () => {
    original = (await begun("s-sgd")).checkpoint
  })
  const copy = (): string => {
    const checkpoint = fresh()
    cpSync(original, checkpoint, { recursive: true })
    return checkpoint
  }
  const at = (checkpoint: string, file: string): string => path.join(checkpoint, named(4), file)
  const shard = "rank-00001-of-00002.safetensors"
  const rewritten = async (checkpoint: string, change: (manifest: Manifest) => Partial<Manifest>) => {
    const { sha256: _, ...manifest } = await manifestIn(path.join(checkpoint, named(4)))
    writeFileSync(
      at(checkpoint, "manifest.json"),
      printManifest({ ...manifest, ...change(manifest as Manifest) })
    )
  }

  const damages: ReadonlyArray<readonly [string, RegExp, (checkpoint: string) => void | Promise<void>]> = [
    [
      "a part with a bit turned",
      /rank-00001-of-00002\.safetensors: sha256: [0-9a-f]{64} is not accepted; expected [0-9a-f]{64}, as/u,
      (checkpoint) => {
        const bytes = readFileSync(at(checkpoint, shard))
        bytes[bytes.length - 5]! ^= 4
        writeFileSync(at(checkpoint, shard), bytes)
      }
    ],
    [
      "a part cut short",
      /rank-00001-of-00002\.safetensors: bytes: 1000 is not accepted; expected \d+, as/u,
      (checkpoint) => truncateSync(at(checkpoint, shard), 1000)
    ],
    [
      "a part that is missing",
      /rank-00001-of-00002\.safetensors: a file that does not exist is not accepted/u,
      (checkpoint) => rmSync(at(checkpoint, shard))
    ],
    [
      "a manifest that was edited",
      /manifest\.json: sha256: .* the digest of the rest: the file was changed or damaged/u,
      (checkpoint) => {
        const file = at(checkpoint, "manifest.json")
        writeFileSync(file, readFileSync(file, "utf8").replace('"step": 4', '"step": 5'))
      }
    ],
    [
      "a manifest cut short",
      /manifest\.json: what is no JSON is not accepted/u,
      (checkpoint) => truncateSync(at(checkpoint, "manifest.json"), 100)
    ],
    [
      "what another format has written",
      /manifest\.json: formatVersion: 2 is not accepted; expected 1$/u,
      (checkpoint) => rewritten(checkpoint, () => ({ formatVersion: 2 as 1 }))
    ],
    [
      "what another version has written",
      /manifest\.json: tandem: "0\.0\.1" is not accepted; expected .*another version may compute other bits/u,
      (checkpoint) => rewritten(checkpoint, () => ({ tandem: "0.0.1" }))
    ],
    [
      "what was planned otherwise",
      /manifest\.json: plan\.sha256: "0{64}" is not accepted; .*the algorithm planned otherwise/u,
      (checkpoint) => rewritten(checkpoint, ({ plan }) => ({ plan: { ...plan, sha256: "0".repeat(64) } }))
    ],
    [
      "what has learnt another text",
      /manifest\.json: data\.source\.trainTokens: 5 is not accepted; expected \d+, as what this run learns/u,
      (checkpoint) =>
        rewritten(checkpoint, ({ data }) => ({
          data: { ...data, source: { ...(data.source as object), trainTokens: 5 } }
        }))
    ]
  ]
  it.each(damages)("%s", async (_, message, damage) => {
    const checkpoint = copy()
    await damage(checkpoint)
    const before = readdirSync(checkpoint, { recursive: true })
    const error = await refused("s-sgd", { steps: 8, checkpoint, resume: true })
    expect(error.message).toMatch(message)
    expect(readdirSync(checkpoint, { recursive: true })).toEqual(before)
  })

  const foreign: ReadonlyArray<readonly [string, RegExp, ReadonlyArray<string>]> = [
    [
      "another model",
      /run\.model\.gpt2\.width: 8 is not accepted; expected 16, as this run/u,
      ["model.gpt2.width=16"]
    ],
    [
      "another algorithm",
      /run\.algorithm\.name: "s-sgd" is not accepted; expected "ddp"/u,
      ["algorithm=ddp"]
    ],
    [
      "another learning rate",
      /run\.training\.optimizer\.learningRate: 0\.001 is not accepted; expected 0\.5/u,
      ["training.optimizer={name: adamw, learningRate: 0.5}"]
    ],
    ["another seed", /run\.seed: 0 is not accepted; expected 9/u, ["seed=9"]]
  ]
  it.each(foreign)("%s", async (_, message, set) => {
    const error = await refused("s-sgd", { steps: 8, checkpoint: copy(), resume: true, set })
    expect(error.message).toMatch(message)
    expect(error.message).toContain("manifest.json")
  })

  it("what has gone further, or would be mixed with others", async () => {
    const checkpoint = copy()
    const beyond = await refused("s-sgd", { steps: 3, checkpoint, resume: true })
    expect(beyond.message).toMatch(/step: 4 is not accepted; expected at most the 3 steps/u)
    const again = await refused("s-sgd", { steps: 8, checkpoint })
    expect(again.message).toMatch(/--checkpoint: .*has a checkpoint of step 4.*--resume beside it/u)
    await trained("s-sgd", { steps: 6, checkpoint, keep: 3, resume: true })
    const older = await refused("s-sgd", { steps: 8, checkpoint, resume: path.join(checkpoint, named(4)) })
    expect(older.message).toMatch(
      /--resume: .*step-0000000004 is not accepted; .*the newest of --checkpoint/u
    )
    // A named checkpoint, kept elsewhere, is one to begin from.
    const elsewhere = fresh()
    const rest = await trained("s-sgd", {
      steps: 8,
      checkpoint: elsewhere,
      resume: path.join(checkpoint, named(4))
    })
    expect(rest.learnt.losses.map(({ step }) => step)).toEqual([5, 6, 7, 8])
    expect((await refused("s-sgd", { steps: 8, keep: 3 })).message).toMatch(
      /--keep: "3" alone is not accepted; expected --checkpoint <folder> beside it/u
    )
    const nowhere = { steps: 8, checkpoint: "/dev/null/there" }
    expect((await refused("s-sgd", nowhere)).message).toMatch(
      /--checkpoint: \/dev\/null\/there \(\/dev\/null is a file\)/u
    )
    // With nothing there yet, --resume begins: a command line that can be repeated.
    expect((await trained("s-sgd", { steps: 2, checkpoint: fresh(), resume: true })).learnt.stepsDone).toBe(2)
  })
})

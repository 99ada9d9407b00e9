// A rank's file of a checkpoint, written and read again: what the disk refuses is an error of its own, and no file stays open.
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { open, type FileHandle } from "node:fs/promises"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { afterAll, expect, it, vi } from "vitest"
import type { Manifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { RestoredShards } from "../../exec/checkpoint/resume.ts"
import { writeShard } from "../../exec/checkpoint/shard.ts"

const folder = mkdtempSync(path.join(tmpdir(), "checkpoint-shard-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const weight = { name: "weight", shape: [3], dtype: "float32" } as const
const written = (file: string) =>
  writeShard(path.join(folder, file), [weight], () => Effect.succeed(Float32Array.of(1, 2, 3)))

it("a disk that is full is told of once, also where closing the file says it again", async () => {
  const handle = await open(folder)
  const handles = Object.getPrototypeOf(handle) as Pick<FileHandle, "write">
  await handle.close()
  let closings = 0
  // As a file system does that counts blocks late: the write is refused, and closing says so once more.
  vi.spyOn(handles, "write").mockImplementationOnce(async function (this: FileHandle) {
    const own = this.close
    this.close = async () => {
      closings++
      await own.call(this)
      throw new Error("EDQUOT: on close")
    }
    throw new Error("ENOSPC: no space left on device")
  })
  const error = await Effect.runPromise(Effect.flip(written("full")))
  expect(closings).toBe(1)
  expect(error).toMatchObject({ _tag: "TraceError", file: path.join(folder, "full") })
})

it("files of a checkpoint that is refused are closed", async () => {
  const [first, second] = await Promise.all(["0", "1"].map((file) => Effect.runPromise(written(file))))
  const shards = [
    { rank: 0, file: "0", ...first! },
    { rank: 1, file: "1", ...second!, sha256: "another" }
  ]
  const manifest = { ranks: 2, shards } as unknown as Manifest
  const isOpen = () => readdirSync("/proc/self/fd").length
  const before = isOpen()
  const error = await Effect.runPromise(Effect.flip(RestoredShards.open({ folder, manifest }, [0, 1])))
  expect(error).toMatchObject({ field: "sha256" })
  expect(isOpen()).toBe(before)
})

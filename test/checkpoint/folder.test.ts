// The folder of checkpoints, file by file: what a disk takes in part is not there.
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, expect, it } from "vitest"
import { complete, partialFolder } from "../../exec/checkpoint/folder.ts"
import { checkpointsIn } from "../../scenarios/cli/checkpoint/kept.ts"

const folder = mkdtempSync(path.join(tmpdir(), "checkpoint-folder-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const module = path.join(import.meta.dirname, "../../exec/checkpoint/folder.ts")

it("gives a checkpoint its name only with a manifest that is whole", () => {
  const manifest = "é".repeat(1500)
  mkdirSync(partialFolder(folder, 1))
  expect(readFileSync(path.join(complete(folder, 1, manifest, []), "manifest.json"), "utf8")).toBe(manifest)
  // A process that may write files of 1 KiB: the system takes so much of the first write, and refuses the second.
  mkdirSync(partialFolder(folder, 2))
  const script = `const { complete } = await import(${JSON.stringify(module)})
    complete(${JSON.stringify(folder)}, 2, "é".repeat(1500), [])`
  const { status, stderr } = spawnSync(
    "bash",
    ["-c", 'ulimit -f 1; exec "$0" --input-type=module -e "$1"', process.execPath, script],
    { encoding: "utf8" }
  )
  expect(status, stderr).not.toBe(0)
  expect(checkpointsIn(folder).map(({ step }) => step)).toEqual([1])
})

it("is not complete where a rank has written to a folder that is not this one", () => {
  const parts = [0, 1].map((rank) => ({ rank, file: `rank-${rank}`, bytes: 3 }))
  mkdirSync(partialFolder(folder, 3))
  writeFileSync(path.join(partialFolder(folder, 3), "rank-0"), "abc")
  expect(() => complete(folder, 3, "{}", parts)).toThrow(
    /rank-1: none of the 3 bytes that rank 1 has written are there; expected a folder that the hosts of all ranks share$/u
  )
  expect(checkpointsIn(folder).map(({ step }) => step)).toEqual([1])
})

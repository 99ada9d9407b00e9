// The folder of checkpoints, file by file: what a disk takes in part is not there.
import { spawnSync } from "node:child_process"
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
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

// Root may do anything, so that another user is taken there; who must be let in to what is run.
const asUser = process.getuid?.() === 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : []
const asked = (script: string) => {
  const [command, ...args] = [...asUser, process.execPath, "--input-type=module", "-e", script]
  // Without what the suite has others load, which may be closed to that user.
  return spawnSync(command!, args, { encoding: "utf8", env: { ...process.env, NODE_OPTIONS: "" } })
}
const commandModule = path.join(import.meta.dirname, "../../exec/cli/checkpoints.ts")
const imports = `const { clearPartial } = await import(${JSON.stringify(module)})
  const { filesThere } = await import(${JSON.stringify(commandModule)})`

it.skipIf(asked(imports).status !== 0)("is told apart from what another user has left in it", () => {
  const shared = path.join(folder, "shared")
  const left = partialFolder(shared, 7)
  const closed = path.join(shared, "step-0000000003")
  for (const one of [left, closed]) mkdirSync(one, { recursive: true })
  writeFileSync(path.join(left, "rank-0"), "abc")
  for (const [place, mode] of [
    [folder, 0o755],
    [shared, 0o777],
    [left, 0o555],
    [closed, 0o000]
  ] as const)
    chmodSync(place, mode)
  const { status, stdout, stderr } = asked(`${imports}
    const folder = ${JSON.stringify(shared)}
    console.log(filesThere({ folder, every: 1, keep: 1, newestStep: 3, predecessor: undefined }))
    try { clearPartial(folder) } catch (cause) { console.log(cause.message) }`)
  const told = `[]\n${left}, which a run that has ended left half written, cannot be removed: `
  expect([status, stdout.slice(0, told.length)], stderr).toEqual([0, told])
  expect(stdout).toContain("EACCES")
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

// Folders that commands write to: made with those above them, or refused in words that name the folder and what is wrong with it.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { makeFolder, whyNotWritable } from "../../traces/made-folder.ts"

const here = mkdtempSync(path.join(tmpdir(), "made-folder-"))
afterAll(() => rmSync(here, { recursive: true, force: true }))

/** Why it could not be made. */
const refused = (folder: string): string => {
  try {
    makeFolder(folder)
  } catch (cause) {
    return whyNotWritable(folder, cause)
  }
  return "made"
}

/** As the system refuses: as whom a test runs, and what is mounted where, are not its own to say. */
const answer = (code: string): Error => Object.assign(new Error(`${code}: refused`), { code })

describe("a folder to write to", () => {
  it("is made with those above it", () => {
    const folder = path.join(here, "a", "b")
    expect(makeFolder(folder)).toBe(path.join(here, "a"))
    expect(existsSync(folder)).toBe(true)
    expect(makeFolder(folder)).toBeUndefined()
  })

  it("that cannot be made is named by what is there above it, and what is wrong with that", () => {
    const file = path.join(here, "file")
    writeFileSync(file, "")
    expect(refused(path.join(file, "new"))).toContain(`${file} is a file`)
    expect(refused("/proc/nowhere/further")).toMatch(/^\/proc takes no folders: .* \(ENOENT\)$/u)
    const folder = path.join(here, "none", "new")
    for (const [code, words] of [
      ["EROFS", `${here} is on a file system that is mounted read-only (EROFS)`],
      ["EACCES", `this user may not write to ${here} (EACCES)`],
      ["ENOSPC", `no space is left in ${here} (ENOSPC)`],
      ["EIO", "refused (EIO)"]
    ] as const)
      expect(whyNotWritable(folder, answer(code))).toBe(words)
    expect(whyNotWritable(here, answer("EACCES"))).toBe(`this user may not write to ${here} (EACCES)`)
  })
})

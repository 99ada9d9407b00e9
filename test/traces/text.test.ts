// Text of what is no regular file: a pipe, as shells give where a file is asked for, and a device that never ends.
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { describe, expect, it } from "vitest"
import { readText } from "../../traces/text.ts"

describe.runIf(process.platform === "linux")("text", () => {
  it("of a pipe is read to its end, compressed or not, in parts that end anywhere", () => {
    const folder = mkdtempSync(join(tmpdir(), "tandem-text-"))
    const text = "läuft, läuft\n".repeat(300_000)
    const pipe = join(folder, "pipe")
    execFileSync("mkfifo", [pipe])
    for (const [name, bytes] of [
      ["plain", Buffer.from(text)],
      ["packed", gzipSync(text)],
      ["empty", Buffer.alloc(0)]
    ] as const) {
      writeFileSync(join(folder, name), bytes)
      spawn("sh", ["-c", `cat "${join(folder, name)}" > "${pipe}"`])
      expect(readText(pipe) === (name === "empty" ? "" : text), name).toBe(true)
    }
  })

  it("of a device that never ends is refused", () => {
    expect(() => readText("/dev/full")).toThrow(/\/dev\/full.*content.*537 MB of text/su)
  })
})

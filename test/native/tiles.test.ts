// Tiles of products and of attention that a GPU computes, on an emulated block of it: native/test/tiles.
import { execFile, spawnSync } from "node:child_process"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"

const compiler = process.env.CXX ?? "g++"
const probe = spawnSync(compiler, ["-x", "c++", "-", "-o", "/dev/null"], {
  input: "#include <ucontext.h>\nint main() {}"
})

describe.skipIf(probe.status !== 0)("tiles of grouped products and of attention", () => {
  it("are what plain loops have", { timeout: 300_000 }, async () => {
    const { stdout } = await promisify(execFile)("native/test/run.sh", ["tiles"])
    expect(stdout).toMatch(/tiles: \d+ cases of each kind hold/u)
  })
})

// Connections between processes against peers that do not keep to the protocol, under AddressSanitizer: native/test/wire.
import { execFile, spawnSync } from "node:child_process"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"

const compiler = process.env.CXX ?? "g++"
const probe = spawnSync(compiler, ["-fsanitize=address", "-x", "c++", "-", "-o", "/dev/null"], {
  input: "int main() {}"
})

describe.skipIf(probe.status !== 0)("what comes over the wire", () => {
  it("is believed only where it can be", { timeout: 300_000 }, async () => {
    const { stdout } = await promisify(execFile)("native/test/run.sh", ["wire"])
    expect(stdout).toMatch(/wire: \d{5,} checks hold/)
  })
})

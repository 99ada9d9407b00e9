// What is declared of UCX, held to its header where that is installed; and what is said where the library is not there, or another.
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { describeNative } from "./addon.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const hasHeader = existsSync("/usr/include/ucp/api/ucp.h") && spawnSync("g++", ["--version"]).status === 0
if (!hasHeader) process.stderr.write("UCX's header is not here (apt-get install g++ libucx-dev)\n")

interface Info {
  readonly native: { readonly transport: { readonly name: string; readonly because: string } }
}

const infoWith = (library: string, wish = ""): Info["native"]["transport"] => {
  const env = { ...process.env, TANDEM_UCX: library, TANDEM_TRANSPORT: wish }
  const { stdout } = spawnSync(process.execPath, ["bin/exec.js", "info", "--json"], {
    cwd: root,
    env,
    encoding: "utf8"
  })
  return (JSON.parse(stdout) as Info).native.transport
}

describeNative("UCX", () => {
  it.skipIf(!hasHeader)("is declared as its header has it", () => {
    const { status, stderr } = spawnSync("g++", ["-std=gnu++17", "-fsyntax-only", "native/test/ucx/abi.cc"], {
      cwd: root,
      encoding: "utf8"
    })
    expect(status, stderr).toBe(0)
  })

  it("is missing where its library is not there, and where another one is, and info says so", () => {
    const nowhere = infoWith("/nowhere/libucp.so.0")
    expect(nowhere.name).toBe("memory")
    expect(nowhere.because).toMatch(/\/nowhere\/libucp\.so\.0.*libucx0/u)
    const another = infoWith("libc.so.6")
    expect(another.name).toBe("memory")
    expect(another.because).toContain("UCX has no ucp_get_version")
  })

  it("is what info tells of only where TANDEM_TRANSPORT lets it", () => {
    const tcp = infoWith("", "tcp")
    expect(tcp).toMatchObject({ name: "tcp", because: expect.stringContaining("as TANDEM_TRANSPORT says") })
    const forced = infoWith("/nowhere/libucp.so.0", "ucx")
    expect(forced.name).toBe("ucx")
    expect(forced.because).toMatch(/as TANDEM_TRANSPORT says, and no job begins with it: .*\/nowhere/u)
  })
})

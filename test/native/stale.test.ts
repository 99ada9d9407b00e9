// An addon, or a library for GPUs beside it, that was built from other sources than those that lie here is named and not run.
import { spawnSync } from "node:child_process"
import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import { afterEach, expect, it } from "vitest"
import { addonIn, type Addon, type AddonInfo, type NoAddon } from "../../exec/native-addon.ts"
import { describeNative } from "./addon.ts"

const native = path.resolve("native")
const folders: Array<string> = []
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** The native folder as it is, in another place, with the addon that was built from it. */
const copied = (): string => {
  const folder = mkdtempSync(path.join(tmpdir(), "tandem-stale-"))
  folders.push(folder)
  cpSync(native, folder, {
    recursive: true,
    filter: (source) => !/\/(?:build|test)(?:\/|$)/u.test(source.slice(native.length))
  })
  cpSync(path.join(native, "build/Release/tandem.node"), path.join(folder, "build/Release/tandem.node"))
  return folder
}

const missingOf = (addon: Addon | NoAddon): string => ("missing" in addon ? addon.missing : "nothing")

/** The cuda backend of the addon in this folder. */
const cudaOf = (folder: string): AddonInfo["backends"][number] => {
  const addon = addonIn(folder)
  expect(missingOf(addon)).toBe("nothing")
  return (addon as Addon).info().backends.find(({ name }) => name === "cuda")!
}

/** The same beside a library that says that it was built from sources of this digest. */
const cudaBeside = (folder: string, digest: string): AddonInfo["backends"][number] => {
  const source = path.join(folder, "library.c")
  writeFileSync(
    source,
    `const char* tandemCudaSources(void) { return "${digest}"; }\nvoid* tandemCudaBackend(void) { __builtin_trap(); }\n`
  )
  const library = path.join(folder, "build/Release/libtandem_cuda.so")
  const { status, stderr } = spawnSync("cc", ["-shared", "-fPIC", "-o", library, source], {
    encoding: "utf8"
  })
  expect(status, stderr).toBe(0)
  return cudaOf(folder)
}

describeNative("what was built from other sources", () => {
  it("is named where the addon is, with what to run", () => {
    const folder = copied()
    expect(missingOf(addonIn(folder))).toBe("nothing")
    for (const changed of ["rank.h", "cpu/linear.cc", "transport/mesh.h", "signatures.inc"]) {
      const other = copied()
      appendFileSync(path.join(other, changed), "\n// changed\n")
      expect(missingOf(addonIn(other)), changed).toMatch(
        /tandem\.node\) was built from other sources than those of .*: run "npm run build:native"/u
      )
    }
    // kernels of GPUs are the library's
    appendFileSync(path.join(folder, "cuda/gemm.cu"), "\n// changed\n")
    expect(missingOf(addonIn(folder))).toBe("nothing")
  })

  it("is taken as it is where its sources did not come with it", () => {
    const folder = copied()
    rmSync(path.join(folder, "addon.cc"))
    expect(missingOf(addonIn(folder))).toBe("nothing")
  })

  it("is named where the library for GPUs is, and nothing of it is called", () => {
    const folder = copied()
    const { available, missing } = cudaBeside(folder, "of another day")
    expect(available).toBe(false)
    expect(missing).toEqual([
      `the library of the cuda backend was built from other sources than those that lie here (${folder}/build/Release/libtandem_cuda.so); "node ${folder}/cuda/build.js" builds it anew where nvcc is`
    ])
  })
})

describeNative("a library for GPUs that is not there", () => {
  const said = (by: string) => [
    expect.stringMatching(
      new RegExp(`^the library of the cuda backend; ${by} builds it.*libtandem_cuda`, "u")
    )
  ]

  it("is named with what builds it, from whatever folder that is run", () => {
    const folder = copied()
    expect(cudaOf(folder).missing).toEqual(said(`"node ${folder}/cuda/build.js"`))
  })

  it("is named with where to build it, where its sources did not come with the addon", () => {
    const folder = copied()
    rmSync(path.join(folder, "cuda"), { recursive: true })
    rmSync(path.join(folder, "addon.cc"))
    expect(cudaOf(folder).missing).toEqual(
      said("native/cuda/build.js of tandem's sources, which are not here,")
    )
  })
})

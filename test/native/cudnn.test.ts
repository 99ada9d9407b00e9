// Attention by cuDNN: its graphs on a library that computes them as they are described (native/test/cudnn), what is said where there is no
// cuDNN, and, where the backend under test is cuda and has one, the kernels of attention held to their references with it.
import { execFile, spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as fc from "fast-check"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import { nativeInfo, NativeSession } from "../../exec/native.ts"
import { backend, describeNative } from "./addon.ts"
import { cudnnAttention } from "./cases/attention.ts"
import { checkKernel, drawFrom } from "./check.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const compiler = process.env["CXX"] ?? "g++"
const compiles = spawnSync(compiler, ["--version"]).status === 0

describe.skipIf(!compiles)("cuDNN's graphs of attention", () => {
  it("mean attention and its gradients", { timeout: 300_000 }, async () => {
    const { stdout } = await promisify(execFile)("native/test/run.sh", ["cudnn"], { cwd: root })
    expect(stdout).toMatch(/cudnn: \d+ cases, 0 wrong; gradients of \d+, refused of 0\n/u)
    // the program and the library are there now
    const run = (env: Readonly<Record<string, string>>, cases = 0): string =>
      spawnSync("native/build/cudnn", [String(cases)], {
        cwd: root,
        env: { ...process.env, ...env },
        encoding: "utf8"
      }).stdout
    expect(run({ TANDEM_CUDNN: "/nowhere/libcudnn.so.9" })).toMatch(
      /there is no cuDNN, .*\/nowhere\/libcudnn\.so\.9.*LD_LIBRARY_PATH.*TANDEM_CUDNN/u
    )
    expect(run({ TANDEM_CUDNN: "libc.so.6" })).toMatch(/there is no cuDNN, .*has no cudnnGetVersion/u)
    const library = { TANDEM_CUDNN: `${root}/native/build/libcudnn-test.so` }
    expect(run({ ...library, TANDEM_TEST_CUDNN_VERSION: "90100" })).toMatch(
      /there is no cuDNN, .*libcudnn-test\.so\) has version 9\.1\.0; expected 9\.10\.2 or later of 9/u
    )
    // A version that has gradients of some numbers of keys alone says so of the others.
    expect(run({ ...library, TANDEM_TEST_CUDNN_VERSION: "91400" }, 5)).toMatch(
      /cudnn: 8 cases, 0 wrong; gradients of [1-9]\d*, refused of [1-9]\d*\n/u
    )
  })
})

const info = nativeInfo()
const found = "missing" in info ? undefined : info.backends.find(({ name }) => name === "cuda")
const version = found?.uses.map((use) => /cuDNN (\d+)\.(\d+)\.(\d+)/u.exec(use)?.slice(1)).find((one) => one)
const has = found?.available === true && version !== undefined
/** Before 9.15.1 it has gradients of keys in multiples of 128 alone. */
const [, minor = 0, patch = 0] = (version ?? []).map(Number)
const keysMultiple = minor > 15 || (minor === 15 && patch >= 1) ? 1 : 128
if (backend === "cuda" && !has) {
  const why = found?.missing.find((one) => one.startsWith("cuDNN")) ?? "no cuda backend"
  process.stderr.write(`skipped kernels of attention by cuDNN: ${why}\n`)
}

describeNative("attention by cuDNN", () => {
  describe.skipIf(backend !== "cuda" || !has)("where the backend has it", () => {
    const before = process.env["TANDEM_CUDA_ATTENTION"]
    let session: NativeSession | undefined
    beforeAll(() => {
      process.env["TANDEM_CUDA_ATTENTION"] = "cudnn"
      session = NativeSession.open({ ranks: 1, backend })
    })
    afterAll(() => {
      session?.close()
      if (before === undefined) delete process.env["TANDEM_CUDA_ATTENTION"]
      else process.env["TANDEM_CUDA_ATTENTION"] = before
    })

    for (const name of ["attention.forward", "attention.backward"] as const) {
      it(`${name} equals its reference`, async () => {
        await fc.assert(
          fc.asyncProperty(fc.integer({ min: 1, max: 1e9 }), async (seed) => {
            const draw = drawFrom(seed)
            await checkKernel(
              session!,
              kernels[name],
              cudnnAttention(keysMultiple)[name](draw),
              draw,
              2 ** -7
            )
          }),
          { numRuns: 12 }
        )
      })
    }

    it("is refused, with version and call, where cuDNN has none", async () => {
      const wide = (width: number) => ({ shape: [1, 3, 3 * width], dtype: "bfloat16" as const })
      const attributes = { heads: 1, kvHeads: 1, packed: true }
      const check = (inputs: ReadonlyArray<ReturnType<typeof wide>>, headWidth: number) =>
        checkKernel(
          session!,
          kernels["attention.forward"],
          { inputs, outputDtype: "bfloat16", attributes: { ...attributes, headWidth } },
          drawFrom(1)
        )
      await expect(check([wide(12)], 12)).rejects.toThrow(
        /attention\.forward: TANDEM_CUDA_ATTENTION=cudnn, and cuDNN 9\.\d+\.\d+ does not take 1 sequences of 3 queries and 3 keys, 1 heads on 1, 12 wide, of bfloat16, causal: heads 12 wide; expected a multiple of 8/u
      )
    })
  })

  it.skipIf(backend !== "cuda")("knows no other word of TANDEM_CUDA_ATTENTION", () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["exec/cli.ts", "info"], {
      cwd: root,
      env: { ...process.env, TANDEM_CUDA_ATTENTION: "flash" },
      encoding: "utf8"
    })
    expect(status, stderr).toBe(0)
    expect(stdout).toContain('TANDEM_CUDA_ATTENTION: "flash"; expected "own" or "cudnn"')
  })
})

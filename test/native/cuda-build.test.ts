// The CUDA sources compile wherever CUDA's compiler is, without a GPU.
import { spawnSync } from "node:child_process"
import { expect, it } from "vitest"

it("CUDA sources compile as far as PTX, where nvcc is", { timeout: 900_000 }, (context) => {
  const { status, stderr } = spawnSync(process.execPath, ["native/cuda/build.js", "--check"], {
    encoding: "utf8"
  })
  if (stderr.includes("no CUDA compiler")) context.skip("no CUDA compiler here")
  expect(stderr).toBe("")
  expect(status).toBe(0)
})

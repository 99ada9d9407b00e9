// How the tests run: one pool of worker processes, one more than there are cores; properties seeded (test/setup).

import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { defineConfig } from "vitest/config"

const soaking = (process.env["TANDEM_SOAK"] ?? "") !== ""
/** Where to also write the result as JSON, for machines: .ci/run takes its last line from it. */
const report = process.env["TANDEM_TEST_REPORT"]

/** Examples in docs/ import the package by its name; here that is the sources. As in tsconfig.json. */
const entryPoints = {
  tandem: "core",
  "tandem/sim": "sim",
  "tandem/traces": "traces",
  "tandem/scenarios": "scenarios",
  "tandem/testing": "testing"
}

export default defineConfig({
  resolve: {
    alias: Object.entries(entryPoints).map(([name, folder]) => ({
      find: new RegExp(`^${name}$`, "u"),
      replacement: `${import.meta.dirname}/${folder}/index.ts`
    }))
  },
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["**/node_modules/**", "**/dist/**"],
    setupFiles: ["test/setup/properties.ts"],
    // Processes that tests start find there what others have compiled: half of their start. As the command lines have it anyhow.
    env: { NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(tmpdir(), "node-compile-cache") },
    pool: "forks",
    // A worker loads what it tests once for all its files, which saves a fifth of the time: no test leaves anything behind in its
    // process. A soak mocks fast-check for each file anew.
    isolate: soaking,
    restoreMocks: true,
    // One more than cores: many tests wait, for processes of their own or for time to pass.
    maxWorkers: availableParallelism() + 1,
    // A worker's start, with Effect's schemas to load, is half a second: the limit is for hangs, not for slow machines.
    testTimeout: soaking ? 3_600_000 : 60_000,
    hookTimeout: 120_000,
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]]
  }
})

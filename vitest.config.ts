// How the tests run: one pool of worker processes, one more than there are cores; properties seeded (test/setup).

import { availableParallelism, tmpdir } from "node:os"
import { join } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

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

/** They compile, or start a process for nearly every test. */
const longest = [
  "native/cuda-build",
  "native/wire",
  "native/tiles",
  "job/processes",
  "cli/interrupted",
  "validate/validate",
  "contract/recompute",
  "docs/adding-an-algorithm",
  "docs/adding-a-family",
  "checkpoint/crashes",
  "job/collectives",
  "job/agreement"
]

const rankOf = ({ moduleId }: TestSpecification): number => {
  const at = longest.findIndex((name) => moduleId.endsWith(`test/${name}.test.ts`))
  return at < 0 ? longest.length : at
}

/**
 * Which files begin first: vitest takes the largest, or those that took longest where it has seen them, and a few short files are
 * the longest to run. Begun last, each would keep one worker busy alone at the end.
 */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    // oxlint-disable-next-line unicorn/no-array-sort -- the sequencer's own, of a class
    const usual = await super.sort(files)
    return usual.toSorted((a, b) => rankOf(a) - rankOf(b))
  }
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
    globalSetup: ["test/setup/bundle.ts", "test/setup/temporary.ts"],
    setupFiles: ["test/setup/properties.ts", "test/setup/processes.ts"],
    // Processes that tests start find there what others have compiled: half of their start. As the command lines have it anyhow.
    env: { NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(tmpdir(), "node-compile-cache") },
    sequence: { sequencer: LongestFirst },
    pool: "forks",
    // A worker loads what it tests once for all its files, which saves a fifth of the time: no test leaves anything behind in its
    // process. A soak mocks fast-check for each file anew.
    isolate: soaking,
    restoreMocks: true,
    // One more than cores: many tests wait, for processes of their own or for time to pass.
    maxWorkers: availableParallelism() + 1,
    // The limit is for hangs, not for slow machines: the longest tests take 20 s on two quiet cores, and 60 s where others compute there.
    testTimeout: soaking ? 3_600_000 : 240_000,
    hookTimeout: 240_000,
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]]
  }
})

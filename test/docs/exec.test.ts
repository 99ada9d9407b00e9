// docs/exec.md against the command line itself: every field of its JSON is in the page.
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, it } from "vitest"
import { execEach, root } from "../cli/launch.ts"
import { describeNative } from "../native/addon.ts"

const page = readFileSync(join(root, "docs/exec.md"), "utf8")
const folder = mkdtempSync(join(tmpdir(), "exec-docs-"))

afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** Names of all fields, at any depth, but of what kernels declare. */
const namesIn = (value: unknown): ReadonlyArray<string> =>
  Array.isArray(value)
    ? value.slice(0, 2).flatMap(namesIn)
    : typeof value === "object" && value !== null
      ? Object.entries(value).flatMap(([name, inner]) => [
          name,
          ...(name === "attributes" ? [] : namesIn(inner))
        ])
      : []

describeNative("docs/exec.md", () => {
  it("has the fields of every command", () => {
    const known = new Set([...page.matchAll(/`([^`\n]+)`/gu)].flatMap(([, quoted]) => quoted!.split(/\W+/u)))
    const lines = [
      ["info"],
      ["train", "scenarios/train-tiny.yaml", "--steps", "2", "--checkpoint", join(folder, "kept")],
      [
        "train",
        "scenarios/agree/data-parallel.yaml",
        "--steps",
        "2",
        "--set",
        "training={precision: float16}"
      ],
      ["profile", "scenarios/agree/sharded.yaml", "-o", join(folder, "sharded.arrow")],
      ["profile", "scenarios/agree/moe-training.yaml", "-o", join(folder, "moe.arrow")],
      ["generate", "scenarios/agree/expert-offload.yaml"],
      ["generate", "scenarios/agree/kv-serving.yaml"],
      ["agree", "scenarios/agree/streaming-diloco.yaml"]
    ]
    const ended = execEach(lines.map((line) => [...line, "--json"]))
    for (const [at, { status, stdout, stderr }] of ended.entries()) {
      expect(status, `${lines[at]!.join(" ")}: ${stderr}`).toBe(0)
      const missing = new Set(namesIn(JSON.parse(stdout)).filter((name) => !known.has(name)))
      expect([...missing], lines[at]!.join(" ")).toEqual([])
    }
  })
})

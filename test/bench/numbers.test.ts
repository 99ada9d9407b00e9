// Numbers and names on command lines of benches: what is none is refused before anything is measured.
import { spawnSync } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))

const files = globSync("bench/**/*.ts", { cwd: root }).toSorted()
const sourceOf = (file: string): string => readFileSync(path.join(root, file), "utf8")

/** Its options are what another bench gave. */
const startedByOthers = new Set(["bench/cluster/rank-loop.ts"])

/** Options of each bench that take a value, and whether a checker of bench/numbers.ts looks at it. */
const options = files.flatMap((file) => {
  const source = sourceOf(file)
  const [, declared] = /optionsOf\(\{([\s\S]*?)\}\)/u.exec(source.replaceAll(/\/\*\*.*?\*\//gu, "")) ?? []
  if (file === "bench/numbers.ts" || startedByOthers.has(file) || declared === undefined) return []
  return [...declared.matchAll(/"?([\w-]+)"?: \{\s*type: "string"/gu)].map(([, name]) => ({
    file,
    name: name!,
    isChecked:
      new RegExp(
        `(?:wholeNumber|positiveNumber|numbersOf|namesOf?|nameOf|quantityOf|readBy)\\(\\s*"--${name}"`,
        "u"
      ).test(source) ||
      (name === "backend" && source.includes("backendOf("))
  }))
})

/** Places, and what a scenario's reader or another program looks at. */
const free = new Set([
  "out",
  "folder",
  "profiles",
  "traces",
  "table",
  "scenario",
  "python",
  "set",
  "model",
  "only"
])

/** What is said of them, to the letter. */
const messages: ReadonlyArray<readonly [line: ReadonlyArray<string>, message: string]> = [
  [
    ["native/train-step.ts", "--layers", "x"],
    "--layers: x is not accepted; expected a whole number, at least 1"
  ],
  [
    ["native/kernels.ts", "--repeats", "0"],
    "--repeats: 0 is not accepted; expected a whole number, at least 1"
  ],
  [
    ["native/select.ts", "--tokens", "8192,"],
    "--tokens:  is not accepted; expected a whole number, at least 1"
  ],
  [
    ["native/kv-break-even.ts", "--keep", "1.5"],
    "--keep: 1.5 is not accepted; expected a number greater than 0, at most 1"
  ],
  [["native/kv-decode.ts", "--bound", "-1"], "--bound: -1 is not accepted; expected a number greater than 0"],
  [["cluster/what-if.ts", "--backend", "gpu"], "--backend: gpu is not accepted; expected cpu, cuda"],
  [
    ["cluster/what-if.ts", "--algorithms", "sgd"],
    "--algorithms: sgd is not accepted; expected ddp, fsdp, local-sgd, partial-local-sgd, dreamddp, diloco, streaming-diloco"
  ],
  [
    ["cluster/moe.ts", "--variants", "fast"],
    "--variants: fast is not accepted; expected no pipelining; fsmoe, degree 4; fsmoe, planned; fsmoe, degree 2; fsmoe, degree 8"
  ],
  [
    ["native/kernels.ts", "--precision", "fp8"],
    "--precision: fp8 is not accepted; expected bfloat16, float16, float32, tf32"
  ],
  [["throughput.ts", "12e"], "steps: 12e is not accepted; expected a whole number, at least 1"]
]

interface Line {
  readonly file: string
  readonly args: ReadonlyArray<string>
}

/** How benches end that are begun so, all in one process. */
const refused = (
  lines: ReadonlyArray<Line>
): ReadonlyArray<{ readonly code: number; readonly said: string }> => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["test/bench/refusing.ts"], {
    cwd: root,
    encoding: "utf8",
    input: JSON.stringify(lines.map(({ file, args }) => ({ file, args }))),
    maxBuffer: 2 ** 26
  })
  expect(status, stderr).toBe(0)
  return JSON.parse(stdout) as ReturnType<typeof refused>
}

describe("a bench", () => {
  it("refuses what is no number, or none of the names, by the option's name", () => {
    const cases = messages.map(([[bench, ...args], message]) => {
      // an option's value that begins with a dash is written after an equals sign
      const given = args.length === 2 && args[1]!.startsWith("-") ? [args.join("=")] : args
      return { file: `bench/${bench!}`, args: given, message }
    })
    expect(refused(cases)).toEqual(cases.map(({ message }) => ({ code: 2, said: `${message}\n` })))
  })

  it("reads them so everywhere", () => {
    const unchecked =
      /(?:Number|parseInt|parseFloat)\((?:values|options|chosen|parsed|process\.argv)\b|split\(","\)\.map\(Number\)|\bparseArgs\(|argv\.includes\(/u
    const found = files.filter((file) => file !== "bench/numbers.ts" && unchecked.test(sourceOf(file)))
    expect(found).toEqual([])
  })

  it("has no option whose value nobody looks at", () => {
    expect(options.filter(({ name, isChecked }) => !isChecked && !free.has(name))).toEqual([])
    expect(options.filter(({ isChecked }) => isChecked).length).toBeGreaterThan(60)
  })

  it("refuses a wrong value of each of them before it does anything, and an option that there is not", () => {
    const asked = options
      .filter(({ isChecked }) => isChecked)
      .map(({ file, name }) => ({
        file,
        args: [`--${name}`, "x"],
        says: `--${name}: x is not accepted; expected `
      }))
    const unknown = [...new Set(options.map(({ file }) => file))].map((file) => ({
      file,
      args: ["--nothing"],
      says: "Unknown option '--nothing'"
    }))
    const cases = [...asked, ...unknown]
    const ended = refused(cases)
    expect(
      cases.flatMap(({ file, args, says }, i) => {
        const { code, said } = ended[i]!
        return code === 2 && said.startsWith(says) ? [] : [{ file, args, code, said }]
      })
    ).toEqual([])
  })
})

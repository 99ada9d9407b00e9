// Numbers and names on command lines of benches: what is none is refused before anything is measured.
import { spawnSync } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))

describe("a bench", () => {
  it.each([
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
    [
      ["native/kv-decode.ts", "--bound", "-1"],
      "--bound: -1 is not accepted; expected a number greater than 0"
    ],
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
  ])(
    "refuses what is no number, or none of the names, by the option's name: %j",
    ([bench, ...args], message) => {
      // an option's value that begins with a dash is written after an equals sign
      const given = args.length === 2 && args[1]!.startsWith("-") ? [args.join("=")] : args
      const { status, stdout, stderr } = spawnSync(process.execPath, [path.join("bench", bench!), ...given], {
        cwd: root,
        encoding: "utf8"
      })
      expect({ status, stdout, stderr }).toEqual({ status: 2, stdout: "", stderr: `${message}\n` })
    }
  )

  it("reads them so everywhere", () => {
    const unchecked =
      /(?:Number|parseInt|parseFloat)\((?:values|options|chosen|parsed|process\.argv)\b|split\(","\)\.map\(Number\)/u
    const found = globSync("bench/**/*.ts", { cwd: root }).filter((file) =>
      unchecked.test(readFileSync(path.join(root, file), "utf8"))
    )
    expect(found).toEqual([])
  })
})

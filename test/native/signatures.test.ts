// What the native layer knows of each kernel's operands is what the catalogue says, and it refuses whatever the catalogue
// refuses, when nothing above it has looked.
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { kernels } from "../../core/kernels/catalogue.ts"
import type { Kernel } from "../../core/kernels/kernel.ts"
import type { Dtype } from "../../core/machine/tensor.ts"

const path = fileURLToPath(new URL("../../native/signatures.inc", import.meta.url))
const recording = (process.env["TANDEM_RECORD_SIGNATURES"] ?? "") !== ""

const codes: Readonly<Record<Dtype, number>> = {
  float32: 0,
  bfloat16: 1,
  float16: 2,
  float8: 3,
  float4: 4,
  int8: 5,
  int32: 6,
  // No kernel declares it.
  mxfp4: 7
}

/** The catalogue as native/catalogue.cc includes it. */
const signatures = (): string => {
  const dtypes = (list: Kernel["inputDtypes"]): string =>
    list.map((dtype) => (dtype === undefined ? "-" : codes[dtype])).join("")
  // A composite's operands are checked as those of its parts.
  const rows = Object.values<Kernel>(kernels)
    .filter(({ expand }) => expand === undefined)
    .map((kernel) => [kernel.name, kernel.signature, dtypes(kernel.inputDtypes), dtypes(kernel.outputDtypes)])
    .toSorted(([a], [b]) => (a! < b! ? -1 : 1))
  const lines = rows.map((row) => `    {${row.map((text) => JSON.stringify(text)).join(", ")}},`)
  return `// Made from core/kernels by test/native/signatures.test.ts.\n${lines.join("\n")}\n`
}

describe("native signatures", () => {
  it("are the catalogue's; TANDEM_RECORD_SIGNATURES=1 writes them anew", () => {
    if (recording) writeFileSync(path, signatures())
    expect(existsSync(path) && readFileSync(path, "utf8")).toBe(signatures())
  })
})

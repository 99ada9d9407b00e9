// Files of tokens: what nanoGPT and llm.c write, byte by byte as their scripts do, read by parts and across files; refusals of others.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import * as path from "node:path"
import * as fc from "fast-check"
import { afterAll, expect, it } from "vitest"
import { openTokenFile, readTokensAcross } from "../../traces/token-file.ts"
import { TraceError } from "../../traces/trace-error.ts"

const folder = mkdtempSync(path.join(tmpdir(), "tokens-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const fileOf = (name: string, bytes: Uint8Array): string => {
  const file = path.join(folder, name)
  writeFileSync(file, bytes)
  return file
}

/** nanoGPT, data/openwebtext/prepare.py: np.memmap of uint16, no header. */
const nanoGpt = (name: string, tokens: ReadonlyArray<number>): string =>
  fileOf(name, new Uint8Array(Uint16Array.from(tokens).buffer))

/** llm.c, dev/data/data_common.py, write_datafile: header of 256 int32 with magic, version and count. */
const llmC = (name: string, tokens: ReadonlyArray<number>, llama = false): string => {
  const header = new Int32Array(256)
  header.set(llama ? [20240801, 7, tokens.length] : [20240520, 1, tokens.length])
  const body = llama ? Uint32Array.from(tokens) : Uint16Array.from(tokens)
  return fileOf(name, Buffer.concat([new Uint8Array(header.buffer), new Uint8Array(body.buffer)]))
}

it("reads any part of files of any kind, one behind the other", () => {
  const kind = fc.constantFrom("bare", "gpt-2", "llama-3")
  const files = fc.array(fc.tuple(kind, fc.array(fc.nat({ max: 65_535 }), { minLength: 1, maxLength: 40 })), {
    minLength: 1,
    maxLength: 4
  })
  fc.assert(
    fc.property(files, fc.nat(), fc.nat(), (contents, a, b) => {
      const all = contents.flatMap(([, tokens]) => tokens)
      const opened = contents.map(([kind, tokens], i) => {
        const write =
          kind === "bare"
            ? nanoGpt
            : (name: string, ids: ReadonlyArray<number>) => llmC(name, ids, kind === "llama-3")
        return openTokenFile(write(`${i}.bin`, tokens), "uint16")
      })
      expect(opened.map(({ tokens }) => tokens)).toEqual(contents.map(([, { length }]) => length))
      const from = a % all.length
      const count = b % (all.length - from + 1)
      expect([...readTokensAcross(opened, from, count)]).toEqual(all.slice(from, from + count))
    }),
    { numRuns: 60 }
  )
})

it("reads bare files of four bytes a token where it is told so", () => {
  const file = fileOf("wide.bin", new Uint8Array(Uint32Array.of(7, 128_000, 70_000).buffer))
  const opened = openTokenFile(file, "uint32")
  expect(opened.tokens).toBe(3)
  expect([...readTokensAcross([opened], 1, 2)]).toEqual([128_000, 70_000])
})

it.each([
  [
    "nothing",
    () => fileOf("empty.bin", new Uint8Array(0)),
    /size in bytes is 0; expected some tokens of 2 each/u
  ],
  [
    "half a token",
    () => fileOf("odd.bin", new Uint8Array(5)),
    /size in bytes is 5; expected some tokens of 2 each/u
  ],
  ["what is not there", () => path.join(folder, "none.bin"), /missing \(ENOENT\)/u],
  [
    "a version that nobody knows",
    () => {
      const header = new Int32Array(257)
      header.set([20240520, 3, 2])
      return fileOf("new.bin", new Uint8Array(header.buffer))
    },
    /header, version is 3; expected 1, for magic number 20240520/u
  ],
  [
    "a header of a kind that nobody knows",
    () => {
      const header = new Int32Array(257)
      header.set([12345, 1, 2])
      return fileOf("other.bin", new Uint8Array(header.buffer))
    },
    /header, magic number is 12345; expected 20240520 or 20240801/u
  ],
  [
    "a file cut short",
    () => {
      const file = llmC("short.bin", [1, 2, 3, 4])
      truncateSync(file, 1028)
      return file
    },
    /header, number of tokens is 4; expected the 2 that follow it/u
  ]
] as const)("refuses %s", (_, make, message) => {
  const file = make()
  expect(() => openTokenFile(file, "uint16")).toThrow(TraceError)
  expect(() => openTokenFile(file, "uint16")).toThrow(message)
})

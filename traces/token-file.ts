// Files of token ids as people have them, read by parts: little-endian numbers of two or four bytes one behind the other, bare
// (nanoGPT's train.bin: https://github.com/karpathy/nanoGPT) or behind a header (llm.c's and modded-nanogpt's shards:
// https://github.com/karpathy/llm.c, dev/data/data_common.py: 256 int32, magic, version, count). Knows no vocabulary.
import { closeSync, fstatSync, openSync } from "node:fs"
import { readAt } from "./read-at.ts"
import { showValue, TraceError, traceErrorFrom } from "./trace-error.ts"

export const tokenDtypes = ["uint16", "uint32"] as const
export type TokenDtype = (typeof tokenDtypes)[number]

export interface TokenFile {
  readonly path: string
  readonly tokens: number
  readonly dtype: TokenDtype
  /** Where the first token is. */
  readonly fromBytes: number
}

const headerBytes = 1024

/** By magic number: {GPT-2 tokens, Llama 3 tokens}. */
const headers: ReadonlyMap<number, { readonly version: number; readonly dtype: TokenDtype }> = new Map([
  [20240520, { version: 1, dtype: "uint16" }],
  [20240801, { version: 7, dtype: "uint32" }]
])

const bytesOf = (dtype: TokenDtype): number => (dtype === "uint16" ? 2 : 4)

const withFile = <A>(path: string, use: (descriptor: number) => A): A => {
  let descriptor: number | undefined
  try {
    descriptor = openSync(path, "r")
    return use(descriptor)
  } catch (cause) {
    throw traceErrorFrom(path, "file", "a file of tokens (.bin)", cause)
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}

/** What a file is. `dtype` is that of a file without a header. Throws `TraceError`. */
export const openTokenFile = (path: string, dtype: TokenDtype): TokenFile =>
  withFile(path, (descriptor) => {
    const refuse = (field: string, value: unknown, accepted: string) =>
      new TraceError({ file: path, field, value: showValue(value), accepted })
    const fileBytes = fstatSync(descriptor).size
    const head = fileBytes < headerBytes ? undefined : readAt(descriptor, 0, 12)
    const words = head === undefined ? undefined : new Int32Array(head.buffer)
    const header = words === undefined ? undefined : headers.get(words[0]!)
    if (header === undefined) {
      // Whose third number is that of the tokens behind a header has one, of a kind that is not known here.
      const counted = (fileBytes - headerBytes) / (words?.[2] ?? 0)
      if (words !== undefined && (counted === 2 || counted === 4))
        throw refuse("header, magic number", words[0], [...headers.keys()].join(" or "))
      const each = bytesOf(dtype)
      if (fileBytes === 0 || fileBytes % each !== 0)
        throw refuse("size in bytes", fileBytes, `some tokens of ${each} each (${dtype}), without a header`)
      return { path, tokens: fileBytes / each, dtype, fromBytes: 0 }
    }
    const [magic, version, count] = words! as unknown as readonly [number, number, number]
    if (version !== header.version)
      throw refuse("header, version", version, `${header.version}, for magic number ${magic}`)
    const tokens = (fileBytes - headerBytes) / bytesOf(header.dtype)
    if (tokens !== count)
      throw refuse("header, number of tokens", count, `the ${tokens} that follow it: the file is not whole`)
    return { path, tokens, dtype: header.dtype, fromBytes: headerBytes }
  })

/** Tokens `from` to `from + count` of a file. Throws `TraceError`. */
const readTokens = (file: TokenFile, from: number, count: number): Int32Array =>
  withFile(file.path, (descriptor) => {
    const each = bytesOf(file.dtype)
    const { buffer } = readAt(descriptor, file.fromBytes + from * each, count * each)
    return file.dtype === "uint16" ? Int32Array.from(new Uint16Array(buffer)) : new Int32Array(buffer)
  })

/** The same of files that follow one another. */
export const readTokensAcross = (
  files: ReadonlyArray<TokenFile>,
  from: number,
  count: number
): Int32Array => {
  const tokens = new Int32Array(count)
  let begin = 0
  for (const file of files) {
    const first = Math.max(from, begin)
    const end = Math.min(from + count, begin + file.tokens)
    if (first < end) tokens.set(readTokens(file, first - begin, end - first), first - from)
    begin += file.tokens
  }
  return tokens
}

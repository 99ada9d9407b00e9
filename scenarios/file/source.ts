// A YAML (or JSON) file as plain data that still knows where each field stands. Knows nothing of scenarios.
import * as Effect from "effect/Effect"
import {
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
  type Document,
  type YAMLMap
} from "yaml"
import { readText } from "../../traces/text.ts"
import { fileOf } from "../../traces/system-words.ts"
import { TraceError } from "../../traces/trace-error.ts"
import { InputError } from "../../core/input-error.ts"
import type { FieldPath } from "./check.ts"
import { inputErrors, InputErrors } from "./input-errors.ts"

export interface Source {
  /** As the person named it. */
  readonly file: string
  readonly value: unknown
  /** "file:line:column" of a field, or of the nearest part of its path that is there. */
  readonly where: (path: FieldPath, atKey: boolean) => string
}

const accepted = "a readable YAML or JSON file"

/** Reads and parses; fails with every syntax error of the file. */
export const readSource = (file: string): Effect.Effect<Source, InputErrors> =>
  Effect.flatMap(
    Effect.try({
      try: () => readText(file),
      catch: (cause) => inputErrors(new InputError({ file, field: "", value: reasonOf(cause), accepted }))
    }),
    (text) => parseSource(file, text)
  )

/** As `readSource`, of text that is already here. */
export const parseSource = (file: string, text: string): Effect.Effect<Source, InputErrors> =>
  Effect.suspend(() => {
    const lines = new LineCounter()
    const place = (offset: number): string => {
      const { line, col } = lines.linePos(offset)
      return `${file}:${line}:${col}`
    }
    const broken = (offset: number | undefined, value: string) =>
      new InputError({
        file: offset === undefined ? file : place(offset),
        field: "",
        value,
        accepted: "YAML"
      })
    try {
      const document = parsed(text, lines)
      const deep = document.errors.find(isTooDeep)
      if (deep !== undefined) return Effect.fail(inputErrors(broken(deep.pos[0], tooDeep)))
      const errors = [
        ...document.errors.map(({ pos, message }) => broken(pos[0], firstLine(message))),
        ...repeatedKeys(document).map((key) => broken(startOf(key), "Map keys must be unique"))
      ]
      const [first, ...rest] = errors
      if (first !== undefined) return Effect.fail(inputErrors(first, ...rest))
      const value = plain(document)
      const indices: Indices = new Map()
      const where = (path: FieldPath, atKey: boolean): string => {
        const offset = offsetOf(document, path, atKey, indices)
        return offset === undefined ? file : place(offset)
      }
      return Effect.succeed({ file, value, where })
    } catch (cause) {
      // Nested too deep to walk, or aliases that multiply beyond bounds or lie in what they stand for.
      return Effect.fail(
        inputErrors(broken(undefined, isTooDeep(cause) ? tooDeep : `${reasonOf(cause)}: this`))
      )
    }
  })

const tooDeep = "nesting too deep to be read"

/** Whether it is the engine that could not go on: the parser's own errors are of the text. */
const isTooDeep = (cause: unknown): boolean =>
  cause instanceof Error && /call stack size|: Stack overflow$/u.test(cause.message)

/** Each key once: `repeatedKeys` sees to that, for the parser's own check takes the square of a map's keys. */
const parsed = (text: string, lineCounter?: LineCounter): Document =>
  parseDocument(text, {
    prettyErrors: false,
    stringKeys: true,
    logLevel: "silent",
    uniqueKeys: false,
    ...(lineCounter === undefined ? {} : { lineCounter })
  })

const repeatedKeys = (document: Document): ReadonlyArray<unknown> => {
  const repeated: Array<unknown> = []
  visit(document, {
    Map: (_, { items }) => {
      const seen = new Set<unknown>()
      for (const { key } of items) {
        const name = isScalar(key) ? key.value : key
        if (seen.has(name)) repeated.push(key)
        seen.add(name)
      }
    }
  })
  return repeated
}

/** The value of a YAML scalar or flow collection, as on a command line. Undefined when it is not YAML. */
export const parseInline = (text: string): { readonly value: unknown } | undefined => {
  try {
    const document = parsed(text)
    const wrong = document.errors.length > 0 || repeatedKeys(document).length > 0
    return wrong ? undefined : { value: plain(document) }
  } catch {
    return undefined
  }
}

/** Throws for what has no end. */
const plain = (document: Document): unknown => {
  const value: unknown = document.toJS({ maxAliasCount: 100 })
  refuseCircles(value, new Set(), new Set())
  return value
}

const refuseCircles = (value: unknown, around: Set<unknown>, seen: Set<unknown>): void => {
  if (typeof value !== "object" || value === null) return
  if (around.has(value)) throw new RangeError("an alias inside of what it stands for")
  if (seen.has(value)) return
  seen.add(value)
  around.add(value)
  for (const each of Object.values(value)) refuseCircles(each, around, seen)
  around.delete(value)
}

const firstLine = (text: string): string => text.split("\n", 1)[0] ?? text

/** What an operating system or parser says, without its stack. */
export const reasonOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  const code = "code" in cause ? String(cause.code) : undefined
  if (code === "ENOENT") return "a file that does not exist"
  if (code === "EISDIR") return "a folder"
  if (cause instanceof TraceError) return `content that is ${cause.value}`
  if (code === "EACCES" || code === "EPERM") return `a file without permission (${code})`
  return firstLine(fileOf(cause))
}

/** Of each map that was asked, its entries by their keys: a file may have very many, and each be wrong. */
type Indices = Map<YAMLMap, ReadonlyMap<unknown, YAMLMap["items"][number]>>

const indexOf = (map: YAMLMap, indices: Indices) => {
  const known = indices.get(map)
  if (known !== undefined) return known
  const index = new Map(map.items.map((item) => [isScalar(item.key) ? item.key.value : item.key, item]))
  indices.set(map, index)
  return index
}

const offsetOf = (
  document: Document,
  path: FieldPath,
  atKey: boolean,
  indices: Indices
): number | undefined => {
  let node: unknown = document.contents
  let offset = startOf(node)
  for (const [depth, key] of path.entries()) {
    if (isMap(node)) {
      const pair = indexOf(node, indices).get(String(key))
      if (pair === undefined) break
      const last = depth === path.length - 1
      const at = startOf(last && !atKey && isNode(pair.value) ? pair.value : pair.key)
      offset = at ?? offset
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(key)]
      offset = startOf(node) ?? offset
    } else break
  }
  return offset
}

const startOf = (node: unknown): number | undefined => (isNode(node) ? node.range?.[0] : undefined)

// Files of request traces, one or a folder of them, as their texts.
import * as fs from "node:fs"
import * as path from "node:path"
import { readText } from "../text.ts"
import { TraceError } from "../trace-error.ts"

/** The text of a file (compressed or not), or of every file of requests in a folder, by name. Throws where there is none. */
export const requestFiles = (
  named: string
): ReadonlyArray<{ readonly file: string; readonly text: string }> => {
  if (!fs.statSync(named).isDirectory()) return [{ file: named, text: readText(named) }]
  const names = fs.readdirSync(named).filter((name) => /\.(?:jsonl?|[ct]sv)(?:\.gz|\.zst)?$/iu.test(name))
  if (names.length === 0) {
    const accepted = "at least one file that ends in .jsonl, .json, .csv or .tsv (and .gz or .zst)"
    throw new TraceError({ file: named, field: "files", value: "none of requests", accepted })
  }
  return names
    .toSorted()
    .map((name) => path.join(named, name))
    .map((file) => ({ file, text: readText(file) }))
}

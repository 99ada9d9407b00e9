// The name under which shards, journals and resumed runs of one study recognise one another: everything that its results
// depend on, which is what the file says, what the files say that it names or that ship, and the version.
import { createHash, type Hash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { isRecord } from "../../scenarios/file/shape.ts"
import { version } from "../../scenarios/cli/version.ts"
import { locate } from "../../scenarios/load.ts"

/** `said`: what the study is, as JSON. `file`: its path, to which the files that it names are relative. */
export const identityOf = (file: string, said: unknown): string => {
  const hash = createHash("sha256")
  hash.update(JSON.stringify([version(), said]))
  // Scenarios use shipped measurements without naming them: a device's tables, for one.
  addFolder(hash, locate(file, "traces/profiles"))
  for (const named of new Set(textsIn(said)))
    // Whatever text of the scenario is the name of a file counts with its content.
    if (/\.[a-z]+$/iu.test(named)) addFile(hash, named, locate(file, named))
  return hash.digest("hex").slice(0, 32)
}

const addFolder = (hash: Hash, folder: string): void => {
  for (const name of readdirSync(folder).toSorted()) addFile(hash, name, join(folder, name))
}

const addFile = (hash: Hash, named: string, path: string): void => {
  let content: Buffer
  try {
    content = readFileSync(path)
  } catch {
    return // No file, or none that can be read: the text itself counts already.
  }
  hash.update(`\n${named} ${content.length}\n`)
  hash.update(content)
}

const textsIn = (value: unknown): ReadonlyArray<string> => {
  if (typeof value === "string") return [value]
  if (Array.isArray(value)) return value.flatMap(textsIn)
  return isRecord(value) ? Object.values(value).flatMap(textsIn) : []
}

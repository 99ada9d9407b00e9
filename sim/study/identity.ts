// The name under which shards, journals and resumed runs of one study recognise one another: everything that its results
// depend on, which is what the file says, what the files say that it names or that ship, and the version.
import { createHash, type Hash } from "node:crypto"
import { readdirSync, readFileSync } from "node:fs"
import { basename, join } from "node:path"
import { version } from "../../scenarios/cli/version.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { locate } from "../../scenarios/load.ts"
import { filesBehind, namesOfFiles } from "../../scenarios/named-files.ts"

/** `said`: what the study is, as JSON. `file`: its path, to which the files that its `scenarios` name are relative. */
export const identityOf = (file: string, said: unknown, scenarios: Iterable<Scenario>): string => {
  const hash = createHash("sha256")
  hash.update(JSON.stringify([version(), said]))
  // Scenarios use shipped measurements without naming them: a device's tables, for one.
  addFolder(hash, locate(file, "traces/profiles"))
  const names = new Set<string>()
  for (const scenario of scenarios) for (const name of namesOfFiles(scenario)) names.add(name)
  for (const name of [...names].toSorted()) {
    const whole = locate(file, name)
    for (const path of filesBehind(whole))
      addFile(hash, path === whole ? name : `${name} ${basename(path)}`, path)
  }
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

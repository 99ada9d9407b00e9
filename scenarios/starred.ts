// Names of several files: a path whose last part may have stars.
import { readdirSync } from "node:fs"
import * as path from "node:path"

/** Files of that name, in the order of their names; the path itself where it has no stars. Throws what the system does. */
export const starred = (whole: string): ReadonlyArray<string> => {
  const last = path.basename(whole)
  if (!last.includes("*")) return [whole]
  const folder = path.dirname(whole)
  const pattern = new RegExp(`^${last.split("*").map(escaped).join(".*")}$`, "u")
  const names = readdirSync(folder).filter((name) => pattern.test(name))
  return names.toSorted().map((name) => path.join(folder, name))
}

const escaped = (text: string): string => text.replaceAll(/[.+?^${}()|[\]\\]/gu, String.raw`\$&`)

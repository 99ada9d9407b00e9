// The version of the package this runs from.
import { existsSync, readFileSync } from "node:fs"

/** Sources are in sim/cli, the published package runs from dist/sim/cli: the package is above either. */
export const version = (): string => {
  for (const up of ["../../package.json", "../../../package.json"]) {
    const path = new URL(up, import.meta.url)
    if (!existsSync(path)) continue
    const content: unknown = JSON.parse(readFileSync(path, "utf8"))
    if (typeof content === "object" && content !== null && "version" in content)
      return String(content.version)
  }
  return "unknown"
}

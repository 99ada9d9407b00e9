// Loaded before all else into a process that a test starts, with the bundle's name behind "?": what sources import of other
// packages comes from the bundle of them (bundle.ts), and what they import of each other, which they name with its ending, is not
// looked for first. Half of a command's start is gone so. Knows the sources of this folder alone, not an installed package's.
import { readFileSync } from "node:fs"
import * as module from "node:module"

export const listed = "modules.json"
/** The file of each module that can be imported by name. */
export type Files = Readonly<Record<string, string>>

const begin = (name: string): void => {
  const ours = new URL("../..", import.meta.url).href
  const packages = `${ours}node_modules/`
  const bundle = `${packages}.cache/${name}/`
  const files = JSON.parse(readFileSync(new URL(bundle + listed), "utf8")) as Files
  const bundled = new Map(Object.entries(files).map(([of, file]) => [of, bundle + file]))
  module.registerHooks({
    resolve: (specifier, context, next) => {
      const { parentURL: from = "" } = context
      if (from.startsWith(bundle) && specifier.startsWith("."))
        return { url: new URL(specifier, from).href, format: "module", shortCircuit: true }
      if (!from.startsWith(ours) || from.startsWith(packages)) return next(specifier, context)
      if (specifier.startsWith(".") && specifier.endsWith(".ts"))
        return { url: new URL(specifier, from).href, format: "module-typescript", shortCircuit: true }
      const url = bundled.get(specifier)
      return url === undefined ? next(specifier, context) : { url, format: "module", shortCircuit: true }
    }
  })
}

const { search } = new URL(import.meta.url)
if (search !== "") begin(search.slice("?".length))

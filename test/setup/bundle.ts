// What processes that tests start load of other packages: a few files, made once of hundreds (from-bundle.ts has them loaded).
// Node takes half of a command's start to find and open those. The tests themselves, and whoever else runs the command lines,
// load the packages as they are.
import { createHash } from "node:crypto"
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { basename, dirname, join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import type { Plugin } from "rolldown"
import type { TestProject } from "vitest/node"
import { type Files, listed } from "./from-bundle.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")

/** Modules of other packages that the sources import. */
const imported = (): ReadonlyArray<string> => {
  const { dependencies } = JSON.parse(read("package.json")) as { readonly dependencies: object }
  const names = globSync("{core,exec,scenarios,sim,testing,traces}/**/*.ts", { cwd: root }).flatMap((path) =>
    [...read(path).matchAll(/ from "(\w[^":]*)"$/gmu)].map(([, name]) => name!)
  )
  return [...new Set(names)].filter((name) => Object.hasOwn(dependencies, name.split("/")[0]!)).toSorted()
}

/** A module that exports all that the one of this name does. */
const entry = async (name: string): Promise<string> => {
  const names = Object.keys((await import(name)) as object)
  const from = JSON.stringify(name)
  const own = names.includes("default") ? `export { default } from ${from}\n` : ""
  if (!names.includes("module.exports")) return `${own}export * from ${from}\n`
  // What a CommonJS module exports is known only once it has run.
  const others = names.filter((one) => one !== "default" && one !== "module.exports").join(", ")
  return `${own}import all from ${from}\nexport const { ${others} } = all\n`
}

const entries: Plugin = {
  name: "entries",
  resolveId(name, importer) {
    if (name.startsWith("entry:")) return name
    return importer?.startsWith("entry:") === true ? this.resolve(name, import.meta.filename) : undefined
  },
  load: (id) => (id.startsWith("entry:") ? entry(id.slice("entry:".length)) : undefined)
}

const make = async (folder: string, modules: ReadonlyArray<string>): Promise<void> => {
  mkdirSync(dirname(folder), { recursive: true })
  const made = mkdtempSync(`${folder}-`)
  const files: Files = Object.fromEntries(modules.map((name) => [name, `${name.replaceAll("/", ".")}.mjs`]))
  const input = Object.fromEntries(modules.map((name) => [files[name]!, `entry:${name}`]))
  const { rolldown } = await import("rolldown")
  // Nothing is left out for seeming unused: what runs is what the packages have.
  const bundle = await rolldown({ cwd: root, platform: "node", input, treeshake: false, plugins: [entries] })
  await bundle.write({ dir: made, entryFileNames: "[name]", chunkFileNames: "[name].of-several.mjs" })
  await bundle.close()
  writeFileSync(join(made, listed), JSON.stringify(files))
  try {
    renameSync(made, folder)
  } catch (error) {
    rmSync(made, { recursive: true })
    // Another run of the tests has just made the same.
    if (!existsSync(folder)) throw error
  }
}

/** Makes the bundle where there is none yet of what is installed, and provides the options that have a process load from it. */
export default async ({ provide }: TestProject): Promise<void> => {
  const modules = imported()
  const print = createHash("sha256")
    .update(modules.join())
    .update(readFileSync(import.meta.filename))
  const key = print.update(read("node_modules/.package-lock.json")).digest("hex").slice(0, 16)
  const folder = join(root, "node_modules/.cache", `bundle-${key}`)
  if (!existsSync(folder)) await make(folder, modules)
  const loader = pathToFileURL(join(root, "test/setup/from-bundle.ts"))
  loader.search = basename(folder)
  provide("nodeOptions", `${process.env["NODE_OPTIONS"] ?? ""} --import=${loader.href}`.trim())
}

declare module "vitest" {
  interface ProvidedContext {
    nodeOptions: string
  }
}

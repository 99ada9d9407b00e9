// Emits dist/, the JavaScript and types that a published package runs from: Node does not strip types inside
// node_modules. Data beside the sources (profiles, scenarios, templates) lands at the same relative place.
// A working copy never runs from dist/, so a stale one cannot mislead.

import { execFileSync } from "node:child_process"
import { copyFileSync, existsSync, globSync, mkdirSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"

const root = import.meta.dirname
const out = join(root, "dist")

/** Everything in these folders that is neither source nor prose is data. */
const folders = ["core", "sim", "exec", "traces", "testing", "scenarios"]

rmSync(out, { recursive: true, force: true })
const compiler = join(
  dirname(createRequire(import.meta.url).resolve("typescript/package.json")),
  "bin",
  "tsc"
)
try {
  execFileSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], { cwd: root, stdio: "inherit" })
} catch {
  console.error("build: the type check failed; no package was built")
  rmSync(out, { recursive: true, force: true })
  process.exit(1)
}

let copied = 0
for (const folder of folders.filter((name) => existsSync(join(root, name)))) {
  for (const entry of globSync(`${folder}/**/*`, { cwd: root, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    if (!entry.isFile() || /\.(ts|md)$/.test(entry.name)) continue
    const target = join(out, path.slice(root.length))
    mkdirSync(dirname(target), { recursive: true })
    copyFileSync(path, target)
    copied++
  }
}

const emitted = globSync("**/*.js", { cwd: out }).length
console.log(`dist/: ${emitted} modules with their types, ${copied} data files`)

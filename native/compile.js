// Builds the addon with a C++ compiler alone, where there is no CMake: the sources and flags are those of CMakeLists.txt.
// Plain JavaScript, as install.js.

import { spawn } from "node:child_process"
import { mkdirSync, readdirSync, statSync } from "node:fs"
import { availableParallelism } from "node:os"
import { dirname, join } from "node:path"

/** The sources, longest first, so that no core is left with the longest at the end. */
export const sourcesOf = (native) =>
  [".", "cpu", "transport"]
    .flatMap((folder) => readdirSync(join(native, folder)).map((name) => join(folder, name)))
    .filter((name) => name.endsWith(".cc"))
    .toSorted((a, b) => statSync(join(native, b)).size - statSync(join(native, a)).size)

/** Runs a command; resolves to what it printed where it failed, to undefined where it did not. */
const run = (command, args, cwd) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "ignore", "pipe"] })
    let text = ""
    child.stderr.on("data", (chunk) => (text += chunk))
    child.on("error", (error) => resolve(error.message))
    child.on("close", (code) => resolve(code === 0 ? undefined : `${command} ${args.join(" ")}\n${text}`))
  })

/** Compiles every source, one job per core, then links. Returns what went wrong. */
export const compileAddon = async ({ native, build, addon, compiler, includes }) => {
  const objects = join(build, "objects")
  mkdirSync(objects, { recursive: true })
  mkdirSync(dirname(addon), { recursive: true })
  const optimization = ["-O3", "-fno-trapping-math", "-fno-math-errno"]
  const flags = ["-std=gnu++17", ...optimization, "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-pthread"]
  const defines = [
    "-DNAPI_VERSION=9",
    "-DNODE_ADDON_API_DISABLE_DEPRECATED",
    "-DNAPI_CPP_EXCEPTIONS",
    "-DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
  ]
  const exact = "-ffp-contract=off"
  const precompiled = join(objects, "precompiled.h")

  // What nearly every source includes is compiled once; those that have other flags go without, and begin at once.
  const alone = (source) => source.endsWith("addon.cc") || source.endsWith(".fma.cc")
  const sources = sourcesOf(native)
  const queue = [...sources.filter(alone), ...sources.filter((source) => !alone(source))]
  const header = run(
    compiler.command,
    [...flags, exact, "-x", "c++-header", join("cpu", "precompiled.h"), "-o", `${precompiled}.gch`],
    native
  )
  const objectOf = (source) => join(objects, `${source.replaceAll(/[/\\]/g, "_")}.o`)
  const failures = []
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined; source = queue.shift()) {
      if (!alone(source)) failures.push(await header)
      if (failures.some((failure) => failure !== undefined)) return
      const own = alone(source) ? [...defines, ...includes] : ["-include", precompiled]
      const contract = source.endsWith(".fma.cc") ? "-ffp-contract=fast" : exact
      const args = [...flags, contract, ...own, "-c", source, "-o", objectOf(source)]
      failures.push(await run(compiler.command, args, native))
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  const failure = failures.find((one) => one !== undefined)
  if (failure !== undefined) return failure
  const platform = process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : ["-ldl"]
  return run(
    compiler.command,
    ["-shared", "-pthread", "-o", addon, ...sources.map(objectOf), ...platform],
    native
  )
}

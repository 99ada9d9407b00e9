#!/usr/bin/env node
// Builds the native addon: during npm install, and whenever it is run. With CMake through cmake-js where both are there,
// else with the C++ compiler alone. Never fails an install: without a compiler it says so, and the simulator works all the
// same. Plain JavaScript that any Node 20 understands.
//   node native/install.js            builds unless what is there was built from the same sources by the same tools
//   node native/install.js --require  the same, but a failure to build is a failure (exit code 1)

import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const native = dirname(fileURLToPath(import.meta.url))
const build = join(native, "build")
const addon = join(build, "Release", "tandem.node")
const stamp = join(build, "stamp.txt")
const origin = join(build, "origin.txt")
const required = process.argv.includes("--require")

const say = (message) => process.stderr.write(`tandem native addon: ${message}\n`)

/** Output of a command that succeeds; undefined when it does not, or is not there. */
const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, { cwd: native, encoding: "utf8", ...options })
  return result.status === 0 ? (result.stdout ?? "") : undefined
}

const folderOf = (name) => {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
  } catch {
    return undefined
  }
}

/** The first C++17 compiler that works; CXX comes first. */
const findCompiler = () => {
  for (const command of [process.env.CXX, "g++", "clang++", "c++"]) {
    if (command === undefined || command === "") continue
    const version = run(command, ["--version"])
    if (version !== undefined) return { command, version: version.split("\n")[0] }
  }
  return undefined
}

/** Everything that decides what is built. */
const fingerprint = (compiler, how) => {
  const hash = createHash("sha256")
  hash.update(`${compiler.version}\n${how}\n${process.platform} ${process.arch}\n`)
  const files = [".", "cpu"].flatMap((folder) =>
    readdirSync(join(native, folder))
      .filter((name) => /\.(cc|h|txt|js)$/.test(name))
      .toSorted()
      .map((name) => join(native, folder, name))
  )
  for (const file of files) hash.update(basename(file)).update(readFileSync(file))
  return hash.digest("hex")
}

/** The sources of the addon, as CMakeLists.txt has them. */
const sources = () =>
  [".", "cpu"].flatMap((folder) =>
    readdirSync(join(native, folder))
      .filter((name) => name.endsWith(".cc"))
      .map((name) => join(folder, name))
  )

/** The build without CMake: every source, then the library. Returns what went wrong. */
const buildDirectly = async (compiler, includes) => {
  const { spawn } = await import("node:child_process")
  const objects = join(build, "objects")
  mkdirSync(objects, { recursive: true })
  mkdirSync(dirname(addon), { recursive: true })
  const common = ["-std=gnu++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-pthread"]
  const defines = ["-DNAPI_VERSION=9", "-DNODE_ADDON_API_DISABLE_DEPRECATED", "-DNAPI_CPP_EXCEPTIONS"]
  const queue = sources()
  const made = []
  let failure
  const worker = async () => {
    for (let source = queue.shift(); source !== undefined && failure === undefined; source = queue.shift()) {
      const object = join(objects, `${source.replaceAll(/[/\\]/g, "_")}.o`)
      made.push(object)
      const contract = source.endsWith(".fma.cc") ? "fast" : "off"
      const args = [
        ...common,
        ...defines,
        `-ffp-contract=${contract}`,
        ...includes,
        "-c",
        source,
        "-o",
        object
      ]
      const output = await new Promise((resolve) => {
        const child = spawn(compiler.command, args, { cwd: native, stdio: ["ignore", "ignore", "pipe"] })
        let text = ""
        child.stderr.on("data", (chunk) => (text += chunk))
        child.on("error", (error) => resolve(error.message))
        child.on("close", (code) => resolve(code === 0 ? undefined : text))
      })
      if (output !== undefined) failure ??= `${source}:\n${output}`
    }
  }
  await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker))
  if (failure !== undefined) return failure
  const undefinedSymbols = process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : []
  const linked = spawnSync(
    compiler.command,
    [
      "-shared",
      "-pthread",
      ...undefinedSymbols,
      "-o",
      addon,
      ...made,
      ...(process.platform === "linux" ? ["-ldl"] : [])
    ],
    { cwd: native, encoding: "utf8" }
  )
  return linked.status === 0 ? undefined : linked.stderr
}

/** The build with CMake. Returns what went wrong. */
const buildWithCmake = (cmakeJs, compiler) => {
  const jobs = String(Math.min(4, availableParallelism()))
  const result = spawnSync(
    process.execPath,
    [
      join(cmakeJs, "bin", "cmake-js"),
      "compile",
      "-d",
      native,
      "-O",
      build,
      "-p",
      jobs,
      "--log-level",
      "error"
    ],
    { cwd: native, encoding: "utf8", env: { ...process.env, CXX: compiler.command } }
  )
  if (result.status === 0 && existsSync(addon)) return undefined
  return `${result.stdout ?? ""}${result.stderr ?? ""}`
}

const main = async () => {
  if (process.platform === "win32") return "is not built on Windows; the simulator works without it"
  const compiler = findCompiler()
  if (compiler === undefined) {
    return (
      "skipped, for there is no C++ compiler; the simulator works without it. For the executor, install one " +
      '("apt-get install g++" on Debian) and run "npm run build:native"'
    )
  }
  const headers = [folderOf("node-addon-api"), folderOf("node-api-headers")]
  if (headers.includes(undefined))
    return 'skipped, for node-addon-api or node-api-headers is missing; run "npm ci"'
  const cmakeJs = run("cmake", ["--version"]) === undefined ? undefined : folderOf("cmake-js")
  const how = cmakeJs === undefined ? "compiler" : "cmake"
  const print = fingerprint(compiler, how)
  if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === print) return undefined

  // What CMake has built it builds on, unless its folder was made elsewhere or is of the other way.
  const made = `${how} in ${native}`
  if (!existsSync(origin) || readFileSync(origin, "utf8") !== made)
    rmSync(build, { recursive: true, force: true })
  mkdirSync(build, { recursive: true })
  rmSync(stamp, { force: true })
  writeFileSync(origin, made)
  const started = Date.now()
  say(`building with ${how === "cmake" ? "CMake and " : ""}${compiler.version}`)
  let failure = cmakeJs === undefined ? undefined : buildWithCmake(cmakeJs, compiler)
  if (cmakeJs !== undefined && failure !== undefined)
    say(`CMake could not build it; trying without.\n${failure}`)
  if (cmakeJs === undefined || failure !== undefined) {
    failure = await buildDirectly(compiler, [`-I${headers[0]}`, `-I${join(headers[1], "include")}`])
  }
  if (failure !== undefined) return `could not be built; the simulator works without it.\n${failure}`
  writeFileSync(stamp, print)
  say(`built in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  return undefined
}

const failure = await main().catch((error) => `could not be built: ${error.message}`)
if (failure !== undefined) {
  say(failure)
  if (required) process.exitCode = 1
}

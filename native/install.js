#!/usr/bin/env node
// Builds the native addon: during npm install, and whenever it is run. With CMake through cmake-js where both are there,
// else with the C++ compiler alone. Never fails an install: without a compiler it says so, and the simulator works all the
// same. Plain JavaScript that any Node 20 understands.
//   node native/install.js            builds unless what is there was built from the same sources by the same tools
//   node native/install.js --require  the same, but a failure to build is a failure (exit code 1)
//   TANDEM_NATIVE=skip                builds nothing;  TANDEM_NATIVE=compiler  goes without CMake

import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { dirname, join, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { compileAddon } from "./compile.js"
import { buildCuda, capabilitiesHere, findNvcc } from "./cuda/build.js"

const native = dirname(fileURLToPath(import.meta.url))
const build = join(native, "build")
const addon = join(build, "Release", "tandem.node")
const stamp = join(build, "stamp.txt")
const origin = join(build, "origin.txt")
const sources = createRequire(import.meta.url)("./sources.cjs")
const required = process.argv.includes("--require")
const wish = process.env.TANDEM_NATIVE ?? ""
/** What builds it later; of an installed package from there, for a project's own scripts are others. */
const installed = native.split(sep).includes("node_modules")
const again = `npm run build:native${installed ? ` --prefix ${dirname(native)}` : ""}`

const say = (message) => process.stderr.write(`tandem native addon: ${message}\n`)

/** What a command that succeeds prints; undefined when it does not, or is not there. */
const run = (command, args) => {
  const result = spawnSync(command, args, { cwd: native, encoding: "utf8" })
  return result.status === 0 ? (result.stdout ?? "") : undefined
}

const folderOf = (name) => {
  try {
    return dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
  } catch {
    return undefined
  }
}

/** The first compiler there is; CXX comes first. */
const findCompiler = () => {
  for (const command of [process.env.CXX, "g++", "clang++", "c++"]) {
    if (command === undefined || command === "") continue
    const version = run(command, ["--version"])
    if (version !== undefined) return { command, version: version.split("\n")[0] }
  }
  return undefined
}

/** Everything that decides what is built. */
const fingerprint = (compiler, how) =>
  createHash("sha256")
    .update(
      `${compiler.version}\n${how}\n${process.platform} ${process.arch}\n${sources.addonDigest(native)}`
    )
    .digest("hex")

/** Returns what went wrong. */
const buildWithCmake = (cmakeJs, compiler) => {
  const cli = join(cmakeJs, "bin", "cmake-js")
  const jobs = ["-p", String(availableParallelism())]
  const result = spawnSync(
    process.execPath,
    [cli, "compile", "-d", native, "-O", build, ...jobs, "--log-level", "error"],
    { cwd: native, encoding: "utf8", env: { ...process.env, CXX: compiler.command } }
  )
  if (result.status === 0 && existsSync(addon)) return undefined
  return `${result.stdout ?? ""}${result.stderr ?? ""}`
}

/** Returns why there is no addon of these sources, if there is none. */
const main = async () => {
  if (!["", "skip", "compiler"].includes(wish)) {
    return `TANDEM_NATIVE is "${wish}"; expected "skip", "compiler" or nothing`
  }
  if (wish === "skip") return "skipped, as TANDEM_NATIVE says; the simulator works without it"
  if (process.platform === "win32") return "is not built on Windows; the simulator works without it"
  const compiler = findCompiler()
  if (compiler === undefined) {
    return (
      "skipped, for there is no C++ compiler; the simulator works without it. For the executor, install one " +
      `("apt-get install g++" on Debian) and run "${again}"`
    )
  }
  const headers = [folderOf("node-addon-api"), folderOf("node-api-headers")]
  if (headers.includes(undefined))
    return 'skipped, for node-addon-api or node-api-headers is missing; run "npm ci"'
  const cmake = wish !== "compiler" && run("cmake", ["--version"]) !== undefined
  const cmakeJs = cmake ? folderOf("cmake-js") : undefined
  const how = cmakeJs === undefined ? "compiler" : "cmake"
  const print = fingerprint(compiler, how)
  if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === print) return undefined

  // What CMake has built it builds on, unless its folder was made elsewhere or in the other way.
  const made = `${how} in ${native}`
  if (!existsSync(origin) || readFileSync(origin, "utf8") !== made) {
    rmSync(build, { recursive: true, force: true })
  }
  mkdirSync(build, { recursive: true })
  rmSync(stamp, { force: true })
  writeFileSync(origin, made)
  // What addon.cc tells of itself when it is loaded.
  writeFileSync(join(build, "sources.h"), `#define TANDEM_SOURCES "${sources.addonDigest(native)}"\n`)
  const started = Date.now()
  say(`building with ${how === "cmake" ? "CMake and " : ""}${compiler.version}`)
  let failure = "not built yet"
  if (cmakeJs !== undefined) {
    failure = buildWithCmake(cmakeJs, compiler)
    if (failure !== undefined) say(`CMake could not build it; trying without.\n${failure}`)
  }
  if (failure !== undefined) {
    const includes = [`-I${headers[0]}`, `-I${join(headers[1], "include")}`]
    failure = await compileAddon({ native, build, addon, compiler, includes })
  }
  if (failure !== undefined) return `could not be built; the simulator works without it.\n${failure}`
  writeFileSync(stamp, print)
  say(`built in ${((Date.now() - started) / 1000).toFixed(0)} s`)
  return undefined
}

/** The library for GPUs, where there are a GPU and a compiler for it. Returns why it could not be built. */
const forGpus = async () => {
  if (wish === "skip" || capabilitiesHere().length === 0) return undefined
  const nvcc = findNvcc()
  if (nvcc === undefined)
    return "skipped for GPUs, for there is no CUDA compiler: put nvcc into PATH, or its path into NVCC"
  const failure = await buildCuda(nvcc)
  return failure === undefined ? undefined : `could not be built for GPUs.\n${failure}`
}

const failure = (await main().catch((error) => `could not be built: ${error.message}`)) ?? (await forGpus())
if (failure !== undefined) {
  say(failure)
  if (required) process.exitCode = 1
}

#!/usr/bin/env node
// Builds the library of the cuda backend, which the addon opens where it lies beside it. Needs CUDA's compiler (nvcc 12 or
// later) and no GPU; the libraries that the backend uses besides are opened at run time. Plain JavaScript, as install.js.
//   node native/cuda/build.js            builds what has changed
//   node native/cuda/build.js --check    compiles every source as far as PTX and links nothing; a fresh clone begins with what has
//                                        passed in another working copy, told by what is in the files
//   NVCC               the compiler; default: nvcc in PATH, then /usr/local/cuda/bin/nvcc
//   TANDEM_CUDA_ARCHS  "80,90,100": compute capabilities to compile for, the last of them as PTX for later ones too; default:
//                      that of the GPU that is there, else 80

import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism, tmpdir, userInfo } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const cuda = dirname(fileURLToPath(import.meta.url))
const native = dirname(cuda)
const build = join(native, "build", "cuda")
const { cudaDigest, cudaSources, includedBy } = createRequire(import.meta.url)("../sources.cjs")
const library = join(native, "build", "Release", "libtandem_cuda.so")

/** What a command that succeeds prints; undefined when it does not, or is not there. */
const output = (command, args) => {
  const result = spawnSync(command, args, { encoding: "utf8" })
  return result.status === 0 ? (result.stdout ?? "") : undefined
}

/** The compiler and its version; undefined where there is none. */
export const findNvcc = () => {
  for (const command of [process.env.NVCC, "nvcc", "/usr/local/cuda/bin/nvcc"]) {
    if (command === undefined || command === "") continue
    const version = output(command, ["--version"])
    if (version !== undefined) return { command, version: version.trim().split("\n").at(-1) }
  }
  return undefined
}

/** Compute capabilities of the GPUs of this machine, "90"; none without a GPU. */
export const capabilitiesHere = () => {
  const found = output("nvidia-smi", ["--query-gpu=compute_cap", "--format=csv,noheader"])
  return [...new Set((found ?? "").split("\n").map((line) => line.trim().replace(".", "")))].filter((text) =>
    /^\d+$/.test(text)
  )
}

const architectures = () => {
  const wished = (process.env.TANDEM_CUDA_ARCHS ?? "").split(",").filter((text) => text !== "")
  const found = wished.length > 0 ? wished : capabilitiesHere()
  return found.length > 0 ? found : ["80"]
}

// Hopper's own products (wgmma.cuh) are in sm_90a alone, which is what a device of compute capability 9.0 takes.
const generate = (archs) => [
  ...(archs.includes("90") ? ["-DTANDEM_SM90A"] : []),
  ...archs
    .map((arch) => (arch === "90" ? "90a" : arch))
    .flatMap((arch) => ["-gencode", `arch=compute_${arch},code=sm_${arch}`]),
  "-gencode",
  `arch=compute_${archs.at(-1)},code=compute_${archs.at(-1)}`
]

// Results must not depend on what the compiler fuses: products that may be are written as such.
const flags = ["-std=c++17", "-O3", "--fmad=false", "-lineinfo"]
const hostFlags = ["-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wno-psabi"]

/** Runs a command; resolves to what it printed where it failed, to undefined where it did not. */
const run = (command, args) =>
  new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
    let text = ""
    child.stdout.on("data", (chunk) => (text += chunk))
    child.stderr.on("data", (chunk) => (text += chunk))
    child.on("error", (error) => resolve(error.message))
    child.on("close", (code) => resolve(code === 0 ? undefined : `${command} ${args.join(" ")}\n${text}`))
  })

/** Compiles what has changed since it was last compiled in the same way, one job per core. Returns what went wrong. */
const compileAll = async (folder, nvcc, args, extension) => {
  mkdirSync(folder, { recursive: true })
  const results = []
  const queue = cudaSources(native).map((name) => {
    const source = join(native, name)
    // what the library tells of itself when it is opened
    const own = name === "cuda/entry.cu" ? [`-DTANDEM_CUDA_SOURCES="${cudaDigest(native)}"`] : []
    const all = [...args, ...own]
    const result = join(folder, `${name.split("/").at(-1)}.${extension}`)
    const print = createHash("sha256").update(`${nvcc.version}\n${all.join(" ")}\n`)
    for (const file of includedBy(native, name)) print.update(readFileSync(join(native, file)))
    results.push(result)
    return { source, args: all, result, print: print.digest("hex"), stamp: `${result}.stamp` }
  })
  const changed = queue.filter(
    ({ result, print, stamp }) =>
      !existsSync(result) || !existsSync(stamp) || readFileSync(stamp, "utf8") !== print
  )
  const failures = []
  const count = changed.length
  const worker = async () => {
    for (let next = changed.shift(); next !== undefined && failures.length === 0; next = changed.shift()) {
      const failure = await run(nvcc.command, [...next.args, next.source, "-o", next.result])
      if (failure !== undefined) failures.push(failure)
      else writeFileSync(next.stamp, next.print)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return { results, changed: count, failure: failures[0] }
}

/** Compiles every source as far as PTX, if it has not in any working copy of this user's. Returns what went wrong. */
export const checkCuda = async (nvcc) => {
  // without optimization: three times as fast, and errors are the same
  const args = [...flags, "-Xcicc", "-O0", "-arch=compute_80", "-x", "cu", "-ptx"]
  const folder = join(tmpdir(), `tandem-cuda-check-${userInfo().uid}`)
  return (await compileAll(folder, nvcc, args, "ptx")).failure
}

/** Builds the library. Returns what went wrong. */
export const buildCuda = async (nvcc) => {
  const code = generate(architectures())
  const args = [...flags, ...hostFlags, ...code, "-x", "cu", "-c"]
  const { results, changed, failure } = await compileAll(join(build, "objects"), nvcc, args, "o")
  if (failure !== undefined) return failure
  if (changed === 0 && existsSync(library)) return undefined
  mkdirSync(dirname(library), { recursive: true })
  return run(nvcc.command, [
    ...code,
    "-shared",
    "-cudart",
    "static",
    "-o",
    library,
    ...results,
    "-ldl",
    "-lpthread"
  ])
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const nvcc = findNvcc()
  const failure =
    nvcc === undefined
      ? "no CUDA compiler: put nvcc into PATH, or its path into NVCC"
      : await (process.argv.includes("--check") ? checkCuda(nvcc) : buildCuda(nvcc))
  if (failure !== undefined) {
    process.stderr.write(`tandem cuda backend: ${failure}\n`)
    process.exitCode = 1
  }
}

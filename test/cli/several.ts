// Command lines of `sim` and `exec`, one after another in one process. The pipe (first argument) has one in each line of JSON; the exit
// code of each becomes a line of the file (second argument) once both streams have all that it wrote.
import * as fs from "node:fs"
import * as net from "node:net"
import * as path from "node:path"
import * as readline from "node:readline"

export interface Request {
  readonly command: "sim" | "exec"
  readonly line: ReadonlyArray<string>
}

const [pipe, answers] = process.argv.slice(2) as [string, string]
const launcherOf = (command: string): string => path.join(import.meta.dirname, `../../bin/${command}.js`)
// Of the kind that the event loop waits for: a read of the pipe would keep one of the few threads that read files.
const { O_RDONLY, O_NONBLOCK } = fs.constants
const requests = new net.Socket({ fd: fs.openSync(pipe, O_RDONLY | O_NONBLOCK) })

for await (const request of readline.createInterface({ input: requests })) {
  const { command, line } = JSON.parse(request) as Request
  const { main } =
    command === "exec" ? await import("../../exec/cli/main.ts") : await import("../../sim/cli/main.ts")
  // Processes that the command starts begin as this one would have.
  process.argv = [process.execPath, launcherOf(command), ...line]
  fs.appendFileSync(answers, `${await main(process.argv)}\n`)
}

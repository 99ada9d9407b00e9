// Command lines of `sim` or `exec` (the argument), one after another in one process: as JSON on standard input. After each, both
// streams get a zero, standard error the exit code before it.
import * as fs from "node:fs"

const command = process.argv[2]!
const { main } =
  command === "exec" ? await import("../../exec/cli/main.ts") : await import("../../sim/cli/main.ts")

for (const line of JSON.parse(fs.readFileSync(0, "utf8")) as ReadonlyArray<ReadonlyArray<string>>) {
  const status = await main(["node", command, ...line])
  fs.writeSync(1, "\0")
  fs.writeSync(2, `${status}\0`)
}

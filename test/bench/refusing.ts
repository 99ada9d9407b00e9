// Benches begun in one process, each with the options that it is to refuse: as JSON on standard input. On standard output, for each,
// the code that it ended with and what it said. A bench that does anything before it refuses may not end at all.
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"

const root = process.cwd()
const end = process.exit.bind(process)

class Ended extends Error {
  readonly code: number
  constructor(code: number) {
    super("ended")
    this.code = code
  }
}

const cases = JSON.parse(fs.readFileSync(0, "utf8")) as ReadonlyArray<{
  readonly file: string
  readonly args: ReadonlyArray<string>
}>
const told: Array<{ readonly code: number | string; readonly said: string }> = []
for (const [i, { file, args }] of cases.entries()) {
  let said = ""
  const write = (text: string | Uint8Array): boolean => {
    said += String(text)
    return true
  }
  process.argv = [process.argv[0]!, path.join(root, file), ...args]
  process.exit = (code) => {
    throw new Ended(Number(code))
  }
  const [out, err] = [process.stdout.write, process.stderr.write]
  process.stdout.write = process.stderr.write = write
  let code: number | string = "not refused"
  try {
    await import(`${pathToFileURL(path.join(root, file)).href}?${i}`)
  } catch (cause) {
    code = cause instanceof Ended ? cause.code : String(cause)
  } finally {
    process.stdout.write = out
    process.stderr.write = err
    process.chdir(root)
  }
  told.push({ code, said })
}
fs.writeSync(1, JSON.stringify(told))
end(0)

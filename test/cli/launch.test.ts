// Several command lines in one process: where that does not come to its end, no test takes what is there for all there is.
import { afterEach, expect, it } from "vitest"
import { simEach } from "./launch.ts"

const options = process.env["NODE_OPTIONS"]
afterEach(() => {
  process.env["NODE_OPTIONS"] = options
})

it("of several command lines each has its own output and exit code", () => {
  const [right, wrong, last] = simEach([["--version"], ["run", "nowhere.yaml"], ["--version"]])
  expect(right).toMatchObject({ status: 0, stderr: "" })
  expect(wrong).toMatchObject({ status: 2, stdout: "" })
  expect(last).toEqual(right)
})

it("a process of several command lines that ends early is told of, with how, where, and what it wrote", () => {
  process.env["NODE_OPTIONS"] = `${options ?? ""} --no-such-option`
  expect(() => simEach([["--version"], ["--help"]])).toThrow(
    /the process of 2 command lines of sim ended with 9 in "--version"; it wrote .*--no-such-option/u
  )
  // It ends by itself while the second is under way.
  const ends = `import fs from "node:fs"; const write = fs.writeSync; let zeros = 0
    fs.writeSync = (to, text) => { write(to, text); if (to === 2 && ++zeros === 1) process.kill(process.pid, "SIGKILL") }
    import("node:module").then(({ syncBuiltinESMExports }) => syncBuiltinESMExports())`
  process.env["NODE_OPTIONS"] = `${options ?? ""} --import=data:text/javascript,${encodeURIComponent(ends)}`
  expect(() => simEach([["--version"], ["--help"]])).toThrow(
    /of 2 command lines of sim ended by SIGKILL in "--help"/u
  )
})

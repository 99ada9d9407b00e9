// Commands in processes of their own; and in one after another, as other tests run them: where that process ends, no test takes what
// is there for all there is.
import * as path from "node:path"
import type { Command } from "commander"
import { afterEach, describe, expect, it } from "vitest"
import { execProgram } from "../../exec/cli/main.ts"
import { Ending } from "../../scenarios/cli/command-line.ts"
import { simProgram } from "../../sim/cli/main.ts"
import { describeNative } from "../native/addon.ts"
import { alone, folder, sim, simEach, smallStudy } from "./launch.ts"

const options = process.env["NODE_OPTIONS"]
afterEach(() => {
  process.env["NODE_OPTIONS"] = options
})

describe("in a process of its own", () => {
  const here = folder()
  const study = smallStudy(here, "world.ranks: [2, 4]")
  const messages = "test/fixtures/import/nccl-j-all-ops.txt"
  const simLines = [
    ["run", study],
    ["study", study, "--shard", "0/1", "--out", here],
    ["merge", path.join(here, "shard-0-of-1.arrow"), "-o", path.join(here, "merged")],
    ["explain", study],
    ["schedule", study],
    ["collective", "--ranks", "4", "--inter", "1gbit"],
    ["validate", "dreamddp-resnet18"],
    ["compare", study, "--set", "algorithm=s-sgd"],
    ["import", "nccl-tests", messages, "-o", path.join(here, "messages.arrow")],
    ["doctor", study]
  ] as const
  const execLines = [
    ["info"],
    ["train", "scenarios/train-tiny.yaml", "--steps", "1"],
    ["profile", "scenarios/agree/data-parallel.yaml", "--steps", "1", "-o", path.join(here, "profile.arrow")],
    ["generate", "scenarios/agree/expert-offload.yaml"],
    ["bench"],
    ["agree", "scenarios/agree/kv-serving.yaml"]
  ] as const

  const tried = (command: "sim" | "exec", line: ReadonlyArray<string>): void => {
    const { status, stdout, stderr } = alone(command, ...line)
    expect(status, stderr).toBe(0)
    expect(stdout + stderr).not.toBe("")
  }

  it("every command is tried", () => {
    const names = (of: Command) => of.commands.map((command) => command.name())
    expect(simLines.map(([name]) => name)).toEqual(names(simProgram(new Ending("sim"))))
    expect(execLines.map(([name]) => name)).toEqual(names(execProgram(new Ending("exec"))))
  })

  for (const line of simLines) it(`sim ${line[0]} begins, and ends by itself`, () => tried("sim", line))

  describeNative("with the addon", () => {
    for (const line of execLines) it(`exec ${line[0]} begins, and ends by itself`, () => tried("exec", line))
  })
})

describe("in one after another", () => {
  it("each has its own output and exit code", () => {
    const [right, wrong, last] = simEach([["--version"], ["run", "nowhere.yaml"], ["--version"]])
    expect(right).toMatchObject({ status: 0, stderr: "" })
    expect(wrong).toMatchObject({ status: 2, stdout: "" })
    expect(last).toEqual(right)
  })

  it("each has the environment of when it is run", () => {
    const version = sim("--version").stdout
    process.env["NODE_OPTIONS"] = `${options} --import=data:text/javascript,console.log(1)`
    expect(sim("--version")).toEqual({ status: 0, stdout: `1\n${version}`, stderr: "" })
  })

  it("an early end is told of, with how, where, and what was written; the next have another process", () => {
    process.env["NODE_OPTIONS"] = `${options} --no-such-option`
    expect(() => sim("--version")).toThrow(
      /the process of command lines of sim ended with 9 in "--version"; it wrote .*--no-such-option/u
    )
    // It ends by itself while the second is under way.
    const ends = `import fs from "node:fs"; const write = fs.writeSync; let times = 0
      fs.writeSync = (to, text) => { write(to, text); if (to === 1 && ++times === 2) process.kill(process.pid, "SIGKILL") }
      import("node:module").then(({ syncBuiltinESMExports }) => syncBuiltinESMExports())`
    process.env["NODE_OPTIONS"] = `${options} --import=data:text/javascript,${encodeURIComponent(ends)}`
    expect(sim("--version")).toMatchObject({ status: 0, stderr: "" })
    expect(() => sim("--help")).toThrow(
      /of command lines of sim ended by SIGKILL in "--help"; it wrote Usage: sim/u
    )
    expect(sim("--version")).toMatchObject({ status: 0, stderr: "" })
  })
})

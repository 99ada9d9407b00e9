// Every option of both commands that names what is written: looked at before the command begins, and known to be one.
import * as fs from "node:fs"
import * as path from "node:path"
import type { Command } from "commander"
import { describe, expect, it, vi } from "vitest"
import { execProgram } from "../../exec/cli/main.ts"
import { Ending, OutputOption } from "../../scenarios/cli/command-line.ts"
import { simProgram } from "../../sim/cli/main.ts"
import { execEach, filesIn, folder, simEach } from "./launch.ts"

const here = folder()

/** Commands that do something, by the words that call them. */
const leaves = (command: Command, words: ReadonlyArray<string> = []): ReadonlyArray<[string, Command]> =>
  command.commands.length === 0
    ? [[words.join(" "), command]]
    : command.commands.flatMap((one) => leaves(one, [...words, one.name()]))

const commands = [
  ...leaves(simProgram(new Ending("sim"))).map(([words, command]) => ({
    of: "sim" as const,
    words,
    command
  })),
  ...leaves(execProgram(new Ending("exec"))).map(([words, command]) => ({
    of: "exec" as const,
    words,
    command
  }))
]
const options = commands.flatMap((one) =>
  one.command.options.map((option) => ({
    ...one,
    option,
    name: `${one.of} ${one.words} ${option.long}`,
    takes: /[<[]([^>\]]+)[>\]]/u.exec(option.flags)?.[1]
  }))
)
const outputs = options.flatMap(({ option, ...one }) =>
  option instanceof OutputOption ? [{ ...one, option }] : []
)

/** What a value stands for where it is the place of nothing. */
const noPlaces = new Set(
  "n i/n seconds time unit bytes size sizes bandwidth link name names text path=value".split(" ")
)

/** What is read. A new one has its place here; what is written is an `outputFile` or an `outputFolder`. */
const read = [
  "sim collective --measured",
  "sim import kineto --ddp",
  "exec train --text",
  "exec train --tokens",
  "exec train --held-out-tokens",
  "exec train --weights",
  "exec train --plan-from",
  "exec train --resume",
  "exec generate --weights",
  "exec generate --text",
  "exec agree --from"
]

describe("options that name what is written", () => {
  it("are all that name a place, but those that name what is read", () => {
    const places = options.filter(({ takes }) => takes !== undefined && !noPlaces.has(takes))
    const others = places.filter(({ option }) => !(option instanceof OutputOption))
    expect(others.map(({ name }) => name).toSorted()).toEqual(read.toSorted())
    // By what help says of them as well.
    const saidToWrite = options.filter(({ option }) =>
      /^(?:write|keep .*there)\b|\bto write\b/u.test(option.description)
    )
    expect(saidToWrite.map(({ name }) => name)).toEqual(outputs.map(({ name }) => name))
    expect(outputs.length).toBeGreaterThan(12)
  })

  it("are refused where that cannot be written, before anything is looked at that is read", () => {
    const file = path.join(here, "file")
    fs.writeFileSync(file, "")
    const absent = path.join(here, "absent")
    const lines = outputs.map(({ of, words, command, option, takes }) => {
      // A name that its ending lets pass.
      const ending = /\((\.\w+)/u.exec(option.description)?.[1] ?? ""
      const place = path.join(file, `new${takes === "file" ? ending : ""}`)
      const required = command.options
        .filter((other) => other.mandatory && other !== option)
        .flatMap((other) => [other.long!, absent])
      const argumentsOf = command.registeredArguments.map((one) => one.argChoices?.[0] ?? absent)
      return { of, place, line: [...words.split(" "), ...argumentsOf, ...required, option.long!, place] }
    })
    const ended = {
      sim: simEach(lines.filter(({ of }) => of === "sim").map(({ line }) => line)),
      exec: execEach(lines.filter(({ of }) => of === "exec").map(({ line }) => line))
    }
    for (const of of ["sim", "exec"] as const)
      for (const [i, { place, line }] of lines.filter((one) => one.of === of).entries()) {
        const { status, stdout, stderr } = ended[of][i]!
        expect(stderr, line.join(" ")).toMatch(
          new RegExp(
            `^${of}: ${place}: ${line.at(-2)}: [^\\n]+ is not accepted; expected a (file|folder) [^\\n]+\\n$`,
            "u"
          )
        )
        expect([status, stdout], line.join(" ")).toEqual([2, ""])
      }
    expect(filesIn(here)).toEqual(["file"])
  })

  it("leave no trace of the look", () => {
    const out = path.join(here, "a", "b")
    const lines = [
      ["study", path.join(here, "absent"), "--out", out],
      ["run", path.join(here, "absent"), "--record", path.join(here, "new.arrow")]
    ]
    for (const { status, stderr } of simEach(lines)) {
      expect(stderr).toContain("absent")
      expect(status).toBe(2)
    }
    expect(filesIn(here)).toEqual(["file"])
  })

  it("are not looked at by ranks of a job that write nothing", () => {
    const place = { RANK: "1", WORLD_SIZE: "2", LOCAL_RANK: "1", MASTER_ADDR: "localhost", MASTER_PORT: "1" }
    const line = ["profile", path.join(here, "absent"), "-o", path.join(here, "file", "new.arrow")]
    for (const [name, value] of Object.entries(place)) vi.stubEnv(name, value)
    try {
      const [other] = execEach([line])
      expect(other!.stderr).toMatch(/^exec: \S+absent: (?!--out)/u)
      expect(other!.status).toBe(2)
    } finally {
      vi.unstubAllEnvs()
    }
  })
})

describe("a folder in which something else is called as one of the files to be written", () => {
  it("is refused before anything is looked at that is read", () => {
    const folders = outputs.filter(({ option }) => option.writes === "folder")
    // A checkpoint's are called by its step.
    expect(folders.filter(({ option }) => option.files.length === 0).map(({ name }) => name)).toEqual([
      "exec train --checkpoint"
    ])
    const cases = folders.flatMap(({ of, words, command, option }) =>
      option.files.map((file) => {
        const place = fs.mkdtempSync(path.join(here, "of-"))
        fs.mkdirSync(path.join(place, file))
        const argumentsOf = command.registeredArguments.map(() => path.join(here, "absent"))
        return { of, place, file, line: [...words.split(" "), ...argumentsOf, option.long!, place] }
      })
    )
    for (const of of ["sim", "exec"] as const) {
      const own = cases.filter((one) => one.of === of)
      const lines = own.map(({ line }) => line)
      for (const [i, ended] of (of === "sim" ? simEach(lines) : execEach(lines)).entries()) {
        const { place, file, line } = own[i]!
        const told = `${of}: ${path.join(place, file)}: ${line.at(-2)}: a folder is not accepted; expected a file in`
        expect(ended.stderr.startsWith(told), ended.stderr).toBe(true)
        expect([ended.status, ended.stdout, filesIn(place)]).toEqual([2, "", [file]])
        fs.rmSync(place, { recursive: true })
      }
    }
  })

  it("is refused before a study computes anything", () => {
    const out = path.join(here, "out")
    fs.mkdirSync(path.join(out, "study.csv"), { recursive: true })
    const study = path.join(here, "study.yaml")
    fs.writeFileSync(
      study,
      `name: small
model: { layers: 2, parameters: 1000, stepSeconds: 10ms }
world: { ranks: 2 }
algorithm: ddp
study: { axes: { world.ranks: [2] } }
`
    )
    const [made] = simEach([["study", study, "--out", out]])
    expect(made!.stderr).toMatch(/^sim: \S+study\.csv: --out: a folder is not accepted; expected a file in/u)
    expect([made!.status, made!.stdout, filesIn(out)]).toEqual([2, "", ["study.csv"]])
  })

  it("is gone where it was made for nothing, with those above it", () => {
    const bad = path.join(here, "bad.yaml")
    fs.writeFileSync(
      bad,
      `name: small
model: { profile: nowhere.arrow }
world: { ranks: 2 }
algorithm: ddp
study: { axes: { world.ranks: [2] } }
`
    )
    const [refused] = simEach([["study", bad, "--out", path.join(here, "x", "y")]])
    expect(refused!.stderr).toContain("nowhere.arrow")
    expect([refused!.status, filesIn(here).includes("x")]).toEqual([2, false])
  })
})

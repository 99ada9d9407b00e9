// The files for clusters that ship: they parse, name what exists, and say what this package is.
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"
import { execEach, simEach } from "../cli/launch.ts"

const root = fileURLToPath(new URL("../../", import.meta.url))
const folder = `${root}scenarios/cluster/`
const textOf = (name: string): string => readFileSync(folder + name, "utf8")
const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as {
  readonly version: string
  readonly bin: Readonly<Record<string, string>>
}

/** What each job has its nodes run: program, subcommand, options. */
const commandOf = (name: string): ReadonlyArray<string> => {
  const text = textOf(name)
  if (name.endsWith(".sbatch")) {
    const [, words] = /^(?:exec npx|srun \S+ node_modules\/\.bin\/)\s*([\s\S]*)$/mu.exec(
      text.replaceAll("\\\n", " ").replace(/ node_modules\/\.bin\//u, " node_modules/.bin/ ")
    )!
    return words!.trim().split(/\s+/u)
  }
  for (const document of parseAllDocuments(text)) {
    expect(document.errors).toEqual([])
    const command = document.getIn(["spec", "template", "spec", "containers", 0, "command"])
    if (command !== undefined) return (command as { readonly toJSON: () => ReadonlyArray<string> }).toJSON()
  }
  return []
}

describe("scenarios/cluster", () => {
  const jobs = readdirSync(folder).filter((name) => !name.startsWith("Dockerfile"))

  it("has a job for each command and kind of cluster", () => {
    expect(jobs.toSorted()).toEqual(["study-job.yaml", "study.sbatch", "train-job.yaml", "train.sbatch"])
  })

  it.each(jobs)("%s runs a program of this package with options that it has", (name) => {
    if (name.endsWith(".sbatch"))
      expect(spawnSync("bash", ["-n", folder + name], { encoding: "utf8" }).stderr).toBe("")
    const [program, subcommand, ...words] = commandOf(name)
    expect(Object.keys(manifest.bin)).toContain(program)
    const options = words.filter((word) => word.startsWith("--")).map((word) => word.split("=")[0]!)
    expect(options.length).toBeGreaterThan(2)
    const each = program!.endsWith("exec") ? execEach : simEach
    const [help] = each([[subcommand!, "--help"]])
    for (const option of options) expect(help!.stdout, option).toContain(option)
  })

  it("names one image, of this version, and files that are there", () => {
    const images = ["Dockerfile", ...jobs].flatMap((name) => textOf(name).match(/registry\S+:\S+/gu) ?? [])
    expect(new Set(images)).toEqual(new Set([`registry.example.org/tandem:${manifest.version}`]))
    const docker = textOf("Dockerfile")
    expect(docker).toContain("ARG NODE=node:24-")
    // What its first lines say to set can be set.
    for (const [, argument] of docker.matchAll(/--build-arg (\w+)=/gu))
      expect(docker).toMatch(new RegExp(`^ARG ${argument}=`, "mu"))
    for (const [, path] of docker.matchAll(/\/tandem\/lib\/node_modules\/tandem\/(\S+)/gu))
      expect(existsSync(root + path), path).toBe(true)
    for (const name of jobs)
      for (const [, path] of textOf(name).matchAll(/:-(?:node_modules\/tandem\/)?(scenarios\/[^}]+)\}/gu))
        expect(existsSync(root + path), path).toBe(true)
  })
})

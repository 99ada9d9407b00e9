// sim doctor of what our own commands wrote: whole, it says how to go on with it; whatever is cut short, damaged or of another run, it
// says so of the file, from wherever of it is asked, and that nothing can use it.
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { describe, expect, it } from "vitest"
import { RestoredShards } from "../../exec/checkpoint/resume.ts"
import { shardName } from "../../exec/checkpoint/shard.ts"
import { printManifest, readManifest } from "../../scenarios/cli/checkpoint/manifest.ts"
import { version } from "../../scenarios/cli/version.ts"
import { encodeHeader, encodeValues } from "../../traces/safetensors.ts"
import { describeNative } from "../native/addon.ts"
import { exec, folder, root, simEach, smallStudy } from "./launch.ts"

const here = folder()

interface Told {
  readonly kind: string
  readonly readable: boolean
  readonly title: string
  readonly uses: ReadonlyArray<{ readonly how: string }>
  readonly contents: ReadonlyArray<string>
  readonly warnings: ReadonlyArray<string>
}

const doctorEach = (files: ReadonlyArray<string>): ReadonlyArray<Told & { readonly status: number | null }> =>
  simEach(files.map((file) => ["doctor", file, "--json"])).map(({ status, stdout, stderr }) => {
    expect(stderr).toBe("")
    return { ...(JSON.parse(stdout) as Told), status }
  })

const flip = (file: string, at: (bytes: Buffer) => number): void => {
  const bytes = fs.readFileSync(file)
  bytes[at(bytes)]! ^= 4
  fs.writeFileSync(file, bytes)
}
const cut = (file: string): void => fs.truncateSync(file, Math.floor(fs.statSync(file).size / 2))

/** A checkpoint as a run of two ranks leaves it. */
const checkpoint = (kept: string, step: number, change: { readonly tandem?: string } = {}): string => {
  const into = path.join(kept, `step-${String(step).padStart(10, "0")}`)
  fs.mkdirSync(into, { recursive: true })
  const shards = [0, 1].map((rank) => {
    const tensor = { name: "w", shape: [64], dtype: "float32" } as const
    const values = Float32Array.from({ length: 64 }, (_, i) => step + rank + i)
    const bytes = Buffer.concat([
      encodeHeader([tensor], { format: "tandem-checkpoint" }),
      encodeValues(values, "float32")
    ])
    const file = shardName(rank, 2)
    fs.writeFileSync(path.join(into, file), bytes)
    return { rank, file, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }
  })
  fs.writeFileSync(
    path.join(into, "manifest.json"),
    printManifest({
      format: "tandem-checkpoint",
      formatVersion: 1,
      tandem: version(),
      backend: "cpu",
      run: { algorithm: "ddp" },
      plan: { sha256: "", described: null },
      step,
      ranks: 2,
      data: { source: null, position: step },
      random: { seed: 0, position: step },
      shards,
      ...change
    })
  )
  return into
}

/** Whether a run could go on from it, as `exec train --resume` finds out. */
const resumes = async (at: string): Promise<boolean> => {
  const opened = await Effect.runPromise(
    Effect.result(
      Effect.flatMap(readManifest(at), (manifest) => RestoredShards.open({ folder: at, manifest }, [0, 1]))
    )
  )
  if (Result.isSuccess(opened)) opened.success.close()
  return Result.isSuccess(opened)
}

describe("a checkpoint", () => {
  const [first, second] = [shardName(0, 2), shardName(1, 2)]
  const manifest = "manifest.json"

  it("that is whole is one to go on from, asked of it, of its folder and of any of its files", async () => {
    const kept = path.join(here, "whole")
    const older = checkpoint(kept, 2)
    const newest = checkpoint(kept, 4)
    const files = [kept, newest, ...[manifest, first, second].map((name) => path.join(newest, name)), older]
    const told = doctorEach(files)
    expect(await resumes(newest)).toBe(true)
    for (const { status, kind, readable, warnings } of told)
      expect([status, kind, readable, warnings]).toEqual([0, "checkpoint", true, []])
    expect(told.map(({ title }) => title)).toEqual([
      "a folder of 2 checkpoints, the newest a checkpoint after step 4",
      "a checkpoint after step 4",
      "a checkpoint after step 4",
      "a part of a checkpoint after step 4",
      "a part of a checkpoint after step 4",
      "a checkpoint after step 2"
    ])
    const how = told.map(({ uses }) => uses[0]!.how)
    expect(new Set(how.slice(0, 5))).toEqual(new Set([`exec train <scenario> --checkpoint ${kept} --resume`]))
    expect(how[5]).toBe(`exec train <scenario> --checkpoint <another folder> --resume ${older}`)
  })

  const damages: Readonly<Record<string, readonly [damage: (at: string) => void, of: string, says: RegExp]>> =
    {
      "a manifest cut short": [(at) => cut(path.join(at, manifest)), manifest, /what is no JSON/u],
      "a manifest whose number is another": [
        (at) => {
          const file = path.join(at, manifest)
          fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace('"ranks": 2', '"ranks": 1'))
        },
        manifest,
        /sha256: .*the file was changed or damaged/u
      ],
      "a manifest whose mark is damaged": [
        (at) => flip(path.join(at, manifest), (bytes) => bytes.indexOf("tandem-checkpoint")),
        manifest,
        /format: "pandem-checkpoint" is not accepted/u
      ],
      "no manifest": [(at) => fs.rmSync(path.join(at, manifest)), manifest, /ENOENT/u],
      "a part cut short": [(at) => cut(path.join(at, second)), second, /bytes: \d+ is not accepted/u],
      "a part that is missing": [(at) => fs.rmSync(path.join(at, second)), second, /does not exist/u],
      "a part whose header's length is another": [
        (at) => flip(path.join(at, second), () => 3),
        second,
        /sha256: [\da-f]{64} is not accepted; expected [\da-f]{64}, as the checkpoint's manifest/u
      ],
      "a part whose header is damaged": [
        (at) => flip(path.join(at, second), (bytes) => bytes.indexOf("shape")),
        second,
        /sha256/u
      ],
      "a part whose mark is damaged": [
        (at) => flip(path.join(at, second), (bytes) => bytes.indexOf("tandem-checkpoint")),
        second,
        /sha256/u
      ],
      "a part of which a value lost a bit": [
        (at) => flip(path.join(at, second), (bytes) => bytes.length - 1),
        second,
        /sha256/u
      ],
      "a part of another rank": [
        (at) => fs.copyFileSync(path.join(at, first), path.join(at, second)),
        second,
        /sha256/u
      ],
      "a part of another step": [
        (at) =>
          fs.copyFileSync(path.join(checkpoint(path.join(here, "other"), 7), second), path.join(at, second)),
        second,
        /sha256/u
      ],
      "the manifest of another step": [
        (at) =>
          fs.copyFileSync(
            path.join(checkpoint(path.join(here, "other"), 7), manifest),
            path.join(at, manifest)
          ),
        manifest,
        /step: 7 is not accepted; expected 4, for which the folder is named/u
      ]
    }
  const places = [undefined, manifest, second] as const
  const broken = Object.entries(damages).map(([name, [damage, of, says]], index) => {
    const at = checkpoint(path.join(here, `damaged-${index}`), 4)
    damage(at)
    return { name, at, of, says }
  })
  const asked = broken.flatMap(({ at }) =>
    places
      .map((place) => (place === undefined ? at : path.join(at, place)))
      .filter((file) => fs.existsSync(file))
  )
  const told = doctorEach(asked)
  it.each(broken)("with $name is none to go on from", async ({ at, of, says }) => {
    expect(await resumes(at)).toBe(false)
    const answers = asked.flatMap((file, index) => (file === at || path.dirname(file) === at ? [index] : []))
    expect(answers.length).toBeGreaterThan(1)
    for (const index of answers) {
      const { status, kind, readable, uses, title, warnings } = told[index]!
      expect([asked[index], status, kind, readable, uses]).toEqual([asked[index], 1, "checkpoint", false, []])
      expect(title).toMatch(/that no run can go on from$/u)
      expect(warnings.join("\n")).toContain(path.join(at, of))
      expect(warnings.join("\n")).toMatch(says)
    }
  })

  it("of another version is none for this one", () => {
    const at = checkpoint(path.join(here, "version"), 4, { tandem: "0.0.1" })
    const [found] = doctorEach([at])
    expect([found!.status, found!.warnings]).toEqual([
      1,
      [`written by version 0.0.1; ${version()} may compute other bits, and does not go on from it`]
    ])
  })
})

const scenario = smallStudy(here, "world.links.inter.bandwidth: [1Gbit/s, 2Gbit/s]")

describe("a study, a result, a timeline, a profile", () => {
  const out = path.join(here, "out")
  const timeline = path.join(here, "timeline.arrow")
  const [, ran] = simEach([
    ["study", scenario, "--out", out],
    ["run", scenario, "--json", "--record", timeline]
  ])
  const result = path.join(here, "result.json")
  fs.writeFileSync(result, ran!.stdout)
  const profile = path.join(here, "profile.arrow")
  fs.copyFileSync(path.join(root, "traces/profiles/gpt2-h200.arrow"), profile)
  const study = path.join(out, "study.arrow")
  const journal = path.join(out, "journal.jsonl")

  it("that is whole says how to go on with it", () => {
    const told = doctorEach([out, study, journal, result, timeline, profile])
    expect(told.map(({ kind, readable }) => [kind, readable])).toEqual([
      ["study", true],
      ["study", true],
      ["study-journal", true],
      ["result", true],
      ["timeline", true],
      ["profile", true]
    ])
    expect(told[2]!.contents).toEqual(["2 of 2 points are finished"])
    expect(told[2]!.uses[0]!.how).toBe(`sim study <its file> --out ${out} --resume`)
  })

  const damages: Readonly<Record<string, readonly [file: string, (file: string) => void, RegExp]>> = {
    "a study cut short": [study, cut, /cut short/u],
    "a study of which a number is another": [
      study,
      (file) => flip(file, (bytes) => bytes.indexOf('"stepSeconds":0.') + 16),
      /tandem\.check/u
    ],
    "a journal whose first line is damaged": [journal, (file) => flip(file, () => 40), /its first line/u],
    "a result that lacks a number": [
      result,
      (file) =>
        fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace('"stepSeconds"', '"stepsecond"')),
      /stepSeconds: expected a number/u
    ],
    "a timeline cut short": [timeline, cut, /cut short/u],
    "a timeline of which a number is another": [
      timeline,
      (file) => flip(file, (bytes) => bytes.length >> 1),
      /tandem\.check|damaged/u
    ],
    "a profile cut short": [profile, cut, /cut short/u]
  }
  const broken = Object.entries(damages).map(([name, [file, damage, says]], index) => {
    const at = path.join(here, `${index}-${path.basename(file)}`)
    fs.copyFileSync(file, at)
    damage(at)
    return { name, at, says }
  })
  const told = doctorEach(broken.map(({ at }) => at))
  it.each(broken.map((one, index) => ({ ...one, answer: told[index]! })))(
    "is not usable: $name",
    ({ says, answer: { status, readable, uses, warnings, title } }) => {
      expect([status, readable, uses, title.includes("something else")]).toEqual([1, false, [], false])
      expect(warnings.join("\n")).toMatch(says)
    }
  )

  it("says how many lines of a journal are damaged, whose points are computed again", () => {
    const at = path.join(here, "line.jsonl")
    fs.copyFileSync(journal, at)
    flip(at, (bytes) => bytes.length - 20)
    const [found] = doctorEach([at])
    expect([found!.readable, found!.contents]).toEqual([true, ["1 of 2 points are finished"]])
    expect(found!.warnings).toEqual(["1 line torn or damaged: their points are computed again"])
  })
})

describeNative("a run that was recorded", () => {
  const record = path.join(here, "record")
  const other = path.join(here, "other-record")
  const files = ["run.json", "ops.arrow", "timeline.arrow", "journal.arrow"]
  const agreed = (into: string, algorithm: string) =>
    exec(
      "agree",
      "scenarios/agree/data-parallel.yaml",
      "--set",
      "steps=1",
      "--set",
      `algorithm=${algorithm}`,
      "--record",
      into
    )
  const ended = [agreed(record, "ddp"), agreed(other, "s-sgd")]

  it("that is whole is one to compare", () => {
    expect(ended.map(({ status }) => status)).toEqual([0, 0])
    const told = doctorEach([record, ...files.map((name) => path.join(record, name))])
    expect(told.map(({ kind, readable }) => [kind, readable])).toEqual([
      ["run", true],
      ["run", true],
      ["oplog", true],
      ["timeline", true],
      ["journal", true]
    ])
    for (const { uses } of told) expect(uses[0]!.how).toBe(`exec agree <scenario> --from ${record}`)
  })

  it.each(
    files.flatMap((name) =>
      (["cut short", "damaged", "of another run"] as const).map((how) => [name, how] as const)
    )
  )("whose %s is %s is none", (name, how) => {
    const at = path.join(here, `${name}-${how.replaceAll(" ", "-")}`)
    fs.cpSync(record, at, { recursive: true })
    const file = path.join(at, name)
    if (how === "cut short") cut(file)
    else if (how === "damaged")
      flip(file, (bytes) => (name === "run.json" ? bytes.indexOf("makespanSeconds") + 20 : bytes.length >> 1))
    else fs.copyFileSync(path.join(other, name), file)
    const answers = doctorEach([at, file])
    for (const { status, readable, uses, warnings } of answers) {
      expect([status, readable, uses]).toEqual([1, false, []])
      expect(warnings.join("\n")).toContain(at)
    }
    const compared = exec(
      "agree",
      "scenarios/agree/data-parallel.yaml",
      "--set",
      "steps=1",
      "--set",
      "algorithm=ddp",
      "--from",
      at
    )
    expect(compared.status, compared.stderr).toBe(2)
  })
})

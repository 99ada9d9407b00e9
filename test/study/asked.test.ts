// What a study is asked: searches along grids in either direction, axes that have the name of a result, points that cannot run,
// and what is refused before anything runs.
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { afterAll, describe, expect, it } from "vitest"
import { parse, stringify } from "yaml"
import { csvOf } from "../../sim/csv.ts"
import { printStudy } from "../../sim/cli/print-study.ts"
import { renderReport } from "../../sim/report/page.ts"
import { loadStudy } from "../../sim/study/definition.ts"
import { recordTimelines, reportOf } from "../../sim/study/report-of.ts"
import type { StudyRow } from "../../sim/study/result.ts"
import { runPoints } from "../../sim/study/run-study.ts"
import { crossing } from "../../sim/study/search.ts"
import { readStudyArrow, studyCsv, writeStudyArrow } from "../../sim/study/study-file.ts"
import { computeStudy, writeStudyFile } from "./computed.ts"

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "asked-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

let files = 0
const write = (study: unknown, more: Readonly<Record<string, unknown>> = {}): string => {
  const file = path.join(folder, `${++files}.yaml`)
  writeStudyFile(file, study, { name: "asked", ...more })
  return file
}

const refusal = (file: string, sets: ReadonlyArray<string> = []): string =>
  Effect.runSync(Effect.flip(loadStudy(file, sets))).message

describe("a table", () => {
  it("in CSV has quotes where they are needed, and no formulas", () => {
    const cells = [
      "=1+1",
      "+x",
      "@y",
      "-z",
      "-1.5",
      "a,b",
      'say "so"',
      "two\nlines",
      -2,
      0.5,
      null,
      undefined
    ]
    expect(csvOf([cells, ["plain"]])).toBe(
      `'=1+1,'+x,'@y,'-z,-1.5,"a,b","say ""so""","two\nlines",-2,0.5,,\r\nplain\r\n`
    )
  })
})

describe("a search", () => {
  const along = (values: ReadonlyArray<number>, target: number) =>
    Effect.runSync(crossing(values.length, target, (index) => Effect.succeed(values[index]!)))

  it("finds where any rising or falling metric crosses, as looking at every value does", () => {
    const seen = { rises: 0, falls: 0, inside: 0, everywhere: 0, nowhere: 0 }
    const ascending = fc
      .array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 30 })
      .map((steps) => steps.reduce<Array<number>>((all, step) => [...all, (all.at(-1) ?? 0) + step], []))
    fc.assert(
      fc.property(ascending, fc.boolean(), fc.integer({ min: -2, max: 160 }), (rising, falls, target) => {
        const values = falls && rising.length > 1 ? rising.toReversed() : rising
        const found = along(values, target)
        const most = values.map((value, i) => [value, i] as const).filter(([value]) => value <= target)
        const index = most.toSorted(([a], [b]) => b - a)[0]?.[1]
        expect(found.index).toBe(index)
        const reached =
          index === undefined ? "nowhere" : most.length === values.length ? "everywhere" : "inside"
        expect(found.reached).toBe(reached)
        expect(found.direction).toBe(values === rising ? "rises" : "falls")
        seen[reached]++
        seen[values === rising ? "rises" : "falls"]++
      })
    )
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(3)
  })

  it("says that there is no one crossing where it sees that there is not", () => {
    expect(along([1, 5, 6, 2, 3], 4)).toMatchObject({ reached: "unclear", index: undefined })
    expect(along([1, NaN, 3], 2)).toMatchObject({ reached: "unclear" })
    expect(along([1, 1, 1], 2)).toMatchObject({ reached: "everywhere" })
  })

  const find = (metric: string, targets: ReadonlyArray<number>) => ({
    axes: { algorithm: ["ddp"] },
    find: {
      vary: "world.links.inter.bandwidth",
      over: { from: "1Mbit/s", to: "1Gbit/s", points: 4 },
      metric,
      targets
    }
  })

  it("for a time that falls finds the smallest bandwidth that is enough, in the metric's unit", async () => {
    // 1e6 parameters over 4 ranks: 6e6 B a step, 48 s at 1 Mbit/s, 4.8 s, 0.48 s, 0.048 s; and 10 ms of computing.
    const study = await computeStudy(write(find("stepSeconds", [0.01, 1, 1000])))
    expect(study.rows.map(({ find }) => [find?.value, find?.reached, find?.direction])).toEqual([
      [null, "nowhere", "falls"],
      ["0.1Gbit/s", "inside", "falls"],
      ["0.001Gbit/s", "everywhere", "falls"]
    ])
    const text = printStudy(study)
    expect(text).toContain("smallest bandwidth of the grid at which stepSeconds is at most")
    expect(text).toMatch(/algorithm +10\.0 ms +1\.00 s +1,?000/u)
    expect(text).toMatch(/ddp +> grid +100 Mbit\/s +<= 1\.00 Mbit\/s/u)
  })

  it("for a share that rises finds the largest bandwidth at most, and marks the end of the grid", async () => {
    const text = printStudy(await computeStudy(write(find("computeUtilisation", [0.00001, 0.1, 0.9]))))
    expect(text).toContain("largest bandwidth of the grid at which computeUtilisation is at most")
    expect(text).toMatch(/ddp +< grid +100 Mbit\/s +>= 1\.00 Gbit\/s/u)
    expect(text).toContain("no crossing was found")
  })

  it("is refused where its field has a value from elsewhere, or values do not ascend", () => {
    const own = find("stepSeconds", [1])
    const axes = { "world.links.inter.bandwidth": ["1Gbit/s", "2Gbit/s"] }
    expect(refusal(write({ ...own, axes }))).toMatch(/study\.find\.vary: .* an axis/u)
    expect(refusal(write(own), ["inter.bandwidth=3Gbit/s"])).toMatch(
      /--set inter\.bandwidth=3Gbit\/s: .* searches over/u
    )
    const over = ["1Gbit/s", "10Mbit/s"]
    expect(refusal(write({ ...own, find: { ...own.find, over } }))).toMatch(
      /study\.find\.over: .*10Mbit.* ascending/u
    )
  })
})

describe("what a step looks like", () => {
  it("is told of a part of a period as that, beside the mean step", async () => {
    // 1e6 parameters among 4 ranks on 1 Gbit/s: 6e6 B, 48 ms, once in 20 steps of 10 ms, at the end of them.
    const diloco = [{ name: "diloco", period: 20, overlap: false }]
    const file = write({ axes: { algorithm: diloco, seed: [1] } }, { steps: 20 })
    const definition = Effect.runSync(loadStudy(file))
    const study = await computeStudy(file)
    const timelines = await Effect.runPromise(recordTimelines(definition, study.rows))
    const html = renderReport(reportOf(study, { command: "", version: "", timelines }))
    const [, caption] = /data-figure="timeline".*?<figcaption>.*?<span>(.*?)<\/span>/su.exec(html)!
    expect(caption).toMatch(/the last 4 of 20 steps: 88(\.0)? ms, where a step takes 12\.4 ms in the mean/u)
  })
})

describe("axes", () => {
  it.each([
    ["network", ["fluid", "alpha-beta"]],
    ["collectives", [{ algorithm: "ring" }, { algorithm: "tree" }]],
    ["name", ["one", "two"]],
    ["steps", [2, 4]],
    ["seed", [1, 2]]
  ])("may have the name of a result: %s", async (axis, values) => {
    const study = await computeStudy(write({ axes: { [axis]: values } }))
    const head = studyCsv(study).split("\r\n")[0]!.split(",")
    expect(new Set(head).size).toBe(head.length)
    expect(head).toContain(axis)
    if (axis !== "seed") expect(head).toContain(`result.${axis}`)
    const file = path.join(folder, `${axis}.arrow`)
    await Effect.runPromise(writeStudyArrow(file, study))
    expect((await Effect.runPromise(readStudyArrow(file))).rows).toHaveLength(2)
  })

  it("do not set one field from two sides", () => {
    const file = write({
      axes: { "world.links.inter.bandwidth": ["1Mbit/s"], "world.links.inter": [{ bandwidth: "1Gbit/s" }] }
    })
    expect(refusal(file)).toMatch(
      /values without bandwidth, which the axis world\.links\.inter\.bandwidth sets/u
    )
    const apart = {
      "world.links.inter.bandwidth": ["1Mbit/s"],
      "world.links.inter": [{ latency: "1ms" }, { latency: "2ms" }]
    }
    expect(Effect.runSync(loadStudy(write({ axes: apart }))).points).toHaveLength(2)
  })
})

describe("a star", () => {
  it("is of what can be had, and says what is left out because it knows the future", async () => {
    const file = fileURLToPath(new URL("../../scenarios/expert-offload-bandwidth.yaml", import.meta.url))
    const sets = [
      "slotsPerLayer=4",
      "batch=1",
      "layers=2",
      "workload.decodeTokens=20",
      "hostLink.bandwidth=12GB/s"
    ]
    const text = printStudy(await computeStudy(file, sets))
    expect(text).toContain("* is the shortest of a line but for what knows the future: optimum\n")
    expect(text).toMatch(/12GB\/s .* \* .*/u)
    expect(text).not.toMatch(/12GB\/s .*\*\n/u)
    const own = printStudy(
      await computeStudy(write({ axes: { "world.ranks": [2, 4], algorithm: ["ddp", "diloco"] } }))
    )
    expect(own).toContain("* is the shortest of a line\n")
  })
})

describe("points that cannot run", () => {
  it("are rows with their reason, and the others have their numbers", async () => {
    const study = await computeStudy(
      write({ axes: { "memory.device": ["1kB", "1GB"], algorithm: ["ddp", "diloco"] } })
    )
    expect(study.rows.map(({ failure }) => failure?.kind)).toEqual([
      "OutOfMemory",
      "OutOfMemory",
      undefined,
      undefined
    ])
    expect(study.rows[0]!.failure!.reason).toContain("of device memory")
    const text = printStudy(study)
    expect(text).toMatch(/1kB +no memory +no memory/u)
    expect(text).toMatch(/points that cannot run\n {2}1kB, ddp: rank 0/u)
    const [head, first, , third] = studyCsv(study).split("\r\n")
    const at = head!.split(",").indexOf("stepSeconds")
    expect(first!.split(",")[at]).toBe("")
    expect(Number(third!.split(",")[at])).toBeGreaterThan(0)
    expect(first).toContain("of device memory")
  })

  it("are refused before the first is computed where their world cannot be", async () => {
    const file = write({ axes: { "world.ranks": [4, 6] } }, { world: { ranks: 4, ranksPerNode: 4 } })
    let computed = 0
    const definition = Effect.runSync(loadStudy(file))
    const error = await Effect.runPromise(
      Effect.flip(runPoints(definition, new Map(), { jobs: 1, onProgress: (done) => (computed = done) }))
    )
    expect(error.message).toMatch(/\(at ranks=6\).*ranksPerNode/u)
    expect(computed).toBe(0)
  })
})

describe("input that no point can read", () => {
  const scenarios = path.resolve(import.meta.dirname, "../../scenarios")
  const shipped = path.resolve(scenarios, "../traces/profiles")
  const whole = path.join(shipped, "gpt2-h200.arrow")
  const refused = async (study: unknown, more: Readonly<Record<string, unknown>>) => {
    const definition = Effect.runSync(loadStudy(write(study, more)))
    let computed = 0
    const run = runPoints(definition, new Map(), { jobs: 1, onProgress: (done) => (computed = done) })
    const error = await Effect.runPromise(Effect.flip(run))
    expect(computed).toBe(0)
    return error.message
  }

  it("is refused before the first is computed, of some points or of all", async () => {
    const cut = path.join(folder, "cut.arrow")
    fs.writeFileSync(cut, fs.readFileSync(whole).subarray(0, 3000))
    const one = { axes: { "model.profile": [whole, cut], algorithm: ["ddp", "diloco"] } }
    expect(await refused(one, { model: { profile: whole } })).toMatch(/\(at profile=.*cut short/u)
    // All is well with the file, but it is not what they need.
    const all = { axes: { algorithm: ["ddp", "diloco"] } }
    const table = path.join(shipped, "h200-ops.arrow")
    expect(await refused(all, { model: { profile: table } })).toMatch(/^[^(]*model\.profile.*without layers/u)
  })

  it("is not what one point alone refuses, nor what is left of a study that has begun", async () => {
    const shippedMoe = parse(
      fs.readFileSync(path.join(scenarios, "agree/moe-training.yaml"), "utf8")
    ) as object
    const study = { axes: { "model.gate": ["expert-choice", "gshard"] } }
    const file = path.join(folder, "moe.yaml")
    const model = {
      ...("model" in shippedMoe ? (shippedMoe.model as object) : {}),
      capacityFactor: "dropless"
    }
    fs.writeFileSync(file, stringify({ ...shippedMoe, model, study }))
    const definition = Effect.runSync(loadStudy(file))
    const finished = new Map<number, ReadonlyArray<StudyRow>>()
    await Effect.runPromise(runPoints(definition, finished, { jobs: 1 }))
    const failures = () => [...finished.values()].map(([row]) => row!.failure?.kind)
    expect(failures()).toEqual(["InputError", undefined])
    finished.delete(0)
    await Effect.runPromise(runPoints(definition, finished, { jobs: 1 }))
    expect(failures()).toEqual([undefined, "InputError"])
  })
})

describe("a study's identity", () => {
  it("is of the files that it names, wherever they lie", () => {
    const own = path.join(folder, "links.json")
    const sites = [
      { name: "A", ranks: 1 },
      { name: "B", ranks: 1 }
    ]
    const file = write(
      { axes: { algorithm: ["ddp"] } },
      { world: { sites, links: { wan: { pairs: "links.json" } } } }
    )
    const identity = (gigabits: number): string => {
      fs.writeFileSync(own, JSON.stringify({ pairs: { "A-B": [10, gigabits] } }))
      return Effect.runSync(loadStudy(file)).identity
    }
    expect(identity(1)).not.toBe(identity(2))
    expect(identity(1)).toBe(identity(1))
  })

  it("is of them whatever they are called, and of all in a folder", () => {
    const days = path.join(folder, "days")
    fs.mkdirSync(days)
    const served = parse(fs.readFileSync("scenarios/kv-serving.yaml", "utf8")) as object
    const study = (trace: string) => {
      const file = path.join(folder, `${path.basename(trace)} served.yaml`)
      const axes = { algorithm: ["full"] }
      fs.writeFileSync(file, stringify({ ...served, requests: { trace }, study: { axes } }))
      return (): string => Effect.runSync(loadStudy(file)).identity
    }
    const [ofFile, ofFolder] = [study("days/1"), study("days")]
    fs.writeFileSync(path.join(days, "1"), "0")
    const before = [ofFile(), ofFolder()]
    expect([ofFile(), ofFolder()]).toEqual(before)
    fs.writeFileSync(path.join(days, "2"), "0")
    expect(ofFile()).toBe(before[0])
    expect(ofFolder()).not.toBe(before[1])
    fs.rmSync(path.join(days, "2"))
    fs.writeFileSync(path.join(days, "1"), "1")
    expect(ofFile()).not.toBe(before[0])
    expect(ofFolder()).not.toBe(before[1])
  })

  it("is of measurements that ship, and of the version", () => {
    // A copy of the package in which one shipped profile has other contents, and one with another version.
    const root = path.resolve(import.meta.dirname, "../..")
    const copy = path.join(folder, "copy")
    for (const part of ["core", "traces", "scenarios", "sim", "package.json"])
      fs.cpSync(path.join(root, part), path.join(copy, part), { recursive: true })
    fs.symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"))
    const study = write(
      { axes: { algorithm: ["ddp"] } },
      { model: { profile: "traces/profiles/gpt2-h200.arrow" } }
    )
    const identity = (): string => {
      const script = `import * as Effect from "effect/Effect"; import { loadStudy } from "./sim/study/definition.ts"; console.log(Effect.runSync(loadStudy(${JSON.stringify(study)})).identity)`
      return execFileSync(process.execPath, ["--input-type=module", "-e", script], {
        cwd: copy,
        encoding: "utf8"
      }).trim()
    }
    const before = identity()
    expect(before).toBe(Effect.runSync(loadStudy(study)).identity)
    const profile = path.join(copy, "traces/profiles/gpt2-h200.arrow")
    const bytes = fs.readFileSync(profile)
    fs.appendFileSync(profile, "x")
    expect(identity()).not.toBe(before)
    fs.writeFileSync(profile, bytes)
    const manifest = path.join(copy, "package.json")
    fs.writeFileSync(
      manifest,
      fs.readFileSync(manifest, "utf8").replace(/"version": "[^"]*"/u, '"version": "9.9.9"')
    )
    expect(identity()).not.toBe(before)
  })
})

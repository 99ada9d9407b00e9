import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { mkdirSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { describe, expect, it } from "vitest"
import type { DataParallelScenario } from "../../scenarios/families/data-parallel/scenario.ts"
import type { Scenario } from "../../scenarios/families.ts"
import { loadScenario } from "../../scenarios/scenario-file.ts"
import { scenarioFile, small, temporaryFolder } from "./files.ts"

/** The scenario as one of data-parallel training, which those of this file are. */
const dataParallel = (scenario: Scenario): DataParallelScenario => {
  if (scenario.task !== "data-parallel") throw new Error(`unexpected task ${scenario.task}`)
  return scenario
}

/** The scenario, or its errors with the file's name cut off. */
const load = (text: string, ...sets: ReadonlyArray<string>): DataParallelScenario | ReadonlyArray<string> => {
  const file = scenarioFile(text)
  const result = Effect.runSync(Effect.result(loadScenario(file, sets)))
  if (Result.isSuccess(result)) return dataParallel(result.success)
  return result.failure.errors.map(({ message }) => message.replace(file, "FILE"))
}

const scenarioOf = (text: string, ...sets: ReadonlyArray<string>): DataParallelScenario => {
  const loaded = load(text, ...sets)
  if (!("name" in loaded)) throw new Error(loaded.join("\n"))
  return loaded
}

const errorsOf = (text: string, ...sets: ReadonlyArray<string>): ReadonlyArray<string> => {
  const loaded = load(text, ...sets)
  if ("name" in loaded) throw new Error("expected errors")
  return loaded
}

describe("a scenario file", () => {
  it("is YAML or JSON, with human units and `algorithm: name` for its settings", () => {
    const yaml = scenarioOf(small)
    expect(yaml.world.links.inter.bandwidth).toBe(125e6)
    expect(yaml.model).toEqual({ layers: 4, parameters: 1e6, stepSeconds: 0.01 })
    expect(yaml.algorithm).toMatchObject({ name: "ddp", bucketBytes: 25 * 2 ** 20 })
    const json = JSON.stringify({
      name: "small",
      model: { layers: 4, parameters: "1e6", stepSeconds: "10ms" },
      world: { ranks: 2, links: { inter: { bandwidth: "1Gbit/s" } } },
      algorithm: { name: "ddp" }
    })
    expect(scenarioOf(json)).toEqual(yaml)
  })

  it("gets every error at once, each with line, field, value and what would do", () => {
    const text = `name: a
model: { profile: x.arrow, hostTimes: span }
world:
  ranks: 8
  links:
    inter: { bandwidth: 10, latency: 20mz }
algorithm: { name: dreamdp }
network: fluidd
jitter: .nan
`
    const errors = errorsOf(text)
    expect(errors).toHaveLength(6)
    expect(errors[0]).toBe(
      'FILE:2:28: model.hostTimes: an unknown field is not accepted; expected one of profile, parameters, hostTime, stepSeconds, recorded; did you mean "hostTime"?'
    )
    expect(errors[1]).toMatch(
      /^FILE:6:25: world\.links\.inter\.bandwidth: 10 \(it has no unit \(bits or bytes\?\)\) is not accepted; expected a bandwidth with its unit/u
    )
    expect(errors[2]).toMatch(/^FILE:6:38: .*"20mz" \("mz" is not a unit of it\).*expected a time such as/u)
    expect(errors[3]).toMatch(/^FILE:7:20: algorithm\.name: "dreamdp".*did you mean "dreamddp"\?$/u)
    expect(errors[4]).toMatch(/^FILE:8:10: network: "fluidd".*expected fluid or alpha-beta/u)
    expect(errors[5]).toMatch(/^FILE:9:9: jitter: NaN \(it is not finite\)/u)
  })

  it.each([
    [
      "{ profile: x, layers: 3 }",
      /model\.layers: an unknown field.*"layers" goes with the fields layers, parameters/u
    ],
    [
      "{ profile: x, gpt2: { layers: 3 } }",
      /model\.gpt2: an unknown field.*"gpt2" excludes the field profile: leave one out, or replace all at once with model=\{\.\.\.\}$/u
    ],
    ["{ layers: 3, parameters: 1e6 }", /model\.stepSeconds: expected a time.*\(it is missing\)/u],
    ["{ gpt2: { layers: 3, width: 8 } }", /model\.gpt2\.heads: expected a whole number.*\(it is missing\)/u],
    ["{}", /model: \{\} is not accepted; expected the field profile, or the fields layers, parameters and/u],
    ["gpt2", /model: "gpt2" is not accepted; expected the field profile, or/u]
  ])("names the model that was evidently meant: %s", (model, message) => {
    const errors = errorsOf(small.replace(/model: .*/u, `model: ${model}`))
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatch(message)
  })

  it.each([
    [
      "[{ straggler: 1 }]",
      /faults\.0\.speed: expected a number, from 0\.000001 to 1000000 \(it is missing\)/u
    ],
    [
      "[{ outage: 1, speed: 2 }]",
      /faults\.0\.speed: an unknown field.*"speed" goes with the fields straggler and speed/u
    ],
    ["[{ link: inter, bandwidth: -1Gbit/s }]", /faults\.0\.bandwidth: "-1Gbit\/s" \(it is negative\)/u],
    ["3", /faults: 3 is not accepted; expected a list/u]
  ])("names the fault that was evidently meant: %s", (faults, message) => {
    const errors = errorsOf(`${small}faults: ${faults}\n`)
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatch(message)
  })

  it.each([
    [
      "gpt2: { layers: 1, width: 8, heads: 1 }, precision: bfloat16",
      /"precision" is a field of the scenario itself or of training$/u
    ],
    ["gpt2: { layers: 1, width: 8, heads: 1, recompute: block }", /"recompute" is a field of activations$/u],
    ["gpt2: { layers: 1, width: 8, heads: 1 }, wan: 1Gbit/s", /"wan" is a field of world\.links$/u],
    ["gpt2: { layers: 1, width: 8, heads: 1 }, nonsense: 1", /expected one of gpt2, measured$/u]
  ])("says where a field belongs that stands in the wrong place: %s", (model, message) => {
    const errors = errorsOf(small.replace(/model: .*/u, `model: { ${model} }`))
    expect(errors).toHaveLength(1)
    expect(errors[0]).toMatch(message)
  })

  it("says what a number may be at most", () => {
    const serving =
      "task: kv-serving\nname: x\nmodel: llama-3.2-1b\nrequests: { count: 1, prompt: 9, output: 9 }\n"
    expect(errorsOf(`${serving}algorithm: { name: h2o, keep: 1.5 }\n`).join()).toMatch(
      /algorithm\.keep: 1\.5 is not accepted; expected a number, greater than 0, at most 1$/u
    )
  })

  it.each([
    [
      "{like: llama-3.1-8b}",
      /: model: .* or the fields layers, width, heads and ffnWidth; here "llama-3\.1-8b" alone$/u
    ],
    [
      "{like: meta-llama/Llama-3.1-8B, layers: 4}",
      /model\.like: .*dtype, or "meta-llama\/Llama-3\.1-8B" alone in place of all fields$/u
    ],
    ["{like: gpt-9, layers: 4}", /model\.like: an unknown field .*, dtype$/u]
  ])("says of a name in a field that it stands alone: %s", (model, message) => {
    const serving = `task: kv-serving\nname: x\nmodel: ${model}\nrequests: { count: 1, prompt: 9, output: 9 }\n`
    expect(errorsOf(`${serving}algorithm: full\n`)[0]).toMatch(message)
  })

  it("takes a name for an alternative in fields of an alternative too, as its message says", async () => {
    const file = scenarioFile(
      "task: expert-offload\nname: x\nmodel: { like: mixtral-small }\ncache: { slotsPerLayer: 4 }\nrouting: { preset: uniform }\n"
    )
    const algorithm = (predictor: string) =>
      Effect.runPromise(
        Effect.map(
          loadScenario(file, [`algorithm={name: expertflow, predictor: ${predictor}}`]),
          (scenario) => scenario.algorithm
        )
      )
    expect(await algorithm("oracle")).toEqual(await algorithm("{name: oracle}"))
    await expect(algorithm("oracles")).rejects.toThrow(
      /"oracles" is not accepted; expected oracle, .*did you mean/u
    )
  })

  it("says which algorithms have a field that another lacks", () => {
    expect(errorsOf(small, "algorithm.period=20")).toEqual([
      '--set algorithm.period=20: algorithm.period: an unknown field is not accepted; expected one of name, wire, buckets, bucketBytes, firstBucketBytes, deadline; "period" goes with local-sgd, partial-local-sgd, dreamddp, diloco or streaming-diloco, not with ddp'
    ])
  })

  it.each([
    ["", /an empty file is not accepted/u],
    ["- 1\n", /a file without fields is not accepted/u],
    ["name: [x", /^FILE:1:9: .*expected YAML/u],
    ["a: &a [*a, *a]\nb: 1", /an alias inside of what it stands for: this is not accepted; expected YAML/u],
    [small.replace(/name: .*/u, "name: &a { b: { c: *a } }"), /an alias inside of what it stands for/u],
    [`name: x\n${"[".repeat(50_000)}`, /accepted|expected/u],
    ["name: a\nname: b\n", /^FILE:2:1: Map keys must be unique.*expected YAML/u]
  ])("that is no scenario is refused: %#", (text, message) => {
    expect(errorsOf(text).join("\n")).toMatch(message)
  })

  it("takes time with what is wrong in it, not with its square", () => {
    const secondsOf = (count: number): number => {
      const fields = Array.from({ length: count }, (_, i) => `unknown${i}: ${i}\n`).join("")
      const text = `name: x\n${fields}model: { layers: 4, parameters: 1e8, stepSeconds: 10ms }\nworld: { ranks: 2 }\nalgorithm: ddp\n`
      const file = scenarioFile(text)
      const before = process.cpuUsage()
      const result = Effect.runSync(Effect.result(loadScenario(file)))
      const { user } = process.cpuUsage(before)
      expect(Result.isFailure(result) && result.failure.errors.length).toBe(count)
      return user
    }
    // Four times as many: about 4 where each is looked at alone, 16 where each is looked up among all.
    secondsOf(4000)
    expect(secondsOf(32_000) / secondsOf(8000)).toBeLessThan(9)
  })

  it("that does not exist is refused", () => {
    const result = Effect.runSync(Effect.result(loadScenario("nowhere.yaml")))
    expect(Result.isFailure(result) && result.failure.message).toBe(
      "nowhere.yaml: a file that does not exist is not accepted; expected a readable YAML or JSON file"
    )
  })
})

describe("--set", () => {
  it("finds a field by its path or the end of it", () => {
    expect(scenarioOf(small, "world.links.inter.bandwidth=10gbit").world.links.inter.bandwidth).toBe(1.25e9)
    expect(scenarioOf(small, "bandwidth=10gbit").world.links.inter.bandwidth).toBe(1.25e9)
    expect(scenarioOf(small, "ranks=4", "layers=108", "stepSeconds=4.9", "parameters=100e9")).toMatchObject({
      model: { layers: 108, parameters: 1e11, stepSeconds: 4.9 },
      world: { ranks: 4 }
    })
    expect(scenarioOf(small, "name=other").name).toBe("other")
  })

  it("is refused where an alias lies in what it stands for, and taken where it is said twice", () => {
    expect(errorsOf(small, "name=&a [*a]").join()).toMatch(/^--set name=&a \[\*a\]: .*expected/u)
    const pair = `faults: [&slow { straggler: 1, speed: 0.5 }, *slow]\n`
    expect(scenarioOf(`${small}${pair}`).faults).toHaveLength(2)
  })

  it("takes a field that is in the file before one that could be, and one beside it before others", () => {
    // bandwidth is in the file on inter only; latency could be on any link, but only inter is there to have it.
    expect(scenarioOf(small, "latency=1ms").world.links).toMatchObject({
      inter: { latency: 1e-3 },
      intra: { latency: 0 }
    })
    const both = small.replace("inter:", "intra: { bandwidth: 1GB/s }\n    inter:")
    expect(errorsOf(both, "bandwidth=1GB/s")).toEqual([
      "--set bandwidth=1GB/s: bandwidth: an ambiguous field is not accepted; expected one of world.links.intra.bandwidth, world.links.inter.bandwidth"
    ])
    expect(scenarioOf(both, "inter.bandwidth=2GB/s").world.links.inter.bandwidth).toBe(2e9)
  })

  it("changes the algorithm whole or in part, in order", () => {
    expect(scenarioOf(small, "algorithm=dreamddp", "algorithm.period=20").algorithm).toMatchObject({
      name: "dreamddp",
      period: 20
    })
    expect(scenarioOf(small, "algorithm={name: diloco, period: 7}", "period=9").algorithm).toMatchObject({
      name: "diloco",
      period: 9
    })
    expect(scenarioOf(small, "algorithm=diloco", "period=7", "algorithm=dreamddp").algorithm).toMatchObject({
      period: 10
    })
  })

  it("reaches into lists, with dots or brackets", () => {
    const text = `${small}faults: [{ straggler: 0, speed: 0.5 }, { outage: 1, for: 1s }]\n`
    expect(scenarioOf(text, "faults.0.speed=0.25").faults[0]).toMatchObject({ speed: 0.25 })
    // Fields that an entry may have, and has not yet.
    expect(scenarioOf(text, "faults.0.from=2s").faults[0]).toMatchObject({ from: 2, speed: 0.5 })
    expect(scenarioOf(text, "faults[0].for=2s").faults[0]).toMatchObject({ for: 2 })
    const sites = small.replace("ranks: 2", "sites: [{ name: a, ranks: 2 }, { name: b, ranks: 1 }]")
    expect(scenarioOf(sites, "sites.0.ranksPerNode=2").world).toMatchObject({
      ranksPerNode: 1,
      sites: [{ ranksPerNode: 2 }, { name: "b" }]
    })
    expect(errorsOf(text, "faults.2.from=2s")[0]).toContain("faults.2.from: an unknown field")
    expect(errorsOf(text, "faults.0.fro=2s")[0]).toContain("did you mean faults.0.from")
    expect(scenarioOf(text, "faults[1].outage=0").faults[1]).toMatchObject({ outage: 0 })
    expect(scenarioOf(text, "speed=0.75").faults[0]).toMatchObject({ speed: 0.75 })
  })

  it("refuses unknown paths with what is near, and what is no override", () => {
    expect(errorsOf(small, "bandwith=1Gbit/s")[0]).toMatch(
      /^--set bandwith=1Gbit\/s: bandwith: an unknown field.*did you mean world\.links\.inter\.bandwidth/u
    )
    expect(errorsOf(small, "zzzzzzz=1")[0]).toMatch(/expected the path of a scenario field, such as/u)
    // A field of two letters is in many words.
    expect(errorsOf(small, "__proto__=1")[0]).toMatch(/expected the path of a scenario field, such as/u)
    expect(errorsOf(small, "ranks")[0]).toMatch(/expected path=value, such as ranks=4/u)
    // YAML takes {name:ddp} for a section with one field, "name:ddp", and no value.
    for (const glued of ["algorithm={name:ddp}", "faults=[{link:wan, of: 0}]"])
      expect(errorsOf(small, glued)[0]).toMatch(/a space after each colon of a section: \w+: \w+ /u)
    expect(errorsOf(small, "ranks=[1")[0]).toMatch(/a value that is YAML/u)
    // All of them at once.
    expect(errorsOf(small, "bandwith=1Gbit/s", "ranks")).toHaveLength(2)
  })

  it("tells the fields of a section that the path names: the one that is near, or all", () => {
    expect(errorsOf(small, "shard.stage=3")).toEqual([
      "--set shard.stage=3: shard.stage: an unknown field is not accepted; expected one of shard.within, shard.parameters, shard.gradients, shard.optimizer, shard.reshardAfterForward, shard.prefetch, shard.units, shard.parameterDtype, shard.reduceDtype, shard.copies"
    ])
    expect(errorsOf(small, "shard.reshard_after_forward=true")[0]).toMatch(
      /did you mean shard\.reshardAfterForward\?$/u
    )
    // By the end of its path, too; and of alternatives those of the chosen one.
    expect(errorsOf(small, "inter.mbit=1")[0]).toMatch(/expected one of world\.links\.inter\.bandwidth, /u)
    expect(errorsOf(small, "algorithm.zzz=1")[0]).toMatch(/algorithm\.bucketBytes/u)
    expect(errorsOf(small, "algorithm.zzz=1")[0]).not.toMatch(/algorithm\.period/u)
  })

  it("names the option in the errors of its value, and the line in others", () => {
    expect(errorsOf(small.replace("1Gbit/s", "1parsec"), "ranks=few")).toEqual([
      '--set ranks=few: world.ranks: "few" is not accepted; expected a whole number, from 1 to 1000000',
      expect.stringMatching(/^FILE:6:25: world\.links\.inter\.bandwidth: "1parsec"/u)
    ])
  })

  it("does not keep the name of a model that another profile replaces, unless it is named anew", () => {
    const text = small.replace(/^model:.*$/mu, "model: { profile: gpt2.arrow }")
    expect(scenarioOf(text).name).toBe("small")
    expect(scenarioOf(text, "model.profile=mine/llama.arrow").name).toBe("small, but with llama.arrow")
    expect(scenarioOf(text, "model.profile=llama.arrow", "name=Mine").name).toBe("Mine")
  })

  it("takes file names from where the person is, and leaves others to the scenario's folder", () => {
    const folder = temporaryFolder()
    mkdirSync(join(folder, "sub"))
    const file = join(folder, "sub", "s.yaml")
    writeFileSync(file, small.replace(/model: .*/u, "model: { profile: a.arrow }"))
    const here = relative(process.cwd(), join(folder, "mine.arrow"))
    writeFileSync(here, "")
    const profileOf = (set: string) => {
      const { model } = dataParallel(Effect.runSync(loadScenario(file, [set])))
      return "profile" in model ? model.profile : undefined
    }
    expect(profileOf(`profile=${here}`)).toBe("../mine.arrow")
    expect(profileOf(`model={profile: ${here}}`)).toBe("../mine.arrow")
    expect(profileOf("profile=nowhere.arrow")).toBe("nowhere.arrow")
  })
})

// A study's axes given on the command line are the study's, whatever axes its file has, or none.
import * as Effect from "effect/Effect"
import { describe, expect, it } from "vitest"
import { loadStudy } from "../../sim/study/definition.ts"
import { scenarioFile, small } from "../scenario/files.ts"

const pointsOf = (text: string, ...sets: ReadonlyArray<string>) =>
  Effect.runSync(loadStudy(scenarioFile(text), sets)).points.map(({ axes }) => axes)

const ofAlgorithms = `${small}
study: { axes: { algorithm: [ddp, s-sgd] } }
`

it.each([
  ["another axis", ofAlgorithms, ["study={axes: {world.ranks: [2, 4]}}"]],
  ["in part", ofAlgorithms, ["study.axes={world.ranks: [2, 4]}"]],
  ["in a file without a study", small, ["study={axes: {world.ranks: [2, 4]}}"]]
])("%s", (_, text, sets) => {
  expect(pointsOf(text, ...sets)).toEqual([{ "world.ranks": 2 }, { "world.ranks": 4 }])
})

const overBandwidth = `${small}
study: { axes: { world.links.wan.bandwidth: [1Gbit/s], algorithm: [ddp, s-sgd] } }
`

it("one by one: another axis' values, however it is spelt, and one that the file has not", () => {
  const wan = "world.sites=2"
  const wide = { "world.links.wan.bandwidth": "3Gbit/s" }
  const other = ["study.axes.wan.bandwidth=[3Gbit/s]", "study.axes.algorithm=[diloco]"]
  expect(pointsOf(overBandwidth, wan, ...other)).toEqual([{ ...wide, algorithm: "diloco" }])
  expect(pointsOf(overBandwidth, wan, ...other, "study.axes.jitter=[0, 0.1]")).toEqual([
    { ...wide, algorithm: "diloco", jitter: 0 },
    { ...wide, algorithm: "diloco", jitter: 0.1 }
  ])
  expect(pointsOf(small, "study.axes.ranks=[2, 4]")).toEqual([{ "world.ranks": 2 }, { "world.ranks": 4 }])
})

it("one by one are refused where their field is none, or may be several", () => {
  expect(() => pointsOf(overBandwidth, "study.axes.rnks=[2]")).toThrow(/study\.axes\.rnks: an unknown field/u)
  expect(() => pointsOf(overBandwidth, "study.axes.bandwidth=[1Gbit/s]")).toThrow(
    /study\.axes\.bandwidth: an ambiguous field .*world\.links\.wan\.bandwidth/u
  )
  expect(() => pointsOf(overBandwidth, "study.axes.algorithm=ddp")).toThrow(/"ddp" .*expected a list/u)
})

it("of two, and a field below one of them", () => {
  const axes = "study={axes: {shard: [{within: site}, {within: node}], training.accumulate: [1, 2]}}"
  expect(pointsOf(ofAlgorithms, axes, "shard.prefetch=0")).toHaveLength(4)
  expect(() => pointsOf(ofAlgorithms, axes, "algorithm=ddp")).not.toThrow()
})

it("that are no fields are refused where they were given", () => {
  expect(() => pointsOf(ofAlgorithms, "study={axes: {world.rank: [2]}}")).toThrow(
    /world\.rank.*world\.ranks/u
  )
})

describe("what is wrong with them is said of the option that gave them, not of the file", () => {
  it.each([
    ["a value of an axis that the file has", "study.axes.algorithm=[ddp, dpp]", /^algorithm\.name: "dpp"/u],
    ["a field of a value", "study.axes.algorithm=[{name: ddp, x: 1}]", /^algorithm\.x: an unknown field/u],
    ["a value of another axis", "study.axes.jitter=[0.1, x]", /^jitter: "x" is not accepted/u],
    ["no values", "study.axes.algorithm=[]", /^study\.axes\.algorithm: \[\] is not accepted/u],
    ["a field that is not varied", "study.axes={task: [a]}", /^task: expected a field of one task's/u],
    ["a field that is none", "study={axes: {world.rank: [2]}}", /^world\.rank: an unknown field/u],
    ["no axes", "study.axes={}", /^study\.axes: \{\} is not accepted/u],
    [
      "one below another",
      "study.axes={algorithm: [{name: diloco, period: 3}], algorithm.period: [3, 4]}",
      /^algorithm: .*expected values without period/u
    ],
    [
      "a search's field",
      "study.find={vary: foo, over: [1, 2], metric: stepSeconds, targets: [1]}",
      /^foo: an unknown field/u
    ],
    [
      "a search's metric",
      "study.find={vary: seed, over: [1, 2], metric: stepSecond, targets: [1]}",
      /^study\.find\.metric: "stepSecond"/u
    ],
    [
      "a search's values",
      "study.find={vary: jitter, over: [0.2, 0.1], metric: stepSeconds, targets: [1]}",
      /^study\.find\.over: 0\.1 .*ascending order/u
    ]
  ])("%s", (_, set, says) => {
    const { message } = Effect.runSync(Effect.flip(loadStudy(scenarioFile(ofAlgorithms), [set])))
    expect(message).toContain(`--set ${set}: `)
    expect(message.slice(`--set ${set}: `.length)).toMatch(says)
  })

  // A message that repeats a long option is cut in its middle.
  it("too many points", () => {
    const many = Array.from({ length: 1001 }, (_, seed) => seed).join(", ")
    const set = `study.axes={seed: [${many}], world.ranks: [${many}]}`
    const { message } = Effect.runSync(Effect.flip(loadStudy(scenarioFile(ofAlgorithms), [set])))
    expect(message.slice(0, 500)).toBe(`--set ${set}`.slice(0, 500))
    expect(message).toMatch(/: study\.axes: 1002001 scenarios is not accepted; expected at most 1000000$/u)
  })

  it("and of what the file has, of the file", () => {
    const file = scenarioFile(`${small}\nstudy: { axes: { algorithm: [dpp] } }\n`)
    const refused = Effect.flip(loadStudy(file, ["study.axes.jitter=[0.1]"]))
    expect(Effect.runSync(refused).message).toMatch(/yaml:\d+:\d+: algorithm\.name: "dpp"/u)
  })
})

describe("values of an axis that are equal in other words", () => {
  const load = (axes: string) => Effect.runSync(loadStudy(scenarioFile(small), [`study.axes=${axes}`]))

  it("are one row, under the first of them, and it is said", () => {
    const { axes, points, notes } = load(
      "{inter.bandwidth: [1Gbit/s, 1000Mbit/s, 2Gbit/s, 1e9 bit/s, unlimited], algorithm: [ddp, {name: ddp, bucketBytes: 25MiB}, {name: ddp, bucketBytes: 1MiB}]}"
    )
    const once = ["1Gbit/s", "2Gbit/s", "unlimited"]
    expect(points.map((point) => point.axes)).toEqual(
      once.flatMap((bandwidth) =>
        ["ddp", { name: "ddp", bucketBytes: "1MiB" }].map((algorithm) => ({
          "world.links.inter.bandwidth": bandwidth,
          algorithm
        }))
      )
    )
    expect(points.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5])
    expect(axes.map(({ values }) => values.length)).toEqual([3, 2])
    expect(axes[0]!.values).toEqual(once)
    expect(notes.toSorted()).toEqual([
      'study.axes, algorithm: {"name":"ddp","bucketBytes":"25MiB"} is "ddp" in other words, and one row with it',
      'study.axes, world.links.inter.bandwidth: "1000Mbit/s" is "1Gbit/s" in other words, and one row with it',
      'study.axes, world.links.inter.bandwidth: "1e9 bit/s" is "1Gbit/s" in other words, and one row with it'
    ])
  })

  it("are not others that are near, nor alternatives of which a field means nothing", () => {
    const near = load("{inter.bandwidth: [1Gbit/s, 1001Mbit/s], jitter: [0, 0.0]}")
    expect([near.points.length, near.notes]).toEqual([2, []])
    expect(near.axes.map(({ values }) => values.length)).toEqual([2, 1])
    const periods = load("{algorithm: [ddp, {name: diloco}], algorithm.period: [3, 4]}")
    expect([periods.points.length, periods.notes]).toEqual([3, []])
    expect(periods.axes.map(({ values }) => values.length)).toEqual([2, 2])
  })
})

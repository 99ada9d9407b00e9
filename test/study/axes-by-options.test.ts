// A study's axes given on the command line are the study's, whatever axes its file has, or none.
import * as Effect from "effect/Effect"
import { expect, it } from "vitest"
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

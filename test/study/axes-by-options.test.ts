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

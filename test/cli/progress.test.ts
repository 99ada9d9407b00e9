// What whoever waits is told where standard error is no terminal.
import { expect, it } from "vitest"
import { patientProgress } from "../../scenarios/cli/progress.ts"

const toldOf = (steps: number, secondsEach: number): ReadonlyArray<string> => {
  const told: Array<string> = []
  let seconds = 0
  const progress = patientProgress(
    "steps",
    (line) => told.push(line),
    () => 1000 * seconds
  )
  for (let step = 1; step <= steps; step++) {
    seconds += secondsEach
    progress.update(step, steps)
  }
  progress.end()
  return told
}

it("long work says once what it waits for and how long", () => {
  expect(toldOf(200, 0.75)).toEqual(["steps: 14 of 200 in 11 s, about 2:20 min left"])
})

it("work that is soon done says nothing", () => {
  expect(toldOf(200, 0.05)).toEqual([])
  // After ten seconds no more than thirty are left.
  expect(toldOf(40, 0.9)).toEqual([])
})

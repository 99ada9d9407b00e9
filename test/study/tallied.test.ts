// Warnings of a study's points: each told once, with how many points it is of.
import { expect, it } from "vitest"
import { ofPoints, talliedWarnings } from "../../sim/study/tallied.ts"

it("counts the points of each warning, and a field without effect as one whatever the numbers in its reasons", () => {
  const window = (kB: number) => `links.window has no effect: no more than ${kB} kB are on the way`
  const rows = [
    { warnings: [window(25), "a", "b"] },
    { warnings: [window(50), "a"] },
    { warnings: ["a", "links.chunk has no effect: no ring"] },
    { warnings: ["a", "host.mode has no effect: x", "host.mode has no effect: y"] }
  ]
  expect(talliedWarnings(rows)).toEqual([
    { text: `${window(25)}, and the like`, points: 2 },
    { text: "a", points: 4 },
    { text: "b", points: 1 },
    { text: "links.chunk has no effect: no ring", points: 1 },
    { text: "host.mode has no effect: x, and the like", points: 1 }
  ])
  expect(talliedWarnings([])).toEqual([])
  expect([4, 1].map((points) => ofPoints(points, rows))).toEqual(["", "1 of 4 points"])
})

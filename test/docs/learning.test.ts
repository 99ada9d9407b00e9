// docs/learning.md: its table and picture are those of the recorded runs, and its margins hold in them.
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { learningChart } from "../../bench/learning/chart.ts"
import { byLabel, chartOf, finalLoss, starts, type Results } from "../../bench/learning/results.ts"
import { margins, tabulate } from "../../bench/learning/table.ts"

const read = (path: string): string =>
  readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")
const page = read("docs/learning.md")
const { runs } = JSON.parse(read("bench/learning/results.json")) as Results
const labels = ["S-SGD", "Local SGD", "DreamDDP", "DiLoCo", "Streaming DiLoCo"]
const headings = { scratch: "From scratch", continued: "From a trained model" }

/** The text of a section, to the next heading. */
const section = (heading: string): string => {
  const begin = page.indexOf(`## ${heading}\n`)
  expect(begin, heading).toBeGreaterThanOrEqual(0)
  return page.slice(begin, page.indexOf("\n## ", begin))
}

/** Of the text's pairs of characters, in nats per character: what a model of the last character alone reaches at best. */
const bigramEntropy = ((): number => {
  const text = read("scenarios/texts/psalms.txt")
  const pairs = new Map<string, number>()
  const firsts = new Map<string, number>()
  for (let i = 0; i + 1 < text.length; i++) {
    const [first, pair] = [text[i]!, text.slice(i, i + 2)]
    pairs.set(pair, (pairs.get(pair) ?? 0) + 1)
    firsts.set(first, (firsts.get(first) ?? 0) + 1)
  }
  let sum = 0
  for (const [pair, count] of pairs) sum -= count * Math.log(count / firsts.get(pair[0]!)!)
  return sum / (text.length - 1)
})()

for (const start of starts) {
  const own = runs.filter((run) => run.start === start)
  const groups = byLabel(own)
  const text = section(headings[start])

  describe(headings[start], () => {
    it("shows the table and the picture of the record", () => {
      expect(text).toContain(tabulate(own))
      expect(text).toContain(`(${chartOf(start).replace("docs/", "")})`)
      expect(read(chartOf(start))).toBe(learningChart(own))
    })

    it("compares like with like: the same steps and tokens, three seeds each", () => {
      expect([...groups.keys()]).toEqual(labels)
      expect(new Set(own.map(({ steps, tokens }) => `${steps} ${tokens}`)).size).toBe(1)
      for (const [label, of] of groups) {
        const seeds = of.map(({ seed }) => seed)
        expect(seeds, label).toEqual([1, 2, 3])
      }
      for (const { steps, heldOutLosses } of own) expect(heldOutLosses.at(-1)!.step).toBe(steps)
    })

    it("states margins that hold", () => {
      const stated = [...text.matchAll(/^- (.+): within (\d\.\d+) of S-SGD/gmu)]
      expect(stated.map((match) => match[1])).toEqual(labels.slice(1))
      for (const [, label, margin] of stated) {
        const worst = Math.max(...margins(groups.get(label!)!, groups.get("S-SGD")!))
        expect(worst, label).toBeLessThanOrEqual(Number(margin))
      }
    })

    it("knows more than which character follows which", () => {
      for (const run of own) expect(finalLoss(run), run.label).toBeLessThan(bigramEntropy)
    })
  })
}

// What sim merge writes: a report without timelines, which shards do not carry, says so, on the terminal and where they would stand.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import * as path from "node:path"
import { expect, it } from "vitest"
import { folder, simEach } from "../cli/launch.ts"

it("a merged study's report says that it has no timelines, and why", () => {
  const here = folder()
  const file = path.join(here, "study.yaml")
  writeFileSync(
    file,
    `name: small
model: { layers: 2, parameters: 1000, stepSeconds: 10ms }
world: { ranks: 2, links: { inter: { bandwidth: 1Gbit/s } } }
algorithm: ddp
study: { axes: { world.ranks: [2, 4] } }
`
  )
  const [whole, parts, merged] = ["whole", "parts", "merged"].map((name) => path.join(here, name))
  mkdirSync(parts!)
  const [all, first, second, merge] = simEach([
    ["study", file, "--out", whole!],
    ["study", file, "--shard", "0/2", "--out", parts!],
    ["study", file, "--shard", "1/2", "--out", parts!],
    ["merge", path.join(parts!, "shard-0-of-2.arrow"), path.join(parts!, "shard-1-of-2.arrow"), "-o", merged!]
  ])
  for (const { status, stderr } of [all!, first!, second!, merge!]) expect(status, stderr).toBe(0)
  const reason = "shards carry results, and not the files that a run is recorded of"
  expect(merge!.stderr).toContain(`report.html, without timelines: ${reason}`)
  expect(all!.stderr).not.toContain("without timelines")
  const report = (of: string) => readFileSync(path.join(of, "report.html"), "utf8")
  expect(report(merged!)).toContain(`<p>Not shown: ${reason}`)
  expect(report(whole!)).not.toContain("Not shown")
  expect(report(whole!)).toContain('id="timelines"')
})

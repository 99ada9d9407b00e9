// Speed of this tree beside another one, such as a worktree of an earlier commit: bench/throughput.ts and three workloads of
// bench/fluid, a process each, in turns that begin with the one and with the other. Medians over the pairs, of the processor time
// of the thread that computes: others on the machine disturb it less than the clock.
//   node bench/beside.ts <other tree> [pairs]
import { execFileSync } from "node:child_process"
import * as path from "node:path"
import { median } from "../core/median.ts"
import { wholeNumber } from "./numbers.ts"

const [other, given = "5"] = process.argv.slice(2)
if (other === undefined) throw new Error("usage: node bench/beside.ts <other tree> [pairs]")
const pairs = wholeNumber("pairs", given)
const trees = [path.resolve(other), path.resolve(import.meta.dirname, "..")] as const
const workloads = ["ring 32 50 4 0", "a2a 32 50 1 0", "ps 128 50 10 0"]

/** Read before a benchmark, which asks the clock as ever. */
const processorTime = `data:text/javascript,
performance.now = () => { const { user, system } = process.threadCpuUsage(); return (user + system) / 1000 }`

/** By what is measured, of each tree one for each pair: millions of ops a second, or seconds. */
const measured = new Map<string, readonly [Array<number>, Array<number>]>()
const note = (what: string, tree: 0 | 1, value: number): void => {
  if (!measured.has(what)) measured.set(what, [[], []])
  measured.get(what)![tree].push(value)
}

const run = (tree: 0 | 1): void => {
  const node = (...args: ReadonlyArray<string>): string =>
    execFileSync(process.execPath, ["--import", processorTime, ...args], {
      cwd: trees[tree],
      encoding: "utf8"
    })
  for (const [, name, rate] of node("bench/throughput.ts", "3000", "7").matchAll(/^(\S+): ([\d.]+) M/gmu))
    note(`${name}, M ops/s`, tree, Number(rate))
  for (const workload of workloads) {
    const { buildSeconds, runSeconds } = JSON.parse(node("bench/fluid/main.ts", ...workload.split(" "))) as {
      readonly buildSeconds: number
      readonly runSeconds: number
    }
    note(`${workload}, s`, tree, buildSeconds + runSeconds)
  }
}

for (let pair = 0; pair < pairs; pair++) {
  const first = pair % 2 === 0 ? 0 : 1
  run(first)
  run(first === 0 ? 1 : 0)
}
for (const [what, [there, here]] of measured) {
  const ratios = here.map((value, pair) => (value / there[pair]!).toFixed(2))
  console.log(
    `${what.padEnd(26)} there ${median(there).toFixed(3)}, here ${median(here).toFixed(3)}: ${(median(here) / median(there)).toFixed(2)} (pairs ${ratios.join(" ")})`
  )
}

// What bench/cluster/what-if.ts says of its runs: nothing that was not measured counts as right.
import { spawn } from "node:child_process"
import { describe, expect, it } from "vitest"
import { Runners } from "../../bench/cluster/runners.ts"
import { reportOf, rowLine, type Row } from "../../bench/cluster/what-if-report.ts"

const took = (stepSeconds: number): Row["measured"] => ({
  stepSeconds,
  computeSeconds: 0.01,
  communicationSeconds: 0.02
})
const row = (
  algorithm: string,
  predictedSeconds: number,
  measured: Row["measured"],
  point = "1Gbit/s"
): Row => ({
  ranks: 2,
  point,
  algorithm,
  predictedSeconds,
  predictedComputeSeconds: 0.01,
  measured
})
const names = ["ddp", "diloco"]

describe("the report of what was predicted", () => {
  it("tells errors and whether the order came out", () => {
    const { text, complete, medianError, worstError } = reportOf(
      [
        row("ddp", 0.1, took(0.1)),
        row("diloco", 0.048, took(0.05)),
        row("ddp", 1, took(2), "x"),
        row("diloco", 1.1, took(1), "x")
      ],
      names
    )
    expect(complete).toBe(true)
    expect(medianError).toBeCloseTo((0.04 + 0.1) / 2, 9)
    expect(worstError).toBe(0.5)
    expect(text).toContain("| 2 | 1Gbit/s | 100.0 / 100.0 (0.0 %) | 48.0 / 50.0 (-4.0 %) | right | right |")
    expect(text).toMatch(/\| 2 \| x \| .* \| WRONG \| WRONG \|/u)
  })

  it.each([
    ["failed", row("diloco", 0.05, { error: "lost rank 1" })],
    ["not run", row("diloco", 0.05, undefined)],
    ["not run", undefined]
  ])("is incomplete where a run has %s", (cell, other) => {
    const rows = [row("ddp", 0.1, took(0.1)), ...(other === undefined ? [] : [other])]
    const { text, complete } = reportOf(rows, names)
    expect(complete).toBe(false)
    expect(text).toContain(`| ${cell} | incomplete | incomplete |`)
    expect(text).toContain("INCOMPLETE")
    if (other !== undefined) expect(rowLine(other)).toMatch(/failed: lost rank 1|not run/u)
  })

  it("says of what lanes did only what was timed", () => {
    expect(rowLine({ ...row("ddp", 0.1, took(0.1)), ranSeconds: 12.3 })).toBe(
      "2 ranks, 1Gbit/s, ddp: predicted 100.0 ms, took 100.0, off by 0.0 %; compute 10.0, took 10.0; communication took 20.0; ran for 12 s"
    )
    expect(rowLine(row("ddp", 0.1, { stepSeconds: 0.1 }))).toBe(
      "2 ranks, 1Gbit/s, ddp: predicted 100.0 ms, took 100.0, off by 0.0 %; compute 10.0"
    )
  })

  it("counts a tie as predicted", () => {
    const { text } = reportOf([row("ddp", 0.1, took(0.1005)), row("diloco", 0.1001, took(0.1))], names)
    expect(text).toContain("| right | right |")
  })
})

describe("ranks that run what they are told", () => {
  const request = { file: "", set: [], planFrom: "", emulateDevice: false }
  const rank = (script: string) =>
    spawn(process.execPath, ["-e", script], { stdio: ["pipe", "pipe", "inherit"] })
  /** Says these lines for each that it is told. */
  const saying = (...lines: ReadonlyArray<object>) =>
    `process.stdin.on("data", () => console.log(${JSON.stringify(lines.map((line) => JSON.stringify(line)).join("\n"))}))`
  const begins = { begun: true }
  const done = { answer: { stepSeconds: 1 } }
  const failed = (error: string) => ({ answer: { error } })

  it("answer once each, and with an error where one has ended or all were closed", async () => {
    const runners = new Runners([rank(saying(begins, failed("tried"))), rank(saying(begins, done))])
    let begun = 0
    expect(await runners.run(request, () => begun++)).toEqual({ error: "rank 0: tried" })
    expect(begun).toBe(1)
    await runners.close()
    expect(await runners.run(request)).toEqual({ error: "the ranks were closed" })
    const gone = new Runners([rank("process.stdin.resume()"), rank("process.exit(3)")])
    expect(await gone.run(request)).toEqual({ error: "a rank has ended (code 3)" })
    expect(await gone.run(request)).toEqual({ error: "a rank has ended (code 3)" })
    await gone.close()
  })

  it("end at once when they are told to, and answer what they were at with an error", async () => {
    const busy = new Runners([rank("process.stdin.resume()"), rank("process.stdin.resume()")])
    const running = busy.run(request)
    busy.kill()
    expect(await running).toEqual({ error: "the ranks were ended" })
    expect(await busy.run(request)).toEqual({ error: "the ranks were ended" })
    await busy.close()
  })

  it("answer with the errors of all that failed, whichever rank they are", async () => {
    const other = new Runners([rank(saying(begins, done)), rank(saying(failed("no such file")))])
    expect(await other.run(request)).toEqual({ error: "rank 1: no such file" })
    // It has ended everywhere, so that they can be told the next.
    expect(await other.run(request)).toEqual({ error: "rank 1: no such file" })
    await other.close()
    const well = new Runners([rank(saying(begins, done)), rank(saying(done))])
    expect(await well.run(request)).toEqual({ stepSeconds: 1 })
    await well.close()
    // Rank 0 waits for the one that failed, and says nothing.
    const stuck = new Runners([rank("process.stdin.resume()"), rank(saying(failed("no such file")))], 100)
    expect(await stuck.run(request)).toEqual({ error: "rank 1: no such file; rank 0 did not answer" })
    expect(await stuck.run(request)).toEqual({ error: "rank 0 did not answer" })
    await stuck.close()
  })
})

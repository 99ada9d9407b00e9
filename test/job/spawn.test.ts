// The processes of a job on this host: when the job is over, and that one which cannot be started counts once.
import { afterEach, expect, it, vi } from "vitest"
import * as Effect from "effect/Effect"
import type { Variables } from "../../exec/job/environment.ts"
import { spawnJob } from "../../exec/job/spawn.ts"

const node = process.execPath
afterEach(() => Object.defineProperty(process, "execPath", { value: node, writable: true }))

const run = async (
  processes: number,
  script: string,
  variables: Variables = process.env,
  said: Array<string> = []
) => {
  const code = await Effect.runPromise(
    spawnJob({
      processes,
      command: ["-e", script],
      variables,
      write: (_, text) => said.push(text)
    })
  )
  return { code, said }
}

it("is over when the last has ended, with the code of the first that failed", async () => {
  const script = `const rank = Number(process.env.TANDEM_RANK)
    setTimeout(() => { console.log("over"); process.exit(rank === 2 ? 3 : rank === 1 ? 5 : 0) }, [0, 600, 10][rank])`
  const { code, said } = await run(3, script)
  expect(code).toBe(3)
  expect(said).toEqual(["[2] over\n", "[1] over\n"])
})

it("says of each that a signal ended, whichever end is seen first", async () => {
  // A killed process with much memory is seen to end after those that have noticed its silence.
  const script = `const rank = Number(process.env.TANDEM_RANK)
    setTimeout(() => rank === 1 ? process.kill(process.pid, "SIGKILL") : process.exit(rank === 0 ? 4 : 0), [10, 600, 10][rank])`
  expect(await run(3, script)).toEqual({ code: 4, said: ["[1] ended by SIGKILL\n"] })
})

/** The same where the 10 s that others have are one here, once rank 1 is "here". */
const hurried = async (processes: number, script: string): ReturnType<typeof run> => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
  const said: Array<string> = []
  const timer = setInterval(() => {
    if (said.includes("[1] here\n")) vi.advanceTimersByTime(100)
  }, 10)
  try {
    return await run(processes, script, process.env, said)
  } finally {
    clearInterval(timer)
    vi.useRealTimers()
  }
}

it("lets one that was stopped hear that it is to end", async () => {
  const script = `if (process.env.TANDEM_RANK === "0") process.exit(4)
    process.on("SIGTERM", () => { console.log("heard"); process.exit(0) })
    setInterval(() => {}, 1000)
    require("node:fs").writeSync(1, "here\\n")
    process.kill(process.pid, "SIGSTOP")`
  const { code, said } = await hurried(2, script)
  expect(code).toBe(4)
  expect(said).toEqual([
    "[1] here\n",
    "exec: rank 1 is told to end, 10 s after rank 0 ended with exit code 4\n",
    "[1] heard\n"
  ])
})

it("says whom it kills, and of whom it was waiting for in vain", async () => {
  const script = `const rank = Number(process.env.TANDEM_RANK)
    if (rank !== 1) process.exit(2 * rank)
    process.on("SIGTERM", () => {})
    setInterval(() => {}, 1000)
    require("node:fs").writeSync(2, "here\\n")`
  const { code, said } = await hurried(3, script)
  expect(code).toBe(4)
  expect(said).toEqual([
    "[1] here\n",
    "exec: rank 1 is told to end, 10 s after rank 2 ended with exit code 4\n",
    "exec: rank 1 is killed, 10 s after being told to end\n"
  ])
})

it("waits for those that run where one cannot be started", async () => {
  const programs = [node, node, "/nowhere/node"]
  Object.defineProperty(process, "execPath", { get: () => programs.shift(), configurable: true })
  const script = `setTimeout(() => { if (process.env.TANDEM_RANK === "1") console.log("over") }, 700)`
  const { code, said } = await run(3, script)
  expect(code).toBe(1)
  expect(said).toEqual([expect.stringMatching(/^\[2\] cannot be started: .*ENOENT/u), "[1] over\n"])
})

it("gives the job a secret of its own, by the pipe, whatever this process has been given", async () => {
  const script = `const { TANDEM_SECRET, TANDEM_SECRET_FILE, TANDEM_SECRET_FD } = process.env
    const bytes = require("node:fs").readSync(Number(TANDEM_SECRET_FD), Buffer.alloc(256))
    console.log(TANDEM_SECRET, TANDEM_SECRET_FILE, bytes)`
  const given = { TANDEM_SECRET: "x".repeat(32), TANDEM_SECRET_FILE: "/nowhere/secret" }
  expect(await run(2, script, { ...process.env, ...given })).toEqual({
    code: 0,
    said: ["[1] undefined undefined 65\n"]
  })
})

it("tells a failure once, with the ranks that it is of where it is not of all", async () => {
  const lifelineTs = new URL("../../exec/job/lifeline.ts", import.meta.url).href
  const failing = (failures: ReadonlyArray<string | undefined>, millis: number) => `
    const { tellParent } = await import(${JSON.stringify(lifelineTs)})
    const rank = Number(process.env.TANDEM_RANK)
    const failure = ${JSON.stringify(failures)}[rank]
    if (failure === null) setTimeout(() => process.exit(0), ${millis})
    else if (!tellParent(3, failure)) process.exit(9)
    else process.exit(2)`
  expect(await run(3, failing(Array(3).fill("exec: wrong\nexec: and more\n"), 0))).toEqual({
    code: 2,
    said: ["exec: wrong\nexec: and more\n"]
  })
  const unlike = ["exec: own\n", "exec: wrong\nexec: and more\n", "exec: wrong\nexec: and more\n", undefined]
  const { code, said } = await run(4, failing(unlike, 100))
  expect(code).toBe(2)
  expect(said.toSorted()).toEqual(["[1, 2] exec: wrong\n[1, 2] exec: and more\n", "exec: own\n"])
  // Nobody waits for who goes on: what was heard is told while they run.
  const began = performance.now()
  let toldAfter = Infinity
  const telling: Array<string> = []
  telling.push = (...texts) => {
    toldAfter = performance.now() - began
    return Array.prototype.push.apply(telling, texts)
  }
  await run(2, failing([undefined, "exec: own\n"], 8000), process.env, telling)
  expect([...telling]).toEqual(["[1] exec: own\n"])
  expect(performance.now() - began - toldAfter).toBeGreaterThan(1000)
})

// A thread of a study may end while it computes a point, and between two of them: each is told as what it is.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { Worker } from "node:worker_threads"
import { expect, it } from "vitest"
import type { StudyPoint } from "../../sim/study/definition.ts"
import { StudyThread } from "../../sim/study/thread.ts"

const point: StudyPoint = { index: 0, axes: {}, values: {}, grid: [] }

/** A thread that does so much before it answers, and after it has. */
const thread = (before: string, after: string, limit?: number): StudyThread =>
  new StudyThread(
    new Worker(
      `const { parentPort } = require("node:worker_threads")
       const fill = () => { const all = []; for (;;) all.push(new Array(1e5).fill({})) }
       parentPort.on("message", () => { ${before}; parentPort.postMessage({ rows: [] }); ${after} })`,
      { eval: true, ...(limit === undefined ? {} : { resourceLimits: { maxOldGenerationSizeMb: limit } }) }
    )
  )

const defectOf = async (effect: Effect.Effect<unknown>): Promise<string> => {
  const exit = await Effect.runPromiseExit(effect)
  return Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "none"
}
/** When a thread has ended between two points, as `isFull` tells of it: full, or a defect. However slow the machine, it does. */
const endOf = async (one: StudyThread): Promise<string> => {
  for (;;) {
    const exit = await Effect.runPromiseExit(one.isFull)
    if (Exit.isFailure(exit)) return String(Cause.squash(exit.cause))
    if (exit.value) return "full"
    await new Promise((resume) => setTimeout(resume, 20))
  }
}

it("that fails between two points is a defect when it is asked again, and ends no process", async () => {
  const one = thread("", 'setTimeout(() => { throw new Error("late") }, 20)')
  expect(await Effect.runPromise(one.ask(point))).toEqual([])
  expect(await endOf(one)).toContain("late")
  expect(await defectOf(one.ask(point))).toContain("late")
  await Effect.runPromise(one.end)
})

it("that fails or leaves within a point is a defect", async () => {
  expect(await defectOf(thread('throw new Error("at once")', "").ask(point))).toContain("at once")
  expect(await defectOf(thread("process.exit(3)", "").ask(point))).toContain("exit code 3")
})

it("that takes all its memory between two points is no point's fault", async () => {
  const one = thread("", "setTimeout(fill, 20)", 32)
  expect(await Effect.runPromise(one.ask(point))).toEqual([])
  expect(await endOf(one)).toBe("full")
  const within = thread("fill()", "", 32)
  expect(await Effect.runPromise(within.ask(point))).toBeUndefined()
})

// What the system answers, as messages have it: words first, and what is no answer of the system as it is.
import { readFileSync, writeFileSync } from "node:fs"
import { expect, it } from "vitest"
import { fileOf, plainly } from "../../traces/system-words.ts"

const answer = (ask: () => unknown): unknown => {
  try {
    ask()
    return "no answer"
  } catch (cause) {
    return cause
  }
}

it("answers of the system are told in words, their code last", () => {
  const cases: ReadonlyArray<readonly [() => unknown, string, string]> = [
    [
      () => writeFileSync("/dev/full", "text"),
      "no space left on device (ENOSPC)",
      "on a disk with no space left (ENOSPC)"
    ],
    [
      () => readFileSync(`/tmp/${"x".repeat(300)}`),
      "name too long (ENAMETOOLONG)",
      "a name that is too long (ENAMETOOLONG)"
    ],
    [
      () => readFileSync("/dev/null/file"),
      "not a directory (ENOTDIR)",
      "inside of a file, which is no folder (ENOTDIR)"
    ],
    [
      () => readFileSync("/tmp/nobody, has 'this'"),
      "no such file or directory (ENOENT)",
      "refused by the system: no such file or directory (ENOENT)"
    ]
  ]
  for (const [ask, said, file] of cases) {
    const cause = answer(ask)
    expect([plainly(cause), fileOf(cause)]).toEqual([said, file])
  }
  for (const cause of [new Error("Every: thing else"), "E2BIG"])
    expect([plainly(cause), fileOf(cause)]).toEqual(
      Array(2).fill(cause instanceof Error ? cause.message : cause)
    )
})

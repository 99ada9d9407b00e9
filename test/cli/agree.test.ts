// The verdict of exec agree: a recorded run in which one thing is otherwise than the simulator has it is said to differ, in that, in words,
// in JSON and by the exit code.
import { readFileSync } from "node:fs"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import { beforeAll, expect, it } from "vitest"
import { readRecord, writeRecord } from "../../exec/record-folder.ts"
import type { RunRecord } from "../../exec/record-run.ts"
import { describeNative } from "../native/addon.ts"
import { exec, execEach, folder } from "./launch.ts"

const asked = ["agree", "scenarios/agree/data-parallel.yaml", "--set", "steps=2"]
const here = folder()
const kept = path.join(here, "kept")

/** Each is wrong in one thing, on the last rank. */
const wrong: Readonly<Record<string, (record: RunRecord) => RunRecord>> = {
  "values at the end": (record) => {
    const finals = new Map(record.finals)
    const last = Math.max(...finals.keys())
    const own = new Map(finals.get(last)!)
    const [id, values] = [...own].find(
      ([, data]) => data instanceof Float32Array && data.some((x) => x !== 0)
    )!
    own.set(
      id,
      values.map((x) => x * 1.5)
    )
    return { ...record, finals: finals.set(last, own) }
  },
  "decisions in an op log": ({ opLogs, ...record }) => ({
    ...record,
    opLogs: opLogs.map(({ rank, entries }) => ({
      rank,
      entries: entries.map((entry, at) =>
        rank === opLogs.length - 1 && at === entries.length - 1 ? { ...entry, label: "another" } : entry
      )
    }))
  }),
  "decisions in a journal": ({ journals, ...record }) => ({
    ...record,
    journals: journals.map(({ rank, entries }) => ({
      rank,
      entries: rank === journals.length - 1 ? entries.filter(({ kind }) => kind !== "endStep") : entries
    }))
  }),
  order: ({ timeline, ...record }) => {
    // The last op to end begins when the run does.
    const startSeconds = timeline.startSeconds.slice()
    startSeconds[timeline.endSeconds.indexOf(Math.max(...timeline.endSeconds))] = 0
    return { ...record, timeline: { ...timeline, startSeconds } }
  }
}

describeNative("exec agree --from", () => {
  beforeAll(async () => {
    const { status, stderr } = exec(...asked, "--record", kept)
    expect(status, stderr).toBe(0)
    const of = JSON.parse(readFileSync(path.join(kept, "run.json"), "utf8")) as Parameters<
      typeof readRecord
    >[1]
    const { scenario, scenarioDigest, ranks } = of
    const record = await Effect.runPromise(readRecord(kept, of))
    for (const [name, change] of Object.entries(wrong)) {
      const written = writeRecord(path.join(here, name), { scenario, scenarioDigest, ranks }, change(record))
      await Effect.runPromise(written)
    }
  })

  it("says that a run differs, in what, and ends with 1", () => {
    const names = Object.keys(wrong)
    const from = (name: string, ...more: ReadonlyArray<string>) => [
      ...asked,
      "--from",
      path.join(here, name),
      ...more
    ]
    const ended = execEach([from("kept"), ...names.flatMap((name) => [from(name), from(name, "--json")])])
    expect(ended[0]).toMatchObject({ status: 0 })
    expect(ended[0]!.stdout).not.toMatch(/DIFFER|ILLEGAL|disagreement/u)
    for (const [at, name] of names.entries()) {
      const [words, json] = [ended[2 * at + 1]!, ended[2 * at + 2]!]
      expect([words.status, json.status], `${name}: ${words.stderr}`).toEqual([1, 1])
      const kind = name.split(" ")[0]!
      // Tensors of runs that decided otherwise are not compared: their values are not said to agree.
      expect(JSON.parse(json.stdout), name).toMatchObject({
        decisions: kind !== "decisions",
        values: kind === "order",
        ...(kind === "decisions" ? {} : { order: kind !== "order" }),
        firstDisagreement: { kind }
      })
      expect(words.stdout, name).toMatch(new RegExp(`^${kind} +(?:DIFFER|ILLEGAL)`, "mu"))
      expect(words.stdout, name).toMatch(/^first disagreement: \S/mu)
    }
  })
})

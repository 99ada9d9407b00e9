// No knob that is not connected: two clearly different values of a documented field give different results, or a warning that
// names the field, or one of them is refused by name.
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { afterAll, describe, expect, it } from "vitest"
import { familyOf, tasks, withIgnoredFields, type Task } from "../../scenarios/families.ts"
import type { Shape } from "../../scenarios/file/shape.ts"
import { Loader } from "../../scenarios/load.ts"
import { loadScenario, shapeFor } from "../../scenarios/scenario-file.ts"
import { runScenario } from "../../sim/run.ts"
import { bases, elsewhere, labels, refused } from "./knob-bases.ts"
import { knobs } from "./knobs.ts"
import type { Knob } from "./shared-knobs.ts"

const root = path.resolve(import.meta.dirname, "../..")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "knobs-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))
const loader = new Loader()

const fileOf = (task: Task): string => {
  const file = path.join(folder, `${task}.yaml`)
  fs.writeFileSync(file, bases[task] ?? "")
  // Files that knobs name lie in the repository.
  for (const name of ["traces", "test"]) {
    const link = path.join(folder, name)
    if (!fs.existsSync(link)) fs.symlinkSync(path.join(root, name), link)
  }
  return file
}

/** What a run tells, and what is warned of; or the reason why there is no run, which tells something too. */
const told = async (file: string, sets: ReadonlyArray<string>) => {
  const ran = await Effect.runPromise(
    Effect.result(
      Effect.flatMap(loadScenario(file, sets), (scenario) =>
        Effect.map(runScenario(scenario, file, { loader }), ({ result }) =>
          withIgnoredFields(result, scenario)
        )
      )
    )
  )
  if (Result.isFailure(ran)) return { refused: true, text: ran.failure.message, warnings: [] }
  const { warnings, details, ...rest } = ran.success
  // Fitted lines say again what the scenario said, whether or not anything was costed by them.
  const shown = details === undefined ? undefined : { ...details, fits: undefined }
  return { refused: false, text: JSON.stringify({ ...rest, details: shown }), warnings }
}

/** Every field that a task's scenarios may have, as a path. */
const fieldsOf = (shape: Shape, at = ""): ReadonlyArray<string> => {
  if (shape.kind === "choice") return shape.options.flatMap((option) => fieldsOf(option, at))
  if (shape.kind !== "fields") return [at]
  return [...shape.fields].flatMap(([name, field]) =>
    fieldsOf(field.shape, at === "" ? name : `${at}.${name}`)
  )
}

/** A warning is of a field when it begins with the field's name, or with that of a section or list around it. */
const names = (warning: string, field: string): boolean => {
  const parts = field.split(".")
  return parts.some((_, i) => {
    const outer = parts.slice(0, i + 1).join(".")
    return warning.startsWith(outer) && !/^[\w.]/u.test(warning.slice(outer.length))
  })
}

describe.each(tasks)("%s", (task) => {
  it("has every documented field among the knobs", () => {
    const known = new Set([...labels, ...elsewhere, ...(knobs[task] ?? []).map(([field]) => field)])
    const missing = new Set(
      fieldsOf(shapeFor({ task })).filter(
        (field) => !known.has(field) && !["study.", ...refused].some((section) => field.startsWith(section))
      )
    )
    expect([...missing]).toEqual([])
  })

  it("knows which fields name files", () => {
    const { fileFields } = familyOf({ task })
    const named = fileFields.map((field) => field.join("."))
    const files = (knobs[task] ?? []).filter(([, one]) => fs.existsSync(path.join(root, one)))
    expect(files.length).toBeGreaterThan(0)
    for (const [field] of files) expect(named).toContain(field)
  })

  it("has no knob without effect", async () => {
    const file = fileOf(task)
    expect((await told(file, [])).refused).toBe(false)
    const dead: Array<Knob> = []
    for (const knob of knobs[task] ?? []) {
      const [field, one, other, ...needs] = knob
      const [a, b] = [
        await told(file, [...needs, `${field}=${one}`]),
        await told(file, [...needs, `${field}=${other}`])
      ]
      expect(a.refused && b.refused ? a.text : undefined, field).toBeUndefined()
      const differ = a.text !== b.text
      if (!differ && ![...a.warnings, ...b.warnings].some((warning) => names(warning, field))) dead.push(knob)
    }
    expect(dead).toEqual([])
  })
})
